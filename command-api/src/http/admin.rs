//! The seller creates and changes sales. Every call may be repeated: it states the new value, not a
//! difference. A new round begins by a call of its own, which a repetition finds done.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::sale::check_terms;
use schemas::command::{CommandBody, SaleTerms, SetStock};
use schemas::ids::{MAX_STOCK, Money, ProductId, TimestampMs};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::{RefOr, Response as Described};
use utoipa::{IntoResponses, ToSchema};
use web::extract::{Body, IfMatch, NoBody, Path};
use web::problem::{Code, Problem, describe};
use web::rfc3339::Moment;
use web::schema::{self, IfMatchHeader, ProductInPath};
use web::trace::Trace;

use super::CommandApi;
use super::admission::{RecordPosition, command_location};

/// The terms of a sale, whole.
///
/// The last four fields may be left out, and then have their defaults, where a sale or a round
/// begins. In a change of a sale they are stated, with `null` for none, because a default would give
/// something away that the sale does not: a window that opens at once, no closing time, no limit, no
/// hold.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SaleRequest {
    /// The name that shoppers see, 1 to 200 bytes: not only blanks, and without control
    /// characters.
    #[schema(min_length = 1, max_length = 200, example = "Sneaker, limited edition")]
    name: String,
    /// Price of one unit.
    price: Price,
    /// Units of the round.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    stock: u32,
    /// Most units one buyer may hold and have bought in the round; none: no limit.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000_000)]
    #[serde(default, deserialize_with = "stated")]
    limit_per_buyer: Option<Option<u32>>,
    /// How long units are held for a buyer, in ms; none: an accepted attempt is sold at once.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 604_800_000)]
    #[serde(default, deserialize_with = "stated")]
    hold_ms: Option<Option<i64>>,
    /// First moment at which attempts are accepted; none: now.
    #[schema(value_type = Option<Moment>)]
    #[serde(default, deserialize_with = "stated")]
    opens_at: Option<Option<Moment>>,
    /// First moment at which attempts are no longer accepted; none: until closed by hand.
    #[schema(value_type = Option<Moment>)]
    #[serde(default, deserialize_with = "stated")]
    closes_at: Option<Option<Moment>>,
}

/// A field that is there, be it null.
fn stated<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

impl SaleRequest {
    /// A field that is left out, and whose default may differ from what a sale has.
    fn left_out(&self) -> Option<&'static str> {
        let fields = [
            ("limit_per_buyer", self.limit_per_buyer.is_none()),
            ("hold_ms", self.hold_ms.is_none()),
            ("opens_at", self.opens_at.is_none()),
            ("closes_at", self.closes_at.is_none()),
        ];
        let left_out = fields.into_iter().find(|(_, is_left_out)| *is_left_out);
        left_out.map(|(name, _)| name)
    }
}

/// An amount of money.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Price {
    /// Minor units, such as cents; how many make one unit of the currency is in ISO 4217.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_i64, example = 1999)]
    minor: i64,
    /// ISO 4217 code.
    #[schema(
        pattern = "^[A-Z]{3}$",
        min_length = 3,
        max_length = 3,
        example = "EUR"
    )]
    currency: String,
}

/// The round's new total.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StockRequest {
    /// Units of the round, those held and sold included.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    stock: u32,
}

/// The change is queued; its outcome is at `Location`.
#[derive(Serialize, ToSchema)]
#[schema(as = ChangeTaken)]
pub(super) struct ChangeReceipt<'a> {
    /// The product.
    #[schema(schema_with = schema::product_id)]
    product_id: &'a str,
    /// The exact place in the queue.
    position: RecordPosition,
}

/// The problems of changes to a sale.
pub(super) struct ChangeProblems;

impl IntoResponses for ChangeProblems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        describe(&[
            Code::InvalidRequest,
            Code::UnknownField,
            Code::Unauthorized,
            Code::AdminDisabled,
            Code::UnknownProduct,
            Code::RequestTimeout,
            Code::BodyTooLarge,
            Code::UnsupportedMediaType,
            Code::InvalidTerms,
            Code::HeaderTooLarge,
            Code::Starting,
            Code::Overloaded,
            Code::LogUnavailable,
        ])
    }
}

/// Creates a sale, or changes its terms until the round is over.
///
/// The answer confirms that the change is durably queued. The body is the whole sale. If `limit_per_buyer`, `hold_ms`, `opens_at` or `closes_at` is left out,
/// the request only creates a sale: if there is one, it is refused with `version_differs`. After the
/// round is over the request is refused with `closed`: `POST …/rounds` begins the next round.
#[utoipa::path(
    put,
    path = "/api/admin/flash-sales/{product_id}",
    tag = "administration",
    security(("admin_token" = [])),
    params(ProductInPath, IfMatchHeader, Trace),
    request_body = SaleRequest,
    responses(
        (status = 202, description = "The change is queued.", body = ChangeReceipt,
            headers(("Location" = String, description = "Where the outcome is."))),
        ChangeProblems,
    )
)]
pub(super) async fn put_sale(
    State(api): State<Arc<CommandApi>>,
    Path(product): Path<ProductId>,
    IfMatch(version): IfMatch,
    trace: Trace,
    Body(sale): Body<SaleRequest>,
) -> Result<Response, Problem> {
    let if_version = match (version, sale.left_out()) {
        (Some(_), Some(field)) => {
            let expected = "stated where If-Match is given, with null for none";
            return Err(Problem::invalid(field, expected));
        }
        (None, Some(_)) => Some(NO_SALE),
        (version, None) => version,
    };
    let terms = checked_terms(&api, sale)?;
    let body = CommandBody::PutSale(terms);
    let answer = change(&api, &product, body, if_version, trace).await?;
    // A new sale takes orders at once, before the read side has its row.
    api.known.insert(&product);
    Ok(answer)
}

/// The version of a sale that there is not yet.
const NO_SALE: u64 = 0;

/// Begins a new round after a closed one.
///
/// The answer confirms that the change is durably queued. The new round has these terms and this
/// stock; orders of the round before stay as they are. If the round is not over, the request is
/// refused with `no_closed_round`, and while units of it are held, with `holds_outstanding`.
#[utoipa::path(
    post,
    path = "/api/admin/flash-sales/{product_id}/rounds",
    tag = "administration",
    security(("admin_token" = [])),
    params(ProductInPath, IfMatchHeader, Trace),
    request_body = SaleRequest,
    responses(
        (status = 202, description = "The change is queued.", body = ChangeReceipt,
            headers(("Location" = String, description = "Where the outcome is."))),
        ChangeProblems,
    )
)]
pub(super) async fn begin_round(
    State(api): State<Arc<CommandApi>>,
    Path(product): Path<ProductId>,
    IfMatch(version): IfMatch,
    trace: Trace,
    Body(sale): Body<SaleRequest>,
) -> Result<Response, Problem> {
    let terms = checked_terms(&api, sale)?;
    api.require_known(&product, &trace).await?;
    let body = CommandBody::BeginRound(terms);
    let answer = change(&api, &product, body, version, trace).await?;
    api.rounds.begins(&product);
    Ok(answer)
}

/// Opens the sale now, or resumes it from a pause.
///
/// The answer confirms that the change is durably queued. A sale that has ended is not opened again.
#[utoipa::path(
    post,
    path = "/api/admin/flash-sales/{product_id}/open",
    tag = "administration",
    security(("admin_token" = [])),
    params(ProductInPath, IfMatchHeader, Trace),
    responses(
        (status = 202, description = "The change is queued.", body = ChangeReceipt,
            headers(("Location" = String, description = "Where the outcome is."))),
        ChangeProblems,
    )
)]
pub(super) async fn open_sale(
    State(api): State<Arc<CommandApi>>,
    Path(product): Path<ProductId>,
    IfMatch(version): IfMatch,
    trace: Trace,
    _: NoBody,
) -> Result<Response, Problem> {
    api.require_known(&product, &trace).await?;
    change(&api, &product, CommandBody::OpenSale, version, trace).await
}

/// Pauses the sale: attempts are refused until it is opened again.
///
/// The answer confirms that the change is durably queued. Units that are held or sold stay with
/// their buyers.
#[utoipa::path(
    post,
    path = "/api/admin/flash-sales/{product_id}/pause",
    tag = "administration",
    security(("admin_token" = [])),
    params(ProductInPath, IfMatchHeader, Trace),
    responses(
        (status = 202, description = "The change is queued.", body = ChangeReceipt,
            headers(("Location" = String, description = "Where the outcome is."))),
        ChangeProblems,
    )
)]
pub(super) async fn pause_sale(
    State(api): State<Arc<CommandApi>>,
    Path(product): Path<ProductId>,
    IfMatch(version): IfMatch,
    trace: Trace,
    _: NoBody,
) -> Result<Response, Problem> {
    api.require_known(&product, &trace).await?;
    change(&api, &product, CommandBody::PauseSale, version, trace).await
}

/// Ends the round.
///
/// The answer confirms that the change is durably queued. Attempts are refused from its decision
/// on, until another round begins.
#[utoipa::path(
    post,
    path = "/api/admin/flash-sales/{product_id}/close",
    tag = "administration",
    security(("admin_token" = [])),
    params(ProductInPath, IfMatchHeader, Trace),
    responses(
        (status = 202, description = "The change is queued.", body = ChangeReceipt,
            headers(("Location" = String, description = "Where the outcome is."))),
        ChangeProblems,
    )
)]
pub(super) async fn close_sale(
    State(api): State<Arc<CommandApi>>,
    Path(product): Path<ProductId>,
    IfMatch(version): IfMatch,
    trace: Trace,
    _: NoBody,
) -> Result<Response, Problem> {
    api.require_known(&product, &trace).await?;
    change(&api, &product, CommandBody::CloseSale, version, trace).await
}

/// Sets the round's total units.
///
/// The answer confirms that the change is durably queued. The total includes the units that are
/// held or sold, and cannot be less than these.
#[utoipa::path(
    post,
    path = "/api/admin/flash-sales/{product_id}/stock",
    tag = "administration",
    security(("admin_token" = [])),
    params(ProductInPath, IfMatchHeader, Trace),
    request_body = StockRequest,
    responses(
        (status = 202, description = "The change is queued.", body = ChangeReceipt,
            headers(("Location" = String, description = "Where the outcome is."))),
        ChangeProblems,
    )
)]
pub(super) async fn set_stock(
    State(api): State<Arc<CommandApi>>,
    Path(product): Path<ProductId>,
    IfMatch(version): IfMatch,
    trace: Trace,
    Body(set): Body<StockRequest>,
) -> Result<Response, Problem> {
    if set.stock > MAX_STOCK {
        return Err(out_of_bounds("stock", "at most 1000000000 units"));
    }
    api.require_known(&product, &trace).await?;
    let set = SetStock { stock: set.stock };
    change(&api, &product, CommandBody::SetStock(set), version, trace).await
}

pub(super) async fn change(
    api: &CommandApi,
    product: &ProductId,
    body: CommandBody,
    if_version: Option<u64>,
    trace: Trace,
) -> Result<Response, Problem> {
    let appended = api.append(product, body, if_version, trace).await?;
    let position = appended.position;
    let receipt = ChangeReceipt {
        product_id: product.as_str(),
        position: position.into(),
    };
    let headers = [(header::LOCATION, command_location(position))];
    Ok((StatusCode::ACCEPTED, headers, axum::Json(receipt)).into_response())
}

/// The terms of a request, within their bounds and with a window that is not over.
fn checked_terms(api: &CommandApi, sale: SaleRequest) -> Result<SaleTerms, Problem> {
    let now = api.clock.now_ms();
    let terms = terms(sale, now);
    check_terms(&terms).map_err(|error| out_of_bounds(error.field, error.expected))?;
    if !is_legible(&terms.name) {
        let expected = "text with a visible character, and without control characters";
        return Err(out_of_bounds("name", expected));
    }
    if terms.closes_at_ms.is_some_and(|closes| closes <= now) {
        return Err(out_of_bounds("closes_at", "a time in the future, or none"));
    }
    Ok(terms)
}

fn terms(sale: SaleRequest, now: TimestampMs) -> SaleTerms {
    SaleTerms {
        name: sale.name.into(),
        price: Money {
            minor: sale.price.minor,
            currency: sale.price.currency.into(),
        },
        stock: sale.stock,
        limit_per_buyer: sale.limit_per_buyer.flatten(),
        hold_ms: sale.hold_ms.flatten(),
        opens_at_ms: sale.opens_at.flatten().map_or(now, |moment| moment.0),
        closes_at_ms: sale.closes_at.flatten().map(|moment| moment.0),
    }
}

/// Whether shoppers can read a name: some of it is visible, and nothing of it controls how text is
/// shown. The core does not check this, so that names taken earlier are decided as they were.
fn is_legible(name: &str) -> bool {
    let controls = |c: char| {
        let separator = matches!(c, '\u{2028}' | '\u{2029}');
        let direction = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        c.is_control() || separator || direction
    };
    let invisible = |c: char| {
        let without_width =
            matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
        let filler = matches!(
            c,
            '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}'
        );
        c.is_whitespace() || without_width || filler
    };
    !name.chars().any(controls) && !name.chars().all(invisible)
}

fn out_of_bounds(field: &'static str, expected: &'static str) -> Problem {
    Problem::new(Code::InvalidTerms, format!("{field} must be {expected}.")).at(field, expected)
}
