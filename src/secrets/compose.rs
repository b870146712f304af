//! What the Secret holds, out of what the store gave and what was generated. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use regex::Regex;

use super::{
    fetch::Answer,
    generate,
    memory::Memory,
    pattern,
    property::{self, PropertyError},
    reason::Reason,
    status::Problem,
    store::{Content, Find, Place, SecretData, StoreError},
};
use crate::api::secret_rotation::{DataFrom, DeletionPolicy, MergePolicy, RemoteRef, Rewrite, SecretRotationSpec};

/// More keys than anybody writes by hand; their hashes still fit into the annotations of a Secret.
const MAX_KEYS: usize = 1000;

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
    let pushed =
        spec.rotation.iter().flat_map(|rotation| &rotation.push).map(|push| (&push.secret_key, push.remote_ref.remote(), "rotation.push"));
    // What is under `data` is meant where both name a key.
    let data = spec.data.iter().map(|data| (&data.secret_key, data.remote_ref.clone(), "data"));
    for (key, reference, field) in pushed.chain(data) {
        if spec.rotation.iter().flat_map(|rotation| &rotation.generate).any(|generate| generate.secret_key == *key) {
            gathered.remote.insert(key.clone());
        }
        match single(&reference, remote, &format!("{field} {key:?}"))? {
            Ok(value) => {
                gathered.gone.remove(key);
                gathered.values.insert(key.clone(), value);
            }
            Err(gone) => {
                gathered.values.remove(key);
                gathered.gone.insert(key.clone(), gone);
            }
        }
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
    Ok(gathered)
}

/// Where generated values are kept that were replaced.
pub fn previous_keys(spec: &SecretRotationSpec) -> impl Iterator<Item = String> {
    let rotation = spec.rotation.as_ref();
    let suffix = rotation.and_then(|rotation| rotation.previous.as_ref()).map(|previous| previous.suffix.as_str());
    let generated = rotation.into_iter().flat_map(|rotation| &rotation.generate);
    generated.filter_map(move |generate| Some(format!("{}{}", generate.secret_key, suffix?)))
}

/// Where generated values are that were replaced: in the spec's words, and where they were put with a suffix that the spec had then.
pub fn kept_keys<'a>(spec: &'a SecretRotationSpec, memory: &'a Memory) -> impl Iterator<Item = String> + 'a {
    let generated = spec.rotation.iter().flat_map(|rotation| &rotation.generate);
    let then = generated.filter_map(|generate| Some(format!("{}{}", generate.secret_key, memory.previous_suffix.as_deref()?)));
    previous_keys(spec).chain(then)
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
        // What was generated and is nowhere else does not go with what is gone.
        (Some(_), DeletionPolicy::Delete) if gathered.values.is_empty() && only_remote(spec, gathered) => Ok(Gone::Everything),
        (Some(first), _) => {
            let more = if gone.len() > 1 { format!(" (and {} more)", gone.len() - 1) } else { String::new() };
            Err(Problem::new(Reason::ValueNotFound, format!("{first}{more}; the Secret stays as it is")))
        }
    }
}

fn only_remote(spec: &SecretRotationSpec, gathered: &Gathered) -> bool {
    spec.rotation.iter().flat_map(|rotation| &rotation.generate).all(|generate| gathered.remote.contains(&generate.secret_key))
}

/// The suffix of the key with what is public of a generated value.
pub const PUBLIC: &str = ".pub";

/// The keys with what is public of generated values.
pub fn public_keys(spec: &SecretRotationSpec) -> impl Iterator<Item = String> {
    let generated = spec.rotation.iter().flat_map(|rotation| &rotation.generate);
    generated.filter(|generate| generate.generator.has_public()).map(|generate| format!("{}{PUBLIC}", generate.secret_key))
}

/// Puts beside the generated values what is public of them.
pub fn publish(spec: &SecretRotationSpec, values: &mut SecretData) -> Result<(), Problem> {
    let Some(rotation) = &spec.rotation else { return Ok(()) };
    for generate in rotation.generate.iter().filter(|generate| generate.generator.has_public()) {
        let key = &generate.secret_key;
        let Some(value) = values.get(key) else { continue };
        let previous = rotation.previous.as_ref().and_then(|previous| values.get(&format!("{key}{}", previous.suffix)));
        // What was before may have been of another generator, of which nothing is public.
        let previous = previous.filter(|previous| generate::public(&generate.generator, previous, None).is_ok());
        let public = generate::public(&generate.generator, value, previous.map(|previous| previous.as_slice())).map_err(|error| {
            let message = format!(
                "rotation.generate {key:?}: what is there is not what this generator makes: {error}; `seaworthy rotate` replaces it; the Secret stays as it is"
            );
            Problem::new(Reason::ValueInvalid, message)
        })?;
        if let Some(public) = public {
            values.insert(format!("{key}{PUBLIC}"), public);
        }
    }
    Ok(())
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
    if size > super::store::MAX_VALUE {
        let message = format!("the Secret would hold {size} bytes; Kubernetes allows {}", super::store::MAX_VALUE);
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
                Err(Problem::new(Reason::ValueInvalid, format!("{field}: {}: {error}; the Secret stays as it is", reference.key)))
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
                return Ok(Err(format!("{field}: nothing is found")));
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

/// What a key of a Secret cannot hold becomes `_`; at most 253 characters.
fn key_of(name: &str) -> String {
    let sign = |sign: char| if sign.is_ascii_alphanumeric() || "-._".contains(sign) { sign } else { '_' };
    let key: String = name.chars().map(sign).take(MAX_KEY).collect();
    if matches!(key.as_str(), "" | "." | "..") { "_".into() } else { key }
}
