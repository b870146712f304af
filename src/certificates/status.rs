//! What a CertificateRotation's status says, given what was seen and what came of it. Pure.

use jiff::{SignedDuration, Timestamp};

use super::{
    decide::{Action, Pair, Plan},
    issuer::IssuerError,
    memory::Memory,
    reason::Reason,
    verify::Proof,
};
use crate::{
    api::certificate_rotation::{CertificateRotationStatus, LastRotation, RotationStep, RotationStepName},
    cluster::{
        conditions::{self, Finding, READY, RECONCILING, STALLED, seconds},
        halt::{self, Word},
    },
    rollout::{consumption::Consumption, roll::Rollout, stage::Stage},
};

/// What keeps something from being done.
pub type Problem = halt::Problem<Reason>;

/// Why something was not done.
pub type Halt = halt::Halt<Reason>;

impl From<IssuerError> for Problem {
    fn from(error: IssuerError) -> Self {
        let after = match &error {
            IssuerError::Throttled { after, .. } => SignedDuration::try_from(*after).ok(),
            _ => None,
        };
        Self { reason: error.reason(), message: error.to_string(), after }
    }
}

impl From<IssuerError> for Halt {
    fn from(error: IssuerError) -> Self {
        Self::Problem(error.into())
    }
}

/// What was seen and done.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The pair that consumers get now: after the rotation, if there was one. None: it cannot be told, and what was known stays.
    pub pair: Option<Pair>,
    /// What is written down with it.
    pub memory: Memory,
    /// Identity of the issuer.
    pub issuer: Option<String>,
    /// When the pair is to be renewed.
    pub renewal_time: Option<Timestamp>,
    /// The decision; None if it did not come to one.
    pub plan: Option<Plan>,
    /// When its Secret was created.
    pub created: Option<Timestamp>,
    /// Whether the pair was made in this look.
    pub rotated: bool,
    /// How far the restarts are; None: nobody is to be restarted.
    pub rollout: Option<Rollout>,
    /// Whether the certificate is served. None: nobody asked for that, or there is none.
    pub proof: Option<Proof>,
    /// Who uses the Secret. None: it cannot be told, and what was known stays.
    pub consumption: Option<Consumption>,
    /// What went wrong.
    pub problem: Option<Problem>,
}

impl View {
    /// Why who uses the Secret does not have the new pair, and will not before a person does something.
    pub fn undelivered(&self) -> Option<(Reason, String)> {
        let failed = self.rollout.as_ref().and_then(|rollout| rollout.failed.as_ref());
        let back = match &self.memory.stage {
            Stage::RolledBack { why, .. } => Some(format!(
                "{why}; the certificate of before is back (revision {}); mend what failed, then `seaworthy rotate`, or change the spec",
                self.memory.revision
            )),
            _ => None,
        };
        match (failed, back) {
            (Some(why), None) => Some((Reason::RestartFailed, why.clone())),
            (Some(why), Some(back)) => Some((Reason::RestartFailed, format!("{why}; before that: {back}"))),
            (None, Some(back)) => Some((Reason::RolledBack, back)),
            (None, None) => Some((Reason::NotServed, self.proof.as_ref()?.failed.clone()?)),
        }
    }

    /// The end of the pair that was seen.
    pub fn not_after(&self) -> Option<Timestamp> {
        match &self.pair {
            Some(Pair::Good(certificate, _)) => Some(certificate.not_after),
            _ => None,
        }
    }
}

/// The status after `view`.
pub fn status(before: &CertificateRotationStatus, view: &View, generation: Option<i64>, now: Timestamp) -> CertificateRotationStatus {
    let mut status = CertificateRotationStatus {
        observed_generation: generation,
        conditions: conditions::merge(&before.conditions, findings(before, view, now), generation, now),
        issuer: view.issuer.clone().or_else(|| before.issuer.clone()),
        last_rotation: last_rotation(before, view, now),
        verification: match (&view.proof, &view.pair, view.plan) {
            (Some(proof), ..) => Some(proof.verification.clone()),
            // What could not be seen, or was not to be asked, stays as it is known.
            (None, None, _) | (None, _, Some(Plan { action: Action::Rest, .. })) => before.verification.clone(),
            (None, Some(_), _) => None,
        },
        consumers: view.consumption.as_ref().map(Consumption::status).or_else(|| before.consumers.clone()),
        ..CertificateRotationStatus::default()
    };
    match &view.pair {
        Some(Pair::Good(certificate, _)) => {
            status.revision = Some(view.memory.revision);
            status.serial_number = Some(certificate.serial.clone());
            status.fingerprint = Some(certificate.fingerprint());
            status.not_before = Some(seconds(certificate.not_before));
            status.not_after = Some(seconds(certificate.not_after));
            status.renewal_time = view.renewal_time.map(seconds);
        }
        Some(_) => status.revision = before.revision, // the count goes on with the next one
        None => {
            status.revision = before.revision;
            status.serial_number.clone_from(&before.serial_number);
            status.fingerprint.clone_from(&before.fingerprint);
            (status.not_before, status.not_after) = (before.not_before.clone(), before.not_after.clone());
            status.renewal_time.clone_from(&before.renewal_time);
        }
    }
    let failure = view.problem.as_ref().map(|problem| (problem.reason, problem.message.clone())).or_else(|| view.undelivered());
    status.last_failure =
        failure.map(|(reason, message)| conditions::failure(before.last_failure.as_ref(), reason.as_str(), &message, now));
    status
}

fn last_rotation(before: &CertificateRotationStatus, view: &View, now: Timestamp) -> Option<LastRotation> {
    let memory = &view.memory;
    let (Some(id), Some(reason), Some(issued_at)) = (&memory.rotation, &memory.reason, memory.issued_at) else {
        return before.last_rotation.clone();
    };
    let known = before.last_rotation.as_ref().filter(|last| last.id == *id);
    let mut steps = known.map(|last| last.steps.clone()).unwrap_or_default();
    let mut done = |name, time| {
        if !steps.iter().any(|step: &RotationStep| step.name == name) {
            steps.push(RotationStep { name, time: seconds(time) });
        }
    };
    done(RotationStepName::Issued, issued_at);
    done(RotationStepName::Stored, if view.rotated { now } else { issued_at });
    if view.rollout.as_ref().is_some_and(|rollout| rollout.over) && !memory.stage.is_rolled_back() {
        done(RotationStepName::Restarted, now);
    }
    let served = view.proof.as_ref().is_some_and(|proof| proof.served && proof.verification.failing_since.is_none());
    if served && !memory.stage.is_rolled_back() {
        done(RotationStepName::Verified, now);
    }
    let completed_at = match &memory.stage {
        Stage::Complete => known.and_then(|last| last.completed_at.clone()).or_else(|| steps.last().map(|step| step.time.clone())),
        Stage::Open { .. } => None,
        Stage::RolledBack { .. } => {
            done(RotationStepName::RolledBack, now);
            None
        }
    };
    Some(LastRotation { id: id.clone(), reason: reason.clone(), started_at: Some(seconds(issued_at)), completed_at, steps })
}

fn findings(before: &CertificateRotationStatus, view: &View, now: Timestamp) -> Vec<Finding> {
    let ready = ready(before, view, now);
    let mut findings = vec![ready];
    if !view.problem.as_ref().is_some_and(|problem| problem.reason.needs_a_person())
        && let Some((reason, message)) = view.undelivered()
    {
        findings.push(Finding { kind: STALLED, status: true, reason: reason.as_str().into(), message });
    }
    if view.problem.is_none() {
        let restarting = view.rollout.as_ref().and_then(|rollout| rollout.going.as_ref()).map(|what| (Reason::Restarting, what));
        let verifying = view.proof.as_ref().and_then(|proof| proof.waiting.as_ref()).map(|what| (Reason::Verifying, what));
        findings.extend(restarting.or(verifying).map(|(reason, what)| Finding {
            kind: RECONCILING,
            status: true,
            reason: reason.as_str().into(),
            message: what.clone(),
        }));
    }
    if let Some(problem) = &view.problem {
        if problem.reason.needs_a_person() {
            let message = problem.message.clone();
            findings.push(Finding { kind: STALLED, status: true, reason: problem.reason.as_str().into(), message });
        } else {
            let why = view.plan.map_or(problem.reason, |plan| plan.reason);
            let message = format!("{}; it is tried again", problem.message);
            findings.push(Finding { kind: RECONCILING, status: true, reason: why.as_str().into(), message });
        }
    }
    findings
}

/// Ready is about what consumers get: a pair that fits together, is trusted and has not expired.
fn ready(before: &CertificateRotationStatus, view: &View, now: Timestamp) -> Finding {
    let no = |reason: Reason, message: String| Finding { kind: READY, status: false, reason: reason.as_str().into(), message };
    let blocked = view
        .problem
        .as_ref()
        .filter(|problem| matches!(problem.reason, Reason::NotOurs | Reason::TargetConflict | Reason::ReservedType | Reason::Malformed));
    if let Some(problem) = blocked {
        return no(problem.reason, problem.message.clone());
    }
    let Some(pair) = &view.pair else { return as_before(before, view, now) };
    let reason = view.plan.map_or(Reason::Current, |plan| plan.reason);
    let broken = match pair {
        Pair::Good(certificate, _) if certificate.not_after <= now => {
            Some(no(Reason::Expired, format!("the certificate expired at {}", certificate.not_after)))
        }
        Pair::Good(..) if reason == Reason::NotTrusted => {
            Some(no(reason, "the stored certificate was not signed by the issuer's CA".into()))
        }
        Pair::Good(..) => None,
        Pair::Missing => Some(no(Reason::Missing, "there is no certificate yet".into())),
        Pair::Unreadable(what) => Some(no(Reason::Unreadable, format!("the Secret cannot be read: {what}"))),
        Pair::Mismatch => Some(no(Reason::KeyMismatch, "the certificate and the key in the Secret do not belong together".into())),
    };
    if let Some(mut finding) = broken {
        if let Some(problem) = &view.problem {
            finding.reason = problem.reason.as_str().into();
            finding.message = format!("{}: {}", finding.message, problem.message);
        }
        return finding;
    }
    let Pair::Good(certificate, _) = pair else { return no(Reason::Missing, String::new()) };
    if let Some(proof) = view.proof.as_ref().filter(|proof| !proof.served) {
        let why = proof.failed.as_ref().or(proof.waiting.as_ref());
        let why = why.map_or("it is on its way to who uses it; whether it is served is not known yet", String::as_str);
        return no(Reason::NotServed, format!("the certificate is valid until {}, but not served: {why}", certificate.not_after));
    }
    let until = certificate.not_after;
    let message = match view.plan {
        Some(Plan { action: Action::WaitUntil(time), reason, .. }) => {
            format!("valid until {until}; rotation ({reason}) waits until {}", seconds(time).0)
        }
        Some(Plan { action: Action::Rest, .. }) => format!("valid until {until}; suspended, nothing is renewed"),
        Some(Plan { renewal_time: Some(renewal), .. }) => format!("valid until {until}; renewal at {}", seconds(renewal).0),
        _ => format!("valid until {until}"),
    };
    let skipped = view.rollout.iter().flat_map(|rollout| &rollout.skipped);
    let message = skipped.fold(message, |message, left| format!("{message}; {left}"));
    Finding { kind: READY, status: true, reason: reason.as_str().into(), message }
}

/// What was so is taken to be so still, until its end: that we cannot see the pair takes it from nobody.
fn as_before(before: &CertificateRotationStatus, view: &View, now: Timestamp) -> Finding {
    let problem = view.problem.as_ref();
    let no = |reason: Reason, message: String| Finding { kind: READY, status: false, reason: reason.as_str().into(), message };
    let known = before.conditions.iter().find(|condition| condition.type_ == READY);
    match (&before.not_after, known) {
        (Some(end), _) if end.0 <= now => no(Reason::Expired, format!("the certificate expired at {}", end.0)),
        (_, Some(known)) => {
            Finding { kind: READY, status: known.status == "True", reason: known.reason.clone().into(), message: known.message.clone() }
        }
        (_, None) => {
            let (reason, message) = problem.map_or((Reason::Missing, ""), |problem| (problem.reason, problem.message.as_str()));
            no(reason, format!("it cannot be told whether there is a certificate: {message}"))
        }
    }
}

/// When to look again: what the plan says, and the moment at which Ready stops being true.
pub fn next_look(view: &View, now: Timestamp) -> Option<Timestamp> {
    let end = view.not_after();
    let planned = view.plan.and_then(|plan| plan.next);
    let rollout = view.rollout.as_ref().and_then(|rollout| rollout.next);
    // When the data changed is yet to be noted; before it is, nobody can be said to have it.
    let unnoted = (!view.memory.change.is_noted()).then(|| now + SignedDuration::from_secs(5));
    let proof = view.proof.as_ref().and_then(|proof| proof.next);
    [planned, rollout, proof, unnoted, end].into_iter().flatten().filter(|time| *time > now).min()
}
