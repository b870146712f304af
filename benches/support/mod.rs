//! What the measurements share: the operator as a process of its own, and a cluster that is filled.

use std::process::{Child, Command, Stdio};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{Api, Client, api::PostParams};
use serde_json::json;

/// How many requests at a time.
pub const PARALLEL: usize = 16;

/// A process of its own. Dropping it ends it.
pub struct Operator(Child);

impl Operator {
    pub fn start(listen: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_seaworthy"))
            .args(["controller", "--listen", listen, "--leader-elect", "false", "--log", "error", "--operator-namespace", "default"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// A line of /proc/PID/status, in MB.
    pub fn memory(&self, line: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let value = status.lines().find_map(|row| row.strip_prefix(line)).unwrap();
        value.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Creates one.
pub async fn namespace(client: &Client, name: &str) {
    let object: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
}

/// Creates Secrets in a namespace of their own.
pub async fn fill(client: &Client, name: &str, count: usize, bytes: usize) {
    namespace(client, name).await;
    let api: Api<Secret> = Api::namespaced(client.clone(), name);
    stream::iter(0..count)
        .for_each_concurrent(PARALLEL, async |number| {
            let value = k8s_openapi::ByteString(vec![b'x'; bytes]);
            let secret: Secret = serde_json::from_value(json!({"metadata": {"name": format!("s{number}")}, "data": {"a": value}})).unwrap();
            api.create(&PostParams::default(), &secret).await.unwrap();
        })
        .await;
}
