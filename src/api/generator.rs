//! How a new value is made, as it stands in a resource. What makes it is in [`crate::secrets::contents::generate`].

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What is made: exactly one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Generator {
    /// Random bytes in base64 (RFC 4648, section 4, with padding).
    Base64(BytesSpec),
    /// Random bytes in lower-case hexadecimal.
    Hex(BytesSpec),
    /// A random UUID (RFC 9562, version 4).
    Uuid(UuidSpec),
    /// A password.
    Password(PasswordSpec),
    /// A private key in the form of OpenSSH; its line of `authorized_keys` stands under the same key of the Secret with `.pub` behind it.
    SshKey(SshKeySpec),
    /// An RSA private key (PEM, PKCS #8); its public key (PEM) stands under `.pub`.
    RsaKey(RsaKeySpec),
    /// An ECDSA private key (PEM, PKCS #8); its public key (PEM) stands under `.pub`.
    EcdsaKey(EcdsaKeySpec),
    /// An Ed25519 private key (PEM, PKCS #8); its public key (PEM) stands under `.pub`.
    Ed25519Key(Ed25519KeySpec),
    /// A JSON Web Key Set (RFC 7517) with one private key for signatures. Under `.pub` stands the set of public keys for who verifies them: the
    /// current one, and with `previous` the one before, too.
    Jwks(JwksSpec),
}

impl Generator {
    /// Whether what is public of it also holds what is public of the previous value.
    pub const fn publishes_previous(&self) -> bool {
        matches!(self, Self::Jwks(_))
    }

    /// Whether something public belongs to the value, which stands beside it.
    pub const fn has_public(&self) -> bool {
        matches!(self, Self::SshKey(_) | Self::RsaKey(_) | Self::EcdsaKey(_) | Self::Ed25519Key(_) | Self::Jwks(_))
    }
}

/// How many random bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct BytesSpec {
    /// From 16 to 1024. Default 32.
    #[serde(default = "thirty_two")]
    #[schemars(range(min = 16, max = 1024))]
    pub bytes: i32,
}

/// Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct UuidSpec {}

/// What a password looks like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.minimumPerClass * size(self.classes) <= self.length").message("length must be at least minimumPerClass times the number of classes")
)]
pub struct PasswordSpec {
    /// Characters, from 12 to 256. Default 32.
    #[serde(default = "thirty_two")]
    #[schemars(range(min = 12, max = 256))]
    pub length: i32,
    /// What they may be. Default: lower, upper, digits.
    #[serde(default = "default_classes")]
    #[schemars(length(min = 1, max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub classes: Vec<Class>,
    /// How many of each class at least, from 0 to 16. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 16))]
    pub minimum_per_class: i32,
    /// Characters that are left out, such as `0O1lI`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 95))]
    pub exclude: String,
}

/// What an SSH key looks like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("!has(self.size) || (self.algorithm == 'RSA' && self.size in [2048, 3072, 4096])").message("size must be 2048, 3072 or 4096 for RSA, and absent for Ed25519"))]
pub struct SshKeySpec {
    /// Ed25519 (default) or RSA.
    #[serde(default)]
    pub algorithm: SshAlgorithm,
    /// Bits, for RSA: 2048, 3072 (default) or 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i32>,
    /// What stands behind the key. Default: nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256), regex(pattern = r"^[\x20-\x7e]*$"))]
    pub comment: String,
}

/// The algorithm of an SSH key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum SshAlgorithm {
    /// Ed25519
    #[default]
    Ed25519,
    /// RSA
    #[serde(rename = "RSA")]
    Rsa,
}

/// What an RSA key looks like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.size in [2048, 3072, 4096]").message("size must be 2048, 3072 or 4096"))]
pub struct RsaKeySpec {
    /// Bits: 2048, 3072 (default) or 4096.
    #[serde(default = "rsa_3072")]
    pub size: i32,
}

const fn rsa_3072() -> i32 {
    3072
}

/// What an ECDSA key looks like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.size in [256, 384, 521]").message("size must be 256, 384 or 521"))]
pub struct EcdsaKeySpec {
    /// Bits of the NIST curve: 256 (default), 384 or 521.
    #[serde(default = "p256")]
    pub size: i32,
}

const fn p256() -> i32 {
    256
}

/// Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Ed25519KeySpec {}

/// What a key of a set looks like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct JwksSpec {
    /// The algorithm of its signatures (RFC 7518, RFC 8037). Default ES256. RSA keys have 3072 bits.
    #[serde(default)]
    pub algorithm: JwkAlgorithm,
}

/// The algorithm of a signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum JwkAlgorithm {
    /// ECDSA on P-256 with SHA-256
    #[default]
    #[serde(rename = "ES256")]
    Es256,
    /// ECDSA on P-384 with SHA-384
    #[serde(rename = "ES384")]
    Es384,
    /// ECDSA on P-521 with SHA-512
    #[serde(rename = "ES512")]
    Es512,
    /// RSA with PKCS #1 v1.5 and SHA-256
    #[serde(rename = "RS256")]
    Rs256,
    /// RSA with PSS and SHA-256
    #[serde(rename = "PS256")]
    Ps256,
    /// Ed25519
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl JwkAlgorithm {
    /// Its name in RFC 7518 and RFC 8037.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// A class of characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// a to z
    Lower,
    /// A to Z
    Upper,
    /// 0 to 9
    Digits,
    /// ASCII punctuation, but for quotes, backtick and backslash
    Symbols,
}

const fn thirty_two() -> i32 {
    32
}

const fn one() -> i32 {
    1
}

fn default_classes() -> Vec<Class> {
    vec![Class::Lower, Class::Upper, Class::Digits]
}
