//! Parts of a value: a path into JSON, a key of a Secret. Numbers and nested values keep the text that they have. Pure.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::secrets::store::{Content, SecretData};

/// Why a part cannot be had. No text holds anything of the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// There is no such part.
    #[error("property {0:?} is not in it")]
    Missing(String),
    /// It is null, which is no value.
    #[error("property {0:?} is null")]
    Null(String),
    /// The path cannot be read.
    #[error("property {0:?} is no path; write a.b, a[0] or one key")]
    Path(String),
    /// It is no JSON, or not of the kind that the path needs.
    #[error("{0}")]
    Shape(&'static str),
}

/// Of an object that is taken apart, as many are made keys.
const MOST_MEMBERS: usize = 1000;
/// A path has no more steps: each reads what is left of the value.
const MOST_STEPS: usize = 16;

/// The value of one part.
pub type Bytes = Zeroizing<Vec<u8>>;

/// The part of `content` that `property` names; None: all of it.
pub fn get(content: &Content, property: Option<&str>) -> Result<Bytes, PropertyError> {
    match (content, property) {
        (Content::Bytes(bytes), None) => Ok(bytes.clone()),
        (Content::Bytes(bytes), Some(property)) => plain(find(raw(bytes)?, property)?, property),
        (Content::Map(map), None) => whole(map),
        (Content::Map(map), Some(property)) => of_map(map, property),
    }
}

/// Each member of a JSON object or each key of a Secret. A member that is null is left out.
pub fn members(content: &Content, property: Option<&str>) -> Result<SecretData, PropertyError> {
    let object = |bytes: &[u8]| -> Result<SecretData, PropertyError> {
        let members = serde_json::from_slice::<Members<'_>>(bytes).map_err(|_| PropertyError::Shape("it is no JSON object"))?;
        if members.0.len() > MOST_MEMBERS {
            return Err(PropertyError::Shape("it has more members than a Secret can have keys"));
        }
        let values = members.0.into_iter().filter(|(_, value)| value.get() != "null");
        values.map(|(name, value)| Ok((name.to_string(), plain(value, &name)?))).collect()
    };
    match (content, property) {
        (Content::Map(map), None) => Ok(map.clone()),
        (Content::Bytes(bytes), None) => object(bytes),
        (_, Some(_)) => object(&get(content, property)?),
    }
}

/// `content` with `value` as the part `property`; everything else stays as it is. What is not there is made.
pub fn set(content: &Content, property: Option<&str>, value: &[u8]) -> Result<Content, PropertyError> {
    match (content, property) {
        (Content::Bytes(_), None) => Ok(Content::Bytes(value.to_vec().into())),
        (Content::Map(_), None) => Err(PropertyError::Shape("a Secret has keys: say in property which")),
        (Content::Map(map), Some(property)) => {
            let mut map = map.clone();
            map.insert(property.into(), value.to_vec().into());
            Ok(Content::Map(map))
        }
        (Content::Bytes(bytes), Some(property)) => {
            let text = std::str::from_utf8(value).map_err(|_| PropertyError::Shape("only text can be a property of JSON"))?;
            let text = Zeroizing::new(serde_json::to_string(text).map_err(|_| PropertyError::Shape("it cannot be written as JSON"))?);
            let object: Members<'_> = serde_json::from_slice(bytes)
                .map_err(|_| PropertyError::Shape("what is there is no JSON object, so that no property of it can be replaced"))?;
            let literal = object.0.iter().any(|(name, _)| *name == property);
            let steps = if literal { vec![Step::Key(property.into())] } else { path(property)? };
            let mut written = Zeroizing::new(Vec::with_capacity(bytes.len() + text.len()));
            replaced(Some(object), &steps, (property, &text), &mut written)?;
            Ok(Content::Bytes(written))
        }
    }
}

/// Writes `object` with `text` in the place of what is at `steps`, which the user calls `property`.
fn replaced(
    object: Option<Members<'_>>,
    steps: &[Step],
    (property, text): (&str, &str),
    written: &mut Vec<u8>,
) -> Result<(), PropertyError> {
    let Some((Step::Key(key), rest)) = steps.split_first() else { return Err(PropertyError::Path(property.into())) };
    let (mut found, mut first) = (false, true);
    let mut member = |name: &str, written: &mut Vec<u8>| {
        if !std::mem::take(&mut first) {
            written.push(b',');
        }
        written.extend_from_slice(serde_json::Value::String(name.into()).to_string().as_bytes());
        written.push(b':');
    };
    let below = |value: Option<&RawValue>, written: &mut Vec<u8>| match (rest.is_empty(), value) {
        (true, _) => {
            written.extend_from_slice(text.as_bytes());
            Ok(())
        }
        (false, None) => replaced(None, rest, (property, text), written),
        (false, Some(value)) => {
            let inner = serde_json::from_str(value.get()).map_err(|_| PropertyError::Missing(property.into()))?;
            replaced(Some(inner), rest, (property, text), written)
        }
    };
    written.push(b'{');
    for (name, value) in object.into_iter().flat_map(|object| object.0) {
        member(&name, written);
        if *name == **key {
            found = true;
            below(Some(value), written)?;
        } else {
            written.extend_from_slice(value.get().as_bytes());
        }
    }
    if !found {
        member(key, written);
        below(None, written)?;
    }
    written.push(b'}');
    Ok(())
}

/// A Secret as JSON: all of its keys, if they are text.
fn whole(map: &SecretData) -> Result<Bytes, PropertyError> {
    let text = |bytes: &Bytes| {
        let text = std::str::from_utf8(bytes).map_err(|_| PropertyError::Shape("it has keys that are not text: name one in property"))?;
        serde_json::to_string(text).map(Zeroizing::new).map_err(|_| PropertyError::Shape("it cannot be written as JSON"))
    };
    let mut json = Zeroizing::new(Vec::with_capacity(map.iter().map(|(key, value)| key.len() + 2 * value.len() + 8).sum()));
    json.push(b'{');
    for (number, (key, value)) in map.iter().enumerate() {
        if number > 0 {
            json.push(b',');
        }
        json.extend_from_slice(serde_json::Value::String(key.clone()).to_string().as_bytes());
        json.push(b':');
        json.extend_from_slice(text(value)?.as_bytes());
    }
    json.push(b'}');
    Ok(json)
}

/// A key of a Secret, or `KEY.PATH` into the JSON of one. Keys have dots themselves: the longest that is there is meant.
fn of_map(map: &SecretData, property: &str) -> Result<Bytes, PropertyError> {
    if let Some(value) = map.get(property) {
        return Ok(value.clone());
    }
    let cuts = property.char_indices().rev().filter(|(_, sign)| *sign == '.' || *sign == '[');
    for (cut, sign) in cuts {
        let (key, path) = property.split_at(cut);
        if let Some(value) = map.get(key) {
            let path = if sign == '.' { path.trim_start_matches('.') } else { path };
            return plain(find(raw(value)?, path).map_err(|_| PropertyError::Missing(property.into()))?, property);
        }
    }
    Err(PropertyError::Missing(property.into()))
}

fn raw(bytes: &[u8]) -> Result<&RawValue, PropertyError> {
    serde_json::from_slice(bytes).map_err(|_| PropertyError::Shape("it is no JSON, so that it has no properties"))
}

/// What stands at `property`: a member of that very name first, whatever signs are in it, then a path.
fn find<'a>(value: &'a RawValue, property: &str) -> Result<&'a RawValue, PropertyError> {
    let missing = || PropertyError::Missing(property.into());
    if let Ok(object) = serde_json::from_str::<Members<'a>>(value.get())
        && let Some((_, found)) = object.0.into_iter().find(|(name, _)| *name == property)
    {
        return Ok(found);
    }
    let element = |value: &'a RawValue, index: usize| {
        let list: Vec<&'a RawValue> = serde_json::from_str(value.get()).map_err(|_| missing())?;
        list.get(index).copied().ok_or_else(missing)
    };
    path(property)?.iter().try_fold(value, |value, step| match (step, value.get().as_bytes()) {
        (Step::Index(index), _) => element(value, *index),
        // `a.0` for `a[0]`, as external-secrets has it.
        (Step::Key(key), [b'[', ..]) => element(value, key.parse().map_err(|_| missing())?),
        (Step::Key(key), _) => {
            let object: Members<'a> = serde_json::from_str(value.get()).map_err(|_| missing())?;
            object.0.into_iter().find(|(name, _)| *name == **key).map(|(_, found)| found).ok_or_else(missing)
        }
    })
}

/// A string without its quotes; everything else as its JSON text.
fn plain(value: &RawValue, property: &str) -> Result<Bytes, PropertyError> {
    let text = value.get();
    if text == "null" {
        return Err(PropertyError::Null(property.into()));
    }
    if text.starts_with('"') {
        let text: String = serde_json::from_str(text).map_err(|_| PropertyError::Shape("it holds a text that cannot be read"))?;
        return Ok(Zeroizing::new(text.into_bytes()));
    }
    Ok(Zeroizing::new(text.as_bytes().to_vec()))
}

enum Step {
    Key(String),
    Index(usize),
}

/// `a.b[0].c`; for reading `a.b.0.c` as well.
fn path(property: &str) -> Result<Vec<Step>, PropertyError> {
    let wrong = || PropertyError::Path(property.into());
    let mut steps = Vec::new();
    for part in property.split('.') {
        let (key, mut indices) = part.split_at(part.find('[').unwrap_or(part.len()));
        if key.is_empty() && (indices.is_empty() || !steps.is_empty()) {
            return Err(wrong());
        }
        if !key.is_empty() {
            steps.push(Step::Key(key.into()));
        }
        while !indices.is_empty() {
            let (index, rest) = indices.strip_prefix('[').and_then(|rest| rest.split_once(']')).ok_or_else(wrong)?;
            steps.push(Step::Index(index.parse().map_err(|_| wrong())?));
            indices = rest;
        }
        if steps.len() > MOST_STEPS {
            return Err(wrong());
        }
    }
    Ok(steps)
}

/// The members of a JSON object in their order, each value as the text that it is.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    members.push((Cow::Owned(name), value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// So deep JSON is looked into.
const DEEP: usize = 64;

/// JSON as stores give it back that read it: members in the order of their names, texts in one way, no white space; numbers as they are. What is no JSON is
/// as it is, too.
pub fn canonical(value: &[u8]) -> Bytes {
    let mut written = Zeroizing::new(Vec::with_capacity(value.len() + value.len() / 2));
    let text = std::str::from_utf8(value).ok().filter(|text| text.starts_with(['{', '[']));
    match text.and_then(|text| rewrite(text, &mut written, DEEP)) {
        Some(()) => written,
        None => Zeroizing::new(value.to_vec()),
    }
}

fn rewrite(text: &str, written: &mut Vec<u8>, deep: usize) -> Option<()> {
    let deep = deep.checked_sub(1)?;
    let quote = |text: &str, written: &mut Vec<u8>| serde_json::to_writer(written, text).ok();
    match text.bytes().next()? {
        b'{' => {
            let members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text).ok()?;
            written.push(b'{');
            for (number, (name, value)) in members.iter().enumerate() {
                if number > 0 {
                    written.push(b',');
                }
                quote(name, written)?;
                written.push(b':');
                rewrite(value.get(), written, deep)?;
            }
            written.push(b'}');
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            written.push(b'[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    written.push(b',');
                }
                rewrite(item.get(), written, deep)?;
            }
            written.push(b']');
        }
        b'"' => quote(&Zeroizing::new(serde_json::from_str::<String>(text).ok()?), written)?,
        _ => written.extend_from_slice(text.as_bytes()),
    }
    Some(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn json(text: &str) -> Content {
        Content::Bytes(Zeroizing::new(text.as_bytes().to_vec()))
    }

    fn secret(entries: &[(&str, &str)]) -> Content {
        Content::Map(entries.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec().into())).collect())
    }

    fn text(content: &Content) -> String {
        String::from_utf8(get(content, None).unwrap().to_vec()).unwrap()
    }

    const JSON: &str = r#"{"a":"x","b":{"c":["p",{"d":"q\n"}]},"n":12345678901234567890123,"e":1e400,"t":true,"z":null,"a.b":"dotted","a[0]":"odd","":"empty"}"#;

    #[test]
    fn paths() {
        for (property, wanted) in [
            ("a", Ok("x")),
            ("b.c[0]", Ok("p")),
            ("b.c.0", Ok("p")),
            ("b.c.2", Err("is not in it")),
            ("b.c.d", Err("is not in it")),
            ("b.c[1].d", Ok("q\n")),
            ("b.c[1]", Ok(r#"{"d":"q\n"}"#)),
            ("n", Ok("12345678901234567890123")),
            ("e", Ok("1e400")),
            ("t", Ok("true")),
            ("a.b", Ok("dotted")),
            ("a[0]", Ok("odd")),
            ("z", Err("null")),
            ("b.c[2]", Err("is not in it")),
            ("b.c[x]", Err("is no path")),
            ("b..c", Err("is no path")),
            ("b.c[0", Err("is no path")),
            ("a.x", Err("is not in it")),
            ("c", Err("is not in it")),
        ] {
            let found = get(&json(JSON), Some(property)).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
            match wanted {
                Ok(wanted) => assert_eq!(found.as_deref(), Ok(wanted), "{property}"),
                Err(wanted) => assert!(found.unwrap_err().to_string().contains(wanted), "{property}"),
            }
        }
        assert!(get(&json("no json"), Some("a")).unwrap_err().to_string().contains("no JSON"));
        assert_eq!(text(&json("no json")), "no json");
        let list = get(&json(r#"["x","y"]"#), Some("[1]")).unwrap();
        assert_eq!(*list, b"y");
    }

    #[test]
    fn json_is_the_same_in_whatever_order() {
        let of = |text: &str| String::from_utf8(canonical(text.as_bytes()).to_vec()).unwrap();
        assert_eq!(
            of(r#"{ "b": 1.50, "a": ["<x>", {"d": 1e400, "c": null}] }"#),
            of("{\"a\":[\"\\u003cx\\u003e\",{\"c\":null,\"d\":1e400}],\"b\":1.50}")
        );
        assert_eq!(of(r#"{"n":9007199254740993}"#), r#"{"n":9007199254740993}"#);
        assert_ne!(of(r#"{"n":9007199254740993}"#), of(r#"{"n":9007199254740992}"#));
        for text in ["plain", "{", r#"{"a":}"#, "", " {}", &"[".repeat(100_000)] {
            assert_eq!(of(text), text);
        }
        bolero::check!().with_iterations(10_000).for_each(|input: &[u8]| {
            let once = canonical(input);
            assert_eq!(canonical(&once), once);
        });
    }

    #[test]
    fn keys_of_a_secret() {
        let content = secret(&[("a", "x"), ("db.json", r#"{"user":{"name":"n"}}"#), ("list", "[1,2]")]);
        for (property, wanted) in [("a", "x"), ("db.json.user.name", "n"), ("list[1]", "2"), ("db.json", r#"{"user":{"name":"n"}}"#)] {
            assert_eq!(*get(&content, Some(property)).unwrap(), wanted.as_bytes(), "{property}");
        }
        for property in ["b", "a.b", "db.json.user.none", "list[2]"] {
            assert!(get(&content, Some(property)).is_err(), "{property}");
        }
        assert_eq!(text(&secret(&[("a", "x\""), ("b", "")])), r#"{"a":"x\"","b":""}"#);
        assert!(get(&Content::Map([("a".to_owned(), vec![0xff].into())].into()), None).is_err());
    }

    #[test]
    fn members_become_keys() {
        let found = members(&json(JSON), None).unwrap();
        assert_eq!(found.len(), 8, "null is left out");
        assert_eq!(*found["n"], b"12345678901234567890123");
        assert_eq!(members(&json(JSON), Some("b.c[1]")).unwrap().len(), 1);
        assert_eq!(members(&secret(&[("a", "x")]), None).unwrap().len(), 1);
        for no_object in ["[]", "1", "", "{"] {
            assert!(members(&json(no_object), None).is_err(), "{no_object}");
        }
    }

    #[test]
    fn one_part_is_replaced_and_the_others_stay() {
        for (before, property, after) in [
            (r#"{"b": 1e400,"a":"x" }"#, Some("a"), r#"{"b":1e400,"a":"new\""}"#),
            (r#"{"z":1}"#, Some("a"), r#"{"z":1,"a":"new\""}"#),
            (r"{}", Some("a.b"), r#"{"a":{"b":"new\""}}"#),
            (r#"{"a":{"x":[1, 2],"b":2}}"#, Some("a.b"), r#"{"a":{"x":[1, 2],"b":"new\""}}"#),
            (r#"{"a.b":1}"#, Some("a.b"), r#"{"a.b":"new\""}"#),
            ("whatever", None, "new\""),
        ] {
            assert_eq!(text(&set(&json(before), property, b"new\"").unwrap()), after, "{before}");
        }
        for (before, property) in [("text", "a"), ("[]", "a"), (r#"{"a":1}"#, "a.b"), ("{}", "a[0]")] {
            assert!(set(&json(before), Some(property), b"x").is_err(), "{before} {property}");
        }
        let set = set(&secret(&[("a", "x")]), Some("b"), b"y").unwrap();
        assert_eq!(set, secret(&[("a", "x"), ("b", "y")]));
    }

    #[test]
    fn no_text_of_a_stranger_panics() {
        bolero::check!().with_type::<(Vec<u8>, String, Vec<u8>)>().for_each(|(bytes, property, value)| {
            let content = Content::Bytes(bytes.clone().into());
            let _ = get(&content, Some(property));
            let _ = members(&content, None);
            if let Ok(written) = set(&content, Some(property), value)
                && !property.is_empty()
            {
                assert_eq!(get(&written, Some(property)).unwrap().as_slice(), value.as_slice(), "{property}");
            }
        });
    }
}
