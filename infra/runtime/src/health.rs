//! The health of a process, judged by the progress of positions and not by what its parts say of
//! themselves.
//!
//! A part of the process, a [`Component`], reports the position that it has reached and how many records
//! wait behind it. Work that waits, at a position that does not move within a bound, is not healthy,
//! and neither is a part that reports nothing any more.
//!
//! | state of a part | `/readyz` | `/healthz` |
//! |---|---|---|
//! | works, or has nothing to do | 200 | 200 |
//! | does a part of its work; or fails, but others of its kind work or can do without it | 200, degraded | 200 |
//! | starts, or fails and tries again by itself | 503 | 200 |
//! | says that it works, but nothing moves or it is silent | 503 after the bound | 503 after six times the bound |
//! | can only be mended by a restart | 503 | 503 |

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use schemas::ids::Partition;
use tokio::time::Instant;
use tracing::{error, info};

use crate::gauges::PartitionGauge;

/// How long work may wait without progress, unless a setting says otherwise.
pub const STALLED_AFTER: Duration = Duration::from_secs(10);
/// After how many times that a restart is asked for: a restart helps against little that passes by
/// itself, and it makes everything wait again.
const RESTART_FACTOR: u32 = 6;
/// The longest time between two reports of a component, also when it is idle.
pub const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long a component waits for an engine that it can do without. After that it reports the
/// engine as missing; by waiting longer it would itself seem to stand still.
pub const PROBE_WITHIN: Duration = Duration::from_secs(2);
/// A component that has not failed for this long has recovered: its next failure is a new one
/// and is logged again.
const RECOVERED_AFTER: Duration = Duration::from_secs(10);

/// The health of a process: that of its components.
#[derive(Clone)]
pub struct Health {
    components: Arc<Mutex<Vec<Registered>>>,
    stalled_after: Duration,
    /// Whether the process can do something useful without the components made by this handle.
    dispensable: bool,
}

/// A component as it is registered.
struct Registered {
    name: Arc<str>,
    /// What the component has in common with others of its kind.
    kind: Arc<str>,
    dispensable: bool,
    state: Arc<Mutex<State>>,
}

/// A part of the process that does work of its own, such as a partition's decider.
pub struct Component {
    name: Arc<str>,
    state: Arc<Mutex<State>>,
    lag: Option<PartitionGauge>,
}

struct State {
    reported: Instant,
    phase: Phase,
    position: Option<i64>,
    lag: u64,
    /// When the position last moved, or nothing waited.
    moved: Instant,
    logged: Option<LoggedFailure>,
}

enum Phase {
    Starting(String),
    Working,
    Degraded(String),
    Failing(String),
    Broken(String),
    Stopped,
}

impl Phase {
    fn starting() -> Self {
        Self::Starting("starting".to_owned())
    }
}

/// The failure that was logged last, and has not been reported as recovered.
struct LoggedFailure {
    why: String,
    since: Instant,
    last: Instant,
    /// The first report of work after the last failure.
    worked: Option<Instant>,
}

/// A component's health at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentHealth {
    /// The component's name.
    pub name: String,
    /// Whether the component does its work.
    pub ready: bool,
    /// Whether the component can still be expected to recover by itself.
    pub alive: bool,
    /// Whether the component does only a part of its work, or none of it while others of its kind do
    /// theirs, or others can do without it.
    pub degraded: bool,
    /// What the component is doing, or why it fails.
    pub detail: String,
    /// How many records the component is behind.
    pub lag_records: u64,
}

impl Default for Health {
    fn default() -> Self {
        Self::new(STALLED_AFTER)
    }
}

impl Health {
    /// The health of a process without components. Work may wait for this long without progress.
    pub fn new(stalled_after: Duration) -> Self {
        Self {
            components: Arc::default(),
            stalled_after,
            dispensable: false,
        }
    }

    /// The same health, for components that the rest of the process can do without: while they fail the
    /// process is degraded, but ready.
    pub fn for_dispensable(&self) -> Self {
        Self {
            dispensable: true,
            ..self.clone()
        }
    }

    /// A new component. It is not ready before it first reports work, and leaves the report
    /// when it is dropped.
    pub fn component(&self, name: impl Into<Arc<str>>) -> Component {
        let name = name.into();
        self.register(name.clone(), name, None)
    }

    /// A new component for a partition, which shows its lag as this metric. The process is ready while one
    /// of the components of a kind is: one partition that fails leaves the others well.
    pub fn partition(
        &self,
        kind: &str,
        partition: Partition,
        lag: Option<&'static str>,
    ) -> Component {
        let name = format!("{kind} {partition}");
        let lag = lag.map(|name| PartitionGauge::new(name, partition));
        self.register(name.into(), kind.into(), lag)
    }

    /// How long work may wait without progress.
    pub fn stalled_after(&self) -> Duration {
        self.stalled_after
    }

    fn register(&self, name: Arc<str>, kind: Arc<str>, lag: Option<PartitionGauge>) -> Component {
        let state = Arc::new(Mutex::new(State::new(Instant::now())));
        let mut components = self.components.lock();
        // Partitions come and go for as long as the process lives.
        components.retain(|it| !it.state.lock().is_stopped());
        components.push(Registered {
            name: name.clone(),
            kind,
            dispensable: self.dispensable,
            state: state.clone(),
        });
        Component { name, state, lag }
    }

    /// The health of every component that has not been stopped.
    pub fn report(&self) -> Vec<ComponentHealth> {
        self.judge().into_iter().map(|(health, _)| health).collect()
    }

    /// Whether the process can do something useful: each kind of component does its work, for at least
    /// one partition, unless the others can do without it. Not while a component needs a restart.
    pub fn is_ready(&self) -> bool {
        self.judge()
            .iter()
            .all(|(health, spared)| health.ready || *spared)
    }

    /// Whether every component can still be expected to recover by itself.
    pub fn is_alive(&self) -> bool {
        self.report().iter().all(|component| component.alive)
    }

    /// Every component's health, and whether the process can do something useful without it.
    fn judge(&self) -> Vec<(ComponentHealth, bool)> {
        let now = Instant::now();
        let components = self.components.lock();
        let judged: Vec<_> = components
            .iter()
            .filter_map(|it| {
                let state = it.state.lock();
                let health = state.health(&it.name, self.stalled_after, now);
                (!state.is_stopped()).then_some((it, health))
            })
            .collect();
        let works = |kind: &str| {
            let mut of_kind = judged.iter().filter(|(it, _)| *it.kind == *kind);
            of_kind.any(|(_, health)| health.ready)
        };
        let spared: Vec<bool> = judged
            .iter()
            .map(|(it, health)| health.alive && (it.dispensable || works(&it.kind)))
            .collect();
        let healths = judged.into_iter().map(|(_, health)| health);
        healths
            .zip(spared)
            .map(|(mut health, spared)| {
                health.degraded |= !health.ready && spared;
                (health, spared)
            })
            .collect()
    }
}

impl Component {
    /// Reports that the component works, or has nothing to do. For components without a position.
    pub fn working(&self) {
        self.succeeded(|state, now| {
            state.moved = now;
            state.lag = 0;
            state.report(Phase::Working, now);
        });
    }

    /// Reports that the work has come to this position, and how many records wait behind it. After a
    /// failure the component works again once the position has moved, or nothing waits. The first
    /// report of work after a logged failure that is older than ten seconds logs the recovery.
    /// Returns whether it works.
    pub fn progress(&self, position: i64, lag_records: u64) -> bool {
        self.show_lag(lag_records);
        self.succeeded(|state, now| {
            let moved = state.measure(position, lag_records, now);
            if moved || !matches!(state.phase, Phase::Failing(_)) {
                state.report(Phase::Working, now);
            }
        })
    }

    /// The same for who watches the work from outside and does not know whether it succeeds.
    pub fn measured(&self, position: i64, lag_records: u64) {
        self.show_lag(lag_records);
        let mut state = self.state.lock();
        state.measure(position, lag_records, Instant::now());
    }

    /// Reports how far the start has come. After a failure the failure still shows, until there is
    /// progress.
    pub fn starting(&self, detail: impl Into<String>) {
        let mut state = self.state.lock();
        let now = Instant::now();
        match state.phase {
            Phase::Failing(_) | Phase::Broken(_) => state.reported = now,
            _ => state.report(Phase::Starting(detail.into()), now),
        }
    }

    /// Reports that a part of the work cannot be done for now. The component still counts as
    /// ready: requests that need only the rest are welcome.
    pub fn degraded(&self, why: impl Into<String>) {
        self.report(Phase::Degraded(why.into()));
    }

    /// The same when all of the work waits for other parts of the system, for however long, with this
    /// many records behind it.
    pub fn blocked(&self, why: impl Into<String>, lag_records: u64) {
        self.show_lag(lag_records);
        let mut state = self.state.lock();
        let now = Instant::now();
        state.moved = now;
        state.lag = lag_records;
        state.report(Phase::Degraded(why.into()), now);
    }

    /// Reports that the work cannot be done for now. Nothing is logged; see
    /// [`Component::failed`].
    pub fn failing(&self, why: impl Into<String>) {
        self.report(Phase::Failing(why.into()));
    }

    /// Reports a failure after which the work is tried again, and logs it as an error. The same
    /// failure is not logged again until the component has recovered.
    pub fn failed(&self, error: &dyn std::fmt::Display) {
        let error = error.to_string();
        let is_new = self.state.lock().note_failure(&error, Instant::now());
        // The log comes first: an operator who finds the failure in the health report then
        // finds more about it in the log.
        if is_new {
            error!(error, "{} failed; trying again", self.name);
        }
        self.failing(error);
    }

    /// Reports a failure that only a restart, or an operator and a restart, can mend, and logs it as an
    /// error. The component is neither ready nor alive until then.
    pub fn broken(&self, error: &dyn std::fmt::Display) {
        let error = error.to_string();
        if self.state.lock().note_failure(&error, Instant::now()) {
            error!(error, "{} stopped; an operator must act", self.name);
        }
        self.report(Phase::Broken(error));
    }

    /// Reports that what failed has succeeded, so that the start goes on, and logs that, with the time
    /// since the first failure, if the failure was logged.
    pub fn recovered(&self) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Failing(_)) {
            state.report(Phase::starting(), Instant::now());
        }
        let logged = state.logged.take();
        drop(state);
        if let Some(logged) = logged {
            self.log_recovery(logged.since.elapsed());
        }
    }

    /// Takes a report of work; returns whether the component works.
    fn succeeded(&self, report: impl FnOnce(&mut State, Instant)) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock();
        report(&mut state, now);
        let works = matches!(state.phase, Phase::Working);
        let recovered = works.then(|| state.forget_past_failure(now)).flatten();
        drop(state);
        if let Some(failed_for) = recovered {
            self.log_recovery(failed_for);
        }
        works
    }

    fn show_lag(&self, records: u64) {
        if let Some(gauge) = &self.lag {
            gauge.set(records as f64);
        }
    }

    fn log_recovery(&self, failed_for: Duration) {
        info!("{} recovered after {} s", self.name, failed_for.as_secs());
    }

    fn report(&self, phase: Phase) {
        self.state.lock().report(phase, Instant::now());
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        match std::thread::panicking() {
            true => self.report(Phase::Broken(
                "its task panicked; the log has the reason".into(),
            )),
            false => self.report(Phase::Stopped),
        }
    }
}

impl State {
    fn new(now: Instant) -> Self {
        Self {
            reported: now,
            phase: Phase::starting(),
            position: None,
            lag: 0,
            moved: now,
            logged: None,
        }
    }

    fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped)
    }

    fn report(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.reported = now;
    }

    /// Takes a position; returns whether it has moved or nothing waits.
    fn measure(&mut self, position: i64, lag: u64, now: Instant) -> bool {
        let moved = lag == 0 || self.position != Some(position);
        if moved {
            self.moved = now;
        }
        self.position = Some(position);
        self.lag = lag;
        self.reported = now;
        moved
    }

    /// Remembers a failure; returns whether it is to be logged.
    fn note_failure(&mut self, why: &str, now: Instant) -> bool {
        let is_new = self.logged.as_ref().is_none_or(|it| it.why != why);
        self.logged = Some(LoggedFailure {
            why: why.to_owned(),
            since: self.logged.as_ref().map_or(now, |it| it.since),
            last: now,
            worked: None,
        });
        is_new
    }

    /// Forgets the logged failure if the component, which works, has recovered from it; returns for how
    /// long it failed.
    fn forget_past_failure(&mut self, now: Instant) -> Option<Duration> {
        let logged = self.logged.as_mut()?;
        let worked = *logged.worked.get_or_insert(now);
        if now.duration_since(logged.last) < RECOVERED_AFTER {
            return None;
        }
        let failed_for = worked.duration_since(logged.since);
        self.logged = None;
        Some(failed_for)
    }

    fn health(&self, name: &str, stalled_after: Duration, now: Instant) -> ComponentHealth {
        let restart_after = RESTART_FACTOR * stalled_after;
        let silent = now.duration_since(self.reported);
        let stalled = match self.lag {
            0 => Duration::ZERO,
            _ => now.duration_since(self.moved),
        };
        let works = matches!(self.phase, Phase::Working | Phase::Degraded(_));
        let (ready, detail) = match &self.phase {
            _ if works && silent > stalled_after => {
                (false, format!("no report for {} s", silent.as_secs()))
            }
            Phase::Working if stalled > stalled_after => (false, self.stall(stalled)),
            Phase::Degraded(why) if stalled > stalled_after => {
                (false, format!("{why}; {}", self.stall(stalled)))
            }
            Phase::Working => (true, "working".to_owned()),
            Phase::Degraded(why) => (true, why.clone()),
            Phase::Starting(why) | Phase::Failing(why) | Phase::Broken(why) => (false, why.clone()),
            Phase::Stopped => (false, "stopped".to_owned()),
        };
        let alive = match &self.phase {
            Phase::Broken(_) => false,
            Phase::Working => silent.max(stalled) <= restart_after,
            // What fails or waits is known, and a restart would only begin with the same again.
            _ => silent <= restart_after,
        };
        ComponentHealth {
            name: name.to_owned(),
            ready,
            degraded: ready && matches!(self.phase, Phase::Degraded(_)),
            alive,
            detail,
            lag_records: self.lag,
        }
    }

    fn stall(&self, stalled: Duration) -> String {
        let seconds = stalled.as_secs();
        format!(
            "{} records wait, and none was taken for {seconds} s",
            self.lag
        )
    }
}

#[cfg(test)]
mod tests;
