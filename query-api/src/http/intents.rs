//! Which attempts on a product got no units?

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use schemas::ids::Position;
use serde::Serialize;
use utoipa::ToSchema;
use web::extract::{Path, Query};
use web::problem::Problem;
use web::schema;

use super::attempt::Attempt;
use super::cursor::Cursor;
use super::orders::ListQuery;
use super::sales::{ProductPath, unknown_product};
use super::{NO_STORE, QueryApi, StaffProblems};

/// The attempts on a product that were refused or whose hold expired.
///
/// They are listed by position, with their buyers. For the sales staff: needs the admin token.
#[utoipa::path(
    get, path = "/api/flash-sales/{product_id}/intents", tag = "staff",
    params(schema::ProductInPath, ListQuery),
    security(("admin_token" = [])),
    responses(
        (status = OK, description = "A page of intents.", body = IntentsPage),
        StaffProblems,
    )
)]
pub(super) async fn list_intents(
    State(api): State<QueryApi>,
    Path(path): Path<ProductPath>,
    Query(query): Query<ListQuery>,
) -> Result<impl IntoResponse, Problem> {
    if let Some(at_least) = query.at_least {
        api.live.reach_in_store(at_least).await?;
    }
    let limit = query.limit();
    let product = &path.product_id;
    let after = query.after.map(|cursor| cursor.0);
    let rows = api.live.intents(product, after, limit).await?;
    let mut sale = api.live.sale(product)?;
    if sale.is_none() && rows.is_empty() && after.is_none() {
        sale = api.live.current_sale(product).await?;
        if sale.is_none() {
            return Err(unknown_product(product));
        }
    }
    let now = api.clock.now_ms();
    let page = IntentsPage {
        next: rows
            .last()
            .filter(|_| rows.len() == limit)
            .map(|row| Cursor(row.position)),
        intents: rows
            .into_iter()
            .map(|row| Attempt::for_staff(row, sale.as_ref(), now))
            .collect(),
    };
    Ok((NO_STORE, Json(page)))
}

/// A page of intents.
#[derive(Serialize, ToSchema)]
struct IntentsPage {
    /// The intents.
    intents: Vec<Attempt>,
    #[schema(required, schema_with = schema::next_cursor)]
    next: Option<Cursor<Position>>,
}
