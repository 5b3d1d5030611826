//! How an attempt or another command stands, as far as it is known.

use ports::read_store::{AttemptRow, CommandRow};
use schemas::decision::CommandKind;
use schemas::ids::{AttemptId, BuyerId, Position, ProductId};

use super::queue::{PendingAttempt, PendingCommand};

/// How an attempt stands.
#[derive(Debug, Clone, PartialEq)]
pub enum AttemptState {
    /// It is decided.
    Decided(AttemptRow),
    /// It waits for its decision.
    Queued(QueuedAttempt),
}

/// An attempt that waits for its decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedAttempt {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// The requested product.
    pub product_id: ProductId,
    /// How many units are requested.
    pub quantity: u32,
    /// Its position in `purchase-attempts`.
    pub position: Position,
    /// How many records of its partition are decided before it.
    pub ahead: u64,
}

impl QueuedAttempt {
    pub(super) fn new(attempt: &PendingAttempt, position: Position, ahead: u64) -> Self {
        Self {
            attempt_id: attempt.id,
            product_id: attempt.product.clone(),
            quantity: attempt.quantity,
            position,
            ahead,
        }
    }
}

/// How a command stands that is not an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum CommandState {
    /// It is decided.
    Decided(CommandRow),
    /// It waits for its decision.
    Queued(QueuedCommand),
}

/// A command that waits for its decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedCommand {
    /// Its position in `purchase-attempts`.
    pub position: Position,
    /// Its kind.
    pub kind: CommandKind,
    /// The product that decides on it.
    pub product_id: ProductId,
    /// The buyer who sent a cancellation.
    pub buyer_id: Option<BuyerId>,
    /// The attempt that a cancellation names.
    pub attempt_id: Option<AttemptId>,
    /// How many records of its partition are decided before it.
    pub ahead: u64,
}

impl QueuedCommand {
    pub(super) fn new(command: &PendingCommand, position: Position, ahead: u64) -> Self {
        Self {
            position,
            kind: command.kind,
            product_id: command.product.clone(),
            buyer_id: command.buyer.clone(),
            attempt_id: command.attempt,
            ahead,
        }
    }
}
