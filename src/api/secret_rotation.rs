//! SecretRotation: values from a store in a Secret, generated, rotated, pushed back.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    Duration, SECRET_KEY,
    generator::Generator,
    restart::Restart,
    schedule::Window,
    status::{Consumers, LastFailure},
};
pub use super::{
    push::{Push, PushRef, Pushed, UpdatePolicy},
    template::{MergePolicy, Template, TemplateText},
};
use crate::secrets::{store::Store, stores::StoreSpec};

/// Values that are kept in a Secret of the same namespace.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "seaworthy.dev",
    version = "v1alpha1",
    kind = "SecretRotation",
    namespaced,
    status = "SecretRotationStatus",
    derive = "PartialEq",
    shortname = "secrot",
    category = "seaworthy",
    doc = "Values that are kept in a Secret of the same namespace: brought from a store, or generated, rotated and pushed back.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.target.name"),
    printcolumn(name = "Source", type_ = "string", json_path = ".status.source"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.revision"),
    printcolumn(name = "Last rotation", type_ = "string", json_path = ".status.lastRotationTime"),
    printcolumn(name = "Next rotation", type_ = "string", json_path = ".status.nextRotationTime"),
    printcolumn(name = "Last sync", type_ = "string", json_path = ".status.lastSyncTime"),
    printcolumn(name = "Consumers", type_ = "string", json_path = ".status.consumers.summary", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.store) && has(self.storeRef))").message("set at most one of store and storeRef"),
    validation = Rule::new("has(self.store) || has(self.storeRef) || !((has(self.push) && size(self.push) > 0) || (has(self.data) && size(self.data) > 0) || (has(self.dataFrom) && size(self.dataFrom) > 0) || (has(self.rotation) && has(self.rotation.push) && size(self.rotation.push) > 0))").message("data, dataFrom and push need a store: set store or storeRef"),
    validation = Rule::new("(has(self.data) && size(self.data) > 0) || (has(self.dataFrom) && size(self.dataFrom) > 0) || has(self.rotation) || (has(self.push) && size(self.push) > 0)").message("say what to do: data, dataFrom, rotation or push"),
    validation = Rule::new("self.target.creationPolicy == 'Merge' || (has(self.data) && size(self.data) > 0) || (has(self.dataFrom) && size(self.dataFrom) > 0) || has(self.rotation)").message("push alone takes from a Secret that somebody else made: say target.creationPolicy: Merge"),
    validation = Rule::new("!has(self.push) || !has(self.rotation) || !has(self.rotation.push) || self.push.all(p, !self.rotation.push.exists(r, r.secretKey == p.secretKey))").message("a secretKey under rotation.push is pushed already; it cannot stand under push, too"),
    validation = Rule::new("(has(self.data) && size(self.data) > 0) || (has(self.dataFrom) && size(self.dataFrom) > 0) || has(self.rotation) || (!has(self.template) && !has(self.restart))").message("template and restart are about a Secret that is written: with push alone leave them out"),
    validation = Rule::new("!has(self.template) || !has(self.template.type) || self.target.type == 'Opaque' || self.target.type == self.template.type").message("set target.type or template.type, not both"),
    validation = Rule::new("!has(self.template) || !has(self.template.type) || self.target.creationPolicy != 'Merge'").message("with target.creationPolicy: Merge the Secret has the type that it has: leave template.type out"),
    validation = Rule::new("!self.target.immutable || (self.refreshPolicy == 'CreatedOnce' && !has(self.rotation))").message("target.immutable needs refreshPolicy: CreatedOnce and no rotation: the Secret could not be changed"),
    validation = Rule::new("!has(self.rotation) || self.refreshPolicy != 'CreatedOnce'").message("refreshPolicy: CreatedOnce and rotation exclude each other"),
    validation = Rule::new("!has(self.rotation) || !has(self.template) || self.template.mergePolicy == 'Merge'").message("with rotation the template needs mergePolicy: Merge: generated values live in the Secret, beside what the template says"),
    validation = Rule::new("!has(self.rotation) || !has(self.rotation.push) || self.rotation.push.all(p, self.rotation.generate.exists(g, g.secretKey == p.secretKey))").message("rotation.push names a secretKey that is not under rotation.generate"),
    validation = Rule::new("!has(self.rotation) || !has(self.template) || !has(self.template.data) || self.template.data.all(k, !self.rotation.generate.exists(g, k == g.secretKey || k == g.secretKey + '.pub' || (has(self.rotation.previous) && k == g.secretKey + self.rotation.previous.suffix)))").message("template.data names a key under rotation.generate, or KEY.pub, or KEY with previous.suffix: the value itself stands there; name the text otherwise"),
    validation = Rule::new("!has(self.rotation) || !has(self.data) || self.data.all(d, !self.rotation.generate.exists(g, g.secretKey == d.secretKey) || (has(self.rotation.push) && self.rotation.push.exists(p, p.secretKey == d.secretKey && p.remoteRef.key == d.remoteRef.key && !has(d.remoteRef.version) && (has(p.remoteRef.property) ? p.remoteRef.property : '') == (has(d.remoteRef.property) ? d.remoteRef.property : ''))))").message("a secretKey under both data and rotation.generate needs a rotation.push to the remoteRef that it is read from: the store would take each new value back"),
    validation = Rule::new("!has(self.push) || self.push.all(p, self.push.exists_one(o, o.remoteRef.key == p.remoteRef.key && (!has(o.remoteRef.property) || !has(p.remoteRef.property) || o.remoteRef.property == p.remoteRef.property)))").message("push writes two values to one place: each remoteRef (key and property) takes one secretKey, and a whole value leaves no room for a property"),
    validation = Rule::new("!has(self.push) || !has(self.rotation) || !has(self.rotation.push) || self.push.all(p, !self.rotation.push.exists(o, o.remoteRef.key == p.remoteRef.key && (!has(o.remoteRef.property) || !has(p.remoteRef.property) || o.remoteRef.property == p.remoteRef.property)))").message("push and rotation.push write to one place: each remoteRef (key and property) takes one secretKey, and a whole value leaves no room for a property"),
    validation = Rule::new("!has(self.rotation) || !has(self.rotation.previous) || !has(self.data) || self.data.all(d, !self.rotation.generate.exists(g, d.secretKey == g.secretKey + self.rotation.previous.suffix))").message("data names KEY with previous.suffix of a key under rotation.generate: the previous value stands there; choose another secretKey, or another suffix"),
    validation = Rule::new("duration(self.refreshInterval) == duration('0s') || duration(self.refreshInterval) >= duration('10s')").message("refreshInterval must be at least 10s, or 0s for never")
)]
pub struct SecretRotationSpec {
    /// The Secret that holds the values.
    pub target: Target,
    /// Where the values live, with credentials from this namespace: exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("!has(self.kubernetes) || !has(self.kubernetes.namespace)").message("store.kubernetes reads Secrets of this namespace; another namespace needs a SecretStore (storeRef)"),
        validation = Rule::new("!has(self.kubernetes) || !has(self.kubernetes.server)").message("store.kubernetes reads Secrets of this cluster; another one needs a SecretStore (storeRef)"),
        validation = Rule::new("!has(self.env) && !has(self.file)").message("store.env and store.file are of the operator's own; they need a SecretStore (storeRef)"),
        validation = Rule::new("!has(self.vault) || !has(self.vault.auth.appRole) || !has(self.vault.auth.appRole.rotateSecretId)").message("store.vault.auth.appRole.rotateSecretId replaces the secret id of a SecretStore only (storeRef)"),
        validation = Rule::new("!has(self.oci) || has(self.oci.auth.apiKey)").message("store.oci cannot use the operator's own identity (auth.instancePrincipal, auth.workloadIdentity); that needs a SecretStore (storeRef)"),
        validation = Rule::new("!has(self.aws) || !has(self.aws.auth.ambient)").message("store.aws cannot use the operator's own identity (auth.ambient); that needs a SecretStore (storeRef)")
    )]
    pub store: Option<StoreSpec>,
    /// A SecretStore that allows this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_ref: Option<StoreRef>,
    /// How often the store is read; at least 10s. `0s`: only when this object changes. Default 1h.
    #[serde(default = "one_hour")]
    pub refresh_interval: Duration,
    /// When the store is read. Default Periodic.
    #[serde(default)]
    pub refresh_policy: RefreshPolicy,
    /// Single values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["secretKey".into()]))]
    pub data: Vec<Data>,
    /// Many values at a time. Where two give the same key, the later one wins, and `data` over all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub data_from: Vec<DataFrom>,
    /// What is made out of the values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// Values that are generated and replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// Keys of the Secret that are written to the store when they change. With `target.creationPolicy: Merge` and nothing else, that is a Secret that
    /// somebody else made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub push: Vec<Push>,
    /// Who is restarted when a value has changed. Default: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// Leave everything as it is until this is false again.
    #[serde(default)]
    pub suspend: bool,
}

fn one_hour() -> Duration {
    Duration::hours(1)
}

/// The Secret that is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(self.type in ['kubernetes.io/service-account-token', 'bootstrap.kubernetes.io/token'])").message("Secrets of this type are filled by Kubernetes itself; choose another target.type"),
    validation = Rule::new("self.creationPolicy != 'Merge' || (self.deletionPolicy != 'Delete' && !self.immutable && self.type == 'Opaque')").message("with creationPolicy: Merge the Secret is somebody else's: leave deletionPolicy: Delete, immutable and type out"),
    validation = Rule::new("self.creationPolicy == 'Merge' || !self.name.matches('-(previous|pending|rejected)$')").message("target.name ends with -previous, -pending or -rejected, which is what the Secrets beside a target are called; choose another name")
)]
pub struct Target {
    /// Its name. At most 244 characters, because a value that is being replaced is kept in a second Secret with the suffix `-previous`, `-pending` or `-rejected`.
    #[schemars(length(min = 1, max = 244), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    pub name: String,
    /// Whose the Secret is. Default Owner.
    #[serde(default)]
    pub creation_policy: TargetPolicy,
    /// What becomes of the Secret when the store does not have the values any more. Default Retain.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The type of the Secret. Default Opaque.
    #[serde(default = "opaque", rename = "type")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_type: String,
    /// Kubernetes lets nobody change the Secret any more. Default false.
    #[serde(default)]
    pub immutable: bool,
}

fn opaque() -> String {
    "Opaque".into()
}

/// Whose a target is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum TargetPolicy {
    /// It goes when this object goes.
    #[default]
    Owner,
    /// It stays, and a new object of the same name takes it back.
    Orphan,
    /// It is somebody else's, and waited for: keys are added to it, none that somebody else sets is changed, and it stays when this object goes.
    Merge,
}

/// What becomes of the target when the values are gone from the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum DeletionPolicy {
    /// It stays as it is.
    #[default]
    Retain,
    /// It is deleted when none of its values is in the store any more.
    Delete,
    /// The keys whose values are gone are removed.
    Merge,
}

impl SecretRotationSpec {
    /// What is generated.
    pub fn generators(&self) -> impl Iterator<Item = &Generate> {
        self.rotation.iter().flat_map(|rotation| &rotation.generate)
    }

    /// Where generated values are written to.
    pub fn rotation_pushes(&self) -> impl Iterator<Item = &Push> {
        self.rotation.iter().flat_map(|rotation| &rotation.push)
    }

    /// Whether a Secret that somebody else made is only copied to a store.
    pub fn is_push_only(&self) -> bool {
        self.data.is_empty() && self.data_from.is_empty() && self.rotation.is_none()
    }

    /// Whether a store is asked for values, or compared with those that are pushed.
    pub fn reads_store(&self) -> bool {
        !self.data.is_empty() || !self.data_from.is_empty() || !self.push.is_empty() || self.rotation_pushes().next().is_some()
    }

    /// Whether the store is read again by itself.
    pub fn is_periodic(&self) -> bool {
        self.refresh_policy == RefreshPolicy::Periodic && !self.refresh_interval.signed().is_zero()
    }

    /// Whether the values are in Secrets of the own namespace, whose changes are told.
    pub fn reads_own_namespace(&self) -> bool {
        self.store.as_ref().is_some_and(Store::is_own_namespace)
    }

    /// The type of the Secret.
    pub fn secret_type(&self) -> &str {
        self.template.as_ref().and_then(|template| template.secret_type.as_deref()).unwrap_or(&self.target.secret_type)
    }
}

/// When the store is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum RefreshPolicy {
    /// Every `refreshInterval`, and when this object changes.
    #[default]
    Periodic,
    /// When this object changes.
    OnChange,
    /// Until the Secret is there.
    CreatedOnce,
}

/// Names a SecretStore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct StoreRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A value of the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Data {
    /// The key of the Secret that gets it.
    #[schemars(length(min = 1, max = 253), regex(pattern = SECRET_KEY))]
    pub secret_key: String,
    /// Where it is.
    pub remote_ref: RemoteRef,
}

/// Where a value is in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
pub struct RemoteRef {
    /// The name or path that the store knows it by.
    #[schemars(length(min = 1, max = 1024))]
    pub key: String,
    /// A path into the value where that is JSON, such as `db.users[0].password`. For the store `kubernetes`: a key of the Secret, or
    /// `KEY.PATH`. Default: the whole value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub property: Option<String>,
    /// Which version. Default: the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub version: Option<String>,
}

/// Many values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.extract) != has(self.find)").message("set exactly one of extract and find"))]
pub struct DataFrom {
    /// Each member of a JSON object, or each key of a Secret, becomes a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extract: Option<RemoteRef>,
    /// Each value that is found becomes a key, named as in the store; what a key of a Secret cannot hold becomes `_`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub find: Option<Find>,
    /// Renames keys, one rule after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub rewrite: Vec<Rewrite>,
}

/// What to find.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
pub struct Find {
    /// Where the names begin: a path in Vault, a prefix elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// By their names. Default: all below `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<FindName>,
    /// By their tags, all of them; where the store has tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 10, "additionalProperties" = {"type": "string", "maxLength": 256}))]
    #[x_kube(validation = Rule::new("self.all(k, size(k) <= 317)").message("no store has tags with longer names than 317 signs"))]
    pub tags: BTreeMap<String, String>,
}

/// Names that match.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
pub struct FindName {
    /// A regular expression (the syntax of Rust's regex crate, which is RE2's); it may match anywhere in the name.
    #[schemars(length(min = 1, max = 256))]
    pub regexp: String,
}

/// A rule that renames keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Rewrite {
    /// By a regular expression.
    pub regexp: RewriteRegexp,
}

/// What is replaced by what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct RewriteRegexp {
    /// A regular expression.
    #[schemars(length(min = 1, max = 256))]
    pub source: String,
    /// What every match becomes; `$1` is the first group.
    #[schemars(length(max = 256))]
    pub target: String,
}

/// Values that are generated, and when they are replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.every) && has(self.schedule))").message("set at most one of every and schedule"),
    validation = Rule::new("!has(self.every) || duration(self.every) >= duration('1m')").message("every must be at least 1m"),
    validation = Rule::new("!has(self.every) || !has(self.previous) || duration(self.every) >= duration(self.previous.keepFor)").message("every must not be shorter than previous.keepFor: new values wait until those before are not kept any longer"),
    validation = Rule::new("!has(self.push) || self.push.all(p, self.push.exists_one(o, o.remoteRef.key == p.remoteRef.key && (!has(o.remoteRef.property) || !has(p.remoteRef.property) || o.remoteRef.property == p.remoteRef.property)))").message("rotation.push writes two values to one place: each remoteRef (key and property) takes one secretKey, and a whole value leaves no room for a property"),
    validation = Rule::new("self.generate.all(g, self.generate.exists_one(o, o.secretKey == g.secretKey))").message("each secretKey stands under generate once"),
    validation = Rule::new("self.generate.all(g, !self.generate.exists(o, o.secretKey == g.secretKey + '.pub'))").message("KEY.pub is where what is public of KEY stands: choose another secretKey"),
    validation = Rule::new("!has(self.previous) || self.previous.suffix != '.pub'").message("KEY.pub is where what is public of KEY stands: choose another previous.suffix"),
    validation = Rule::new("!has(self.previous) || self.generate.all(g, !self.generate.exists(o, o.secretKey == g.secretKey + self.previous.suffix))").message("KEY with previous.suffix is where the previous value stands: choose another secretKey, or another suffix")
)]
pub struct Rotation {
    /// How long a value lives. Default: until a person asks for another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
    /// When values are replaced: a cron expression of five fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = Rule::new("self.matches('^ *[^ ]+( +[^ ]+){4} *$')").message("write five fields: minute, hour, day of month, month, day of week, such as 0 3 1 */3 *"))]
    pub schedule: Option<String>,
    /// The IANA time zone of `schedule`. Default Etc/UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// What is due waits for this window; a person who asks does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// What is generated. A key that is also under `data` takes the value that the store has; it is made if the store has none, and
    /// brought there: it has to stand under `push` with the same `remoteRef`.
    #[schemars(length(min = 1, max = 20))]
    pub generate: Vec<Generate>,
    /// The previous values stay in the Secret for a while, under other keys; new ones wait until they are gone. Default: they go at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
    /// Generated values that are written to the store before the Secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub push: Vec<Push>,
}

/// One generated value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Generate {
    /// The key of the Secret that gets it; at most 200 characters, because others stand beside it.
    #[schemars(length(min = 1, max = 200), regex(pattern = SECRET_KEY))]
    pub secret_key: String,
    /// What is made: exactly one.
    #[serde(flatten)]
    pub generator: Generator,
}

/// How long a value is kept after it was replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.maxKeep) >= duration(self.keepFor)").message("maxKeep must not be shorter than keepFor"))]
pub struct Previous {
    /// The key of the Secret is the value's own with this behind it. Default `-previous`.
    #[serde(default = "previous_suffix")]
    #[schemars(length(min = 1, max = 50), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub suffix: String,
    /// At least so long. Default 24h.
    #[serde(default = "one_day")]
    pub keep_for: Duration,
    /// And then until nobody runs it any more, but at most so long. Default 168h.
    #[serde(default = "one_week")]
    pub max_keep: Duration,
}

fn previous_suffix() -> String {
    "-previous".into()
}

fn one_day() -> Duration {
    Duration::hours(24)
}

fn one_week() -> Duration {
    Duration::hours(168)
}

/// What is so, as the operator saw it last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRotationStatus {
    /// The generation of the spec that this status is about; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: the Secret holds what it should. Reconciling: a rotation is going on or tried again. Stalled: a person is needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Where the values come from: the kind of store, SecretStore/NAME, or generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Counts the changes of the Secret's data, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// When the store was read last with success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Time>,
    /// When values were generated last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation_time: Option<Time>,
    /// When values are to be generated next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_time: Option<Time>,
    /// Until when the previous values are kept at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_kept_until: Option<Time>,
    /// Who uses the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumers: Option<Consumers>,
    /// The last change of the Secret's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation: Option<LastChange>,
    /// What `push` has brought to the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pushed: Vec<Pushed>,
    /// The value of seaworthy.dev/rotate that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_rotate: Option<String>,
    /// The same of seaworthy.dev/refresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_refresh: Option<String>,
    /// The last attempt that failed; goes with the next success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
}

/// A change of the Secret's data: by the store, or by a rotation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastChange {
    /// Unique for each; also an annotation of the Secret.
    pub id: String,
    /// Why it was done.
    pub reason: String,
    /// When it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the Secret was written and, with `restart`, who uses it has the new values. Absent while it is under way, or taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
}
