//! How a new value is made, as it stands in a resource. What makes it is in [`crate::secrets::generate`].

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
