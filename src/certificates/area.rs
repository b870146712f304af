//! What the area watches, and what wakes what.

use std::sync::Arc;

use futures::FutureExt;
use kube::{Api, runtime::reflector::Store};
use tokio_util::sync::CancellationToken;

use super::{
    controller,
    index::entry,
    issuer::Issuer,
    issuer_controller,
    resolve::ClusterIssuers,
    verify::{Networks, Turns},
};
use crate::{
    api::{CertificateIssuer, CertificateRotation},
    area::{self, Parts, Running},
    cluster::{
        apply::Writer,
        backoff::Failures,
        contest::Contest,
        edits::Edits,
        index::Shared,
        noticed,
        run::{Guarded, Kind, Settings},
    },
    inventory::Inventory,
    rollout::{act::Restarter, roll::Roller},
};

/// The field manager of everything that this area writes.
pub const MANAGER: &str = "seaworthy-certificates";

/// The caches of one scope, for who counts and shows.
pub type Rotations = Store<Guarded<CertificateRotation>>;

/// Everything of one scope: the whole cluster (`namespace` None) or one namespace, without the cluster-scoped kinds.
pub fn run(
    parts: &Parts,
    verify_networks: Networks,
    (namespace, inventory): (Option<&str>, Inventory),
    stop: CancellationToken,
) -> Running<Rotations> {
    let (client, leadership) = (parts.client.clone(), parts.leadership.clone());
    let api = namespace.map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace));
    let rotations = Kind::<CertificateRotation>::new(api, leadership.clone());
    let issuers = namespace.is_none().then(|| Kind::<CertificateIssuer>::new(Api::all(client), leadership));
    let place = namespace.map(|namespace| format!(" in {namespace}")).unwrap_or_default();
    parts.readiness.wait_for(&format!("CertificateRotations{place}"), rotations.filled());
    if let Some(issuers) = &issuers {
        parts.readiness.wait_for("CertificateIssuers", issuers.filled());
    }

    let (index, waker, store) = (Shared::default(), rotations.waker.clone(), rotations.store.clone());
    let cluster_issuers = issuers.as_ref().map(|issuers| ClusterIssuers {
        store: issuers.store.clone(),
        namespaces: inventory.namespaces.clone(),
        operator_namespace: parts.operator_namespace.clone(),
    });
    let context = Arc::new(rotation_context(parts, (&index, verify_networks), inventory.clone(), cluster_issuers));
    let named = issuers.as_ref().map(|issuers| noticed::Named {
        waker: issuers.waker.clone(),
        store: issuers.store.clone(),
        operator_namespace: parts.operator_namespace.clone(),
        secrets: |issuer| issuer.spec.issuer.secrets(),
    });
    let hear = area::hear(index.clone(), waker.clone(), named, (context.writer.clone(), inventory.secrets.clone()));

    let settings = |first| Settings { concurrency: parts.concurrency, metrics: parts.metrics.clone(), stop: stop.clone(), first };
    let (issuer_waker, listed) = (issuers.as_ref().map(|issuers| issuers.waker.clone()), issuers.as_ref().map(Kind::filled));
    let mut loops = Vec::new();
    if let Some(issuers) = issuers {
        let issuer_context = Arc::new(issuer_context(parts, &index));
        let noticed = noticed::of_named_kind(index.clone(), waker.clone());
        loops.push(issuers.run(settings(std::future::ready(()).boxed()), issuer_context, noticed, issuer_controller::reconcile).boxed());
    }
    // Who uses a Secret cannot be told before the inventory is filled; whether an issuer allows a namespace, not before they are listed, too.
    let first = async move {
        inventory.filled().await;
        if let Some(listed) = listed {
            listed.await;
        }
    };
    let noticed = noticed::of_own_kind(index, waker, issuer_waker, entry);
    loops.push(rotations.run(settings(first.boxed()), context, noticed, controller::reconcile).boxed());
    let work = area::until_all_ended(loops, stop, "certificates");
    Running { store, hear, work: work.boxed() }
}

fn issuer_context(parts: &Parts, index: &Shared) -> issuer_controller::Context {
    issuer_controller::Context {
        client: parts.client.clone(),
        writer: Writer::new(parts.client.clone(), parts.leadership.clone(), MANAGER),
        clock: parts.clock.clone(),
        index: index.clone(),
        operator_namespace: parts.operator_namespace.clone(),
        failures: Failures::default(),
    }
}

fn rotation_context(
    parts: &Parts,
    (index, verify_networks): (&Shared, Networks),
    inventory: Inventory,
    issuers: Option<ClusterIssuers>,
) -> controller::Context {
    controller::Context {
        writer: Writer::new(parts.client.clone(), parts.leadership.clone(), MANAGER),
        client: parts.client.clone(),
        events: parts.events.clone(),
        audit: parts.audit.clone(),
        metrics: parts.metrics.clone(),
        steps: parts.steps.clone(),
        clock: parts.clock.clone(),
        index: index.clone(),
        issuers,
        failures: Failures::default(),
        races: Failures::default(),
        secrets: inventory.secrets.clone(),
        roller: Roller {
            inventory,
            restarter: Restarter::new(parts.client.clone(), parts.leadership.clone(), &parts.operator_namespace, parts.budget.clone()),
            steps: parts.steps.clone(),
        },
        verify_networks,
        turns: Turns::default(),
        contest: Contest::default(),
        edits: Edits::default(),
    }
}
