//! What happens in a run, all of it drawn from the seed beforehand: who takes part, what
//! shoppers and seller ask, what breaks. A plan is data, so that a failing one can be shortened.

use std::fmt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::world::{Ms, Node, Role, Weather};

/// How long shoppers come and things break.
pub const SCRIPT_MS: Ms = 12_000;
/// Products that there may be.
pub const PRODUCTS: [&str; 3] = ["cap", "shoe", "bag"];
const BUYERS: u32 = 9;

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What it was drawn from, and what the dice of the run are seeded with.
    pub seed: u64,
    /// Who takes part.
    pub cast: Cast,
    /// How the lines are until the faults end.
    pub weather: Weather,
    /// What happens, in the order of time.
    pub steps: Vec<Step>,
}

/// Who takes part.
#[derive(Debug, Clone, Copy)]
pub struct Cast {
    /// All services in one process over an embedded log, or each alone.
    pub embedded: bool,
    /// Partitions of every topic.
    pub partitions: u32,
    /// How many of each service there are.
    pub of_each: usize,
    /// Decisions between two checkpoints.
    pub checkpoint_every: u64,
    /// Decided attempts that the read side keeps.
    pub keep_attempts: usize,
    /// Undecided records that the read side keeps.
    pub max_undecided: usize,
}

impl Cast {
    /// The nodes of a role.
    pub fn nodes(&self, role: Role) -> Vec<Node> {
        let count = match (role, self.embedded) {
            (Role::Shop, embedded) => usize::from(embedded),
            (_, true) => 0,
            (Role::Decider | Role::Projector, false) => self.of_each,
            (Role::Door | Role::Query, false) => self.of_each.min(2),
        };
        (0..count).map(|n| Node(role, n)).collect()
    }

    /// All nodes.
    pub fn all(&self) -> Vec<Node> {
        let roles = [
            Role::Door,
            Role::Decider,
            Role::Projector,
            Role::Query,
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
    /// What.
    pub what: What,
}

/// What may happen.
#[derive(Debug, Clone)]
pub enum What {
    /// A person asks over HTTP.
    Ask(Ask),
    /// Something breaks.
    Fault(Fault),
}

/// What is asked.
#[derive(Debug, Clone)]
pub enum Ask {
    /// A buyer orders, under a key that says which order it is.
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
        /// Whether the client sends it again until it is taken.
        insists: bool,
    },
    /// A buyer gives back the order of that key; another buyer may try, too.
    Cancel {
        /// The product, by number.
        product: usize,
        /// The buyer of the order.
        buyer: u32,
        /// The order's key.
        key: u32,
        /// Who asks.
        by: u32,
    },
    /// The seller puts a sale on, or changes its terms.
    Put {
        /// The product.
        product: usize,
        /// Units.
        stock: u32,
        /// Most units of one buyer.
        limit: Option<u32>,
        /// How long units are held.
        hold_ms: Option<Ms>,
        /// Opens so long from now; none: at once.
        opens_in: Option<Ms>,
        /// Closes so long from now; none: never.
        closes_in: Option<Ms>,
    },
    /// The seller opens, pauses or closes the sale, as the API's path has it.
    Change {
        /// The product.
        product: usize,
        /// The path's last part.
        how: &'static str,
    },
    /// The seller sets the round's total.
    Stock {
        /// The product.
        product: usize,
        /// Units.
        stock: u32,
    },
    /// Somebody looks at the sale.
    Look {
        /// The product.
        product: usize,
    },
}

/// What breaks.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A node ends wherever it is, and starts again after a while.
    Crash(Node, Ms),
    /// Nothing goes to or from a node; others take over what it had, or nobody does.
    Freeze(Node, Ms, bool),
    /// Partitions move in mid-batch.
    Rebalance(Role),
    /// A node's clock steps.
    NodeClock(Node, i64),
    /// The log's clock steps.
    LogClock(i64),
    /// The store is away.
    StoreAway(Ms),
    /// What shoppers send to a node is lost.
    Cut(Node, Ms),
    /// What shoppers send to a node, and what it answers, arrives only afterwards.
    Hold(Node, Ms),
    /// The machine with everything in one process loses power for a while.
    PowerCut(Ms),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Ask(ask) => write!(f, "{:>6} ms  {ask:?}", self.at),
            What::Fault(fault) => write!(f, "{:>6} ms  ** {fault:?}", self.at),
        }
    }
}

impl Plan {
    /// The run of a seed.
    pub fn of(seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let cast = cast(&mut dice);
        let weather = weather(&mut dice);
        let mut steps = Vec::new();
        let products = dice.random_range(1..=PRODUCTS.len());
        for product in 0..products {
            let at = dice.random_range(1..400);
            steps.push(Step {
                at,
                what: What::Ask(put(&mut dice, product)),
            });
        }
        let asks = dice.random_range(20..140);
        let mut orders = Vec::new();
        for _ in 0..asks {
            let what = What::Ask(ask(&mut dice, products, &mut orders));
            steps.push(Step {
                at: moment(&mut dice),
                what,
            });
        }
        for _ in 0..dice.random_range(0..8) {
            let what = What::Fault(fault(&mut dice, &cast));
            steps.push(Step {
                at: dice.random_range(200..SCRIPT_MS),
                what,
            });
        }
        steps.sort_by_key(|step| step.at);
        Self {
            seed,
            cast,
            weather,
            steps,
        }
    }
}

fn cast(dice: &mut StdRng) -> Cast {
    let embedded = dice.random_bool(0.25);
    Cast {
        embedded,
        partitions: dice.random_range(1..=3),
        of_each: dice.random_range(1..=3),
        checkpoint_every: dice.random_range(3..60),
        keep_attempts: dice.random_range(1..60),
        max_undecided: dice.random_range(1..60),
    }
}

fn weather(dice: &mut StdRng) -> Weather {
    let mut up_to = |most: u32| match dice.random_bool(0.4) {
        true => 0,
        false => dice.random_range(0..=most),
    };
    Weather {
        slow: up_to(300),
        longest_ms: up_to(3_000).into(),
        lost: up_to(40),
        unsaid: up_to(40),
        late: up_to(40),
        mangled: up_to(40),
        failed_read: up_to(20),
    }
}

/// Orders come in rushes.
fn moment(dice: &mut StdRng) -> Ms {
    match dice.random_bool(0.5) {
        true => 1_000 * dice.random_range(1..10) + dice.random_range(0..30),
        false => dice.random_range(300..SCRIPT_MS),
    }
}

fn put(dice: &mut StdRng, product: usize) -> Ask {
    Ask::Put {
        product,
        stock: dice.random_range(0..25),
        limit: dice.random_bool(0.5).then(|| dice.random_range(1..5)),
        hold_ms: dice.random_bool(0.5).then(|| dice.random_range(1..3_000)),
        opens_in: dice.random_bool(0.3).then(|| dice.random_range(1..2_000)),
        closes_in: dice
            .random_bool(0.2)
            .then(|| dice.random_range(3_000..15_000)),
    }
}

/// An order by product, buyer and key.
type Named = (usize, u32, u32);

fn ask(dice: &mut StdRng, products: usize, orders: &mut Vec<Named>) -> Ask {
    let product = dice.random_range(0..products);
    let earlier = match orders.len() {
        0 => None,
        len => Some(orders[dice.random_range(0..len)]),
    };
    match (dice.random_range(0..100), earlier) {
        (0..=3, _) => put(dice, product),
        (4..=6, _) => Ask::Change {
            product,
            how: ["open", "open", "pause", "close"][dice.random_range(0..4)],
        },
        (7..=9, _) => Ask::Stock {
            product,
            stock: dice.random_range(0..30),
        },
        (10..=13, _) => Ask::Look { product },
        (14..=24, Some((product, buyer, key))) => {
            let by = if dice.random_bool(0.9) {
                buyer
            } else {
                dice.random_range(0..BUYERS)
            };
            Ask::Cancel {
                product,
                buyer,
                key,
                by,
            }
        }
        (25..=34, Some((product, buyer, key))) => order(dice, (product, buyer, key)),
        _ => {
            let named = (product, dice.random_range(0..BUYERS), orders.len() as u32);
            orders.push(named);
            order(dice, named)
        }
    }
}

fn order(dice: &mut StdRng, (product, buyer, key): Named) -> Ask {
    Ask::Order {
        product,
        buyer,
        key,
        // The same key with another quantity is the same order: its first answer stands.
        quantity: dice.random_range(1..4),
        copies: if dice.random_bool(0.15) { 2 } else { 1 },
        insists: dice.random_bool(0.9),
    }
}

fn fault(dice: &mut StdRng, cast: &Cast) -> Fault {
    let all = cast.all();
    let node = all[dice.random_range(0..all.len())];
    let doors: Vec<_> = all
        .iter()
        .copied()
        .filter(|node| node.0 != Role::Decider && node.0 != Role::Projector)
        .collect();
    let door = doors[dice.random_range(0..doors.len())];
    let away = dice.random_range(50..4_000);
    let step = dice.random_range(-3_000..3_000);
    match dice.random_range(0..100) {
        0..=29 if cast.embedded => Fault::PowerCut(away),
        0..=29 => Fault::Crash(node, away),
        30..=49 => Fault::Freeze(node, away, dice.random_bool(0.7)),
        50..=59 => Fault::Rebalance([Role::Decider, Role::Projector][dice.random_range(0..2)]),
        60..=65 => Fault::NodeClock(node, step),
        66..=71 => Fault::LogClock(step),
        72..=79 => Fault::StoreAway(away),
        80..=89 => Fault::Cut(door, away),
        _ => Fault::Hold(door, away),
    }
}
