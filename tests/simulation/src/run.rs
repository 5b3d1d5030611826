//! One run: the nodes and the shoppers on the simulated network, stepped through the plan, then
//! on without faults until all work is done.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use schemas::ids::Partition;
use turmoil::Sim;

use crate::checker;
use crate::nodes;
use crate::plan::{Action, Fault, Plan, SCRIPT_MS};
use crate::shoppers::{self, Shoppers};
use crate::world::{FaultRates, LogChange, Ms, Node, Role, World};

/// The simulated time of one step.
const TICK_MS: Ms = 2;
/// How long all work may take once the faults have ended.
const END_WITHIN_MS: Ms = 60_000;
/// How long no request is sent before the last reads.
const QUIET_MS: Ms = 3_000;
/// How long a power cut waits for a write that it can tear.
const CUT_WITHIN_MS: Ms = 1_000;
/// How long no decider runs: longer than a record may wait for its decision before health shows it.
const WITHOUT_DECIDER_MS: Ms = 14_000;
/// How long deciders are alone with a log that lost decisions.
const CONTINUES_FOR_MS: Ms = 2_000;
/// How long after the log has changed its readers know that at the latest.
const NOTICED_WITHIN_MS: Ms = 5_000;
/// How long after a node left or joined the others notice it.
const SESSION_MS: Ms = 400;

/// The result of a run.
pub struct Outcome {
    /// SHA-256 of every record, row and response.
    pub digest: String,
    /// How long it took, in simulated time.
    pub simulated: Duration,
    /// The rules that were broken; empty when all held.
    pub violations: Vec<String>,
}

/// Runs a plan and checks the result.
pub fn run(plan: &Plan) -> Outcome {
    let Plan {
        seed,
        deployment,
        fault_rates,
        ..
    } = *plan;
    let world = World::new(
        seed,
        deployment.partitions,
        fault_rates,
        deployment.embedded,
    );
    let shoppers = Shoppers::new(world.clone(), &deployment);
    let mut end = None;
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut run = Run::new(plan, world.clone(), shoppers.clone());
        run.run_to_the_end()?;
        end = Some(world.end_state());
        plan.log_change
            .map_or(Ok(vec![]), |change| run.change_log(change))
    }));
    let simulated = Duration::from_millis(world.now());
    let mut violations = match ran {
        Ok(Ok(violations)) => violations,
        Ok(Err(why)) => vec![why],
        Err(panic) => vec![format!("panicked: {}", text_of(&*panic))],
    };
    let end = end.unwrap_or_else(|| world.end_state());
    let observations = shoppers.observations.lock();
    violations.extend(checker::check(&end, &observations));
    if deployment.embedded {
        violations.extend(checker::stamped_jumps(&end));
    }
    if plan.only_backpressure {
        violations.extend(checker::claimed_twice(&end));
    }
    Outcome {
        digest: checker::digest(&end, &observations),
        simulated,
        violations,
    }
}

/// The text that a panic came with.
fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

struct Run<'a> {
    plan: &'a Plan,
    world: Arc<World>,
    shoppers: Arc<Shoppers>,
    sim: Sim<'static>,
    /// The ends of faults, by time.
    later: BTreeMap<(Ms, usize), Undo>,
    down: Vec<Node>,
    /// How far each role's partitions are rotated among its members.
    rotations: BTreeMap<Role, usize>,
}

/// What ends a fault.
enum Undo {
    Start(Node),
    Repair(Node),
    Release(Node),
    /// Steps the log's clock back by this.
    SetClock(i64),
    /// The members of the groups have changed.
    Share,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, world: Arc<World>, shoppers: Arc<Shoppers>) -> Self {
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .tick_duration(Duration::from_millis(TICK_MS))
            .simulation_duration(Duration::from_secs(3_600))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(40))
            .tcp_capacity(1_024)
            .enable_random_order()
            .build();
        for node in plan.deployment.all() {
            let (world, deployment) = (world.clone(), plan.deployment);
            sim.host(node.to_string(), move || {
                nodes::run(world.clone(), node, deployment)
            });
        }
        sim.client(shoppers::HOST, shoppers.clone().run(plan.clone()));
        Self {
            plan,
            world,
            shoppers,
            sim,
            later: BTreeMap::new(),
            down: Vec::new(),
            rotations: BTreeMap::new(),
        }
    }

    fn run_to_the_end(&mut self) -> Result<(), String> {
        self.share();
        let plan = self.plan;
        let mut faults = plan
            .steps
            .iter()
            .enumerate()
            .filter_map(|(n, step)| match &step.action {
                Action::Fault(fault) => Some((n, step.at, fault)),
                Action::Request(_) => None,
            });
        let mut next = faults.next();
        while self.world.now() < SCRIPT_MS {
            while let Some((n, _, fault)) = next.filter(|(_, at, fault)| self.is_due(*at, fault)) {
                self.inject(n, fault)?;
                next = faults.next();
            }
            self.step()?;
        }
        self.end_faults();
        self.run_until_quiet()?;
        if plan.stops_deciders {
            self.run_without_decider()?;
        }
        let patience = self.world.now() + END_WITHIN_MS;
        self.world.settle();
        self.shoppers.settled.send_replace(true);
        while !self.step()? {
            if self.world.now() > patience + END_WITHIN_MS {
                return Err("the last reads are not answered".into());
            }
        }
        // Deadlines may have caused decisions meanwhile, which the store must have, too.
        while !self.world.is_quiet() {
            self.step()?;
            if self.world.now() > patience + 2 * END_WITHIN_MS {
                return Err(self.describe_unfinished());
            }
        }
        Ok(())
    }

    fn run_until_quiet(&mut self) -> Result<(), String> {
        let patience = self.world.now() + END_WITHIN_MS;
        while !(*self.shoppers.all_answered.borrow() && self.world.is_quiet()) {
            self.step()?;
            if self.world.now() > patience {
                return Err(self.describe_unfinished());
            }
        }
        // The query API's memory follows the store at its own pace, and deadlines pass with time.
        self.run_for(QUIET_MS)
    }

    /// Stops all deciders while shoppers order. Who serves reads reports it, and all is decided when
    /// deciders run again.
    fn run_without_decider(&mut self) -> Result<(), String> {
        let deciders = self.plan.deployment.nodes(Role::Decider);
        deciders.iter().for_each(|node| self.crash(*node));
        let before = self.world.count_attempts();
        self.shoppers.all_answered.send_replace(false);
        let shoppers = self.shoppers.clone();
        self.sim
            .client("patient-shoppers", shoppers.run_without_decider());
        self.run_for(WITHOUT_DECIDER_MS)?;
        self.check_undecided(self.world.count_attempts() > before)?;
        deciders
            .iter()
            .for_each(|node| self.undo(Undo::Start(*node)));
        self.run_until_quiet()?;
        self.check_undecided(false)
    }

    /// Whether every query API reports undecided records if there are some, and only then.
    fn check_undecided(&self, expected: bool) -> Result<(), String> {
        for node in self.plan.deployment.nodes(Role::QueryApi) {
            let why = self.world.degraded_because(node);
            if why.iter().any(|why| why.contains("is a decider running?")) != expected {
                return Err(format!(
                    "{node} {} report undecided records: {why:?}",
                    if expected { "does not" } else { "must not" }
                ));
            }
        }
        Ok(())
    }

    /// Changes the log and lets shoppers come once more; returns the rules that were broken.
    fn change_log(&mut self, change: LogChange) -> Result<Vec<String>, String> {
        let nodes = self.plan.deployment.all();
        if change.restarts() {
            nodes.iter().for_each(|node| self.crash(*node));
        }
        let knowing = self.world.change_log(change);
        let before = self.world.end_state();
        if let LogChange::Continued = change {
            let deciders = nodes.iter().filter(|node| node.0 == Role::Decider);
            deciders.for_each(|node| self.undo(Undo::Start(*node)));
            self.run_for(CONTINUES_FOR_MS)?;
        }
        // Those that run already go on.
        nodes.iter().for_each(|node| self.undo(Undo::Start(*node)));
        self.run_for(NOTICED_WITHIN_MS)?;
        let shoppers = self.shoppers.clone();
        self.sim
            .client("late-shoppers", shoppers.run_after_log_change());
        let patience = self.world.now() + END_WITHIN_MS;
        while !self.step()? {
            if self.world.now() > patience {
                return Err("requests after the log has changed are not answered".into());
            }
        }
        let after = self.world.end_state();
        let answers = self.shoppers.late_answers.lock();
        let mut violations = checker::after_log_change(&before, &after, &knowing, &answers);
        // A projector that goes on reads only one of the topics.
        let is_shorter = |partition: &Partition| before.lacks_projected(*partition);
        for node in nodes {
            let assigned = self.world.assigned(node);
            let must_stop = match node.0 {
                Role::CommandApi | Role::QueryApi | Role::Shop => true,
                Role::Projector if change.restarts() => !assigned.is_empty(),
                Role::Projector => assigned.iter().any(is_shorter),
                Role::Decider => !assigned.is_disjoint(&knowing),
            };
            let why = self.world.stopped_because(node);
            if must_stop && !why.iter().any(|why| why.contains("log")) {
                violations.push(format!(
                    "after {change:?}, {node} has not stopped because of it: {why:?}"
                ));
            }
        }
        Ok(violations)
    }

    fn run_for(&mut self, ms: Ms) -> Result<(), String> {
        for _ in 0..ms / TICK_MS {
            self.step()?;
        }
        Ok(())
    }

    /// One step; returns whether the shoppers have finished.
    fn step(&mut self) -> Result<bool, String> {
        let now = self.sim.elapsed().as_millis() as Ms;
        self.world.advance(now);
        while let Some(next) = self.later.first_entry().filter(|next| next.key().0 <= now) {
            let undo = next.remove();
            self.undo(undo);
        }
        self.sim
            .step()
            .map_err(|error| format!("a node failed: {error}"))
    }

    /// Whether a fault happens now. The power fails while the log writes several sectors, if it soon does.
    fn is_due(&self, at: Ms, fault: &Fault) -> bool {
        let now = self.world.now();
        let waits = matches!(fault, Fault::PowerCut(_))
            && now < at + CUT_WITHIN_MS
            && !self.world.writes_several_sectors();
        at <= now && !waits
    }

    fn inject(&mut self, n: usize, fault: &Fault) -> Result<(), String> {
        let now = self.world.now();
        match *fault {
            Fault::Crash(node, ms) => {
                self.crash(node);
                self.later.insert((now + ms, n), Undo::Start(node));
            }
            Fault::PowerCut(ms) => {
                let shop = Node(Role::Shop, 0);
                self.crash(shop);
                self.world
                    .cut_power()
                    .map_err(|why| format!("after a power cut: {why}"))?;
                self.later.insert((now + ms, n), Undo::Start(shop));
            }
            Fault::Freeze(node, ms, noticed) => {
                self.world.freeze(node, now + ms);
                if noticed {
                    self.later.insert((now + SESSION_MS, n), Undo::Share);
                }
                self.later.insert((now + ms + SESSION_MS, n), Undo::Share);
            }
            Fault::Rebalance(role) => {
                *self.rotations.entry(role).or_default() += 1;
                self.share();
            }
            Fault::NodeClock(node, by_ms) => self.world.step_clock(node, by_ms),
            Fault::LogClock(by_ms) => self.world.step_log_clock(by_ms),
            Fault::ClockJump(by_ms, for_ms) => {
                self.world.step_log_clock(by_ms);
                self.later.insert((now + for_ms, n), Undo::SetClock(by_ms));
            }
            Fault::Poison(topic, partition, garbage) => {
                self.world.poison(topic, partition, garbage);
            }
            Fault::StoreUnavailable(ms) => self.world.stop_store(now + ms),
            Fault::Cut(node, ms) => {
                self.sim.partition(shoppers::HOST, node.to_string());
                self.later.insert((now + ms, n), Undo::Repair(node));
            }
            Fault::Hold(node, ms) => {
                self.sim.hold(shoppers::HOST, node.to_string());
                self.later.insert((now + ms, n), Undo::Release(node));
            }
        }
        Ok(())
    }

    fn crash(&mut self, node: Node) {
        if !self.down.contains(&node) {
            self.sim.crash(node.to_string());
            self.down.push(node);
            let now = self.world.now();
            self.later
                .insert((now + SESSION_MS, usize::MAX), Undo::Share);
        }
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Start(node) => {
                if self.down.contains(&node) {
                    self.sim.bounce(node.to_string());
                    self.down.retain(|down| *down != node);
                }
                self.share();
            }
            Undo::Repair(node) => self.sim.repair(shoppers::HOST, node.to_string()),
            Undo::Release(node) => self.sim.release(shoppers::HOST, node.to_string()),
            Undo::SetClock(by_ms) => self.world.step_log_clock(-by_ms),
            Undo::Share => self.share(),
        }
    }

    /// Assigns the partitions to the members that are up. A frozen one is not notified that it has
    /// lost its own.
    fn share(&mut self) {
        let deployment = self.plan.deployment;
        for role in [Role::Decider, Role::Projector, Role::Shop] {
            let rotations = self.rotations.get(&role).copied().unwrap_or(0);
            let is_up = |node: &Node| !self.down.contains(node) && !self.world.is_frozen(*node);
            let members: Vec<_> = deployment.nodes(role).into_iter().filter(is_up).collect();
            for (n, member) in members.iter().enumerate() {
                let mine = |p: &u32| (*p as usize + rotations) % members.len() == n;
                let partitions = (0..deployment.partitions).filter(mine).map(Partition);
                self.world.assign(*member, partitions.collect());
            }
        }
    }

    /// Ends all faults: nodes that are down start, and connections are repaired.
    fn end_faults(&mut self) {
        for (_, undo) in std::mem::take(&mut self.later) {
            self.undo(undo);
        }
        self.world.set_fault_rates(FaultRates::default());
        for node in self.plan.deployment.all() {
            self.world.freeze(node, 0);
            self.world.set_clock_right(node);
        }
        self.world.stop_store(0);
        self.share();
    }

    fn describe_unfinished(&self) -> String {
        let all_answered = *self.shoppers.all_answered.borrow();
        let end = self.world.end_state();
        let lengths = end.records.iter().map(|((topic, partition), records)| {
            format!("{topic} {partition} has {} records", records.len())
        });
        let lengths: Vec<_> = lengths.collect();
        format!(
            "work is left after {} s without faults: all requests answered: {all_answered}; {}; stored: {:?}",
            END_WITHIN_MS / 1_000,
            lengths.join(", "),
            end.progress
        )
    }
}
