//! A buyer asks for units, or gives an order back.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics::counter;
use runtime::metrics::ATTEMPTS_ACCEPTED;
use schemas::command::{CancelOrder, CommandBody, PlaceAttempt};
use schemas::ids::{AttemptId, MAX_QUANTITY, ProductId};
use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Response as Described};
use utoipa::{IntoResponses, ToSchema};
use web::extract::{Body, Buyer, IdempotencyKey, NoBody, Path, number};
use web::problem::{Code, Problem, describe};
use web::trace::Trace;

use super::Door;
use super::admission::{Place, Taken};

/// What a buyer asks for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderRequest {
    /// Units asked for.
    #[schema(minimum = 1, maximum = 100_000, example = 1)]
    #[serde(deserialize_with = "number::<_, 1, MAX_QUANTITY>")]
    quantity: u32,
}

/// What was taken: an attempt's place in line, and the proof of it.
#[derive(Serialize, ToSchema)]
pub(super) struct Receipt<'a> {
    /// The attempt. Its fate is at `/api/attempts/{attempt_id}`.
    attempt_id: String,
    /// The product asked for.
    product_id: &'a str,
    /// The exact place in line.
    position: Place,
    /// All of this and the hash of the appended record, signed: a JSON Web Token.
    receipt: String,
}

/// What orders and cancellations are refused with.
struct OrderProblems;

impl IntoResponses for OrderProblems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        describe(&[
            Code::InvalidRequest,
            Code::UnknownField,
            Code::MissingHeader,
            Code::UnknownProduct,
            Code::RequestTimeout,
            Code::BodyTooLarge,
            Code::UnsupportedMediaType,
            Code::HeaderTooLarge,
            Code::Overloaded,
            Code::LogUnavailable,
        ])
    }
}

/// Asks for units of a sale.
///
/// The answer says that the attempt is durably in line, not how it ends. The same
/// `Idempotency-Key` from the same buyer for the same product is the same attempt, and its
/// first answer stands.
#[utoipa::path(
    post,
    path = "/api/flash-sales/{product_id}/order",
    tag = "shoppers",
    params(
        ("product_id" = String, Path, description = "The product."),
        ("X-Buyer-Id" = String, Header, description = "Who asks, 1 to 64 bytes."),
        ("Idempotency-Key" = Option<String>, Header,
            description = "The client's name for the attempt, 1 to 255 visible ASCII characters."),
        Trace,
    ),
    request_body = OrderRequest,
    responses(
        (status = 202, description = "The attempt is in line.", body = Receipt,
            headers(("Location" = String, description = "Where the attempt's fate is."))),
        OrderProblems,
    )
)]
pub(super) async fn place_order(
    State(door): State<Arc<Door>>,
    Path(product): Path<ProductId>,
    Buyer(buyer): Buyer,
    IdempotencyKey(key): IdempotencyKey,
    trace: Trace,
    Body(order): Body<OrderRequest>,
) -> Result<Response, Problem> {
    door.require_known(&product, &trace).await?;
    let attempt_id = match key {
        Some(key) => AttemptId::from_key(&product, &buyer, &key),
        None => AttemptId::generate(),
    };
    let place = PlaceAttempt {
        attempt_id,
        buyer_id: buyer,
        quantity: order.quantity,
    };
    let taken = door
        .append(&product, CommandBody::PlaceAttempt(place), trace)
        .await?;
    counter!(ATTEMPTS_ACCEPTED).increment(1);
    let location = format!("/api/attempts/{attempt_id}");
    Ok(answer(&door, attempt_id, &product, taken, location))
}

#[derive(Deserialize)]
pub(super) struct OrderPath {
    product_id: ProductId,
    attempt_id: String,
}

/// Gives an order back.
///
/// The answer says that the wish is in line. Units go back to the stock only if the order is
/// the buyer's own and still held or sold.
#[utoipa::path(
    post,
    path = "/api/flash-sales/{product_id}/order/{attempt_id}/cancel",
    tag = "shoppers",
    params(
        ("product_id" = String, Path, description = "The product."),
        ("attempt_id" = String, Path, description = "The attempt that became the order, a UUID."),
        ("X-Buyer-Id" = String, Header, description = "Who asks, 1 to 64 bytes."),
        Trace,
    ),
    responses(
        (status = 202, description = "The wish is in line.", body = Receipt,
            headers(("Location" = String, description = "Where the outcome is."))),
        OrderProblems,
    )
)]
pub(super) async fn cancel_order(
    State(door): State<Arc<Door>>,
    Path(path): Path<OrderPath>,
    Buyer(buyer): Buyer,
    trace: Trace,
    _: NoBody,
) -> Result<Response, Problem> {
    let product = path.product_id;
    let attempt_id: AttemptId = path
        .attempt_id
        .parse()
        .map_err(|_| Problem::invalid("attempt_id", "a UUID"))?;
    door.require_known(&product, &trace).await?;
    let cancel = CancelOrder {
        attempt_id,
        buyer_id: buyer,
    };
    let taken = door
        .append(&product, CommandBody::CancelOrder(cancel), trace)
        .await?;
    let location = format!("/api/attempts/{attempt_id}?at_least={}", taken.position);
    Ok(answer(&door, attempt_id, &product, taken, location))
}

fn answer(
    door: &Door,
    attempt_id: AttemptId,
    product: &ProductId,
    taken: Taken,
    location: String,
) -> Response {
    let now = door.clock.now_ms();
    let receipt = Receipt {
        attempt_id: attempt_id.to_string(),
        product_id: product.as_str(),
        position: taken.position.into(),
        receipt: door
            .receipts
            .sign(attempt_id, product, taken.position, &taken.value, now),
    };
    let location = HeaderValue::try_from(location).expect("ids and positions are visible ASCII");
    let headers = [(header::LOCATION, location)];
    (StatusCode::ACCEPTED, headers, axum::Json(receipt)).into_response()
}
