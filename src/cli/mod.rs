//! The command line: one file per subcommand, each thin: parse, call the library, print.
//!
//! Exit codes, everywhere: 0 fine, 1 something is wrong with what was looked at, 2 usage or bad input, 3 something that was needed could not be
//! reached or run.

mod completion;
mod consumers;
mod controller;
mod crds;
mod manifests;
mod rotate;
mod status;
mod store;
mod vault_policy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Keeps what runs in a Kubernetes cluster fit to sail.
///
/// Run as `seaworthy …`, or as `kubectl seaworthy …` where the binary is also on PATH as `kubectl-seaworthy`.
///
/// Exit codes: 0 fine; 1 something is wrong with what was looked at; 2 usage or bad input; 3 something that was needed could not be reached.
#[derive(Debug, Parser)]
#[command(name = "seaworthy", version, about, long_about, max_term_width = 120)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Controller(controller::Arguments),
    Crds(crds::Arguments),
    Status(status::Arguments),
    Rotate(rotate::Arguments),
    Consumers(consumers::Arguments),
    Store(store::Arguments),
    VaultPolicy(vault_policy::Arguments),
    Completion(completion::Arguments),
}

/// Why a command ends with something else than 0.
#[derive(Debug)]
enum Failure {
    /// What was looked at is wrong; it has been said.
    Wrong,
    /// Usage or bad input.
    Usage(String),
    /// Something could not be reached or run.
    Unreachable(String),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Unreachable(format!("{error:#}"))
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self::Unreachable(match error {
            kube::Error::Api(status) => format!("the API server answered: {}", status.message),
            error => format!("the API server could not be asked: {error}"),
        })
    }
}

/// The form of what is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
    Yaml,
}

impl Output {
    /// Prints `value` for machines; false: a table is wanted, which the caller makes.
    fn print(self, value: &impl serde::Serialize) -> Result<bool, Failure> {
        let unprintable = |error: &dyn std::fmt::Display| Failure::Unreachable(error.to_string());
        match self {
            Self::Table => return Ok(false),
            Self::Json => print(&serde_json::to_string_pretty(value).map_err(|error| unprintable(&error))?),
            Self::Yaml => print(serde_saphyr::to_string(value).map_err(|error| unprintable(&error))?.trim_end()),
        }
        Ok(true)
    }
}

/// Runs the command; its exit code.
pub async fn run(arguments: Arguments) -> ExitCode {
    let result = match arguments.command {
        Command::Controller(arguments) => controller::run(arguments).await,
        Command::Crds(arguments) => crds::run(&arguments),
        Command::Status(arguments) => status::run(arguments).await,
        Command::Rotate(arguments) => rotate::run(arguments).await,
        Command::Consumers(arguments) => consumers::run(arguments).await,
        Command::Store(arguments) => store::run(arguments).await,
        Command::VaultPolicy(arguments) => vault_policy::run(arguments).await,
        Command::Completion(arguments) => {
            completion::run(&arguments);
            Ok(())
        }
    };
    let (code, message) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Wrong) => return ExitCode::from(1),
        Err(Failure::Usage(message)) => (2, message),
        Err(Failure::Unreachable(message)) => (3, message),
    };
    say(&format!("seaworthy: {message}"));
    ExitCode::from(code)
}

/// To standard error, for people.
fn say(message: &str) {
    anstream::eprintln!("{message}");
}

/// To standard output: the result.
fn print(text: &str) {
    anstream::println!("{text}");
}

/// The cluster that KUBECONFIG, `~/.kube/config` or the Pod's ServiceAccount names.
async fn client() -> Result<(kube::Client, String), Failure> {
    let config = kube::Config::infer()
        .await
        .map_err(|error| Failure::Unreachable(format!("no cluster is configured: {error}. Set KUBECONFIG, or run it in a Pod")))?;
    let namespace = config.default_namespace.clone();
    Ok((kube::Client::try_from(config)?, namespace))
}
