//! The custom resources: data only, one file per kind, no I/O and no async.
//!
//! Field names follow the resource that users of the field already know (cert-manager's Certificate for certificates). What the
//! API server can refuse is refused there, by schema or CEL; what it cannot (a time zone, the calendar of a cron expression) ends in
//! a condition.

pub mod certificate_issuer;
pub mod certificate_rotation;
pub mod duration;
pub mod generator;
pub mod push;
pub mod restart;
pub mod schedule;
pub mod secret_rotation;
pub mod secret_store;
pub mod status;
pub mod template;
pub mod verify;
pub mod x509;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;

pub use certificate_issuer::CertificateIssuer;
pub use certificate_rotation::CertificateRotation;
pub use duration::Duration;
pub use secret_rotation::SecretRotation;
pub use secret_store::SecretStore;

/// The API group of every kind.
pub const GROUP: &str = "seaworthy.dev";

/// What Kubernetes takes for a key of a Secret: not `.`, and nothing that begins with `..`
/// (<https://kubernetes.io/docs/concepts/configuration/secret/#restriction-names-data>).
pub const SECRET_KEY: &str = r"^\.?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$";

/// Annotation of a user's object: any new value asks for a rotation now.
pub const ROTATE_ANNOTATION: &str = "seaworthy.dev/rotate";

/// Annotation of a user's object: any new value asks to read the store now.
pub const REFRESH_ANNOTATION: &str = "seaworthy.dev/refresh";

/// All CustomResourceDefinitions, in the order of their file names in `crds/`.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [CertificateIssuer::crd(), CertificateRotation::crd(), SecretRotation::crd(), SecretStore::crd()]
        .into_iter()
        .map(with_initial_status)
        .collect()
}

/// Gives a new object `status.observedGeneration: -1`, so that kstatus (Flux, Helm) sees "not looked at yet" from its first moment on
/// instead of taking an object without conditions for a finished one.
fn with_initial_status(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let status = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
            .and_then(|schema| schema.properties.as_mut())
            .and_then(|properties| properties.get_mut("status"));
        if let Some(status) = status {
            status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
            status.nullable = None; // a nullable field takes an explicit null over its default
        }
    }
    crd
}

/// As YAML, the way that `crds/` and the command line write it: without the empty status that only the API server fills.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_json::Error> {
    let mut value = serde_json::to_value(crd)?;
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
    }
    serde_saphyr::to_string(&value).map_err(serde::ser::Error::custom)
}
