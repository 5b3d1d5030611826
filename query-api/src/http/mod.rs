//! The questions that can be asked over HTTP, one file each, and the page at `/`.

mod attempt;
mod intents;
mod orders;
mod sales;

mod page;

use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderName, header};
use axum::middleware::from_fn_with_state;
use ports::Clock;
use runtime::settings::AdminToken;
use schemas::ids::Position;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use web::auth::require_admin;
use web::problem::{Code, Problem};

use crate::live::{AT_LEAST_WAIT, Live, LiveError};

/// What the questions are answered with.
#[derive(Clone)]
pub struct QueryApi {
    /// The live answers.
    pub live: Arc<Live>,
    /// The server's time, which countdowns go by.
    pub clock: Arc<dyn Clock>,
}

/// The routes of the read side. Without a token the intents, which are the sales staff's, are
/// nobody's.
pub fn router(api: QueryApi, admin: Option<AdminToken>) -> OpenApiRouter {
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
        .merge(page::routes())
}

/// The most rows of a page when the request does not say.
const DEFAULT_LIMIT: u32 = 100;

/// For what changes at any moment but may be shown to anyone.
const REVALIDATE: [(HeaderName, &str); 1] =
    [(header::CACHE_CONTROL, "public, max-age=0, must-revalidate")];
/// For what is one person's.
const NO_STORE: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "private, no-store")];

impl From<LiveError> for Problem {
    fn from(error: LiveError) -> Self {
        match error {
            LiveError::NotCaughtUp => Problem::new(
                Code::NotCaughtUp,
                format!(
                    "The decision asked for was not read within {} s. It may come later.",
                    AT_LEAST_WAIT.as_secs()
                ),
            ),
            LiveError::TooManyWaiters => Problem::new(
                Code::TooManyWaiters,
                "Too many requests are waiting for an answer. Ask again, with a shorter wait.",
            ),
            LiveError::Store(_) => Problem::new(
                Code::ReadModelUnavailable,
                "The read models cannot be read at the moment. What was ordered is not lost.",
            ),
            LiveError::Log(_) => Problem::new(
                Code::LogUnavailable,
                "The log cannot be read at the moment.",
            ),
            LiveError::NoSuchPartition { partitions } => {
                let last = partitions.saturating_sub(1);
                Problem::invalid("at_least", format!("in one of the partitions 0 to {last}"))
            }
        }
    }
}

/// An exact place in line.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Position)]
struct Place {
    /// The partition that holds the product.
    partition: u32,
    /// The record's offset in the partition's log.
    offset: i64,
}

impl From<Position> for Place {
    fn from(position: Position) -> Self {
        Self {
            partition: position.partition.0,
            offset: position.offset.0,
        }
    }
}

/// Writes a value as the text it shows itself as.
fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The same for what may be absent.
fn as_text_or_null<S: Serializer>(
    value: &Option<impl fmt::Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}
