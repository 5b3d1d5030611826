//! The products of a partition as their decider knows them.

use std::collections::HashMap;

use domain::Turn;
use domain::invariants::Violation;
use domain::product::Product;
use schemas::command::{Command, CommandBody};
use schemas::decision::Decision;
use schemas::ids::{ChainHash, ProductId};

use super::deadlines::Deadlines;

/// The products of a partition.
#[derive(Default)]
pub(crate) struct Products {
    by_id: HashMap<ProductId, Product>,
    pub(crate) deadlines: Deadlines,
    /// Orders and answered attempts remembered, of all products together.
    remembered: usize,
}

impl Products {
    /// Gives a command its turn.
    pub(crate) fn answer(&mut self, command: &Command, turn: Turn) -> Result<Decision, Violation> {
        self.change(&command.product_id, |product| {
            domain::answer(product, command, turn)
        })
    }

    /// Has the processor fetch what deciding on these will look at.
    pub(crate) fn look_ahead(&self, commands: &[Command]) {
        for command in commands {
            if let CommandBody::PlaceAttempt(place) = &command.body
                && let Some(product) = self.by_id.get(&command.product_id)
            {
                product.look_ahead(&place.attempt_id);
            }
        }
    }

    /// Takes in a decision of the past.
    pub(crate) fn absorb(&mut self, decision: &Decision) -> Result<(), Violation> {
        self.change(&decision.product_id, |product| {
            domain::absorb(product, decision)
        })
    }

    /// The product's chain hash.
    pub(crate) fn chain(&self, product: &ProductId) -> ChainHash {
        self.by_id
            .get(product)
            .map_or(ChainHash::default(), |product| product.chain)
    }

    /// Sets the product's chain hash, once its last decision has been made bytes of.
    pub(crate) fn set_chain(&mut self, product: &ProductId, chain: ChainHash) {
        if let Some(product) = self.by_id.get_mut(product) {
            product.chain = chain;
        }
    }

    /// Changes a product, and with it the deadlines and the count of what is remembered.
    pub(crate) fn change<T>(
        &mut self,
        id: &ProductId,
        change: impl FnOnce(&mut Product) -> T,
    ) -> T {
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

    /// Orders and answered attempts remembered.
    pub(crate) fn remembered(&self) -> usize {
        self.remembered
    }

    /// Every product.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ProductId, &Product)> {
        self.by_id.iter()
    }
}
