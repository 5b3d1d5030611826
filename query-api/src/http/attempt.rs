//! What became of my attempt?

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use ports::read_store::{
    AttemptRow, AttemptStatus, CommandOutcome, CommandRefusal, CommandRow, SaleRow,
};
use schemas::decision::{RefusalReason, ReleaseCause, SaleChangeRefusalReason};
use schemas::ids::{AttemptId, BuyerId, Position, ProductId, TimestampMs, TraceId};
use serde::{Deserialize, Serialize};
use utoipa::openapi::{ObjectBuilder, Schema};
use utoipa::{IntoParams, ToSchema};
use web::extract::{Path, Query, query_number, query_position};
use web::problem::{Code, Problem};
use web::rfc3339::Moment;
use web::schema;

use super::retry::{attempt_can_succeed, command_can_succeed};
use super::sales::Price;
use super::{LookupProblems, NO_STORE, PositionBody, QueryApi, as_text, as_text_or_null};
use crate::live::{AttemptState, CommandState, QueuedAttempt};

/// The longest that a request may wait for a decision, in seconds.
pub(super) const MAX_WAIT_SECONDS: u32 = 30;

/// An attempt: queued, or how it was decided.
///
/// With `wait` the answer comes as soon as it is decided.
#[utoipa::path(
    get, path = "/api/attempts/{attempt_id}", tag = "shoppers",
    params(schema::AttemptInPath, AttemptQuery),
    responses(
        (status = OK, description = "The attempt as it is now.", body = Attempt),
        LookupProblems,
    )
)]
pub(super) async fn get_attempt(
    State(api): State<QueryApi>,
    Path(path): Path<AttemptPath>,
    Query(query): Query<AttemptQuery>,
) -> Result<impl IntoResponse, Problem> {
    let id: AttemptId = path
        .attempt_id
        .parse()
        .map_err(|_| Problem::invalid("attempt_id", "a UUID"))?;
    let wait = Duration::from_secs(query.wait.unwrap_or(0).into());
    if let Some(at_least) = query.at_least {
        if let Some(queued) = api.live.queued_attempt(id, at_least, wait).await? {
            return Ok((NO_STORE, Json(Attempt::queued(queued))));
        }
        api.live.reach(at_least).await?;
    }
    let state = api.live.attempt(id, wait).await;
    // A later request for the attempt has an outcome of its own where it differs from the first. It may be
    // in memory when the store, which may have the attempt, does not answer.
    let later = query.at_least.filter(|at| match &state {
        Ok(Some(AttemptState::Decided(row))) => row.position != *at,
        _ => true,
    });
    if let Some(at) = later
        && let Some(CommandState::Decided(row)) = api.live.command(at, Duration::ZERO).await?
    {
        let sale = match &row.product_id {
            Some(product) => api.live.sale(product)?,
            None => None,
        };
        if let Some(refused) = Attempt::without_outcome(&row, id, sale.as_ref(), api.clock.now_ms())
        {
            return Ok((NO_STORE, Json(refused)));
        }
        if row.product_id.is_none() {
            return Err(Problem::new(
                Code::UnknownAttempt,
                format!("The record at {at} could not be decided on. Order again."),
            ));
        }
    }
    match state? {
        Some(AttemptState::Decided(row)) => {
            let sale = api.live.sale(&row.product_id)?;
            let attempt = Attempt::decided(row, sale.as_ref(), api.clock.now_ms());
            Ok((NO_STORE, Json(attempt)))
        }
        Some(AttemptState::Queued(queued)) => Ok((NO_STORE, Json(Attempt::queued(queued)))),
        None => Err(Problem::new(
            Code::UnknownAttempt,
            format!("No attempt with the id {id} is known."),
        )),
    }
}

#[derive(Deserialize)]
pub(super) struct AttemptPath {
    attempt_id: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AttemptQuery {
    /// Seconds to wait for the decision, if there is none yet.
    #[param(minimum = 0, maximum = 30)]
    #[serde(default, deserialize_with = "query_number::<_, 0, MAX_WAIT_SECONDS>")]
    wait: Option<u32>,
    /// Answer no older than the decision on this position, `partition:offset`. Where that is a
    /// request with the same key and another quantity, the answer is what became of that request:
    /// `refused` with `idempotency_conflict`. Where it is a request that was made for another round,
    /// the answer is `refused` with `another_round`; where the product had no sale, `refused` with
    /// `unknown_product`.
    #[param(value_type = Option<String>, pattern = "^[0-9]{1,10}:[0-9]{1,19}$", min_length = 3,
        max_length = 30, example = "3:1842")]
    #[serde(default, deserialize_with = "query_position")]
    at_least: Option<Position>,
}

/// One buyer's request for units of one sale.
#[derive(Serialize, ToSchema)]
pub(super) struct Attempt {
    /// The attempt, a UUID.
    #[schema(schema_with = schema::attempt_id)]
    #[serde(serialize_with = "as_text")]
    attempt_id: AttemptId,
    /// Its status.
    status: Status,
    /// Why it was refused, if it was.
    #[schema(schema_with = reason_schema)]
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Whether the same request as a new attempt may succeed; only when it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_can_help: Option<bool>,
    /// The requested product.
    #[schema(schema_with = schema::product_id)]
    product_id: ProductId,
    /// The buyer; shown to the sales staff only.
    #[schema(schema_with = schema::buyer_id)]
    #[serde(skip_serializing_if = "Option::is_none")]
    buyer_id: Option<BuyerId>,
    /// The requested units.
    #[schema(schema_with = schema::quantity)]
    quantity: u32,
    /// Its place in the queue.
    position: PositionBody,
    /// How many records of its partition are decided before it; only while it is queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    ahead: Option<u64>,
    /// When its status was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_at: Option<Moment>,
    /// Until when its units are held, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_until: Option<Moment>,
    /// The order's number, if it got units.
    #[serde(skip_serializing_if = "Option::is_none")]
    order_number: Option<String>,
    /// The price of one unit when the order was accepted, which later terms do not change. Absent
    /// while there is no order, and for an order of a version that did not record it.
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<Price>,
    /// The trace id by W3C Trace Context of the request that led to its status, if that had a
    /// valid `traceparent`.
    #[schema(value_type = Option<String>, pattern = "^[0-9a-f]{32}$",
        example = "0af7651916cd43dd8448eb211c80319c")]
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_text_or_null"
    )]
    trace_id: Option<TraceId>,
}

/// The status of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// It waits for its decision.
    Queued,
    /// Its units are held.
    Reserved,
    /// Its units are sold.
    Sold,
    /// It was refused.
    Refused,
    /// Its buyer cancelled the order.
    Cancelled,
    /// Its hold expired.
    Expired,
}

impl Attempt {
    /// A decided attempt, and the current sale.
    pub(super) fn decided(row: AttemptRow, sale: Option<&SaleRow>, now: TimestampMs) -> Self {
        let (status, reason) = match row.status {
            AttemptStatus::Reserved => (Status::Reserved, None),
            AttemptStatus::Sold => (Status::Sold, None),
            AttemptStatus::Refused(reason) => (Status::Refused, Some(reason)),
            AttemptStatus::Released(ReleaseCause::Cancelled) => (Status::Cancelled, None),
            AttemptStatus::Released(ReleaseCause::Expired) => (Status::Expired, None),
        };
        let Position { partition, offset } = row.position;
        Self {
            attempt_id: row.attempt_id,
            status,
            reason: reason.map(RefusalReason::as_str),
            retry_can_help: reason
                .map(|reason| attempt_can_succeed(reason, row.quantity, sale, now)),
            product_id: row.product_id,
            buyer_id: None,
            quantity: row.quantity,
            position: row.position.into(),
            ahead: None,
            decided_at: Some(Moment(row.decided_at_ms)),
            hold_until: row.hold_until_ms.map(Moment),
            price: row.price.as_ref().map(Price::new),
            order_number: reason.is_none().then(|| format!("{partition}-{offset}")),
            trace_id: row.trace_id,
        }
    }

    /// The same as [`Self::decided`], with the buyer.
    pub(super) fn for_staff(row: AttemptRow, sale: Option<&SaleRow>, now: TimestampMs) -> Self {
        let buyer_id = Some(row.buyer_id.clone());
        Self {
            buyer_id,
            ..Self::decided(row, sale, now)
        }
    }

    /// A request that has no outcome under its attempt's id: the attempt came before with another
    /// quantity, was made for another round, or found no sale. None if the row is of something else.
    fn without_outcome(
        row: &CommandRow,
        id: AttemptId,
        sale: Option<&SaleRow>,
        now: TimestampMs,
    ) -> Option<Self> {
        use CommandRefusal::{AnotherRound, IdempotencyConflict, SaleChange};
        use SaleChangeRefusalReason::UnknownProduct;
        let CommandOutcome::Refused(
            reason @ (AnotherRound | IdempotencyConflict | SaleChange(UnknownProduct)),
        ) = row.outcome
        else {
            return None;
        };
        if row.attempt_id != Some(id) {
            return None;
        }
        Some(Self {
            attempt_id: id,
            status: Status::Refused,
            reason: Some(reason.as_str()),
            retry_can_help: Some(command_can_succeed(reason, sale, now)),
            product_id: row.product_id.clone()?,
            buyer_id: None,
            quantity: row.quantity?,
            position: row.position.into(),
            ahead: None,
            decided_at: Some(Moment(row.decided_at_ms)),
            hold_until: None,
            order_number: None,
            price: None,
            trace_id: row.trace_id,
        })
    }

    fn queued(queued: QueuedAttempt) -> Self {
        Self {
            attempt_id: queued.attempt_id,
            status: Status::Queued,
            reason: None,
            retry_can_help: None,
            product_id: queued.product_id,
            buyer_id: None,
            quantity: queued.quantity,
            position: queued.position.into(),
            ahead: Some(queued.ahead),
            decided_at: None,
            hold_until: None,
            order_number: None,
            price: None,
            trace_id: None,
        }
    }
}

fn reason_schema() -> Schema {
    let names = RefusalReason::ALL.iter().map(|reason| reason.as_str());
    let names = names.chain([CommandRefusal::IdempotencyConflict.as_str()]);
    ObjectBuilder::new()
        .schema_type(utoipa::openapi::Type::String)
        .enum_values(Some(names))
        .description(Some("Why it was refused, if it was."))
        .into()
}
