//! What the process answers over HTTP: `/livez`, `/readyz`, `/metrics`.

pub mod readiness;

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::readiness::Readiness;
use crate::telemetry::metrics::Metrics;

/// What the answers are made of.
#[derive(Clone)]
pub struct Sources {
    /// What is waited for.
    pub readiness: Readiness,
    /// What is counted.
    pub metrics: Metrics,
    /// Brings gauges up to date before they are read.
    pub refresh: Arc<dyn Fn(&Metrics) + Send + Sync>,
}

/// Answers on `listener` until `stop`.
pub async fn serve(listener: TcpListener, sources: Sources, stop: CancellationToken) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(answer_metrics))
        .with_state(sources);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn readyz(State(sources): State<Sources>) -> impl IntoResponse {
    match sources.readiness.missing() {
        missing if missing.is_empty() => (StatusCode::OK, "ok\n".to_owned()),
        missing => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready; waiting for: {}\n", missing.join(", "))),
    }
}

async fn answer_metrics(State(sources): State<Sources>) -> impl IntoResponse {
    (sources.refresh)(&sources.metrics);
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], sources.metrics.encode())
}
