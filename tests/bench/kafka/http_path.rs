//! The whole path: four services, each a process, with the client at one door and the other.

use std::time::Duration;

use engines::Engines;
use runtime::settings::Service;

use super::site::Site;
use crate::load::{self, Arrival, Doors, open_sale, print_latencies, settled};

const PARTITIONS: u32 = 8;
const CONNECTIONS: u64 = 256;
const WARM_UP: Duration = Duration::from_secs(4);
const SATURATED: Duration = Duration::from_secs(6);
const HALF: Duration = Duration::from_secs(12);
const ROUNDS: usize = 3;

/// Runs it and prints it. Takes about a minute.
pub async fn run(engines: &Engines) -> anyhow::Result<()> {
    println!(
        "the whole path: command-api, decider, projector and query-api; {CONNECTIONS} \
         connections, one hot product"
    );
    let site = Site::new(engines, PARTITIONS);
    let [commands, decider, projector, questions] = [
        site.start(Service::CommandApi).await?,
        site.start(Service::Decider).await?,
        site.start(Service::Projector).await?,
        site.start(Service::QueryApi).await?,
    ];
    for process in [&commands, &decider, &projector, &questions] {
        process.ready().await?;
    }
    let doors = Doors {
        orders: commands.address,
        questions: questions.address,
    };
    open_sale(doors.orders).await?;
    let saturate = |during| load::run(doors, CONNECTIONS, Arrival::Closed, during, false);
    saturate(WARM_UP).await?;
    let mut rates = Vec::new();
    for round in 1..=ROUNDS {
        settled(doors.questions).await?;
        let rate = saturate(SATURATED).await?.per_second();
        println!("round {round}: {rate:.0} attempts/s accepted at saturation");
        rates.push(rate);
    }
    rates.sort_by(f64::total_cmp);
    let half = rates[ROUNDS / 2] / 2.0;
    settled(doors.questions).await?;
    let arrival = Arrival::Open { per_second: half };
    let outcome = load::run(doors, CONNECTIONS, arrival, HALF, true).await?;
    println!("at half of the median, {half:.0}/s, in milliseconds");
    print_latencies(&outcome);
    println!("(goal: accepted to visible p99 of 25 ms)");
    for process in [commands, decider, projector, questions] {
        process.stop().await?;
    }
    Ok(())
}
