//! A bounded number of seeds: random ones, those that once failed, and some run twice.

use simulation::plan::Plan;
use simulation::run;

/// Random seeds of one test run.
const RANDOM: u64 = 200;
/// Seeds that are run twice.
const REPEATED: u64 = 25;

/// Every seed that once failed, with the bug it found.
const FAILED_ONCE: [(u64, &str); 1] = [(
    1057,
    "a decider whose clock was ahead appended `TimeAdvanced` as fast as it was answered",
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
fn random_seeds_hold() {
    let from = rand::random::<u64>();
    println!("from seed {from}");
    for seed in 0..RANDOM {
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
fn the_same_seed_gives_the_same_digest() {
    for seed in 0..REPEATED {
        let plan = Plan::of(seed);
        let digests = [run::run(&plan).digest, run::run(&plan).digest];
        assert_eq!(digests[0], digests[1], "seed {seed}");
    }
    assert_ne!(run::run(&Plan::of(0)).digest, run::run(&Plan::of(1)).digest);
}
