//! The routes for operations: health, readiness, metrics, and what problem documents point to.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use runtime::health::{ComponentHealth, Health};
use runtime::telemetry::Metrics;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::{RefOr, Response as Described};
use utoipa::{IntoResponses, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::counts::name_route;
use crate::problem::{Code, Problem, describe};

/// What the routes report.
#[derive(Clone)]
struct Operations {
    health: Health,
    metrics: Metrics,
    draining: CancellationToken,
}

/// The health of the process.
#[derive(Serialize, ToSchema)]
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
#[derive(Serialize, ToSchema)]
struct ComponentReport {
    /// The part's name.
    name: String,
    /// Whether it does its work.
    ready: bool,
    /// Whether it can still be expected to recover by itself.
    alive: bool,
    /// Whether it does only a part of its work.
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

/// The problems of these routes. When the service has reached its bound of connections they are
/// answered with 503 as every route is, which to a probe means what it means anyway.
struct OperationProblems;

impl IntoResponses for OperationProblems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        describe(&[])
    }
}

/// `/healthz`, `/readyz`, `/metrics`, and `/problems/{code}`, to which problem documents point.
pub fn router(health: Health, metrics: Metrics, draining: CancellationToken) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(alive))
        .routes(routes!(ready))
        .routes(routes!(render_metrics))
        .route("/problems/{code}", get(problem))
        .route_layer(from_fn(name_route))
        .with_state(Operations {
            health,
            metrics,
            draining,
        })
}

/// Is the process alive?
///
/// If not, it will not recover by itself: restart it.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    responses(
        (status = 200, description = "Every component is expected to recover by itself.", body = HealthReport),
        (status = 503, description = "A component has been silent for too long.", body = HealthReport),
        OperationProblems,
    )
)]
async fn alive(State(operations): State<Operations>) -> Response {
    answer(operations.health.is_alive(), &operations)
}

/// Is the process ready?
///
/// If not, send it no requests.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses(
        (status = 200, description = "Every component works.", body = HealthReport),
        (status = 503, description = "A component does not work, or the process is ending.", body = HealthReport),
        OperationProblems,
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
        components: components.into_iter().map(Into::into).collect(),
    };
    (status, axum::Json(report)).into_response()
}

/// All metrics of the process.
///
/// They count from the start of the process.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses(
        (status = 200, description = "All metrics in the text format of Prometheus.",
            body = String, content_type = "text/plain"),
        OperationProblems,
    )
)]
async fn render_metrics(State(operations): State<Operations>) -> Response {
    let kind = (
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    );
    ([kind], operations.metrics.render(&operations.health)).into_response()
}

/// The kind of problem that the `type` of a problem document names.
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
