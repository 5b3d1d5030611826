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
        self.change(&command.product_id, |product| {
            domain::answer(product, command, context)
        })
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
            product.head.chain = chain;
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
        result
    }

    /// Orders and answered attempts remembered, of all products.
    pub(super) fn remembered(&self) -> usize {
        self.remembered
    }
}
