//! A real PostgreSQL.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{command, try_command};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/postgres.sh");

/// Without TLS until [`Postgres::serve`]. Dropping it ends it.
pub struct Postgres {
    dir: PathBuf,
    pub port: u16,
}

impl Postgres {
    pub fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = std::env::temp_dir().join(format!("seaworthy-pg-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst)));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        command(SCRIPT, &["up", dir.to_str().unwrap(), &port.to_string()], b"");
        Self { dir, port }
    }

    /// Gives out this certificate from now on.
    pub fn serve(&self, certificate: &str, key: &str) {
        let file = |name: &str, text: &str| {
            let path = std::env::temp_dir().join(format!("{}-{name}", self.dir.file_name().unwrap().to_str().unwrap()));
            std::fs::write(&path, text).unwrap();
            path
        };
        let (certificate, key) = (file("crt", certificate), file("key", key));
        command(SCRIPT, &["tls", self.dir.to_str().unwrap(), certificate.to_str().unwrap(), key.to_str().unwrap()], b"");
        std::fs::remove_file(certificate).unwrap();
        std::fs::remove_file(key).unwrap();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = try_command(SCRIPT, &["down", self.dir.to_str().unwrap_or_default()], b"");
    }
}
