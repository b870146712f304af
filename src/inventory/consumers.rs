//! Who uses a Secret or a ConfigMap, how, and in which Pods. From memory.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Inventory,
    facts::{Facts, Term},
    pods::{Owner, PodFact},
    references::ReferenceFact,
    template::{How, Source, Use},
    workloads::{self, WorkloadFact},
};

/// Who uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// The kind and name of what a person would restart: of a Pod of a ReplicaSet of a Deployment, the Deployment.
    pub owner: Owner,
    /// How, in order, each once. By its template, and by its Pods as far as these differ.
    pub uses: Vec<Use>,
    /// Its Pods that use it, with their names in order. Those that have ended are left out.
    pub pods: Vec<(Box<str>, PodFact)>,
}

#[derive(Default)]
struct Found {
    uses: BTreeSet<Use>,
    pods: Vec<(Box<str>, PodFact)>,
}

/// So many steps lead from a Pod to what a person made; more would be a circle.
const MOST_OWNERS: usize = 5;

impl Inventory {
    /// Everything in `namespace` that uses `source`, in the order of kind and name.
    pub fn consumers(&self, namespace: &str, source: &Source) -> Vec<Consumer> {
        let mut found: BTreeMap<Owner, Found> = BTreeMap::new();
        let term = || Term::Uses(source.clone());
        let of_source = |uses: &[Use]| uses.iter().filter(|used| used.source == *source).cloned().collect::<Vec<_>>();
        for (kind, facts) in workloads::KINDS.iter().zip(&self.workloads) {
            for (name, fact) in facts.find(namespace, term()) {
                // What belongs to another shows with that one, as far as it still has Pods.
                if fact.owner.is_none() {
                    found.entry(Owner { kind: kind.kind.into(), name }).or_default().uses.extend(of_source(&fact.uses));
                }
            }
        }
        for (account, _) in self.accounts.find(namespace, term()) {
            let pulls = Use { source: source.clone(), how: How::PullSecret, container: None };
            for (kind, facts) in workloads::KINDS.iter().zip(&self.workloads) {
                for (name, fact) in facts.find(namespace, Term::Account(account.clone())) {
                    if fact.owner.is_none() {
                        found.entry(Owner { kind: kind.kind.into(), name }).or_default().uses.insert(pulls.clone());
                    }
                }
            }
        }
        for (name, pod) in self.pods.find(namespace, term()) {
            if pod.over {
                continue;
            }
            let entry = found.entry(self.top_owner(namespace, &name, &pod)).or_default();
            entry.uses.extend(of_source(&pod.uses));
            entry.pods.push((name, pod));
        }
        let mut others = |facts: &Facts<ReferenceFact>, kind: &str| {
            for (name, fact) in facts.find(namespace, term()) {
                found.entry(Owner { kind: kind.into(), name }).or_default().uses.extend(of_source(&fact.uses));
            }
        };
        others(&self.ingresses, "Ingress");
        others(&self.gateways, "Gateway");
        found.into_iter().map(|(owner, found)| Consumer { owner, uses: found.uses.into_iter().collect(), pods: found.pods }).collect()
    }

    /// Who is to be restarted so that this Pod is: its controller's controller's controller; the Pod itself if it has none.
    fn top_owner(&self, namespace: &str, name: &str, pod: &PodFact) -> Owner {
        let Some(mut owner) = pod.owner.clone() else { return Owner { kind: "Pod".into(), name: name.into() } };
        for _ in 0..MOST_OWNERS {
            let facts = workloads::KINDS.iter().zip(&self.workloads).find(|(kind, _)| *kind.kind == *owner.kind).map(|(_, facts)| facts);
            match facts.and_then(|facts| facts.get(namespace, &owner.name)).and_then(|fact| fact.owner) {
                Some(above) => owner = above,
                None => break,
            }
        }
        owner
    }

    /// The ReplicaSets of a Deployment and whatever else a workload controls directly.
    pub fn controlled_by(&self, namespace: &str, workload: &Owner) -> Vec<WorkloadFact> {
        let term = Term::Owner(workload.kind.clone(), workload.name.clone());
        self.workloads.iter().flat_map(|facts| facts.find(namespace, term.clone())).map(|(_, fact)| fact).collect()
    }

    /// The Pods that a workload has, directly or through what it controls, with their names in order.
    pub fn pods_of(&self, namespace: &str, workload: &Owner) -> Vec<(Box<str>, PodFact)> {
        let (mut pods, mut owners) = (BTreeMap::new(), vec![workload.clone()]);
        for _ in 0..MOST_OWNERS {
            let terms: Vec<Term> = owners.drain(..).map(|owner| Term::Owner(owner.kind, owner.name)).collect();
            for term in terms {
                pods.extend(self.pods.find(namespace, term.clone()));
                for (kind, facts) in workloads::KINDS.iter().zip(&self.workloads) {
                    owners.extend(facts.find(namespace, term.clone()).into_iter().map(|(name, _)| Owner { kind: kind.kind.into(), name }));
                }
            }
        }
        pods.into_iter().collect()
    }
}
