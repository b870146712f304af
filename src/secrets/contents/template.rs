//! Texts made out of values: Jinja, cut down to what cannot grow without bounds and reaches nothing outside. Pure.
//!
//! What is in a tag is looked at before the template engine sees it: no `*`, `+`, `~` or slices, which build texts out of texts, no maps, no statement
//! but `if` and `for`, and no tag so long that what is nested in it would be deep. Each filter's result has a bound, the output has one, and fuel
//! bounds the steps of all templates together.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value, syntax::SyntaxConfig, value::ValueKind};
use zeroize::Zeroizing;

use super::template_error::{said, undefined, wrong};
use crate::secrets::store::{MAX_VALUE, SecretData};

/// Steps of the template engine for all templates of one Secret: some hundred lines' worth of filters, milliseconds.
const FUEL: u64 = 20_000;
/// The engine reads and drops what is nested by recursion.
const LONGEST_TAG: usize = 1024;
/// Statements in one template, for the same reason: each `elif` is nested in the one before.
const MOST_STATEMENTS: usize = 500;
/// What an element of a list takes in memory, about.
const ELEMENT: usize = 64;
/// Bytes that all filters of all templates of one Secret take in and give out together.
const BYTES: usize = 16 * 1024 * 1024;
/// Each takes some fifty milliseconds of a core.
const MAX_BCRYPT: usize = 4;
/// Cost of bcrypt: what htpasswd and Rails take, and OWASP's least.
const BCRYPT_COST: u32 = 10;
/// Statements that may be used.
const STATEMENTS: &[&str] = &["if", "elif", "else", "endif", "for", "endfor"];

/// Why a template gives nothing. No text holds a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Two keys are one variable.
    #[error("the keys {0:?} and {1:?} are both the variable {2:?}; rename one with rewrite or secretKey")]
    Collision(String, String, String),
    /// This template.
    #[error("template.data.{key}, line {line}: {why}")]
    Wrong {
        /// Its key.
        key: String,
        /// From 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

/// Renders every template. `salt`: makes the salts of bcrypt, so that the same value gives the same hash.
pub fn render(
    templates: impl Iterator<Item = (String, String)>,
    values: &SecretData,
    salt: &dyn Fn(&[u8]) -> [u8; 16],
) -> Result<SecretData, TemplateError> {
    let mut renderer = Renderer::new(values, salt)?;
    templates.map(|(key, text)| renderer.render(&key, &text).map(|text| (key, text))).collect()
}

/// The same of those that can be rendered.
pub fn render_each(templates: impl Iterator<Item = (String, String)>, values: &SecretData, salt: &dyn Fn(&[u8]) -> [u8; 16]) -> SecretData {
    let Ok(mut renderer) = Renderer::new(values, salt) else { return SecretData::new() };
    templates.filter_map(|(key, text)| renderer.render(&key, &text).ok().map(|text| (key, text))).collect()
}

/// What is bounded for all templates of a Secret together.
struct Renderer<'a> {
    values: &'a SecretData,
    salt: &'a dyn Fn(&[u8]) -> [u8; 16],
    variables: BTreeMap<String, Value>,
    hashes: Hashes,
    meter: Meter,
    fuel: u64,
}

impl<'a> Renderer<'a> {
    fn new(values: &'a SecretData, salt: &'a dyn Fn(&[u8]) -> [u8; 16]) -> Result<Self, TemplateError> {
        Ok(Self { values, salt, variables: variables(values)?, hashes: Hashes::new(), meter: Meter::default(), fuel: FUEL })
    }

    fn render(&mut self, key: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, TemplateError> {
        let Self { values, salt, variables, hashes, meter, fuel } = self;
        let wrong = |line: usize, why: String| TemplateError::Wrong { key: key.to_owned(), line, why };
        allowed(text).map_err(|(line, why)| wrong(line, why))?;
        hash_all(text, values, salt, hashes).map_err(|why| wrong(1, why))?;
        let environment = environment(hashes, meter, *fuel);
        let mut output = Output(Zeroizing::new(Vec::new()));
        let template = environment.template_from_str(text).map_err(|error| wrong(error.line().unwrap_or(1), said(&error)))?;
        let done = template.render_captured_to(Value::from(variables.clone()), &mut output).map_err(|error| {
            let missing = template.undeclared_variables(false).into_iter().filter(|name| !variables.contains_key(name)).collect();
            wrong(error.line().unwrap_or(1), undefined(&error, missing).unwrap_or_else(|| said(&error)))
        })?;
        *fuel = done.state().fuel_levels().map_or(0, |(_, left)| left);
        drop(done);
        Ok(output.0)
    }
}

/// The variables that a template names. None: it cannot be read.
pub fn variables_used(text: &str) -> Option<HashSet<String>> {
    allowed(text).ok()?;
    let environment = environment(&Hashes::new(), &Meter::default(), FUEL);
    environment.template_from_str(text).ok().map(|template| template.undeclared_variables(false))
}

/// The name of a key as a variable.
pub fn variable(key: &str) -> String {
    let name: String = key.chars().map(|sign| if sign.is_ascii_alphanumeric() { sign } else { '_' }).collect();
    if name.starts_with(|sign: char| sign.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn variables(values: &SecretData) -> Result<BTreeMap<String, Value>, TemplateError> {
    let mut keys = BTreeMap::new();
    for key in values.keys() {
        if let Some(other) = keys.insert(variable(key), key) {
            return Err(TemplateError::Collision(other.clone(), key.clone(), variable(key)));
        }
    }
    let value = |key: &String| {
        values.get(key).map_or(Value::UNDEFINED, |bytes| match std::str::from_utf8(bytes) {
            Ok(text) => Value::from(text),
            Err(_) => Value::from_bytes(bytes.to_vec()),
        })
    };
    Ok(keys.into_iter().map(|(name, key)| (name, value(key))).collect())
}

/// Refuses what could build texts without bounds.
fn allowed(text: &str) -> Result<(), (usize, String)> {
    let line = |place: usize| text.get(..place).unwrap_or_default().matches('\n').count() + 1;
    let (mut place, mut statements) = (0, 0);
    while let Some(begin) = text.get(place..).and_then(|rest| rest.find('{')).map(|found| place + found) {
        let rest = text.get(begin..).unwrap_or_default();
        let inner = rest.get(2..).unwrap_or_default();
        let end = match rest.get(1..2) {
            Some("#") => {
                let length = inner.find("#}").ok_or_else(|| (line(begin), "a comment {# has no end #}".to_owned()))?;
                place = begin + 2 + length + 2;
                continue;
            }
            Some("{") => "}}",
            Some("%") => "%}",
            _ => {
                place = begin + 1;
                continue;
            }
        };
        let length = tag_length(inner, end).map_err(|(at, why)| (line(begin + 2 + at), why))?;
        if end == "%}" {
            let word = inner
                .trim_start_matches(['-', '+'])
                .trim_start()
                .split(|sign: char| !sign.is_ascii_alphabetic())
                .next()
                .unwrap_or_default();
            if !STATEMENTS.contains(&word) {
                return Err((line(begin), format!("{{% {word} %}} cannot be used; there are {{% if %}} and {{% for %}}")));
            }
            statements += 1;
            if statements > MOST_STATEMENTS {
                return Err((line(begin), format!("it has more than {MOST_STATEMENTS} statements")));
            }
        }
        place = begin + 2 + length + 2;
    }
    Ok(())
}

/// Where the tag ends, as the engine sees it: strings are passed over, and nothing ends within parentheses.
fn tag_length(tag: &str, end: &str) -> Result<usize, (usize, String)> {
    let (mut quote, mut escaped, mut deep) = (None, false, 0usize);
    for (place, sign) in tag.char_indices() {
        if place > LONGEST_TAG {
            return Err((0, format!("a tag is longer than {LONGEST_TAG} bytes")));
        }
        let ends = |place: usize| tag.get(place..).is_some_and(|rest| rest.starts_with(end));
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if sign == '\\' => escaped = true,
            Some(open) if sign == open => quote = None,
            Some(_) => {}
            None if deep == 0 && ends(place) => return Ok(place),
            None => match sign {
                '"' | '\'' => quote = Some(sign),
                '(' | '[' => deep += 1,
                ')' | ']' => deep = deep.checked_sub(1).ok_or_else(|| (place, format!("there is a {sign} too many")))?,
                '{' | '}' | ':' => return Err((place, format!("{sign} cannot be used: there are no maps and no slices"))),
                // `+%}` and `{%+` are about white space.
                '+' if place == 0 || ends(place + 1) => {}
                '*' | '+' | '~' => return Err((place, format!("the operator {sign} cannot be used; write texts side by side"))),
                _ => {}
            },
        }
    }
    Err((0, format!("a tag has no end {end}")))
}

struct Output(Zeroizing<Vec<u8>>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_VALUE {
            return Err(io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// bcrypt of a value, by the digest of the value.
type Hashes = BTreeMap<Vec<u8>, String>;

fn digest(value: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, value).as_ref().to_vec()
}

/// bcrypt is slow: only values are hashed, each once, and before anything is rendered, so that a loop cannot ask for a thousand.
fn hash_all(text: &str, values: &SecretData, salt: &dyn Fn(&[u8]) -> [u8; 16], hashes: &mut Hashes) -> Result<(), String> {
    for (key, value) in values {
        let name = variable(key);
        let asks = text.match_indices(&name).any(|(place, _)| {
            let part_of_another =
                text.get(..place).and_then(|before| before.chars().last()).is_some_and(|sign| sign.is_alphanumeric() || sign == '_');
            if part_of_another {
                return false;
            }
            let behind = text.get(place + name.len()..).unwrap_or_default().trim_start();
            behind
                .strip_prefix('|')
                .is_some_and(|filter| filter.trim_start().starts_with("bcrypt") || filter.trim_start().starts_with("htpasswd"))
        });
        if asks && !hashes.contains_key(&digest(value)) {
            if hashes.len() == MAX_BCRYPT {
                return Err(format!("at most {MAX_BCRYPT} values can be hashed with bcrypt"));
            }
            let parts = bcrypt::non_truncating_hash_with_salt(&**value, BCRYPT_COST, salt(value))
                .map_err(|_| "bcrypt takes at most 71 bytes".to_owned())?;
            hashes.insert(digest(value), parts.format_for_version(bcrypt::Version::TwoY));
        }
    }
    Ok(())
}

/// Counts what goes into filters and what comes out of them: steps are bounded by fuel, but a step may be about a megabyte.
#[derive(Clone, Default)]
struct Meter(Arc<AtomicUsize>);

impl Meter {
    fn take(&self, bytes: usize) -> Result<(), Error> {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > BYTES { Err(wrong("the values of its filters are too long")) } else { Ok(()) }
    }

    fn bytes(&self, value: &Value) -> Result<Vec<u8>, Error> {
        let bytes = bytes(value)?;
        self.take(bytes.len()).map(|()| bytes)
    }

    fn text(&self, text: String) -> Result<String, Error> {
        self.take(text.len()).map(|()| text)
    }

    /// What `write` writes, which stops where a Secret has no room for more.
    fn written(&self, write: impl FnOnce(&mut Output) -> Result<(), Error>) -> Result<String, Error> {
        let mut output = Output(Zeroizing::new(Vec::new()));
        write(&mut output)?;
        self.text(String::from_utf8_lossy(&output.0).into_owned())
    }
}

fn environment(hashes: &Hashes, meter: &Meter, fuel: u64) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(fuel));
    environment.set_recursion_limit(50);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    environment.add_test("defined", |value: Value| !value.is_undefined());
    environment.add_filter("length", |value: Value| value.len().ok_or_else(|| wrong("length: it has none")));
    environment.add_filter("default", |value: Value, other: Value| if value.is_undefined() { other } else { value });
    encodings(&mut environment, meter);
    texts(&mut environment, meter);
    let (known, hashes) = (hashes.clone(), hashes.clone());
    environment.add_filter("bcrypt", move |value: Value| {
        known.get(&digest(&bytes(&value)?)).cloned().ok_or_else(|| wrong("bcrypt takes a variable as it is: {{ password | bcrypt }}"))
    });
    environment.add_filter("htpasswd", move |value: Value, user: &str| {
        let hash = hashes
            .get(&digest(&bytes(&value)?))
            .ok_or_else(|| wrong("htpasswd takes a variable as it is: {{ password | htpasswd('admin') }}"))?;
        if user.contains(':') { Err(wrong("htpasswd: a user's name has no colon")) } else { Ok(format!("{user}:{hash}")) }
    });
    environment
}

/// Adds a filter that makes a text out of bytes.
fn encoding(environment: &mut Environment<'_>, meter: &Meter, name: &'static str, encode: fn(&[u8]) -> String) {
    let meter = meter.clone();
    environment.add_filter(name, move |value: Value| meter.text(encode(&meter.bytes(&value)?)));
}

fn encodings(environment: &mut Environment<'_>, meter: &Meter) {
    encoding(environment, meter, "urlencode", urlencode);
    encoding(environment, meter, "b64encode", |bytes| STANDARD.encode(bytes));
    encoding(environment, meter, "hex", hex);
    encoding(environment, meter, "sha256", |bytes| hex(&digest(bytes)));
    let own = meter.clone();
    environment.add_filter("b64decode", move |value: Value| {
        let decoded = STANDARD.decode(own.bytes(&value)?.trim_ascii()).map_err(|_| wrong("b64decode: it is no base64"))?;
        own.take(decoded.len())?;
        Ok::<_, Error>(String::from_utf8(decoded).map_or_else(|error| Value::from_bytes(error.into_bytes()), Value::from))
    });
    let own = meter.clone();
    environment.add_filter("json", move |value: Value| {
        own.written(|output| serde_json::to_writer(output, &value).map_err(|_| wrong("json: it cannot be written, or is too long")))
    });
    let own = meter.clone();
    environment.add_filter("fromjson", move |value: Value| {
        let text = own.bytes(&value)?;
        own.take(text.iter().filter(|byte| b",[{".contains(byte)).count().saturating_mul(ELEMENT))?;
        serde_json::from_slice::<Value>(&text).map_err(|_| wrong("fromjson: it is no JSON"))
    });
    let own = meter.clone();
    environment.add_filter("yaml", move |value: Value| {
        own.written(|output| serde_saphyr::to_io_writer(output, &value).map_err(|_| wrong("yaml: it cannot be written, or is too long")))
    });
}

fn texts(environment: &mut Environment<'_>, meter: &Meter) {
    let own = meter.clone();
    environment.add_filter("upper", move |value: &str| own.text(value.to_uppercase()));
    let own = meter.clone();
    environment.add_filter("lower", move |value: &str| own.text(value.to_lowercase()));
    let own = meter.clone();
    environment.add_filter("trim", move |value: &str| own.text(value.trim().to_owned()));
    let own = meter.clone();
    environment.add_filter("replace", move |value: &str, from: &str, to: &str| own.text(replace(value, from, to)?));
    let own = meter.clone();
    environment.add_filter("indent", move |value: &str, width: usize| own.text(indent(value, width)?));
    let own = meter.clone();
    environment.add_filter("join", move |value: Value, by: &str| own.text(join(&value, by)?));
    let own = meter.clone();
    environment.add_filter("pem", move |value: &str, label: &str, number: Option<usize>| own.text(pem(value, label, number)?));
    let own = meter.clone();
    environment.add_filter("split", move |value: &str, by: &str| {
        own.take(value.matches(by).count().saturating_add(1).saturating_mul(ELEMENT).saturating_add(value.len()))?;
        if by.is_empty() {
            Err(wrong("split: it cannot be split at nothing"))
        } else {
            Ok(value.split(by).map(Value::from).collect::<Vec<_>>())
        }
    });
}

fn bytes(value: &Value) -> Result<Vec<u8>, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    Ok(match (value.as_str(), value.as_bytes(), value.kind()) {
        (Some(text), ..) => text.as_bytes().to_vec(),
        (None, Some(bytes), _) => bytes.to_vec(),
        (None, None, ValueKind::Number | ValueKind::Bool) => value.to_string().into_bytes(),
        _ => return Err(wrong("it takes a text; a list has join and json")),
    })
}

/// All but the unreserved characters of RFC 3986, section 2.3.
fn urlencode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push('%');
            text.push_str(&hex(&[*byte]).to_uppercase());
        }
        text
    })
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 0xf)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

fn replace(value: &str, from: &str, to: &str) -> Result<String, Error> {
    if from.is_empty() {
        return Err(wrong("replace: nothing cannot be replaced"));
    }
    if value.matches(from).count().saturating_mul(to.len()).saturating_add(value.len()) > MAX_VALUE {
        return Err(wrong("replace: its result is longer than 1 MiB"));
    }
    Ok(value.replace(from, to))
}

/// Each line but the first, as Jinja does.
fn indent(value: &str, width: usize) -> Result<String, Error> {
    if value.matches('\n').count().saturating_mul(width).saturating_add(value.len()) > MAX_VALUE {
        return Err(wrong("indent: its result is longer than 1 MiB"));
    }
    Ok(value.replace('\n', &format!("\n{}", " ".repeat(width.min(MAX_VALUE)))))
}

fn join(value: &Value, by: &str) -> Result<String, Error> {
    let mut joined = String::new();
    for (number, part) in value.try_iter()?.enumerate() {
        if number > 0 {
            joined.push_str(by);
        }
        joined.push_str(part.as_str().ok_or_else(|| wrong("join: it holds something that is no text"))?);
        if joined.len() > MAX_VALUE {
            return Err(wrong("join: its result is longer than 1 MiB"));
        }
    }
    Ok(joined)
}

/// The blocks of a PEM text whose label ends with `label`: `CERTIFICATE`, `PRIVATE KEY`. With `number`, only that one, from 0.
fn pem(value: &str, label: &str, number: Option<usize>) -> Result<String, Error> {
    let mut blocks = Vec::new();
    let mut rest = value;
    while let Some((_, begun)) = rest.split_once("-----BEGIN ") {
        let (name, body) = begun.split_once("-----").ok_or_else(|| wrong("pem: a block has no end"))?;
        let end = format!("-----END {name}-----");
        let (body, behind) = body.split_once(&end).ok_or_else(|| wrong("pem: a block has no end"))?;
        if name.ends_with(label) {
            blocks.push(format!("-----BEGIN {name}-----{body}{end}\n"));
        }
        rest = behind;
    }
    match number {
        _ if blocks.is_empty() => Err(wrong("pem: it has no such block")),
        None => Ok(blocks.concat()),
        Some(number) => blocks.into_iter().nth(number).ok_or_else(|| wrong("pem: it has not so many blocks")),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn one(template: &str, values: &[(&str, &[u8])]) -> Result<String, String> {
        let values = values.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec().into())).collect();
        let rendered = render(std::iter::once(("out".to_owned(), template.to_owned())), &values, &|_| [7; 16]);
        rendered.map(|data| String::from_utf8(data["out"].to_vec()).unwrap()).map_err(|error| error.to_string())
    }

    const PEM: &str = "x\n-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\nQg==\n-----END EC PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\nQw==\n-----END CERTIFICATE-----";

    #[test]
    fn what_templates_say() {
        let values: &[(&str, &[u8])] =
            &[("db-password", b"p/ \xc3\xa4&~"), ("n", b"5"), ("tls.crt", PEM.as_bytes()), ("0x", b"zero"), ("j", br#"{"a":[1,"<b>"]}"#)];
        for (template, wanted) in [
            ("postgres://u:{{ db_password | urlencode }}@h/d", "postgres://u:p%2F%20%C3%A4%26~@h/d"),
            ("{{ n }}{{- n }}\n", "55\n"),
            ("<{{ n | b64encode }}{{ 'NQ==' | b64decode }}>", "<NQ==5>"),
            ("{{ n | hex }} {{ n | sha256 }}", "35 ef2d127de37b942baad06145e54b0c619a1f22327b2ebbcfbec78f5564afe39d"),
            ("{% if n == '5' %}yes{% else %}no{% endif %}", "yes"),
            ("{% for x in 'a,b' | split(',') %}[{{ x }}]{% endfor %}", "[a][b]"),
            ("{{ _0x | upper }} {{ db_password | length }}", "ZERO 6"),
            ("<{{ ' aB\n' | trim }}{{ 'AÄ' | lower }}>", "<aBaä>"),
            ("{{ (j | fromjson).a[1] }} {{ j | fromjson | json }}", r#"<b> {"a":[1,"<b>"]}"#),
            ("{{ n | json }}", "\"5\""),
            ("{{ j | fromjson | yaml }}", "a:\n- 1\n- <b>\n"),
            ("{{ missing | default('d') }} {% if missing is defined %}a{% else %}b{% endif %}", "d b"),
            ("{{ tls_crt | pem('CERTIFICATE', 1) }}", "-----BEGIN CERTIFICATE-----\nQw==\n-----END CERTIFICATE-----\n"),
            ("{{ tls_crt | pem('PRIVATE KEY') }}", "-----BEGIN EC PRIVATE KEY-----\nQg==\n-----END EC PRIVATE KEY-----\n"),
            ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
            ("{# a * b #}{{ '*+~ }}' }}", "*+~ }}"),
            ("{ {n} } {", "{ {n} } {"),
            ("{{ 'xay' | replace('a', '-') }}{{ ['a', 'b'] | join('+') }}", "x-ya+b"),
        ] {
            assert_eq!(one(template, values).as_deref(), Ok(wanted), "{template}");
        }
    }

    #[test]
    fn one_that_cannot_be_rendered_is_no_reason_for_more_work() {
        let values: SecretData = (0..6).map(|number| (format!("v{number}"), vec![b'0' + number].into())).collect();
        let hashed = (0..6).map(|number| (format!("h{number}"), format!("{{{{ v{number} | bcrypt }}}}")));
        let texts =
            hashed.chain((0..40).map(|number| (format!("n{number}"), "{{ nothing }}".to_owned()))).chain([("z".into(), "{{ v0 }}".into())]);
        let salts = std::cell::Cell::new(0);
        let rendered = render_each(texts, &values, &|_| {
            salts.set(salts.get() + 1);
            [0; 16]
        });
        assert_eq!((rendered.keys().map(String::as_str).collect::<Vec<_>>(), salts.get()), (vec!["h0", "h1", "h2", "h3", "z"], MAX_BCRYPT));
    }

    #[test]
    fn what_a_template_uses() {
        let text = "postgres://{% if a_previous is defined %}{{ b | urlencode }}{% endif %}@{% for c in d %}{{ c }}{% endfor %}/none";
        let wanted = ["a_previous", "b", "d"].map(ToOwned::to_owned).into();
        assert_eq!(variables_used(text), Some(wanted));
        assert_eq!((variables_used("{{ a"), variables_used("{% set a = 1 %}")), (None, None));
    }

    #[test]
    fn what_is_refused_and_where() {
        let values: &[(&str, &[u8])] = &[("p", b"canary"), ("q", &[0xff])];
        for (template, wanted) in [
            ("{{ x }}", "no such variable: \"x\""),
            ("{{ x | default('') }}{{ t.y }}", "something is not defined"),
            ("\n{{ x }}", "line 2"),
            ("{{ p.x }}", "not defined"),
            ("{{ pass-word }}", "write _ for it"),
            ("{{ .p }}", "no dot before it"),
            ("{{ 'a' * 100000000 }}", "operator *"),
            ("{{ p ~ p }}", "operator ~"),
            ("{{ p + p }}", "operator +"),
            ("{% set a = p %}", "{% set %}"),
            ("{%- macro m() %}{% endmacro %}", "{% macro %}"),
            ("{% include 'x' %}", "{% include %}"),
            ("{% raw %}{{{% endraw %}", "{% raw %}"),
            ("{{ p", "no end"),
            ("{{ p | nofilter }}", "list the filters"),
            ("{{ if p }}a{{ end }}", "{% if x %}"),
            ("a{{ else }}b{{ end }}", "{% if x %}"),
            ("{{ p | default \"x\" }}", "in parentheses"),
            ("{{ p | b64enc }}", "it is called b64encode here"),
            ("{{ key_previous }}", "write {{ key_previous | default('') }}"),
            ("{{ range(10) }}", "line 1"),
            ("{{ p | b64decode }}", "no base64"),
            ("{{ p | fromjson }}", "no JSON"),
            ("{{ p | replace('', p) }}", "cannot be replaced"),
            (
                "{% for a in 'x,x,x,x,x,x,x,x,x,x'|split(',') %}{% for b in 'x,x,x,x,x,x,x,x,x,x'|split(',') %}{% for c in 'x,x,x,x,x,x,x,x,x,x'|split(',') %}{% for d in 'x,x,x,x,x,x,x,x,x,x'|split(',') %}x{% endfor %}{% endfor %}{% endfor %}{% endfor %}",
                "steps",
            ),
            ("{{ (p | upper) | bcrypt }}", "as it is"),
            ("{#}{{ ' #}{{ p * 3 }}{# ' }} #}", "operator *"),
            ("{{ [{'a':{}}, 'x' * 100000000] | length }}", "{ cannot be used"),
            ("{{ p[1:] }}", ": cannot be used"),
            ("{{ (p }} * p", "} cannot be used"),
            ("{{ p) }}", ") too many"),
            ("{{ [p, p] | hex }}", "takes a text"),
        ] {
            let said = one(template, values).unwrap_err();
            assert!(said.contains(wanted), "{template}: {said}");
            assert!(!said.contains("canary"), "{said}");
        }
        let said = one("{{ a_b }}", &[("a-b", b"1"), ("a.b", b"2")]).unwrap_err();
        assert!(said.contains("both the variable"), "{said}");
        let long = "a".repeat(MAX_VALUE);
        let many = format!("{{{{ [{}] | length }}}}", "p | upper, ".repeat(50));
        assert!(one(&many, &[("p", long.as_bytes())]).unwrap_err().contains("too long"));
        assert!(one("{{ p }}{{ p }}", &[("p", long.as_bytes())]).unwrap_err().contains("longer"));
        assert!(one("{{ p | replace('a', p) }}", &[("p", long.as_bytes())]).unwrap_err().contains("longer"));
    }

    #[test]
    fn what_is_nested_or_long_ends_nothing() {
        let long = "a,".repeat(MAX_VALUE / 2);
        let values: &[(&str, &[u8])] = &[("p", long.as_bytes())];
        for (template, wanted) in [
            (format!("{{{{ {}1 }}}}", "-".repeat(60_000)), "longer than"),
            (format!("{{{{ {}p }}}}", "not ".repeat(15_000)), "longer than"),
            (format!("{{{{ p{} }}}}", " | trim".repeat(9_000)), "longer than"),
            (format!("{{% if p %}}{}{{% endif %}}", "{%elif p%}".repeat(6_000)), "statements"),
            (format!("{{{{ [{}] | json }}}}", "p,".repeat(400)), "too long"),
            (format!("{{{{ [{}] | yaml }}}}", "p,".repeat(400)), "too long"),
            (format!("{{{{ [{}] | length }}}}", "p|split(','),".repeat(70)), "too long"),
            (format!("{{{{ [{}] }}}}", "p,".repeat(400)), "longer than"),
        ] {
            let said = one(&template, values).unwrap_err();
            assert!(said.contains(wanted), "{}: {said}", template.chars().take(60).collect::<String>());
        }
        let deepest = [format!("{{{{ {}1 }}}}", "-".repeat(1_000)), format!("{{{{ {}p }}}}", "not ".repeat(250))];
        for template in deepest {
            let _ = one(&template, values); // whatever it says
        }
        // All templates share their steps.
        let lines =
            "{% for a in 'x,x,x,x,x,x,x,x,x,x'|split(',') %}{% for b in 'x,x,x,x,x,x,x,x,x,x'|split(',') %}x{% endfor %}{% endfor %}";
        let many = (0..100).map(|number| (format!("t{number}"), lines.to_owned()));
        let said = render(many, &SecretData::new(), &|_| [7; 16]).unwrap_err().to_string();
        assert!(said.contains("steps"), "{said}");
    }

    #[test]
    fn bcrypt_is_the_same_for_the_same_value() {
        let line = one("{{ p | htpasswd('admin') }}", &[("p", b"secret")]).unwrap();
        assert_eq!(line, one("{{ p | htpasswd('admin') }}", &[("p", b"secret")]).unwrap());
        let (user, hash) = line.split_once(':').unwrap();
        assert_eq!(user, "admin");
        assert!(bcrypt::verify("secret", hash).unwrap() && hash.starts_with("$2y$10$"));
        let long = "x".repeat(80);
        assert!(one("{{ p | bcrypt }}", &[("p", long.as_bytes())]).unwrap_err().contains("at most 71"));
        assert!(one("{{ a_p | bcrypt }}", &[("p", long.as_bytes()), ("a_p", b"short")]).is_ok(), "only what is asked for is hashed");
    }

    #[test]
    fn no_template_of_a_stranger_panics() {
        bolero::check!().with_type::<(String, Vec<u8>)>().for_each(|(template, value)| {
            let _ = one(template, &[("p", value.as_slice())]);
            let _ = one(&format!("{{{{ p | {template} }}}}"), &[("p", value.as_slice())]);
        });
    }
}
