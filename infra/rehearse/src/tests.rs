//! Whole rehearsals against a mock of the API.

use std::io::Write;

use super::*;
use crate::mock_api::{Fault, MockApi, TOKEN};

#[derive(clap::Parser)]
struct CommandLine {
    #[command(flatten)]
    args: Args,
}

fn args(api: &MockApi, more: &[&str]) -> Args {
    let fixed = ["rehearse", "--target", &api.address, "--admin-token", TOKEN];
    let line: CommandLine = clap::Parser::parse_from(fixed.iter().chain(more));
    line.args
}

/// Rehearsals with crowds large enough to sell out early, each against its own mock, concurrently.
async fn crowds<const N: usize>(faults: [Fault; N]) -> Vec<(Fault, Report)> {
    let crowd = async |fault| {
        let api = MockApi::start(fault).await;
        // Only a missing answer uses up the patience.
        let patience = match fault {
            Fault::LosesOne => "2",
            _ => "60",
        };
        let options = ["--buyers", "400", "--stock", "10", "--patience", patience];
        let args = args(&api, &options);
        (fault, against(&args, None, None).await.unwrap())
    };
    futures::future::join_all(faults.map(crowd)).await
}

fn broken(report: &Report) -> Vec<&str> {
    let broken = report
        .invariants
        .iter()
        .filter(|invariant| !invariant.holds);
    broken.map(|invariant| invariant.name).collect()
}

#[tokio::test]
async fn a_crowd_gets_every_unit_and_every_answer() {
    let plan = Crowd {
        buyers: 400,
        products: 1,
        stock: 10,
        seed: 1,
        over: None,
    }
    .plan();
    for (fault, report) in crowds([Fault::None, Fault::Unreliable]).await {
        assert!(report.passed, "{fault:?}\n{report}");
        let totals = &report.totals;
        assert_eq!(
            (totals.accepted, totals.buyers_served),
            (10, 10),
            "{report}"
        );
        assert_eq!(totals.buyers_answered, 400, "{report}");
        assert_eq!(totals.answered, totals.attempts, "{report}");
        let more = plan.iter().filter(|v| v.wants_more_after_ms.is_some());
        let again = totals.refused["not_open_yet"];
        assert_eq!(
            totals.attempts,
            400 + again + more.count() as u64,
            "{report}"
        );
        assert!(totals.refused["not_open_yet"] >= 1, "{report}");
        assert!(totals.refused["sold_out"] >= 300, "{report}");
        assert!(totals.repeated >= 20, "{report}");
        assert_eq!(totals.resent > 0, fault == Fault::Unreliable, "{report}");
        let product = &report.products[0];
        assert_eq!((product.sold, product.available), (10, 0));
    }
}

#[tokio::test]
async fn an_api_that_lies_is_detected() {
    let kept = "every attempt has one answer, which does not change";
    let keys = "the same key names the same attempt, at its first position";
    let limit = "every buyer stays within the limit, and is refused only beyond it";
    let cases = [
        (Fault::Oversells, "nothing is oversold"),
        (
            Fault::Undersells,
            "nobody is refused units that are available",
        ),
        (Fault::ChangesAnswers, kept),
        (Fault::BuysTwice, keys),
        (Fault::LosesOne, kept),
    ];
    let reports = crowds(cases.map(|(fault, _)| fault)).await;
    for ((fault, report), (_, name)) in reports.into_iter().zip(cases) {
        assert!(!report.passed, "{fault:?}\n{report}");
        assert!(broken(&report).contains(&name), "{fault:?}\n{report}");
    }
    // With a unit for everyone, those who want two get two.
    let api = MockApi::start(Fault::IgnoresLimit).await;
    let args = args(&api, &["--buyers", "300", "--stock", "1000", "--seed", "3"]);
    let report = against(&args, None, None).await.unwrap();
    assert_eq!(broken(&report), [limit], "{report}");
}

#[tokio::test]
async fn a_sale_that_is_refused_ends_the_rehearsal() {
    let api = MockApi::start(Fault::RefusesSales).await;
    let args = args(&api, &["--buyers", "10", "--stock", "5"]);
    let failed = against(&args, None, None).await.unwrap_err();
    let failed = format!("{failed:#}");
    assert!(failed.contains("was not created"), "{failed}");
    assert!(
        failed.contains("refused it as holds_outstanding"),
        "{failed}"
    );
}

/// Rows of every kind; the test has what each becomes with 0.5 of the units on sale.
const DEMAND: &str = "\
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
7,BANK CHARGES,,1,t,0.001,b1,UK
8,P,LAMP,-2,t,1,b1,UK
9,P,LAMP,2,t,0,b1,UK
C95,Q,JAR,-1,t,1,b1,UK
C96,p,lamp,-1,t,1,b1,UK
10,p,lamp,1,t,1,b4,UK
";

#[tokio::test]
async fn recorded_demand_has_the_figures_worked_out_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("demand.csv");
    File::create(&path)
        .unwrap()
        .write_all(DEMAND.as_bytes())
        .unwrap();
    for fault in [Fault::None, Fault::Unreliable] {
        let api = MockApi::start(fault).await;
        let path = path.to_str().unwrap();
        let args = args(&api, &["--file", path, "--stock-share", "0.5"]);
        let survey = survey(Path::new(path), args.stock_share).await.unwrap();
        let report = against(&args, None, Some(&survey)).await.unwrap();
        assert!(report.passed, "{fault:?}\n{report}");

        // P: wanted 4+4+2+2+3+5 = 20, so 10 on sale. Accepted 4, 4, 2; refused 2 (sold out);
        // C91 cancels 4; 3 accepted; C92 cancels the other 4; 5 of 5 accepted; C93 and C94 find
        // no order. p: 1 of 1 accepted, cancelled, accepted.
        let figures: Vec<_> = report
            .products
            .iter()
            .map(|p| {
                (
                    &*p.product_id,
                    p.stock,
                    p.sold,
                    p.available,
                    p.accepted,
                    p.refused,
                    p.cancelled,
                )
            })
            .collect();
        let expected = [
            ("P", 10, 10, 0, 5, 1, 2),
            ("p", 1, 1, 0, 2, 0, 1),
            ("BANK CHARGES", 1, 1, 0, 1, 0, 0),
        ];
        assert_eq!(figures, expected, "{report}");
        let totals = &report.totals;
        assert_eq!(
            (totals.rows, totals.attempts, totals.accepted),
            (18, 9, 8),
            "{report}"
        );
        assert_eq!(totals.refused, [("sold_out", 1)].into(), "{report}");
        assert_eq!((totals.cancelled, totals.unmatched), (3, 4), "{report}");
        let skipped = [("quantity_not_positive", 1), ("price_not_positive", 1)];
        assert_eq!(totals.skipped, skipped.into(), "{report}");
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_ends_the_rehearsal_before_it_begins() {
    let api = MockApi::start(Fault::None).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("demand.csv");
    let demand = DEMAND.replacen("1,P,LAMP", "1,P,\"LAMP", 1);
    std::fs::write(&path, demand).unwrap();
    let args = args(&api, &["--file", path.to_str().unwrap()]);
    let error = format!("{:#}", rehearse(&args).await.unwrap_err());
    assert!(error.contains("line 3: a quotation mark"), "{error}");
    let status = run(args).await.unwrap();
    assert_eq!(
        format!("{status:?}"),
        format!("{:?}", ExitCode::from(UNUSABLE))
    );
}

#[tokio::test]
async fn errors_name_what_prevents_a_rehearsal() {
    let api = MockApi::start(Fault::None).await;
    let mut wrong = args(&api, &["--buyers", "1"]);
    wrong.admin_token = Some("other".into());
    let error = against(&wrong, None, None).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("does not accept this admin token"),
        "{error:#}"
    );

    let twice = args(&api, &["--buyers", "1"]);
    assert!(against(&twice, None, None).await.unwrap().passed);
    let error = against(&twice, None, None).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("already has a sale of rehearsal-1-1"),
        "{error:#}"
    );

    let mut unreachable = args(&api, &["--buyers", "1", "--patience", "1"]);
    drop(api);
    unreachable.seed = 2;
    let error = against(&unreachable, None, None).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("no response within 1 s"),
        "{error:#}"
    );
}
