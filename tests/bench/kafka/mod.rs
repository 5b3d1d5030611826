//! The product on Kafka and Cassandra, each part against a bare loop over the same client in the
//! same run where there is one.

mod catching_up;
mod http_path;
mod projecting;
mod recovery;

mod bare_loop;
mod bare_rows;
mod site;

use anyhow::Context;
use engines::{Engines, Options};

/// Starts engines of its own, runs all parts and prints them. Takes about five minutes.
pub async fn run() -> anyhow::Result<()> {
    let options = Options {
        brokers: 1,
        ..Options::default()
    };
    println!("on Kafka and Cassandra: one broker, one Cassandra node and a registry, started here");
    let engines = tokio::task::spawn_blocking(move || Engines::start(&options));
    let engines = engines.await?.context("the engines do not start")?;
    let sold_out = catching_up::run(&engines).await?;
    println!();
    http_path::run(&engines).await?;
    println!();
    let all_held = recovery::run(&engines).await?;
    println!();
    projecting::run(&sold_out, &all_held).await?;
    let stopped = tokio::task::spawn_blocking(move || engines.stop());
    stopped.await?.context("the engines do not stop")
}
