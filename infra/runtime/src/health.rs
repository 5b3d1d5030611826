//! Health that cannot lie: a component that does not report is not well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use utoipa::ToSchema;

/// How long a component may be silent and count as ready.
pub const READY_SILENCE: Duration = Duration::from_secs(5);
/// How long a component may be silent and count as alive.
pub const ALIVE_SILENCE: Duration = Duration::from_secs(60);
/// How often a component reports at least, also when there is nothing to do.
pub const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long a component waits at most for what it does without when that is away: then it says
/// so, lest it seem to stand still itself.
pub const PROBE_WITHIN: Duration = Duration::from_secs(2);

/// The health of a process: that of its components.
#[derive(Clone, Default)]
pub struct Health {
    components: Arc<Mutex<Vec<Named>>>,
}

/// A component's name and state.
type Named = (String, Arc<Mutex<State>>);

/// A part of the process that does work of its own.
pub struct Component {
    state: Arc<Mutex<State>>,
}

struct State {
    reported: Instant,
    phase: Phase,
    lag: u64,
}

enum Phase {
    Starting,
    Working,
    Degraded(String),
    Failing(String),
    Stopped,
}

/// A component as `/readyz` shows it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ComponentReport {
    /// Its name.
    pub name: String,
    /// Whether it does its work.
    pub ready: bool,
    /// Whether it can still be expected to.
    pub alive: bool,
    /// Whether it does its work only in part.
    pub degraded: bool,
    /// What it is at, or what it fails at.
    pub detail: String,
    /// How many records it is behind.
    pub lag_records: u64,
}

impl Health {
    /// A new component, which is not ready until it first reports work.
    pub fn component(&self, name: impl Into<String>) -> Component {
        let state = State {
            reported: Instant::now(),
            phase: Phase::Starting,
            lag: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let mut components = self.components.lock();
        // Partitions come and go for as long as the process lives.
        components.retain(|(_, state)| !matches!(state.lock().phase, Phase::Stopped));
        components.push((name.into(), state.clone()));
        Component { state }
    }

    /// Every component.
    pub fn report(&self) -> Vec<ComponentReport> {
        let components = self.components.lock();
        let live = components.iter().filter(|(_, state)| {
            // A component that was stopped on purpose is no longer part of the process.
            !matches!(state.lock().phase, Phase::Stopped)
        });
        live.map(|(name, state)| state.lock().report(name.clone()))
            .collect()
    }

    /// Whether every component does its work.
    pub fn is_ready(&self) -> bool {
        self.report().iter().all(|component| component.ready)
    }

    /// Whether every component can still be expected to.
    pub fn is_alive(&self) -> bool {
        self.report().iter().all(|component| component.alive)
    }
}

impl Component {
    /// A step of work is done, or there is none; so many records are still to be worked on.
    pub fn working(&self, lag_records: u64) {
        self.set(Phase::Working, lag_records);
    }

    /// Part of the work cannot be done for the time being, and what can be is worth sending
    /// requests for: it counts as ready.
    pub fn degraded(&self, why: impl Into<String>) {
        let lag = self.state.lock().lag;
        self.set(Phase::Degraded(why.into()), lag);
    }

    /// The work cannot be done for the time being.
    pub fn failing(&self, why: impl Into<String>) {
        let lag = self.state.lock().lag;
        self.set(Phase::Failing(why.into()), lag);
    }

    fn set(&self, phase: Phase, lag: u64) {
        *self.state.lock() = State {
            reported: Instant::now(),
            phase,
            lag,
        };
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        // A task that ends by panic has not been stopped: its silence must show.
        if !std::thread::panicking() {
            self.set(Phase::Stopped, 0);
        }
    }
}

impl State {
    fn report(&self, name: String) -> ComponentReport {
        let silent = self.reported.elapsed();
        let (working, detail) = match &self.phase {
            Phase::Starting => (false, "starting".to_owned()),
            Phase::Working | Phase::Degraded(_) if silent > READY_SILENCE => {
                (false, format!("stands still for {} s", silent.as_secs()))
            }
            Phase::Working => (true, "working".to_owned()),
            Phase::Degraded(why) => (true, why.clone()),
            Phase::Failing(why) => (false, why.clone()),
            Phase::Stopped => (false, "stopped".to_owned()),
        };
        let ready = working;
        ComponentReport {
            name,
            ready,
            degraded: ready && matches!(self.phase, Phase::Degraded(_)),
            alive: silent < ALIVE_SILENCE,
            detail,
            lag_records: self.lag,
        }
    }
}
