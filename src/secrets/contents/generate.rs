//! New values: cryptographic randomness, uniform over what may come.

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::{
    api::{
        certificate_rotation::{Algorithm, Encoding, PrivateKey},
        generator::{Class, Generator, JwkAlgorithm, PasswordSpec, SshAlgorithm},
    },
    keys::{
        Key, KeyError,
        jwk::{self, JwkError},
        ssh,
    },
};

/// Why no value could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// No key could be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No password fits.
    #[error("no password of {length} characters can have {wanted} of each of the classes that are left after `exclude`")]
    Impossible {
        /// Characters.
        length: usize,
        /// Of each class.
        wanted: usize,
    },
}

/// A value that nobody had before.
pub type Value = Zeroizing<Vec<u8>>;

/// Makes one. RSA takes up to seconds of CPU time: call it where that blocks nobody.
pub fn generate(generator: &Generator) -> Result<Value, GenerateError> {
    match generator {
        Generator::Base64(spec) => Ok(text(STANDARD.encode(&*bytes(spec.bytes)?))),
        Generator::Hex(spec) => {
            let bytes = bytes(spec.bytes)?;
            let mut hex = Zeroizing::new(Vec::with_capacity(bytes.len() * 2));
            for byte in bytes.iter() {
                hex.extend([digit(byte >> 4), digit(byte & 0xf)]);
            }
            Ok(hex)
        }
        Generator::Uuid(_) => {
            let mut random = [0; 16];
            rand::fill(&mut random).map_err(|_| GenerateError::Random)?;
            Ok(text(uuid::Builder::from_random_bytes(random).into_uuid().to_string()))
        }
        Generator::Password(spec) => password(spec),
        Generator::SshKey(spec) => {
            let (algorithm, size) = match spec.algorithm {
                SshAlgorithm::Ed25519 => (Algorithm::Ed25519, None),
                SshAlgorithm::Rsa => (Algorithm::Rsa, Some(spec.size.unwrap_or(RSA_BITS))),
            };
            Ok(ssh::private(&key(algorithm, size)?, &spec.comment)?)
        }
        Generator::RsaKey(spec) => private(Algorithm::Rsa, Some(spec.size)),
        Generator::EcdsaKey(spec) => private(Algorithm::Ecdsa, Some(spec.size)),
        Generator::Ed25519Key(_) => private(Algorithm::Ed25519, None),
        Generator::Jwks(spec) => {
            let (algorithm, size) = match spec.algorithm {
                JwkAlgorithm::Es256 => (Algorithm::Ecdsa, Some(256)),
                JwkAlgorithm::Es384 => (Algorithm::Ecdsa, Some(384)),
                JwkAlgorithm::Es512 => (Algorithm::Ecdsa, Some(521)),
                JwkAlgorithm::Rs256 | JwkAlgorithm::Ps256 => (Algorithm::Rsa, Some(RSA_BITS)),
                JwkAlgorithm::EdDsa => (Algorithm::Ed25519, None),
            };
            Ok(jwk::private_set(&key(algorithm, size)?, spec.algorithm.name())?)
        }
    }
}

/// Of an RSA key, where nothing else is said.
const RSA_BITS: i32 = 3072;

fn key(algorithm: Algorithm, size: Option<i32>) -> Result<Key, KeyError> {
    Key::generate(&PrivateKey { algorithm, size, ..PrivateKey::default() })
}

fn private(algorithm: Algorithm, size: Option<i32>) -> Result<Value, GenerateError> {
    Ok(Zeroizing::new(key(algorithm, size)?.to_pem(Encoding::Pkcs8)?.as_bytes().to_vec()))
}

/// Why nothing public can be told of a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicError {
    /// It is no such key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It is no such set.
    #[error(transparent)]
    Set(#[from] JwkError),
}

/// What is public of a value; of a set also what is public of the one before. None: nothing is.
pub fn public(generator: &Generator, value: &[u8], previous: Option<&[u8]>) -> Result<Option<Value>, PublicError> {
    Ok(match generator {
        Generator::Base64(_) | Generator::Hex(_) | Generator::Uuid(_) | Generator::Password(_) => None,
        Generator::SshKey(_) => Some(text(ssh::public(value)?)),
        Generator::RsaKey(_) | Generator::EcdsaKey(_) | Generator::Ed25519Key(_) => Some(text(Key::from_pem(value)?.public_pem())),
        Generator::Jwks(_) => {
            let sets: Vec<&[u8]> = std::iter::once(value).chain(previous).collect();
            Some(Zeroizing::new(jwk::public_set(&sets)?))
        }
    })
}

fn text(text: String) -> Value {
    Zeroizing::new(text.into_bytes())
}

const fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

fn bytes(count: i32) -> Result<Value, GenerateError> {
    let mut bytes = Zeroizing::new(vec![0; usize::try_from(count).unwrap_or(0)]);
    rand::fill(&mut bytes).map_err(|_| GenerateError::Random)?;
    Ok(bytes)
}

/// A number below `end`, each as likely as the others: what would make the first ones likelier is drawn again.
fn below(end: usize) -> Result<usize, GenerateError> {
    let end = u64::try_from(end.max(1)).unwrap_or(1);
    let whole = u64::MAX - u64::MAX % end;
    loop {
        let mut drawn = [0; 8];
        rand::fill(&mut drawn).map_err(|_| GenerateError::Random)?;
        let drawn = u64::from_be_bytes(drawn);
        if drawn < whole {
            return Ok(usize::try_from(drawn % end).unwrap_or(0));
        }
    }
}

/// The characters of a class, without those that are not wanted.
fn alphabet(class: Class, exclude: &str) -> Vec<u8> {
    let all: &[u8] = match class {
        Class::Lower => b"abcdefghijklmnopqrstuvwxyz",
        Class::Upper => b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        Class::Digits => b"0123456789",
        // ASCII without quotes, backslash, backtick and space: what shells, URLs of drivers and configuration files trip over least.
        Class::Symbols => b"!#$%&()*+,-./:;<=>?@[]^_{|}~",
    };
    all.iter().copied().filter(|byte| !exclude.as_bytes().contains(byte)).collect()
}

/// So often a password is drawn before one is put together.
const TRIES: usize = 1000;

fn password(spec: &PasswordSpec) -> Result<Value, GenerateError> {
    let length = usize::try_from(spec.length).unwrap_or(0);
    let wanted = usize::try_from(spec.minimum_per_class).unwrap_or(0);
    let classes: Vec<Vec<u8>> = spec.classes.iter().map(|class| alphabet(*class, &spec.exclude)).collect();
    let all: Vec<u8> = classes.concat();
    if all.is_empty() || (wanted > 0 && classes.iter().any(Vec::is_empty)) || wanted * classes.len() > length {
        return Err(GenerateError::Impossible { length, wanted });
    }
    let fits = |password: &[u8]| classes.iter().all(|class| password.iter().filter(|byte| class.contains(byte)).count() >= wanted);
    // Drawn again until it fits, every password that does is as likely as any other.
    for _ in 0..TRIES {
        let drawn = draw(&all, length)?;
        if fits(&drawn) {
            return Ok(drawn);
        }
    }
    // So few fit that they are put together: as many of each class as there must be, the rest of all, and then shuffled.
    let mut password = Zeroizing::new(Vec::with_capacity(length));
    for class in &classes {
        password.extend_from_slice(&draw(class, wanted)?);
    }
    password.extend_from_slice(&draw(&all, length - wanted * classes.len())?);
    for place in (1..password.len()).rev() {
        let other = below(place + 1)?;
        password.swap(place, other);
    }
    Ok(password)
}

fn draw(alphabet: &[u8], length: usize) -> Result<Value, GenerateError> {
    let mut drawn = Zeroizing::new(Vec::with_capacity(length));
    for _ in 0..length {
        drawn.push(alphabet[below(alphabet.len())?]);
    }
    Ok(drawn)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::api::generator::BytesSpec;

    fn spec(length: i32, classes: &[Class], minimum: i32, exclude: &str) -> Generator {
        Generator::Password(PasswordSpec { length, classes: classes.to_vec(), minimum_per_class: minimum, exclude: exclude.into() })
    }

    fn text(generator: &Generator) -> String {
        String::from_utf8(generate(generator).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn each_has_its_form_and_none_comes_twice() {
        let forms: [(Generator, &str); 4] = [
            (Generator::Base64(BytesSpec { bytes: 32 }), "^[A-Za-z0-9+/]{43}=$"),
            (Generator::Hex(BytesSpec { bytes: 16 }), "^[0-9a-f]{32}$"),
            (Generator::Uuid(crate::api::generator::UuidSpec {}), "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"),
            (spec(20, &[Class::Lower, Class::Digits], 1, "0o1l"), "^[a-kmnp-z2-9]{20}$"),
        ];
        for (generator, form) in forms {
            let made: BTreeSet<String> = (0..100).map(|_| text(&generator)).collect();
            assert_eq!(made.len(), 100, "{form}");
            let form = regex::Regex::new(form).unwrap();
            assert!(made.iter().all(|value| form.is_match(value)), "{form}: {:?}", made.first());
        }
    }

    #[test]
    fn what_is_public_of_a_key_is_told_and_of_others_nothing() {
        let parse = |text: &str| -> Generator { serde_json::from_str(text).unwrap() };
        for (generator, begins) in [
            (r#"{"sshKey": {"comment": "me"}}"#, "ssh-ed25519 "),
            (r#"{"rsaKey": {"size": 2048}}"#, "-----BEGIN PUBLIC KEY-----\n"),
            (r#"{"ecdsaKey": {}}"#, "-----BEGIN PUBLIC KEY-----\n"),
            (r#"{"ed25519Key": {}}"#, "-----BEGIN PUBLIC KEY-----\n"),
            (r#"{"sshKey": {"algorithm": "RSA", "size": 2048}}"#, "ssh-rsa "),
            (r#"{"ecdsaKey": {"size": 384}}"#, "-----BEGIN PUBLIC KEY-----\nMHYw"),
            (r#"{"ecdsaKey": {"size": 521}}"#, "-----BEGIN PUBLIC KEY-----\nMIGb"),
            (r#"{"jwks": {}}"#, r#"{"keys":[{"kty":"EC","crv":"P-256","#),
            (r#"{"jwks": {"algorithm": "ES384"}}"#, r#"{"keys":[{"kty":"EC","crv":"P-384","#),
            (r#"{"jwks": {"algorithm": "ES512"}}"#, r#"{"keys":[{"kty":"EC","crv":"P-521","#),
            (r#"{"jwks": {"algorithm": "EdDSA"}}"#, r#"{"keys":[{"kty":"OKP","crv":"Ed25519","#),
            (r#"{"jwks": {"algorithm": "RS256"}}"#, r#"{"keys":[{"kty":"RSA","#),
            (r#"{"jwks": {"algorithm": "PS256"}}"#, r#"{"keys":[{"kty":"RSA","#),
        ] {
            let generator = parse(generator);
            let (value, before) = (generate(&generator).unwrap(), generate(&generator).unwrap());
            let told = public(&generator, &value, Some(&before)).unwrap().unwrap();
            assert!(generator.has_public() && told.starts_with(begins.as_bytes()), "{generator:?}");
            let sets = if matches!(generator, Generator::Jwks(_)) { 2 } else { 0 };
            assert_eq!(String::from_utf8(told.to_vec()).unwrap().matches("\"kid\":").count(), sets);
            assert!(public(&generator, b"something else", None).is_err());
        }
        let hex = parse(r#"{"hex": {}}"#);
        assert!(!hex.has_public() && public(&hex, b"x", None).unwrap().is_none());
    }

    #[test]
    fn a_password_has_what_it_must_have() {
        let all = [Class::Lower, Class::Upper, Class::Digits, Class::Symbols];
        for (length, minimum) in [(12, 3), (16, 4), (64, 16), (12, 0)] {
            for _ in 0..50 {
                let made = text(&spec(length, &all, minimum, "aA0!"));
                assert_eq!(made.len(), usize::try_from(length).unwrap());
                for class in all {
                    let count = made.bytes().filter(|byte| alphabet(class, "").contains(byte)).count();
                    assert!(count >= usize::try_from(minimum).unwrap(), "{made} {class:?}");
                }
                assert!(!made.contains(['a', 'A', '0', '!']));
            }
        }
        for impossible in [spec(12, &[Class::Digits], 1, "0123456789"), spec(12, &all, 4, "")] {
            assert!(matches!(generate(&impossible), Err(GenerateError::Impossible { .. })));
        }
    }

    /// Pearson's chi-squared test of 620,000 characters against the uniform distribution: a fair one stays below the limit but once in a billion runs.
    #[test]
    fn every_character_is_as_likely_as_any_other() {
        let classes = [Class::Lower, Class::Upper, Class::Digits, Class::Symbols];
        let mut counts = BTreeMap::<u8, u64>::new();
        for _ in 0..2500 {
            for byte in generate(&spec(248, &classes, 0, "")).unwrap().iter() {
                *counts.entry(*byte).or_default() += 1;
            }
        }
        // What the page of the kind says.
        let symbols = b"!#$%&()*+,-./:;<=>?@[]^_{|}~";
        let all: BTreeSet<u8> = (b'a'..=b'z').chain(b'A'..=b'Z').chain(b'0'..=b'9').chain(symbols.iter().copied()).collect();
        assert!(counts.keys().eq(&all), "{counts:?}");
        let expected = 620_000.0 / 90.0;
        let squared: f64 = counts.values().map(|count| (f64::from(u32::try_from(*count).unwrap()) - expected).powi(2) / expected).sum();
        assert!(squared < 195.0, "{squared}");
    }

    /// The same test for what must have some of each class: of two letters and two digits, every word that fits is as likely as any other.
    #[test]
    fn so_is_every_password_that_has_what_it_must_have() {
        let others: String = (b'a'..=b'z').chain(b'0'..=b'9').map(char::from).filter(|sign| !"ab01".contains(*sign)).collect();
        // Of two signs eight words fit; of twelve with six of each class so few that they are put together, and there the signs of a place are counted.
        for (length, minimum, place, wanted) in [(2, 1, None, 8), (12, 6, Some(0), 4), (12, 6, Some(11), 4)] {
            let mut counts = BTreeMap::<String, u64>::new();
            for _ in 0..20_000 {
                let made = text(&spec(length, &[Class::Lower, Class::Digits], minimum, &others));
                let counted = place.map_or(made.as_str(), |place: usize| &made[place..=place]);
                *counts.entry(counted.to_owned()).or_default() += 1;
            }
            assert_eq!(counts.len(), wanted);
            let expected = 20_000.0 / f64::from(u32::try_from(wanted).unwrap());
            let squared: f64 = counts.values().map(|count| (f64::from(u32::try_from(*count).unwrap()) - expected).powi(2) / expected).sum();
            assert!(squared < 60.0, "{squared} {counts:?}");
        }
    }
}
