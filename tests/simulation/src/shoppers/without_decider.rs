//! What shoppers order while no decider runs.

use std::sync::Arc;

use super::Shoppers;
use crate::plan::PRODUCTS;

/// A buyer that no plan has.
const BUYER: u32 = 100;

impl Shoppers {
    /// Orders each product that has a sale, and follows the orders until they are decided.
    pub async fn run_without_decider(self: Arc<Self>) -> turmoil::Result {
        let order_and_follow = async |product| {
            if let Some((attempt, position)) = self.order(0, (product, BUYER, 0), 1, true).await {
                self.follow(product, &attempt, Some(position)).await;
            }
        };
        futures::future::join_all((0..PRODUCTS.len()).map(order_and_follow)).await;
        self.all_answered.send_replace(true);
        Ok(())
    }
}
