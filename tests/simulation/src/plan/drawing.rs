//! Draws the plan of a seed. What was added later is drawn apart, from a generator of its own, so that
//! all the rest of a seed's plan stays as it was.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use schemas::ids::Partition;
use schemas::topics::Topic;

use super::{Action, Deployment, Fault, GARBAGE, PRODUCTS, Plan, Request, SCRIPT_MS, Step};
use crate::world::{FaultRates, LogChange, Ms, Role};

const BUYERS: u32 = 9;

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let deployment = deployment(&mut rng);
        let fault_rates = fault_rates(&mut rng);
        let mut steps = Vec::new();
        let products = rng.random_range(1..=PRODUCTS.len());
        for product in 0..products {
            let at = rng.random_range(1..400);
            steps.push(Step {
                at,
                action: Action::Request(put(&mut rng, product)),
            });
        }
        let requests = rng.random_range(20..140);
        let mut orders = Vec::new();
        for _ in 0..requests {
            let action = Action::Request(request(&mut rng, products, &mut orders));
            steps.push(Step {
                at: request_time(&mut rng),
                action,
            });
        }
        for _ in 0..rng.random_range(0..8) {
            let action = Action::Fault(fault(&mut rng, &deployment));
            steps.push(Step {
                at: rng.random_range(200..SCRIPT_MS),
                action,
            });
        }
        steps.sort_by_key(|step| step.at);
        let mut plan = Self {
            seed,
            deployment,
            fault_rates,
            only_backpressure: false,
            steps,
            stops_deciders: false,
            log_change: None,
        };
        plan.add_backpressure();
        plan.add_rounds(products);
        plan.add_clock_jump();
        plan.add_poison();
        plan.add_log_change();
        plan.stop_deciders();
        plan
    }

    /// Lets somebody else append records in some plans that nobody can decode. Drawn apart as well.
    fn add_poison(&mut self) {
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0x0DD5);
        if !rng.random_bool(0.3) {
            return;
        }
        for _ in 0..rng.random_range(1..16) {
            let topic = match rng.random_range(0..5) {
                0 => Topic::ProductSnapshots,
                1 => Topic::StockDecisions,
                _ => Topic::PurchaseAttempts,
            };
            let partition = Partition(rng.random_range(0..self.deployment.partitions));
            let garbage = GARBAGE[rng.random_range(0..GARBAGE.len())];
            self.steps.push(Step {
                at: request_time(&mut rng),
                action: Action::Fault(Fault::Poison(topic, partition, garbage)),
            });
        }
        self.steps.sort_by_key(|step| step.at);
    }

    /// Stops all deciders for a while in some plans. Drawn apart as well.
    fn stop_deciders(&mut self) {
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0xDEC1);
        let may_stop = !self.deployment.embedded && !self.only_backpressure;
        self.stops_deciders = may_stop && rng.random_bool(0.1);
    }

    /// Replaces the log in some plans, or lets it lose its end. Drawn apart as well.
    fn add_log_change(&mut self) {
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0x0106);
        if rng.random_bool(0.2) {
            let keeps_checkpoints = rng.random_bool(0.7);
            self.log_change = Some(match rng.random_range(0..5) {
                0 => LogChange::Recreated { keeps_checkpoints },
                1 => LogChange::Replaced { keeps_checkpoints },
                2 => LogChange::Continued,
                3 => LogChange::LostEnd { restarts: true },
                _ => LogChange::LostEnd { restarts: false },
            });
        }
    }

    /// Lets the log's clock jump in some plans, after which an operator corrects the time. It is drawn
    /// apart, like backpressure.
    fn add_clock_jump(&mut self) {
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0xC1_0C);
        if self.only_backpressure || !rng.random_bool(0.15) {
            return;
        }
        // A machine that starts while its clock is wrong cannot know that.
        let is_cut = |step: &Step| matches!(step.action, Action::Fault(Fault::PowerCut(_)));
        self.steps.retain(|step| !is_cut(step));
        const MINUTE_MS: i64 = 60_000;
        let ahead_ms = rng.random_range(10 * MINUTE_MS..10_000_000 * MINUTE_MS);
        let by_ms = match rng.random_bool(0.7) {
            true => ahead_ms,
            false => -ahead_ms % (1_000 * MINUTE_MS) - 10 * MINUTE_MS,
        };
        let at = rng.random_range(500..SCRIPT_MS - 4_000);
        let for_ms = rng.random_range(10..3_000);
        self.steps.push(Step {
            at,
            action: Action::Fault(Fault::ClockJump(by_ms, for_ms)),
        });
        self.steps.push(Step {
            at: at + for_ms + rng.random_range(10..900),
            action: Action::Request(Request::CorrectClock),
        });
        self.steps.sort_by_key(|step| step.at);
    }

    /// Lets append queues be full at times; in some plans, nothing else goes wrong. It is drawn apart,
    /// so that all the rest of a seed's plan stays as it was.
    fn add_backpressure(&mut self) {
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0xF0_11);
        self.only_backpressure = rng.random_bool(0.08);
        if self.only_backpressure {
            self.fault_rates = FaultRates {
                slow: self.fault_rates.slow,
                longest_ms: self.fault_rates.longest_ms,
                full: rng.random_range(20..=300),
                ..FaultRates::default()
            };
            let is_request = |step: &Step| matches!(step.action, Action::Request(_));
            self.steps.retain(is_request);
        } else if rng.random_bool(0.6) {
            self.fault_rates.full = rng.random_range(0..=100);
        }
    }
}

/// New rounds, drawn apart.
impl Plan {
    /// Lets the seller end rounds, put terms just after the end, and begin further rounds, while
    /// buyers send the keys of earlier orders again.
    fn add_rounds(&mut self, products: usize) {
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0x20_0D);
        if !rng.random_bool(0.5) {
            return;
        }
        let is_order = |step: &Step| match step.action {
            Action::Request(Request::Order {
                product,
                buyer,
                key,
                ..
            }) => Some((product, buyer, key)),
            _ => None,
        };
        let orders: Vec<OrderName> = self.steps.iter().filter_map(is_order).collect();
        for _ in 0..rng.random_range(1..4) {
            let product = rng.random_range(0..products);
            let end = rng.random_range(1_000..SCRIPT_MS - 2_000);
            let mut add = |at, request| {
                let action = Action::Request(request);
                self.steps.push(Step { at, action });
            };
            let how = "close";
            add(end, Request::Change { product, how });
            if rng.random_bool(0.5) {
                add(end + rng.random_range(0..100), put(&mut rng, product));
            }
            // While units are held, no round begins: it is tried again.
            let mut at = end;
            for _ in 0..rng.random_range(1..4) {
                at += rng.random_range(1..700);
                add(at, in_new_round(put(&mut rng, product)));
            }
            let again: Vec<_> = orders.iter().filter(|name| name.0 == product).collect();
            for _ in 0..again.len().min(rng.random_range(0..12)) {
                let name = *again[rng.random_range(0..again.len())];
                add(end + rng.random_range(0..2_500), order(&mut rng, name));
            }
        }
        self.steps.sort_by_key(|step| step.at);
    }
}

fn in_new_round(mut request: Request) -> Request {
    if let Request::Put { begins_round, .. } = &mut request {
        *begins_round = true;
    }
    request
}

fn deployment(rng: &mut StdRng) -> Deployment {
    let embedded = rng.random_bool(0.25);
    Deployment {
        embedded,
        partitions: rng.random_range(1..=3),
        of_each: rng.random_range(1..=3),
        checkpoint_every: rng.random_range(3..60),
        keep_attempts: rng.random_range(1..60),
        max_undecided: rng.random_range(1..60),
    }
}

fn fault_rates(rng: &mut StdRng) -> FaultRates {
    let mut up_to = |most: u32| match rng.random_bool(0.4) {
        true => 0,
        false => rng.random_range(0..=most),
    };
    FaultRates {
        slow: up_to(300),
        longest_ms: up_to(3_000).into(),
        full: 0,
        lost: up_to(40),
        unacknowledged: up_to(40),
        late: up_to(40),
        mangled: up_to(40),
        failed_read: up_to(20),
    }
}

/// Half of the requests come in bursts.
fn request_time(rng: &mut StdRng) -> Ms {
    match rng.random_bool(0.5) {
        true => 1_000 * rng.random_range(1..10) + rng.random_range(0..30),
        false => rng.random_range(300..SCRIPT_MS),
    }
}

fn put(rng: &mut StdRng, product: usize) -> Request {
    Request::Put {
        begins_round: false,
        product,
        stock: rng.random_range(0..25),
        limit: rng.random_bool(0.5).then(|| rng.random_range(1..5)),
        hold_ms: rng.random_bool(0.5).then(|| rng.random_range(1..3_000)),
        opens_in: rng.random_bool(0.3).then(|| rng.random_range(1..2_000)),
        closes_in: rng
            .random_bool(0.2)
            .then(|| rng.random_range(3_000..15_000)),
    }
}

/// An order's name: product, buyer and key.
type OrderName = (usize, u32, u32);

fn request(rng: &mut StdRng, products: usize, orders: &mut Vec<OrderName>) -> Request {
    let product = rng.random_range(0..products);
    let earlier = match orders.len() {
        0 => None,
        len => Some(orders[rng.random_range(0..len)]),
    };
    match (rng.random_range(0..100), earlier) {
        (0..=3, _) => put(rng, product),
        (4..=6, _) => Request::Change {
            product,
            how: ["open", "open", "pause", "close"][rng.random_range(0..4)],
        },
        (7..=9, _) => Request::Stock {
            product,
            stock: rng.random_range(0..30),
        },
        (10..=13, _) => Request::Look { product },
        (14..=24, Some((product, buyer, key))) => {
            let by = if rng.random_bool(0.9) {
                buyer
            } else {
                rng.random_range(0..BUYERS)
            };
            Request::Cancel {
                product,
                buyer,
                key,
                by,
            }
        }
        (25..=34, Some((product, buyer, key))) => order(rng, (product, buyer, key)),
        _ => {
            let name = (product, rng.random_range(0..BUYERS), orders.len() as u32);
            orders.push(name);
            order(rng, name)
        }
    }
}

fn order(rng: &mut StdRng, (product, buyer, key): OrderName) -> Request {
    Request::Order {
        product,
        buyer,
        key,
        // The same key with another quantity is a conflict: the first answer stands.
        quantity: rng.random_range(1..4),
        copies: if rng.random_bool(0.15) { 2 } else { 1 },
        insists: rng.random_bool(0.9),
    }
}

fn fault(rng: &mut StdRng, deployment: &Deployment) -> Fault {
    let all = deployment.all();
    let node = all[rng.random_range(0..all.len())];
    let http_nodes: Vec<_> = all
        .iter()
        .copied()
        .filter(|node| node.0 != Role::Decider && node.0 != Role::Projector)
        .collect();
    let http_node = http_nodes[rng.random_range(0..http_nodes.len())];
    let for_ms = rng.random_range(50..4_000);
    let step = rng.random_range(-3_000..3_000);
    match rng.random_range(0..100) {
        0..=29 if deployment.embedded => Fault::PowerCut(for_ms),
        0..=29 => Fault::Crash(node, for_ms),
        30..=49 => Fault::Freeze(node, for_ms, rng.random_bool(0.7)),
        50..=59 => Fault::Rebalance([Role::Decider, Role::Projector][rng.random_range(0..2)]),
        60..=65 => Fault::NodeClock(node, step),
        66..=71 => Fault::LogClock(step),
        72..=79 => Fault::StoreUnavailable(for_ms),
        80..=89 => Fault::Cut(http_node, for_ms),
        _ => Fault::Hold(http_node, for_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_jump_on_both_kinds_of_logs() {
        let jumps = |step: &Step| matches!(step.action, Action::Fault(Fault::ClockJump(..)));
        let plans = (0..1_000).map(Plan::of);
        let jumping: Vec<_> = plans.filter(|plan| plan.steps.iter().any(jumps)).collect();
        let seeds = |embedded: bool| {
            let of_kind = jumping
                .iter()
                .filter(|plan| plan.deployment.embedded == embedded);
            of_kind.map(|plan| plan.seed).collect::<Vec<_>>()
        };
        let (embedded, distributed) = (seeds(true), seeds(false));
        assert!(embedded.len() > 5, "{embedded:?}");
        assert!(distributed.len() > 20, "{distributed:?}");
    }

    #[test]
    fn every_topic_is_poisoned_and_every_log_change_is_drawn() {
        let plans: Vec<_> = (0..1_000).map(Plan::of).collect();
        for topic in Topic::ALL {
            let poisons = |step: &Step| matches!(step.action, Action::Fault(Fault::Poison(of, ..)) if of == topic);
            let poisoned = plans.iter().filter(|plan| plan.steps.iter().any(poisons));
            assert!(poisoned.count() > 100, "{topic}");
        }
        for kind in ["Recreated", "Replaced", "Continued", "LostEnd"] {
            let is_of_kind = |plan: &&Plan| format!("{:?}", plan.log_change).contains(kind);
            assert!(plans.iter().filter(is_of_kind).count() > 20, "{kind}");
        }
    }
}
