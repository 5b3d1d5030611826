//! The page at `/`: what is on sale, going down as it sells.

use axum::Router;
use axum::http::{HeaderName, header};
use axum::response::IntoResponse;
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;

/// The page may load and talk to nothing but this service, and nobody may put it in a frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; object-src 'none'";

/// The files: path, type, text.
const FILES: [(&str, &str, &str); 4] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("../../web/shop/index.html"),
    ),
    (
        "/shop.css",
        "text/css; charset=utf-8",
        include_str!("../../web/shop/shop.css"),
    ),
    (
        "/shop.js",
        "text/javascript; charset=utf-8",
        include_str!("../../web/shop/shop.js"),
    ),
    (
        "/shop.svg",
        "image/svg+xml",
        include_str!("../../web/shop/shop.svg"),
    ),
];

pub(super) fn routes() -> OpenApiRouter {
    let router = FILES
        .into_iter()
        .fold(Router::new(), |router, (path, kind, text)| {
            router.route(path, get(async move || file(kind, text)))
        });
    router.into()
}

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, kind),
        // Small enough to be fetched anew, so that no old script meets a new service.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    (headers, text)
}
