//! What the `type` of a problem document points to.

use axum::Router;
use axum::extract::Path;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use crate::counts::name_route;
use crate::problem::{Code, Problem};

/// `/problems/{code}`.
pub fn router() -> Router {
    Router::new()
        .route("/problems/{code}", get(problem))
        .route_layer(from_fn(name_route))
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
