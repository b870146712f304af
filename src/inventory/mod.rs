//! What runs here: one watch for each built-in kind, kept as small facts; no object and no value is kept.
//!
//! ```text
//!   watch ──► fact ──► facts and their index ──► what changed ──► areas wake what depends on it
//!                            │
//!                            └──► consumers: who uses this Secret or ConfigMap, how, and in which Pods
//! ```

pub mod consumers;
pub mod facts;
mod intern;
pub mod namespaces;
pub mod permissions;
pub mod pods;
pub mod references;
pub mod secrets;
pub mod template;
mod watch;
pub mod workloads;

use std::{collections::HashMap, sync::Arc};

use futures::{
    FutureExt,
    future::{BoxFuture, select_all},
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{Namespace, Pod, Secret, ServiceAccount},
        networking::v1::Ingress,
    },
};
use kube::{
    Api, Client, Resource,
    core::{DynamicObject, PartialObjectMeta},
};

pub use self::facts::{Change, Facts, Key};
use self::{
    facts::{Fact, Term},
    namespaces::NamespaceLabels,
    pods::PodFact,
    references::ReferenceFact,
    secrets::SecretFact,
    template::Source,
    watch::Followed,
    workloads::WorkloadFact,
};

/// Who runs what, and who uses which Secret or ConfigMap; all clones see the same.
#[derive(Clone, Default)]
pub struct Inventory {
    pods: Facts<PodFact>,
    /// As many as [`workloads::KINDS`], in that order.
    workloads: [Facts<WorkloadFact>; workloads::KINDS.len()],
    accounts: Facts<ReferenceFact>,
    ingresses: Facts<ReferenceFact>,
    gateways: Facts<ReferenceFact>,
    /// Secrets, by their metadata.
    pub secrets: Facts<SecretFact>,
    /// Labels of the Namespaces; none where only one of them is followed.
    pub namespaces: Facts<NamespaceLabels>,
}

/// What has changed.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// In this namespace, this is used by others than before, or otherwise.
    Users(&'a str, &'a Source),
    /// In this namespace, the Secret of this name came, changed or went.
    Secret(&'a str, &'a str),
    /// The Namespace came, went, or has other labels.
    Namespace(&'a str),
}

/// Hears what has changed.
pub type Hear = Arc<dyn Fn(News<'_>) + Send + Sync>;

impl Inventory {
    /// Follows everything, in one namespace or in all. Of what an object uses, `hear` hears for each that used it before or does now. Runs until it
    /// is dropped.
    pub async fn follow(self, client: Client, namespace: Option<String>, hear: impl Fn(News<'_>) + Send + Sync + 'static) {
        let (place, hear): (_, Hear) = (Place { client, namespace }, Arc::new(hear));
        let mut watches = self.users(&place, &hear);
        let heard = hear.clone();
        let changed = move |change: &Change<SecretFact>| heard(News::Secret(&change.key.0, &change.key.1));
        let what = Followed { kind: "Secret", optional: false };
        watches
            .push(self.secrets.follow(place.metadata::<Secret>(), what, |secret| Some(SecretFact::of(&secret.metadata)), changed).boxed());
        if place.namespace.is_none() {
            let api = Api::<PartialObjectMeta<Namespace>>::all(place.client);
            let changed = move |change: &Change<NamespaceLabels>| hear(News::Namespace(&change.key.1));
            let what = Followed { kind: "Namespace", optional: false };
            watches.push(self.namespaces.follow(api, what, |object| Some(namespaces::labels(object)), changed).boxed());
        } else {
            self.namespaces.replace(HashMap::new(), |_| {});
        }
        select_all(watches).await;
    }

    /// The same, but for Secrets and Namespaces: who uses what can be told without the right to read Secrets.
    pub async fn follow_users(self, client: Client, namespace: String) {
        self.secrets.replace(HashMap::new(), |_| {});
        self.namespaces.replace(HashMap::new(), |_| {});
        select_all(self.users(&Place { client, namespace: Some(namespace) }, &(Arc::new(|_: News<'_>| {}) as Hear))).await;
    }

    /// The watches of what uses something.
    fn users(&self, place: &Place, hear: &Hear) -> Vec<BoxFuture<'static, ()>> {
        let this = self.clone();
        let (pods, templates) = (pods::Reader::default(), Arc::new(workloads::Reader::default()));
        let required = |kind| Followed { kind, optional: false };
        let mut watches: Vec<BoxFuture<'static, ()>> = vec![
            this.pods.follow(place.of::<Pod>(), required("Pod"), move |pod| Some(pods.read(pod)), tell(hear)).boxed(),
            this.accounts.follow(place.of::<ServiceAccount>(), required("ServiceAccount"), references::of_account, tell(hear)).boxed(),
            this.ingresses.follow(place.of::<Ingress>(), required("Ingress"), references::of_ingress, tell(hear)).boxed(),
            this.gateways
                .follow(
                    place.dynamic(&references::gateways()),
                    Followed { kind: "Gateway", optional: true },
                    references::of_gateway,
                    tell(hear),
                )
                .boxed(),
        ];
        for (kind, facts) in workloads::KINDS.iter().zip(this.workloads) {
            let templates = templates.clone();
            let what = Followed { kind: kind.kind, optional: kind.optional };
            let read = move |object: &DynamicObject| templates.read(kind, object);
            watches.push(facts.follow(place.dynamic(&kind.resource()), what, read, tell(hear)).boxed());
        }
        watches
    }

    /// Returns when everything was listed, as far as it is there.
    pub async fn filled(&self) {
        futures::join!(self.pods.filled(), self.accounts.filled(), self.ingresses.filled(), self.gateways.filled());
        futures::join!(self.secrets.filled(), self.namespaces.filled());
        for facts in &self.workloads {
            facts.filled().await;
        }
    }

    /// The fact about a workload.
    pub fn workload(&self, namespace: &str, owner: &pods::Owner) -> Option<WorkloadFact> {
        let (_, facts) = workloads::KINDS.iter().zip(&self.workloads).find(|(kind, _)| *kind.kind == *owner.kind)?;
        facts.get(namespace, &owner.name)
    }

    /// The fact about a Pod.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<PodFact> {
        self.pods.get(namespace, name)
    }

    /// Every image that a Pod runs: the Pod, and what its containers run. Pods that have ended are left out.
    pub fn for_each_image(&self, mut visit: impl FnMut(&Key, &pods::Image)) {
        self.pods.for_each(|key, pod| {
            if !pod.over {
                pod.images.iter().for_each(|image| visit(key, image));
            }
        });
    }
}

/// One namespace, or all.
struct Place {
    client: Client,
    namespace: Option<String>,
}

impl Place {
    fn of<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    fn metadata<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<PartialObjectMeta<K>> {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    fn dynamic(&self, resource: &kube::core::ApiResource) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }
}

/// Tells of each source that was used before a change or is used after it.
fn tell<F: Fact>(hear: &Hear) -> impl Fn(&Change<F>) + Send + Sync + use<F> {
    let hear = hear.clone();
    move |change| {
        let mut sources: Vec<Source> = [&change.before, &change.after]
            .into_iter()
            .flatten()
            .flat_map(Fact::terms)
            .filter_map(|term| match term {
                Term::Uses(source) => Some(source),
                _ => None,
            })
            .collect();
        sources.sort();
        sources.dedup();
        for source in sources {
            hear(News::Users(&change.key.0, &source));
        }
    }
}
