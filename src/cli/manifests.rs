//! Manifests of files: YAML or JSON, one or many in a file.

use std::{io::Read, path::Path};

use super::Failure;

/// No file is longer, in bytes.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The objects of a file; `-`: of standard input.
pub(super) fn read(file: &Path) -> Result<Vec<serde_json::Value>, Failure> {
    let bad = |why: String| Failure::Usage(format!("{}: {why}", file.display()));
    let mut text = String::new();
    let source: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(|error| bad(error.to_string()))?)
    };
    source.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| bad(error.to_string()))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(bad(format!("it is longer than {MAX_FILE_BYTES} bytes")));
    }
    serde_saphyr::from_multiple(&text).map_err(|error| bad(error.to_string()))
}
