//! A file with the recorded orders of a shop, and the rules by which its rows become demand.
//!
//! | row | becomes |
//! |---|---|
//! | positive quantity and price | an attempt of its buyer |
//! | otherwise, of an invoice beginning with `C` | cancels the buyer's latest standing order of exactly that quantity |
//! | any other | is skipped, for a [`Skip`] reason |
//!
//! The buyer is the CustomerID, or `guest-` and the invoice if it is empty. The products are the
//! StockCodes that have an attempt; letter case matters.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, bail};
use csv::{ByteRecord, ReaderBuilder};
use flate2::read::MultiGzDecoder;
use schemas::ids::{BuyerId, MAX_QUANTITY, MAX_STOCK, ProductId};

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
    /// Neither.
    Skipped(Skip),
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
    /// The first 200 bytes of the row's Description.
    pub description: Box<str>,
}

/// Why a row is neither an attempt nor a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Skip {
    /// The quantity is 0 or less, and the invoice is no cancellation.
    QuantityNotPositive,
    /// The price is 0 or less.
    PriceNotPositive,
    /// The row has more or fewer columns than the first line.
    WrongColumns,
    /// The quantity is not a whole number, or more than one attempt may order.
    BadQuantity,
    /// The price is not a decimal number.
    BadPrice,
    /// The StockCode cannot be a product id.
    BadStockCode,
    /// The CustomerID, or the invoice of a guest, cannot be a buyer id.
    BadBuyer,
}

impl Skip {
    /// The reason as the report names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Skip::QuantityNotPositive => "quantity_not_positive",
            Skip::PriceNotPositive => "price_not_positive",
            Skip::WrongColumns => "wrong_columns",
            Skip::BadQuantity => "bad_quantity",
            Skip::BadPrice => "bad_price",
            Skip::BadStockCode => "bad_stock_code",
            Skip::BadBuyer => "bad_buyer",
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
    /// Reads the file once for its products and their units.
    pub fn of(path: &Path, share: Share) -> anyhow::Result<Self> {
        let mut survey = Self::default();
        for row in Rows::open(path)? {
            survey.rows += 1;
            if let Row::Attempt(order) = row.with_context(|| unreadable(path))? {
                survey.count(order);
            }
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
                path.display()
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

/// The rows of a file, read one by one in the file's order.
pub struct Rows {
    reader: csv::Reader<Box<dyn Read + Send>>,
    record: ByteRecord,
    columns: [usize; 6],
    width: usize,
}

impl Rows {
    /// Opens a file, gzip-compressed or not, and reads its first line.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut file = File::open(path).with_context(|| unreadable(path))?;
        let mut magic = [0; 2];
        let gzip = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
        file.rewind().with_context(|| unreadable(path))?;
        let file = BufReader::new(file);
        let text: Box<dyn Read + Send> = match gzip {
            true => Box::new(MultiGzDecoder::new(file)),
            false => Box::new(file),
        };
        Self::read(text).with_context(|| unreadable(path))
    }

    fn read(text: Box<dyn Read + Send>) -> anyhow::Result<Self> {
        let mut reader = ReaderBuilder::new().flexible(true).from_reader(text);
        let header = reader.byte_headers()?.clone();
        let mut columns = [0; 6];
        for (column, name) in columns.iter_mut().zip(COLUMNS) {
            let found = header.iter().position(|field| field == name.as_bytes());
            *column = found.with_context(|| format!("the first line has no column {name}"))?;
        }
        Ok(Self {
            reader,
            record: ByteRecord::new(),
            columns,
            width: header.len(),
        })
    }

    fn row(&self) -> Row {
        if self.record.len() != self.width {
            return Row::Skipped(Skip::WrongColumns);
        }
        let field = |column: usize| &self.record[self.columns[column]];
        let text = |column| std::str::from_utf8(field(column)).unwrap_or("\u{fffd}");
        let [invoice, stock_code, quantity, price, customer] = [0, 1, 3, 4, 5].map(text);
        classify(invoice, stock_code, quantity, price, customer, || {
            let name = String::from_utf8_lossy(field(2));
            name[..name.floor_char_boundary(MAX_NAME_BYTES)]
                .trim()
                .into()
        })
        .unwrap_or_else(Row::Skipped)
    }
}

impl Iterator for Rows {
    type Item = csv::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.reader.read_byte_record(&mut self.record) {
            Ok(true) => Some(Ok(self.row())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

fn classify(
    invoice: &str,
    stock_code: &str,
    quantity: &str,
    price: &str,
    customer: &str,
    description: impl Fn() -> Box<str>,
) -> Result<Row, Skip> {
    let quantity: i64 = quantity.trim().parse().map_err(|_| Skip::BadQuantity)?;
    let price: Pounds = price.trim().parse().map_err(|_| Skip::BadPrice)?;
    let attempt = quantity > 0 && price.is_positive();
    if !attempt && !invoice.starts_with('C') {
        return Err(match quantity > 0 {
            true => Skip::PriceNotPositive,
            false => Skip::QuantityNotPositive,
        });
    }
    let units = u32::try_from(quantity.unsigned_abs()).map_err(|_| Skip::BadQuantity)?;
    if units > MAX_QUANTITY {
        return Err(Skip::BadQuantity);
    }
    let product = ProductId::from_str(stock_code).map_err(|_| Skip::BadStockCode)?;
    let buyer = match customer {
        "" => BuyerId::from_str(&format!("guest-{invoice}")),
        customer => BuyerId::from_str(customer),
    };
    let mut order = Order {
        product: product.as_str().into(),
        buyer: buyer.map_err(|_| Skip::BadBuyer)?.as_str().into(),
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

fn unreadable(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

    fn read(rows: &str) -> Vec<Row> {
        let text = format!("{HEADER}{rows}").into_bytes();
        let rows = Rows::read(Box::new(std::io::Cursor::new(text))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn only(row: &str) -> Row {
        let mut rows = read(row);
        assert_eq!(rows.len(), 1, "{row}");
        rows.remove(0)
    }

    fn order(product: &str, buyer: &str, quantity: u32) -> Order {
        Order {
            product: product.into(),
            buyer: buyer.into(),
            quantity,
            price_pence: 0,
            description: "".into(),
        }
    }

    #[test]
    fn a_row_of_positive_quantity_and_price_is_an_attempt() {
        let attempt = |product, buyer, quantity, price_pence| {
            let mut order = order(product, buyer, quantity);
            (order.price_pence, order.description) = (price_pence, "LAMP".into());
            Row::Attempt(order)
        };
        let cases = [
            (
                "1,85123A,LAMP,6,t,2.55,17850,UK",
                attempt("85123A", "17850", 6, 255),
            ),
            (
                "1,85123a,LAMP,6,t,2.55,17850,UK",
                attempt("85123a", "17850", 6, 255),
            ),
            (
                "A9,B,LAMP,1,t,11062.06,,UK",
                attempt("B", "guest-A9", 1, 1_106_206),
            ),
            (
                "7,BANK CHARGES,LAMP,1,t,0.001,,UK",
                attempt("BANK CHARGES", "guest-7", 1, 1),
            ),
        ];
        for (row, expected) in cases {
            assert_eq!(only(row), expected, "{row}");
        }
    }

    #[test]
    fn other_rows_of_a_cancelling_invoice_cancel_and_the_rest_is_skipped() {
        let skipped = Row::Skipped;
        let cases = [
            ("C1,P,X,-3,t,1.5,9,UK", Row::Cancel(order("P", "9", 3))),
            (
                "C1,P,X,-3,t,1.5,,UK",
                Row::Cancel(order("P", "guest-C1", 3)),
            ),
            ("C1,P,X,-3,t,0,9,UK", Row::Cancel(order("P", "9", 3))),
            ("C1,P,X,0,t,0,9,UK", Row::Cancel(order("P", "9", 0))),
            ("1,P,X,-3,t,1.5,9,UK", skipped(Skip::QuantityNotPositive)),
            ("c1,P,X,-3,t,1.5,9,UK", skipped(Skip::QuantityNotPositive)),
            ("1,P,X,0,t,0,9,UK", skipped(Skip::QuantityNotPositive)),
            ("1,P,X,3,t,0,9,UK", skipped(Skip::PriceNotPositive)),
            ("A1,B,X,1,t,-11062.06,,UK", skipped(Skip::PriceNotPositive)),
            ("1,P,X,3,t,1.5,9", skipped(Skip::WrongColumns)),
            ("1,P,X,3,t,1.5,9,UK,more", skipped(Skip::WrongColumns)),
            ("1,P,X,3.5,t,1.5,9,UK", skipped(Skip::BadQuantity)),
            ("1,P,X,,t,1.5,9,UK", skipped(Skip::BadQuantity)),
            ("1,P,X,100001,t,1.5,9,UK", skipped(Skip::BadQuantity)),
            (
                "1,P,X,99999999999999999999,t,1.5,9,UK",
                skipped(Skip::BadQuantity),
            ),
            ("1,P,X,3,t,1e3,9,UK", skipped(Skip::BadPrice)),
            ("1,P,X,3,t,,9,UK", skipped(Skip::BadPrice)),
            ("1,,X,3,t,1.5,9,UK", skipped(Skip::BadStockCode)),
            ("1,a/b,X,3,t,1.5,9,UK", skipped(Skip::BadStockCode)),
            ("1,P,X,3,t,1.5,a/b,UK", skipped(Skip::BadBuyer)),
            ("1/2,P,X,3,t,1.5,,UK", skipped(Skip::BadBuyer)),
        ];
        for (row, expected) in cases {
            assert_eq!(only(row), expected, "{row}");
        }
    }

    #[test]
    fn a_file_without_the_columns_is_refused_by_name() {
        let text = HEADER.replace("UnitPrice", "Price").into_bytes();
        let error = Rows::read(Box::new(std::io::Cursor::new(text)))
            .err()
            .unwrap();
        assert!(error.to_string().contains("UnitPrice"), "{error}");
    }

    #[test]
    fn a_survey_names_prices_and_counts_each_product() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("orders.csv");
        let rows = "1,P,,4,t,1.005,9,UK\n1,P,LAMP,1,t,9,9,UK\n1,Q,JAR,0,t,1,9,UK\n\
                    1,p,JAR,3,t,1,9,UK\nC1,P,OLD,-4,t,1,9,UK\n";
        std::fs::write(&path, format!("{HEADER}{rows}")).unwrap();
        let survey = Survey::of(&path, "0.3".parse().unwrap()).unwrap();
        let offer = |product: &str, name: &str, price_pence, wanted, stock| Offer {
            product: product.into(),
            name: name.into(),
            price_pence,
            wanted,
            stock,
        };
        let expected = [offer("P", "LAMP", 101, 5, 2), offer("p", "JAR", 100, 3, 1)];
        assert_eq!(survey.offers, expected);
        assert_eq!(survey.rows, 5);

        let zipped = dir.path().join("orders");
        let mut gzip = flate2::write::GzEncoder::new(
            File::create(&zipped).unwrap(),
            flate2::Compression::fast(),
        );
        std::io::copy(&mut File::open(&path).unwrap(), &mut gzip).unwrap();
        gzip.finish().unwrap();
        let same = Survey::of(&zipped, "0.3".parse().unwrap()).unwrap();
        assert_eq!(same.offers, expected);

        let bytes = std::fs::read(&zipped).unwrap();
        std::fs::write(&zipped, &bytes[..bytes.len() - 12]).unwrap();
        assert!(Survey::of(&zipped, "0.3".parse().unwrap()).is_err());
    }
}
