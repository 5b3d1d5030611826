//! A bounded number of seeds: fresh ones, those that once failed, and some twice.

use simulation::plan::Plan;
use simulation::run;

/// Fresh seeds of one test run.
const FRESH: u64 = 200;
/// Seeds run twice.
const TWICE: u64 = 25;

/// Every seed that once failed, with what it found.
const FAILED_ONCE: [(u64, &str); 1] = [(
    1057,
    "a decider whose clock was ahead asked for time to pass as fast as it was answered",
)];

fn must_hold(seed: u64) {
    let outcome = run::run(&Plan::of(seed));
    let violations = outcome.violations;
    assert!(
        violations.is_empty(),
        "seed {seed} fails; to repeat it: cargo run --release -p simulation -- seed {seed}\n{}",
        violations.join("\n")
    );
}

#[test]
fn seeds_that_were_never_run_hold() {
    let from = rand::random::<u64>();
    println!("from seed {from}");
    for seed in 0..FRESH {
        must_hold(from.wrapping_add(seed));
    }
}

#[test]
fn seeds_that_once_failed_hold() {
    for (seed, _) in FAILED_ONCE {
        must_hold(seed);
    }
}

#[test]
fn one_seed_is_one_run_to_the_byte() {
    for seed in 0..TWICE {
        let plan = Plan::of(seed);
        let digests = [run::run(&plan).digest, run::run(&plan).digest];
        assert_eq!(digests[0], digests[1], "seed {seed}");
    }
    assert_ne!(run::run(&Plan::of(0)).digest, run::run(&Plan::of(1)).digest);
}
