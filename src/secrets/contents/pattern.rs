//! Regular expressions of users, bounded in size. Pure.

use regex::{Regex, RegexBuilder};

/// Compiled, none is larger than this.
const MAX_COMPILED_BYTES: usize = 256 * 1024;

/// Compiles `pattern`. Matching takes time linear in the text, whatever the pattern (the regex crate's promise).
pub fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(MAX_COMPILED_BYTES).dfa_size_limit(MAX_COMPILED_BYTES).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "it is too large".into(),
        error => error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    })
}
