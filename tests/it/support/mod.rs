//! What the tests stand on: the cluster, an operator in it, commands.

mod between;
mod cluster;
mod control_plane;
mod far;
mod faults;
pub mod log;
mod moto;
pub mod oci;
mod operator;
mod postgres;
mod process;
mod secrets;
pub mod tls;
mod vault;
mod workloads;

use std::{future::Future, time::Duration};

pub use between::Between;
pub use cluster::{Cluster, Namespace, condition};
pub use control_plane::ControlPlane;
pub use far::{Elsewhere, Far};
pub use faults::{Fault, Faults};
pub use moto::Moto;
pub use operator::Operator;
pub use postgres::Postgres;
pub use process::Process;
pub use secrets::{Rotations, keeps_previous, open, said, vault_says, waits_for_previous};
pub use vault::Vault;
pub use workloads::{Kubelet, Workload, World, deployment, next_second};

/// Long enough for a loaded machine; what takes longer has not happened.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Asks until the answer is Some; panics with `what` and the last thing said.
pub async fn eventually<T, F: Future<Output = Result<T, String>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(said) if tokio::time::Instant::now() > deadline => panic!("{what} did not come within {PATIENCE:?}; last: {said}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Runs a program with `input`; panics if it fails. Returns what it printed.
pub fn command(program: &str, arguments: &[&str], input: &[u8]) -> String {
    let (succeeded, text) = try_command(program, arguments, input);
    assert!(succeeded, "{program} {arguments:?}: {text}");
    text
}

/// Runs a program with `input`; whether it succeeded, and what it printed.
pub fn try_command(program: &str, arguments: &[&str], input: &[u8]) -> (bool, String) {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
