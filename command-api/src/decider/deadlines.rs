//! Which products have a deadline, and when: time passes for them also when nothing arrives.

use std::collections::{BTreeSet, HashMap};

use schemas::ids::{ProductId, TimestampMs};

/// How long to wait before time is asked to pass again for a product whose deadline, by the
/// log's clock, had not come yet.
const ASK_AGAIN_MS: i64 = 20;
/// The most products asked about at once.
const MAX_DUE: usize = 1_000;

/// The next moment at which each product needs time to pass.
#[derive(Default)]
pub(crate) struct Deadlines {
    next_of: HashMap<ProductId, TimestampMs>,
    in_order: BTreeSet<(TimestampMs, ProductId)>,
}

impl Deadlines {
    /// The product's next deadline is this.
    pub(crate) fn set(&mut self, product: &ProductId, next: Option<TimestampMs>) {
        if self.next_of.get(product).copied() == next {
            return;
        }
        if let Some(before) = self.next_of.remove(product) {
            self.in_order.remove(&(before, product.clone()));
        }
        if let Some(next) = next {
            self.next_of.insert(product.clone(), next);
            self.in_order.insert((next, product.clone()));
        }
    }

    /// The first deadline of all.
    pub(crate) fn first(&self) -> Option<TimestampMs> {
        self.in_order.first().map(|(deadline, _)| *deadline)
    }

    /// The products whose deadline has come. Each is put off by a moment, so that it is not
    /// asked about again before the answer can have come.
    pub(crate) fn take_due(&mut self, now: TimestampMs) -> Vec<ProductId> {
        let due: Vec<ProductId> = self
            .in_order
            .iter()
            .take_while(|(deadline, _)| *deadline <= now)
            .take(MAX_DUE)
            .map(|(_, product)| product.clone())
            .collect();
        for product in &due {
            self.set(product, Some(now + ASK_AGAIN_MS));
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
}
