//! A store that can be written to, on a server of each kind, and what is in it.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{Cluster, Moto, Namespace, Vault, oci::Oci, tls::terminate};
use crate::stores::account;

/// A server.
pub enum Far<'a> {
    Vault(&'a Vault),
    /// Its engine without versions.
    VaultV1(&'a Vault),
    Aws(&'a Moto),
    Oci(&'a Oci),
    Cluster(&'a Elsewhere<'a>),
}

/// A namespace of another cluster.
pub struct Elsewhere<'a> {
    /// Where the resource is.
    pub here: &'a Cluster,
    /// Where the operator of that one has its Secrets; None: beside the resource.
    pub operator_namespace: Option<&'a str>,
    /// The other one's API server.
    pub server: String,
    pub there: Namespace,
    /// Of who may write in it.
    pub token: String,
}

impl<'a> Elsewhere<'a> {
    /// In `other`, for `here`.
    pub async fn new(here: &'a Cluster, other: &Cluster, operator_namespace: Option<&'a str>) -> Self {
        let there = other.namespace("elsewhere").await;
        let server = other.operator_config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let token = account(&there).await;
        Self { here, operator_namespace, server, there, token }
    }
}

impl std::fmt::Display for Far<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Vault(_) => "Vault",
            Self::VaultV1(_) => "Vault without versions",
            Self::Aws(_) => "AWS",
            Self::Oci(_) => "OCI",
            Self::Cluster(_) => "another cluster",
        })
    }
}

impl Far<'_> {
    pub fn server(&self) -> String {
        match self {
            Self::Vault(vault) | Self::VaultV1(vault) => vault.address.clone(),
            Self::Aws(moto) => moto.address.clone(),
            Self::Oci(oci) => oci.address.clone(),
            Self::Cluster(elsewhere) => elsewhere.server.clone(),
        }
    }

    /// What of a spec says that this is the store of a resource in `namespace`; at `address` is what passes all on to the server. Its credentials are
    /// made here.
    pub async fn store(&self, namespace: &Namespace, address: &str) -> Value {
        match self {
            Self::Vault(vault) | Self::VaultV1(vault) => {
                let mut store = namespace.store_in(vault).await;
                store["vault"]["server"] = address.into();
                if matches!(self, Self::VaultV1(_)) {
                    (store["vault"]["path"], store["vault"]["version"]) = ("old".into(), "v1".into());
                }
                json!({"store": store})
            }
            Self::Aws(_) => json!({"store": namespace.store_in_aws(address).await}),
            Self::Oci(oci) => {
                namespace.secret("oci", "Opaque", &[("key.pem", &oci.private)]).await;
                json!({"store": Oci::store_at(address)})
            }
            Self::Cluster(elsewhere) => {
                let (address, certificate) = terminate("127.0.0.1:0", address).await;
                let name = &namespace.name;
                let secret = json!({"metadata": {"name": name}, "stringData": {"token": elsewhere.token}});
                let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), elsewhere.operator_namespace.unwrap_or(name));
                secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
                let login = json!({"token": {"secretRef": {"name": name, "key": "token"}}});
                let server = json!({"url": format!("https://{address}"), "caBundle": certificate, "auth": login});
                let spec = json!({"allowedNamespaces": {}, "kubernetes": {"namespace": elsewhere.there.name, "server": server}});
                elsewhere.here.secret_store(name, spec).await;
                json!({"storeRef": {"name": name}})
            }
        }
    }

    /// Makes a value that was not there.
    pub async fn put(&self, key: &str, value: Value) {
        match self {
            Self::Vault(vault) => vault.put(key, value).await,
            Self::VaultV1(vault) => drop(vault.call("POST", &format!("old/{key}"), value).await),
            Self::Aws(moto) => drop(moto.call("CreateSecret", json!({"Name": key, "SecretString": value.to_string()})).await),
            Self::Oci(oci) => oci.put(key, &value.to_string()),
            Self::Cluster(elsewhere) => {
                let secret = json!({"apiVersion": "v1", "kind": "Secret", "stringData": value});
                elsewhere.there.secrets().patch(key, &PatchParams::apply("test"), &Patch::Apply(secret)).await.unwrap();
            }
        }
    }

    /// Writes another one over it.
    pub async fn replace(&self, key: &str, value: Value) {
        match self {
            Self::Aws(moto) => drop(moto.call("PutSecretValue", json!({"SecretId": key, "SecretString": value.to_string()})).await),
            other => other.put(key, value).await,
        }
    }

    /// The value that is current.
    pub async fn get(&self, key: &str) -> Value {
        match self {
            Self::Vault(vault) => vault.get(key).await.0,
            Self::VaultV1(vault) => vault.call("GET", &format!("old/{key}"), Value::Null).await["data"].clone(),
            Self::Aws(moto) => moto.get(key).await,
            Self::Oci(oci) => serde_json::from_str(&oci.get(key)).unwrap(),
            Self::Cluster(elsewhere) => {
                let data = elsewhere.there.secrets().get(key).await.unwrap().data.unwrap_or_default();
                data.into_iter().map(|(key, value)| (key, String::from_utf8(value.0).unwrap())).collect::<Value>()
            }
        }
    }

    /// How many versions there are, and whether the one before the current one is kept. None: there are no versions.
    pub async fn versions(&self, key: &str) -> Option<(usize, bool)> {
        match self {
            Self::Vault(vault) => {
                let (_, answer) = vault.try_call("GET", &format!("secret/metadata/{key}"), Value::Null).await;
                let versions = answer["data"]["versions"].as_object()?;
                let before = &versions.get(&(versions.len() - 1).to_string());
                Some((versions.len(), before.is_some_and(|before| before["deletion_time"] == "")))
            }
            Self::Aws(moto) => {
                let listed = moto.call("ListSecretVersionIds", json!({"SecretId": key, "IncludeDeprecated": true})).await;
                let versions = listed["Versions"].as_array()?;
                Some((versions.len(), listed.to_string().contains("AWSPREVIOUS")))
            }
            Self::Oci(oci) => Some((oci.versions(key), oci.retired(key).is_empty())),
            Self::VaultV1(_) | Self::Cluster(_) => None,
        }
    }

    /// Whether this version, counted from 1, is deleted or is about to be. AWS deletes what has no stage in its own time.
    pub async fn has_given_up(&self, key: &str, number: usize) -> bool {
        match self {
            Self::Vault(vault) => {
                let (_, answer) = vault.try_call("GET", &format!("secret/metadata/{key}"), Value::Null).await;
                answer["data"]["versions"][number.to_string()]["deletion_time"].as_str().is_some_and(|time| !time.is_empty())
            }
            Self::Oci(oci) => oci.retired(key).contains(&number),
            Self::Aws(_) => true,
            Self::VaultV1(_) | Self::Cluster(_) => false,
        }
    }

    /// Whether it gives up the version before as soon as that is not needed any more.
    pub fn retires(&self) -> bool {
        matches!(self, Self::Vault(_) | Self::Aws(_))
    }
}
