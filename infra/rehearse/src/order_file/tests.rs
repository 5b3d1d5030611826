//! What rows become, and what is said of files and rows that cannot be read.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::*;

const HEADER: &str =
    "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

fn read(rows: &str) -> Vec<Row> {
    let rows = rows_of(format!("{HEADER}{rows}").into_bytes()).unwrap();
    rows.map(Result::unwrap).collect()
}

fn rows_of(text: Vec<u8>) -> anyhow::Result<Rows> {
    Rows::read(Lines::of(Box::new(io::Cursor::new(text))))
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
    ];
    for (row, expected) in cases {
        assert_eq!(only(row), expected, "{row}");
    }
}

#[test]
fn a_row_that_cannot_be_read_says_what_to_change() {
    let cases = [
        ("1,P,X,3,t,1.5,9", "has 7 fields, but the first line has 8"),
        ("1,P,X,3,t,1.5,9,UK,more", "has 9 fields"),
        ("1,P,\"12 INCH PLATE,3,t,1.5,9,UK", "a quotation mark"),
        ("1,P,X,3,t,1.5,9,\"UK", "a quotation mark"),
        ("1,P,X,3.5,t,1.5,9,UK", "\"3.5\" is not a whole number"),
        ("1,P,X,6.0,t,1.5,9,UK", "write it like 6"),
        ("1,P,X,,t,1.5,9,UK", "the Quantity \"\" is not a whole"),
        ("1,P,X,100001,t,1.5,9,UK", "more than the 100000 units"),
        ("C1,P,X,-100001,t,1.5,9,UK", "more than the 100000 units"),
        ("1,P,X,99999999999,t,1.5,9,UK", "more than the 100000 units"),
        ("1,P,X,99999999999999999999,t,1.5,9,UK", "whole number"),
        ("1,P,X,3,t,1e3,9,UK", "write it like 2.55"),
        ("1,P,X,3,t,\"2,55\",9,UK", "with a point, as 2.55"),
        ("1,P,X,3,t,,9,UK", "the UnitPrice \"\" is not a decimal"),
        ("1,,X,3,t,1.5,9,UK", "the StockCode \"\""),
        ("1,a/b,X,3,t,1.5,9,UK", "the StockCode \"a/b\""),
        ("1,P,X,3,t,1.5,a/b,UK", "the CustomerID"),
        ("1/2,P,X,3,t,1.5,,UK", "without one the InvoiceNo, \"1/2\""),
        ("1,P,X,3,t,1.5,17850.0,UK", "write it as 17850"),
        ("C1,P,X,-3,t,1.5,17850.00,UK", "write it as 17850"),
    ];
    for (row, sentence) in cases {
        let Row::Unreadable { line: 2, fault } = only(row) else {
            panic!("{row}: {:?}", only(row));
        };
        assert!(fault.to_string().contains(sentence), "{row}: {fault}");
    }
    let long = "x".repeat(70_000);
    let Row::Unreadable { line: 2, fault } = only(&long) else {
        panic!("a long row was read");
    };
    assert_eq!(fault, Fault::LineTooLong);
    // A buyer may have a point in the name.
    for buyer in ["17850.5", "a.0", "1.0.0", ".0", "0."] {
        let row = only(&format!("1,P,X,3,t,1.5,{buyer},UK"));
        assert!(matches!(row, Row::Attempt(order) if *order.buyer == *buyer));
    }
}

#[test]
fn a_lone_quotation_mark_takes_no_other_row_with_it() {
    let rows = read(
        "1,P,LAMP,6,t,2.55,1,UK\n1,P,\"12 INCH PLATE,6,t,2.55,2,UK\n\n\
         1,P,LAMP,6,t,2.55,3,UK\r\n1,P,LAMP,6,t,2.55,4,UK\n1,P,\"BIG\" TIN,6,t,2.55,5,UK",
    );
    let buyers: Vec<_> = rows
        .iter()
        .map(|row| match row {
            Row::Attempt(order) => order.buyer.to_string(),
            Row::Unreadable { line, fault } => format!("line {line}: {fault:?}"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(buyers, ["1", "line 3: OpenQuote", "3", "4", "5"]);
}

#[test]
fn control_characters_do_not_get_into_a_sales_name() {
    let Row::Attempt(order) = only("1,P,\tRED\u{7}LAMP\u{85},3,t,1.5,9,UK") else {
        panic!("it is an order");
    };
    assert_eq!(&*order.description, "RED LAMP");
}

#[test]
fn a_file_of_another_form_is_refused_with_what_to_change() {
    let utf16 = |big: bool| -> Vec<u8> {
        let text = format!("\u{feff}{}", HEADER.replace('\n', "\r\n"));
        let units = text.encode_utf16();
        units
            .flat_map(|unit| {
                if big {
                    unit.to_be_bytes()
                } else {
                    unit.to_le_bytes()
                }
            })
            .collect()
    };
    let cases = [
        (
            HEADER.replace("UnitPrice", "Price").into_bytes(),
            "lacks UnitPrice; rename its columns",
        ),
        (
            b"Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
                .into(),
            "lacks InvoiceNo, UnitPrice, CustomerID; rename",
        ),
        (HEADER.replace(',', ";").into_bytes(), "by semicolons; save"),
        (
            b"Invoice;Price;Customer ID\n1;2,55;3\n".into(),
            "by semicolons",
        ),
        (HEADER.replace(',', "\t").into_bytes(), "by tabs; save"),
        (utf16(false), "iconv -f UTF-16 -t UTF-8"),
        (utf16(true), "iconv -f UTF-16 -t UTF-8"),
        (utf16(false)[2..].into(), "iconv -f UTF-16 -t UTF-8"),
        (b"PK\x03\x04rest".into(), "save it as CSV"),
        (
            HEADER.replace('\n', "\r1,P\r").into_bytes(),
            "with line feeds",
        ),
        (vec![], "it is empty"),
        (vec![b'x'; 70_000], "is it CSV?"),
        (b"\"InvoiceNo,StockCode\n".into(), "a quotation mark"),
    ];
    for (text, sentence) in cases {
        let shown = String::from_utf8_lossy(&text[..text.len().min(80)]).into_owned();
        let error = match rows_of(text) {
            Ok(_) => panic!("{shown} was read"),
            Err(error) => format!("{error:#}"),
        };
        assert!(error.contains(sentence), "{shown}: {error}");
        assert!(!error.contains(char::is_control), "{shown}: {error}");
    }
    let with_mark = format!("\u{feff}{HEADER}1,P,X,1,t,1,9,UK\n");
    assert_eq!(rows_of(with_mark.into_bytes()).unwrap().count(), 1);
}

fn survey(path: &Path) -> anyhow::Result<Survey> {
    Survey::of(&OrderFile::open(path)?, "0.3".parse().unwrap())
}

#[test]
fn a_survey_names_prices_and_counts_each_product() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("orders.csv");
    let rows = "1,P,,4,t,1.005,9,UK\n1,P,LAMP,1,t,9,9,UK\n1,Q,JAR,0,t,1,9,UK\n\
                1,p,JAR,3,t,1,9,UK\nC1,P,OLD,-4,t,1,9,UK\n";
    std::fs::write(&path, format!("{HEADER}{rows}")).unwrap();
    let counted = survey(&path).unwrap();
    let offer = |product: &str, name: &str, price_pence, wanted, stock| Offer {
        product: product.into(),
        name: name.into(),
        price_pence,
        wanted,
        stock,
    };
    let expected = [offer("P", "LAMP", 101, 5, 2), offer("p", "JAR", 100, 3, 1)];
    assert_eq!(counted.offers, expected);
    assert_eq!(counted.rows, 5);

    let zipped = dir.path().join("orders");
    let mut gzip =
        flate2::write::GzEncoder::new(File::create(&zipped).unwrap(), flate2::Compression::fast());
    std::io::copy(&mut File::open(&path).unwrap(), &mut gzip).unwrap();
    gzip.finish().unwrap();
    let same = survey(&zipped).unwrap();
    assert_eq!(same.offers, expected);

    let bytes = std::fs::read(&zipped).unwrap();
    std::fs::write(&zipped, &bytes[..bytes.len() - 12]).unwrap();
    assert!(survey(&zipped).is_err());
}

#[test]
fn a_survey_names_every_line_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("orders.csv");
    let mut text = format!("{HEADER}1,P,LAMP,1,t,1,9,UK\n");
    text += "1,P,\"LAMP,1,t,1,9,UK\n";
    text += &"1,P,LAMP,1,t,\"2,55\",9,UK\n".repeat(12);
    std::fs::write(&path, text).unwrap();
    let error = format!("{:#}", survey(&path).unwrap_err());
    let expected = "13 rows cannot be read; correct or remove them:\n  line 3: a quotation mark";
    assert!(error.contains(expected), "{error}");
    let expected = "\n  lines 4, 5, 6, 7, 8, 9, 10, 11, 12, 13 and 2 more: first, the UnitPrice";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn what_a_pipe_sends_is_read_like_a_file_whatever_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{HEADER}1,P,LAMP,7,t,1,9,UK\n");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    for (name, bytes) in [
        ("plain.csv.gz", text.clone().into_bytes()),
        ("zipped", gzip.finish().unwrap()),
    ] {
        let pipe = dir.path().join(name);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, fifo, mode, 0).unwrap();
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || File::create(pipe).unwrap().write_all(&bytes).unwrap()
        });
        let file = OrderFile::open(&pipe).unwrap();
        writer.join().unwrap();
        // It is read once for the survey, and once more for the orders.
        for _ in 0..2 {
            let survey = Survey::of(&file, "1".parse().unwrap()).unwrap();
            assert_eq!((survey.rows, survey.offers[0].wanted), (1, 7), "{name}");
        }
    }
}
