//! What became of my command?

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use ports::read_store::{CommandOutcome, CommandRefusal, CommandRow, SaleRow};
use runtime::settings::AdminToken;
use schemas::decision::CommandKind;
use schemas::ids::{AttemptId, BuyerId, Position, ProductId, TimestampMs, TraceId};
use serde::{Deserialize, Serialize};
use utoipa::openapi::{ObjectBuilder, RefOr, Response, Schema};
use utoipa::{IntoParams, IntoResponses, ToSchema};
use web::auth::check_admin;
use web::extract::{OptionalBuyer, Path, Query, query_number};
use web::problem::{Code, Problem, describe};
use web::rfc3339::Moment;
use web::schema;

use super::attempt::MAX_WAIT_SECONDS;
use super::retry::command_can_succeed;
use super::{NO_STORE, PositionBody, QueryApi, QuestionProblems, as_text_or_null};
use crate::live::{CommandState, QueuedCommand};

/// What the question is answered with: the questions' own, and the admin token.
#[derive(Clone)]
pub(super) struct CommandsApi {
    pub(super) api: QueryApi,
    pub(super) admin: Option<AdminToken>,
}

/// The problems of this question.
struct CommandProblems;

impl IntoResponses for CommandProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = QuestionProblems::responses();
        let codes = [
            Code::Unauthorized,
            Code::AdminDisabled,
            Code::UnknownCommand,
        ];
        let missing = describe(&codes).into_iter();
        responses.extend(missing.filter(|(status, _)| matches!(&**status, "401" | "404")));
        responses
    }
}

/// What became of a change of a sale, or of a cancellation. With `wait` the answer comes as soon
/// as it is decided.
///
/// The `Location` of every command other than an order leads here. A change of a sale is answered
/// with the admin token only, a cancellation to the buyer who sent it (`X-Buyer-Id`) or with the
/// admin token; to everybody else a cancellation is an `unknown_command`. Where an order is at the
/// position, its outcome is at `/api/attempts/{attempt_id}`, and this call answers
/// `unknown_command`.
#[utoipa::path(
    get, path = "/api/commands/{command_id}", tag = "shoppers",
    security((), ("admin_token" = [])),
    params(schema::CommandInPath, CommandQuery, schema::OptionalBuyerHeader),
    responses(
        (status = OK, description = "The command as it is now.", body = Command),
        CommandProblems,
    )
)]
pub(super) async fn get_command(
    State(CommandsApi { api, admin }): State<CommandsApi>,
    Path(path): Path<CommandPath>,
    Query(query): Query<CommandQuery>,
    OptionalBuyer(buyer): OptionalBuyer,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let at = position(&path.command_id)?;
    let reader = Reader {
        buyer,
        staff: check_admin(&headers, admin.as_ref()),
    };
    let wait = Duration::from_secs(query.wait.unwrap_or(0).into());
    let command = match api.live.command(at, wait).await? {
        Some(CommandState::Decided(row)) => {
            let is_change = row.kind.is_none() && row.product_id.is_some();
            let rights = match row.kind {
                None if is_change => reader.of_change(),
                None => Ok(Rights::Outcome),
                Some(kind) => reader.of(kind, row.buyer_id.as_ref(), at),
            };
            let sale = row
                .product_id
                .as_ref()
                .map(|product| api.live.sale(product));
            let sale = sale.transpose()?.flatten();
            Command::decided(row, rights?, sale.as_ref(), api.clock.now_ms())
        }
        Some(CommandState::Queued(queued)) => {
            let rights = reader.of(queued.kind, queued.buyer_id.as_ref(), at)?;
            Command::pending(queued, rights)
        }
        None => return Err(unknown(at)),
    };
    Ok((NO_STORE, Json(command)))
}

/// Who asks.
struct Reader {
    buyer: Option<BuyerId>,
    /// Whether with the admin token, and if not, why not.
    staff: Result<(), Problem>,
}

/// How much of a command the reader may see.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rights {
    /// All of it.
    All,
    /// Its kind and its outcome.
    Outcome,
}

impl Reader {
    fn of(
        &self,
        kind: CommandKind,
        sender: Option<&BuyerId>,
        at: Position,
    ) -> Result<Rights, Problem> {
        match kind {
            CommandKind::CancelOrder => {
                let is_own = self.buyer.is_some() && self.buyer.as_ref() == sender;
                match is_own || self.staff.is_ok() {
                    true => Ok(Rights::All),
                    false => Err(unknown(at)),
                }
            }
            CommandKind::PlaceAttempt => Ok(match self.staff {
                Ok(()) => Rights::All,
                Err(_) => Rights::Outcome,
            }),
            CommandKind::PutSale
            | CommandKind::BeginRound
            | CommandKind::OpenSale
            | CommandKind::PauseSale
            | CommandKind::CloseSale
            | CommandKind::SetStock
            | CommandKind::CorrectClock => self.of_change(),
        }
    }

    fn of_change(&self) -> Result<Rights, Problem> {
        self.staff.clone().map(|()| Rights::All)
    }
}

fn unknown(at: Position) -> Problem {
    let id = id_of(at);
    Problem::new(
        Code::UnknownCommand,
        format!(
            "No change of a sale and no cancellation of yours is at {id}. The outcome of an order is \
             at /api/attempts/ and its attempt_id."
        ),
    )
}

fn position(command_id: &str) -> Result<Position, Problem> {
    let invalid = || {
        let expected = "partition-offset, two numbers such as 3-1842";
        Problem::invalid("command_id", expected)
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match command_id.split_once('-') {
        Some((partition, offset)) if digits(partition) && digits(offset) => {
            let text = format!("{partition}:{offset}");
            text.parse().map_err(|_| invalid())
        }
        _ => Err(invalid()),
    }
}

fn id_of(at: Position) -> String {
    format!("{}-{}", at.partition, at.offset)
}

#[derive(Deserialize)]
pub(super) struct CommandPath {
    command_id: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct CommandQuery {
    /// Seconds to wait for the decision, if there is none yet.
    #[param(minimum = 0, maximum = 30)]
    #[serde(default, deserialize_with = "query_number::<_, 0, MAX_WAIT_SECONDS>")]
    wait: Option<u32>,
}

/// A change of a sale, or a cancellation.
#[derive(Serialize, ToSchema)]
pub(super) struct Command {
    /// The command: its partition, a hyphen, its offset.
    #[schema(schema_with = schema::command_id)]
    command_id: String,
    /// Its kind; absent where the log does not say: in records of older versions, and in those that
    /// were skipped.
    #[schema(schema_with = kind_schema)]
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<CommandKind>,
    /// Its status.
    status: CommandStatus,
    /// Why it was refused, if it was.
    #[schema(schema_with = reason_schema)]
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Whether the same command may succeed when it is sent again; only when it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_can_help: Option<bool>,
    /// The product.
    #[schema(schema_with = schema::product_id)]
    #[serde(skip_serializing_if = "Option::is_none")]
    product_id: Option<ProductId>,
    /// The attempt whose order was to be cancelled.
    #[schema(schema_with = schema::attempt_id)]
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_text_or_null"
    )]
    attempt_id: Option<AttemptId>,
    /// Its place in the queue.
    position: PositionBody,
    /// How many records of its partition are decided before it; only while it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    ahead: Option<u64>,
    /// When it was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_at: Option<Moment>,
    /// The trace id by W3C Trace Context of its request, if that had a valid `traceparent`.
    #[schema(value_type = Option<String>, pattern = "^[0-9a-f]{32}$",
        example = "0af7651916cd43dd8448eb211c80319c")]
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_text_or_null"
    )]
    trace_id: Option<TraceId>,
}

/// The status of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum CommandStatus {
    /// It waits for its decision.
    Pending,
    /// It was carried out.
    Done,
    /// It was refused, and changed nothing.
    Refused,
}

impl Command {
    fn decided(row: CommandRow, rights: Rights, sale: Option<&SaleRow>, now: TimestampMs) -> Self {
        let (status, refusal) = match row.outcome {
            CommandOutcome::Done => (CommandStatus::Done, None),
            CommandOutcome::Refused(refusal) => (CommandStatus::Refused, Some(refusal)),
        };
        let sees_all = rights == Rights::All;
        Self {
            command_id: id_of(row.position),
            kind: row.kind,
            status,
            reason: refusal.map(CommandRefusal::as_str),
            retry_can_help: refusal.map(|refusal| command_can_succeed(refusal, sale, now)),
            product_id: row.product_id.filter(|_| sees_all),
            attempt_id: row.attempt_id.filter(|_| sees_all),
            position: row.position.into(),
            ahead: None,
            decided_at: Some(Moment(row.decided_at_ms)),
            trace_id: row.trace_id.filter(|_| sees_all),
        }
    }

    fn pending(queued: QueuedCommand, rights: Rights) -> Self {
        let sees_all = rights == Rights::All;
        Self {
            command_id: id_of(queued.position),
            kind: Some(queued.kind),
            status: CommandStatus::Pending,
            reason: None,
            retry_can_help: None,
            product_id: Some(queued.product_id).filter(|_| sees_all),
            attempt_id: queued.attempt_id.filter(|_| sees_all),
            position: queued.position.into(),
            ahead: Some(queued.ahead),
            decided_at: None,
            trace_id: None,
        }
    }
}

fn kind_schema() -> Schema {
    let names = CommandKind::ALL.iter().map(|kind| kind.as_str());
    ObjectBuilder::new()
        .schema_type(utoipa::openapi::Type::String)
        .enum_values(Some(names))
        .description(Some("Its kind."))
        .into()
}

fn reason_schema() -> Schema {
    let names = CommandRefusal::all().map(CommandRefusal::as_str);
    ObjectBuilder::new()
        .schema_type(utoipa::openapi::Type::String)
        .enum_values(Some(names))
        .description(Some("Why it was refused, if it was."))
        .into()
}
