//! A file with the recorded orders of a shop, and the rules by which its rows become demand.
//!
//! | row | becomes |
//! |---|---|
//! | positive quantity and price | an attempt of its buyer |
//! | otherwise, of an invoice beginning with `C` | cancels the buyer's latest standing order of exactly that quantity |
//! | any other | is skipped, for a [`Skip`] reason |
//!
//! A row that cannot be read is a [`Fault`]; a file with one has no [`Survey`].
//!
//! The buyer is the CustomerID, or `guest-` and the invoice if it is empty. The products are the
//! StockCodes that have an attempt; letter case matters.

pub mod faults;
pub mod text;

use std::collections::HashMap;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, bail};
use schemas::ids::{BuyerId, MAX_QUANTITY, MAX_STOCK, ProductId};

use self::faults::{Fault, UnreadableRows, header_fault};
use self::text::{Fields, Line, Lines, OpenQuote, OrderFile};
use crate::decimal::{Pounds, Share};

/// The longest name of a sale, in bytes.
const MAX_NAME_BYTES: usize = 200;
/// The columns that are read, by their names in the first line.
const COLUMNS: [&str; 6] = [
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "UnitPrice",
    "CustomerID",
];

/// What a row becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A buyer orders units.
    Attempt(Order),
    /// A buyer cancels the latest order of exactly this quantity.
    Cancel(Order),
    /// Neither, by the rules above.
    Skipped(Skip),
    /// What the row is cannot be known.
    Unreadable {
        /// Its line in the file, from 1.
        line: u64,
        /// Why.
        fault: Fault,
    },
}

/// Buyer, product and quantity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The StockCode.
    pub product: Arc<str>,
    /// The buyer.
    pub buyer: Arc<str>,
    /// Units.
    pub quantity: u32,
    /// Price of one unit, in pence; 0 for a cancellation.
    pub price_pence: i64,
    /// The first 200 bytes of the row's Description, with spaces for control characters.
    pub description: Box<str>,
}

/// Why a row that can be read is neither an attempt nor a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Skip {
    /// The quantity is 0 or less, and the invoice is no cancellation.
    QuantityNotPositive,
    /// The price is 0 or less.
    PriceNotPositive,
}

impl Skip {
    /// The reason as the report names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Skip::QuantityNotPositive => "quantity_not_positive",
            Skip::PriceNotPositive => "price_not_positive",
        }
    }
}

/// The offer of one product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The product.
    pub product: Arc<str>,
    /// The name that shoppers see.
    pub name: Box<str>,
    /// Price of one unit, in pence: the price of the first attempt.
    pub price_pence: i64,
    /// The units of all attempts.
    pub wanted: u64,
    /// The units on sale: the share of the wanted units, rounded up.
    pub stock: u32,
}

/// A summary of a file, made before the first order is sent.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// The offers, in the order of their first attempts.
    pub offers: Vec<Offer>,
    /// The index of each product's offer.
    pub offer_of: HashMap<Arc<str>, usize>,
    /// Rows after the first line.
    pub rows: u64,
}

impl Survey {
    /// Reads the file once for its products and their units. Fails if a row cannot be read, and
    /// names the lines of all such rows.
    pub fn of(file: &OrderFile, share: Share) -> anyhow::Result<Self> {
        let mut survey = Self::default();
        let mut unreadable = UnreadableRows::default();
        for row in Rows::open(file)? {
            survey.rows += 1;
            match row.with_context(|| unreadable_file(file))? {
                Row::Attempt(order) => survey.count(order),
                Row::Unreadable { line, fault } => unreadable.add(line, fault),
                Row::Cancel(_) | Row::Skipped(_) => {}
            }
        }
        if !unreadable.is_empty() {
            bail!("{}: {unreadable}", file.path().display());
        }
        for offer in &mut survey.offers {
            let product = &offer.product;
            offer.stock = share.of(offer.wanted).with_context(|| {
                format!("product {product} would have a stock of more than {MAX_STOCK} units; use a smaller --stock-share")
            })?;
        }
        if survey.offers.is_empty() {
            bail!(
                "{} has no row with a positive quantity and price",
                file.path().display()
            );
        }
        Ok(survey)
    }

    fn count(&mut self, order: Order) {
        let next = self.offers.len();
        let index = *self.offer_of.entry(order.product.clone()).or_insert(next);
        if index == next {
            self.offers.push(Offer {
                product: order.product,
                name: "".into(),
                price_pence: order.price_pence,
                wanted: 0,
                stock: 0,
            });
        }
        let offer = &mut self.offers[index];
        offer.wanted += u64::from(order.quantity);
        if offer.name.is_empty() {
            offer.name = order.description;
        }
    }
}

/// The rows of a file, read one by one in the file's order. Empty lines are no rows.
pub struct Rows {
    lines: Lines,
    fields: Fields,
    columns: [usize; 6],
    width: usize,
}

impl Rows {
    /// Reads the first line of a file, which names the columns.
    pub fn open(file: &OrderFile) -> anyhow::Result<Self> {
        let text = file.text().with_context(|| unreadable_file(file))?;
        Self::read(Lines::of(text)).with_context(|| unreadable_file(file))
    }

    fn read(mut lines: Lines) -> anyhow::Result<Self> {
        let line = match lines.next()? {
            Some(Line::Text(line)) => line,
            Some(Line::TooLong) => bail!("its first line is {}; is it CSV?", Fault::LineTooLong),
            None => bail!(
                "it is empty; its first line must have the columns {}",
                COLUMNS.join(", ")
            ),
        };
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let mut fields = Fields::default();
        if fields.split(line).is_err() {
            bail!("its first line: {}", Fault::OpenQuote);
        }
        if let Some(fault) = header_fault(line, &fields) {
            bail!(fault);
        }
        let mut columns = [0; 6];
        for (column, name) in columns.iter_mut().zip(COLUMNS) {
            let found = fields
                .iter()
                .position(|field| field.trim_ascii() == name.as_bytes());
            *column = found.with_context(|| format!("its first line lacks {name}"))?;
        }
        Ok(Self {
            lines,
            width: fields.len(),
            fields,
            columns,
        })
    }

    fn classify(&self) -> Result<Row, Fault> {
        let field = |column: usize| self.fields.get(self.columns[column]);
        let text = |column| std::str::from_utf8(field(column)).unwrap_or("\u{fffd}");
        let [invoice, stock_code, quantity, price, customer] = [0, 1, 3, 4, 5].map(text);
        classify(invoice, stock_code, quantity, price, customer, || {
            description(&String::from_utf8_lossy(field(2)))
        })
    }
}

impl Iterator for Rows {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        let fields = loop {
            break match self.lines.next() {
                Ok(Some(Line::Text(b""))) => continue,
                Ok(Some(Line::Text(line))) => self.fields.split(line),
                Ok(Some(Line::TooLong)) => return Some(Ok(self.unreadable(Fault::LineTooLong))),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            };
        };
        let row = match fields {
            Err(OpenQuote) => Err(Fault::OpenQuote),
            Ok(()) if self.fields.len() != self.width => Err(Fault::WrongColumns {
                found: self.fields.len(),
                expected: self.width,
            }),
            Ok(()) => self.classify(),
        };
        Some(Ok(row.unwrap_or_else(|fault| self.unreadable(fault))))
    }
}

impl Rows {
    fn unreadable(&self, fault: Fault) -> Row {
        Row::Unreadable {
            line: self.lines.number,
            fault,
        }
    }
}

fn classify(
    invoice: &str,
    stock_code: &str,
    quantity_text: &str,
    price_text: &str,
    customer: &str,
    description: impl Fn() -> Box<str>,
) -> Result<Row, Fault> {
    let not_whole = |_| Fault::NotWhole(quantity_text.to_owned());
    let quantity: i64 = quantity_text.trim().parse().map_err(not_whole)?;
    let not_decimal = |_| Fault::NotDecimal(price_text.to_owned());
    let price: Pounds = price_text.trim().parse().map_err(not_decimal)?;
    let attempt = quantity > 0 && price.is_positive();
    if !attempt && !invoice.starts_with('C') {
        return Ok(Row::Skipped(match quantity > 0 {
            true => Skip::PriceNotPositive,
            false => Skip::QuantityNotPositive,
        }));
    }
    let units = u32::try_from(quantity.unsigned_abs()).unwrap_or(u32::MAX);
    if units > MAX_QUANTITY {
        return Err(Fault::TooMany(quantity_text.to_owned()));
    }
    let bad_product = |_| Fault::BadStockCode(stock_code.to_owned());
    let product = ProductId::from_str(stock_code).map_err(bad_product)?;
    let mut order = Order {
        product: product.as_str().into(),
        buyer: buyer(invoice, customer)?.as_str().into(),
        quantity: units,
        price_pence: 0,
        description: "".into(),
    };
    if !attempt {
        return Ok(Row::Cancel(order));
    }
    order.price_pence = price.pence_at_least_one();
    order.description = description();
    Ok(Row::Attempt(order))
}

fn buyer(invoice: &str, customer: &str) -> Result<BuyerId, Fault> {
    if customer.is_empty() {
        let guest = BuyerId::from_str(&format!("guest-{invoice}"));
        return guest.map_err(|_| Fault::BadBuyer(invoice.to_owned()));
    }
    // Programs that take the column for numbers write 17850.0 where some rows are empty.
    if let Some((whole, fraction)) = customer.split_once('.')
        && !whole.is_empty()
        && !fraction.is_empty()
        && whole.bytes().all(|byte| byte.is_ascii_digit())
        && fraction.bytes().all(|byte| byte == b'0')
    {
        return Err(Fault::FractionalBuyer(customer.to_owned()));
    }
    BuyerId::from_str(customer).map_err(|_| Fault::BadBuyer(customer.to_owned()))
}

/// The name of a sale: no longer than one may be, and without control characters.
fn description(text: &str) -> Box<str> {
    let text = text.replace(char::is_control, " ");
    text[..text.floor_char_boundary(MAX_NAME_BYTES)]
        .trim()
        .into()
}

fn unreadable_file(file: &OrderFile) -> String {
    format!("cannot read {}", file.path().display())
}

#[cfg(test)]
mod tests;
