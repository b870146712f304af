//! What the key/value engine answers.
#![expect(missing_docs, reason = "the fields are Vault's own, and documented there")]

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A value of version 2, and which version it is.
#[derive(Deserialize)]
pub struct Versioned<'a> {
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
    #[serde(default)]
    pub metadata: Metadata,
}

/// About a version.
#[derive(Default, Deserialize)]
pub struct Metadata {
    #[serde(default)]
    pub version: u64,
}

/// What a write gives.
#[derive(Default, Deserialize)]
pub struct Written {
    #[serde(default)]
    pub version: u64,
}

/// What is in a folder; names of folders end with `/`.
#[derive(Deserialize)]
pub struct Listed {
    pub keys: Vec<String>,
}

/// What somebody noted about a value.
#[derive(Default, Deserialize)]
pub struct Described {
    #[serde(default)]
    pub custom_metadata: Option<BTreeMap<String, String>>,
}

/// The versions of a value.
#[derive(Default, Deserialize)]
pub struct History {
    #[serde(default)]
    pub current_version: u64,
    #[serde(default)]
    pub versions: BTreeMap<String, Past>,
}

/// One of them.
#[derive(Deserialize)]
pub struct Past {
    #[serde(default)]
    pub deletion_time: String,
    #[serde(default)]
    pub destroyed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_makes_it_panic() {
        bolero::check!().with_iterations(20_000).for_each(|input: &[u8]| {
            let _ = serde_json::from_slice::<Versioned<'_>>(input).map(|answer| answer.data.map(|data| data.get().len()));
            let _ = serde_json::from_slice::<History>(input);
            let _ = serde_json::from_slice::<Listed>(input);
            let _ = serde_json::from_slice::<Described>(input);
        });
    }
}
