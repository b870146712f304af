//! The figures of docs/performance.md about secrets: 10,000 SecretRotations over 2,000 values of one Vault, from nothing to synced, and again when
//! all of them are due at once, while somebody creates another one. Run it with `make bench`, which starts the servers that it needs.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a measurement ends at the first error, and prints")]

#[path = "support/fill.rs"]
#[expect(dead_code, reason = "here only namespaces are needed")]
mod fill;
mod support;
#[path = "../tests/it/support/vault.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod vault;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use seaworthy::{
    api::{SecretRotation, SecretStore},
    secrets::reading::refresh_times::next_refresh,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use self::{
    fill::namespace,
    support::{Operator, PARALLEL},
    vault::Vault,
};

const RESOURCES: usize = 10_000;
const KEYS: usize = 2_000;
const LISTEN: &str = "127.0.0.1:18099";
/// No divisor of [`KEYS`]: those who want one value are in namespaces of their own.
const NAMESPACES: usize = 49;
/// So many are created while all others are refreshed.
const NEW: usize = 5;

#[tokio::main]
async fn main() {
    let (client, vault) = (Client::try_default().await.unwrap(), Vault::start().await);
    let reads = Reads::before(&vault).await;
    let idle = {
        let operator = Operator::start("127.0.0.1:0", &[]);
        tokio::time::sleep(Duration::from_secs(15)).await;
        operator.memory("VmRSS")
    };
    println!("idle, without any resource         {idle:6.1} MB");
    let mut limits = Limits::default();
    limits.check("idle, MB", idle, 40.0);

    store(&client, &vault, &reads.address).await;
    println!("creating {RESOURCES} SecretRotations over {KEYS} values of one Vault");
    stream::iter(0..NAMESPACES)
        .for_each_concurrent(PARALLEL, |number| async move { namespace(&Client::try_default().await.unwrap(), &home(number)).await })
        .await;
    stream::iter(0..RESOURCES)
        .for_each_concurrent(PARALLEL, |number| create(&client, home(number), format!("r{number}"), format!("k{}", number % KEYS)))
        .await;

    let (operator, started) = (Operator::start(LISTEN, &[]), Instant::now());
    ready(RESOURCES).await;
    let first_sync = started.elapsed().as_secs_f64();
    println!("\nall {RESOURCES} synced after            {first_sync:6.1} s from the operator's start");
    reads.tell();
    println!("resident memory                    {:6.1} MB, at most {:.1} MB", operator.memory("VmRSS"), operator.memory("VmHWM"));
    limits.check("memory in the first sync, MB", operator.memory("VmHWM"), 100.0);
    println!("processor time of the operator     {:6.1} s", operator.processor_time());
    drop(operator);

    // All are due at once: they were read an hour ago.
    let before = Timestamp::now() - SignedDuration::from_hours(1);
    stream::iter(0..RESOURCES).for_each_concurrent(PARALLEL, |number| read_at(&client, number, before)).await;
    reads.forget();
    let operator = Operator::start("127.0.0.1:0", &[]);
    let (begun, first) = oneshot::channel();
    let all = tokio::spawn({
        let client = client.clone();
        async move { synced(&client, RESOURCES, before + SignedDuration::from_secs(1), begun).await }
    });
    first.await.unwrap();
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    for number in 0..NEW {
        let name = format!("new{number}");
        let created = Instant::now();
        create(&client, home(0), name.clone(), name.clone()).await;
        let api: Api<SecretRotation> = Api::namespaced(client.clone(), &home(0));
        kube::runtime::wait::await_condition(api, &name, |object: Option<&SecretRotation>| {
            object.is_some_and(|object| is_ready(object, Timestamp::UNIX_EPOCH))
        })
        .await
        .unwrap();
        slowest = slowest.max(created.elapsed());
    }
    assert!(!all.is_finished(), "the new ones were to be created while the others are refreshed");
    all.await.unwrap();
    println!("\nall {RESOURCES} refreshed within        {:6.1} s", started.elapsed().as_secs_f64());
    println!("a new one meanwhile, creation to Ready, the slowest of {NEW}   {:.2} s", slowest.as_secs_f64());
    reads.tell();
    println!("resident memory                    {:6.1} MB, at most {:.1} MB", operator.memory("VmRSS"), operator.memory("VmHWM"));
    limits.check("a new one, s", slowest.as_secs_f64(), 1.0);
    limits.check("memory in a refresh, MB", operator.memory("VmHWM"), 100.0);
    println!("processor time of the operator     {:6.1} s", operator.processor_time());
    drop(operator);
    let bare = bare_loop(&client).await.as_secs_f64();
    println!("\na bare loop with the writes of a first sync   {bare:.1} s");
    // On a machine that is busy with something else nobody would be done in a minute.
    limits.check("first sync, s", first_sync, f64::max(60.0, 1.3 * bare));
    limits.end();
}

/// What a figure may be at most.
#[derive(Default)]
struct Limits(Vec<String>);

impl Limits {
    fn check(&mut self, what: &str, figure: f64, most: f64) {
        if figure > most {
            self.0.push(format!("{what}: {figure:.2}, which is more than {most:.2}"));
        }
    }

    /// Ends the process if one was missed.
    fn end(self) {
        for missed in &self.0 {
            println!("MISSED  {missed}");
        }
        if !self.0.is_empty() {
            std::process::exit(1);
        }
    }
}

/// What the API server takes for what a first sync writes, whoever asks for it: a Secret and a status for each resource.
async fn bare_loop(client: &Client) -> Duration {
    let all = ListParams::default();
    let mut secrets = BTreeMap::new();
    for number in 0..NAMESPACES {
        let found = Api::<Secret>::namespaced(client.clone(), &home(number)).list(&all).await.unwrap();
        secrets.extend(found.into_iter().map(|secret| ((secret.namespace(), secret.name_any()), secret)));
    }
    let mut resources = Vec::new();
    for number in 0..NAMESPACES {
        resources.extend(Api::<SecretRotation>::namespaced(client.clone(), &home(number)).list(&all).await.unwrap());
    }
    resources.truncate(RESOURCES);
    let pairs: Vec<_> =
        resources.into_iter().map(|resource| (secrets.remove(&(resource.namespace(), resource.name_any())).unwrap(), resource)).collect();
    let started = Instant::now();
    stream::iter(pairs)
        .for_each_concurrent(PARALLEL, |(secret, mut resource)| async move {
            let Secret { metadata: ObjectMeta { name, namespace, annotations, labels, owner_references, .. }, data, type_, .. } = secret;
            let home = namespace.clone().unwrap();
            let name = name.map(|name| format!("{name}-again"));
            let metadata = ObjectMeta { name, namespace, annotations, labels, owner_references, ..ObjectMeta::default() };
            let secret = Secret { metadata, data, type_, ..Secret::default() };
            Api::namespaced(client.clone(), &home).create(&PostParams::default(), &secret).await.unwrap();
            resource.status.as_mut().unwrap().last_sync_time = Some(Time(Timestamp::now()));
            let status = json!([
                {"op": "test", "path": "/metadata/resourceVersion", "value": resource.metadata.resource_version},
                {"op": "add", "path": "/status", "value": resource.status},
            ]);
            let patch = Patch::<()>::Json(serde_json::from_value(status).unwrap());
            let api: Api<SecretRotation> = Api::namespaced(client.clone(), &home);
            api.patch_status(&resource.name_any(), &PatchParams::default(), &patch).await.unwrap();
        })
        .await;
    started.elapsed()
}

fn home(number: usize) -> String {
    format!("secrets-{}", number % NAMESPACES)
}

/// Fills Vault and makes it a store for all namespaces.
async fn store(client: &Client, vault: &Vault, address: &str) {
    let keys = (0..KEYS).map(|number| format!("k{number}")).chain((0..NEW).map(|number| format!("new{number}")));
    stream::iter(keys).for_each_concurrent(PARALLEL, async |key| vault.put(&key, json!({"a": key, "b": "c".repeat(100)})).await).await;
    let token: Secret = serde_json::from_value(json!({"metadata": {"name": "vault"}, "stringData": {"token": vault.root}})).unwrap();
    Api::default_namespaced(client.clone()).create(&PostParams::default(), &token).await.unwrap();
    let spec =
        json!({"allowedNamespaces": {}, "vault": {"server": address, "auth": {"token": {"secretRef": {"name": "vault", "key": "token"}}}}});
    let store: SecretStore = serde_json::from_value(
        json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretStore", "metadata": {"name": "vault"}, "spec": spec}),
    )
    .unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &store).await.unwrap();
}

/// Of two properties of one value.
fn rotation(name: &str, key: &str) -> SecretRotation {
    let data = ["a", "b"].map(|property| json!({"secretKey": property, "remoteRef": {"key": key, "property": property}}));
    let spec = json!({"target": {"name": name}, "storeRef": {"name": "vault"}, "refreshInterval": "15m", "data": data});
    let object = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretRotation", "metadata": {"name": name}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

async fn create(client: &Client, home: String, name: String, key: String) {
    Api::namespaced(client.clone(), &home).create(&PostParams::default(), &rotation(&name, &key)).await.unwrap();
}

/// As if it had been read at `time`.
async fn read_at(client: &Client, number: usize, time: Timestamp) {
    let api: Api<SecretRotation> = Api::namespaced(client.clone(), &home(number));
    let status = Patch::Merge(json!({"status": {"lastSyncTime": time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}}));
    api.patch_status(&format!("r{number}"), &PatchParams::default(), &status).await.unwrap();
}

fn is_ready(object: &SecretRotation, since: Timestamp) -> bool {
    object.status.as_ref().is_some_and(|status| {
        let ready = status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        ready && status.last_sync_time.as_ref().is_some_and(|time| time.0 > since)
    })
}

/// Returns when so many are Ready, as the operator counts them: whoever asks the API server for 10,000 of them takes time from it. Nor is the operator
/// asked all the time: it goes through all of them for an answer.
async fn ready(wanted: usize) {
    let (http, line) = (reqwest::Client::new(), format!("seaworthy_secrets{{ready=\"true\"}} {wanted}"));
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Ok(answer) = http.get(format!("http://{LISTEN}/metrics")).send().await else { continue }; // it is starting
        if answer.text().await.unwrap().lines().any(|found| found == line) {
            return;
        }
    }
}

/// Returns when `wanted` were read since; `begun` hears of the first.
async fn synced(client: &Client, wanted: usize, since: Timestamp, begun: oneshot::Sender<()>) {
    let mut begun = Some(begun);
    let events = watcher(Api::<SecretRotation>::all(client.clone()), watcher::Config::default().page_size(500)).applied_objects();
    let mut events =
        std::pin::pin!(events.try_filter(|object| std::future::ready(is_ready(object, since) && object.name_any().starts_with('r'))));
    let mut names = HashSet::new();
    while names.len() < wanted {
        names.insert(events.next().await.unwrap().unwrap().name_any());
        let _ = begun.take().map(|begun| begun.send(())); // nobody may listen
    }
}

/// Which value was read, and when.
type Seen = Vec<(String, Timestamp)>;

/// What is read in a Vault through it, and when.
struct Reads {
    address: String,
    read: Arc<Mutex<Seen>>,
    /// All that was asked, reads and others.
    asked: Arc<AtomicUsize>,
}

impl Reads {
    async fn before(vault: &Vault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (read, asked, server) = (Arc::default(), Arc::default(), vault.address.trim_start_matches("http://").to_owned());
        let reads = Self { address, read: Arc::clone(&read), asked: Arc::clone(&asked) };
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(forward(from, server.clone(), (read.clone(), asked.clone())));
            }
        });
        reads
    }

    fn forget(&self) {
        self.read.lock().unwrap().clear();
        self.asked.store(0, Ordering::SeqCst);
    }

    /// Says what was read since it was asked last, by the rounds of each value's own interval. None is read twice in one.
    fn tell(&self) {
        let read = std::mem::take(&mut *self.read.lock().unwrap());
        let others = self.asked.swap(0, Ordering::SeqCst) - read.len();
        let (all, mut of_key) = (read.len(), BTreeMap::<String, BTreeMap<Timestamp, usize>>::new());
        for (key, time) in read {
            let round = next_refresh(&rotation("r", &key).spec, &[key.clone()].into(), Some(time)).expect("it is read again");
            *of_key.entry(key).or_default().entry(round).or_default() += 1;
        }
        let of_first: usize = of_key.values().filter_map(|rounds| rounds.values().next()).sum();
        println!(
            "values read in Vault               {of_first:6} of {} distinct ones in the first round of each, {} in the next",
            of_key.len(),
            all - of_first
        );
        println!("other calls                        {others:6}");
        assert!(others <= 20, "they are for the login, not for a value");
        assert!(of_key.values().flat_map(BTreeMap::values).all(|times| *times == 1), "one was read twice in one round");
    }
}

/// Each read of a value has one such line, wherever it is cut.
async fn forward(from: TcpStream, server: String, (read, asked_for): (Arc<Mutex<Seen>>, Arc<AtomicUsize>)) {
    const MARK: &str = "GET /v1/secret/data/";
    const LINE: &str = " HTTP/1.1\r\n";
    let mut end = String::new();
    let to = TcpStream::connect(server).await.unwrap();
    let ((mut asks, mut answered), (mut answers, mut asked)) = (from.into_split(), to.into_split());
    let back = tokio::spawn(async move { tokio::io::copy(&mut answers, &mut answered).await });
    let (mut buffer, mut tail) = (vec![0; 16 * 1024], String::new());
    while let Ok(length @ 1..) = asks.read(&mut buffer).await {
        tail.push_str(&String::from_utf8_lossy(&buffer[..length]));
        end.push_str(&String::from_utf8_lossy(&buffer[..length]));
        asked_for.fetch_add(end.matches(LINE).count(), Ordering::SeqCst);
        end.drain(..end.floor_char_boundary(end.rfind(LINE).map_or(0, |at| at + LINE.len()).max(end.len().saturating_sub(LINE.len() - 1))));
        while let Some((key, rest)) = tail.split_once(MARK).and_then(|(_, rest)| rest.split_once(' ')) {
            read.lock().unwrap().push((key.into(), Timestamp::now()));
            tail = rest.into();
        }
        if !tail.contains(MARK) {
            tail.drain(..tail.floor_char_boundary(tail.len().saturating_sub(MARK.len())));
        }
        if asked.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    back.abort();
}
