//! `seaworthy vault-policy`: the least-privilege Vault policy that resources need.

use std::{collections::BTreeMap, path::PathBuf};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt, api::ListParams};
use serde::de::DeserializeOwned;

use super::{Failure, client, manifests, print, say};
use crate::{
    api::{SecretRotation, SecretStore},
    inventory::{Facts, namespaces},
    secrets::{
        stores::{StoreSpec, vault},
        vault_policy::{Policy, login},
    },
};

/// Print the Vault policy that SecretRotations need: no path and no capability more.
///
/// Of files (SecretStores that they name may be among them), or of a namespace of the cluster. It allows what they ask for: read it before you
/// write it into Vault.
/// Examples:
///
///   seaworthy vault-policy -f rotation.yaml store.yaml
///   seaworthy vault-policy -n shop > shop.hcl && vault policy write shop shop.hcl
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// Files with SecretRotations and SecretStores (- for standard input).
    #[arg(short, long, num_args = 1..)]
    file: Vec<PathBuf>,
    /// The SecretRotations of this namespace. Default, without files: the kubeconfig's.
    #[arg(short, long, conflicts_with = "file")]
    namespace: Option<String>,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let (rotations, stores) = if arguments.file.is_empty() { of_cluster(arguments.namespace).await? } else { of_files(&arguments.file)? };
    // One policy for each login at each Vault and namespace of it.
    let mut policies = BTreeMap::<(String, Option<String>, String), Policy>::new();
    let place = |store: &vault::Spec, of: Option<&str>| {
        let whose = of.map_or_else(String::new, |name| format!(" of SecretStore {name}"));
        (store.server.clone(), store.namespace.clone(), format!("{}{whose}", login(&store.auth)))
    };
    let mut lacking = false;
    for rotation in &rotations {
        let store = match (&rotation.spec.store, &rotation.spec.store_ref) {
            (Some(store), _) => Some(store),
            (None, Some(reference)) => {
                let found = stores.iter().find(|store| store.name_any() == reference.name).map(|store| &store.spec.store);
                if found.is_none() {
                    lacking = true;
                    let (name, store) = (rotation.name_any(), &reference.name);
                    let remedy = if arguments.file.is_empty() { "is not there" } else { "is not among the files: add its file to -f" };
                    say(&format!("seaworthy: SecretRotation {name}: SecretStore {store} {remedy}"));
                }
                found
            }
            (None, None) => None,
        };
        if let Some(StoreSpec::Vault(store)) = store {
            let store: &vault::Spec = store;
            let named = rotation.spec.store_ref.as_ref().map(|reference| reference.name.as_str());
            let policy = policies.entry(place(store, named)).or_default();
            if let Err(error) = policy.add(store, &rotation.spec) {
                lacking = true;
                say(&format!("seaworthy: SecretRotation {}: {error}", rotation.name_any()));
            }
        }
    }
    // Half a policy is no policy.
    if lacking {
        return Err(Failure::Wrong);
    }
    // In a file, a SecretStore is meant whoever uses it.
    for store in stores.iter().filter(|_| !arguments.file.is_empty()) {
        if let StoreSpec::Vault(spec) = &store.spec.store {
            policies.entry(place(spec, Some(&store.name_any()))).or_default().add_store(spec);
        }
    }
    policies.retain(|_, policy| !policy.is_empty());
    if policies.is_empty() {
        say("seaworthy: none of them uses Vault");
    }
    for ((server, namespace, login), policy) in &policies {
        // Nothing of them is a line of its own.
        let (server, namespace) =
            (server.escape_debug(), namespace.as_ref().map(|namespace| format!(", namespace {}", namespace.escape_debug())));
        let (namespace, login) = (namespace.unwrap_or_default(), login.replace(char::is_control, " "));
        print(format!("# {server}{namespace}, {login}; beside Vault's own policy \"default\"\n{}", policy.hcl()).trim_end());
    }
    Ok(())
}

type Found = (Vec<SecretRotation>, Vec<SecretStore>);

async fn of_cluster(namespace: Option<String>) -> Result<Found, Failure> {
    let (client, default) = client().await?;
    let namespace = namespace.unwrap_or(default);
    let mut rotations = Api::<SecretRotation>::namespaced(client.clone(), &namespace).list(&ListParams::default()).await?.items;
    // Who may not list them still gets the policy of what names its store itself.
    if rotations.iter().all(|rotation| rotation.spec.store_ref.is_none()) {
        return Ok((rotations, Vec::new()));
    }
    let stores = Api::<SecretStore>::all(client.clone()).list(&ListParams::default()).await?.items;
    let labels = Facts::default();
    match Api::<Namespace>::all(client).get_metadata(&namespace).await {
        Ok(found) => drop(labels.put(("".into(), namespace.as_str().into()), Some(namespaces::labels(&found)))),
        Err(error) => {
            say(&format!(
                "seaworthy: Namespace {namespace} cannot be read, so that what SecretStores do not allow it is not left out: {error}"
            ));
            return Ok((rotations, stores));
        }
    }
    rotations.retain(|rotation| {
        let named = rotation.spec.store_ref.iter().find_map(|named| stores.iter().find(|store| store.name_any() == named.name));
        let refused = named.and_then(|store| namespaces::check(store.spec.allowed_namespaces.as_ref(), &labels, &namespace).err());
        if let (Some(store), Some(why)) = (named, &refused) {
            say(&format!("seaworthy: SecretRotation {} is left out: SecretStore {}: {why}", rotation.name_any(), store.name_any()));
        }
        refused.is_none()
    });
    Ok((rotations, stores))
}

fn of_files(files: &[PathBuf]) -> Result<Found, Failure> {
    let (mut rotations, mut stores) = (Vec::new(), Vec::new());
    for file in files {
        let bad = |why: String| Failure::Usage(format!("{}: {why}", file.display()));
        for object in manifests::read(file)? {
            match object["kind"].as_str() {
                Some("SecretRotation") => rotations.push(read(object).map_err(bad)?),
                Some("SecretStore") => stores.push(read(object).map_err(bad)?),
                _ => {}
            }
        }
    }
    Ok((rotations, stores))
}

fn read<K: DeserializeOwned>(object: serde_json::Value) -> Result<K, String> {
    let name = object["metadata"]["name"].as_str().unwrap_or("an object").to_owned();
    serde_json::from_value(object).map_err(|error| format!("{name}: {error}"))
}
