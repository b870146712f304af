//! `seaworthy completion SHELL`: prints a completion script.

use clap::CommandFactory;

/// Print a script that teaches your shell to complete seaworthy's commands and flags.
///
/// Example for bash: source <(seaworthy completion bash)
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell.
    shell: clap_complete::Shell,
}

pub(super) fn run(arguments: &Arguments) {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "seaworthy", &mut script);
    super::print(String::from_utf8_lossy(&script).trim_end());
}
