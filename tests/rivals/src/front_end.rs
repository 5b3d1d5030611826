//! The front end: Doorbuster's own routes, extractors, bounds and sizes of answers over another way
//! to decide.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use schemas::ids::{AttemptId, MAX_QUANTITY, ProductId};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use web::extract::{Body, Buyer, IdempotencyKey, Path, Query, number, query_number};
use web::limits::{Guard, guard};
use web::problem::{Code, Problem};
use web::rfc3339::Moment;
use web::server;
use web::trace::Trace;

use crate::seller::{Attempt, Outcome, Sale, Seller, Terms};

/// Doorbuster's default bounds.
const MAX_ORDER_BYTES: usize = 4 * 1024;
const MAX_CONNECTIONS: usize = 8192;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(5);

/// How often deadlines are checked. Doorbuster decides on a deadline as soon as it is due.
const EXPIRE_EVERY: Duration = Duration::from_millis(100);

/// As many bytes as a signed receipt. The alternatives would not sign, so nothing is signed.
const RECEIPT_BYTES: usize = 380;

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, seller: Arc<dyn Seller>, stop: CancellationToken) {
    let expiring = tokio::spawn(keep_expiring(seller.clone()));
    let routes = watch::channel(router(seller)).1;
    server::serve(listener, routes, MAX_CONNECTIONS, &stop, GRACE).await;
    expiring.abort();
}

async fn keep_expiring(seller: Arc<dyn Seller>) {
    loop {
        tokio::time::sleep(EXPIRE_EVERY).await;
        if let Err(error) = seller.expire().await {
            eprintln!("holds could not be looked at: {error:#}");
        }
    }
}

fn router(seller: Arc<dyn Seller>) -> Router {
    Router::new()
        .route("/api/flash-sales/{product_id}/order", post(place_order))
        .route("/api/flash-sales/{product_id}", get(get_sale))
        .route("/api/attempts/{attempt_id}", get(get_attempt))
        .route("/api/admin/flash-sales/{product_id}", put(put_sale))
        .layer(DefaultBodyLimit::max(MAX_ORDER_BYTES))
        .layer(from_fn_with_state(Guard::new(REQUEST_TIMEOUT), guard))
        .with_state(seller)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderRequest {
    #[serde(deserialize_with = "number::<_, 1, MAX_QUANTITY>")]
    quantity: u32,
}

#[derive(Serialize)]
struct Receipt<'a> {
    attempt_id: String,
    product_id: &'a str,
    position: Place,
    receipt: String,
}

#[derive(Serialize)]
struct Place {
    partition: u32,
    offset: i64,
}

async fn place_order(
    State(seller): State<Arc<dyn Seller>>,
    Path(product): Path<ProductId>,
    Buyer(buyer): Buyer,
    IdempotencyKey(key): IdempotencyKey,
    _: Trace,
    Body(order): Body<OrderRequest>,
) -> Result<Response, Problem> {
    let attempt_id = match key {
        Some(key) => AttemptId::from_key(&product, &buyer, &key, 1),
        None => AttemptId::generate(),
    };
    let attempt = Attempt {
        attempt_id,
        product,
        buyer,
        quantity: order.quantity,
    };
    let offset = seller.place(&attempt).await.map_err(failed)?;
    let offset = offset.ok_or_else(|| unknown_product(&attempt.product))?;
    let receipt = Receipt {
        attempt_id: attempt_id.to_string(),
        product_id: attempt.product.as_str(),
        position: Place {
            partition: 0,
            offset,
        },
        receipt: "x".repeat(RECEIPT_BYTES),
    };
    let location = [(header::LOCATION, format!("/api/attempts/{attempt_id}"))];
    Ok((StatusCode::ACCEPTED, location, axum::Json(receipt)).into_response())
}

/// The wait is never used: every known attempt is decided.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AttemptQuery {
    #[serde(
        default,
        rename = "wait",
        deserialize_with = "query_number::<_, 0, 30>"
    )]
    _wait: Option<u32>,
}

#[derive(Serialize)]
struct Answer {
    attempt_id: String,
    status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    product_id: String,
    quantity: u32,
    position: Place,
    decided_at: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_until: Option<Moment>,
}

const NO_STORE: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

async fn get_attempt(
    State(seller): State<Arc<dyn Seller>>,
    Path(id): Path<String>,
    Query(AttemptQuery { .. }): Query<AttemptQuery>,
) -> Result<Response, Problem> {
    let id: AttemptId = id
        .parse()
        .map_err(|_| Problem::invalid("attempt_id", "a UUID"))?;
    let outcome = seller.outcome(id).await.map_err(failed)?;
    let outcome: Outcome = outcome.ok_or_else(|| {
        Problem::new(
            Code::UnknownAttempt,
            format!("No attempt of the id {id} is known."),
        )
    })?;
    let answer = Answer {
        attempt_id: id.to_string(),
        status: outcome.status,
        reason: outcome.reason,
        product_id: outcome.product,
        quantity: outcome.quantity,
        position: Place {
            partition: 0,
            offset: outcome.position,
        },
        decided_at: Moment(outcome.decided_at_ms),
        hold_until: (outcome.hold_until_ms != 0).then_some(Moment(outcome.hold_until_ms)),
    };
    Ok((NO_STORE, axum::Json(answer)).into_response())
}

async fn put_sale(
    State(seller): State<Arc<dyn Seller>>,
    Path(product): Path<ProductId>,
    Body(terms): Body<Terms>,
) -> Result<StatusCode, Problem> {
    seller.put_sale(&product, &terms).await.map_err(failed)?;
    Ok(StatusCode::ACCEPTED)
}

async fn get_sale(
    State(seller): State<Arc<dyn Seller>>,
    Path(product): Path<ProductId>,
) -> Result<axum::Json<Sale>, Problem> {
    let sale = seller.sale(&product).await.map_err(failed)?;
    sale.map(axum::Json)
        .ok_or_else(|| unknown_product(&product))
}

fn unknown_product(product: &ProductId) -> Problem {
    Problem::new(
        Code::UnknownProduct,
        format!("No sale of the product {product} is known."),
    )
}

fn failed(error: anyhow::Error) -> Problem {
    Problem::new(Code::Internal, format!("{error:#}"))
}
