//! An offset that only moves forward, and the requests that wait for it.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use schemas::ids::Offset;
use tokio::sync::oneshot;

/// How far a topic has been read or stored.
///
/// An advance wakes only the waiters whose offset it reaches, however many wait.
pub(crate) struct Watermark {
    inner: Mutex<Inner>,
}

struct Inner {
    at: Offset,
    /// By awaited offset; the ticket distinguishes waiters for the same offset.
    waiting: BTreeMap<(Offset, u64), oneshot::Sender<()>>,
    next_ticket: u64,
}

impl Watermark {
    /// A watermark before every offset.
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

    /// The last offset that was reached.
    pub fn at(&self) -> Offset {
        self.inner.lock().at
    }

    /// Moves forward, never back, and wakes the waiters that this reaches.
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
            // A waiter that has given up needs no waking.
            let _ = waiter.send(());
        }
    }

    /// Returns when the watermark is at this offset or beyond. Dropping the future removes its
    /// entry.
    pub async fn reach(&self, offset: Offset) {
        let (waiter, reached) = oneshot::channel();
        let key = {
            let mut inner = self.inner.lock();
            if inner.at >= offset {
                return;
            }
            let key = (offset, inner.next_ticket);
            inner.next_ticket += 1;
            inner.waiting.insert(key, waiter);
            key
        };
        let _registered = Registered {
            watermark: self,
            key,
        };
        // The sender is dropped only after it has sent, or with the watermark itself.
        let _ = reached.await;
    }
}

/// Removes a waiter when its request ends, for whatever reason.
struct Registered<'a> {
    watermark: &'a Watermark,
    key: (Offset, u64),
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.watermark.inner.lock().waiting.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_advance_wakes_the_waiters_it_reaches_and_no_others() {
        let watermark = Watermark::new();
        let (mut near, mut far) = (
            Box::pin(watermark.reach(Offset(5))),
            Box::pin(watermark.reach(Offset(6))),
        );
        assert!((&mut near).now_or_never().is_none());
        assert!((&mut far).now_or_never().is_none());
        watermark.advance(Offset(5));
        assert!((&mut near).now_or_never().is_some());
        assert!((&mut far).now_or_never().is_none());
        watermark.advance(Offset(4));
        assert_eq!(watermark.at(), Offset(5), "a watermark never goes back");
        assert!(watermark.reach(Offset(5)).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_leaves_no_entry() {
        let watermark = Watermark::new();
        let waited =
            tokio::time::timeout(Duration::from_millis(1), watermark.reach(Offset(i64::MAX))).await;
        assert!(waited.is_err());
        assert!(watermark.inner.lock().waiting.is_empty());
    }
}
