//! What every area gets from the process, and what the process gets from it.

use std::{fmt::Debug, sync::Arc};

use futures::future::{BoxFuture, join_all, select_all};
use kube::{Client, Resource};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    cluster::{
        apply::Writer,
        events::Events,
        index::Shared,
        lease::Leadership,
        noticed::{self, Named},
        run::Waker,
        steps::Steps,
    },
    inventory::{Facts, Hear, News, secrets::SecretFact, template::Source},
    rollout::budget::Budget,
    server::readiness::Readiness,
    telemetry::{audit::Audit, metrics::Metrics},
};

/// What an area gets.
#[derive(Clone)]
pub struct Parts {
    /// The connection.
    pub client: Client,
    /// Whether to write.
    pub leadership: Leadership,
    /// The time.
    pub clock: Clock,
    /// Counts.
    pub metrics: Metrics,
    /// Every act on a credential.
    pub audit: Audit,
    /// What a person wants to know.
    pub events: Events,
    /// The steps of a rotation.
    pub steps: Steps,
    /// What has to be filled before the process is ready.
    pub readiness: Readiness,
    /// Where Secrets of cluster-scoped issuers and stores lie.
    pub operator_namespace: String,
    /// How many objects of a kind at once.
    pub concurrency: u16,
    /// How many workloads are restarted at a time, whoever asks.
    pub budget: Budget,
}

/// What runs in one scope.
pub struct Running<S> {
    /// The caches of its resources, for who counts and shows.
    pub store: S,
    /// To be told what has changed in the cluster.
    pub hear: Hear,
    /// The watches and the run loops; ends only when it is stopped.
    pub work: BoxFuture<'static, ()>,
}

/// What an area does when something in the cluster has changed: who writes or reads a Secret is looked at, who has other users, and who names a
/// cluster-scoped object from a namespace whose labels decide whether it may. What was just written is no news.
pub fn hear<K, C>(index: Shared, waker: Waker<K>, named: Option<Named<C>>, (writer, secrets): (Writer, Facts<SecretFact>)) -> Hear
where
    K: Resource<DynamicType = ()> + Send + Sync + 'static,
    C: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    let is_news = move |namespace: &str, name: &str| {
        secrets.get(namespace, name).is_none_or(|fact| writer.just_written(namespace, name).as_deref() != Some(&fact.resource_version))
    };
    let secret_changed = noticed::of_secret(index.clone(), waker.clone(), named, is_news);
    Arc::new(move |news| match news {
        News::Secret(namespace, name) => secret_changed(namespace, name),
        News::Users(namespace, Source::Secret(name)) => {
            for (namespace, name) in index.read(|index| index.writers_of_secret(namespace, name)) {
                waker.wake_soon(Some(&namespace), &name);
            }
        }
        News::Users(..) => {}
        News::Namespace(name) => noticed::wake_all(&waker, index.read(|index| index.with_name_in(name))),
    })
}

/// Runs the loops of an area. On `stop` each ends when what is under way is done, and all of them are waited for.
pub async fn until_all_ended(loops: Vec<BoxFuture<'static, ()>>, stop: CancellationToken, area: &'static str) {
    let ((), _, rest) = select_all(loops).await;
    if stop.is_cancelled() {
        join_all(rest).await;
    } else {
        tracing::error!(area, "a run loop ended by itself");
    }
}
