//! What happens in a run, drawn from the seed beforehand: which nodes there are, what shoppers
//! and the seller request, what fails. A plan is data, so that a failing one can be shortened.

mod drawing;

use std::fmt;

use schemas::ids::Partition;
use schemas::topics::Topic;

use crate::world::{FaultRates, LogChange, Ms, Node, Role};

/// How long requests are sent and faults happen.
pub const SCRIPT_MS: Ms = 12_000;
/// The products that a run may have.
pub const PRODUCTS: [&str; 3] = ["cap", "shoe", "bag"];
/// The records that nobody can decode: a tombstone, noise, a schema that is not ours, and the schemas of
/// `purchase-attempts` and `stock-decisions` with values that do not follow them.
pub const GARBAGE: [&[u8]; 5] = [
    b"",
    b"noise",
    b"\0\x01\0\0\0foreign",
    b"\0\0\0\0\x04\xff",
    b"\0\0\0\0\x05\xff",
];

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed of the plan and of the run's random numbers.
    pub seed: u64,
    /// The nodes.
    pub deployment: Deployment,
    /// How often calls fail until the faults end.
    pub fault_rates: FaultRates,
    /// Whether nothing fails: calls are slow, append queues full, and records cannot be decoded, but no
    /// decider has a reason to claim a partition twice.
    pub only_backpressure: bool,
    /// What happens, in order of time.
    pub steps: Vec<Step>,
    /// Whether all deciders stop once all requests have been answered, and orders come meanwhile.
    pub stops_deciders: bool,
    /// What becomes of the log once all work is done.
    pub log_change: Option<LogChange>,
}

/// The nodes of a run and their limits.
#[derive(Debug, Clone, Copy)]
pub struct Deployment {
    /// Whether all services are in one process over an embedded log.
    pub embedded: bool,
    /// Partitions of every topic.
    pub partitions: u32,
    /// How many nodes each service has.
    pub of_each: usize,
    /// Decisions between two checkpoints.
    pub checkpoint_every: u64,
    /// Decided attempts that the read side keeps.
    pub keep_attempts: usize,
    /// Undecided records that the read side keeps.
    pub max_undecided: usize,
}

impl Deployment {
    /// The nodes of a role.
    pub fn nodes(&self, role: Role) -> Vec<Node> {
        let count = match (role, self.embedded) {
            (Role::Shop, embedded) => usize::from(embedded),
            (_, true) => 0,
            (Role::Decider | Role::Projector, false) => self.of_each,
            (Role::CommandApi | Role::QueryApi, false) => self.of_each.min(2),
        };
        (0..count).map(|n| Node(role, n)).collect()
    }

    /// All nodes.
    pub fn all(&self) -> Vec<Node> {
        let roles = [
            Role::CommandApi,
            Role::Decider,
            Role::Projector,
            Role::QueryApi,
            Role::Shop,
        ];
        roles
            .into_iter()
            .flat_map(|role| self.nodes(role))
            .collect()
    }
}

/// Something that happens at a time.
#[derive(Debug, Clone)]
pub struct Step {
    /// When.
    pub at: Ms,
    /// What happens.
    pub action: Action,
}

/// What may happen.
#[derive(Debug, Clone)]
pub enum Action {
    /// A person requests over HTTP.
    Request(Request),
    /// A failure.
    Fault(Fault),
}

/// What is requested over HTTP.
#[derive(Debug, Clone)]
pub enum Request {
    /// A buyer orders, with an idempotency key.
    Order {
        /// The product, by number.
        product: usize,
        /// The buyer, by number.
        buyer: u32,
        /// The order's key, by number.
        key: u32,
        /// Units.
        quantity: u32,
        /// How many times it is sent at once.
        copies: u8,
        /// Whether the client sends it again until it is accepted.
        insists: bool,
    },
    /// A buyer cancels the order with that key; another buyer may try, too.
    Cancel {
        /// The product, by number.
        product: usize,
        /// The buyer of the order.
        buyer: u32,
        /// The order's key.
        key: u32,
        /// Who requests.
        by: u32,
    },
    /// The seller puts a sale on, changes its terms, or begins a new round.
    Put {
        /// Whether it begins a new round.
        begins_round: bool,
        /// The product.
        product: usize,
        /// Units.
        stock: u32,
        /// Most units of one buyer.
        limit: Option<u32>,
        /// How long units are held.
        hold_ms: Option<Ms>,
        /// Opens after this time; none: at once.
        opens_in: Option<Ms>,
        /// Closes after this time; none: never.
        closes_in: Option<Ms>,
    },
    /// The seller opens, pauses or closes the sale.
    Change {
        /// The product.
        product: usize,
        /// The last segment of the API's path.
        how: &'static str,
    },
    /// The seller sets the round's total.
    Stock {
        /// The product.
        product: usize,
        /// Units.
        stock: u32,
    },
    /// An operator corrects the time of all products.
    CorrectClock,
    /// Someone reads the sale.
    Look {
        /// The product.
        product: usize,
    },
}

/// What fails.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A node crashes at any point, and starts again after a while.
    Crash(Node, Ms),
    /// A node is cut off from everything; others take over its partitions, if it is noticed.
    Freeze(Node, Ms, bool),
    /// Partitions move in the middle of a batch.
    Rebalance(Role),
    /// A node's clock steps.
    NodeClock(Node, i64),
    /// The log's clock steps.
    LogClock(i64),
    /// The log's clock jumps further than it is followed, and is set right after a while.
    ClockJump(i64, Ms),
    /// The store is unavailable.
    StoreUnavailable(Ms),
    /// Requests to a node are lost.
    Cut(Node, Ms),
    /// Requests to a node and its responses arrive only afterwards.
    Hold(Node, Ms),
    /// The machine of the single process loses power for a while.
    PowerCut(Ms),
    /// Somebody else appends a record that no version of the program can decode.
    Poison(Topic, Partition, &'static [u8]),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            Action::Request(request) => write!(f, "{:>6} ms  {request:?}", self.at),
            Action::Fault(fault) => write!(f, "{:>6} ms  ** {fault:?}", self.at),
        }
    }
}
