//! An operator corrects the time, after the clock that stamps records was wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures::future::try_join_all;
use ports::StoreError;
use ports::read_store::MAX_PAGE;
use schemas::command::CommandBody;
use schemas::ids::ProductId;
use serde::Serialize;
use tracing::info;
use utoipa::openapi::{RefOr, Response as Described};
use utoipa::{IntoResponses, ToSchema};
use web::extract::{NoBody, Path};
use web::problem::{Code, Problem, describe};
use web::rfc3339::Moment;
use web::schema::ProductInPath;
use web::trace::Trace;

use super::CommandApi;
use super::admin::{ChangeProblems, ChangeReceipt, change};

/// The corrections are queued.
#[derive(Serialize, ToSchema)]
#[schema(as = ClockCorrectionsTaken)]
pub(super) struct CorrectionsReceipt {
    /// The time that is now taken for right.
    now: Moment,
    /// How many products are corrected: those that the read models have.
    products: u64,
}

/// The problems of a correction of all products.
struct CorrectionsProblems;

impl IntoResponses for CorrectionsProblems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        describe(&[
            Code::InvalidRequest,
            Code::Unauthorized,
            Code::AdminDisabled,
            Code::RequestTimeout,
            Code::BodyTooLarge,
            Code::HeaderTooLarge,
            Code::Starting,
            Code::Overloaded,
            Code::LogUnavailable,
            Code::ReadModelUnavailable,
        ])
    }
}

/// Corrects the time of all products, after it was wrong.
///
/// Set the clocks right first: the time by which records are stamped now is taken for right. Products
/// whose time is ahead of it are set back, and holds that were accepted meanwhile with them. May be
/// repeated.
#[utoipa::path(
    post,
    path = "/api/admin/clock-corrections",
    tag = "administration",
    security(("admin_token" = [])),
    params(Trace),
    responses(
        (status = 202, description = "The corrections are queued.", body = CorrectionsReceipt),
        CorrectionsProblems,
    )
)]
pub(super) async fn correct_all(
    State(api): State<Arc<CommandApi>>,
    trace: Trace,
    _: NoBody,
) -> Result<(StatusCode, axum::Json<CorrectionsReceipt>), Problem> {
    api.log.correct_clock();
    let mut products = 0;
    let mut after: Option<ProductId> = None;
    loop {
        let page = api.store.sales(after.as_ref(), MAX_PAGE).await;
        let page = page.map_err(no_list)?;
        let Some(last) = page.last() else { break };
        after = Some(last.product_id.clone());
        let correct = |product| api.append(product, CommandBody::CorrectClock, None, trace.clone());
        try_join_all(page.iter().map(|sale| correct(&sale.product_id))).await?;
        products += page.len() as u64;
    }
    let now = Moment(api.clock.now_ms());
    info!(%now, products, "an operator has corrected the time");
    let receipt = CorrectionsReceipt { now, products };
    Ok((StatusCode::ACCEPTED, axum::Json(receipt)))
}

/// Corrects the time of one product, after it was wrong.
///
/// Like the correction of all products; for one that the read models do not have.
#[utoipa::path(
    post,
    path = "/api/admin/flash-sales/{product_id}/clock-correction",
    tag = "administration",
    security(("admin_token" = [])),
    params(ProductInPath, Trace),
    responses(
        (status = 202, description = "The correction is queued.", body = ChangeReceipt,
            headers(("Location" = String, description = "The outcome of the correction."))),
        ChangeProblems,
    )
)]
pub(super) async fn correct_one(
    State(api): State<Arc<CommandApi>>,
    Path(product): Path<ProductId>,
    trace: Trace,
    _: NoBody,
) -> Result<Response, Problem> {
    api.require_known(&product, &trace).await?;
    api.log.correct_clock();
    change(&api, &product, CommandBody::CorrectClock, None, trace).await
}

fn no_list(error: StoreError) -> Problem {
    Problem::new(
        Code::ReadModelUnavailable,
        format!(
            "The products cannot be listed: {error}. Some may have been corrected; repeat the call, \
             or correct each product by itself."
        ),
    )
}
