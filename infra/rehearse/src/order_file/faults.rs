//! What keeps a file, or one of its rows, from being read. Each is one sentence that names what
//! to change.

use std::fmt;
use std::mem::discriminant;

use super::COLUMNS;
use super::text::{Fields, MAX_LINE_BYTES};
use crate::decimal::Pounds;
use schemas::ids::MAX_QUANTITY;

/// The most line numbers listed for one kind of fault.
const LISTED_LINES: usize = 10;
/// The most characters of the file that a message repeats.
const MAX_QUOTED: usize = 200;

/// Why a row cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The line is longer than any line may be.
    LineTooLong,
    /// A quotation mark that begins a field is not closed on its line.
    OpenQuote,
    /// The row has more or fewer fields than the first line.
    WrongColumns {
        /// Fields of the row.
        found: usize,
        /// Fields of the first line.
        expected: usize,
    },
    /// The quantity is not a whole number.
    NotWhole(String),
    /// The quantity is more than one attempt may order.
    TooMany(String),
    /// The price is not a decimal number.
    NotDecimal(String),
    /// The StockCode cannot be a product id.
    BadStockCode(String),
    /// The CustomerID, or the invoice of a guest, cannot be a buyer id.
    BadBuyer(String),
    /// The CustomerID is a number that a program has given a fraction.
    FractionalBuyer(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::LineTooLong => write!(f, "the line is longer than {MAX_LINE_BYTES} bytes"),
            Fault::OpenQuote => f.write_str(
                "a quotation mark begins a field and is not closed on its line; close it, or \
                 write the field as \"…\" with every mark inside doubled",
            ),
            Fault::WrongColumns { found, expected } => write!(
                f,
                "the row has {found} fields, but the first line has {expected}; put a field that \
                 contains a comma into quotation marks"
            ),
            Fault::NotWhole(text) => write!(
                f,
                "the Quantity {} is not a whole number; write it like 6 or -6",
                quoted(text)
            ),
            Fault::TooMany(text) => write!(
                f,
                "the Quantity {} is more than the {MAX_QUANTITY} units that one order may have; \
                 split or remove the row",
                quoted(text)
            ),
            Fault::NotDecimal(text) => {
                write!(f, "the UnitPrice {} is not a decimal number", quoted(text))?;
                let with_point = text.trim().replace(',', ".");
                match with_point.parse::<Pounds>() {
                    Ok(_) => write!(f, "; write it with a point, as {with_point}"),
                    Err(_) => f.write_str("; write it like 2.55"),
                }
            }
            Fault::BadStockCode(text) => write!(
                f,
                "the StockCode {} cannot be a product id; use 1 to 64 ASCII letters, digits, \
                 -_.:@+ and inner spaces",
                quoted(text)
            ),
            Fault::BadBuyer(text) => write!(
                f,
                "the CustomerID, or without one the InvoiceNo, {} cannot be a buyer id; use 1 to \
                 58 ASCII letters, digits, -_.:@+ and inner spaces",
                quoted(text)
            ),
            Fault::FractionalBuyer(text) => {
                let whole = text.split('.').next().unwrap_or_default();
                write!(
                    f,
                    "the CustomerID {} has a fraction; write it as {whole}",
                    quoted(text)
                )
            }
        }
    }
}

/// All rows of a file that cannot be read, by kind.
#[derive(Debug, Default)]
pub struct UnreadableRows {
    kinds: Vec<Kind>,
    total: u64,
}

#[derive(Debug)]
struct Kind {
    /// The first of its kind.
    fault: Fault,
    /// The first lines that have it.
    lines: Vec<u64>,
    count: u64,
}

impl UnreadableRows {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    pub(super) fn add(&mut self, line: u64, fault: Fault) {
        self.total += 1;
        let same = |kind: &&mut Kind| discriminant(&kind.fault) == discriminant(&fault);
        match self.kinds.iter_mut().find(same) {
            Some(kind) => {
                kind.count += 1;
                if kind.lines.len() < LISTED_LINES {
                    kind.lines.push(line);
                }
            }
            None => self.kinds.push(Kind {
                fault,
                lines: vec![line],
                count: 1,
            }),
        }
    }
}

impl fmt::Display for UnreadableRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.total {
            1 => f.write_str("one row cannot be read; correct or remove it:")?,
            total => write!(f, "{total} rows cannot be read; correct or remove them:")?,
        }
        for Kind {
            fault,
            lines,
            count,
        } in &self.kinds
        {
            let numbers: Vec<_> = lines.iter().map(u64::to_string).collect();
            let word = if *count == 1 { "line" } else { "lines" };
            write!(f, "\n  {word} {}", numbers.join(", "))?;
            match count - lines.len() as u64 {
                0 => {}
                more => write!(f, " and {more} more")?,
            }
            let first = if *count == 1 { "" } else { "first, " };
            write!(f, ": {first}{fault}")?;
        }
        Ok(())
    }
}

/// What to change about a file whose first line does not name the columns; `None` if it does.
pub(super) fn header_fault(line: &[u8], fields: &Fields) -> Option<String> {
    if line.starts_with(b"PK\x03\x04") {
        return Some("it is a spreadsheet or a zip archive; save it as CSV".to_owned());
    }
    // Every second byte of ASCII characters in UTF-16 is zero.
    if line.starts_with(&[0xff, 0xfe]) || line.starts_with(&[0xfe, 0xff]) || line.contains(&0) {
        return Some(
            "its text is UTF-16 or binary; save it as CSV in UTF-8, or convert it: \
             iconv -f UTF-16 -t UTF-8"
                .to_owned(),
        );
    }
    if line.contains(&b'\r') {
        return Some(
            "its lines end with carriage returns only; save it with line feeds".to_owned(),
        );
    }
    let named = |name: &str| {
        fields
            .iter()
            .any(|field| field.trim_ascii() == name.as_bytes())
    };
    let missing: Vec<_> = COLUMNS.into_iter().filter(|name| !named(name)).collect();
    if missing.is_empty() {
        return None;
    }
    let count = |separator: u8| line.iter().filter(|byte| **byte == separator).count();
    let separators = [(b';', "semicolons"), (b'\t', "tabs"), (b'|', "bars")];
    if let Some((_, name)) = separators
        .into_iter()
        .find(|(separator, _)| count(*separator) > count(b','))
    {
        return Some(format!(
            "its fields are separated by {name}; save it with commas between the fields and \
             points in the prices"
        ));
    }
    let text = String::from_utf8_lossy(line);
    Some(format!(
        "its first line lacks {}; rename its columns so that they include {} (it has {})",
        missing.join(", "),
        COLUMNS.join(", "),
        quoted(&text)
    ))
}

/// Text of the file, as a message repeats it: shortened, and without control characters.
fn quoted(text: &str) -> String {
    let mut characters = text.chars();
    let short: String = characters.by_ref().take(MAX_QUOTED).collect();
    match characters.next() {
        Some(_) => format!("{short:?}…"),
        None => format!("{short:?}"),
    }
}
