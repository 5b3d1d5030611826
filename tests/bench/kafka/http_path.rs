//! The whole path: four services, each in its own process, with the client at both HTTP services.

use std::time::Duration;

use engines::Engines;

use super::services::Services;
use super::site::Site;
use crate::load::{Load, PRODUCT, open_sale, print_latencies, settled};

const PARTITIONS: u32 = 8;
const WARM_UP: Duration = Duration::from_secs(4);
const SATURATED: Duration = Duration::from_secs(6);
const HALF: Duration = Duration::from_secs(12);
const ROUNDS: usize = 3;

/// Runs it and prints it. Takes about a minute.
pub async fn run(engines: &Engines) -> anyhow::Result<()> {
    println!(
        "the whole path: command-api, decider, projector and query-api; 256 connections, one hot \
         product"
    );
    let site = Site::new(engines, PARTITIONS);
    let services = Services::start(&site).await?;
    let endpoints = services.endpoints();
    open_sale(endpoints.orders, PRODUCT, r#""stock":1000"#).await?;
    let saturate = |during| Load::saturating(endpoints, during).run();
    saturate(WARM_UP).await?;
    let mut rates = Vec::new();
    for round in 1..=ROUNDS {
        settled(endpoints.reads, PRODUCT).await?;
        let rate = saturate(SATURATED).await?.per_second();
        println!("round {round}: {rate:.0} attempts/s accepted at saturation");
        rates.push(rate);
    }
    rates.sort_by(f64::total_cmp);
    let half = rates[ROUNDS / 2] / 2.0;
    settled(endpoints.reads, PRODUCT).await?;
    let outcome = Load::steady(endpoints, half, HALF).run().await?;
    println!("at half of the median, {half:.0}/s, in milliseconds");
    print_latencies(&outcome);
    println!("(goal: accepted to visible p99 of 25 ms)");
    services.stop().await
}
