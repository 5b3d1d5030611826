//! The HTTP API of the write side: appends each command to `purchase-attempts`, and answers with a
//! receipt as soon as it is durable. Outcomes are answered by the read side alone.

mod orders;

mod admin;
mod clock_corrections;

mod admission;
mod rounds;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use ports::{Clock, EventLog, ReadStore};
use runtime::settings::AdminToken;
use schemas::codec::Codec;
use schemas::placement::Placement;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use web::auth::require_admin;
use web::limits::{Guard, guard};
use web::receipt::ReceiptKey;

pub use self::admission::KnownProducts;
pub use self::rounds::{KnownRounds, RecentOrders};
use crate::log_watch::LogState;

/// The largest body of an order or a cancellation, in bytes.
pub const MAX_ORDER_BYTES: usize = 4 * 1024;
/// The largest body of the administration, in bytes.
pub const MAX_ADMIN_BYTES: usize = 64 * 1024;

/// The dependencies of the HTTP API.
pub struct CommandApi {
    /// Where commands are appended.
    pub log: Arc<dyn EventLog>,
    /// Queried for whether a product is known, for the round of its sale, whether the store is current,
    /// and for the products whose time an operator corrects.
    pub store: Arc<dyn ReadStore>,
    /// The records' codec.
    pub codec: Arc<Codec>,
    /// Which partition a product lives in.
    pub placement: Placement,
    /// Signs receipts.
    pub receipts: ReceiptKey,
    /// The time for receipts and for sales that open now.
    pub clock: Arc<dyn Clock>,
    /// The products known so far.
    pub known: KnownProducts,
    /// Whether the log is the one that it should be.
    pub log_state: LogState,
    /// The rounds that orders with a key are made for.
    pub rounds: KnownRounds,
    /// The quantities of the last orders with a key.
    pub recent: RecentOrders,
}

/// The routes of the write side, each request bounded by the time given. Without an admin token
/// the administration is disabled.
pub fn router(api: Arc<CommandApi>, admin: Option<AdminToken>, timeout: Duration) -> OpenApiRouter {
    let orders = OpenApiRouter::new()
        .routes(routes!(orders::place_order))
        .routes(routes!(orders::cancel_order))
        .layer(DefaultBodyLimit::max(MAX_ORDER_BYTES));
    let admin = OpenApiRouter::new()
        .routes(routes!(admin::put_sale))
        .routes(routes!(admin::begin_round))
        .routes(routes!(admin::open_sale))
        .routes(routes!(admin::pause_sale))
        .routes(routes!(admin::close_sale))
        .routes(routes!(admin::set_stock))
        .routes(routes!(clock_corrections::correct_all))
        .routes(routes!(clock_corrections::correct_one))
        .layer(DefaultBodyLimit::max(MAX_ADMIN_BYTES))
        .route_layer(from_fn_with_state(admin, require_admin));
    orders
        .merge(admin)
        .layer(from_fn_with_state(Guard::new(timeout), guard))
        .with_state(api)
}
