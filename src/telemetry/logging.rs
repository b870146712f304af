//! Logs on standard error: JSON for machines, text for people.

use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, Layer, filter::filter_fn, layer::SubscriberExt, util::SubscriberInitExt};

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object for each line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Starts logging. `filter` is in the syntax of `RUST_LOG`: `info`, `seaworthy=debug,kube=warn`.
pub fn start(format: Format, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("--log {filter:?}: {error}"))?;
    let colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    let layer = match format {
        Format::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(std::io::stderr)
            .boxed(),
        Format::Text => tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(std::io::stderr).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(filter_fn(may_be_told)).with(layer).try_init()?;
    Ok(())
}

/// Whatever the filter asks for: what libraries say of whole requests and answers is not told, as these hold values.
fn may_be_told(of: &Metadata<'_>) -> bool {
    match of.target() {
        // It logs answers that it cannot read.
        target if target.starts_with("kube_client::client") => false,
        // The SDK logs requests.
        target if target.starts_with("aws_") => *of.level() <= Level::INFO,
        _ => true,
    }
}
