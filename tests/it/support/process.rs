//! The operator as a process.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::Cluster;

/// Looks after all namespaces. Dropping it is kill -9.
pub struct Process {
    pub child: Child,
    files: [PathBuf; 3],
    port: u16,
}

impl Process {
    pub fn start(cluster: &Cluster) -> Self {
        Self::with(cluster, &[], &[])
    }

    /// With more arguments, and variables of its environment.
    pub fn with(cluster: &Cluster, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = |name: &str| std::env::temp_dir().join(format!("seaworthy-process-{}-{port}-{name}", std::process::id()));
        let files = ["kubeconfig", "out", "err"].map(file);
        let address = cluster.operator_config.cluster_url.authority().unwrap().to_string();
        std::fs::write(&files[0], cluster.operator_kubeconfig(&address)).unwrap();
        let output = |path: &PathBuf| Stdio::from(std::fs::File::create(path).unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_seaworthy"))
            .args(["controller", "--operator-namespace", "seaworthy", "--listen", &format!("127.0.0.1:{port}"), "--log", "trace"])
            .args(["--store-networks", "127.0.0.1/32", "--log-format", "text"])
            .args(arguments)
            .env("KUBECONFIG", &files[0])
            .envs(environment.iter().copied())
            .stdout(output(&files[1]))
            .stderr(output(&files[2]))
            .spawn()
            .unwrap();
        Self { child, files, port }
    }

    /// What it has written: the audit log, and the log.
    pub fn said(&self) -> (String, String) {
        (std::fs::read_to_string(&self.files[1]).unwrap(), std::fs::read_to_string(&self.files[2]).unwrap())
    }

    pub async fn metrics(&self) -> String {
        reqwest::get(format!("http://127.0.0.1:{}/metrics", self.port)).await.unwrap().text().await.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.files.iter().for_each(|file| drop(std::fs::remove_file(file)));
    }
}
