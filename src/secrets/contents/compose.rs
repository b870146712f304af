//! What the Secret holds, out of what the store gave and what was generated. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use regex::Regex;

use super::{
    generate, pattern,
    property::{self, PropertyError},
    template,
};
use crate::{
    api::secret_rotation::{DataFrom, DeletionPolicy, MergePolicy, RemoteRef, Rewrite, SecretRotationSpec, TemplateText},
    secrets::{
        memory::Memory,
        reason::Reason,
        status::Problem,
        store::{Answer, Content, Find, Place, SecretData, StoreError},
    },
};

/// More keys than anybody writes by hand; their hashes still fit into the annotations of a Secret.
const MAX_KEYS: usize = 1000;

/// Templates of texts that name previous values are remembered with them, in an annotation: so many bytes of them all.
pub const MAX_TEMPLATES: usize = 16 * 1024;

/// The longest key of a Secret.
const MAX_KEY: usize = 253;

/// What the store gave.
#[derive(Clone, Debug, Default)]
pub struct Remote {
    /// By place.
    pub values: HashMap<Place, Answer>,
    /// What was found, by what was looked for.
    pub found: HashMap<Find, Vec<String>>,
}

impl Remote {
    /// Of all values.
    pub fn bytes(&self) -> usize {
        self.values.values().filter_map(|answer| answer.as_ref().as_ref().ok()).map(|stored| stored.content.len()).sum()
    }
}

/// The values, before the template.
#[derive(Default)]
pub struct Gathered {
    /// By key of the Secret.
    pub values: SecretData,
    /// Keys of the Secret whose values the store does not have, and what to say about it.
    pub gone: BTreeMap<String, String>,
    /// Keys under `rotation.generate` that the store has, or would.
    pub remote: BTreeSet<String>,
    /// Of these, those that one place under `rotation.push` lacks and another one has, with what that has.
    pub lacking: SecretData,
    /// What to say about a key that has one value at one place under `rotation.push`, and another one at another.
    pub differing: Option<String>,
}

/// Gathers the values. A key that is gone is listed; a key that is denied or malformed is a problem of all of it.
pub fn gather(spec: &SecretRotationSpec, remote: &Remote) -> Result<Gathered, Problem> {
    let mut gathered = Gathered::default();
    for (number, from) in spec.data_from.iter().enumerate() {
        let field = format!("dataFrom[{number}]");
        match extracted(from, remote, &field)? {
            Ok(values) => {
                gathered.values.extend(values);
                if gathered.values.len() > MAX_KEYS {
                    return Err(too_many(gathered.values.len()));
                }
            }
            Err(gone) => {
                gathered.gone.insert(field, gone);
            }
        }
    }
    check_generated(spec, &gathered.values)?;
    for (key, references) in references(spec) {
        gather_one(spec, &mut gathered, (key, references), remote)?;
    }
    if gathered.values.len() > MAX_KEYS {
        return Err(too_many(gathered.values.len()));
    }
    if let Some(key) = previous_keys(spec).find(|key| gathered.values.contains_key(key)) {
        let message = format!(
            "{key:?} comes from the store, and is where a generated value is kept that was replaced; name it otherwise, or choose another rotation.previous.suffix"
        );
        return Err(Problem::new(Reason::ValueInvalid, message));
    }
    check_renewable(spec, &gathered.values)?;
    Ok(gathered)
}

/// Where a key of the Secret is in the store, each with the field that says so.
type References = Vec<(RemoteRef, &'static str)>;

/// By key of the Secret. What is under `data` is meant where several name one, and comes first.
fn references(spec: &SecretRotationSpec) -> BTreeMap<&String, References> {
    let data = spec.data.iter().map(|data| (&data.secret_key, data.remote_ref.clone(), "data"));
    let pushed = spec.rotation_pushes();
    let pushed = pushed.map(|push| (&push.secret_key, push.remote_ref.remote(), "rotation.push"));
    let mut all = BTreeMap::<_, References>::new();
    for (key, reference, field) in data.chain(pushed) {
        all.entry(key).or_default().push((reference, field));
    }
    all
}

/// Gathers the value of one key. One that any of several places has is the value; it is lacking at those that do not have it.
fn gather_one(
    spec: &SecretRotationSpec,
    gathered: &mut Gathered,
    (key, references): (&String, References),
    remote: &Remote,
) -> Result<(), Problem> {
    if spec.generators().any(|generate| generate.secret_key == *key) {
        gathered.remote.insert(key.clone());
    }
    let (mut found, mut gone) = (Vec::new(), Vec::new());
    for (reference, field) in references {
        match single(&reference, remote, &format!("{field} {key:?}"))? {
            Ok(value) => found.push((value, reference)),
            Err(why) => gone.push(why),
        }
    }
    let Some((value, reference)) = found.first() else {
        gathered.values.remove(key);
        gathered.gone.extend(gone.into_iter().next().map(|why| (key.clone(), why)));
        return Ok(());
    };
    if !gone.is_empty() {
        gathered.lacking.insert(key.clone(), value.clone());
    }
    let canonical = property::canonical(value);
    if let Some((_, other)) = found.iter().find(|(other, _)| property::canonical(other) != canonical) {
        let message = format!(
            "rotation.push {key:?}: the store has one value at {} and another one at {}; make them the same, or delete one: it is filled with the other",
            shown(reference),
            shown(other)
        );
        gathered.differing.get_or_insert(message);
    }
    gathered.values.insert(key.clone(), value.clone());
    Ok(())
}

fn shown(reference: &RemoteRef) -> String {
    let property = reference.property.as_ref().map(|property| format!(", property {property:?}")).unwrap_or_default();
    format!("{}{property}", reference.key)
}

/// Refuses what is generated, and at each refresh would be as the store has it: values of `dataFrom` under the same key.
fn check_generated(spec: &SecretRotationSpec, values: &SecretData) -> Result<(), Problem> {
    let Some(rotation) = &spec.rotation else { return Ok(()) };
    let is_pushed = |key: &String| rotation.push.iter().any(|push| push.secret_key == *key);
    let mut generated = rotation.generate.iter().map(|generate| &generate.secret_key);
    let Some(key) = generated.find(|key| values.contains_key(*key) && !is_pushed(key)) else { return Ok(()) };
    let message = format!(
        "{key:?} is generated, and among the values of dataFrom: the store would take each new value back; name one of them otherwise, or bring new values to the store by rotation.push; the Secret stays as it is"
    );
    Err(Problem::new(Reason::ValueInvalid, message))
}

/// Where generated values are kept that were replaced.
pub fn previous_keys(spec: &SecretRotationSpec) -> impl Iterator<Item = String> {
    let rotation = spec.rotation.as_ref();
    let suffix = rotation.and_then(|rotation| rotation.previous.as_ref()).map(|previous| previous.suffix.as_str());
    let generated = rotation.into_iter().flat_map(|rotation| &rotation.generate);
    generated.filter_map(move |generate| Some(format!("{}{}", generate.secret_key, suffix?)))
}

/// Where generated values are that were replaced: in the spec's words, and where they were put when it had others.
pub fn kept_keys<'a>(spec: &'a SecretRotationSpec, memory: &'a Memory) -> impl Iterator<Item = String> + 'a {
    previous_keys(spec).chain(memory.previous_keys.values().cloned())
}

/// A text that names a previous value, or the public set of a JWKS, which holds one.
pub struct TextWithPrevious<'a> {
    /// Its key.
    pub key: &'a String,
    /// As it is written.
    pub template: &'a TemplateText,
    /// The other variables that it names.
    pub others: HashSet<String>,
}

/// All of them.
pub fn texts_with_previous<'a>(spec: &'a SecretRotationSpec, memory: &Memory) -> Vec<TextWithPrevious<'a>> {
    let Some(template) = &spec.template else { return Vec::new() };
    let previous = variables(kept_keys(spec, memory));
    if previous.is_empty() {
        return Vec::new();
    }
    let public = variables(public_keys_with_previous(spec));
    let text = |(key, template): (&'a String, &'a TemplateText)| {
        let mut others = template::variables_used(&template.0)?;
        let is_one = !others.is_disjoint(&previous) || !others.is_disjoint(&public);
        others.retain(|name| !previous.contains(name));
        is_one.then_some(TextWithPrevious { key, template, others })
    };
    template.data.iter().filter_map(text).collect()
}

/// Whether a text names the value of `key`.
pub fn is_named_by_text(spec: &SecretRotationSpec, key: &str) -> bool {
    let variable = template::variable(key);
    let mut texts = spec.template.iter().flat_map(|template| template.data.values());
    texts.any(|text| template::variables_used(&text.0).is_none_or(|names| names.contains(&variable)))
}

fn variables(keys: impl Iterator<Item = String>) -> HashSet<String> {
    keys.map(|key| template::variable(&key)).collect()
}

/// Refuses a text that could not be made anew when the previous value goes: all else that it names has to stand beside it.
fn check_renewable(spec: &SecretRotationSpec, values: &SecretData) -> Result<(), Problem> {
    let Some(template) = &spec.template else { return Ok(()) };
    let texts = texts_with_previous(spec, &Memory::default());
    let bytes: usize = texts.iter().map(|text| text.key.len() + text.template.0.len()).sum();
    if bytes > MAX_TEMPLATES {
        let message = format!(
            "the templates that name a previous value, or a public set that holds one, have {bytes} bytes together, and at most {MAX_TEMPLATES} can be remembered with it; put what names it into a text of its own; the Secret stays as it is"
        );
        return Err(Problem::new(Reason::TemplateInvalid, message));
    }
    for TextWithPrevious { key, others, .. } in texts {
        if let Some(taken) = values.keys().find(|value| template.data.contains_key(*value) && others.contains(&template::variable(value))) {
            let message = format!(
                "template.data {key:?} names a previous value, or a public set that holds one, and {taken:?}, whose place another text takes: it could not be made anew when the previous value goes; give the text {taken:?} another key; the Secret stays as it is"
            );
            return Err(Problem::new(Reason::TemplateInvalid, message));
        }
    }
    Ok(())
}

/// What is gone from the store, in the words of `deletionPolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Nothing.
    Nothing,
    /// The keys go, too.
    Keys,
    /// All of them: the Secret goes.
    Everything,
}

/// Judges what is gone; values that are generated when they are missing do not count.
pub fn judge(spec: &SecretRotationSpec, gathered: &Gathered) -> Result<Gone, Problem> {
    let gone: Vec<&String> = gathered.gone.iter().filter(|(key, _)| !gathered.remote.contains(*key)).map(|(_, why)| why).collect();
    match (gone.first(), spec.target.deletion_policy) {
        (None, _) => Ok(Gone::Nothing),
        (Some(_), DeletionPolicy::Merge) => Ok(Gone::Keys),
        // What was generated may be nowhere else, and does not go with what is gone.
        (Some(_), DeletionPolicy::Delete) if gathered.values.is_empty() && spec.rotation.is_none() => Ok(Gone::Everything),
        (Some(first), _) => {
            let more = if gone.len() > 1 { format!(" (and {} more)", gone.len() - 1) } else { String::new() };
            Err(Problem::new(Reason::ValueNotFound, format!("{first}{more}; the Secret stays as it is")))
        }
    }
}

/// The suffix of the key with what is public of a generated value.
pub const PUBLIC: &str = ".pub";

/// The keys with what is public of generated values.
pub fn public_keys(spec: &SecretRotationSpec) -> impl Iterator<Item = String> {
    let generated = spec.generators();
    generated.filter(|generate| generate.generator.has_public()).map(|generate| format!("{}{PUBLIC}", generate.secret_key))
}

/// Of these, those that hold what is public of the previous value, too.
fn public_keys_with_previous(spec: &SecretRotationSpec) -> impl Iterator<Item = String> {
    let generated = spec.generators();
    generated.filter(|generate| generate.generator.publishes_previous()).map(|generate| format!("{}{PUBLIC}", generate.secret_key))
}

/// Puts beside the generated values what is public of them. The error is of the first that is not what its generator makes; the others are done.
pub fn publish(spec: &SecretRotationSpec, values: &mut SecretData) -> Result<(), Problem> {
    let Some(rotation) = &spec.rotation else { return Ok(()) };
    let mut first = Ok(());
    for generate in rotation.generate.iter().filter(|generate| generate.generator.has_public()) {
        let key = &generate.secret_key;
        let Some(value) = values.get(key) else { continue };
        let previous = rotation.previous.as_ref().and_then(|previous| values.get(&format!("{key}{}", previous.suffix)));
        // What was before may have been of another generator, of which nothing is public.
        let previous = previous.filter(|previous| generate::public(&generate.generator, previous, None).is_ok());
        match generate::public(&generate.generator, value, previous.map(|previous| previous.as_slice())) {
            Ok(public) => values.extend(public.map(|public| (format!("{key}{PUBLIC}"), public))),
            Err(error) => {
                let message = format!(
                    "rotation.generate {key:?}: what is there is not what this generator makes: {error}; `seaworthy rotate` replaces it; the Secret stays as it is"
                );
                first = first.and(Err(Problem::new(Reason::ValueInvalid, message)));
            }
        }
    }
    first
}

/// What the Secret holds.
pub fn render(spec: &SecretRotationSpec, values: SecretData, salt: &dyn Fn(&[u8]) -> [u8; 16]) -> Result<SecretData, Problem> {
    let data = match &spec.template {
        None => values,
        Some(template) => {
            let texts = template.data.iter().map(|(key, text)| (key.clone(), text.0.clone()));
            let rendered = super::template::render(texts, &values, salt)
                .map_err(|error| Problem::new(Reason::TemplateInvalid, format!("{error}; the Secret stays as it is")))?;
            match template.merge_policy {
                // Without texts there is nothing to replace the values with: the template is about metadata.
                MergePolicy::Replace if !template.data.is_empty() => rendered,
                MergePolicy::Replace | MergePolicy::Merge => values.into_iter().chain(rendered).collect(),
            }
        }
    };
    let size: usize = data.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > crate::secrets::store::MAX_VALUE {
        let message = format!("the Secret would hold {size} bytes; Kubernetes allows {}", crate::secrets::store::MAX_VALUE);
        return Err(Problem::new(Reason::ValueInvalid, message));
    }
    Ok(data)
}

type Maybe<T> = Result<T, String>;

/// The value of one reference. The inner error: it is gone.
fn single(reference: &RemoteRef, remote: &Remote, field: &str) -> Result<Maybe<property::Bytes>, Problem> {
    with(reference, remote, field, property::get)
}

fn with<T>(
    reference: &RemoteRef,
    remote: &Remote,
    field: &str,
    take: impl Fn(&Content, Option<&str>) -> Result<T, PropertyError>,
) -> Result<Maybe<T>, Problem> {
    let named = || {
        reference.property.as_ref().map_or_else(|| reference.key.clone(), |property| format!("{}, property {property:?}", reference.key))
    };
    let place = Place { key: reference.key.clone(), version: reference.version.clone() };
    let Some(answer) = remote.values.get(&place) else {
        return Err(Problem::new(Reason::StoreUnavailable, format!("{field}: {} was not read", named())));
    };
    match answer.as_ref() {
        Err(StoreError::NotFound(why)) => Ok(Err(format!("{field} ({}): {why}", named()))),
        Err(error) => {
            let problem = Problem::from(error.clone());
            Err(Problem { message: format!("{field} ({}): {}", named(), problem.message), ..problem })
        }
        Ok(stored) => match take(&stored.content, reference.property.as_deref()) {
            Ok(value) => Ok(Ok(value)),
            Err(error @ PropertyError::Missing(_)) => Ok(Err(format!("{field}: {}: {error}", reference.key))),
            Err(error) => {
                // The others name the property themselves.
                let place = if matches!(error, PropertyError::Shape(_)) { named() } else { reference.key.clone() };
                Err(Problem::new(Reason::ValueInvalid, format!("{field}: {place}: {error}; the Secret stays as it is")))
            }
        },
    }
}

/// The values of one of `dataFrom`, renamed.
fn extracted(from: &DataFrom, remote: &Remote, field: &str) -> Result<Maybe<SecretData>, Problem> {
    let values = match (&from.extract, &from.find) {
        (Some(reference), _) => match with(reference, remote, field, property::members)? {
            Ok(values) => values,
            Err(gone) => return Ok(Err(gone)),
        },
        (None, Some(find)) => {
            let names = remote.found.get(find).map(Vec::as_slice).unwrap_or_default();
            if names.is_empty() {
                let below = find.path.as_ref().map(|path| format!(" in the folder {path:?} (path)")).unwrap_or_default();
                return Ok(Err(format!("{field}: nothing is found{below}")));
            }
            let mut values = SecretData::new();
            for name in names {
                let reference = RemoteRef { key: name.clone(), property: None, version: None };
                // What was there a moment ago and is not any more was not found.
                if let Ok(value) = single(&reference, remote, field)? {
                    values.insert(name.clone(), value);
                }
            }
            values
        }
        (None, None) => SecretData::new(),
    };
    if values.len() > MAX_KEYS {
        return Err(too_many(values.len()));
    }
    let (rules, mut renamed) = (rules(&from.rewrite, field)?, SecretData::new());
    for (name, value) in values {
        let key = key_of(&rewrite(&name, &rules));
        if renamed.insert(key.clone(), value).is_some() {
            let message = format!("{field}: two names become the key {key:?}; tell them apart with rewrite");
            return Err(Problem::new(Reason::ValueInvalid, message));
        }
    }
    Ok(Ok(renamed))
}

/// A rule, its expression read.
type Rule<'a> = (Regex, &'a str);

fn rules<'a>(rewrites: &'a [Rewrite], field: &str) -> Result<Vec<Rule<'a>>, Problem> {
    let rule = |(number, rule): (usize, &'a Rewrite)| {
        let pattern = pattern::compile(&rule.regexp.source).map_err(|why| {
            Problem::new(Reason::InvalidSpec, format!("spec.{field}.rewrite[{number}].regexp.source {:?}: {why}", rule.regexp.source))
        })?;
        Ok((pattern, rule.regexp.target.as_str()))
    };
    rewrites.iter().enumerate().map(rule).collect()
}

fn rewrite(name: &str, rules: &[Rule<'_>]) -> String {
    // No longer than what a path may have, and then than a key can be, so that no rule grows out of another.
    let name: String = name.chars().take(4 * MAX_KEY).collect();
    rules.iter().fold(name, |name, (pattern, target)| pattern.replace_all(&name, *target).chars().take(MAX_KEY).collect())
}

fn too_many(keys: usize) -> Problem {
    Problem::new(Reason::ValueInvalid, format!("the Secret would have {keys} keys; at most {MAX_KEYS} can be kept: narrow dataFrom"))
}

/// What a key of a Secret cannot hold becomes `_`, and so does the first of two points that it would begin with; at most 253 characters.
fn key_of(name: &str) -> String {
    let sign = |sign: char| if sign.is_ascii_alphanumeric() || "-._".contains(sign) { sign } else { '_' };
    let key: String = name.chars().map(sign).take(MAX_KEY).collect();
    match key.as_str() {
        "" | "." | ".." => "_".into(),
        key if key.starts_with("..") => key.replacen('.', "_", 1),
        _ => key,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::secrets::store::Stored;

    fn spec(part: &Value) -> SecretRotationSpec {
        let mut spec = json!({"target": {"name": "app"}, "store": {"memory": {}}});
        spec.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    /// What a store with `values` gives for `spec`.
    fn remote(spec: &SecretRotationSpec, values: &Value) -> Remote {
        let of = |key: &String| match values.get(key) {
            Some(Value::String(text)) => Ok(Stored { content: Content::Bytes(text.clone().into_bytes().into()), version: None }),
            Some(Value::Null) => Err(StoreError::Denied("no".into())),
            Some(json) => Ok(Stored { content: Content::Bytes(json.to_string().into_bytes().into()), version: None }),
            None => Err(StoreError::NotFound(format!("{key} is not there"))),
        };
        let names: Vec<String> = values.as_object().unwrap().keys().cloned().collect();
        let named = spec.data.iter().map(|data| data.remote_ref.key.clone());
        let named = named.chain(spec.data_from.iter().filter_map(|from| from.extract.as_ref()).map(|reference| reference.key.clone()));
        let all = named.chain(names.iter().cloned());
        Remote {
            values: all.map(|key| (Place { key: key.clone(), version: None }, Arc::new(of(&key)))).collect(),
            found: spec.data_from.iter().filter_map(|from| from.find.clone()).map(|find| (find, names.clone())).collect(),
        }
    }

    /// The Secret as text, or the reason and the message.
    fn composed(part: &Value, values: &Value) -> Result<BTreeMap<String, String>, (Reason, String)> {
        let spec = spec(part);
        let problem = |problem: Problem| (problem.reason, problem.message);
        let gathered = gather(&spec, &remote(&spec, values)).map_err(problem)?;
        judge(&spec, &gathered).map_err(problem)?;
        let data = render(&spec, gathered.values, &|_| [0; 16]).map_err(problem)?;
        Ok(data.into_iter().map(|(key, value)| (key, String::from_utf8(value.to_vec()).unwrap())).collect())
    }

    fn rule(source: &str, target: &str) -> Value {
        json!({"regexp": {"source": source, "target": target}})
    }

    #[test]
    fn what_the_keys_are_called() {
        let find = |rules: Value| json!({"dataFrom": [{"find": {}, "rewrite": rules}]});
        let one = |key: &str, property: &str| json!({"secretKey": key, "remoteRef": {"key": "j", "property": property}});
        let json = json!({"j": {"a": "1", "b": "2"}});
        for (part, values, wanted) in [
            (find(json!([])), json!({"app/a": "1", "b c": "2", "": "3"}), json!({"app_a": "1", "b_c": "2", "_": "3"})),
            (find(json!([rule("^app/", "")])), json!({"app/a": "1", "b": "2"}), json!({"a": "1", "b": "2"})),
            // One after the other, and with what was matched.
            (find(json!([rule("^(.)", "x-$1"), rule("-", "_")])), json!({"a": "1"}), json!({"x_a": "1"})),
            (find(json!([rule(".*", "..")])), json!({"a": "1"}), json!({"_": "1"})),
            (find(json!([])), json!({"..a": "1", ".b": "2", "...": "3"}), json!({"_.a": "1", ".b": "2", "_..": "3"})),
            // What comes later is meant, and of all `data`.
            (
                json!({"dataFrom": [{"extract": {"key": "j"}}, {"extract": {"key": "k"}}], "data": [one("b", "a")]}),
                json!({"j": {"a": "1", "b": "2"}, "k": {"a": "3", "c": "4"}}),
                json!({"a": "3", "b": "1", "c": "4"}),
            ),
            (json!({"dataFrom": [{"extract": {"key": "j"}}], "template": {"data": {"t": "{{ a }}"}}}), json.clone(), json!({"t": "1"})),
            (
                json!({"dataFrom": [{"extract": {"key": "j"}}], "template": {"data": {"t": "{{ a }}"}, "mergePolicy": "Merge"}}),
                json.clone(),
                json!({"a": "1", "b": "2", "t": "1"}),
            ),
            (json!({"dataFrom": [{"extract": {"key": "j"}}], "template": {"type": "Opaque"}}), json, json!({"a": "1", "b": "2"})),
        ] {
            assert_eq!(composed(&part, &values).map(|data| json!(data)), Ok(wanted), "{part} {values}");
        }
    }

    #[test]
    fn what_cannot_be_names_its_field() {
        let members = |count: usize| Value::Object((0..count).map(|number| (format!("k{number}"), json!("x"))).collect());
        let extract =
            |key: &str, rules: Value| json!({"dataFrom": [{"extract": {"key": "ok"}}, {"extract": {"key": key}, "rewrite": rules}]});
        let data = |property: &str| json!({"data": [{"secretKey": "x", "remoteRef": {"key": "j", "property": property}}]});
        let values = json!({"ok": {"a": "1"}, "j": {"a-b": "1", "a.b": "2", "z": null}, "text": "plain", "many": members(MAX_KEYS), "more": members(MAX_KEYS + 1), "denied": null, "big": {"a": "x".repeat(1024 * 1024)}});
        for (part, reason, words) in [
            (extract("j", json!([rule("[-.]", "_")])), Reason::ValueInvalid, ["dataFrom[1]", "two names become the key \"a_b\""]),
            (
                extract("j", json!([rule("a", "b"), rule("(", "")])),
                Reason::InvalidSpec,
                ["spec.dataFrom[1].rewrite[1].regexp.source", "\"(\""],
            ),
            (extract("j", json!([rule("a{1000}{1000}", "")])), Reason::InvalidSpec, ["rewrite[0]", "it is too large"]),
            (extract("text", json!([])), Reason::ValueInvalid, ["dataFrom[1]: text", "stays as it is"]),
            (extract("none", json!([])), Reason::ValueNotFound, ["dataFrom[1] (none)", "stays as it is"]),
            (extract("denied", json!([])), Reason::StoreDenied, ["dataFrom[1] (denied)", "no"]),
            (extract("many", json!([])), Reason::ValueInvalid, ["1001 keys", "at most 1000"]),
            (extract("more", json!([])), Reason::ValueInvalid, ["dataFrom[1]: more", "more members than a Secret can have keys"]),
            (extract("big", json!([])), Reason::ValueInvalid, ["the Secret would hold 1048577 bytes", "Kubernetes allows"]),
            (data("b"), Reason::ValueNotFound, ["data \"x\": j", "stays as it is"]),
            (data("z"), Reason::ValueInvalid, ["data \"x\": j", "null"]),
        ] {
            let (found, message) = composed(&part, &values).unwrap_err();
            assert!(found == reason && words.iter().all(|word| message.contains(word)), "{part}: {found} {message}");
        }
        let kept =
            json!({"dataFrom": [{"extract": {"key": "j"}}], "rotation": {"generate": [{"secretKey": "k", "hex": {}}], "previous": {}}});
        let (reason, message) = composed(&kept, &json!({"j": {"k-previous": "1"}})).unwrap_err();
        assert!(reason == Reason::ValueInvalid && message.contains("rotation.previous.suffix"), "{message}");
        let (reason, message) = composed(&kept, &json!({"j": {"k": "1"}})).unwrap_err();
        assert!(reason == Reason::ValueInvalid && message.contains("\"k\" is generated, and among the values of dataFrom"), "{message}");
        let mut pushed = kept.clone();
        pushed["rotation"]["push"] = json!([{"secretKey": "k", "remoteRef": {"key": "j", "property": "k"}}]);
        assert_eq!(composed(&pushed, &json!({"j": {"k": "1"}})).unwrap()["k"], "1");
        let mut taken = kept;
        taken["template"] =
            json!({"mergePolicy": "Merge", "data": {"a-b": "{{ a_b }}", "url": "{{ a_b }} {{ k_previous }}", "z": "{{ k_previous }}"}});
        let (reason, message) = composed(&taken, &json!({"j": {"a-b": "1"}})).unwrap_err();
        assert!(reason == Reason::TemplateInvalid && message.contains("template.data \"url\"") && message.contains("\"a-b\""), "{message}");
        let mut large = taken.clone();
        large["template"]["data"] = json!({"url": "x".repeat(MAX_TEMPLATES) + "{{ k_previous }}"});
        let (reason, message) = composed(&large, &json!({"j": {"a.b": "1"}})).unwrap_err();
        assert!(reason == Reason::TemplateInvalid && message.contains("a text of its own"), "{message}");
        // Of another key that is the same as a variable no text has taken the place.
        let (_, message) = composed(&taken, &json!({"j": {"a.b": "1"}})).unwrap_err();
        assert!(message.contains("no such variable"), "{message}");
    }

    #[test]
    fn what_is_gone_is_judged_by_the_policy() {
        let part = |policy: &str| {
            let data = ["a", "b"].map(|key| json!({"secretKey": key, "remoteRef": {"key": key}}));
            json!({"target": {"name": "app", "deletionPolicy": policy}, "data": data})
        };
        let judge = |spec: &SecretRotationSpec, values: &Value| {
            judge(spec, &gather(spec, &remote(spec, values)).unwrap()).map_err(|problem| problem.reason)
        };
        let judged = |policy: &str, values: &Value| judge(&spec(&part(policy)), values);
        for (policy, values, wanted) in [
            ("Retain", json!({"a": "1", "b": "2"}), Ok(Gone::Nothing)),
            ("Retain", json!({"a": "1"}), Err(Reason::ValueNotFound)),
            ("Retain", json!({}), Err(Reason::ValueNotFound)),
            ("Merge", json!({"a": "1"}), Ok(Gone::Keys)),
            ("Merge", json!({}), Ok(Gone::Keys)),
            ("Delete", json!({"a": "1"}), Err(Reason::ValueNotFound)),
            ("Delete", json!({}), Ok(Gone::Everything)),
        ] {
            assert_eq!(judged(policy, &values), wanted, "{policy} {values}");
        }
        // What was generated may stand in the Secret alone, also where it is to be pushed.
        let mut generated = part("Delete");
        let push = json!([{"secretKey": "g", "remoteRef": {"key": "a", "property": "g"}}]);
        generated["rotation"] = json!({"generate": [{"secretKey": "g", "hex": {}}], "push": push});
        assert_eq!(judge(&spec(&generated), &json!({})), Err(Reason::ValueNotFound));
    }

    #[test]
    fn texts_that_name_a_previous_value() {
        let data = json!({
            "url": "{{ user }} {{ p_w_old }}", "user-list": "{{ user_list }} {{ p_w_old }}", "other": "{{ p_w }} p_w_old", "all": "{{ set_pub }}",
            "line": "{{ user }} {{ ssh_pub }}",
        });
        let spec: SecretRotationSpec = serde_json::from_value(json!({
            "target": {"name": "s"}, "template": {"mergePolicy": "Merge", "data": data},
            "rotation": {"generate": [{"secretKey": "p-w", "hex": {}}, {"secretKey": "set", "jwks": {}}, {"secretKey": "ssh", "sshKey": {}}], "previous": {"suffix": "-old"}},
        }))
        .unwrap();
        let found = texts_with_previous(&spec, &Memory::default());
        let found: Vec<_> = found.iter().map(|text| (text.key.as_str(), text.others.iter().map(String::as_str).collect())).collect();
        assert_eq!(found, [("all", vec!["set_pub"]), ("url", vec!["user"]), ("user-list", vec!["user_list"])]);
    }

    #[test]
    fn no_name_grows() {
        let rules = json!([rule("(.*)", "$1$1$1$1"), rule("(.*)", "$1$1$1$1"), rule("(.*)", "$1$1$1$1")]);
        let found = composed(&json!({"dataFrom": [{"find": {}, "rewrite": rules}]}), &json!({"a".repeat(500): "1"})).unwrap();
        assert_eq!(found.into_keys().map(|key| key.len()).collect::<Vec<_>>(), [MAX_KEY]);
    }
}
