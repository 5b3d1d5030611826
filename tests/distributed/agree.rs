//! A shop's recorded demand has the same result, product by product, as on the embedded engines:
//! both are compared with the same oracle.

use std::env;
use std::path::PathBuf;
use std::time::Instant;

use runtime::settings::Service::{CommandApi, Decider, Projector, QueryApi};

use crate::cluster::Cluster;
use crate::demand::{demand_file, first_rows};
use crate::instance::root;
use crate::oracle::{self, as_expected};

/// Three brokers and a store take some 750 rows a second on two cores, so the whole recorded stream
/// takes seven minutes. The first quarter has cancellations, guests and write-offs like the rest;
/// the test of the embedded engines takes the whole.
const ROWS: usize = 80_000;

#[tokio::test(flavor = "multi_thread")]
async fn recorded_demand_has_the_same_result_as_on_the_embedded_engines() {
    let cluster = Cluster::new().await;
    let [command_api, query_api, _projector, _decider] = cluster
        .ready([CommandApi, QueryApi, Projector, Decider])
        .await;
    let demand = demand();
    let begun = Instant::now();
    let rehearsal = cluster.rehearse(
        &command_api,
        &query_api,
        &["--file", demand.to_str().unwrap()],
    );
    let report = rehearsal.passes().await;
    println!("{} rows in {:?}", report["totals"]["rows"], begun.elapsed());
    let audited = cluster.audit().await;
    println!("audited after {:?}", begun.elapsed());
    let totals = &audited["totals"];
    let count = |what: &str| totals[what].as_u64().unwrap();
    // The log has every copy of a repeated attempt, the report each attempt once.
    let attempts = count("attempts") - count("repeated");
    assert_eq!(attempts, report["totals"]["attempts"], "{totals}");
    assert_eq!(totals["accepted"], report["totals"]["accepted"], "{totals}");
    assert_eq!(as_expected(&report), oracle::expect(&demand, 8));
}

/// The first rows of the demand file, kept under `target/`. A file that `DEMAND_FILE` names is taken
/// whole.
fn demand() -> PathBuf {
    let whole = demand_file();
    if env::var_os("DEMAND_FILE").is_some() {
        return whole;
    }
    let name = whole.file_name().expect("a file has a name").display();
    let short = root().join(format!("target/demand/first-{ROWS}-{name}"));
    if !short.is_file() {
        first_rows(&whole, ROWS, &short);
    }
    short
}
