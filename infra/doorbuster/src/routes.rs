//! All routes of the process, and their description at `/openapi.json`.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Response, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::get;
use command_api::http::CommandApi;
use query_api::http::QueryApi;
use runtime::settings::HttpSettings;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tracing::error;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use web::counts::name_route;
use web::extract::{BUYER_HEADER, KEY_HEADER};
use web::limits::{Guard, guard};
use web::problem::{Code, Problem, ProblemDocument};
use web::problem_page;

/// The longest time of a query: the waits that it may request, one after the other, and the
/// time limit of the read store.
const QUERY_TIMEOUT: Duration = Duration::from_secs(50);
/// How long a query may continue after the drain has started.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The part of `/openapi.json` that does not come from the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Doorbuster",
        description = "Sells scarce things fast. A command is answered with its position in the \
                       queue, never with its outcome; a query never changes anything. Every error \
                       is a problem document (RFC 9457) with a code from a closed list.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "The instance that has this description.")),
    components(schemas(ProblemDocument)),
    tags(
        (name = "shoppers", description = "Browse sales, order, follow an order."),
        (name = "staff", description = "See who got nothing. Needs the admin token."),
        (name = "administration", description = "Create and change sales. Needs the admin token."),
    )
)]
struct Description;

/// The routes of the command API, each with its limits.
pub fn commands(api: CommandApi, http: &HttpSettings) -> OpenApiRouter {
    let admin = http.admin_token.clone();
    command_api::http::router(Arc::new(api), admin, http.request_timeout)
}

/// The routes of the query API, each with its limits.
pub fn queries(api: QueryApi, http: &HttpSettings, draining: &CancellationToken) -> OpenApiRouter {
    query_api::http::router(api, http.admin_token.clone())
        .layer(from_fn_with_state(draining.clone(), end_when_draining))
        .layer(from_fn_with_state(Guard::new(QUERY_TIMEOUT), guard))
}

/// All routes of a process, with their description. Pages of `origins` may call them.
pub fn all(parts: Vec<OpenApiRouter>, origins: &[String]) -> Router {
    let description = OpenApiRouter::with_openapi(Description::openapi());
    let (routes, mut description) = parts
        .into_iter()
        .fold(description, OpenApiRouter::merge)
        .split_for_parts();
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    description
        .components
        .get_or_insert_default()
        .add_security_scheme("admin_token", token);
    let description =
        serde_json::to_vec(&description).expect("a description made of texts and numbers is JSON");
    let description = Bytes::from(description);
    let describe = async move || ([(header::CONTENT_TYPE, "application/json")], description);
    let routes = routes
        .merge(problem_page::router())
        .route("/openapi.json", get(describe).layer(from_fn(name_route)))
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(CatchPanicLayer::custom(panicked));
    open_to(origins, routes)
}

/// How long a browser may remember what other origins may do, so that not every order is asked for
/// twice.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// Lets pages of these origins call the routes: adds the headers of CORS to all answers, problems
/// included. The APIs know no cookies, so no credentials are allowed.
fn open_to(origins: &[String], routes: Router) -> Router {
    if origins.is_empty() {
        return routes;
    }
    let origins = origins.iter().map(|origin| {
        HeaderValue::try_from(origin).expect("the settings have checked that it is ASCII")
    });
    let sent = [
        header::CONTENT_TYPE,
        header::AUTHORIZATION,
        header::IF_MATCH,
        HeaderName::from_static(BUYER_HEADER),
        HeaderName::from_static(KEY_HEADER),
        HeaderName::from_static("traceparent"),
        HeaderName::from_static("tracestate"),
    ];
    let read = [header::LOCATION, header::RETRY_AFTER, header::ETAG];
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PUT])
        .allow_headers(sent)
        .expose_headers(read)
        .max_age(PREFLIGHT_AGE);
    routes.layer(cors)
}

/// The routes of a process whose services have not started. Every response closes its connection,
/// so that a client's next request finds the routes of that moment.
pub fn while_starting(origins: &[String]) -> Router {
    let close =
        SetResponseHeaderLayer::overriding(header::CONNECTION, HeaderValue::from_static("close"));
    let routes = problem_page::router()
        .fallback(async || {
            Problem::new(
                Code::Starting,
                "The service is starting; your request had no effect. Retry in a second.",
            )
        })
        .layer(close);
    open_to(origins, routes)
}

/// Keeps long polls from delaying the end of the process.
async fn end_when_draining(
    State(draining): State<CancellationToken>,
    request: Request,
    next: Next,
) -> axum::response::Response {
    let timeout = async {
        draining.cancelled().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        response = next.run(request) => response,
        () = timeout => Problem::new(
            Code::ReadModelUnavailable,
            "The service is shutting down. Your order is not lost; retry in a moment.",
        )
        .into_response(),
    }
}

/// A handler's panic ends its request, not the process.
fn panicked(panic: Box<dyn Any + Send>) -> Response<axum::body::Body> {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    error!(
        panic = text.unwrap_or("without a message"),
        "the handler of a request panicked"
    );
    Problem::new(
        Code::Internal,
        "The service failed unexpectedly. The failure has been logged.",
    )
    .into_response()
}
