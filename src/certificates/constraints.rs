//! Which names a CA may sign for: the nameConstraints extension (RFC 5280, section 4.2.1.10). No I/O.
//!
//! A certificate outside them would be issued without an error and refused by every client; so it is not issued.

use std::net::IpAddr;

use x509_parser::extensions::{GeneralName, NameConstraints};

use super::{sign::tlv, x509::Name};
use crate::api::certificate_rotation::{self as api, NameConstraintItem};

/// id-ce-nameConstraints
pub const OID: &[u64] = &[2, 5, 29, 30];

/// The extension's content in DER; None if nothing is constrained. The error names the value that cannot be encoded.
pub fn encode(constraints: &api::NameConstraints) -> Result<Option<Vec<u8>>, String> {
    let mut content = Vec::new();
    for (tag, item) in [(0xa0, &constraints.permitted), (0xa1, &constraints.excluded)] {
        let subtrees = item.as_ref().map_or_else(|| Ok(Vec::new()), subtrees)?;
        if !subtrees.is_empty() {
            content.extend(tlv(tag, &subtrees));
        }
    }
    Ok((!content.is_empty()).then(|| tlv(0x30, &content)))
}

/// GeneralSubtrees; the tags are those of GeneralName (RFC 5280, section 4.2.1.6).
fn subtrees(item: &NameConstraintItem) -> Result<Vec<u8>, String> {
    let texts = [(0x81, &item.email_addresses), (0x82, &item.dns_domains), (0x86, &item.uri_domains)];
    let mut bases = Vec::new();
    for (tag, text) in texts.into_iter().flat_map(|(tag, texts)| texts.iter().map(move |text| (tag, text))) {
        if !text.is_ascii() {
            return Err(format!("nameConstraints: {text:?} is not ASCII"));
        }
        bases.push(tlv(tag, text.as_bytes()));
    }
    for range in &item.ip_ranges {
        bases.push(tlv(0x87, &cidr(range).ok_or_else(|| format!("nameConstraints: {range:?} is no CIDR range"))?));
    }
    Ok(bases.iter().flat_map(|base| tlv(0x30, base)).collect())
}

/// Address and mask, one after the other.
fn cidr(range: &str) -> Option<Vec<u8>> {
    let (address, prefix) = range.split_once('/')?;
    let prefix = prefix.parse::<u32>().ok()?;
    match address.parse().ok()? {
        IpAddr::V4(address) if prefix <= 32 => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            Some([address.octets(), mask.to_be_bytes()].concat())
        }
        IpAddr::V6(address) if prefix <= 128 => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            Some([address.octets(), mask.to_be_bytes()].concat())
        }
        _ => None,
    }
}

/// The constraints of one CA. The default constrains nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    permitted: Vec<Subtree>,
    excluded: Vec<Subtree>,
    /// A kind of name that is not known here.
    unknown: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Subtree {
    Dns(String),
    Email(String),
    Uri(String),
    /// Address and mask, of the same length.
    Ip(Vec<u8>, Vec<u8>),
}

impl From<&NameConstraints<'_>> for Constraints {
    fn from(extension: &NameConstraints<'_>) -> Self {
        let read = |subtrees: &Option<Vec<x509_parser::extensions::GeneralSubtree<'_>>>| {
            subtrees.iter().flatten().filter_map(|subtree| Subtree::read(&subtree.base)).collect()
        };
        let all = [&extension.permitted_subtrees, &extension.excluded_subtrees].into_iter().flatten().flatten();
        let unknown = all.map(|subtree| &subtree.base).find(|base| Subtree::read(base).is_none()).map(|base| match base {
            GeneralName::DirectoryName(_) => "directory names",
            GeneralName::IPAddress(_) => "addresses of unusual length",
            _ => "an unusual kind of name",
        });
        Self { permitted: read(&extension.permitted_subtrees), excluded: read(&extension.excluded_subtrees), unknown }
    }
}

impl Constraints {
    /// What they are about that [`Constraints::allow`] does not judge.
    pub const fn unknown(&self) -> Option<&'static str> {
        self.unknown
    }

    /// Whether `name` may be signed for: no excluded subtree holds it, and, if names of its kind are permitted at all, one of those does.
    pub fn allow(&self, name: &Name) -> bool {
        if self.excluded.iter().any(|subtree| subtree.holds(name) == Some(true)) {
            return false;
        }
        let mut same_kind = self.permitted.iter().filter_map(|subtree| subtree.holds(name)).peekable();
        same_kind.peek().is_none() || same_kind.any(|holds| holds)
    }
}

impl Subtree {
    fn read(base: &GeneralName<'_>) -> Option<Self> {
        Some(match base {
            GeneralName::DNSName(domain) => Self::Dns(domain.to_ascii_lowercase()),
            GeneralName::RFC822Name(mailbox) => Self::Email((*mailbox).to_owned()),
            GeneralName::URI(host) => Self::Uri(host.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) if bytes.len() == 8 || bytes.len() == 32 => {
                let (address, mask) = bytes.split_at(bytes.len() / 2);
                Self::Ip(address.to_vec(), mask.to_vec())
            }
            _ => return None,
        })
    }

    /// None: it is about names of another kind.
    fn holds(&self, name: &Name) -> Option<bool> {
        Some(match (self, name) {
            (Self::Dns(base), Name::Dns(name)) => is_below(name.trim_start_matches("*."), base.trim_start_matches('.')),
            (Self::Email(base), Name::Email(name)) => holds_mailbox(base, name),
            (Self::Uri(base), Name::Uri(uri)) => holds_host(base, &host(uri)),
            (Self::Ip(address, mask), Name::Ip(name)) => {
                let octets = match name {
                    IpAddr::V4(name) => name.octets().to_vec(),
                    IpAddr::V6(name) => name.octets().to_vec(),
                };
                octets.len() == address.len()
                    && octets.iter().zip(address).zip(mask).all(|((octet, base), mask)| octet & mask == base & mask)
            }
            _ => return None,
        })
    }
}

/// The domain itself, or what is below it. An empty base holds everything.
fn is_below(name: &str, base: &str) -> bool {
    base.is_empty() || name == base || name.strip_suffix(base).is_some_and(|left| left.ends_with('.'))
}

/// With `@` a mailbox, with a leading dot the hosts below a domain, else a host.
fn holds_mailbox(base: &str, mailbox: &str) -> bool {
    if base.contains('@') {
        return base == mailbox;
    }
    let host = mailbox.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
    holds_host(&base.to_ascii_lowercase(), &host)
}

/// With a leading dot the hosts below a domain, else one host.
fn holds_host(base: &str, host: &str) -> bool {
    if base.starts_with('.') { host.ends_with(base) } else { host == base }
}

/// The host of a URI; empty if it has none.
fn host(uri: &str) -> String {
    let authority = uri.split_once("://").map_or("", |(_, rest)| rest).split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.split(':').next().unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn permitted_and_excluded() {
        let constraints = Constraints {
            permitted: vec![
                Subtree::Dns("a.example".into()),
                Subtree::Ip(vec![10, 0, 0, 0], vec![255, 0, 0, 0]),
                Subtree::Email(".a.example".into()),
                Subtree::Email("one@b.example".into()),
                Subtree::Uri("a.example".into()),
            ],
            excluded: vec![Subtree::Dns("secret.a.example".into())],
            unknown: None,
        };
        let ip = |text: &str| Name::Ip(text.parse().unwrap());
        let dns = |text: &str| Name::Dns(text.into());
        let email = |text: &str| Name::Email(text.into());
        for (name, allowed) in [
            (dns("a.example"), true),
            (dns("b.a.example"), true),
            (dns("*.a.example"), true),
            (dns("ba.example"), false),
            (dns("example"), false),
            (dns("secret.a.example"), false),
            (dns("x.secret.a.example"), false),
            (ip("10.1.2.3"), true),
            (ip("11.1.2.3"), false),
            (ip("::1"), false),
            (email("who@x.a.example"), true),
            (email("who@a.example"), false),
            (email("one@b.example"), true),
            (email("two@b.example"), false),
            (Name::Uri("spiffe://a.example/web".into()), true),
            (Name::Uri("https://user@b.example:8443/".into()), false),
        ] {
            assert_eq!(constraints.allow(&name), allowed, "{name:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        use x509_parser::prelude::FromDer;
        let asked: api::NameConstraints = serde_json::from_value(serde_json::json!({
            "permitted": {"dnsDomains": ["a.example"], "ipRanges": ["10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0"], "uriDomains": [".a.example"]},
            "excluded": {"emailAddresses": ["one@a.example"]},
        }))
        .unwrap();
        assert!(asked.critical);
        let der = encode(&asked).unwrap().unwrap();
        let (rest, read) = x509_parser::extensions::NameConstraints::from_der(&der).unwrap();
        assert!(rest.is_empty());
        let v6 = "2001:db8::".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
        let wanted = Constraints {
            permitted: vec![
                Subtree::Dns("a.example".into()),
                Subtree::Uri(".a.example".into()),
                Subtree::Ip(vec![10, 0, 0, 0], vec![255, 0, 0, 0]),
                Subtree::Ip(v6, [vec![255; 4], vec![0; 12]].concat()),
                Subtree::Ip(vec![0; 4], vec![0; 4]),
            ],
            excluded: vec![Subtree::Email("one@a.example".into())],
            unknown: None,
        };
        assert_eq!(Constraints::from(&read), wanted);
        let empty = api::NameConstraints { critical: true, permitted: Some(NameConstraintItem::default()), excluded: None };
        assert_eq!(encode(&empty), Ok(None));
        for range in ["10.0.0.0/33", "::/129", "10.0.0.0", "x/8"] {
            assert_eq!(cidr(range), None, "{range}");
        }
    }

    #[test]
    fn what_is_not_mentioned_is_free() {
        let constraints = Constraints { permitted: vec![Subtree::Dns("a".into())], ..Constraints::default() };
        assert!(constraints.allow(&Name::Email("x@y".into())));
        assert!(Constraints::default().allow(&Name::Dns("anything".into())));
    }
}
