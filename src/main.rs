//! The `seaworthy` binary: arguments, crypto provider, hand over.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    seaworthy::install_crypto_provider();
    match seaworthy::cli::Arguments::try_parse() {
        Ok(arguments) => seaworthy::cli::run(arguments).await,
        Err(error) => {
            let _ = error.print(); // help and version come this way too; there is nobody else to tell
            ExitCode::from(if error.use_stderr() { 2 } else { 0 })
        }
    }
}
