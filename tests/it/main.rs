//! Tests against real servers; one module for each promise. Run them with `make test` (the slow ones with `make test-all`), or one of them with
//! `tests/with-cluster.sh cargo test --test it NAME`.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test fails by panicking")]

mod support;

mod aws;
mod canary;
mod cel;
mod chart;
mod cli;
mod delivery;
mod delivery_faults;
mod egress;
mod election;
mod examples;
mod faults;
mod hostile;
mod identities;
mod interruptions;
mod inventory;
mod lifecycle;
mod oci;
mod own_credential;
mod previous;
mod previous_delivered;
mod previous_left;
mod previous_over;
mod push;
mod refresh;
mod refusals;
mod requests;
mod restarts;
mod rollbacks;
mod rotation;
mod secret_faults;
mod served;
mod shared_reads;
mod store_faults;
mod stores;
mod sync;
mod taken_back;
mod target;
mod tenancy;
mod vault;
mod vault_logins;
mod vault_policy;
