//! The products of a partition, in memory.

use std::collections::HashMap;

use domain::invariants::Violation;
use domain::product::Product;
use domain::{DecisionContext, snapshot};
use schemas::command::{Command, CommandBody};
use schemas::decision::Decision;
use schemas::ids::{ChainHash, ProductId};
use schemas::snapshot::ProductPart;

use crate::partition::deadlines::Deadlines;

/// The products of a partition, with their next deadlines.
#[derive(Default)]
pub(super) struct Products {
    by_id: HashMap<ProductId, Product>,
    pub(super) deadlines: Deadlines<ProductId>,
    /// Orders and answered attempts remembered, of all products.
    remembered: usize,
}

impl Products {
    /// Decides on a command and changes its product accordingly.
    pub(super) fn answer(
        &mut self,
        command: &Command,
        context: DecisionContext,
    ) -> Result<Decision, Violation> {
        let (decision, next) = self.change(&command.product_id, |product| {
            let decision = domain::answer(product, command, context);
            (decision, product.next_deadline())
        });
        let decision = decision?;
        // One decision lets a bounded number of holds run out. The others are due at once.
        let more_is_due = next.is_some_and(|deadline| deadline <= decision.decided_at_ms);
        if more_is_due && command.body == CommandBody::TimeAdvanced {
            self.deadlines.due_at_once(&command.product_id);
        }
        Ok(decision)
    }

    /// Prefetches the memory that deciding on these commands will look at.
    pub(super) fn prefetch(&self, commands: &[Command]) {
        for command in commands {
            if let CommandBody::PlaceAttempt(place) = &command.body
                && let Some(product) = self.by_id.get(&command.product_id)
            {
                product.prefetch(&place.attempt_id);
            }
        }
    }

    /// Applies a decision from the log.
    pub(super) fn absorb(&mut self, decision: &Decision) -> Result<(), Violation> {
        self.change(&decision.product_id, |product| {
            domain::absorb(product, decision)
        })
    }

    /// The product's chain hash.
    pub(super) fn chain(&self, product: &ProductId) -> ChainHash {
        self.by_id
            .get(product)
            .map_or(ChainHash::default(), |product| product.head.chain)
    }

    /// Sets the product's chain hash, once its last decision has been encoded.
    pub(super) fn set_chain(&mut self, product: &ProductId, chain: ChainHash) {
        if let Some(product) = self.by_id.get_mut(product) {
            product.set_chain(chain);
        }
    }

    /// The parts of all products for a checkpoint, ordered by product, so that the same products
    /// make the same checkpoint, to the byte.
    pub(super) fn parts(&self) -> Vec<ProductPart> {
        let mut products: Vec<_> = self.by_id.iter().collect();
        products.sort_unstable_by_key(|(id, _)| *id);
        products
            .into_iter()
            .flat_map(|(id, product)| snapshot::parts(id, product))
            .collect()
    }

    /// Adds a part of a product from a checkpoint.
    pub(super) fn restore(&mut self, part: ProductPart) {
        let product_id = part.product_id.clone();
        self.change(&product_id, |product| snapshot::restore(product, part));
    }

    /// Checks that all parts of all products were restored.
    pub(super) fn check(&self) -> Result<(), Violation> {
        self.by_id.values().try_for_each(snapshot::check)
    }

    /// Changes a product, and with it the deadlines and the count of what is remembered.
    fn change<T>(&mut self, id: &ProductId, change: impl FnOnce(&mut Product) -> T) -> T {
        if !self.by_id.contains_key(id) {
            self.by_id.insert(id.clone(), Product::default());
        }
        let product = self.by_id.get_mut(id).expect("it was inserted just now");
        let before = product.remembered();
        let result = change(product);
        self.remembered = self.remembered + product.remembered() - before;
        self.deadlines.set(id, product.next_deadline());
        // Of a product without a sale there is nothing to keep.
        if product.head.version == 0 && product.remembered() == 0 {
            self.by_id.remove(id);
        }
        result
    }

    /// Orders and answered attempts remembered, of all products.
    pub(super) fn remembered(&self) -> usize {
        self.remembered
    }
}

#[cfg(test)]
mod tests {
    use schemas::command::{PlaceAttempt, SaleTerms};
    use schemas::ids::{AttemptId, Money, Offset, TimestampMs};

    use super::*;

    /// Decides on commands of one product, one after the other.
    #[derive(Default)]
    struct Decided {
        products: Products,
        offset: i64,
    }

    impl Decided {
        fn command(&mut self, at: TimestampMs, body: CommandBody) {
            self.command_on("p", at, body);
        }

        fn command_on(&mut self, product: &str, at: TimestampMs, body: CommandBody) {
            let context = DecisionContext {
                claim: Offset(0),
                offset: Offset(self.offset),
                follows: Offset(self.offset - 1),
                appended_at_ms: at,
            };
            self.offset += 1;
            let command = Command {
                product_id: product.parse().unwrap(),
                body,
                if_version: None,
            };
            self.products.answer(&command, context).unwrap();
        }
    }

    fn attempt(number: u32) -> CommandBody {
        CommandBody::PlaceAttempt(PlaceAttempt {
            attempt_id: AttemptId::from_bytes(u128::from(number).to_be_bytes()),
            buyer_id: "ann".parse().unwrap(),
            quantity: 1,
            round: None,
        })
    }

    #[test]
    fn orders_for_made_up_products_leave_nothing_behind() {
        let mut decided = Decided::default();
        for n in 0..1_000 {
            decided.command_on(&format!("made-up-{n}"), 0, attempt(n));
            decided.command_on(&format!("made-up-{n}"), 0, CommandBody::OpenSale);
        }
        assert!(decided.products.by_id.is_empty());
        assert_eq!(decided.products.remembered(), 0);
        assert_eq!(decided.products.parts(), []);
    }

    #[test]
    fn holds_that_end_in_the_same_millisecond_take_no_waits() {
        let holds = 3_500;
        let mut decided = Decided::default();
        let terms = SaleTerms {
            name: "Lamp".into(),
            price: Money {
                minor: 1999,
                currency: "GBP".into(),
            },
            stock: holds,
            limit_per_buyer: None,
            hold_ms: Some(500),
            opens_at_ms: 0,
            closes_at_ms: None,
        };
        decided.command(0, CommandBody::PutSale(terms));
        for n in 0..holds {
            decided.command(0, attempt(n));
        }
        // The clock stands still at the deadline of all of them.
        let mut steps = 0;
        while !decided.products.deadlines.take_due(500).is_empty() {
            steps += 1;
            decided.command(500, CommandBody::TimeAdvanced);
        }
        assert_eq!(steps, 4, "a thousand holds in each step");
        assert_eq!(decided.products.deadlines.first(), None);
    }
}
