//! PEM texts.

use base64::{Engine, engine::general_purpose::STANDARD};

/// PEM (RFC 7468) with lines of 64 characters.
pub fn pem(label: &str, der: &[u8]) -> String {
    let mut text = String::with_capacity(der.len() * 3 / 2 + 100); // one allocation: a growing one would leave copies of a key behind
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in der.chunks(48) {
        STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}
