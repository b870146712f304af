//! What the measurements share: the operator as a process of its own.

use std::process::{Child, Command, Stdio};

/// How many requests at a time.
pub const PARALLEL: usize = 16;

/// A process of its own. Dropping it ends it.
pub struct Operator(Child);

impl Operator {
    pub fn start(listen: &str, more: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_seaworthy"))
            .args(["controller", "--listen", listen, "--leader-elect", "false", "--log", "error", "--operator-namespace", "default"])
            .args(more)
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

    /// Used so far by all its threads, in seconds.
    #[allow(dead_code, reason = "not every measurement tells it")]
    pub fn processor_time(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
