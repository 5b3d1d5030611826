//! Files of recorded demand, compressed or not, and the share of it that is put on sale.
//!
//! A file gives only attempts and cancellations that the command API would accept. The survey
//! counts exactly them, unless a row cannot be read. Compressing the file changes nothing.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use rehearse::decimal::Share;
use rehearse::order_file::text::OrderFile;
use rehearse::order_file::{Order, Row, Rows, Survey};
use schemas::ids::{BuyerId, MAX_QUANTITY, MAX_STOCK, ProductId};

pub(crate) fn run(input: &[u8]) {
    let dir = crate::scratch();
    let path = dir.path().join("orders");
    fs::write(&path, input).expect("the file can be written");
    let rows = read(&path);
    let share: Share = "0.8".parse().expect("it is a share");
    let survey = Survey::of(&OrderFile::open(&path).expect("it is a file"), share);
    let Some(rows) = rows else {
        assert!(survey.is_err(), "what cannot be read has no survey");
        return;
    };
    rows.iter().for_each(check);
    let attempts = rows.iter().filter_map(|row| match row {
        Row::Attempt(order) => Some(order),
        _ => None,
    });
    let wanted: u64 = attempts
        .clone()
        .map(|order| u64::from(order.quantity))
        .sum();
    let unreadable = rows.iter().any(|row| matches!(row, Row::Unreadable { .. }));
    match survey {
        Ok(survey) => {
            assert!(!unreadable, "a row that cannot be read was passed over");
            assert_eq!(survey.rows, rows.len() as u64);
            let offers = survey.offers.iter();
            assert_eq!(
                offers.clone().map(|offer| offer.wanted).sum::<u64>(),
                wanted
            );
            for (place, offer) in offers.enumerate() {
                assert_eq!(survey.offer_of[&offer.product], place);
                assert!(offer.name.len() <= 200 && offer.price_pence > 0);
                assert_eq!(share.of(offer.wanted), Some(offer.stock));
            }
        }
        Err(_) => {
            let too_many = wanted > u64::from(MAX_STOCK);
            assert!(
                wanted == 0 || too_many || unreadable,
                "attempts without an offer"
            );
        }
    }
    if !input.starts_with(&[0x1f, 0x8b]) {
        let file = fs::File::create(&path).expect("the file can be written");
        let mut gzip = GzEncoder::new(file, Compression::fast());
        let written = gzip.write_all(input).and_then(|()| gzip.finish());
        written.expect("the file can be written");
        assert_eq!(read(&path), Some(rows));
    }
}

/// All rows; none when the file is not one of demand to its end.
fn read(path: &Path) -> Option<Vec<Row>> {
    Rows::open(&OrderFile::open(path).ok()?)
        .ok()?
        .collect::<Result<_, _>>()
        .ok()
}

fn check(row: &Row) {
    let who = |order: &Order| {
        assert!(order.quantity <= MAX_QUANTITY);
        assert!(order.product.parse::<ProductId>().is_ok());
        assert!(order.buyer.parse::<BuyerId>().is_ok());
    };
    match row {
        Row::Attempt(order) => {
            who(order);
            assert!(order.quantity > 0 && order.price_pence > 0);
            assert!(order.description.len() <= 200);
        }
        Row::Cancel(order) => {
            who(order);
            assert_eq!((order.price_pence, order.description.len()), (0, 0));
        }
        Row::Skipped(skip) => assert!(!skip.as_str().is_empty()),
        Row::Unreadable { line, fault } => {
            assert!(*line > 1 && !fault.to_string().contains(char::is_control));
        }
    }
}

/// A share as text, then a space and the units that it is a share of.
///
/// Its text form parses to the same share, and its part of the units is never more than their
/// product, rounded up.
pub(crate) fn share(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (text, units) = text.split_once(' ').unwrap_or((&text, ""));
    let Ok(share) = text.parse::<Share>() else {
        return;
    };
    assert_eq!(share.to_string().parse(), Ok(share));
    let units = units.parse().unwrap_or(u64::from(MAX_QUANTITY));
    if let Some(stock) = share.of(units) {
        assert!(stock <= MAX_STOCK);
        assert!(u128::from(stock) <= u128::from(units) * 1000);
        assert!(share.of(units / 2).is_some_and(|half| half <= stock));
    }
}
