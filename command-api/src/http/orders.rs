//! A buyer places an attempt, or cancels an order.

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
use web::schema::{self, AttemptInPath, BuyerHeader, KeyHeader, ProductInPath};
use web::trace::Trace;

use super::CommandApi;
use super::admission::{AppendedRecord, RecordPosition, command_location};

/// An attempt to buy units of a sale.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderRequest {
    /// Units requested.
    #[schema(minimum = 1, maximum = 100_000, example = 1)]
    #[serde(deserialize_with = "number::<_, 1, MAX_QUANTITY>")]
    quantity: u32,
}

/// An attempt's place in the queue, and the proof of it.
#[derive(Serialize, ToSchema)]
pub(super) struct Receipt<'a> {
    /// The attempt. Its outcome is at `/api/attempts/{attempt_id}`.
    #[schema(schema_with = schema::attempt_id)]
    attempt_id: String,
    /// The product.
    #[schema(schema_with = schema::product_id)]
    product_id: &'a str,
    /// The exact place in the queue.
    position: RecordPosition,
    /// All of this and the hash of the appended record, signed: a JSON Web Token.
    receipt: String,
}

/// The problems of orders and cancellations.
struct OrderProblems;

/// The problem of an attempt that was made for another quantity before.
struct Conflict;

impl IntoResponses for Conflict {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        describe(&[Code::IdempotencyConflict])
    }
}

fn conflict(first: u32) -> Problem {
    Problem::new(
        Code::IdempotencyConflict,
        format!(
            "An order with this Idempotency-Key was made before, for quantity {first}; it stands. Send \
             the same quantity to get its receipt again, or another key to order once more."
        ),
    )
    .at("quantity", "that of the first request with this Idempotency-Key")
}

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
            Code::Starting,
            Code::Overloaded,
            Code::LogUnavailable,
        ])
    }
}

/// Places an attempt to buy units of a sale.
///
/// The answer confirms that the attempt is durably queued, not its outcome. The same
/// `Idempotency-Key` from the same buyer for the same product in the same round of its sale is the
/// same attempt, and its first answer stands. With another quantity it is a conflict: at once where
/// this service knows the first request, else as the outcome at `Location`. An attempt that was made
/// for a round which has ended meanwhile is refused with `another_round`; the same request again is
/// made for the current one.
#[utoipa::path(
    post,
    path = "/api/flash-sales/{product_id}/order",
    tag = "shoppers",
    params(
        ProductInPath,
        BuyerHeader,
        KeyHeader,
        Trace,
    ),
    request_body = OrderRequest,
    responses(
        (status = 202, description = "The attempt is queued.", body = Receipt,
            headers(("Location" = String, description = "Where the attempt's outcome is."))),
        OrderProblems,
        Conflict,
    )
)]
pub(super) async fn place_order(
    State(api): State<Arc<CommandApi>>,
    Path(product): Path<ProductId>,
    Buyer(buyer): Buyer,
    IdempotencyKey(key): IdempotencyKey,
    trace: Trace,
    Body(order): Body<OrderRequest>,
) -> Result<Response, Problem> {
    api.require_known(&product, &trace).await?;
    let (attempt_id, round) = match &key {
        Some(key) => {
            let round = api.round(&product).await;
            let id = AttemptId::from_key(&product, &buyer, key, round);
            (id, Some(round))
        }
        None => (AttemptId::generate(), None),
    };
    let first = api.recent.quantity(&attempt_id);
    if let Some(first) = first.filter(|first| *first != order.quantity) {
        return Err(conflict(first));
    }
    let place = PlaceAttempt {
        attempt_id,
        buyer_id: buyer,
        quantity: order.quantity,
        round,
    };
    let appended = api
        .append(&product, CommandBody::PlaceAttempt(place), None, trace)
        .await?;
    if key.is_some() {
        api.recent.remember(attempt_id, order.quantity);
    }
    counter!(ATTEMPTS_ACCEPTED).increment(1);
    let location = format!("/api/attempts/{attempt_id}?at_least={}", appended.position);
    let location = HeaderValue::try_from(location).expect("ids and positions are visible ASCII");
    Ok(answer(&api, attempt_id, &product, appended, location))
}

#[derive(Deserialize)]
pub(super) struct OrderPath {
    product_id: ProductId,
    attempt_id: String,
}

/// Cancels an order.
///
/// The answer confirms that the cancellation is durably queued. Units go back to the stock only if
/// the order is the buyer's own and its units are still held or sold.
#[utoipa::path(
    post,
    path = "/api/flash-sales/{product_id}/order/{attempt_id}/cancel",
    tag = "shoppers",
    params(
        ProductInPath,
        AttemptInPath,
        BuyerHeader,
        Trace,
    ),
    responses(
        (status = 202, description = "The cancellation is queued.", body = Receipt,
            headers(("Location" = String, description = "Where the outcome is. Read it as the same buyer."))),
        OrderProblems,
    )
)]
pub(super) async fn cancel_order(
    State(api): State<Arc<CommandApi>>,
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
    api.require_known(&product, &trace).await?;
    let cancel = CancelOrder {
        attempt_id,
        buyer_id: buyer,
    };
    let appended = api
        .append(&product, CommandBody::CancelOrder(cancel), None, trace)
        .await?;
    let location = command_location(appended.position);
    Ok(answer(&api, attempt_id, &product, appended, location))
}

fn answer(
    api: &CommandApi,
    attempt_id: AttemptId,
    product: &ProductId,
    appended: AppendedRecord,
    location: HeaderValue,
) -> Response {
    let now = api.clock.now_ms();
    let position = appended.position;
    let log = api.log_state.identity(position.partition);
    let receipt = Receipt {
        attempt_id: attempt_id.to_string(),
        product_id: product.as_str(),
        position: position.into(),
        receipt: api
            .receipts
            .sign(attempt_id, product, position, &appended.value, log, now),
    };
    let headers = [(header::LOCATION, location)];
    (StatusCode::ACCEPTED, headers, axum::Json(receipt)).into_response()
}
