//! What is made out of the values of a SecretRotation.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What is made out of the values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Whether the values themselves are in the Secret too. Default Replace: it holds what the template says.
    #[serde(default)]
    pub merge_policy: MergePolicy,
    /// Texts in the syntax of Jinja, by key of the Secret. The variables are the values, with `_` for what cannot be in a variable's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    #[x_kube(validation = Rule::new("self.all(k, k.matches('^[.]?[-_a-zA-Z0-9][-._a-zA-Z0-9]{0,251}$'))").message("a key of a Secret holds letters, digits, '-', '_' and '.', and does not begin with '..'"))]
    pub data: BTreeMap<String, TemplateText>,
    /// The type of the Secret; the same as `target.type`.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("!(self in ['kubernetes.io/service-account-token', 'bootstrap.kubernetes.io/token'])").message("Secrets of this type are filled by Kubernetes itself; choose another"))]
    pub secret_type: Option<String>,
    /// Labels and annotations of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<super::certificate_rotation::SecretTemplate>,
}

/// A template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TemplateText(pub String);

impl schemars::JsonSchema for TemplateText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TemplateText".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "maxLength": 65536})
    }
}

/// Whether the values stand beside the template's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum MergePolicy {
    /// Only what the template says.
    #[default]
    Replace,
    /// The values, and what the template says.
    Merge,
}
