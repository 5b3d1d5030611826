//! A place in a log that only moves forward, and those who wait for it to get somewhere.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use schemas::ids::Offset;
use tokio::sync::oneshot;

/// How far something has come, in offsets.
///
/// A batch of progress wakes only those whose place it has reached, however many wait.
pub(crate) struct Mark {
    inner: Mutex<Inner>,
}

struct Inner {
    at: Offset,
    /// By the place waited for; the ticket tells those who wait for the same one apart.
    waiting: BTreeMap<(Offset, u64), oneshot::Sender<()>>,
    next_ticket: u64,
}

impl Mark {
    /// A mark before every offset.
    pub fn new() -> Self {
        let inner = Inner {
            at: Offset(-1),
            waiting: BTreeMap::new(),
            next_ticket: 0,
        };
        Self {
            inner: Mutex::new(inner),
        }
    }

    /// How far it has come.
    pub fn at(&self) -> Offset {
        self.inner.lock().at
    }

    /// Moves on, never back, and wakes those who waited for that.
    pub fn advance(&self, to: Offset) {
        let reached = {
            let mut inner = self.inner.lock();
            if to <= inner.at {
                return;
            }
            inner.at = to;
            let later = inner.waiting.split_off(&(to.next(), 0));
            std::mem::replace(&mut inner.waiting, later)
        };
        for waiter in reached.into_values() {
            // Whoever has given up in the meantime needs no waking.
            let _ = waiter.send(());
        }
    }

    /// Returns when the mark is at this place or beyond. Whoever gives up leaves nothing behind.
    pub async fn reach(&self, place: Offset) {
        let (waiter, reached) = oneshot::channel();
        let key = {
            let mut inner = self.inner.lock();
            if inner.at >= place {
                return;
            }
            let key = (place, inner.next_ticket);
            inner.next_ticket += 1;
            inner.waiting.insert(key, waiter);
            key
        };
        let _registered = Registered { mark: self, key };
        // The sender is dropped only after it has sent, or with the mark itself.
        let _ = reached.await;
    }
}

/// Takes a waiter from the list when its request ends, for whatever reason.
struct Registered<'a> {
    mark: &'a Mark,
    key: (Offset, u64),
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.mark.inner.lock().waiting.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn wakes_those_whose_place_is_reached_and_no_others() {
        let mark = Mark::new();
        let (mut near, mut far) = (
            Box::pin(mark.reach(Offset(5))),
            Box::pin(mark.reach(Offset(6))),
        );
        assert!((&mut near).now_or_never().is_none());
        assert!((&mut far).now_or_never().is_none());
        mark.advance(Offset(5));
        assert!((&mut near).now_or_never().is_some());
        assert!((&mut far).now_or_never().is_none());
        mark.advance(Offset(4));
        assert_eq!(mark.at(), Offset(5), "a mark never goes back");
        assert!(mark.reach(Offset(5)).now_or_never().is_some());
    }

    #[tokio::test]
    async fn whoever_gives_up_leaves_nothing_behind() {
        let mark = Mark::new();
        let waited =
            tokio::time::timeout(Duration::from_millis(1), mark.reach(Offset(i64::MAX))).await;
        assert!(waited.is_err());
        assert!(mark.inner.lock().waiting.is_empty());
    }
}
