//! What follows from what servers showed. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Seen, handshake::Shown};
use crate::{
    api::certificate_rotation::Verification,
    certificates::x509::{Certificate, path},
    cluster::conditions::{cut, seconds},
};

/// Whether the certificate is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// For the status.
    pub verification: Verification,
    /// All endpoints gave it out, when they were asked last; a failure since then counts after the time that they have.
    pub served: bool,
    /// What the endpoints show instead, and until when that is waited for.
    pub waiting: Option<String>,
    /// What they show instead although their time is over.
    pub failed: Option<String>,
    /// When to ask again.
    pub next: Option<Timestamp>,
}

/// While servers have time left.
const AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// Later.
const SELDOM: SignedDuration = SignedDuration::from_mins(1);
/// Clocks of two leaders differ by no more.
const SKEW: SignedDuration = SignedDuration::from_mins(1);
/// What is told of.
const MOST_TOLD: usize = 3;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Of which certificate: its fingerprint.
    pub fingerprint: String,
    /// Where and how: a hash.
    pub question: String,
    /// How many ready Pods use it.
    pub consumers: i64,
    /// How long they may take.
    pub timeout: SignedDuration,
    /// How long a proof holds; it is taken again then.
    pub holds: SignedDuration,
}

/// What is known without asking: what was said before, if it was about the same. `next` is absent if it is time to ask.
pub fn known(before: Option<&Verification>, asked: &Question, now: Timestamp) -> Proof {
    let fresh = || Verification { fingerprint: asked.fingerprint.clone(), question: asked.question.clone(), ..Verification::default() };
    let same = |before: &&Verification| before.fingerprint == asked.fingerprint && before.question == asked.question;
    let mut verification = before.filter(same).cloned().unwrap_or_else(fresh);
    // Whoever may write a status may write any time.
    let bounded = |time: Option<Time>| time.filter(|time| (Timestamp::UNIX_EPOCH..=now + SKEW).contains(&time.0));
    verification.verified_at = bounded(verification.verified_at);
    verification.failing_since = bounded(verification.failing_since);
    let until = verification.failing_since.as_ref().map(|since| since.0 + asked.timeout);
    let served = verification.verified_at.is_some() && until.is_none_or(|until| now < until);
    let holds = if verification.consumers == asked.consumers { asked.holds } else { AGAIN };
    let holds = verification.verified_at.as_ref().filter(|_| until.is_none()).map(|at| at.0 + holds).filter(|end| *end > now);
    let told = verification.message.clone();
    let (waiting, failed) = match until {
        None => (None, None),
        Some(until) if now < until => (Some(format!("{told}; waited for until {}", seconds(until).0)), None),
        Some(_) => (None, Some(told)),
    };
    Proof { verification, served, waiting, failed, next: holds }
}

/// What follows from what was `seen`.
pub fn judge(before: Option<&Verification>, asked: &Question, seen: &Seen, now: Timestamp) -> Proof {
    let mut verification = known(before, asked, now).verification;
    verification.summary = format!("{}/{}", seen.total.saturating_sub(seen.wrong.len()), seen.total);
    verification.consumers = asked.consumers;
    if seen.wrong.is_empty() {
        (verification.verified_at, verification.failing_since) = (Some(seconds(now)), None);
        verification.message.clear();
    } else {
        let told = seen.wrong.iter().take(MOST_TOLD).cloned().collect::<Vec<_>>().join("; ");
        let more = seen.wrong.len().saturating_sub(MOST_TOLD);
        verification.message = if more > 0 { format!("{told}; and {more} more") } else { told };
        verification.failing_since.get_or_insert_with(|| seconds(now));
    }
    let proof = known(Some(&verification), asked, now);
    let next = match (&proof.waiting, &proof.failed) {
        (Some(_), _) => Some(now + AGAIN),
        (_, Some(_)) => Some(now + SELDOM),
        _ => proof.next,
    };
    Proof { next, ..proof }
}

/// How soon servers that do not serve it are asked again.
pub fn interval(known: &Proof) -> SignedDuration {
    if known.failed.is_some() { SELDOM } else { AGAIN }
}

/// Whether a server gave out `wanted`, with what leads from it to one of `roots`. Err: what it gave out instead.
pub fn serves(shown: &Shown, wanted: &Certificate, roots: &[Certificate], now: Timestamp) -> Result<(), String> {
    let failed = || shown.failure.clone().unwrap_or_else(|| "shows no certificate".into());
    let Some((leaf, others)) = shown.chain.split_first() else { return Err(format!("cannot be asked: {}", failed())) };
    if leaf.fingerprint() != wanted.fingerprint() {
        let serial = &leaf.serial;
        return Err(format!("serves the certificate with serial number {serial} of {}, valid until {}", subject(leaf), leaf.not_after));
    }
    if shown.failure.is_some() {
        return Err(format!("serves it, but the handshake fails: {}", failed()));
    }
    let valid = |above: &Certificate| above.not_before <= now && now < above.not_after;
    // Where ca.crt is empty (an issuer may not say what to trust), that it is the stored one has to do.
    if !roots.is_empty() && path(leaf, others, roots, valid).is_none() {
        return Err("serves it without the chain that leads to ca.crt; let it send the whole of tls.crt".into());
    }
    Ok(())
}

/// A stranger's words: not many, and none that a terminal would obey.
fn subject(certificate: &Certificate) -> String {
    const MAX_SHOWN: usize = 100;
    match (certificate.subject_text.as_str(), certificate.names.first()) {
        ("", Some(name)) => cut(&format!("{name:?}"), MAX_SHOWN).into(),
        ("", None) => "nobody".into(),
        (text, _) => cut(text, MAX_SHOWN).escape_debug().to_string(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn about(fingerprint: &str) -> Question {
        Question {
            fingerprint: fingerprint.into(),
            question: "q".into(),
            consumers: 2,
            timeout: SignedDuration::from_mins(1),
            holds: SignedDuration::from_hours(1),
        }
    }

    fn seen(wrong: &[&str]) -> Seen {
        Seen { total: 5, wrong: wrong.iter().map(|text| (*text).to_owned()).collect() }
    }

    #[test]
    fn waited_for_then_failed_then_served() {
        let none = known(None, &about("F"), at(0));
        assert_eq!((none.served, none.next), (false, None));
        let first = judge(None, &about("F"), &seen(&["a shows another", "b"]), at(100));
        assert_eq!((first.served, first.failed.clone(), first.next), (false, None, Some(at(105))));
        assert_eq!(first.waiting.as_deref(), Some("a shows another; b; waited for until 1970-01-01T00:02:40Z"));
        assert_eq!(first.verification.summary, "3/5");
        assert_eq!(known(Some(&first.verification), &about("F"), at(101)).waiting, first.waiting, "it is said again without asking");
        let late = judge(Some(&first.verification), &about("F"), &seen(&["a", "b", "c", "d", "e"]), at(160));
        assert_eq!((late.served, late.waiting.clone(), late.next), (false, None, Some(at(220))));
        assert_eq!(late.failed.as_deref(), Some("a; b; c; and 2 more"));
        assert_eq!((interval(&first), interval(&late)), (AGAIN, SELDOM));
        let served = judge(Some(&late.verification), &about("F"), &seen(&[]), at(300));
        assert!(served.served && served.waiting.is_none() && served.failed.is_none() && served.verification.message.is_empty());
        assert_eq!(known(Some(&served.verification), &about("F"), at(301)), Proof { next: Some(at(3900)), ..served.clone() });
        assert_eq!(known(Some(&served.verification), &about("F"), at(3900)).next, None, "it is taken again");
        let more = Question { consumers: 3, ..about("F") };
        assert_eq!(known(Some(&served.verification), &more, at(301)).next, Some(at(305)), "other Pods are asked, but not all the time");
        assert_eq!(known(Some(&served.verification), &more, at(305)).next, None);
        // Once served, a failure counts after its time.
        let again = judge(Some(&served.verification), &about("F"), &seen(&["a"]), at(4000));
        assert!(again.served && again.waiting.is_some());
        assert!(!judge(Some(&again.verification), &about("F"), &seen(&["a"]), at(4060)).served);
        assert!(!known(Some(&again.verification), &about("F"), at(4060)).served);
        // Another certificate, or another server, is another question.
        for other in [about("G"), Question { question: "r".into(), ..about("F") }] {
            assert!(!known(Some(&served.verification), &other, at(301)).served);
            let asked = judge(Some(&again.verification), &other, &seen(&["a"]), at(4060));
            assert!(!asked.served && asked.waiting.is_some(), "and has its own time");
        }
    }

    #[test]
    fn times_that_somebody_wrote_there_are_not_believed() {
        for text in ["9999-12-30T21:59:59Z", "-009999-01-02T01:59:59Z", "1970-01-01T00:10:00Z"] {
            let time = || Some(Time(text.parse().unwrap()));
            let verification = Verification {
                fingerprint: "F".into(),
                question: "q".into(),
                consumers: 2,
                verified_at: time(),
                failing_since: time(),
                ..Verification::default()
            };
            let found = known(Some(&verification), &about("F"), at(300));
            assert_eq!((found.served, found.next), (false, None), "{text}");
            assert!(judge(Some(&verification), &about("F"), &seen(&["a"]), at(300)).waiting.is_some());
        }
    }

    #[test]
    fn what_a_server_showed() {
        use crate::{
            certificates::{
                request::Request,
                sign::{sign, tests::ca},
            },
            keys::Key,
            testing::issuer_contract,
        };
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let spec = issuer_contract::spec("a.example");
        let key = Key::generate(&spec.private_key).unwrap();
        let own = || sign(&Request { spec: &spec, key: &key, now }, None).unwrap();
        let (wanted, other, root) = (own(), own(), ca("r").1);
        let shown = |chain: &[&Certificate], failure: Option<&str>| Shown {
            chain: chain.iter().map(|certificate| (*certificate).clone()).collect(),
            failure: failure.map(str::to_owned),
        };
        let roots = std::slice::from_ref(&wanted);
        for (shown, roots, said) in [
            (shown(&[&wanted], None), roots, None),
            (shown(&[&wanted], None), &[], None),
            (shown(&[&other], None), roots, Some(format!("serves the certificate with serial number {}", other.serial))),
            (shown(&[&wanted], Some("bad certificate")), roots, Some("serves it, but the handshake fails: bad certificate".into())),
            (shown(&[], Some("refused")), roots, Some("cannot be asked: refused".into())),
            (shown(&[], None), roots, Some("shows no certificate".into())),
            (shown(&[&wanted], None), std::slice::from_ref(&root), Some("without the chain that leads to ca.crt".into())),
        ] {
            let answer = serves(&shown, &wanted, roots, now);
            match said {
                None => assert_eq!(answer, Ok(())),
                Some(said) => assert!(answer.clone().unwrap_err().contains(&said), "{answer:?}: {said}"),
            }
        }
    }
}
