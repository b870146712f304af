//! Short identifiers in lower-case hexadecimal: hashes of texts, and random ones.

use std::fmt::Write;

/// The first 16 bytes of the SHA-256 of `content`: enough to tell things apart, short enough for a label.
pub fn hash(content: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content);
    hex(digest.as_ref().get(..16).unwrap_or_default())
}

/// The first eight of those bytes, for where many stand side by side.
pub fn short(content: &[u8]) -> String {
    let mut text = hash(content);
    text.truncate(16);
    text
}

/// `N` random bytes. Should the system have none, the same id comes twice, which its users bear.
pub fn random<const N: usize>() -> String {
    let mut bytes = [0u8; N];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    hex(&bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}
