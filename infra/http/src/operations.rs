//! The routes of the listener for operations: health, readiness and metrics.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use runtime::health::{ComponentHealth, Health};
use runtime::telemetry::Metrics;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::limits::{Guard, guard};
use crate::problem::{Code, Problem};
use crate::server::Limits;

/// The bounds of the listener's connections: for a few probes and scrapers, and not for long.
pub const LIMITS: Limits = Limits {
    connections: 64,
    head_timeout: Duration::from_secs(10),
    write_timeout: Duration::from_secs(10),
    drain_timeout: Duration::from_secs(1),
    discard_timeout: Duration::from_secs(1),
    discard_bytes: 64 * 1024,
};
/// The longest time of a request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the routes report.
#[derive(Clone)]
struct Operations {
    health: Health,
    metrics: Metrics,
    draining: CancellationToken,
}

/// The health of the process.
#[derive(Serialize)]
struct HealthReport {
    /// Whether the process is alive (`/healthz`) or ready (`/readyz`).
    ok: bool,
    /// Whether a part of the work cannot be done for now; requests may still be sent.
    degraded: bool,
    /// Whether the process is ending.
    draining: bool,
    /// Every part of the process that does work of its own.
    components: Vec<ComponentReport>,
}

/// The health of one part of the process.
#[derive(Serialize)]
struct ComponentReport {
    /// The part's name.
    name: String,
    /// Whether it does its work.
    ready: bool,
    /// Whether it can still be expected to recover by itself.
    alive: bool,
    /// Whether it does only a part of its work, or none of it and others can do without it.
    degraded: bool,
    /// What it is doing, or why it fails.
    detail: String,
    /// How many records it is behind.
    lag_records: u64,
}

impl From<ComponentHealth> for ComponentReport {
    fn from(component: ComponentHealth) -> Self {
        Self {
            name: component.name,
            ready: component.ready,
            alive: component.alive,
            degraded: component.degraded,
            detail: component.detail,
            lag_records: component.lag_records,
        }
    }
}

/// `/healthz`, `/readyz` and `/metrics`.
pub fn router(health: Health, metrics: Metrics, draining: CancellationToken) -> Router {
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(render_metrics))
        .with_state(Operations {
            health,
            metrics,
            draining,
        })
        .fallback(async || {
            Problem::new(
                Code::NotFound,
                "There is nothing at this path; the listener for operations has /healthz, /readyz \
                 and /metrics.",
            )
        })
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(from_fn_with_state(Guard::new(TIMEOUT), guard))
}

/// Is the process alive? If not, it will not recover by itself: restart it.
async fn alive(State(operations): State<Operations>) -> Response {
    answer(operations.health.is_alive(), &operations)
}

/// Is the process ready? If not, send it no requests.
async fn ready(State(operations): State<Operations>) -> Response {
    let draining = operations.draining.is_cancelled();
    answer(operations.health.is_ready() && !draining, &operations)
}

fn answer(ok: bool, operations: &Operations) -> Response {
    let status = if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let components = operations.health.report();
    let report = HealthReport {
        ok,
        degraded: operations.health.is_ready()
            && components.iter().any(|component| component.degraded),
        draining: operations.draining.is_cancelled(),
        components: components.into_iter().map(Into::into).collect(),
    };
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    (status, no_store, axum::Json(report)).into_response()
}

/// All metrics of the process, in the text format of Prometheus.
async fn render_metrics(State(operations): State<Operations>) -> Response {
    let kind = (
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    );
    ([kind], operations.metrics.render(&operations.health)).into_response()
}
