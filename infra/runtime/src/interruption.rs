//! When something began to fail, and why, so that its failure and its recovery are logged once each.

use std::time::{Duration, Instant};

/// The least time between two log lines about the same interruption.
const ONE_EVERY: Duration = Duration::from_secs(1);

/// Something that fails, or does not.
#[derive(Default)]
pub struct Interruption(Option<Failing>);

struct Failing {
    since: Instant,
    logged: Instant,
    why: String,
}

impl Interruption {
    /// Notes a failure; whether it is to be logged, since it began or has another reason than when it
    /// was last logged.
    pub fn is_new(&mut self, why: &str) -> bool {
        self.is_new_at(why, Instant::now())
    }

    fn is_new_at(&mut self, why: &str, now: Instant) -> bool {
        let Some(failing) = &mut self.0 else {
            self.0 = Some(Failing {
                since: now,
                logged: now,
                why: why.to_owned(),
            });
            return true;
        };
        if failing.why == why || now.duration_since(failing.logged) < ONE_EVERY {
            return false;
        }
        failing.logged = now;
        failing.why = why.to_owned();
        true
    }

    /// Why it fails, as it was last logged.
    pub fn why(&self) -> Option<&str> {
        self.0.as_ref().map(|failing| &*failing.why)
    }

    /// Notes that it does not fail; if it did, for how many seconds.
    pub fn end(&mut self) -> Option<u64> {
        self.0
            .take()
            .map(|failing| failing.since.elapsed().as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_is_new_when_it_begins_and_with_another_reason_at_most_once_a_second() {
        let mut interruption = Interruption::default();
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        assert_eq!(interruption.end(), None);
        assert!(interruption.is_new_at("no store", at(0)));
        assert!(!interruption.is_new_at("no store", at(5_000)));
        assert!(interruption.is_new_at("no log", at(5_000)));
        assert!(!interruption.is_new_at("no store", at(5_999)));
        assert!(interruption.is_new_at("no store", at(6_000)));
        assert_eq!(interruption.why(), Some("no store"));
        assert!(interruption.end().is_some());
        assert!(interruption.is_new_at("no store", at(6_001)));
    }
}
