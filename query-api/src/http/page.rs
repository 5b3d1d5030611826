//! The page at `/`: the sales with their stock, live.

use axum::Router;
use axum::http::{HeaderName, header};
use axum::middleware::from_fn;
use axum::response::IntoResponse;
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use web::counts::name_route;

/// The page may load from and connect to this service only, and may not be framed.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; object-src 'none'";

/// The files: path, content type, text.
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
        .fold(Router::new(), |router, (path, content_type, text)| {
            router.route(path, get(async move || file(content_type, text)))
        });
    router.route_layer(from_fn(name_route)).into()
}

fn file(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, content_type),
        // The files are small enough to be revalidated each time, so that no old script meets a
        // new service.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    (headers, text)
}

#[cfg(test)]
mod tests {
    use super::FILES;

    /// A path that begins with a slash leaves the prefix that a proxy serves the page below.
    #[test]
    fn the_page_names_its_service_by_relative_paths_only() {
        for (file, _, text) in FILES {
            for absolute in ["=\"/", "(\"/", "\"/api", "'/", "`/", "url(/"] {
                assert!(!text.contains(absolute), "{file} has {absolute}");
            }
        }
    }
}
