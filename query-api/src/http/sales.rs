//! What is on sale, and how much of it is left?

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{AppendHeaders, IntoResponse};
use ports::read_store::{MAX_PAGE, SalePhase, SaleRow};
use schemas::currency::minor_units;
use schemas::ids::{Money, Position, ProductId, TimestampMs};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use web::extract::{Path, Query, query_number, query_position};
use web::problem::{Code, Problem};
use web::rfc3339::Moment;
use web::schema;

use super::cursor::Cursor;
use super::{DEFAULT_LIMIT, LookupProblems, QueryApi, QuestionProblems, REVALIDATE};

/// The sales, page by page, or the busiest of them.
///
/// Each has its state, its stock, and the counts of its attempts.
#[utoipa::path(
    get, path = "/api/flash-sales", tag = "shoppers", params(SalesQuery),
    responses(
        (status = OK, description = "A page of sales.", body = SalesPage),
        QuestionProblems,
    )
)]
pub(super) async fn list_sales(
    State(api): State<QueryApi>,
    Query(query): Query<SalesQuery>,
) -> Result<impl IntoResponse, Problem> {
    if let Some(at_least) = query.at_least {
        api.live.reach(at_least).await?;
    }
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT) as usize;
    let now = api.clock.now_ms();
    let (rows, next) = match (query.sort, &query.after) {
        (SalesOrder::Busiest, Some(_)) => {
            return Err(Problem::invalid(
                "after",
                "absent with sort=busiest, which has one page",
            ));
        }
        (SalesOrder::Busiest, None) => (api.live.busiest_sales(limit)?, None),
        (SalesOrder::ProductId, after) => {
            let rows = api
                .live
                .sales(after.as_ref().map(|cursor| &cursor.0), limit)?;
            let last = rows.last().filter(|_| rows.len() == limit);
            let next = last.map(|row| Cursor(row.product_id.clone()));
            (rows, next)
        }
    };
    let page = SalesPage {
        server_time: Moment(now),
        total: api.live.count_sales() as u64,
        sales: rows.into_iter().map(|row| Sale::new(row, now)).collect(),
        next,
    };
    Ok((REVALIDATE, Json(page)))
}

/// One sale.
///
/// It has its state, its stock, the counts of its attempts, and the server's time for countdowns.
#[utoipa::path(
    get, path = "/api/flash-sales/{product_id}", tag = "shoppers",
    params(schema::ProductInPath, SaleQuery),
    responses(
        (status = OK, description = "The sale as it is now.", body = SaleNow,
            headers(("ETag" = String, description = "The version of the sale, for `If-Match`."))),
        LookupProblems,
    )
)]
pub(super) async fn get_sale(
    State(api): State<QueryApi>,
    Path(path): Path<ProductPath>,
    Query(query): Query<SaleQuery>,
) -> Result<impl IntoResponse, Problem> {
    if let Some(at_least) = query.at_least {
        api.live.reach(at_least).await?;
    }
    let row = api.live.current_sale(&path.product_id).await?;
    let row = row.ok_or_else(|| unknown_product(&path.product_id))?;
    let now = api.clock.now_ms();
    let tag = row.sale_version.map(entity_tag);
    let sale = SaleNow {
        server_time: Moment(now),
        sale: Sale::new(row, now),
    };
    Ok((REVALIDATE, AppendHeaders(tag), Json(sale)))
}

/// The header `ETag` of a version of a sale.
fn entity_tag(version: u64) -> (HeaderName, String) {
    (header::ETAG, format!("\"{version}\""))
}

pub(super) fn unknown_product(product: &ProductId) -> Problem {
    Problem::new(
        Code::UnknownProduct,
        format!("No sale of the product {product} is known."),
    )
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SalesQuery {
    /// Only sales after this one: the last page's `next`, unchanged.
    #[param(value_type = Option<String>, pattern = "^([0-9a-f]{2})+$", min_length = 2,
        max_length = 128)]
    after: Option<Cursor<ProductId>>,
    /// The most sales to return; 100 when absent.
    #[param(minimum = 1, maximum = 500)]
    #[serde(
        default,
        deserialize_with = "query_number::<_, 1, { MAX_PAGE as u32 }>"
    )]
    limit: Option<u32>,
    /// Which come first.
    #[param(inline)]
    #[serde(default)]
    sort: SalesOrder,
    /// Answer no older than the decision on this position, `partition:offset`.
    #[param(value_type = Option<String>, pattern = "^[0-9]{1,10}:[0-9]{1,19}$", min_length = 3,
        max_length = 30, example = "3:1842")]
    #[serde(default, deserialize_with = "query_position")]
    at_least: Option<Position>,
}

/// Which sales come first.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SalesOrder {
    /// By product id, page by page.
    #[default]
    ProductId,
    /// Those under way before those that are over, then those with the most attempts; one
    /// page. The order was made less than two seconds ago, the sales are as they are now.
    Busiest,
}

#[derive(Deserialize)]
pub(super) struct ProductPath {
    pub(super) product_id: ProductId,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SaleQuery {
    /// Answer no older than the decision on this position, `partition:offset`.
    #[param(value_type = Option<String>, pattern = "^[0-9]{1,10}:[0-9]{1,19}$", min_length = 3,
        max_length = 30, example = "3:1842")]
    #[serde(default, deserialize_with = "query_position")]
    at_least: Option<Position>,
}

/// A page of sales.
#[derive(Serialize, ToSchema)]
struct SalesPage {
    /// The server's time, for countdowns.
    server_time: Moment,
    /// How many sales there are in all.
    total: u64,
    /// The sales.
    sales: Vec<Sale>,
    #[schema(required, schema_with = schema::next_cursor)]
    next: Option<Cursor<ProductId>>,
}

/// A sale, and the server's time.
#[derive(Serialize, ToSchema)]
struct SaleNow {
    /// The server's time, for countdowns.
    server_time: Moment,
    #[serde(flatten)]
    sale: Sale,
}

/// One product offered for one time window.
#[derive(Serialize, ToSchema)]
struct Sale {
    /// The product.
    #[schema(schema_with = schema::product_id)]
    product_id: ProductId,
    /// The name that shoppers see.
    name: String,
    /// Price of one unit.
    price: Price,
    /// Its state.
    state: SaleState,
    /// Its units.
    stock: Units,
    /// Most units one buyer may have; null for no limit.
    limit_per_buyer: Option<u32>,
    /// How long units are held for a buyer, in milliseconds; null when they are sold at once.
    hold_ms: Option<i64>,
    /// When the sale starts to accept attempts.
    opens_at: Moment,
    /// When it stops accepting them; null when only the seller closes it.
    closes_at: Option<Moment>,
    /// The round, from 1.
    round: u32,
    /// The results of the round's attempts.
    attempts: Counts,
    /// How many decisions the product has had.
    version: u64,
    /// The version of the sale itself, which is also its `ETag`: it changes when the terms, the stock
    /// or the state change, not with attempts and orders. A change of the sale with `If-Match` takes
    /// effect at this version only. Null for a sale that has not changed since an upgrade.
    sale_version: Option<u64>,
    /// When the last decision was made.
    as_of: Moment,
}

/// Money in minor units (cents, pence) of a currency.
#[derive(Serialize, ToSchema)]
pub(super) struct Price {
    /// Minor units.
    #[schema(example = 12345)]
    minor: i64,
    /// ISO 4217 code.
    #[schema(example = "HUF")]
    currency: String,
    /// Decimal places of the currency by ISO 4217: the amount is `minor / 10^minor_units`. A
    /// browser's own table differs for some currencies, such as HUF.
    #[schema(minimum = 0, maximum = 4, example = 2)]
    minor_units: u8,
}

impl Price {
    pub(super) fn new(price: &Money) -> Self {
        Self {
            minor: price.minor,
            currency: price.currency.as_ref().to_owned(),
            minor_units: minor_units(&price.currency),
        }
    }
}

/// The state of a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SaleState {
    /// It opens later.
    Scheduled,
    /// It accepts attempts.
    Open,
    /// It refuses attempts for the time being.
    Paused,
    /// It is over.
    Closed,
    /// It is open, but nothing is available now.
    SoldOut,
}

/// Units: `total = available + reserved + sold`.
#[derive(Serialize, ToSchema)]
struct Units {
    /// Units of the round.
    total: u32,
    /// Units that can be bought.
    available: u32,
    /// Units held for buyers.
    reserved: u32,
    /// Units sold.
    sold: u32,
}

/// How many attempts and orders of the round had each result.
#[derive(Serialize, ToSchema)]
struct Counts {
    /// Attempts that got units.
    accepted: u64,
    /// Attempts that were refused.
    refused: u64,
    /// Orders cancelled by their buyers.
    cancelled: u64,
    /// Orders whose hold expired.
    expired: u64,
}

impl Sale {
    fn new(row: SaleRow, now: TimestampMs) -> Self {
        Self {
            state: state(&row, now),
            product_id: row.product_id,
            name: row.terms.name.as_ref().to_owned(),
            price: Price::new(&row.terms.price),
            stock: Units {
                total: row.stock.total,
                available: row.stock.available,
                reserved: row.stock.reserved,
                sold: row.stock.sold,
            },
            limit_per_buyer: row.terms.limit_per_buyer,
            hold_ms: row.terms.hold_ms,
            opens_at: Moment(row.terms.opens_at_ms),
            closes_at: row.terms.closes_at_ms.map(Moment),
            round: row.round,
            attempts: Counts {
                accepted: row.tally.accepted,
                refused: row.tally.refused,
                cancelled: row.tally.cancelled,
                expired: row.tally.expired,
            },
            version: row.version,
            sale_version: row.sale_version,
            as_of: Moment(row.decided_at_ms),
        }
    }
}

/// The current state of a sale. Deadlines take effect when they are due, although the decision
/// may come a little later.
pub(super) fn state(row: &SaleRow, now: TimestampMs) -> SaleState {
    let closed = row.terms.closes_at_ms.is_some_and(|closes| closes <= now);
    match row.phase {
        _ if closed => SaleState::Closed,
        SalePhase::Closed => SaleState::Closed,
        SalePhase::Paused => SaleState::Paused,
        SalePhase::Scheduled if now < row.terms.opens_at_ms => SaleState::Scheduled,
        _ if row.stock.available == 0 => SaleState::SoldOut,
        SalePhase::Scheduled | SalePhase::Open => SaleState::Open,
    }
}
