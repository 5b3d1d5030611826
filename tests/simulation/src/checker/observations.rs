//! Compares the responses to clients, and the store's rows at the end, with what happened.

use std::collections::BTreeMap;

use ports::read_store::{AttemptRow, AttemptStatus, CommandOutcome, CommandRow, Row};
use schemas::command::CommandBody;
use schemas::decision::{CommandKind, Decision, Event};
use schemas::ids::{AttemptId, Partition, ProductId};
use schemas::placement::Placement;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::LOGS;
use super::account::AttemptOutcome;
use super::history::History;
use crate::nodes::receipt_key;
use crate::plan::PRODUCTS;
use crate::shoppers::Observation;
use crate::world::{EndState, Ms};

/// The responses and rows that are wrong.
pub fn check(history: &History, end: &EndState, observations: &[(Ms, Observation)]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut named = BTreeMap::new();
    let outcomes = commands(history);
    for (at, observation) in observations {
        let result = match observation {
            Observation::Taken {
                order,
                attempt,
                position,
                receipt,
            } => {
                let round = round_of(history, *position);
                let first = named
                    .entry((*order, round))
                    .or_insert_with(|| attempt.clone());
                let same = if first == attempt {
                    Ok(())
                } else {
                    Err("one key names two attempts of one round".to_owned())
                };
                same.and(taken(history, end, order.0, attempt, *position, receipt))
            }
            Observation::Attempt {
                attempt,
                body,
                at_least,
                at_the_end,
            } => attempt_status(history, end, attempt, body, *at_least, *at_the_end),
            Observation::Command { at, body } => command(history, &outcomes, *at, body),
            Observation::Sale { body, at_the_end } => sale(history, end, body, *at_the_end),
            Observation::Unknown { attempt, at_least } => unknown(history, attempt, *at_least),
            Observation::Wrong(_) => Err("no client should get this response".into()),
        };
        if let Err(why) = result {
            violations.push(format!("answered at {at} ms: {observation:?}, but {why}"));
        }
    }
    violations.extend(rows(history, end));
    violations
}

/// The round that the attempt at a position was made for.
fn round_of(history: &History, (partition, offset): (u32, i64)) -> Option<u32> {
    let commands = history.commands.get(&Partition(partition))?;
    match &commands.get(offset as usize)?.as_ref()?.body {
        CommandBody::PlaceAttempt(place) => place.round,
        _ => None,
    }
}

/// An attempt is unknown only if it has no outcome, or none up to the requested position. The position
/// of the attempt itself always has an answer.
fn unknown(history: &History, attempt: &str, at_least: Option<(u32, i64)>) -> Result<(), String> {
    let id: AttemptId = attempt.parse().map_err(|_| "it has no id")?;
    if let Some((partition, offset)) = at_least {
        let command = history.commands.get(&Partition(partition));
        let command = command.and_then(|all| all.get(offset as usize)?.as_ref());
        match command.map(|command| &command.body) {
            Some(CommandBody::CancelOrder(_)) => {}
            other => return Err(format!("{other:?} is at the requested position")),
        }
    }
    let outcomes = history.outcomes.get(&id).map_or(&[][..], Vec::as_slice);
    let is_due =
        |outcome: &AttemptOutcome| at_least.is_none_or(|(_, offset)| outcome.answers.0 <= offset);
    match outcomes.iter().find(|outcome| is_due(outcome)) {
        Some(outcome) => Err(format!("its outcome is {outcome:?}")),
        None => Ok(()),
    }
}

/// Why the attempt at a position has no outcome under its id, if it has none.
fn without_outcome(decision: &Decision) -> Option<&'static str> {
    match decision.events.last() {
        Some(Event::AttemptConflicted(_)) => Some("idempotency_conflict"),
        Some(Event::AttemptRefused(_)) if !decision.leaves_state() => Some("unknown_product"),
        Some(Event::AttemptRefused(refused)) if !refused.is_outcome() => Some("another_round"),
        _ => None,
    }
}

/// A receipt matches the record at its position.
fn taken(
    history: &History,
    end: &EndState,
    product: usize,
    attempt: &str,
    (partition, offset): (u32, i64),
    receipt: &str,
) -> Result<(), String> {
    let partition = Partition(partition);
    let record = end
        .records
        .get(&(LOGS.0, partition))
        .and_then(|all| all.get(offset as usize));
    let record = record.ok_or("there is no record at its position")?;
    let command = history.commands[&partition][offset as usize].as_ref();
    match &command.ok_or("there is garbage at its position")?.body {
        CommandBody::PlaceAttempt(place) if place.attempt_id.to_string() == attempt => {}
        other => return Err(format!("{other:?} is at its position")),
    }
    let claims = receipt_key()
        .verify(receipt)
        .map_err(|error| error.to_string())?;
    let value: String = Sha256::digest(&record.value)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let claimed = (
        claims.sub.as_str(),
        claims.product.as_str(),
        claims.partition,
        claims.offset,
    );
    let matches = claimed == (attempt, PRODUCTS[product], partition.0, offset);
    if matches && claims.value_sha256 == value {
        Ok(())
    } else {
        Err("its receipt does not match the record".into())
    }
}

/// An attempt's status is one of its outcomes, not older than requested, and at the end the last.
fn attempt_status(
    history: &History,
    end: &EndState,
    attempt: &str,
    body: &Value,
    at_least: Option<(u32, i64)>,
    at_the_end: bool,
) -> Result<(), String> {
    let id: AttemptId = attempt.parse().map_err(|_| "it has no id")?;
    let position = (
        body["position"]["partition"].as_u64(),
        body["position"]["offset"].as_i64(),
    );
    let outcomes = history.outcomes.get(&id).map_or(&[][..], Vec::as_slice);
    if body["status"] == "queued" && !at_the_end {
        let (Some(partition), Some(offset)) = position else {
            return Err("it has no position".into());
        };
        let commands = history.commands.get(&Partition(partition as u32));
        return match commands
            .and_then(|all| all.get(offset as usize)?.as_ref())
            .map(|command| &command.body)
        {
            Some(CommandBody::PlaceAttempt(place)) if place.attempt_id == id => Ok(()),
            other => Err(format!("{other:?} is at that position")),
        };
    }
    // Where the request at the requested position has no outcome under the id, the answer is that of
    // the request, and not the attempt's.
    let requested = at_least.and_then(|(partition, offset)| {
        let decision = history.decisions.get(&Partition(partition))?;
        without_outcome(decision.get(offset as usize)?.as_ref()?)
    });
    if let Some(reason) = requested {
        let is_its_own = at_least.map(|(partition, offset)| (Some(partition.into()), Some(offset)))
            == Some(position);
        return match body["reason"] == reason && is_its_own {
            true => Ok(()),
            false => Err(format!(
                "the request at that position is a case of {reason}"
            )),
        };
    }
    let is_shown = |outcome: &AttemptOutcome| {
        let (partition, offset) = outcome.position;
        let reason = outcome.reason.map(|reason| reason.as_str());
        body["status"] == outcome.status
            && position == (Some(partition.into()), Some(offset))
            && body["reason"].as_str() == reason
    };
    let shown = outcomes
        .iter()
        .rposition(is_shown)
        .ok_or_else(|| format!("its outcomes are {outcomes:?}"))?;
    let due = match at_least {
        Some((_, offset)) => outcomes
            .iter()
            .rposition(|outcome| outcome.answers.0 <= offset),
        None if at_the_end => outcomes
            .iter()
            .rposition(|outcome| end.is_settled(outcome.position.0, outcome.at)),
        None => None,
    };
    match due {
        Some(due) if shown < due => Err(format!("by then {:?} was due", outcomes[due])),
        _ => Ok(()),
    }
}

/// A command is pending, or became what the decision on it says.
fn command(
    history: &History,
    outcomes: &BTreeMap<(u32, i64), CommandResult>,
    at: (u32, i64),
    body: &Value,
) -> Result<(), String> {
    let all = history.commands.get(&Partition(at.0));
    let command = all.and_then(|all| all.get(at.1 as usize));
    let kind = command.and_then(|command| command.as_ref()?.body.kind());
    let kind = kind.ok_or("there is no such command")?;
    if body["kind"] != kind.as_str() {
        return Err(format!("it is a {kind}"));
    }
    let outcome = outcomes.get(&at).map(|(_, reason)| *reason);
    let shown = body["reason"].as_str();
    match (body["status"].as_str(), outcome) {
        (Some("pending"), _) => Ok(()),
        (Some("done"), Some(None)) if shown.is_none() => Ok(()),
        (Some("refused"), Some(Some(reason))) if shown == Some(reason) => Ok(()),
        _ => Err(format!("its outcome is {outcome:?}")),
    }
}

/// A sale's figures are those of its version, and at the end the last.
fn sale(history: &History, end: &EndState, body: &Value, at_the_end: bool) -> Result<(), String> {
    let product: ProductId = body["product_id"]
        .as_str()
        .and_then(|id| id.parse().ok())
        .ok_or("it has no id")?;
    let version = body["version"].as_u64().ok_or("it has no version")?;
    let account = history
        .products
        .get(&product)
        .ok_or("there is no such sale")?;
    let figures = account.figures.get((version as usize).wrapping_sub(1));
    let (stock, tally, _) = figures.ok_or("there is no such version")?;
    let partition = Placement::new(end.partitions).partition_of(&product).0;
    let settled = account
        .figures
        .iter()
        .filter(|(_, _, at)| end.is_settled(partition, *at))
        .count();
    let (units, counts) = (&body["stock"], &body["attempts"]);
    let matches = units["total"] == stock.total
        && units["available"] == stock.available
        && units["reserved"] == stock.reserved
        && units["sold"] == stock.sold
        && counts["accepted"] == tally.accepted
        && counts["refused"] == tally.refused
        && counts["cancelled"] == tally.cancelled
        && counts["expired"] == tally.expired;
    match matches {
        false => Err(format!(
            "at version {version} it had {stock:?} and {tally:?}"
        )),
        true if at_the_end && version < settled as u64 => {
            Err(format!("by then it was at version {settled}"))
        }
        true => Ok(()),
    }
}

/// The store has exactly the rows of what happened.
fn rows(history: &History, end: &EndState) -> Vec<String> {
    let mut attempts = BTreeMap::new();
    let (mut orders, mut intents) = (BTreeMap::new(), BTreeMap::new());
    for (attempt, outcomes) in &history.outcomes {
        for outcome in outcomes {
            attempts.insert(*attempt, outcome);
            if outcome.reason.is_none() {
                orders.insert(outcome.position, outcome);
            }
            if matches!(outcome.status, "refused" | "expired") {
                intents.insert(outcome.position, outcome);
            }
        }
    }
    let mut violations = Vec::new();
    let mut commands = commands(history);
    for row in &end.rows {
        let (list, expected, row) = match row {
            Row::Sale(row) => {
                let account = history.products.get(&row.product_id);
                let last = account.and_then(|account| account.figures.last());
                if last.map(|(stock, tally, _)| (*stock, *tally)) != Some((row.stock, row.tally))
                    || account.map(|a| a.version()) != Some(row.version)
                {
                    violations.push(format!(
                        "the store has {row:?} of a sale that ended with {last:?}"
                    ));
                }
                continue;
            }
            Row::Attempt(row) => ("attempts", attempts.remove(&row.attempt_id), row),
            Row::Order(row) => ("orders", orders.remove(&position(row)), row),
            Row::Intent(row) => ("intents", intents.remove(&position(row)), row),
            Row::Command(row) => {
                let at = (row.position.partition.0, row.position.offset.0);
                let expected = commands.remove(&at);
                if expected != Some(outcome_of(row)) {
                    violations.push(format!(
                        "the store has {row:?}, but {expected:?} became of that command"
                    ));
                }
                continue;
            }
        };
        if expected.is_none_or(|outcome| !matches_outcome(row, outcome)) {
            violations.push(format!(
                "{list} of the store have {row:?}, but {expected:?} is right"
            ));
        }
    }
    let missing = attempts
        .values()
        .chain(orders.values())
        .chain(intents.values());
    violations.extend(missing.map(|outcome| format!("the store lacks {outcome:?}")));
    let missing = commands.iter();
    violations
        .extend(missing.map(|(at, outcome)| format!("the store lacks {outcome:?} of {at:?}")));
    violations
}

/// The kind of a command, and why it was refused if it was.
type CommandResult = (Option<CommandKind>, Option<&'static str>);

/// What became of each decided command that is no attempt, or an attempt without an outcome under its
/// id, by its position.
fn commands(history: &History) -> BTreeMap<(u32, i64), CommandResult> {
    let mut results = BTreeMap::new();
    for (partition, decisions) in &history.decisions {
        let commands = &history.commands[partition];
        for (offset, (decision, command)) in (0..).zip(decisions.iter().zip(commands)) {
            let (Some(decision), Some(command)) = (decision, command) else {
                results.insert((partition.0, offset), (None, Some("undecodable")));
                continue;
            };
            let turned_away = without_outcome(decision);
            let kind = match &command.body {
                CommandBody::PlaceAttempt(_) if turned_away.is_some() => {
                    Some(CommandKind::PlaceAttempt)
                }
                CommandBody::PlaceAttempt(_) | CommandBody::TimeAdvanced => continue,
                body => body.kind(),
            };
            let reason = match decision.events.last() {
                Some(Event::SaleChangeRefused(refused)) => Some(refused.reason.as_str()),
                Some(Event::CancelRefused(refused)) => Some(refused.reason.as_str()),
                _ => turned_away,
            };
            results.insert((partition.0, decision.answers.0), (kind, reason));
        }
    }
    results
}

fn outcome_of(row: &CommandRow) -> CommandResult {
    let reason = match row.outcome {
        CommandOutcome::Done => None,
        CommandOutcome::Refused(refusal) => Some(refusal.as_str()),
    };
    (row.kind, reason)
}

fn position(row: &AttemptRow) -> (u32, i64) {
    (row.position.partition.0, row.position.offset.0)
}

fn matches_outcome(row: &AttemptRow, outcome: &AttemptOutcome) -> bool {
    let (status, reason) = match row.status {
        AttemptStatus::Reserved => ("reserved", None),
        AttemptStatus::Sold => ("sold", None),
        AttemptStatus::Refused(reason) => ("refused", Some(reason)),
        AttemptStatus::Released(cause) => (cause.as_str(), None),
    };
    let row = (status, reason, position(row), row.version);
    row == (
        outcome.status,
        outcome.reason,
        outcome.position,
        outcome.version,
    )
}
