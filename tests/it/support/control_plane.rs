//! An API server of a test's own: to restart it, to break it, or to run a whole operator in it.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{Cluster, command};

/// A control plane without a node, with the chart installed. Dropping it takes it down.
pub struct ControlPlane {
    dir: PathBuf,
    pub kubeconfig: String,
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/control-plane.sh");
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/seaworthy");

impl ControlPlane {
    /// Starts one, without CRDs and rights.
    pub fn bare() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = std::env::temp_dir().join(format!("seaworthy-cp-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst)));
        let kubeconfig = command(SCRIPT, &["up", dir.to_str().unwrap()], b"").lines().last().unwrap().to_owned();
        Self { dir, kubeconfig }
    }

    /// Starts one with the chart installed, without replicas: CRDs and rights.
    pub async fn start() -> (Self, Cluster) {
        let own = Self::bare();
        command(
            "helm",
            &[
                "install",
                "seaworthy",
                CHART,
                "--kubeconfig",
                &own.kubeconfig,
                "-n",
                "seaworthy",
                "--create-namespace",
                "--set",
                "replicas=0",
                "--skip-schema-validation",
            ],
            b"",
        );
        command("kubectl", &["--kubeconfig", &own.kubeconfig, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"], b"");
        let cluster = Cluster::at(&own.kubeconfig).await;
        (own, cluster)
    }

    /// Ends one of etcd, apiserver, kcm with SIGKILL.
    pub fn stop(&self, daemon: &str) {
        command(SCRIPT, &["stop", self.dir.to_str().unwrap(), daemon], b"");
    }

    /// Starts it again; returns when the API server is ready.
    pub fn restart(&self, daemon: &str) {
        command(SCRIPT, &["start", self.dir.to_str().unwrap(), daemon], b"");
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let _ = std::process::Command::new(SCRIPT).args(["down", self.dir.to_str().unwrap_or_default()]).status();
    }
}
