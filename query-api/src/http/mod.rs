//! The read side's HTTP API, one file per question, and the page at `/`.

mod attempt;
mod commands;
mod intents;
mod orders;
mod sales;

mod page;

mod cursor;
mod retry;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderName, header};
use axum::middleware::from_fn_with_state;
use ports::Clock;
use runtime::settings::AdminToken;
use schemas::ids::Position;
use serde::{Serialize, Serializer};
use utoipa::openapi::{RefOr, Response};
use utoipa::{IntoResponses, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use web::auth::require_admin;
use web::problem::{Code, Problem, describe};

use crate::live::{Live, LiveError};

/// What queries are answered with.
#[derive(Clone)]
pub struct QueryApi {
    /// The live answers.
    pub live: Arc<Live>,
    /// The server's time, which countdowns use.
    pub clock: Arc<dyn Clock>,
}

/// The routes of the read side. The intents and the outcomes of changes are for the sales staff:
/// without an admin token nobody can read them.
pub fn router(api: QueryApi, admin: Option<AdminToken>) -> OpenApiRouter {
    let commands = commands::CommandsApi {
        api: api.clone(),
        admin: admin.clone(),
    };
    let commands = OpenApiRouter::new()
        .routes(routes!(commands::get_command))
        .with_state(commands);
    let staff = OpenApiRouter::new()
        .routes(routes!(intents::list_intents))
        .route_layer(from_fn_with_state(admin, require_admin));
    OpenApiRouter::new()
        .routes(routes!(sales::list_sales))
        .routes(routes!(sales::get_sale))
        .routes(routes!(attempt::get_attempt))
        .routes(routes!(orders::list_orders))
        .merge(staff)
        .with_state(api)
        .merge(commands)
        .merge(page::routes())
}

/// The problems of queries.
struct QuestionProblems;

impl IntoResponses for QuestionProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        describe(&[
            Code::RequestTimeout,
            Code::Starting,
            Code::Overloaded,
            Code::LogUnavailable,
            Code::ReadModelUnavailable,
            Code::TooManyWaiters,
            Code::NotCaughtUp,
        ])
    }
}

/// The problems of queries about one thing.
struct LookupProblems;

impl IntoResponses for LookupProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = QuestionProblems::responses();
        let missing = describe(&[Code::UnknownProduct, Code::UnknownAttempt]);
        responses.extend(missing.into_iter().filter(|(status, _)| status == "404"));
        responses
    }
}

/// The problems of the staff's queries.
struct StaffProblems;

impl IntoResponses for StaffProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = QuestionProblems::responses();
        let codes = [
            Code::Unauthorized,
            Code::AdminDisabled,
            Code::UnknownProduct,
        ];
        let missing = describe(&codes).into_iter();
        responses.extend(missing.filter(|(status, _)| matches!(&**status, "401" | "404")));
        responses
    }
}

/// The most rows of a page when the request sets no limit.
const DEFAULT_LIMIT: u32 = 100;

/// For public answers, which may change at any moment.
const REVALIDATE: [(HeaderName, &str); 1] =
    [(header::CACHE_CONTROL, "public, max-age=0, must-revalidate")];
/// For answers about one person.
const NO_STORE: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "private, no-store")];

impl From<LiveError> for Problem {
    fn from(error: LiveError) -> Self {
        match error {
            LiveError::NotCaughtUp => Problem::new(
                Code::NotCaughtUp,
                "The read side has not caught up with the log, so it cannot answer this. Retry later.",
            ),
            LiveError::TooManyWaiters => Problem::new(
                Code::TooManyWaiters,
                "Too many requests are waiting for a decision. Retry with a shorter wait.",
            ),
            LiveError::Store(_) => Problem::new(
                Code::ReadModelUnavailable,
                "The read models cannot be read at the moment. No order is lost. Retry later.",
            ),
            LiveError::Log(_) => Problem::new(
                Code::LogUnavailable,
                "The log cannot be read at the moment. Retry later.",
            ),
            LiveError::NoSuchPartition { partitions } => {
                let last = partitions.saturating_sub(1);
                Problem::invalid("at_least", format!("in one of the partitions 0 to {last}"))
            }
        }
    }
}

/// An exact place in the queue of a product.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Position)]
struct PositionBody {
    /// The partition that holds the product.
    #[schema(example = 3)]
    partition: u32,
    /// The record's offset in that partition of `purchase-attempts`.
    #[schema(minimum = 0, example = 1842)]
    offset: i64,
}

impl From<Position> for PositionBody {
    fn from(position: Position) -> Self {
        Self {
            partition: position.partition.0,
            offset: position.offset.0,
        }
    }
}

/// Serializes a value as its `Display` text.
fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Serializes an optional value as its `Display` text, or null.
fn as_text_or_null<S: Serializer>(
    value: &Option<impl fmt::Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}
