//! Which products have a deadline, and when: time passes for them also when nothing arrives.

use std::collections::{BTreeSet, HashMap};

use schemas::ids::{ProductId, TimestampMs};

/// How long to wait before time is asked to pass again for a product whose deadline, by the
/// log's clock, had not come yet; twice as long each further time.
const ASK_AGAIN_MS: i64 = 20;
/// The longest such wait. A clock that is far ahead of the log's asks once in so long.
const MAX_ASK_AGAIN_MS: i64 = 1_000;
/// The most products asked about at once.
const MAX_DUE: usize = 1_000;

/// The next moment at which each product needs time to pass.
#[derive(Default)]
pub(crate) struct Deadlines {
    next_of: HashMap<ProductId, Next>,
    in_order: BTreeSet<(TimestampMs, ProductId)>,
}

/// A product's next deadline.
#[derive(Clone, Copy)]
struct Next {
    deadline: TimestampMs,
    /// When to ask for it: not before it, and later when it was asked for in vain.
    ask_at: TimestampMs,
    /// How long it was put off when it was last asked for; 0 before that.
    put_off_ms: i64,
}

impl Deadlines {
    /// The product's next deadline is this. One that was asked for already stays put off.
    pub(crate) fn set(&mut self, product: &ProductId, next: Option<TimestampMs>) {
        if self.next_of.get(product).map(|next| next.deadline) == next {
            return;
        }
        let next = next.map(|deadline| Next {
            deadline,
            ask_at: deadline,
            put_off_ms: 0,
        });
        self.replace(product, next);
    }

    fn replace(&mut self, product: &ProductId, next: Option<Next>) {
        if let Some(before) = self.next_of.remove(product) {
            self.in_order.remove(&(before.ask_at, product.clone()));
        }
        if let Some(next) = next {
            self.next_of.insert(product.clone(), next);
            self.in_order.insert((next.ask_at, product.clone()));
        }
    }

    /// When to ask first.
    pub(crate) fn first(&self) -> Option<TimestampMs> {
        self.in_order.first().map(|(ask_at, _)| *ask_at)
    }

    /// The products whose deadline has come. Each is put off by a moment, so that it is not
    /// asked about again before the answer can have come; by twice as long when the answer was
    /// that it had not, since the log's clock may be behind by any time.
    pub(crate) fn take_due(&mut self, now: TimestampMs) -> Vec<ProductId> {
        let due: Vec<ProductId> = self
            .in_order
            .iter()
            .take_while(|(ask_at, _)| *ask_at <= now)
            .take(MAX_DUE)
            .map(|(_, product)| product.clone())
            .collect();
        for product in &due {
            let asked = self.next_of[product];
            let put_off_ms = (2 * asked.put_off_ms).clamp(ASK_AGAIN_MS, MAX_ASK_AGAIN_MS);
            let next = Next {
                ask_at: now + put_off_ms,
                put_off_ms,
                ..asked
            };
            self.replace(product, Some(next));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(name: &str) -> ProductId {
        name.parse().unwrap()
    }

    #[test]
    fn a_due_product_is_named_once_and_again_only_later() {
        let mut deadlines = Deadlines::default();
        deadlines.set(&product("b"), Some(200));
        deadlines.set(&product("a"), Some(100));
        assert_eq!(deadlines.first(), Some(100));
        assert_eq!(deadlines.take_due(99), []);
        assert_eq!(deadlines.take_due(150), [product("a")]);
        assert_eq!(deadlines.take_due(150), []);
        assert_eq!(deadlines.take_due(150 + ASK_AGAIN_MS), [product("a")]);
        deadlines.set(&product("a"), None);
        assert_eq!(deadlines.first(), Some(200));
    }

    #[test]
    fn a_deadline_that_has_not_come_by_the_log_s_clock_is_asked_for_ever_more_rarely() {
        let mut deadlines = Deadlines::default();
        let mut asked = Vec::new();
        for now in 0..10_000 {
            // The answer is each time that the deadline is the same as before.
            deadlines.set(&product("a"), Some(100));
            if !deadlines.take_due(now).is_empty() {
                asked.push(now);
            }
        }
        assert_eq!(asked[..7], [100, 120, 160, 240, 400, 720, 1_360]);
        assert_eq!(asked.len(), 15, "once a second from then on: {asked:?}");
        // Another deadline is asked for when it comes.
        deadlines.set(&product("a"), Some(10_500));
        assert_eq!(deadlines.first(), Some(10_500));
    }
}
