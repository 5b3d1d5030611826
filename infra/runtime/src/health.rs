//! The health of a process. Components report their own progress; a component that stops
//! reporting counts as unhealthy, whatever it reported last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{error, info};

/// How long a component may be silent and still count as ready.
pub const READY_SILENCE: Duration = Duration::from_secs(5);
/// How long a component may be silent and still count as alive.
pub const ALIVE_SILENCE: Duration = Duration::from_secs(60);
/// The longest time between two reports of a component, also when it is idle.
pub const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long a component waits for an engine that it can do without. After that it reports the
/// engine as missing; by waiting longer it would itself seem to stand still.
pub const PROBE_WITHIN: Duration = Duration::from_secs(2);
/// A component that has not failed for this long has recovered: its next failure is a new one
/// and is logged again.
const RECOVERED_AFTER: Duration = Duration::from_secs(10);

/// The health of a process: that of its components.
#[derive(Clone, Default)]
pub struct Health {
    components: Arc<Mutex<Vec<Named>>>,
}

/// A component's name and state.
type Named = (Arc<str>, Arc<Mutex<State>>);

/// A part of the process that does work of its own, such as a partition's decider.
pub struct Component {
    name: Arc<str>,
    state: Arc<Mutex<State>>,
}

struct State {
    reported: Instant,
    phase: Phase,
    lag: u64,
    logged: Option<LoggedFailure>,
}

enum Phase {
    Starting,
    Working,
    Degraded(String),
    Failing(String),
    Broken(String),
    Stopped,
}

/// The failure that was logged last, and has not been reported as recovered.
struct LoggedFailure {
    why: String,
    last: Instant,
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
    /// Whether the component does only a part of its work.
    pub degraded: bool,
    /// What the component is doing, or why it fails.
    pub detail: String,
    /// How many records the component is behind.
    pub lag_records: u64,
}

impl Health {
    /// A new component. It is not ready before it first reports work, and leaves the report
    /// when it is dropped.
    pub fn component(&self, name: impl Into<Arc<str>>) -> Component {
        let name = name.into();
        let state = Arc::new(Mutex::new(State {
            reported: Instant::now(),
            phase: Phase::Starting,
            lag: 0,
            logged: None,
        }));
        let mut components = self.components.lock();
        // Partitions come and go for as long as the process lives.
        components.retain(|(_, state)| !matches!(state.lock().phase, Phase::Stopped));
        components.push((name.clone(), state.clone()));
        Component { name, state }
    }

    /// The health of every component that has not been stopped.
    pub fn report(&self) -> Vec<ComponentHealth> {
        let components = self.components.lock();
        let live = components
            .iter()
            .filter(|(_, state)| !matches!(state.lock().phase, Phase::Stopped));
        live.map(|(name, state)| state.lock().health(name))
            .collect()
    }

    /// Whether every component does its work.
    pub fn is_ready(&self) -> bool {
        self.report().iter().all(|component| component.ready)
    }

    /// Whether every component can still be expected to recover by itself.
    pub fn is_alive(&self) -> bool {
        self.report().iter().all(|component| component.alive)
    }
}

impl Component {
    /// Reports that a step of the work is done, or that there is nothing to do. `lag_records`
    /// is how many records are left. The first report after a logged failure that is older
    /// than ten seconds logs the recovery.
    pub fn working(&self, lag_records: u64) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let recovered = state.forget_past_failure(now);
        state.lag = lag_records;
        state.report(Phase::Working, now);
        drop(state);
        if recovered {
            self.log_recovery();
        }
    }

    /// Reports that a part of the work cannot be done for now. The component still counts as
    /// ready: requests that need only the rest are welcome.
    pub fn degraded(&self, why: impl Into<String>) {
        self.report(Phase::Degraded(why.into()));
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

    /// Reports a failure that only an operator can mend, and logs it as an error. The component does
    /// not count as alive until the process is restarted.
    pub fn broken(&self, error: &dyn std::fmt::Display) {
        let error = error.to_string();
        if self.state.lock().note_failure(&error, Instant::now()) {
            error!(error, "{} stopped; an operator must act", self.name);
        }
        self.report(Phase::Broken(error));
    }

    /// Reports that what failed has succeeded, and logs that if the failure was logged.
    pub(crate) fn recovered(&self) {
        let logged = self.state.lock().logged.take();
        if logged.is_some() {
            self.log_recovery();
        }
    }

    fn log_recovery(&self) {
        info!("{} recovered", self.name);
    }

    fn report(&self, phase: Phase) {
        self.state.lock().report(phase, Instant::now());
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        // A task that ends by a panic has not been stopped: its silence must show.
        if !std::thread::panicking() {
            self.report(Phase::Stopped);
        }
    }
}

impl State {
    fn report(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.reported = now;
    }

    /// Remembers a failure; returns whether it is to be logged.
    fn note_failure(&mut self, why: &str, now: Instant) -> bool {
        match &mut self.logged {
            Some(logged) if logged.why == why => {
                logged.last = now;
                false
            }
            logged => {
                *logged = Some(LoggedFailure {
                    why: why.to_owned(),
                    last: now,
                });
                true
            }
        }
    }

    /// Forgets the logged failure if the component has recovered from it; returns whether it has.
    fn forget_past_failure(&mut self, now: Instant) -> bool {
        let is_over =
            |logged: &mut LoggedFailure| now.duration_since(logged.last) >= RECOVERED_AFTER;
        self.logged.take_if(is_over).is_some()
    }

    fn health(&self, name: &str) -> ComponentHealth {
        let silent = self.reported.elapsed();
        let (ready, detail) = match &self.phase {
            Phase::Starting => (false, "starting".to_owned()),
            Phase::Working | Phase::Degraded(_) if silent > READY_SILENCE => {
                (false, format!("no progress for {} s", silent.as_secs()))
            }
            Phase::Working => (true, "working".to_owned()),
            Phase::Degraded(why) => (true, why.clone()),
            Phase::Failing(why) | Phase::Broken(why) => (false, why.clone()),
            Phase::Stopped => (false, "stopped".to_owned()),
        };
        ComponentHealth {
            name: name.to_owned(),
            ready,
            degraded: ready && matches!(self.phase, Phase::Degraded(_)),
            alive: silent < ALIVE_SILENCE && !matches!(self.phase, Phase::Broken(_)),
            detail,
            lag_records: self.lag,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_logged_once_until_it_changes_or_the_component_has_recovered() {
        let health = Health::default();
        let component = health.component("projector 3");
        let mut state = component.state.lock();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!(!state.forget_past_failure(begin), "nothing has failed");
        assert!(state.note_failure("no store", at(0)));
        assert!(!state.note_failure("no store", at(1)));
        assert!(!state.forget_past_failure(at(10)), "it failed 9 s ago");
        assert!(state.note_failure("no log", at(2)));
        assert!(state.forget_past_failure(at(12)));
        assert!(
            !state.forget_past_failure(at(13)),
            "the recovery is logged once"
        );
        assert!(state.note_failure("no log", at(14)));
    }

    #[test]
    fn a_component_is_ready_from_its_first_work_until_it_fails() {
        let health = Health::default();
        let component = health.component("projector 3");
        let only = || health.report().remove(0);
        assert_eq!((only().ready, &*only().detail), (false, "starting"));
        component.working(7);
        assert_eq!((only().ready, only().lag_records), (true, 7));
        component.degraded("no store");
        assert_eq!((only().ready, only().degraded), (true, true));
        component.failed(&"no log");
        assert_eq!((only().ready, &*only().detail), (false, "no log"));
        assert!(only().alive, "it may recover by itself");
        component.broken(&"another log");
        assert_eq!((only().ready, only().alive), (false, false));
        assert_eq!(only().detail, "another log");
        assert_eq!(only().lag_records, 7, "the lag is the last one reported");
        drop(component);
        assert!(health.report().is_empty());
    }
}
