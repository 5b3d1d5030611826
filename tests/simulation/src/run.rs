//! One run: the nodes and the people on the simulated network, stepped through the plan, then
//! through calm weather until everything has come to its end.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use schemas::ids::Partition;
use turmoil::Sim;

use crate::checker;
use crate::nodes;
use crate::plan::{Fault, Plan, SCRIPT_MS, What};
use crate::shoppers::{self, Shoppers};
use crate::world::{Ms, Node, Role, Weather, World};

/// How much time passes at once.
const TICK_MS: Ms = 2;
/// How long everything may take to end once the faults have.
const END_WITHIN_MS: Ms = 60_000;
/// How long nothing is asked before the last questions.
const REST_MS: Ms = 3_000;
/// How long after a node has gone or come the others learn of it.
const SESSION_MS: Ms = 400;

/// What became of a run.
pub struct Outcome {
    /// SHA-256 of everything that was appended, stored and told.
    pub digest: String,
    /// How long it took, in simulated time.
    pub simulated: Duration,
    /// What did not hold; empty when all did.
    pub violations: Vec<String>,
}

/// Carries out a plan and checks what came of it.
pub fn run(plan: &Plan) -> Outcome {
    let Plan {
        seed,
        cast,
        weather,
        ..
    } = *plan;
    let world = World::new(seed, cast.partitions, weather, cast.embedded);
    let people = Shoppers::new(world.clone(), &cast);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut run = Run::new(plan, world.clone(), people.clone());
        run.go_to_the_end()
    }));
    let simulated = Duration::from_millis(world.now());
    let mut violations = match ran {
        Ok(Ok(())) => vec![],
        Ok(Err(why)) => vec![why],
        Err(panic) => vec![format!("panicked: {}", text_of(&*panic))],
    };
    let end = world.end_state();
    let told = people.told.lock();
    violations.extend(checker::check(&end, &told));
    Outcome {
        digest: checker::digest(&end, &told),
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
    people: Arc<Shoppers>,
    sim: Sim<'static>,
    /// What is to be undone, by time.
    later: BTreeMap<(Ms, usize), Undo>,
    down: Vec<Node>,
    /// How far the partitions are turned round among the members.
    turned: BTreeMap<Role, usize>,
}

/// What ends a fault.
enum Undo {
    Start(Node),
    Repair(Node),
    Release(Node),
    /// The members of the groups have changed.
    Share,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, world: Arc<World>, people: Arc<Shoppers>) -> Self {
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .tick_duration(Duration::from_millis(TICK_MS))
            .simulation_duration(Duration::from_secs(3_600))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(40))
            .tcp_capacity(1_024)
            .enable_random_order()
            .build();
        for node in plan.cast.all() {
            let (world, cast) = (world.clone(), plan.cast);
            sim.host(node.to_string(), move || {
                nodes::run(world.clone(), node, cast)
            });
        }
        sim.client(shoppers::HOST, people.clone().run(plan.clone()));
        Self {
            plan,
            world,
            people,
            sim,
            later: BTreeMap::new(),
            down: Vec::new(),
            turned: BTreeMap::new(),
        }
    }

    fn go_to_the_end(&mut self) -> Result<(), String> {
        self.share();
        let plan = self.plan;
        let mut faults = plan
            .steps
            .iter()
            .enumerate()
            .filter_map(|(n, step)| match &step.what {
                What::Fault(fault) => Some((n, step.at, fault)),
                What::Ask(_) => None,
            });
        let mut next = faults.next();
        while self.world.now() < SCRIPT_MS {
            while let Some((n, _, fault)) = next.filter(|(_, at, _)| *at <= self.world.now()) {
                self.strike(n, fault)?;
                next = faults.next();
            }
            self.step()?;
        }
        self.calm_down();
        let patience = self.world.now() + END_WITHIN_MS;
        while !(*self.people.satisfied.borrow() && self.world.is_quiet()) {
            self.step()?;
            if self.world.now() > patience {
                return Err(self.what_is_left());
            }
        }
        // What the read side keeps in memory follows the store at its own pace, and what is due
        // by time alone comes with time.
        for _ in 0..REST_MS / TICK_MS {
            self.step()?;
        }
        self.world.settle();
        self.people.over.send_replace(true);
        while !self.step()? {
            if self.world.now() > patience + END_WITHIN_MS {
                return Err("the last questions are not answered".into());
            }
        }
        // Time may have brought something meanwhile, which the store is to have, too.
        while !self.world.is_quiet() {
            self.step()?;
            if self.world.now() > patience + 2 * END_WITHIN_MS {
                return Err(self.what_is_left());
            }
        }
        Ok(())
    }

    /// One tick; whether all has been asked and answered.
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

    fn strike(&mut self, n: usize, fault: &Fault) -> Result<(), String> {
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
                *self.turned.entry(role).or_default() += 1;
                self.share();
            }
            Fault::NodeClock(node, by_ms) => self.world.step_clock(node, by_ms),
            Fault::LogClock(by_ms) => self.world.step_log_clock(by_ms),
            Fault::StoreAway(ms) => self.world.silence_store(now + ms),
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
            Undo::Share => self.share(),
        }
    }

    /// Shares the partitions out among the members that are there. One that is frozen is not
    /// told that it no longer has any.
    fn share(&mut self) {
        let cast = self.plan.cast;
        for role in [Role::Decider, Role::Projector, Role::Shop] {
            let turned = self.turned.get(&role).copied().unwrap_or(0);
            let is_there = |node: &Node| !self.down.contains(node) && !self.world.is_frozen(*node);
            let members: Vec<_> = cast.nodes(role).into_iter().filter(is_there).collect();
            for (n, member) in members.iter().enumerate() {
                let mine = |p: &u32| (*p as usize + turned) % members.len() == n;
                let partitions = (0..cast.partitions).filter(mine).map(Partition);
                self.world.assign(*member, partitions.collect());
            }
        }
    }

    /// The faults end: whoever is down starts, whatever is cut is mended.
    fn calm_down(&mut self) {
        for (_, undo) in std::mem::take(&mut self.later) {
            self.undo(undo);
        }
        self.world.set_weather(Weather::default());
        for node in self.plan.cast.all() {
            self.world.freeze(node, 0);
            self.world.set_clock_right(node);
        }
        self.world.silence_store(0);
        self.share();
    }

    fn what_is_left(&self) -> String {
        let satisfied = *self.people.satisfied.borrow();
        let end = self.world.end_state();
        let lengths = end.records.iter().map(|((topic, partition), records)| {
            format!("{topic} {partition} has {} records", records.len())
        });
        let lengths: Vec<_> = lengths.collect();
        format!(
            "not everything ends within {} s of calm weather: shoppers satisfied: {satisfied}; {}; stored: {:?}",
            END_WITHIN_MS / 1_000,
            lengths.join(", "),
            end.progress
        )
    }
}
