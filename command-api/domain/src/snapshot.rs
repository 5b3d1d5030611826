//! A product in pieces, for a checkpoint, and back.

use schemas::ids::ProductId;
use schemas::snapshot::{PART_ITEMS, ProductHead, ProductPart};

use crate::product::Product;

/// The pieces of a product, the first with its head.
pub fn parts(product_id: &ProductId, product: &Product) -> Vec<ProductPart> {
    let mut head = Some(ProductHead {
        version: product.version,
        chain: product.chain,
        decided_at_ms: product.decided_at_ms,
        round: product.round,
        terms: product.terms.clone(),
        opened: product.opened,
        paused: product.paused,
        closed: product.closed,
        stock: product.stock,
        tally: product.tally,
    });
    let mut orders = product.orders.values().cloned();
    let mut spent = product.spent.iter().copied();
    let mut parts = Vec::new();
    loop {
        let part = ProductPart {
            product_id: product_id.clone(),
            head: head.take(),
            orders: orders.by_ref().take(PART_ITEMS).collect(),
            spent: spent.by_ref().take(PART_ITEMS).collect(),
        };
        if part.head.is_none() && part.orders.is_empty() && part.spent.is_empty() {
            return parts;
        }
        parts.push(part);
    }
}

/// Takes a piece into a product, which begins as the default one.
pub fn restore(product: &mut Product, part: ProductPart) {
    if let Some(head) = part.head {
        product.version = head.version;
        product.chain = head.chain;
        product.decided_at_ms = head.decided_at_ms;
        product.round = head.round;
        product.terms = head.terms;
        product.opened = head.opened;
        product.paused = head.paused;
        product.closed = head.closed;
        product.stock = head.stock;
        product.tally = head.tally;
    }
    for order in part.orders {
        if let Some(deadline) = order.hold_until_ms {
            product.holds.insert((deadline, order.attempt_id));
        }
        *product.units_of.entry(order.buyer_id.clone()).or_default() += order.quantity;
        product.orders.insert(order.attempt_id, order);
    }
    product.spent.extend(part.spent);
}
