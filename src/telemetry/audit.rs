//! The audit log: one JSON line on standard output for each act on a credential. Logs go to standard error, so the two part by themselves.

use std::io::Write;

use jiff::Timestamp;
use serde::Serialize;

/// One act. Holds names and words, never a value.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Act<'a> {
    /// Always `audit`, so that a collector can pick these lines out of a mixed stream.
    pub log: &'static str,
    /// When.
    pub time: Timestamp,
    /// Which replica.
    pub actor: &'a str,
    /// What was done; docs/operations.md lists the words.
    pub action: &'static str,
    /// `KIND/NAMESPACE/NAME`.
    pub resource: String,
    /// Why: one of the area's reasons.
    pub reason: &'static str,
    /// `success` or the reason of the failure.
    pub outcome: &'static str,
    /// Which revision of the credential, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
}

/// Writes audit lines.
#[derive(Clone, Debug)]
pub struct Audit {
    actor: String,
}

impl Audit {
    /// `actor` is this process's name.
    pub fn new(actor: &str) -> Self {
        Self { actor: actor.into() }
    }

    /// Writes that something was done.
    pub fn done(&self, action: &'static str, resource: &str, reason: &'static str, revision: Option<i64>) {
        write(&Act { revision, ..self.act(action, resource, reason, "success") });
    }

    /// Writes that something was not done; `outcome` says why.
    pub fn failed(&self, action: &'static str, resource: &str, reason: &'static str, outcome: &'static str) {
        write(&self.act(action, resource, reason, outcome));
    }

    fn act(&self, action: &'static str, resource: &str, reason: &'static str, outcome: &'static str) -> Act<'_> {
        Act { log: "audit", time: Timestamp::now(), actor: &self.actor, action, resource: resource.into(), reason, outcome, revision: None }
    }
}

fn write(act: &Act<'_>) {
    if let Ok(mut line) = serde_json::to_vec(act) {
        line.push(b'\n');
        if let Err(error) = std::io::stdout().lock().write_all(&line) {
            tracing::error!(%error, action = act.action, resource = act.resource, "the audit line could not be written");
        }
    }
}
