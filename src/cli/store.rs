//! `seaworthy store`: what the operator would see in a store, and why it cannot.

use std::{io::Write, path::PathBuf};

use comfy_table::{Table, presets};
use futures::{FutureExt, future::BoxFuture};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde_json::Value;

use super::{Failure, Output, client, manifests, print, say};
use crate::{
    api::{SecretRotation, SecretStore, secret_rotation::Find},
    clients::egress::Egress,
    cluster::references::{NamespaceSecrets, ReadSecrets, ReferenceError, SecretData},
    ids,
    secrets::{
        contents::property,
        store::{Allowed, Content, OpenStore, Opening, Place, Store, StoreError},
        stores::StoreSpec,
    },
};

/// Look into a store: is it reachable, what is in it, what is under a key.
///
/// Asks with your own rights and with the credentials that the store names; nothing is written. Values are shown as a hash and a length.
/// Where a store says that the operator's own identity is meant (auth.ambient, auth.instancePrincipal), it is that of this machine here.
/// Examples:
///
///   seaworthy store check vault
///   seaworthy store list -f store.yaml
///   seaworthy store get vault tmi/production --property jwt_secret
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Whether it lets us in.
    Check(Which),
    /// The names of its values.
    List {
        #[command(flatten)]
        which: Which,
        /// Only names that begin so.
        #[arg(long)]
        path: Option<String>,
        /// The form of the output.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// What is under a key: which properties, how long, and a hash to compare.
    Get {
        #[command(flatten)]
        which: Which,
        /// The key. With -f, the only argument.
        key: Option<String>,
        /// A path into the value, as in remoteRef.property.
        #[arg(long)]
        property: Option<String>,
        /// Which version.
        #[arg(long)]
        version: Option<String>,
        /// Print the value itself.
        #[arg(long)]
        reveal: bool,
        /// The form of the output.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
}

/// Which store.
#[derive(Debug, clap::Args)]
struct Which {
    /// The name of a SecretStore.
    name: Option<String>,
    /// A file with one SecretStore, or one SecretRotation that says its store (- for standard input), whether it is in the cluster or not.
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Where the Secrets with its credentials lie: the operator's namespace.
    #[arg(long, env = "SEAWORTHY_NAMESPACE", default_value = "seaworthy")]
    operator_namespace: String,
    /// For the kinds env and file: the variables of this process that may be given out. Run it where the operator runs to see what it sees.
    #[arg(long, env = "SEAWORTHY_STORE_ENV", value_delimiter = ',')]
    store_env: Vec<String>,
    /// The same for folders.
    #[arg(long, env = "SEAWORTHY_STORE_FOLDERS", value_delimiter = ',')]
    store_folders: Vec<PathBuf>,
    /// Networks (CIDR) that the store of a SecretRotation may lead to although they are loopback, link-local or metadata addresses.
    #[arg(long, env = "SEAWORTHY_STORE_NETWORKS", value_delimiter = ',')]
    store_networks: Vec<ipnet::IpNet>,
}

/// A value, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    bytes: usize,
    /// The first half of the SHA-256.
    hash: String,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Check(which) => {
            let (named, store) = which.open().await?;
            let answer = store.check().await;
            store.close().await;
            answer.map_err(|error| failed(&named, &error))?;
            print(&format!("{named} lets us in"));
            Ok(())
        }
        Command::List { which, path, output } => {
            let (named, store) = which.open().await?;
            let find = Find { path, name: None, tags: std::collections::BTreeMap::new() };
            let found = store.find(&find).await;
            store.close().await;
            let mut found = found.map_err(|error| failed(&named, &error))?;
            found.sort();
            if !output.print(&found)? {
                print(&found.join("\n"));
            }
            Ok(())
        }
        Command::Get { mut which, key, property, version, reveal, output } => {
            // With a file, the first argument is the key.
            let key = match (&which.file, key) {
                (Some(_), None) => which.name.take(),
                (_, key) => key,
            };
            let key = key.ok_or_else(|| Failure::Usage("say which key: seaworthy store get STORE KEY".into()))?;
            let (named, store) = which.open().await?;
            let place = Place { key: key.clone(), version };
            let stored = store.read(&place).await;
            store.close().await;
            let stored = stored.map_err(|error| failed(&named, &error))?;
            show(&key, &stored.content, property.as_deref(), (reveal, output))
        }
    }
}

impl Which {
    async fn open(&self) -> Result<(String, Box<dyn OpenStore>), Failure> {
        // Not every store of a file needs a cluster.
        let (cluster, here) = match client().await {
            Ok((client, here)) => (Ok(client), Some(here)),
            Err(Failure::Unreachable(why)) if self.file.is_some() => (Err(why), None),
            Err(failure) => return Err(failure),
        };
        let Asked { named, store, tenant } = self.asked(cluster.as_ref().ok(), here).await?;
        store.validate(tenant.is_none()).map_err(|error| failed(&named, &error))?;
        let namespace = tenant.as_ref().unwrap_or(&self.operator_namespace);
        let secrets: Box<dyn ReadSecrets> = match &cluster {
            Ok(client) => Box::new(NamespaceSecrets::new(client.clone(), namespace)),
            Err(_) => Box::new(NoCluster),
        };
        let egress = Egress::of_tenants(self.store_networks.clone());
        let allowed = Allowed { egress, env: self.store_env.clone(), folders: self.store_folders.clone(), ..Allowed::default() };
        let allowed = if tenant.is_none() { allowed.of_administrators() } else { allowed };
        let opening = Opening { secrets: &*secrets, namespace, cluster: cluster.as_ref().ok(), writer: None, allowed: &allowed };
        let store = store.open(opening).await.map_err(|error| match &cluster {
            Err(why) if error.is_store_wide() => Failure::Unreachable(format!("{named}: {error}: {why}")),
            _ => failed(&named, &error),
        })?;
        Ok((named, store))
    }

    /// `here`: the kubeconfig's namespace.
    async fn asked(&self, client: Option<&Client>, here: Option<String>) -> Result<Asked, Failure> {
        match (&self.file, &self.name, client) {
            (Some(file), ..) => {
                let bad = |why: String| Failure::Usage(format!("{}: {why}", file.display()));
                let is_one = |object: &Value| {
                    object["kind"] == "SecretStore" || (object["kind"] == "SecretRotation" && !object["spec"]["store"].is_null())
                };
                let mut stores: Vec<_> = manifests::read(file)?.into_iter().filter(is_one).collect();
                let (Some(object), true) = (stores.pop(), stores.is_empty()) else {
                    return Err(bad("it has to hold one SecretStore, or one SecretRotation with a spec.store".into()));
                };
                Asked::of(object, here).map_err(bad)
            }
            (None, Some(name), Some(client)) => {
                let store = Api::<SecretStore>::all(client.clone()).get_opt(name).await?;
                let store = store.ok_or_else(|| Failure::Usage(format!("SecretStore {name} is not there")))?;
                Ok(Asked { named: format!("SecretStore {name}"), store: store.spec.store, tenant: None })
            }
            (None, ..) => Err(Failure::Usage("name a SecretStore, or give a file with -f".into())),
        }
    }
}

/// The store that is meant.
struct Asked {
    named: String,
    store: StoreSpec,
    /// The namespace of the SecretRotation that says it; None: it is a SecretStore.
    tenant: Option<String>,
}

impl Asked {
    fn of(object: Value, here: Option<String>) -> Result<Self, String> {
        if object["kind"] == "SecretStore" {
            let store: SecretStore = serde_json::from_value(object).map_err(|error| format!("the SecretStore: {error}"))?;
            return Ok(Self { named: format!("SecretStore {}", store.name_any()), store: store.spec.store, tenant: None });
        }
        let rotation: SecretRotation = serde_json::from_value(object).map_err(|error| format!("the SecretRotation: {error}"))?;
        let named = format!("the store of SecretRotation {}", rotation.name_any());
        let tenant = rotation.namespace().or(here).or_else(|| Some("default".into()));
        let store = rotation.spec.store.ok_or_else(|| format!("{named} is not there"))?;
        Ok(Self { named, store, tenant })
    }
}

/// There are no Secrets.
struct NoCluster;

impl ReadSecrets for NoCluster {
    fn secret<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<SecretData, ReferenceError>> {
        std::future::ready(Err(ReferenceError::Unavailable(name.into(), "there is no cluster".into()))).boxed()
    }
}

/// What is wrong with what was looked at, or could not be reached.
fn failed(named: &str, error: &StoreError) -> Failure {
    let text = format!("{named}: {error}");
    match error {
        StoreError::Throttled { .. } | StoreError::Unavailable(_) => Failure::Unreachable(text),
        _ => {
            say(&format!("seaworthy: {text}"));
            Failure::Wrong
        }
    }
}

fn show(key: &str, content: &Content, property: Option<&str>, (reveal, output): (bool, Output)) -> Result<(), Failure> {
    let wrong = |error: property::PropertyError| {
        say(&format!("seaworthy: {key}: {error}"));
        Failure::Wrong
    };
    if reveal {
        let value = property::get(content, property).map_err(wrong)?;
        match std::str::from_utf8(&value) {
            Ok(text) => print(text),
            // What is no text is given as it is.
            Err(_) => std::io::stdout().write_all(&value).map_err(|error| Failure::Unreachable(format!("standard output: {error}")))?,
        }
        return Ok(());
    }
    let shown = |name: &str, value: &[u8]| Shown { name: name.into(), bytes: value.len(), hash: ids::hash(value) };
    let rows = match property {
        Some(property) => vec![shown(property, &property::get(content, Some(property)).map_err(wrong)?)],
        None => match property::members(content, None) {
            Ok(members) => members.iter().map(|(name, value)| shown(name, value)).collect(),
            // No JSON: one value.
            Err(_) => vec![shown("(the whole value)", &property::get(content, None).map_err(wrong)?)],
        },
    };
    if output.print(&rows)? {
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["PROPERTY", "BYTES", "HASH"]);
    for row in rows {
        table.add_row([row.name, row.bytes.to_string(), row.hash]);
    }
    print(&table.to_string());
    Ok(())
}
