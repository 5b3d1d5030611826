//! The demand that rehearsals are held against: a shop's recorded order stream, or one of the same
//! shape made from a seed where the recorded one is absent.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Geometric, Zipf};

use crate::instance::root;

/// The recorded stream beside a checkout: Online Retail (UCI Machine Learning Repository), cut
/// at 2011-08, with its columns as published.
const RECORDED: &str = "../shared/data/online-retail-2010-12-to-2011-08.csv.gz";
/// Rows of the made stream: as many as the recorded one has.
const ROWS: u32 = 320_705;
/// Products of the made stream.
const PRODUCTS: u32 = 3_700;
/// Known buyers of the made stream.
const BUYERS: u32 = 3_600;
/// The made stream is the same on every machine that has the same `rand`.
const SEED: u64 = 20_101_201;
/// Part of the made file's name. To be raised whenever the rows change.
const FORM: u32 = 1;

/// The file that `DEMAND_FILE` names; else the recorded stream beside the checkout; else a
/// stream made from a seed, kept under `target/`.
pub fn demand_file() -> PathBuf {
    if let Some(named) = std::env::var_os("DEMAND_FILE") {
        let named = PathBuf::from(named);
        assert!(
            named.is_file(),
            "DEMAND_FILE names {}, which is no file",
            named.display()
        );
        return named;
    }
    let recorded = root().join(RECORDED);
    if recorded.is_file() {
        return recorded;
    }
    let made = root().join(format!("target/demand/seed-{SEED}-form-{FORM}.csv.gz"));
    if !made.is_file() {
        write_compressed(&made, |out| write_rows(out, ROWS));
    }
    eprintln!(
        "{} is absent, so the demand comes from a seed: {}",
        recorded.display(),
        made.display()
    );
    made
}

/// The text of a demand file, which is compressed when its name ends in `.gz`.
pub fn open(demand: &Path) -> Box<dyn Read> {
    let file = File::open(demand).unwrap_or_else(|e| panic!("{}: {e}", demand.display()));
    if demand
        .extension()
        .is_some_and(|extension| extension == "gz")
    {
        Box::new(GzDecoder::new(file))
    } else {
        Box::new(file)
    }
}

/// Writes the first rows of a demand file, and its line of names, to a compressed file.
pub fn first_rows(demand: &Path, rows: usize, to: &Path) {
    let mut lines = csv::ReaderBuilder::new();
    let lines = lines.has_headers(false).from_reader(open(demand));
    write_compressed(to, |out| {
        let mut out = csv::Writer::from_writer(out);
        for line in lines.into_byte_records().take(1 + rows) {
            out.write_byte_record(&line?)?;
        }
        out.flush()
    });
}

/// Writes a compressed file. Tests of several processes may write the same one at the same time:
/// each writes a file of its own and renames it.
fn write_compressed(
    path: &Path,
    write: impl FnOnce(&mut GzEncoder<tempfile::NamedTempFile>) -> io::Result<()>,
) {
    let directory = path.parent().expect("the file is in a directory");
    let written = (|| {
        fs::create_dir_all(directory)?;
        let unfinished = tempfile::NamedTempFile::new_in(directory)?;
        let mut gzip = GzEncoder::new(unfinished, Compression::fast());
        write(&mut gzip)?;
        gzip.finish()?.persist(path)?;
        io::Result::Ok(())
    })();
    written.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

/// A line that was bought by a known buyer, and may be given back later.
struct Bought {
    product: u32,
    quantity: u32,
    buyer: u32,
}

/// Rows with the peculiarities of the recorded stream: baskets of many lines that share a minute,
/// buyers without a name, cancellations of whole lines and of lines that nobody bought, write-offs,
/// prices of zero, book-keeping entries, charges among the products, and names that need quotes.
fn write_rows(out: &mut impl Write, rows: u32) -> io::Result<()> {
    let mut rng = StdRng::seed_from_u64(SEED);
    let popularity = Zipf::new(f64::from(PRODUCTS), 0.8).expect("a valid distribution");
    let lines = Geometric::new(1.0 / 18.0).expect("a valid distribution");
    let units = Geometric::new(1.0 / 9.0).expect("a valid distribution");
    let mut bought: Vec<Bought> = Vec::new();
    let mut minute = 0;
    let (mut written, mut invoice) = (0, 536_365);
    writeln!(
        out,
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
    )?;
    while written < rows {
        invoice += 1;
        minute += rng.random_range(0..40);
        let date = date(minute);
        let buyer = rng.random_bool(0.72).then(|| rng.random_range(0..BUYERS));
        let kind = rng.random_range(0..1_000);
        if kind < 150 && !bought.is_empty() {
            let returned = bought.swap_remove(rng.random_range(0..bought.len()));
            let quantity = if kind < 100 {
                returned.quantity
            } else {
                returned.quantity + 1
            };
            let (code, name) = product(returned.product);
            let (price, buyer) = (price(returned.product), returned.buyer);
            writeln!(
                out,
                "C{invoice},{code},{name},-{quantity},{date},{price},{},United Kingdom",
                12_346 + buyer
            )?;
            written += 1;
            continue;
        }
        if kind == 999 {
            writeln!(
                out,
                "A{invoice},B,Adjust bad debt,1,{date},-11062.06,,United Kingdom"
            )?;
            written += 1;
            continue;
        }
        for _ in 0..=lines.sample(&mut rng).min(200) {
            if written == rows {
                break;
            }
            written += 1;
            let item = popularity.sample(&mut rng) as u32;
            let (code, name) = product(item);
            let quantity = 1 + if rng.random_range(0..10_000) == 0 {
                rng.random_range(1_000..75_000)
            } else {
                units.sample(&mut rng) as u32
            };
            let customer = buyer.map_or(String::new(), |buyer| (12_346 + buyer).to_string());
            match rng.random_range(0..1_000) {
                0..3 => writeln!(
                    out,
                    "{invoice},{code},damaged,-{quantity},{date},0,,United Kingdom"
                )?,
                3..8 => writeln!(
                    out,
                    "{invoice},{code},,{quantity},{date},0,{customer},United Kingdom"
                )?,
                _ => {
                    let price = price(item);
                    writeln!(
                        out,
                        "{invoice},{code},{name},{quantity},{date},{price},{customer},United Kingdom"
                    )?;
                    if let Some(buyer) = buyer {
                        bought.push(Bought {
                            product: item,
                            quantity,
                            buyer,
                        });
                    }
                }
            }
        }
    }
    Ok(())
}

/// A product's code and name, as they stand in a row.
fn product(number: u32) -> (String, String) {
    match number % 97 {
        0 => ("POST".to_owned(), "POSTAGE".to_owned()),
        n if n < 20 => (
            format!(
                "{}{}",
                20_000 + number,
                char::from(b'A' + (number % 7) as u8)
            ),
            format!("\"LIGHT, HANGING, NO. {number}\""),
        ),
        20 => (
            format!("{}", 20_000 + number),
            format!("\"{number} \"\"INCH\"\" PLATE\""),
        ),
        _ => (
            format!("{}", 20_000 + number),
            format!("METAL LANTERN {number}"),
        ),
    }
}

/// A product's price in pounds; some have three decimals.
fn price(number: u32) -> String {
    match number % 61 {
        0 => format!("{}.{:03}", number % 5, 1 + number % 999),
        _ => format!("{}.{:02}", number % 15, 1 + number % 99),
    }
}

/// A local time in the form of the recorded stream, so many minutes after its beginning.
fn date(minute: u32) -> String {
    // Months of 28 days are real dates in each month.
    let (day, minute) = (minute / (24 * 60), minute % (24 * 60));
    let (month, day) = (11 + day / 28, 1 + day % 28);
    let (year, month) = (2010 + month / 12, 1 + month % 12);
    format!(
        "{year}-{month:02}-{day:02}T{:02}:{:02}:00",
        minute / 60,
        minute % 60
    )
}

#[test]
fn the_made_stream_has_the_peculiarities_of_the_recorded_one() {
    let mut text = Vec::new();
    write_rows(&mut text, 20_000).unwrap();
    let mut again = Vec::new();
    write_rows(&mut again, 20_000).unwrap();
    assert_eq!(text, again, "one seed makes one stream");
    let mut reader = csv::Reader::from_reader(&*text);
    let rows: Vec<_> = reader.records().map(|row| row.unwrap()).collect();
    assert_eq!(rows.len(), 20_000);
    assert!(rows.iter().all(|row| row.len() == 8));
    assert!(rows.is_sorted_by_key(|row| row[4].to_owned()));
    let has = |what: &str, found: &dyn Fn(&csv::StringRecord) -> bool| {
        assert!(rows.iter().any(found), "no row is {what}");
    };
    has("a cancellation", &|row| row[0].starts_with('C'));
    has("a book-keeping entry", &|row| row[0].starts_with('A'));
    has("a charge", &|row| &row[1] == "POST");
    has("a write-off", &|row| {
        row[3].starts_with('-') && row[6].is_empty()
    });
    has("free", &|row| &row[5] == "0");
    has("of a guest", &|row| row[6].is_empty() && &row[5] != "0");
    has("named with quotes", &|row| row[2].contains('"'));
    has("named with commas", &|row| row[2].contains(','));
    has("very large", &|row| row[3].len() > 3 && &row[3] > "1000");
}

#[test]
fn the_first_rows_of_a_file_are_a_file_of_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, short) = (
        dir.path().join("whole.csv"),
        dir.path().join("short.csv.gz"),
    );
    write_rows(&mut File::create(&whole).unwrap(), 3_000).unwrap();
    first_rows(&whole, 1_000, &short);
    let rows = |path: &Path| {
        let lines = csv::Reader::from_reader(open(path)).into_byte_records();
        lines.map(Result::unwrap).collect::<Vec<_>>()
    };
    assert_eq!(rows(&short), rows(&whole)[..1_000]);
}
