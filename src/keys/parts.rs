//! The numbers that a private key is made of, which other forms than PKCS#8 name one by one.

use x509_parser::asn1_rs::{FromDer, Integer, OctetString, Sequence};
use zeroize::Zeroizing;

use super::{Key, KeyError};
use crate::api::x509::Algorithm;

/// An unsigned number, big-endian.
pub type Number = Zeroizing<Vec<u8>>;

/// The numbers of a private key.
pub enum Parts {
    /// RFC 8017, without leading zeros.
    Rsa(Box<Rsa>),
    /// Of the curve with that many bits (SEC 1): all as long as the curve's field.
    Ecdsa {
        /// 256, 384 or 521.
        bits: i32,
        /// Of the public point.
        x: Vec<u8>,
        /// Of the public point.
        y: Vec<u8>,
        /// The private number.
        d: Number,
    },
    /// RFC 8032: 32 bytes each.
    Ed25519 {
        /// The public key.
        x: [u8; 32],
        /// The private key, from which the public one follows.
        d: Zeroizing<[u8; 32]>,
    },
}

/// The numbers of an RSA key, in the words of RFC 7518.
pub struct Rsa {
    /// Modulus.
    pub n: Number,
    /// Public exponent.
    pub e: Number,
    /// Private exponent.
    pub d: Number,
    /// First prime.
    pub p: Number,
    /// Second prime.
    pub q: Number,
    /// d mod (p-1).
    pub dp: Number,
    /// d mod (q-1).
    pub dq: Number,
    /// The inverse of q mod p.
    pub qi: Number,
}

impl Key {
    /// Takes it apart.
    pub fn parts(&self) -> Result<Parts, KeyError> {
        let inner = super::inner_octets(&self.pkcs8()?)?;
        let public = self.0.public_key_raw();
        let parts = match self.kind() {
            (Algorithm::Rsa, _) => rsa(&inner).map(|rsa| Parts::Rsa(Box::new(rsa))),
            (Algorithm::Ecdsa, bits) => ecdsa(&inner, public, bits),
            (Algorithm::Ed25519, _) => ed25519(&inner, public),
        };
        parts.ok_or(KeyError::Unsupported)
    }
}

/// RSAPrivateKey: version and eight numbers.
fn rsa(der: &[u8]) -> Option<Rsa> {
    let (_, sequence) = Sequence::from_der(der).ok()?;
    let mut rest: &[u8] = &sequence.content;
    let mut next = || {
        let (after, number) = Integer::from_der(rest).ok()?;
        rest = after;
        let digits = number.as_ref();
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        Some(Zeroizing::new(digits.get(zeros..)?.to_vec()))
    };
    next()?; // version
    Some(Rsa { n: next()?, e: next()?, d: next()?, p: next()?, q: next()?, dp: next()?, dq: next()?, qi: next()? })
}

/// ECPrivateKey: version and the private number; the public point uncompressed.
fn ecdsa(der: &[u8], public: &[u8], bits: i32) -> Option<Parts> {
    let (_, sequence) = Sequence::from_der(der).ok()?;
    let (rest, _version) = Integer::from_der(&sequence.content).ok()?;
    let (_, d) = OctetString::from_der(rest).ok()?;
    let length = usize::try_from(bits).ok()?.div_ceil(8);
    let (form, point) = public.split_first()?;
    if *form != 4 || point.len() != 2 * length || d.as_ref().len() != length {
        return None;
    }
    let (x, y) = point.split_at(length);
    Some(Parts::Ecdsa { bits, x: x.to_vec(), y: y.to_vec(), d: Zeroizing::new(d.as_ref().to_vec()) })
}

/// CurvePrivateKey (RFC 8410): an octet string within the octet string.
fn ed25519(der: &[u8], public: &[u8]) -> Option<Parts> {
    let (_, d) = OctetString::from_der(der).ok()?;
    Some(Parts::Ed25519 { x: public.try_into().ok()?, d: Zeroizing::new(d.as_ref().try_into().ok()?) })
}
