//! A clock whose time of day is checked against the time that passes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use schemas::ids::TimestampMs;

use crate::Clock;

/// The most that a log's machine may have stood still before a start: a shop that sells once a year
/// starts without a doubt, a clock that starts in another decade does not.
const MOST_IDLE_MS: i64 = 400 * 24 * 60 * 60 * 1_000;
/// How long a clock that was in doubt must agree before it is taken again.
const AGREES_FOR_MS: i64 = 10_000;
/// How long the clock is compared with the same reading. Within this time its steps may add up to
/// the bound, so that many small ones are found like a large one. A clock that is slewed by the most
/// that is usual, 500 millionths, moves by 1.8 s in an hour.
const COMPARED_FOR_MS: i64 = 60 * 60 * 1_000;

/// A machine's clock that does not follow jumps.
///
/// The time of day follows the machine's as long as that agrees, up to a bound, with the time that
/// has passed. After a jump beyond the bound it continues by the time that passes, and
/// [`CheckedClock::doubt`] says so, until the machine's clock has agreed again for ten seconds, or
/// an operator calls it right ([`CheckedClock::trust`]).
pub struct CheckedClock {
    clock: Arc<dyn Clock>,
    max_jump_ms: i64,
    state: Mutex<State>,
}

struct State {
    /// The reading from which the time continues.
    last: Reading,
    /// The reading that the clock is compared with.
    compared: Reading,
    doubt: Option<InDoubt>,
}

/// The time of day, and the time that had passed when it was read, both in milliseconds.
#[derive(Clone, Copy)]
struct Reading {
    day_ms: TimestampMs,
    passed_ms: i64,
}

impl Reading {
    fn of(clock: &dyn Clock) -> Self {
        Self {
            day_ms: clock.now_ms(),
            passed_ms: i64::try_from(clock.elapsed().as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// The time of day that follows from an earlier reading.
    fn expected_after(&self, earlier: Self) -> TimestampMs {
        let passed_ms = self.passed_ms.saturating_sub(earlier.passed_ms);
        earlier.day_ms.saturating_add(passed_ms)
    }
}

/// The machine's clock is not taken for right.
#[derive(Clone, Copy)]
struct InDoubt {
    since: Since,
    /// By how much it is ahead of the time that is used instead.
    ahead_ms: i64,
    /// When it began to agree, if it does.
    agrees_since_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// It jumped.
    Jump,
    /// The process started.
    Start,
}

/// Why the machine's clock is not taken for right, and what an operator can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockDoubt {
    since: Since,
    ahead_ms: i64,
}

impl CheckedClock {
    /// A clock that follows this one, whose jumps by more than this are not followed.
    pub fn new(clock: Arc<dyn Clock>, max_jump: Duration) -> Self {
        let now = Reading::of(&*clock);
        let state = State {
            last: now,
            compared: now,
            doubt: None,
        };
        Self {
            clock,
            max_jump_ms: i64::try_from(max_jump.as_millis()).unwrap_or(i64::MAX),
            state: Mutex::new(state),
        }
    }

    /// Compares the clock with the time of the log's last record, at the start. Records are not
    /// written before they happen, so a clock that is behind that record, or the record itself, is
    /// wrong; which of them, only an operator can know. Then the time continues from the record, so
    /// that it neither falls nor stands still.
    pub fn start_after(&self, last_record_ms: TimestampMs) {
        let now = Reading::of(&*self.clock);
        let ahead_ms = now.day_ms.saturating_sub(last_record_ms);
        if self.agrees(Since::Start, ahead_ms) {
            return;
        }
        let mut state = self.state.lock();
        state.last = Reading {
            day_ms: last_record_ms,
            ..now
        };
        state.doubt = Some(InDoubt {
            since: Since::Start,
            ahead_ms,
            agrees_since_ms: None,
        });
    }

    /// Takes the machine's clock for right, because an operator says so.
    pub fn trust(&self) {
        let now = Reading::of(&*self.clock);
        let mut state = self.state.lock();
        *state = State {
            last: now,
            compared: now,
            doubt: None,
        };
    }

    /// Why the machine's clock is not taken for right; none when it is.
    pub fn doubt(&self) -> Option<ClockDoubt> {
        self.now_ms();
        let doubt = self.state.lock().doubt?;
        Some(ClockDoubt {
            since: doubt.since,
            ahead_ms: doubt.ahead_ms,
        })
    }

    /// Whether a clock that is ahead by this much is taken for right. At a start it may be ahead of
    /// the last record by as long as nothing was sold.
    fn agrees(&self, since: Since, ahead_ms: i64) -> bool {
        let most_ahead_ms = match since {
            Since::Jump => self.max_jump_ms,
            Since::Start => MOST_IDLE_MS,
        };
        (-self.max_jump_ms..=most_ahead_ms).contains(&ahead_ms)
    }

    /// Reads the clock that nothing is wrong with so far.
    fn follow(&self, state: &mut State, now: Reading) -> TimestampMs {
        let jumped_ms = now
            .day_ms
            .saturating_sub(now.expected_after(state.compared));
        if self.agrees(Since::Jump, jumped_ms) {
            state.last = now;
            if now.passed_ms.saturating_sub(state.compared.passed_ms) >= COMPARED_FOR_MS {
                state.compared = now;
            }
            return now.day_ms;
        }
        let expected = now.expected_after(state.last);
        state.doubt = Some(InDoubt {
            since: Since::Jump,
            ahead_ms: now.day_ms.saturating_sub(expected),
            agrees_since_ms: None,
        });
        expected
    }

    /// Reads the clock that is in doubt.
    fn doubt_again(&self, state: &mut State, mut doubt: InDoubt, now: Reading) -> TimestampMs {
        let expected = now.expected_after(state.last);
        doubt.ahead_ms = now.day_ms.saturating_sub(expected);
        if !self.agrees(doubt.since, doubt.ahead_ms) {
            doubt.agrees_since_ms = None;
        } else {
            let since_ms = *doubt.agrees_since_ms.get_or_insert(now.passed_ms);
            if now.passed_ms.saturating_sub(since_ms) >= AGREES_FOR_MS {
                *state = State {
                    last: now,
                    compared: now,
                    doubt: None,
                };
                return now.day_ms;
            }
        }
        state.doubt = Some(doubt);
        expected
    }
}

impl Clock for CheckedClock {
    fn now_ms(&self) -> TimestampMs {
        let mut state = self.state.lock();
        // Read under the lock, so that readings are compared in their order.
        let now = Reading::of(&*self.clock);
        match state.doubt {
            None => self.follow(&mut state, now),
            Some(doubt) => self.doubt_again(&mut state, doubt, now),
        }
    }

    fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }
}

impl fmt::Display for ClockDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.ahead_ms.unsigned_abs() / 1_000;
        let side = if self.ahead_ms > 0 {
            "ahead of"
        } else {
            "behind"
        };
        match self.since {
            Since::Jump => write!(
                f,
                "the machine's clock jumped: it is {seconds} s {side} the time that has passed since \
                 it was last right, which is used instead"
            ),
            Since::Start => write!(
                f,
                "the machine's clock is {seconds} s {side} the log's last record, from which the \
                 time continues instead"
            ),
        }?;
        write!(
            f,
            "; set the machine's clock right, or if it is right now, correct the time (\"The time is \
             wrong\" in the runbook)"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

    use super::*;

    const MAX_JUMP_MS: i64 = 60_000;
    const HOUR_MS: i64 = 3_600_000;
    const BEGIN_MS: i64 = 1_800_000_000_000;

    /// A machine whose time passes, and whose clock is set, by hand.
    struct Machine {
        passed_ms: AtomicI64,
        day_ms: AtomicI64,
    }

    impl Machine {
        fn pass(&self, ms: i64) {
            self.passed_ms.fetch_add(ms, Relaxed);
            self.day_ms.fetch_add(ms, Relaxed);
        }

        fn step(&self, ms: i64) {
            self.day_ms.fetch_add(ms, Relaxed);
        }
    }

    impl Clock for Machine {
        fn now_ms(&self) -> TimestampMs {
            self.day_ms.load(Relaxed)
        }

        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.passed_ms.load(Relaxed) as u64)
        }
    }

    fn machine() -> (Arc<Machine>, CheckedClock) {
        let machine = Arc::new(Machine {
            passed_ms: AtomicI64::new(17),
            day_ms: AtomicI64::new(BEGIN_MS),
        });
        let max_jump = Duration::from_millis(MAX_JUMP_MS as u64);
        let clock = CheckedClock::new(machine.clone(), max_jump);
        (machine, clock)
    }

    #[test]
    fn small_steps_are_followed_and_a_jump_is_not() {
        for direction in [1, -1] {
            let (machine, clock) = machine();
            machine.pass(1_000);
            machine.step(direction * 500);
            assert_eq!(clock.now_ms(), BEGIN_MS + 1_000 + direction * 500);
            machine.step(direction * HOUR_MS);
            machine.pass(2_000);
            assert_eq!(clock.now_ms(), BEGIN_MS + 3_000 + direction * 500);
            let text = clock.doubt().unwrap().to_string();
            let side = if direction > 0 { "ahead of" } else { "behind" };
            assert!(text.contains(&format!("3600 s {side} the time")), "{text}");
            // The time passes on.
            machine.pass(HOUR_MS);
            assert_eq!(clock.now_ms(), BEGIN_MS + HOUR_MS + 3_000 + direction * 500);
        }
    }

    #[test]
    fn many_small_steps_are_found_like_a_large_one() {
        let (machine, clock) = machine();
        for _ in 0..10 {
            machine.step(7_000);
            machine.pass(1);
            clock.now_ms();
        }
        assert!(clock.doubt().is_some());
        assert_eq!(clock.now_ms(), BEGIN_MS + 8 * 7_000 + 10);
    }

    #[test]
    fn a_clock_that_is_slewed_is_followed_for_days() {
        let (machine, clock) = machine();
        for _ in 0..10_000 {
            machine.pass(30_000);
            machine.step(15);
            assert_eq!(clock.now_ms(), machine.now_ms());
        }
        assert_eq!(clock.doubt(), None);
    }

    #[test]
    fn a_clock_that_agrees_again_for_a_while_is_taken_again() {
        let (machine, clock) = machine();
        machine.step(-HOUR_MS);
        assert_eq!(clock.now_ms(), BEGIN_MS);
        machine.step(HOUR_MS + 20);
        assert_eq!(clock.now_ms(), BEGIN_MS);
        machine.pass(9_999);
        assert_eq!(clock.now_ms(), BEGIN_MS + 9_999);
        // A jump in between, and it has to agree anew.
        machine.step(HOUR_MS);
        assert!(clock.doubt().is_some());
        machine.step(-HOUR_MS);
        machine.pass(1);
        assert!(clock.doubt().is_some());
        machine.pass(9_999);
        assert!(clock.doubt().is_some());
        machine.pass(1);
        assert_eq!(clock.now_ms(), machine.now_ms());
        assert_eq!(clock.doubt(), None);
    }

    #[test]
    fn an_operator_can_call_the_clock_right() {
        let (machine, clock) = machine();
        machine.step(HOUR_MS);
        assert_eq!(clock.now_ms(), BEGIN_MS);
        clock.trust();
        assert_eq!(clock.now_ms(), BEGIN_MS + HOUR_MS);
        assert_eq!(clock.doubt(), None);
    }

    #[test]
    fn a_start_after_a_pause_is_normal_and_one_before_the_last_record_is_not() {
        let day_ms = 24 * HOUR_MS;
        for (last_record_ms, right) in [
            (BEGIN_MS, true),
            (BEGIN_MS - 3 * day_ms, true),
            (BEGIN_MS - 400 * day_ms, true),
            (BEGIN_MS - 400 * day_ms - 1, false),
            (BEGIN_MS + MAX_JUMP_MS, true),
            (BEGIN_MS + MAX_JUMP_MS + 1, false),
            (i64::MIN, false),
            (i64::MAX, false),
        ] {
            let (machine, clock) = machine();
            clock.start_after(last_record_ms);
            assert_eq!(clock.doubt().is_none(), right, "{last_record_ms}");
            machine.pass(5);
            let expected = match right {
                true => BEGIN_MS + 5,
                false => last_record_ms.saturating_add(5),
            };
            assert_eq!(clock.now_ms(), expected, "{last_record_ms}");
        }
    }

    /// A machine that starts before its clock is set over the network.
    #[test]
    fn a_clock_that_is_set_after_a_start_is_taken() {
        let (machine, clock) = machine();
        clock.start_after(BEGIN_MS + HOUR_MS);
        machine.pass(5_000);
        assert_eq!(clock.now_ms(), BEGIN_MS + HOUR_MS + 5_000);
        machine.step(24 * HOUR_MS);
        assert_eq!(clock.now_ms(), BEGIN_MS + HOUR_MS + 5_000);
        machine.pass(10_000);
        assert_eq!(clock.now_ms(), machine.now_ms());
        assert_eq!(clock.doubt(), None);
    }
}
