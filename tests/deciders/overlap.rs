//! Two deciders on one partition at once: the decisions that count are those of one decider
//! alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::invariants::Ledger;
use kit::{Faults, FaultyLog};
use ports::EventLog;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use schemas::codec::chain_hash;
use schemas::decision::DecisionRecord;
use schemas::ids::{ChainHash, ProductId};
use schemas::topics::Topic;

use crate::support::{Bench, PARTITION, Shoppers, substance};

/// Faults at the worst moments: between deciding and appending, between appending and reading
/// back, in the middle of recovery; appends that are lost, that fail but arrive, that arrive
/// twice.
const BAD_LINE: Faults = Faults {
    full: 50,
    slow_before: 150,
    slow_after: 150,
    lost: 20,
    unacknowledged: 30,
    doubled: 30,
    slow_read: 100,
    failed_read: 10,
    longest: Duration::from_secs(3),
};

const SEEDS: u64 = 60;
const COMMANDS: usize = 300;

#[test]
fn two_deciders_decide_what_one_would() {
    let mut dropped = 0;
    for seed in 0..SEEDS {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime can be built");
        dropped += runtime.block_on(overlap(seed));
    }
    // If nothing was ever dropped, the deciders never overlapped and the test proves nothing.
    assert!(
        dropped > SEEDS as usize,
        "only {dropped} decisions were dropped in {SEEDS} runs"
    );
}

async fn overlap(seed: u64) -> usize {
    let bench = Bench::new();
    let line = |n: u64| -> Arc<dyn EventLog> {
        Arc::new(FaultyLog::new(bench.log.clone(), BAD_LINE, seed * 10 + n))
    };
    let mut deciders = [
        bench.start("one", line(1), 40),
        bench.start("two", line(2), 40),
    ];
    let mut shoppers = Shoppers::new(seed);
    let mut dice = StdRng::seed_from_u64(seed);
    for n in 0..COMMANDS {
        bench.put(shoppers.next(1_800_000_000_000 + 10 * n as i64));
        tokio::time::sleep(Duration::from_millis(shoppers.pause_ms())).await;
        if dice.random_bool(0.01) {
            // One is killed at any point, and another takes its place.
            let which = dice.random_range(0..2);
            let name = format!("after {n}");
            let next = bench.start(&name, line(100 + n as u64), 40);
            std::mem::replace(&mut deciders[which], next).kill().await;
        }
    }
    // Without faults, one decider must answer everything.
    for decider in deciders {
        decider.kill().await;
    }
    let last = bench.start("last", bench.log.clone(), 40);
    bench.all_answered().await;
    last.stop().await;

    let counting = bench.counting();
    let undisturbed = bench.undisturbed();
    assert_eq!(counting.len(), undisturbed.len(), "seed {seed}");
    for (counts, expected) in counting.iter().zip(&undisturbed) {
        assert_eq!(substance(counts), substance(expected), "seed {seed}");
    }
    check_ledgers(&bench, seed);
    bench.log.records(Topic::StockDecisions, PARTITION).len() - counting.len()
}

/// Checks every product's history and chain with the ledger.
fn check_ledgers(bench: &Bench, seed: u64) {
    let mut ledgers = HashMap::<ProductId, Ledger>::new();
    let commands = bench.log.records(Topic::PurchaseAttempts, PARTITION);
    let mut counting = bench.counting().into_iter().peekable();
    for record in bench.log.records(Topic::StockDecisions, PARTITION) {
        let Ok(DecisionRecord::Decision(decision)) = bench.codec.decode_decision(&record.value)
        else {
            continue;
        };
        if counting.peek() != Some(&decision) {
            continue;
        }
        counting.next();
        let command = &commands[decision.answers.0 as usize];
        let appended_at_ms = command.appended_at_ms;
        let command = bench
            .codec
            .decode_command(&command.value)
            .expect("it was written here");
        let ledger = ledgers.entry(decision.product_id.clone()).or_default();
        let chain: ChainHash = chain_hash(&record.value, ledger.chain);
        ledger
            .record(&decision, &command, appended_at_ms, chain)
            .unwrap_or_else(|violation| {
                panic!("seed {seed}, offset {}: {violation}", record.offset)
            });
    }
    assert_eq!(counting.next(), None, "seed {seed}");
}
