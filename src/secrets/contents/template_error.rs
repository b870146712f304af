//! What a template did wrong, as its writer can understand it: no text holds a value.

use minijinja::{Error, ErrorKind};

use crate::secrets::store::MAX_VALUE;

/// What one of our filters has to say.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(&'static str);

/// An error of a filter.
pub fn wrong(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what).with_source(Said(what))
}

const STATEMENTS: &str = "; statements are written {% if x %}…{% endif %}";

/// Names the variables that are not defined; they are text of the template. None: the error is another one.
pub fn undefined(error: &Error, mut missing: Vec<String>) -> Option<String> {
    missing.sort();
    let named: Vec<String> = missing.iter().take(5).map(|name| format!("{:?}", name.chars().take(50).collect::<String>())).collect();
    let is_it = error.kind() == ErrorKind::UndefinedError && !named.is_empty();
    is_it.then(|| {
        let named = named.join(", ");
        let is_statement = missing.iter().any(|name| ["if", "else", "end", "range", "with"].contains(&name.as_str()));
        let first = missing.iter().find(|name| name.ends_with("_previous"));
        let hint =
            first.map(|name| format!("; a previous value is there from the first rotation on: write {{{{ {name} | default('') }}}}"));
        let hint = hint.or_else(|| is_statement.then(|| STATEMENTS.to_owned())).unwrap_or_default();
        format!("something is not defined; there is no such variable: {named}; the variables are the keys, with _ for - and .{hint}")
    })
}

/// What others call our filters (Sprig, Helm, external-secrets).
const CALLED: [(&str, &str); 8] = [
    ("b64enc", "b64encode"),
    ("b64dec", "b64decode"),
    ("sha256sum", "sha256"),
    ("toJson", "json"),
    ("fromJson", "fromjson"),
    ("toYaml", "yaml"),
    ("urlquery", "urlencode"),
    ("quote", "json"),
];

/// What is wrong with a template, or went wrong with it.
pub fn said(error: &Error) -> String {
    match error.kind() {
        ErrorKind::OutOfFuel => "it takes too many steps".into(),
        ErrorKind::UndefinedError => "a variable is not defined; the variables are the keys, with _ for - and .".into(),
        ErrorKind::WriteFailure => format!("its output is longer than {MAX_VALUE} bytes"),
        // About the text of the template, before there are values.
        ErrorKind::SyntaxError | ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction => {
            let said = error.detail().unwrap_or("it cannot be understood");
            let other = CALLED.iter().find(|(theirs, _)| said.split(' ').any(|word| word == *theirs));
            let hint = match other {
                _ if said.contains("unexpected `.`") => "; a variable has no dot before it".into(),
                _ if said.contains("unexpected identifier") => STATEMENTS.into(),
                _ if said.contains("unexpected string") => "; arguments stand in parentheses: default('x')".into(),
                Some((_, ours)) => format!("; it is called {ours} here"),
                None if error.kind() == ErrorKind::UnknownFilter => "; the docs of SecretRotation list the filters under Templates".into(),
                None => String::new(),
            };
            format!("{said}{hint}")
        }
        // What our filters say holds no value; what the engine says may quote one.
        kind => {
            let ours = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Said>());
            let hint = |kind: ErrorKind| match kind {
                ErrorKind::InvalidOperation => format!("{kind}; a - in the name of a variable is an operator: write _ for it"),
                kind => kind.to_string(),
            };
            ours.map_or_else(|| hint(kind), |said| said.0.into())
        }
    }
}
