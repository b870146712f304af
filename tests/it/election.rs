//! Leader election with real processes against a real API server.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Cluster, ControlPlane, Rotations, eventually, keeps_previous};

/// One replica: a process of its own, connected through a proxy that can be cut.
struct Replica {
    name: String,
    child: Child,
    cut: Arc<AtomicBool>,
    /// Removed in the end.
    file: PathBuf,
}

impl Replica {
    async fn start(cluster: &Cluster, name: &str) -> Self {
        let cut = Arc::new(AtomicBool::new(false));
        let server = cluster.operator_config.cluster_url.authority().unwrap().as_str().parse().unwrap();
        let proxy = proxy(server, cut.clone()).await;
        let kubeconfig = cluster.operator_kubeconfig(&proxy.to_string());
        let path = std::env::temp_dir().join(format!("seaworthy-election-{}-{name}", std::process::id()));
        std::fs::write(&path, kubeconfig).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_seaworthy"))
            .args(["controller", "--operator-namespace", "seaworthy", "--listen", "127.0.0.1:0", "--name", name, "--log-format", "text"])
            .env("KUBECONFIG", &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { name: name.into(), child, cut, file: path }
    }

    fn signal(&self, signal: &str) {
        crate::support::command("kill", &[signal, &self.child.id().to_string()], b"");
    }

    /// Waits until the process has ended by itself; its exit code.
    async fn ended(&mut self) -> Option<i32> {
        let child = std::sync::Mutex::new(&mut self.child);
        eventually("the process ends", || async {
            child.lock().unwrap().try_wait().unwrap().map(|status| status.code()).ok_or_else(|| "it runs".into())
        })
        .await
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Passes bytes on to `server` until it is cut; then nothing goes through any more, and nothing says so.
async fn proxy(server: SocketAddr, cut: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let cut = cut.clone();
            tokio::spawn(async move {
                if cut.load(Ordering::SeqCst) {
                    return std::future::pending().await;
                }
                let mut far = TcpStream::connect(server).await.unwrap();
                let watch = async {
                    while !cut.load(Ordering::SeqCst) {
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    }
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = watch => std::future::pending().await,
                }
            });
        }
    });
    address
}

/// The name of who holds the lease.
async fn leader(cluster: &Cluster, not: &[&str]) -> String {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "seaworthy");
    eventually("somebody leads", || async {
        let holder = leases
            .get("seaworthy")
            .await
            .map_err(|error| error.to_string())?
            .spec
            .and_then(|spec| spec.holder_identity)
            .unwrap_or_default();
        let name = holder.split('_').next().unwrap_or_default().to_owned();
        if name.is_empty() || not.contains(&name.as_str()) { Err(holder) } else { Ok(name) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_leads_and_the_others_take_over() {
    let (_own, cluster) = ControlPlane::start().await;
    let namespace = cluster.namespace("election").await;
    let mut replicas = Vec::new();
    for name in ["one", "two", "three"] {
        replicas.push(Replica::start(&cluster, name).await);
    }
    let take = |replicas: &mut Vec<Replica>, name: &str| {
        let place = replicas.iter().position(|replica| replica.name == name).unwrap();
        replicas.remove(place)
    };
    namespace.create("web", json!({})).await;
    namespace.ready("web", 1).await;
    // The same for values: generated, pushed, the one before kept.
    let rotations = Rotations(&namespace);
    let push = json!([{"secretKey": "key", "remoteRef": {"key": "remote", "property": "p"}}]);
    let rotation = json!({"generate": [{"secretKey": "key", "hex": {}}], "previous": {}, "push": push});
    rotations.create("jwt", json!({"target": {"name": "jwt"}, "store": {"kubernetes": {}}, "rotation": rotation})).await;
    rotations.ready("jwt", 1).await;
    let values = async |revision: i64, before: &str, kept: Option<&str>| {
        rotations.ready("jwt", revision).await;
        let data = rotations.data("jwt").await;
        assert_ne!(data["key"], before);
        assert_eq!(data.get("key-previous").map(String::as_str), kept, "one rotation, and none is lost");
        assert_eq!(rotations.data("remote").await["p"], data["key"]);
        data["key"].clone()
    };
    let value = rotations.data("jwt").await["key"].clone();

    // kill -9: another one takes over and does what is due, once.
    let first = leader(&cluster, &[]).await;
    let killed = take(&mut replicas, &first);
    killed.signal("-9");
    namespace.annotate("web", "seaworthy.dev/rotate", "after the kill").await;
    rotations.ask("jwt", "rotate", "after the kill").await;
    let second = leader(&cluster, &[&first]).await;
    namespace.ready("web", 2).await;
    let value = values(2, &value, Some(&value)).await;
    // Another one would wait for the end of the one before.
    rotations.change("jwt", json!({"rotation": {"previous": null}})).await;
    rotations.until("jwt", "it is over", |object| !keeps_previous(object)).await;

    // It sleeps past its lease with work waiting for it; when it wakes, the work is done, and it ends without doing it again.
    let mut slept = take(&mut replicas, &second);
    slept.signal("-STOP");
    namespace.annotate("web", "seaworthy.dev/rotate", "while it sleeps").await;
    rotations.ask("jwt", "rotate", "while it sleeps").await;
    let third = leader(&cluster, &[&first, &second]).await;
    namespace.ready("web", 3).await;
    values(3, &value, None).await;
    slept.signal("-CONT");
    assert_eq!(slept.ended().await, Some(3), "a process that lost its lease ends");
    namespace.ready("web", 3).await;

    // Its connection is cut: it ends by itself, and one that starts takes over.
    let mut cut = take(&mut replicas, &third);
    cut.cut.store(true, Ordering::SeqCst);
    let _fresh = Replica::start(&cluster, "four").await;
    assert_eq!(cut.ended().await, Some(3), "a process that cannot renew its lease ends");
    leader(&cluster, &[&first, &second, &third]).await;
    namespace.annotate("web", "seaworthy.dev/rotate", "after the cut").await;
    namespace.ready("web", 4).await;
    drop(killed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_crds_it_says_so_and_goes_on_when_they_come() {
    let own = ControlPlane::bare();
    let path = own.kubeconfig.clone();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let binary = env!("CARGO_BIN_EXE_seaworthy");
    let log = std::env::temp_dir().join(format!("seaworthy-crds-{}.log", std::process::id()));
    let child = Command::new(binary)
        .args(["controller", "--listen", &format!("127.0.0.1:{port}")])
        .env("KUBECONFIG", &path)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let _replica = Replica { name: "alone".into(), child, cut: Arc::default(), file: log.clone() };
    let readyz = || async {
        Ok::<_, String>(crate::support::try_command("curl", &["-s", "--max-time", "5", &format!("http://127.0.0.1:{port}/readyz")], b"").1)
    };
    eventually("it is not ready and says why", || async {
        let said = readyz().await?;
        let logged = std::fs::read_to_string(&log).unwrap_or_default();
        if said.contains("waiting for: CertificateIssuers, CertificateRotations") && logged.contains("seaworthy crds | kubectl apply") {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;
    let crds = crate::support::command(binary, &["crds"], b"");
    crate::support::command("kubectl", &["--kubeconfig", &path, "apply", "--server-side", "-f", "-"], crds.as_bytes());
    eventually("it is ready", || async {
        let said = readyz().await?;
        if said == "ok\n" { Ok(()) } else { Err(said) }
    })
    .await;
    let metrics = crate::support::command("curl", &["-s", &format!("http://127.0.0.1:{port}/metrics")], b"");
    for metric in ["seaworthy_build_info{version=", "seaworthy_leader 1", "seaworthy_certificates{ready=\"true\"} 0"] {
        assert!(metrics.contains(metric), "{metric}: {metrics}");
    }
}
