//! A product in pieces, for a checkpoint, and back.

use schemas::decision::{Order, Stock};
use schemas::ids::ProductId;
use schemas::snapshot::{PART_ITEMS, ProductHead, ProductPart};

use crate::invariants::{Violation, check_stock};
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
        let units = product.units_of.entry(order.buyer_id.clone()).or_default();
        *units = units.saturating_add(order.quantity);
        product.orders.insert(order.attempt_id, order);
    }
    product.spent.extend(part.spent);
}

/// Whether a product whose pieces are all restored is whole: its orders are what its stock
/// says. A piece that is missing or there twice is found here, before anyone decides by it.
pub fn check(product: &Product) -> Result<(), Violation> {
    check_stock(&product.stock)?;
    let units = |held: bool| -> u64 {
        let orders = product.orders.values();
        let side = orders.filter(|order: &&Order| order.hold_until_ms.is_some() == held);
        side.map(|order| u64::from(order.quantity)).sum()
    };
    let (reserved, sold) = (units(true), units(false));
    let of_buyers: u64 = product.units_of.values().map(|units| u64::from(*units)).sum();
    let agrees = reserved == u64::from(product.stock.reserved)
        && sold == u64::from(product.stock.sold)
        && of_buyers == reserved + sold
        && product.remembered() as u64 == product.tally.accepted + product.tally.refused;
    if agrees {
        return Ok(());
    }
    let clamped = |units: u64| u32::try_from(units).unwrap_or(u32::MAX);
    Err(Violation::StockDiffers {
        kept: Stock {
            reserved: clamped(reserved),
            sold: clamped(sold),
            ..product.stock
        },
        said: product.stock,
    })
}
