//! `seaworthy status`: all that is managed, what is next, what is wrong, most urgent first.

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ListParams,
    core::{DeserializeGuard, NamespaceResourceScope},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Failure, Output, client, print};
use crate::{
    api::{CertificateIssuer, CertificateRotation, SecretRotation, SecretStore},
    cluster::conditions::{READY, STALLED, is_true},
};

/// Show all that is managed: is it fine, until when, what is next; most urgent first.
///
/// Exit code 1 if something is not Ready. Where the terminal is wide enough, a timeline shows when each certificate is renewed (R) and when it
/// would expire (x).
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The namespace. Default: the kubeconfig's.
    #[arg(short, long)]
    namespace: Option<String>,
    /// All namespaces, and the cluster-scoped kinds.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// One managed object, as `-o json` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    name: String,
    ready: bool,
    reason: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    renews: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    /// Pods with the present value / Pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    consumers: Option<String>,
}

/// Below this width a timeline would leave no room for the rest.
const WIDE: u16 = 130;
/// Columns of the timeline.
const TIMELINE: usize = 40;

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let (client, default) = client().await?;
    let namespace = (!arguments.all_namespaces).then(|| arguments.namespace.unwrap_or(default));
    let rotations = namespace.as_deref().map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace));
    let mut rows: Vec<Row> = list::<CertificateRotation>(rotations).await?.into_iter().map(of_rotation).collect();
    let secrets = namespace.as_deref().map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace));
    rows.extend(list::<SecretRotation>(secrets).await?.into_iter().map(of_secrets));
    if namespace.is_none() {
        rows.extend(issuers(client.clone()).await?);
        rows.extend(stores(client).await?);
    }
    rows.sort_by_key(|row| (row.ready, row.renews.or(row.expires).unwrap_or(Timestamp::MAX), row.namespace.clone(), row.name.clone()));
    if !arguments.output.print(&rows)? {
        show(&rows, namespace.as_deref(), Timestamp::now());
    }
    if rows.iter().all(|row| row.ready) { Ok(()) } else { Err(Failure::Wrong) }
}

/// All objects, page by page; one that cannot be read does not hide the others.
async fn list<K>(api: Api<DeserializeGuard<K>>) -> Result<Vec<DeserializeGuard<K>>, Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let (mut all, mut params) = (Vec::new(), ListParams::default().limit(500));
    loop {
        let page = api.list(&params).await.map_err(missing_crds)?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

fn missing_crds(error: kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) if status.is_not_found() => Failure::Unreachable(
            "the CustomResourceDefinitions are not installed; install them with: seaworthy crds | kubectl apply --server-side -f -".into(),
        ),
        error => error.into(),
    }
}

fn of_rotation(guard: DeserializeGuard<CertificateRotation>) -> Row {
    let (namespace, name) = (guard.namespace(), guard.name_any());
    match guard.0 {
        Ok(rotation) => {
            let status = rotation.status.unwrap_or_default();
            let time = |time: Option<Time>| time.map(|time| time.0);
            let renews = if rotation.spec.suspend { None } else { time(status.renewal_time) };
            Row {
                expires: time(status.not_after),
                renews,
                revision: status.revision,
                consumers: status.consumers.map(|consumers| consumers.summary),
                ..row("CertificateRotation", namespace, name, &status.conditions)
            }
        }
        Err(invalid) => unreadable("CertificateRotation", namespace, name, &invalid.error),
    }
}

fn of_secrets(guard: DeserializeGuard<SecretRotation>) -> Row {
    let (namespace, name) = (guard.namespace(), guard.name_any());
    match guard.0 {
        Ok(rotation) => {
            let status = rotation.status.unwrap_or_default();
            let renews = status.next_rotation_time.map(|time| time.0).filter(|_| !rotation.spec.suspend);
            Row {
                renews,
                revision: status.revision,
                consumers: status.consumers.map(|consumers| consumers.summary),
                ..row("SecretRotation", namespace, name, &status.conditions)
            }
        }
        Err(invalid) => unreadable("SecretRotation", namespace, name, &invalid.error),
    }
}

async fn stores(client: Client) -> Result<Vec<Row>, Failure> {
    let list = Api::<DeserializeGuard<SecretStore>>::all(client).list(&ListParams::default()).await.map_err(missing_crds)?;
    let of = |guard: DeserializeGuard<SecretStore>| {
        let name = guard.name_any();
        match guard.0 {
            Ok(store) => row("SecretStore", None, name, &store.status.unwrap_or_default().conditions),
            Err(invalid) => unreadable("SecretStore", None, name, &invalid.error),
        }
    };
    Ok(list.items.into_iter().map(of).collect())
}

async fn issuers(client: Client) -> Result<Vec<Row>, Failure> {
    let list = Api::<DeserializeGuard<CertificateIssuer>>::all(client).list(&ListParams::default()).await.map_err(missing_crds)?;
    let of = |guard: DeserializeGuard<CertificateIssuer>| {
        let name = guard.name_any();
        match guard.0 {
            Ok(issuer) => {
                let status = issuer.status.unwrap_or_default();
                Row { expires: status.not_after.map(|time| time.0), ..row("CertificateIssuer", None, name, &status.conditions) }
            }
            Err(invalid) => unreadable("CertificateIssuer", None, name, &invalid.error),
        }
    };
    Ok(list.items.into_iter().map(of).collect())
}

fn row(kind: &str, namespace: Option<String>, name: String, conditions: &[Condition]) -> Row {
    let find = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
    let ready = is_true(conditions, READY) && !is_true(conditions, STALLED);
    // What is wrong says more than what is right.
    let telling = find(STALLED).or_else(|| find("Reconciling")).or_else(|| find(READY));
    let (reason, message) = telling.map_or_else(
        || ("Unknown".to_owned(), "the operator has not looked at it yet; is it running?".to_owned()),
        |condition| (condition.reason.clone(), condition.message.clone()),
    );
    // What goes on with it is no reason why it is not ready.
    let reason = find(READY).filter(|ready| ready.status == "False").map_or(reason, |ready| ready.reason.clone());
    Row { kind: kind.into(), namespace, name, ready, reason, message, expires: None, renews: None, revision: None, consumers: None }
}

fn unreadable(kind: &str, namespace: Option<String>, name: String, error: &str) -> Row {
    Row { reason: "Malformed".into(), message: error.into(), ..row(kind, namespace, name, &[]) }
}

fn show(rows: &[Row], namespace: Option<&str>, now: Timestamp) {
    if rows.is_empty() {
        print(&format!(
            "Nothing is managed {}.",
            namespace.map_or_else(|| "in this cluster".into(), |namespace| format!("in namespace {namespace}; -A shows all"))
        ));
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    let wide = table.width().is_some_and(|width| width >= WIDE);
    let horizon = rows.iter().filter_map(|row| row.expires).max().unwrap_or(now);
    let mut header = vec!["READY", "KIND", "NAMESPACE", "NAME", "EXPIRES", "NEXT"];
    header.extend([if wide { "TIMELINE" } else { "SAYS" }, "CONSUMERS"]);
    table.set_header(header);
    for row in rows {
        let ready = Cell::new(if row.ready { "True" } else { "False" }).fg(if row.ready { Color::Green } else { Color::Red });
        let dash = || "-".to_owned();
        let expires = row.expires.map_or_else(dash, |time| span(time, now));
        let next = match row.renews {
            _ if !row.ready => row.reason.clone(),
            Some(time) if time > now => format!("renews {}", span(time, now)),
            Some(_) => row.reason.clone(),
            None => dash(),
        };
        let last = if wide && row.ready { timeline(row, now, horizon) } else { row.message.clone() };
        table.add_row([
            ready,
            Cell::new(&row.kind),
            Cell::new(row.namespace.clone().unwrap_or_else(dash)),
            Cell::new(&row.name),
            Cell::new(expires),
            Cell::new(next),
            Cell::new(last),
            Cell::new(row.consumers.clone().unwrap_or_else(dash)),
        ]);
    }
    print(&table.to_string());
    let wrong = rows.iter().filter(|row| !row.ready).count();
    print(&format!("\n{} managed, {wrong} not ready", rows.len()));
}

/// `in 29d`, `in 3h`, `5m ago`.
pub(super) fn span(time: Timestamp, now: Timestamp) -> String {
    let seconds = time.duration_since(now).as_secs();
    let text = match seconds.abs() {
        seconds if seconds >= 2 * 86_400 => format!("{}d", seconds / 86_400),
        seconds if seconds >= 2 * 3600 => format!("{}h", seconds / 3600),
        seconds if seconds >= 120 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    };
    if seconds < 0 { format!("{text} ago") } else { format!("in {text}") }
}

/// From now to the last expiry of all: a line that is solid until the renewal (R) and dotted until the expiry (x).
fn timeline(row: &Row, now: Timestamp, horizon: Timestamp) -> String {
    let Some(expires) = row.expires else { return String::new() };
    let whole = horizon.duration_since(now).as_secs().max(1);
    let place = |time: Timestamp| {
        let part = i128::from(time.duration_since(now).as_secs().clamp(0, whole)) * (TIMELINE as i128 - 1) / i128::from(whole);
        usize::try_from(part).unwrap_or(0)
    };
    let (end, renewal) = (place(expires), row.renews.map(place));
    (0..=end)
        .map(|column| match column {
            _ if column == end => 'x',
            _ if Some(column) == renewal => 'R',
            _ if renewal.is_none_or(|renewal| column < renewal) => '─',
            _ => '·',
        })
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_one_unit() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (time, said) in [
            ("2026-01-30T00:00:00Z", "in 29d"),
            ("2026-01-01T05:59:00Z", "in 5h"),
            ("2026-01-01T00:02:00Z", "in 2m"),
            ("2026-01-01T00:00:30Z", "in 30s"),
            ("2025-12-31T23:55:00Z", "5m ago"),
        ] {
            assert_eq!(span(time.parse().unwrap(), now), said);
        }
    }

    #[test]
    fn the_reason_is_why_it_is_not_ready() {
        let condition = |kind: &str, status: &str, reason: &str| {
            serde_json::from_value(serde_json::json!({"type": kind, "status": status, "reason": reason, "message": reason, "lastTransitionTime": "2026-01-01T00:00:00Z"})).unwrap()
        };
        let not_ready = condition(READY, "False", "ValueNotFound");
        let of = |conditions: &[Condition]| row("K", None, "n".into(), conditions).reason;
        assert_eq!(of(&[not_ready, condition("Reconciling", "True", "RefreshDue")]), "ValueNotFound");
        assert_eq!(of(&[condition(READY, "True", "Current"), condition("Reconciling", "True", "Restarting")]), "Restarting");
        assert_eq!(of(&[condition(READY, "True", "Current"), condition(STALLED, "True", "RolledBack")]), "RolledBack");
    }

    #[test]
    fn a_timeline_shows_renewal_and_expiry_in_scale() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let at = |days: i32| now + jiff::SignedDuration::from_hours(24) * days;
        let row = Row { expires: Some(at(50)), renews: Some(at(25)), ..row("K", None, "n".into(), &[]) };
        let line: Vec<char> = timeline(&row, now, at(100)).chars().collect();
        assert_eq!((line.len(), line[19], line[9]), (20, 'x', 'R'));
        let over = Row { expires: Some(at(-1)), renews: Some(at(-2)), ..row };
        assert_eq!(timeline(&over, now, at(100)), "x");
    }
}
