//! The routes that operate the service: is it alive, is it ready, what does it measure.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::health::{ComponentReport, Health};
use crate::problem::{Code, Problem};
use crate::telemetry::Metrics;

/// What the routes report on.
#[derive(Clone)]
struct Operations {
    health: Health,
    metrics: Metrics,
    draining: CancellationToken,
}

/// The process's health.
#[derive(Serialize, ToSchema)]
struct HealthReport {
    /// Whether the answer is yes.
    ok: bool,
    /// Whether a part of the work cannot be done, though requests are welcome.
    degraded: bool,
    /// Whether the process is ending.
    draining: bool,
    /// Every part of the process that does work of its own.
    components: Vec<ComponentReport>,
}

/// `/healthz`, `/readyz`, `/metrics`, and `/problems/{code}`, to which problem documents point.
pub fn router(health: Health, metrics: Metrics, draining: CancellationToken) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(alive))
        .routes(routes!(ready))
        .routes(routes!(render_metrics))
        .route("/problems/{code}", get(problem))
        .with_state(Operations {
            health,
            metrics,
            draining,
        })
}

/// Is it alive? If not, it will not recover: restart the process.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    responses(
        (status = 200, description = "Every component can be expected to work.", body = HealthReport),
        (status = 503, description = "One has been silent for too long.", body = HealthReport),
    )
)]
async fn alive(State(operations): State<Operations>) -> Response {
    answer(operations.health.is_alive(), &operations)
}

/// Is it ready? If not, send no requests here.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses(
        (status = 200, description = "Every component works.", body = HealthReport),
        (status = 503, description = "One does not, or the process is ending.", body = HealthReport),
    )
)]
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
        degraded: components.iter().any(|component| component.degraded),
        draining: operations.draining.is_cancelled(),
        components,
    };
    (status, axum::Json(report)).into_response()
}

/// What does it measure?
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses((status = 200, description = "All metrics as Prometheus has them.",
        body = String, content_type = "text/plain"))
)]
async fn render_metrics(State(operations): State<Operations>) -> Response {
    let kind = (
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    );
    ([kind], operations.metrics.render()).into_response()
}

/// What a problem's `type` stands for.
async fn problem(Path(name): Path<String>) -> Response {
    let Some(code) = Code::ALL.into_iter().find(|code| code.name() == name) else {
        return Problem::not_found().into_response();
    };
    let body = json!({
        "code": code,
        "title": code.title(),
        "status": code.status().as_u16(),
        "retry": code.retry(),
    });
    axum::Json(body).into_response()
}
