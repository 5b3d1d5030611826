//! The product on Kafka and Cassandra, each part against a bare loop over the same client in the
//! same run where there is one.

mod catching_up;
mod http_path;
mod projecting;
mod recovery;

mod bare_loop;
mod bare_rows;
mod services;
mod site;

pub use self::services::Services;
pub use self::site::Site;

use anyhow::Context;
use engines::{Engines, Options};

/// Starts engines of its own, runs all parts and prints them. Takes about five minutes.
pub async fn run() -> anyhow::Result<()> {
    println!("on Kafka and Cassandra: one broker, one Cassandra node and a registry, started here");
    let engines = start_engines().await?;
    let sold_out = catching_up::run(&engines).await?;
    println!();
    http_path::run(&engines).await?;
    println!();
    let all_held = recovery::run(&engines).await?;
    println!();
    projecting::run(&sold_out, &all_held).await?;
    stop_engines(engines).await
}

/// One broker, one Cassandra node and a registry.
pub async fn start_engines() -> anyhow::Result<Engines> {
    let options = Options {
        brokers: 1,
        ..Options::default()
    };
    let engines = tokio::task::spawn_blocking(move || Engines::start(&options));
    engines.await?.context("the engines do not start")
}

pub async fn stop_engines(engines: Engines) -> anyhow::Result<()> {
    let stopped = tokio::task::spawn_blocking(move || engines.stop());
    stopped.await?.context("the engines do not stop")
}
