//! What a Pod consumes, read off its spec: the Secrets and ConfigMaps, and how each reaches which container. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, EphemeralContainer, PodSpec, Volume, VolumeMount};

/// A Secret or a ConfigMap of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A Secret's name.
    Secret(Box<str>),
    /// A ConfigMap's name.
    ConfigMap(Box<str>),
}

/// How it reaches a consumer. What the kubelet keeps up to date in a running container is `Volume` and `Projected` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum How {
    /// One key as an environment variable.
    Env,
    /// All keys as environment variables.
    EnvFrom,
    /// As files.
    Volume,
    /// As files mounted by `subPath`, which are never updated.
    SubPath,
    /// As files of a projected volume.
    Projected,
    /// A volume driver logs in with it.
    Driver,
    /// Images are pulled with it.
    PullSecret,
    /// An Ingress serves it.
    IngressTls,
    /// A Gateway serves it.
    GatewayTls,
}

impl How {
    /// The field's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::EnvFrom => "envFrom",
            Self::Volume => "volume",
            Self::SubPath => "subPath",
            Self::Projected => "projected",
            Self::Driver => "volume driver",
            Self::PullSecret => "imagePullSecrets",
            Self::IngressTls => "ingress tls",
            Self::GatewayTls => "gateway tls",
        }
    }
}

/// What kind of container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// One that does the work.
    Main,
    /// One that runs before the others.
    Init,
    /// An init container with `restartPolicy: Always`, which runs beside the others.
    Sidecar,
    /// One that was added to a running Pod.
    Ephemeral,
}

/// One way in which something is consumed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Use {
    /// What.
    pub source: Source,
    /// How.
    pub how: How,
    /// By which container; None: by the Pod as a whole, or by what is no Pod.
    pub container: Option<(Role, Box<str>)>,
}

/// All uses of a Pod, in order, each once.
pub fn uses(spec: &PodSpec) -> Vec<Use> {
    let mut uses = BTreeSet::new();
    for container in containers(spec) {
        container.variables(&mut uses);
    }
    for volume in spec.volumes.iter().flatten() {
        for (source, how) in sources(volume) {
            let mounted = containers(spec).flat_map(|container| container.mounts_of(volume, how)).collect::<BTreeSet<_>>();
            if mounted.is_empty() {
                uses.insert(Use { source, how, container: None }); // without it the Pod does not start all the same
                continue;
            }
            uses.extend(mounted.into_iter().map(|(how, container)| Use { source: source.clone(), how, container: Some(container) }));
        }
    }
    for secret in spec.image_pull_secrets.iter().flatten() {
        uses.extend(secret_source(&secret.name).map(|source| Use { source, how: How::PullSecret, container: None }));
    }
    uses.into_iter().collect()
}

/// What containers of all kinds have in common.
struct Part<'a> {
    role: Role,
    name: &'a str,
    env: &'a [EnvVar],
    env_from: &'a [EnvFromSource],
    mounts: &'a [VolumeMount],
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = Part<'_>> {
    let init = spec.init_containers.iter().flatten().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        Part::of(if sidecar { Role::Sidecar } else { Role::Init }, container)
    });
    let main = spec.containers.iter().map(|container| Part::of(Role::Main, container));
    init.chain(main).chain(spec.ephemeral_containers.iter().flatten().map(Part::of_ephemeral))
}

impl<'a> Part<'a> {
    fn of(role: Role, container: &'a Container) -> Self {
        Self {
            role,
            name: &container.name,
            env: container.env.as_deref().unwrap_or_default(),
            env_from: container.env_from.as_deref().unwrap_or_default(),
            mounts: container.volume_mounts.as_deref().unwrap_or_default(),
        }
    }

    fn of_ephemeral(container: &'a EphemeralContainer) -> Self {
        Self {
            role: Role::Ephemeral,
            name: &container.name,
            env: container.env.as_deref().unwrap_or_default(),
            env_from: container.env_from.as_deref().unwrap_or_default(),
            mounts: container.volume_mounts.as_deref().unwrap_or_default(),
        }
    }

    fn named(&self) -> (Role, Box<str>) {
        (self.role, self.name.into())
    }

    fn variables(&self, uses: &mut BTreeSet<Use>) {
        let mut add = |source: Option<Source>, how| uses.extend(source.map(|source| Use { source, how, container: Some(self.named()) }));
        for from in self.env.iter().filter_map(|variable| variable.value_from.as_ref()) {
            add(from.secret_key_ref.as_ref().and_then(|key| secret_source(&key.name)), How::Env);
            add(from.config_map_key_ref.as_ref().and_then(|key| config_map_source(&key.name)), How::Env);
        }
        for from in self.env_from {
            add(from.secret_ref.as_ref().and_then(|secret| secret_source(&secret.name)), How::EnvFrom);
            add(from.config_map_ref.as_ref().and_then(|map| config_map_source(&map.name)), How::EnvFrom);
        }
    }

    /// How this container mounts `volume`; a driver's credential reaches no container, however it is mounted.
    fn mounts_of(&self, volume: &Volume, how: How) -> Vec<(How, (Role, Box<str>))> {
        let mounts = self.mounts.iter().filter(|mount| mount.name == volume.name && how != How::Driver);
        let partly = |mount: &VolumeMount| {
            let set = |path: &Option<String>| path.as_ref().is_some_and(|path| !path.is_empty());
            set(&mount.sub_path) || set(&mount.sub_path_expr)
        };
        mounts.map(|mount| (if partly(mount) { How::SubPath } else { how }, self.named())).collect()
    }
}

/// What `volume` is made of.
fn sources(volume: &Volume) -> Vec<(Source, How)> {
    let mut found = Vec::new();
    let mut add = |source: Option<Source>, how| found.extend(source.map(|source| (source, how)));
    add(volume.secret.as_ref().and_then(|secret| secret_source(secret.secret_name.as_deref()?)), How::Volume);
    add(volume.config_map.as_ref().and_then(|map| config_map_source(&map.name)), How::Volume);
    for projection in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        add(projection.secret.as_ref().and_then(|secret| secret_source(&secret.name)), How::Projected);
        add(projection.config_map.as_ref().and_then(|map| config_map_source(&map.name)), How::Projected);
    }
    let references = [
        volume.csi.as_ref().and_then(|driver| driver.node_publish_secret_ref.as_ref()),
        volume.cephfs.as_ref().and_then(|driver| driver.secret_ref.as_ref()),
        volume.cinder.as_ref().and_then(|driver| driver.secret_ref.as_ref()),
        volume.flex_volume.as_ref().and_then(|driver| driver.secret_ref.as_ref()),
        volume.iscsi.as_ref().and_then(|driver| driver.secret_ref.as_ref()),
        volume.rbd.as_ref().and_then(|driver| driver.secret_ref.as_ref()),
        volume.scale_io.as_ref().map(|driver| &driver.secret_ref),
        volume.storageos.as_ref().and_then(|driver| driver.secret_ref.as_ref()),
    ];
    for reference in references.into_iter().flatten() {
        add(secret_source(&reference.name), How::Driver);
    }
    add(volume.azure_file.as_ref().and_then(|driver| secret_source(&driver.secret_name)), How::Driver);
    found
}

/// An empty name, which old API servers let through, names nothing.
fn secret_source(name: &str) -> Option<Source> {
    (!name.is_empty()).then(|| Source::Secret(name.into()))
}

fn config_map_source(name: &str) -> Option<Source> {
    (!name.is_empty()).then(|| Source::ConfigMap(name.into()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// `WHAT how by`, one line for each use.
    fn lines(spec: Value) -> Vec<String> {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let line = |found: Use| {
            let source = match found.source {
                Source::Secret(name) => format!("secret/{name}"),
                Source::ConfigMap(name) => format!("configmap/{name}"),
            };
            let by = found.container.map_or_else(String::new, |(role, name)| format!(" {role:?} {name}"));
            format!("{source} {}{by}", found.how.as_str())
        };
        uses(&spec).into_iter().map(line).collect()
    }

    #[test]
    fn every_way_to_consume() {
        let env =
            |name: &str| json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}, {"name": "B", "value": "plain"}]);
        let spec = json!({
            "containers": [
                {"name": "web", "env": env("env"), "envFrom": [{"secretRef": {"name": "all"}}, {"configMapRef": {"name": "settings"}}, {"prefix": "X"}],
                 "volumeMounts": [{"name": "tls", "mountPath": "/tls"}, {"name": "tls", "mountPath": "/one", "subPath": "tls.crt"}, {"name": "many", "mountPath": "/many"},
                                  {"name": "share", "mountPath": "/share"}]},
                {"name": "twice", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "env", "key": "a"}}}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "env", "key": "b"}}}]},
            ],
            "initContainers": [{"name": "setup", "env": env("setup")}, {"name": "proxy", "restartPolicy": "Always", "env": env("proxy")}],
            "ephemeralContainers": [{"name": "debug", "env": env("debug")}],
            "volumes": [
                {"name": "tls", "secret": {"secretName": "tls"}},
                {"name": "many", "projected": {"sources": [{"secret": {"name": "part"}}, {"configMap": {"name": "part"}}, {"serviceAccountToken": {"path": "t"}}]}},
                {"name": "unmounted", "configMap": {"name": "unmounted"}},
                {"name": "share", "azureFile": {"secretName": "azure", "shareName": "s"}},
                {"name": "driver", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
                {"name": "empty", "emptyDir": {}},
            ],
            "imagePullSecrets": [{"name": "registry"}, {}],
        });
        let wanted = [
            "secret/all envFrom Main web",
            "secret/azure volume driver",
            "secret/csi volume driver",
            "secret/debug env Ephemeral debug",
            "secret/env env Main twice",
            "secret/env env Main web",
            "secret/part projected Main web",
            "secret/proxy env Sidecar proxy",
            "secret/registry imagePullSecrets",
            "secret/setup env Init setup",
            "secret/tls volume Main web",
            "secret/tls subPath Main web",
            "configmap/part projected Main web",
            "configmap/settings envFrom Main web",
            "configmap/unmounted volume",
        ];
        assert_eq!(lines(spec), wanted);
    }

    #[test]
    fn nothing_is_consumed_by_nothing() {
        assert!(lines(json!({"containers": []})).is_empty());
        assert!(
            lines(json!({"containers": [{"name": "a", "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "a"}}}]}]})).is_empty()
        );
    }
}
