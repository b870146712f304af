//! Private keys: made, read, written in the encoding that was asked for. No I/O.

pub mod jwk;
pub mod parts;
pub mod pem;
pub mod ssh;

use std::fmt;

use aws_lc_rs::{
    agreement,
    encoding::{AsDer, EcPrivateKeyRfc5915Der},
    signature::Ed25519KeyPair,
};
use rcgen::{KeyPair, PublicKeyData, RsaKeySize};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use x509_parser::asn1_rs::{Any, FromDer, Integer, OctetString, Sequence};
use zeroize::{Zeroize, Zeroizing};

use crate::api::x509::{Algorithm, Encoding, PrivateKey as KeySpec};

/// The largest PEM text that is looked at: what a Secret can hold.
pub const MAX_PEM_BYTES: usize = 1024 * 1024;

/// Why a private key cannot be made or used. Never holds a part of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is larger than [`MAX_PEM_BYTES`].
    #[error("the private key is larger than 1 MiB")]
    TooLarge,
    /// No PEM block of a private key.
    #[error("there is no unencrypted private key in PEM form (PKCS#8, PKCS#1 or SEC 1)")]
    NotPem,
    /// A kind of key that is not known here, or broken data.
    #[error("the private key is broken or of an unsupported kind (RSA, ECDSA P-256/384/521 and Ed25519 are supported)")]
    Unsupported,
    /// Another form than that of OpenSSH, or with a passphrase.
    #[error("there is no unencrypted Ed25519 or RSA private key in the form of OpenSSH")]
    NotOpenSsh,
    /// The system could not make a key.
    #[error("no private key could be generated")]
    Generate,
}

/// A private key. Overwritten in memory when dropped; `Debug` shows the algorithm only.
pub struct Key(KeyPair);

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.0.algorithm())
    }
}

impl Key {
    /// Makes a new key as `spec` asks. RSA takes up to seconds of CPU time: call it where that blocks nobody.
    pub fn generate(spec: &KeySpec) -> Result<Self, KeyError> {
        let pair = match (spec.algorithm, size(spec)) {
            (Algorithm::Rsa, bits) => {
                let size = match bits {
                    3072 => RsaKeySize::_3072,
                    4096 => RsaKeySize::_4096,
                    _ => RsaKeySize::_2048,
                };
                KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size)
            }
            (Algorithm::Ecdsa, 384) => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            (Algorithm::Ecdsa, 521) => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
            (Algorithm::Ecdsa, _) => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            (Algorithm::Ed25519, _) => return Self::generate_ed25519(),
        };
        pair.map(Self).map_err(|_| KeyError::Generate)
    }

    /// PKCS#8 in version 1, because OpenSSL does not read the version 2 (with public key) that the default writes.
    fn generate_ed25519() -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Generate)?;
        let document = pair.to_pkcs8v1().map_err(|_| KeyError::Generate)?;
        let der = Zeroizing::new(document.as_ref().to_vec());
        KeyPair::try_from(der.as_slice()).map(Self).map_err(|_| KeyError::Generate)
    }

    /// Reads the first private key of a PEM text: PKCS#8, PKCS#1 or SEC 1, unencrypted.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        if pem.len() > MAX_PEM_BYTES {
            return Err(KeyError::TooLarge);
        }
        let mut der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyError::NotPem)?;
        let pair = KeyPair::try_from(&der).map(Self).map_err(|_| KeyError::Unsupported);
        der.zeroize();
        pair
    }

    /// Writes it as PEM in `encoding`. Ed25519 has PKCS#8 only.
    pub fn to_pem(&self, encoding: Encoding) -> Result<Zeroizing<String>, KeyError> {
        let pkcs8 = Zeroizing::new(self.pkcs8()?);
        Ok(match (encoding, self.kind().0) {
            (Encoding::Pkcs8, _) | (Encoding::Pkcs1, Algorithm::Ed25519) => pem("PRIVATE KEY", &pkcs8),
            (Encoding::Pkcs1, Algorithm::Rsa) => pem("RSA PRIVATE KEY", &inner_octets(&pkcs8)?),
            (Encoding::Pkcs1, Algorithm::Ecdsa) => pem("EC PRIVATE KEY", &self.sec1(&pkcs8)?),
        })
    }

    /// What it was read from may have been PKCS#1 or SEC 1; PKCS#8 is the form that all others are made from.
    pub(crate) fn pkcs8(&self) -> Result<Vec<u8>, KeyError> {
        let der = self.0.serialized_der();
        if inner_octets(der).is_ok() {
            return Ok(der.to_vec());
        }
        let rsa = self.0.algorithm() == &rcgen::PKCS_RSA_SHA256;
        let document = if rsa {
            aws_lc_rs::rsa::KeyPair::from_der(der)
                .ok()
                .and_then(|key| key.as_der().ok())
                .map(|der: aws_lc_rs::encoding::Pkcs8V1Der<'_>| der.as_ref().to_vec())
        } else {
            let algorithm = self.signing_curve().ok_or(KeyError::Unsupported)?;
            aws_lc_rs::signature::EcdsaKeyPair::from_private_key_der(algorithm, der)
                .ok()
                .and_then(|key| key.to_pkcs8v1().ok())
                .map(|document| document.as_ref().to_vec())
        };
        document.ok_or(KeyError::Unsupported)
    }

    fn signing_curve(&self) -> Option<&'static aws_lc_rs::signature::EcdsaSigningAlgorithm> {
        use aws_lc_rs::signature as s;
        let algorithm = self.0.algorithm();
        [
            (&rcgen::PKCS_ECDSA_P256_SHA256, &s::ECDSA_P256_SHA256_ASN1_SIGNING),
            (&rcgen::PKCS_ECDSA_P384_SHA384, &s::ECDSA_P384_SHA384_ASN1_SIGNING),
            (&rcgen::PKCS_ECDSA_P521_SHA512, &s::ECDSA_P521_SHA512_ASN1_SIGNING),
        ]
        .into_iter()
        .find(|(ours, _)| algorithm == *ours)
        .map(|(_, curve)| curve)
    }

    /// RFC 5915 with the curve's name inside, which the copy within PKCS#8 leaves out and OpenSSL wants.
    fn sec1(&self, pkcs8: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let curve = match self.kind() {
            (Algorithm::Ecdsa, 384) => &agreement::ECDH_P384,
            (Algorithm::Ecdsa, 521) => &agreement::ECDH_P521,
            _ => &agreement::ECDH_P256,
        };
        let key = agreement::PrivateKey::from_private_key_der(curve, pkcs8).map_err(|_| KeyError::Unsupported)?;
        let der: EcPrivateKeyRfc5915Der<'_> = key.as_der().map_err(|_| KeyError::Unsupported)?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }

    /// Whether `spec` would make a key of this kind.
    pub fn fits(&self, spec: &KeySpec) -> bool {
        self.kind() == (spec.algorithm, size(spec))
    }

    /// Algorithm and size in bits (0 for Ed25519).
    fn kind(&self) -> (Algorithm, i32) {
        let algorithm = self.0.algorithm();
        if algorithm == &rcgen::PKCS_ED25519 {
            (Algorithm::Ed25519, 0)
        } else if algorithm == &rcgen::PKCS_ECDSA_P256_SHA256 {
            (Algorithm::Ecdsa, 256)
        } else if algorithm == &rcgen::PKCS_ECDSA_P384_SHA384 {
            (Algorithm::Ecdsa, 384)
        } else if algorithm == &rcgen::PKCS_ECDSA_P521_SHA512 {
            (Algorithm::Ecdsa, 521)
        } else {
            (Algorithm::Rsa, self.rsa_bits())
        }
    }

    /// The length of the modulus, from the raw public key (RFC 8017, RSAPublicKey).
    fn rsa_bits(&self) -> i32 {
        Sequence::from_der(self.0.public_key_raw())
            .ok()
            .and_then(|(_, sequence)| Integer::from_der(&sequence.content).ok().map(|(_, modulus)| modulus.as_ref().to_vec()))
            .map(|modulus| modulus.iter().skip_while(|byte| **byte == 0).count() * 8)
            .and_then(|bits| i32::try_from(bits).ok())
            .unwrap_or(0)
    }

    /// SubjectPublicKeyInfo in DER: what tells whether a certificate is this key's.
    pub fn public_key(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// SubjectPublicKeyInfo in PEM.
    pub fn public_pem(&self) -> String {
        pem::pem("PUBLIC KEY", &self.public_key())
    }

    /// For signing.
    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }
}

/// The size in bits that `spec` means; 0 for Ed25519.
pub fn size(spec: &KeySpec) -> i32 {
    match spec.algorithm {
        Algorithm::Rsa => spec.size.unwrap_or(2048),
        Algorithm::Ecdsa => spec.size.unwrap_or(256),
        Algorithm::Ed25519 => 0,
    }
}

/// The `privateKey` field of a PKCS#8 PrivateKeyInfo (RFC 5958): version, algorithm, octets.
fn inner_octets(pkcs8: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let read = || -> Option<Zeroizing<Vec<u8>>> {
        let (_, outer) = Sequence::from_der(pkcs8).ok()?;
        let (rest, _version) = Integer::from_der(&outer.content).ok()?;
        let (rest, _algorithm) = Sequence::from_der(rest).ok()?;
        let (_, octets) = OctetString::from_der(rest).ok()?;
        Any::from_der(octets.as_ref()).ok()?;
        Some(Zeroizing::new(octets.as_ref().to_vec()))
    };
    read().ok_or(KeyError::Unsupported)
}

fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(pem::pem(label, der))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn kinds() -> Vec<KeySpec> {
        let spec = |algorithm, size| KeySpec { algorithm, size, ..KeySpec::default() };
        vec![
            spec(Algorithm::Rsa, None),
            spec(Algorithm::Rsa, Some(3072)),
            spec(Algorithm::Ecdsa, None),
            spec(Algorithm::Ecdsa, Some(384)),
            spec(Algorithm::Ecdsa, Some(521)),
            spec(Algorithm::Ed25519, None),
        ]
    }

    #[test]
    fn every_kind_survives_being_written_and_read_in_every_encoding() {
        for spec in kinds() {
            let key = Key::generate(&spec).unwrap();
            assert!(key.fits(&spec), "{spec:?}");
            for encoding in [Encoding::Pkcs8, Encoding::Pkcs1] {
                let pem = key.to_pem(encoding).unwrap();
                let read = Key::from_pem(pem.as_bytes()).unwrap();
                assert_eq!(read.public_key(), key.public_key(), "{spec:?} {encoding:?}");
                assert!(read.fits(&spec));
                // Both encodings can be made from both.
                assert_eq!(*read.to_pem(Encoding::Pkcs1).unwrap(), *key.to_pem(Encoding::Pkcs1).unwrap());
                Key::from_pem(read.to_pem(Encoding::Pkcs8).unwrap().as_bytes()).unwrap();
            }
        }
    }

    #[test]
    fn kinds_differ() {
        for spec in kinds() {
            let key = Key::generate(&spec).unwrap();
            assert_eq!(kinds().into_iter().filter(|other| key.fits(other)).count(), 1, "{spec:?}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let key = Key::generate(&KeySpec::default()).unwrap();
        let pem = key.to_pem(Encoding::Pkcs8).unwrap();
        let shown = format!("{key:?}");
        assert!(shown.len() < 80 && !pem.contains(&shown), "{shown}");
    }

    #[test]
    fn refuses_other_texts() {
        assert_eq!(Key::from_pem(b"").unwrap_err(), KeyError::NotPem);
        assert_eq!(Key::from_pem(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap_err(), KeyError::Unsupported);
        assert_eq!(Key::from_pem(&vec![b'x'; MAX_PEM_BYTES + 1]).unwrap_err(), KeyError::TooLarge);
    }

    #[test]
    fn no_input_makes_it_panic() {
        let key = Key::generate(&KeySpec::default()).unwrap();
        let valid = key.to_pem(Encoding::Pkcs8).unwrap();
        bolero::check!().with_iterations(20_000).for_each(|input: &[u8]| {
            let _ = Key::from_pem(input);
            let _ = Key::from_pem(pem("PRIVATE KEY", input).as_bytes());
            let _ = Key::from_pem(pem("RSA PRIVATE KEY", input).as_bytes());
            let _ = Key::from_pem(pem("EC PRIVATE KEY", input).as_bytes());
            let mut broken = valid.as_bytes().to_vec();
            for (index, byte) in input.iter().enumerate() {
                let place = (index * 31 + usize::from(*byte)) % broken.len();
                broken[place] ^= byte;
            }
            let _ = Key::from_pem(&broken);
        });
    }
}
