//! How many decisions per second the tails of one partition read, with the attempts they answer:
//! `cargo run --release -p query-api --example tail_rate`.

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use query_api::live::LiveSettings;
use schemas::ids::AttemptId;

use crate::support::{Shop, sold};

const ATTEMPTS: u32 = 400_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut shop = Shop::closed();
    shop.claim(0);
    shop.put_sale(0, "keyboard", ATTEMPTS);
    for _ in 0..ATTEMPTS {
        let id = AttemptId::generate();
        let at = shop.ask(0, "keyboard", id);
        shop.decide(0, "keyboard", at, sold(id, at));
    }
    let started = Instant::now();
    shop.start(LiveSettings::default());
    while shop.get("/api/flash-sales/keyboard").await.body["stock"]["available"] != 0 {
        tokio::task::yield_now().await;
    }
    let seconds = started.elapsed().as_secs_f64();
    let rate = f64::from(ATTEMPTS) / seconds;
    println!("{ATTEMPTS} attempts and their decisions in {seconds:.2} s: {rate:.0} a second");
}
