//! Seaworthy: one Kubernetes operator that keeps what runs in a cluster fit to sail.
//!
//! # Where things are, in the order in which to read them
//!
//! | module | what it is |
//! | --- | --- |
//! | [`api`] | the custom resources: data only, one file per kind (the unions of issuers and stores come from the areas' registries) |
//! | [`certificates`] | area: certificates issued, renewed, replaced. Start with its `mod.rs`, then `decide.rs`, then `controller.rs` |
//! | [`secrets`] | area: values synced from stores, generated, rotated, pushed back |
//! | [`inventory`] | what runs here: one watch per built-in kind, kept as small facts |
//! | [`rollout`] | who consumes a value, whether they have the one that is there now, and who is restarted so that they do |
//! | [`cluster`] | talking to the API server: writes, references, events, the lease, the run loop |
//! | [`clients`] | clients of outside systems that several areas use, and where they may go |
//! | [`keys`] | private keys in the forms that the world wants them: PEM, OpenSSH, JWK |
//! | [`schedule`], [`clock`], [`ids`] | times that repeat, the time of day, short identifiers |
//! | [`server`], [`telemetry`] | probes and metrics; logs, metrics, the audit log |
//! | [`cli`] | one file per subcommand |
//! | [`area`] | what every area gets from the process, and gives to it |
//! | [`app`] | the composition root: the only file that knows every part |
//!
//! Words that recur: a *look* is one reconcile of one object; its *view* is what was seen and done, for status. A *problem* keeps something from being
//! done, *superseded* means that an object changed after it was read, so that all is decided again. What has to survive the loss of status is *memory*,
//! annotations of the Secret. A *stage* is how far a changed value has got on its way to who uses it.
//!
//! Each area does the same four steps in files of the same names: observe (`controller.rs`), decide (`decide.rs`, pure), act, report.
//! `docs/architecture.md` says why.

pub mod api;
pub mod app;
pub mod area;
pub mod certificates;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod cluster;
pub mod ids;
pub mod inventory;
pub mod keys;
pub mod rollout;
pub mod schedule;
pub mod secrets;
pub mod server;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;

/// Makes aws-lc-rs the process's only crypto provider. To be called before anything else; a second call changes nothing.
pub fn install_crypto_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default(); // Err: it is installed already
}
