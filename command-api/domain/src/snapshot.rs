//! A product split into parts for a checkpoint, and restored from them.

use schemas::decision::{Order, Stock};
use schemas::ids::{AttemptId, ProductId};
use schemas::snapshot::{PART_ITEMS, ProductPart, SpentQuantity};

use crate::invariants::{Violation, check_stock};
use crate::product::Product;

/// The parts of a product, the first with its head.
pub fn parts(product_id: &ProductId, product: &Product) -> Vec<ProductPart> {
    let mut head = Some(product.head.clone());
    let mut orders = product.orders.values().cloned();
    let mut spent = product.spent.iter();
    let mut parts = Vec::new();
    loop {
        let spent: Vec<_> = spent.by_ref().take(PART_ITEMS).collect();
        let part = ProductPart {
            product_id: product_id.clone(),
            head: head.take(),
            orders: orders.by_ref().take(PART_ITEMS).collect(),
            spent_quantities: quantities(product, &spent),
            spent,
        };
        if part.head.is_none() && part.orders.is_empty() && part.spent.is_empty() {
            return parts;
        }
        parts.push(part);
    }
}

/// The quantities of those of these attempts that requested other than one unit, if they are known.
fn quantities(product: &Product, spent: &[AttemptId]) -> Option<Vec<SpentQuantity>> {
    if product.quantities_unknown {
        return None;
    }
    let other_than_one = spent.iter().filter_map(|id| {
        let quantity = product.spent_quantities.get(id)?;
        Some(SpentQuantity {
            attempt_id: *id,
            quantity: *quantity,
        })
    });
    Some(other_than_one.collect())
}

/// Adds a part to a product, which begins as the default one. The same part again changes
/// nothing, since a log may contain it twice.
pub fn restore(product: &mut Product, part: ProductPart) {
    if let Some(head) = part.head {
        product.head = head;
    }
    for order in part.orders {
        if product.orders.contains_key(&order.attempt_id) {
            continue;
        }
        if let Some(deadline) = order.hold_until_ms {
            product.holds.insert((deadline, order.attempt_id));
        }
        let units = product.units_of.entry(order.buyer_id.clone()).or_default();
        *units = units.saturating_add(order.quantity);
        product.orders.insert(order.attempt_id, order);
    }
    match part.spent_quantities {
        Some(quantities) if !product.quantities_unknown => {
            let quantities = quantities.into_iter();
            let quantities = quantities.map(|spent| (spent.attempt_id, spent.quantity));
            product.spent_quantities.extend(quantities);
        }
        None if !part.spent.is_empty() => {
            product.quantities_unknown = true;
            product.spent_quantities.clear();
        }
        _ => {}
    }
    product.spent.extend(part.spent);
}

/// Checks that all parts of a product were restored: its orders and attempts agree with its stock
/// and tally. A missing part is found here, before the product is used.
pub fn check(product: &Product) -> Result<(), Violation> {
    check_stock(&product.head.stock)?;
    let units = |held: bool| -> u64 {
        let orders = product.orders.values();
        let side = orders.filter(|order: &&Order| order.hold_until_ms.is_some() == held);
        side.map(|order| u64::from(order.quantity)).sum()
    };
    let (reserved, sold) = (units(true), units(false));
    let of_buyers: u64 = product
        .units_of
        .values()
        .map(|units| u64::from(*units))
        .sum();
    let agrees = reserved == u64::from(product.head.stock.reserved)
        && sold == u64::from(product.head.stock.sold)
        && of_buyers == reserved + sold
        && product.remembered() as u64 == product.head.tally.accepted + product.head.tally.refused;
    if agrees {
        return Ok(());
    }
    let clamped = |units: u64| u32::try_from(units).unwrap_or(u32::MAX);
    Err(Violation::StockDiffers {
        computed: Stock {
            reserved: clamped(reserved),
            sold: clamped(sold),
            ..product.head.stock
        },
        stated: product.head.stock,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    /// A product of more orders and refused attempts than one part holds.
    fn large() -> Vec<ProductPart> {
        let orders = PART_ITEMS as u32 + 10;
        let attempts = (0..2 * orders).map(|n| (OPENS, attempt(n, "ann", 1)));
        let given = given(std::iter::once((0, put(terms(orders)))).chain(attempts));
        parts(&"p".parse().unwrap(), &given.product)
    }

    fn restored(parts: impl IntoIterator<Item = ProductPart>) -> Product {
        let mut product = Product::default();
        parts
            .into_iter()
            .for_each(|part| restore(&mut product, part));
        product
    }

    #[test]
    fn an_empty_product_is_one_part() {
        let parts = parts(&"p".parse().unwrap(), &Product::default());
        assert_eq!(parts.len(), 1);
        assert_eq!(restored(parts), Product::default());
    }

    #[test]
    fn a_large_product_comes_in_bounded_parts_and_in_any_order() {
        let parts = large();
        assert_eq!(parts.len(), 2);
        assert!(parts.iter().all(|part| part.orders.len() <= PART_ITEMS));
        assert!(parts.iter().all(|part| part.spent.len() <= PART_ITEMS));
        let product = restored(parts.clone());
        assert_eq!(product.remembered(), 2 * (PART_ITEMS + 10));
        assert_eq!(check(&product), Ok(()));
        assert_eq!(restored(parts.into_iter().rev()), product);
    }

    #[test]
    fn a_missing_part_is_found() {
        let parts = large();
        assert!(check(&restored(parts[..1].to_vec())).is_err());
        assert!(check(&restored(parts[1..].to_vec())).is_err());
    }

    #[test]
    fn a_part_that_comes_twice_changes_nothing() {
        let parts = large();
        let doubled = parts.iter().flat_map(|part| [part.clone(), part.clone()]);
        assert_eq!(restored(doubled), restored(parts.clone()));
    }

    #[test]
    fn quantities_that_an_older_checkpoint_does_not_have_are_unknown_until_the_round_ends() {
        let given = on_sale(limited(10, 1))
            .when(OPENS, attempt(1, "ann", 2))
            .then([
                schemas::decision::Event::SaleOpened,
                refused(
                    1,
                    "ann",
                    2,
                    schemas::decision::RefusalReason::OverBuyerLimit,
                ),
            ]);
        let mut older = parts(&"p".parse().unwrap(), given.product());
        older[0].spent_quantities = None;
        let mut product = restored(older);
        assert_eq!(check(&product), Ok(()));
        assert_eq!(product.requested(&id(1)), None);
        // As long as they are unknown, so they are in the checkpoints that follow.
        let again = parts(&"p".parse().unwrap(), &product);
        assert!(again.iter().all(|part| part.spent_quantities.is_none()));
        assert_eq!(restored(again), product);
        let next = schemas::decision::SaleSet {
            terms: terms(1),
            round: 2,
        };
        crate::product::evolve(&mut product, &schemas::decision::Event::SaleSet(next));
        assert!(!product.quantities_unknown);
    }
}
