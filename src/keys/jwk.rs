//! Keys as JSON (RFC 7517): sets with one private key, and the public sets that who verifies signatures gets.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Key, KeyError, parts::Parts};

/// The longest set that is read.
const MAX_BYTES: usize = 256 * 1024;
/// Nor holds more keys.
const MAX_KEYS: usize = 100;
/// The longest that is written: an RSA key of 4096 bits has some four thousand characters. With that much room from the start, no copy is left.
const ROOM: usize = 8 * 1024;

/// Why a set cannot be read. Never holds a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    /// It is something else.
    #[error("it is no JSON Web Key Set: {{\"keys\": [...]}}")]
    NotASet,
    /// A symmetric key has no public part.
    #[error("it holds a key that is neither RSA, EC nor OKP: such a key has no public part")]
    Symmetric,
}

/// The public members of a key; what else there is is not read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Public {
    kty: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Set<K> {
    keys: Vec<K>,
}

/// All members of a key by their names, and so in the order in which stores give them back that read JSON. Overwritten when dropped.
type Members = BTreeMap<&'static str, Zeroizing<String>>;

/// A set with `key` alone, private members included, for signatures with `algorithm` (RFC 7518). Its `kid` is its thumbprint (RFC 7638).
pub fn private_set(key: &Key, algorithm: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let secret = |bytes: &[u8]| Zeroizing::new(text(bytes));
    let (mut public, private) = match key.parts()? {
        Parts::Rsa(rsa) => (
            Public { kty: "RSA".into(), n: Some(text(&rsa.n)), e: Some(text(&rsa.e)), ..Public::default() },
            [("d", &rsa.d), ("p", &rsa.p), ("q", &rsa.q), ("dp", &rsa.dp), ("dq", &rsa.dq), ("qi", &rsa.qi)]
                .map(|(name, number)| (name, secret(number)))
                .into(),
        ),
        Parts::Ecdsa { bits, x, y, d } => {
            let public =
                Public { kty: "EC".into(), crv: Some(format!("P-{bits}")), x: Some(text(&x)), y: Some(text(&y)), ..Public::default() };
            (public, BTreeMap::from([("d", secret(&d))]))
        }
        Parts::Ed25519 { x, d } => {
            let public = Public { kty: "OKP".into(), crv: Some("Ed25519".into()), x: Some(text(&x)), ..Public::default() };
            (public, BTreeMap::from([("d", secret(&*d))]))
        }
    };
    public.kid = Some(thumbprint(&public));
    (public.usage, public.alg) = (Some("sig".into()), Some(algorithm.into()));
    let mut members: Members = private;
    let Public { kty, crv, x, y, n, e, usage, alg, kid } = public;
    let named = [("kty", Some(kty)), ("crv", crv), ("x", x), ("y", y), ("n", n), ("e", e), ("use", usage), ("alg", alg), ("kid", kid)];
    members.extend(named.into_iter().filter_map(|(name, value)| Some((name, Zeroizing::new(value?)))));
    let mut json = Zeroizing::new(Vec::with_capacity(ROOM));
    serde_json::to_writer(&mut *json, &Set { keys: vec![members] }).map_err(|_| KeyError::Unsupported)?;
    Ok(json)
}

/// SHA-256 of the members that a key of its type must have, in the order of their names.
fn thumbprint(key: &Public) -> String {
    let members = [("crv", &key.crv), ("e", &key.e), ("kty", &Some(key.kty.clone())), ("n", &key.n), ("x", &key.x), ("y", &key.y)];
    let members: BTreeMap<&str, &str> = members.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
    let canonical = serde_json::to_vec(&members).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &canonical))
}

/// The public parts of all keys of `sets`, in their order, each key once: for who verifies.
pub fn public_set(sets: &[&[u8]]) -> Result<Vec<u8>, JwkError> {
    let mut keys: Vec<Public> = Vec::new();
    for set in sets {
        if set.len() > MAX_BYTES {
            return Err(JwkError::NotASet);
        }
        let set: Set<Public> = serde_json::from_slice(set).map_err(|_| JwkError::NotASet)?;
        if set.keys.len() > MAX_KEYS {
            return Err(JwkError::NotASet);
        }
        for key in set.keys {
            if !["RSA", "EC", "OKP"].contains(&key.kty.as_str()) {
                return Err(JwkError::Symmetric);
            }
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    serde_json::to_vec(&Set { keys }).map_err(|_| JwkError::NotASet)
}

/// The public keys of `set` that are not among those of `other`. None: one of them is no set.
pub fn without(set: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let keys = |set: &[u8]| Some(serde_json::from_slice::<Set<Public>>(&public_set(&[set]).ok()?).ok()?.keys);
    let (mut keys, other) = (keys(set)?, keys(other)?);
    keys.retain(|key| !other.contains(key));
    serde_json::to_vec(&Set { keys }).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::api::x509::{Algorithm, PrivateKey};

    #[test]
    fn the_thumbprint_of_the_example_in_rfc_7638() {
        let key: Public = serde_json::from_str(
            r#"{"kty": "RSA", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}"#,
        )
        .unwrap();
        assert_eq!(thumbprint(&key), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn a_set_says_what_a_key_is_and_its_public_form_no_more_than_that() {
        for (algorithm, size, name, private) in [
            (Algorithm::Ecdsa, Some(256), "ES256", 1),
            (Algorithm::Ecdsa, Some(521), "ES512", 1),
            (Algorithm::Ed25519, None, "EdDSA", 1),
            (Algorithm::Rsa, None, "RS256", 6),
        ] {
            let make = || Key::generate(&PrivateKey { algorithm, size, ..PrivateKey::default() }).unwrap();
            let (new, old) = (private_set(&make(), name).unwrap(), private_set(&make(), name).unwrap());
            let parsed: Value = serde_json::from_slice(&new).unwrap();
            let key = &parsed["keys"][0];
            assert_eq!((key["alg"].as_str(), key["use"].as_str(), key["kid"].as_str().map(str::len)), (Some(name), Some("sig"), Some(43)));
            let public: Value = serde_json::from_slice(&public_set(&[&new, &old, &new]).unwrap()).unwrap();
            assert_eq!(public["keys"].as_array().unwrap().len(), 2, "each once");
            assert_eq!(public["keys"][0]["kid"], key["kid"]);
            for member in ["d", "p", "q", "dp", "dq", "qi"] {
                assert!(public["keys"][0].get(member).is_none());
            }
            let members = key.as_object().unwrap().len() - public["keys"][0].as_object().unwrap().len();
            assert_eq!(members, private);
        }
    }

    #[test]
    fn a_set_can_be_used_with_the_numbers_that_it_names() {
        use aws_lc_rs::signature::{
            ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, UnparsedPublicKey,
        };
        let part = |set: &[u8], name: &str| {
            let set: Value = serde_json::from_slice(set).unwrap();
            URL_SAFE_NO_PAD.decode(set["keys"][0][name].as_str().unwrap()).unwrap()
        };
        let set =
            private_set(&Key::generate(&PrivateKey { algorithm: Algorithm::Ed25519, ..PrivateKey::default() }).unwrap(), "EdDSA").unwrap();
        let pair = Ed25519KeyPair::from_seed_and_public_key(&part(&set, "d"), &part(&set, "x")).unwrap();
        UnparsedPublicKey::new(&ED25519, part(&set, "x")).verify(b"m", pair.sign(b"m").as_ref()).unwrap();
        let set = private_set(&Key::generate(&PrivateKey::default()).unwrap(), "ES256").unwrap();
        let point = [&[4][..], &part(&set, "x"), &part(&set, "y")].concat();
        let pair = EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &part(&set, "d"), &point).unwrap();
        let signature = pair.sign(&aws_lc_rs::rand::SystemRandom::new(), b"m").unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(b"m", signature.as_ref()).unwrap();
    }

    #[test]
    fn what_is_no_set_is_refused_and_no_input_makes_it_panic() {
        assert_eq!(public_set(&[b"x"]).unwrap_err(), JwkError::NotASet);
        assert_eq!(public_set(&[br#"{"keys": [{"kty": "oct", "k": "AAAA"}]}"#]).unwrap_err(), JwkError::Symmetric);
        bolero::check!().with_iterations(10_000).for_each(|input: &[u8]| drop(public_set(&[input])));
    }

    #[test]
    fn keys_can_be_taken_out_of_a_set() {
        let set = || {
            private_set(&Key::generate(&PrivateKey { algorithm: Algorithm::Ed25519, ..PrivateKey::default() }).unwrap(), "EdDSA").unwrap()
        };
        let (one, other) = (set(), set());
        let both = public_set(&[&one, &other]).unwrap();
        assert_eq!(without(&both, &other), Some(public_set(&[&one]).unwrap()));
        assert_eq!(without(&public_set(&[&one]).unwrap(), &other), Some(public_set(&[&one]).unwrap()));
        let none = without(&one, &one).unwrap();
        assert_eq!((none.as_slice(), without(&both, &none)), (br#"{"keys":[]}"#.as_slice(), Some(both.clone())));
        assert_eq!((without(&both, b"no set"), without(b"no set", &one)), (None, None));
    }
}
