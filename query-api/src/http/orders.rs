//! Which orders does the buyer have?

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use ports::read_store::MAX_PAGE;
use schemas::ids::Position;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use web::extract::{Buyer, Query, query_number, query_position};
use web::problem::Problem;
use web::schema;

use super::attempt::Attempt;
use super::cursor::Cursor;
use super::{DEFAULT_LIMIT, NO_STORE, QueryApi, QuestionProblems};

/// The orders of the calling buyer.
///
/// They are the attempts that got units, by position.
#[utoipa::path(
    get, path = "/api/buyers/me/orders", tag = "shoppers",
    params(ListQuery, schema::BuyerHeader),
    responses(
        (status = OK, description = "A page of orders.", body = OrdersPage),
        QuestionProblems,
    )
)]
pub(super) async fn list_orders(
    State(api): State<QueryApi>,
    Buyer(buyer): Buyer,
    Query(query): Query<ListQuery>,
) -> Result<impl IntoResponse, Problem> {
    if let Some(at_least) = query.at_least {
        api.live.reach_in_store(at_least).await?;
    }
    let limit = query.limit();
    let after = query.after.map(|cursor| cursor.0);
    let rows = api.live.orders(&buyer, after, limit).await?;
    let page = OrdersPage {
        next: rows
            .last()
            .filter(|_| rows.len() == limit)
            .map(|row| Cursor(row.position)),
        orders: {
            let now = api.clock.now_ms();
            rows.into_iter()
                .map(|row| Attempt::decided(row, None, now))
                .collect()
        },
    };
    Ok((NO_STORE, Json(page)))
}

/// Which part of a list is requested.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only rows after this one: the last page's `next`, unchanged.
    #[param(value_type = Option<String>, pattern = "^([0-9a-f]{2})+$", min_length = 2,
        max_length = 128)]
    pub(super) after: Option<Cursor<Position>>,
    /// The most rows to return; 100 when absent.
    #[param(minimum = 1, maximum = 500)]
    #[serde(
        default,
        deserialize_with = "query_number::<_, 1, { MAX_PAGE as u32 }>"
    )]
    limit: Option<u32>,
    /// Answer no older than the decision on this position, `partition:offset`.
    #[param(value_type = Option<String>, pattern = "^[0-9]{1,10}:[0-9]{1,19}$", min_length = 3,
        max_length = 30, example = "3:1842")]
    #[serde(default, deserialize_with = "query_position")]
    pub(super) at_least: Option<Position>,
}

impl ListQuery {
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_LIMIT) as usize
    }
}

/// A page of orders.
#[derive(Serialize, ToSchema)]
struct OrdersPage {
    /// The orders.
    orders: Vec<Attempt>,
    #[schema(required, schema_with = schema::next_cursor)]
    next: Option<Cursor<Position>>,
}
