//! Which store a resource means, and whether it may use it.

use std::{collections::HashSet, sync::Arc};

use kube::{
    ResourceExt,
    runtime::reflector::{ObjectRef, Store as Cache},
};

use super::{connection::StoreConnection, pool::ConnectionId};
use crate::{
    api::{SecretRotation, SecretStore},
    cluster::{
        conditions::{READY, is_true},
        references::NamespaceSecrets,
        run::{Guarded, Waker},
    },
    ids,
    inventory::{
        Facts,
        namespaces::{self, NamespaceLabels},
        secrets::SecretFact,
    },
    secrets::{
        context::Context,
        index::{places, scope},
        reason::Reason,
        status::Problem,
        store::{OpenStore, Opening, Store, StoreError},
        stores::StoreSpec,
        writing::managed_secret::SecretSlot,
    },
};

/// What is needed to follow a `storeRef`.
pub struct ClusterStores {
    /// The SecretStores.
    pub store: Cache<Guarded<SecretStore>>,
    /// Has them looked at.
    pub waker: Waker<SecretStore>,
    /// The labels of the Namespaces.
    pub namespaces: Facts<NamespaceLabels>,
    /// Where their Secrets lie.
    pub operator_namespace: String,
}

/// A store that may be used.
#[derive(Clone)]
pub struct Resolved {
    /// What it is.
    pub spec: StoreSpec,
    /// What it is called in status.
    pub source: String,
    /// Whose it is.
    pub scope: String,
    /// Where its Secrets lie.
    pub namespace: String,
    /// It is a SecretStore's.
    pub shared: bool,
}

impl Resolved {
    /// Whether it is the Secrets of the resource's own namespace, its own among them.
    pub fn is_own_of(&self, rotation: &SecretRotation) -> bool {
        self.spec.is_own_namespace() && rotation.namespace().as_deref() == Some(&self.namespace)
    }
}

/// Refuses what a store cannot do or give, before anything is generated for it.
fn able(resolved: Resolved, rotation: &SecretRotation) -> Result<Resolved, Problem> {
    let store = &resolved.spec;
    let generated = rotation.spec.rotation.as_ref().is_some_and(|rotation| !rotation.push.is_empty());
    let field = generated.then_some("spec.rotation.push").or_else(|| (!rotation.spec.push.is_empty()).then_some("spec.push"));
    if let Some(field) = field.filter(|_| !store.can_write()) {
        let message = format!("{field}: the store {} cannot be written to", store.kind());
        return Err(Problem::new(Reason::StoreInvalid, message));
    }
    let own = SecretSlot::all(rotation);
    if let Some(place) = places(&rotation.spec).iter().find(|place| resolved.is_own_of(rotation) && own.contains(&place.key)) {
        let message =
            format!("Secret {} is written by this resource itself and cannot be its source; name another remoteRef.key", place.key);
        return Err(Problem::new(Reason::InvalidSpec, message));
    }
    Ok(resolved)
}

/// The SecretStore that a resource names has failed: it is looked at, unless it says so already.
pub fn tell_store(stores: Option<&ClusterStores>, rotation: &SecretRotation) {
    let (Some(stores), Some(reference)) = (stores, &rotation.spec.store_ref) else { return };
    let says_ready = |store: &SecretStore| store.status.as_ref().is_some_and(|status| is_true(&status.conditions, READY));
    if stores.store.get(&ObjectRef::new(&reference.name)).is_some_and(|store| store.0.as_ref().is_ok_and(says_ready)) {
        stores.waker.wake(None, &reference.name);
    }
}

/// Which store is meant. `storeRef` is followed only where the store allows the namespace. None: the spec names none.
pub fn resolve(stores: Option<&ClusterStores>, rotation: &SecretRotation) -> Result<Option<Resolved>, Problem> {
    let (spec, namespace, scope) = (&rotation.spec, rotation.namespace().unwrap_or_default(), scope(rotation));
    match (&spec.store, &spec.store_ref) {
        (None, None) => Ok(None),
        (Some(store), None) => {
            store.validate(false)?;
            let resolved = Resolved { spec: store.clone(), source: store.kind().into(), scope, namespace, shared: false };
            able(resolved, rotation).map(Some)
        }
        (None, Some(reference)) => {
            let store = named(stores, &reference.name, &namespace)?;
            store.validate(true)?;
            let namespace = stores.map(|stores| stores.operator_namespace.clone()).unwrap_or_default();
            able(Resolved { spec: store, source: scope.clone(), scope, namespace, shared: true }, rotation).map(Some)
        }
        (Some(_), Some(_)) => Err(Problem::new(Reason::InvalidSpec, "spec: set at most one of store and storeRef")),
    }
}

fn named(stores: Option<&ClusterStores>, name: &str, namespace: &str) -> Result<StoreSpec, Problem> {
    let Some(stores) = stores else {
        let message = format!(
            "spec.storeRef: SecretStore {name} cannot be used: this operator is limited to namespaces (--namespaces); use spec.store"
        );
        return Err(Problem::new(Reason::InvalidSpec, message));
    };
    let found = stores.store.get(&ObjectRef::new(name));
    let store = match found.as_deref() {
        None => {
            let message = format!("SecretStore {name} is not there; create it, or correct spec.storeRef.name");
            return Err(Problem::new(Reason::StoreNotFound, message));
        }
        Some(Guarded { 0: Err(invalid) }) => {
            return Err(Problem::new(Reason::StoreInvalid, format!("SecretStore {name} cannot be read: {}", invalid.error)));
        }
        Some(Guarded { 0: Ok(store) }) => store,
    };
    let denied =
        |why: String| Problem::new(Reason::StoreDenied, format!("SecretStore {name} does not allow the namespace {namespace}: {why}"));
    namespaces::check(store.spec.allowed_namespaces.as_ref(), &stores.namespaces, namespace).map_err(denied)?;
    Ok(store.spec.store.clone())
}

/// What tells a store of `owner` apart: another spec, or other credentials, is another one. Its Secrets lie in `namespace`.
pub fn identity(secrets: &Facts<SecretFact>, (owner, namespace): (&str, &str), spec: &StoreSpec) -> ConnectionId {
    let mut credentials = String::new();
    for name in spec.secrets() {
        let version = secrets.get(namespace, &name).map(|fact| fact.resource_version);
        credentials = format!("{credentials} {name}@{}", version.as_deref().unwrap_or("-"));
    }
    ConnectionId { owner: owner.into(), spec: hash(spec), credentials }
}

/// The stores that resources refer to which are not suspended, as [`ConnectionId`] is written.
pub fn referenced(context: &Context, rotations: &Cache<Guarded<SecretRotation>>) -> HashSet<String> {
    let rotations = rotations.state();
    let users = rotations.iter().filter_map(|rotation| rotation.0.as_ref().ok()).filter(|rotation| !rotation.spec.suspend);
    let (mut known, mut used) = (HashSet::new(), HashSet::new());
    for rotation in users {
        let place = (rotation.namespace(), scope(rotation));
        if !known.contains(&place)
            && let Ok(Some(resolved)) = resolve(context.cluster_stores.as_ref(), rotation)
        {
            used.insert(identity_of(context, &resolved).to_string());
            known.insert(place);
        }
    }
    used
}

fn hash(spec: &StoreSpec) -> String {
    ids::hash(serde_json::to_string(spec).unwrap_or_default().as_bytes())
}

fn identity_of(context: &Context, resolved: &Resolved) -> ConnectionId {
    let owner = if resolved.shared { &resolved.scope } else { &resolved.namespace };
    identity(&context.roller.inventory.secrets, (owner, &resolved.namespace), &resolved.spec)
}

/// The connection of a store.
pub fn connection(context: &Context, resolved: &Resolved) -> Arc<StoreConnection> {
    context.pool.connection(&identity_of(context, resolved))
}

/// Opens a store, once for all who use it.
pub async fn open(context: &Context, resolved: &Resolved, connection: &StoreConnection) -> Result<Arc<dyn OpenStore>, StoreError> {
    let secrets = NamespaceSecrets::new(context.client.clone(), &resolved.namespace);
    let administrators = context.allowed.of_administrators();
    let opening = Opening {
        secrets: &secrets,
        namespace: &resolved.namespace,
        cluster: Some(&context.client),
        writer: Some(&context.writer),
        allowed: if resolved.shared { &administrators } else { &context.allowed },
    };
    connection.open(resolved.spec.open(opening)).await
}
