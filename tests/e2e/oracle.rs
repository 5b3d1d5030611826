//! What a shop's recorded orders must come to, reckoned row by row with plain code that shares
//! nothing with the product.
//!
//! The rules: products are the StockCodes with at least one row of positive quantity and price,
//! and such a row is an attempt. Stock is the share, in tenths here, of all units of those
//! rows, rounded up. A row of an invoice beginning with C that is no attempt cancels the buyer's
//! latest open order of exactly that quantity, or is unmatched. Other rows are skipped.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;

use crate::demand::open;

/// The result of the whole file.
#[derive(Debug, Default, PartialEq)]
pub struct Expected {
    pub rows: u64,
    pub attempts: u64,
    pub accepted: u64,
    pub refused: BTreeMap<String, u64>,
    pub cancelled: u64,
    pub unmatched: u64,
    pub skipped: BTreeMap<String, u64>,
    pub products: BTreeMap<String, Figures>,
}

/// The result of one product.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Figures {
    pub stock: u64,
    pub sold: u64,
    pub available: u64,
    pub accepted: u64,
    pub refused: u64,
    pub cancelled: u64,
}

struct Row {
    cancels: bool,
    product: String,
    buyer: String,
    quantity: i64,
}

/// Computes the result of a file.
pub fn expect(path: &Path, share_tenths: u64) -> Expected {
    let mut expected = Expected::default();
    let mut rows = Vec::new();
    for record in csv::Reader::from_reader(open(path)).byte_records() {
        expected.rows += 1;
        let record = record.expect("a row of the demand file");
        let field = |index| String::from_utf8_lossy(&record[index]).into_owned();
        let (invoice, customer) = (field(0), field(6));
        let quantity: i64 = field(3).parse().expect("a quantity");
        let price: f64 = field(5).parse().expect("a price");
        let attempt = quantity > 0 && price > 0.0;
        if !attempt && !invoice.starts_with('C') {
            let why = if quantity > 0 { "price" } else { "quantity" };
            *expected
                .skipped
                .entry(format!("{why}_not_positive"))
                .or_default() += 1;
            continue;
        }
        rows.push(Row {
            cancels: !attempt,
            product: field(1),
            buyer: if customer.is_empty() {
                format!("guest-{invoice}")
            } else {
                customer
            },
            quantity: quantity.abs(),
        });
    }

    let mut wanted: HashMap<&str, u64> = HashMap::new();
    for row in rows.iter().filter(|row| !row.cancels) {
        *wanted.entry(&row.product).or_default() += row.quantity as u64;
    }
    for (product, units) in wanted {
        let stock = (units * share_tenths).div_ceil(10);
        let figures = Figures {
            stock,
            available: stock,
            ..Figures::default()
        };
        expected.products.insert(product.to_owned(), figures);
    }

    // Orders of one buyer, product and quantity are alike, so only the number of open ones counts.
    let mut standing: HashMap<(&str, &str, i64), u64> = HashMap::new();
    for row in &rows {
        let Some(product) = expected.products.get_mut(&row.product) else {
            expected.unmatched += 1;
            continue;
        };
        let units = row.quantity as u64;
        let key = (&*row.product, &*row.buyer, row.quantity);
        if row.cancels {
            match standing.get_mut(&key).filter(|orders| **orders > 0) {
                None => expected.unmatched += 1,
                Some(orders) => {
                    *orders -= 1;
                    expected.cancelled += 1;
                    product.cancelled += 1;
                    product.sold -= units;
                    product.available += units;
                }
            }
            continue;
        }
        expected.attempts += 1;
        if product.available >= units {
            expected.accepted += 1;
            product.accepted += 1;
            product.sold += units;
            product.available -= units;
            *standing.entry(key).or_default() += 1;
        } else {
            let reason = if product.available == 0 {
                "sold_out"
            } else {
                "not_enough_left"
            };
            *expected.refused.entry(reason.to_owned()).or_default() += 1;
            product.refused += 1;
        }
    }
    expected
}

/// The report in the oracle's terms.
pub fn as_expected(report: &Value) -> Expected {
    let number = |value: &Value| {
        value
            .as_u64()
            .unwrap_or_else(|| panic!("{value}: no number"))
    };
    let counts = |value: &Value| {
        let counts = value.as_object().unwrap().iter();
        counts
            .map(|(name, count)| (name.clone(), number(count)))
            .collect()
    };
    let totals = &report["totals"];
    let products = report["products"]
        .as_array()
        .unwrap()
        .iter()
        .map(|product| {
            let figures = Figures {
                stock: number(&product["stock"]),
                sold: number(&product["sold"]),
                available: number(&product["available"]),
                accepted: number(&product["accepted"]),
                refused: number(&product["refused"]),
                cancelled: number(&product["cancelled"]),
            };
            (product["product_id"].as_str().unwrap().to_owned(), figures)
        });
    Expected {
        rows: number(&totals["rows"]),
        attempts: number(&totals["attempts"]),
        accepted: number(&totals["accepted"]),
        refused: counts(&totals["refused"]),
        cancelled: number(&totals["cancelled"]),
        unmatched: number(&totals["unmatched"]),
        skipped: counts(&totals["skipped"]),
        products: products.collect(),
    }
}

#[test]
fn the_oracle_agrees_with_a_calculation_by_hand() {
    let text = "\
InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
C90,P,LAMP,-4,t,1,b1,UK
1,P,LAMP,4,t,1,b1,UK
1,P,LAMP,4,t,1,b1,UK
2,P,LAMP,2,t,1,b2,UK
3,P,LAMP,2,t,1,b2,UK
C91,P,LAMP,-4,t,1,b1,UK
4,P,LAMP,3,t,1,,UK
C92,P,LAMP,-4,t,1,b1,UK
5,P,LAMP,5,t,1,b3,UK
C93,P,LAMP,-3,t,1,,UK
C94,P,LAMP,-2,t,1,b1,UK
6,p,lamp,1,t,1,b1,UK
8,P,LAMP,-2,t,1,b1,UK
9,P,LAMP,2,t,0,b1,UK
C95,Q,JAR,-1,t,1,b1,UK
A1,B,Adjust bad debt,1,t,-11062.06,,UK
11,POST,POSTAGE,2,t,18,b4,UK
12,POST,POSTAGE,3,t,18,b5,UK
";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("demand.csv");
    std::fs::write(&path, text).unwrap();
    let figures = |stock, sold, accepted, refused, cancelled| Figures {
        stock,
        sold,
        available: stock - sold,
        accepted,
        refused,
        cancelled,
    };
    let count = |name: &str, count| (name.to_owned(), count);
    let expected = Expected {
        rows: 18,
        attempts: 9,
        accepted: 7,
        refused: [count("sold_out", 1), count("not_enough_left", 1)].into(),
        cancelled: 2,
        unmatched: 4,
        skipped: [
            count("quantity_not_positive", 1),
            count("price_not_positive", 2),
        ]
        .into(),
        products: [
            // 20 units ordered, 10 on sale: 4, 4, 2 sold, 2 refused, 4 cancelled, 3 sold,
            // 4 cancelled, 5 sold.
            ("P".to_owned(), figures(10, 10, 5, 1, 2)),
            ("p".to_owned(), figures(1, 1, 1, 0, 0)),
            // 5 units ordered, 3 on sale: 2 sold, then 1 left where 3 are ordered.
            ("POST".to_owned(), figures(3, 2, 1, 1, 0)),
        ]
        .into(),
    };
    assert_eq!(expect(&path, 5), expected);
}
