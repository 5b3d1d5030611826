//! How fast the domain decides on one hot product with one thread, and the memory of an attempt.
//!
//! The reference, in the same run, does the least that deciding each attempt once requires: it
//! inserts the same ids into a `HashMap` and counts a stock down.

use std::collections::HashMap;
use std::hint::black_box;
use std::process;

use domain::product::{Product, evolve};
use domain::{DecisionContext, answer, decide};
use schemas::command::{Command, CommandBody, PlaceAttempt, SaleTerms};
use schemas::ids::{AttemptId, Money, Offset, TimestampMs};

/// Attempts of one run, each by a buyer of its own.
const ATTEMPTS: u32 = 2_000_000;
/// Runs of each kind, of which the best counts: the others were slowed down by other processes.
const RUNS: usize = 3;
/// Attempts that are looked ahead at, as the decider does.
const LOOK_AHEAD: usize = 16;
const NOW: TimestampMs = 1_760_000_000_000;
const HOLD_MS: i64 = 600_000;

/// Prints decisions a second, their ratio to the reference, and bytes an attempt.
pub fn run() -> std::io::Result<()> {
    println!("core, memory of one product after {ATTEMPTS} attempts");
    for (what, goal) in [
        ("refused", " (goal 32)"),
        ("sold", ""),
        ("held", " (goal 128)"),
    ] {
        let bytes = bytes_each_alone(what)?;
        println!("  {what:<9} {bytes:6.1} bytes an attempt{goal}");
    }

    let commands: Vec<Command> = (0..ATTEMPTS).map(attempt).collect();
    let reference = best(|| reference(&commands));
    println!("core, one thread, {ATTEMPTS} attempts, best of {RUNS}, per processor second");
    println!(
        "  reference, insert and count   {:6.2} M/s",
        reference / 1e6
    );
    let line = |what: &str, rate: f64| {
        println!(
            "  {what:<29} {:6.2} M/s, {:4.2} of the reference",
            rate / 1e6,
            rate / reference
        );
    };
    for (what, terms) in [
        ("sell-out", terms_that("refused")),
        ("all sold", terms_that("sold")),
        ("all held", terms_that("held")),
    ] {
        line(
            &format!("{what}, decide + evolve"),
            best(|| decide_and_evolve(&commands, &terms)),
        );
        line(
            &format!("{what}, answer"),
            best(|| answer_all(&commands, &terms)),
        );
    }
    Ok(())
}

/// Decisions a second on one hot product whose few units are gone.
pub fn decisions_per_second() -> f64 {
    let commands: Vec<Command> = (0..ATTEMPTS).map(attempt).collect();
    let terms = terms_that("refused");
    best(|| decide_and_evolve(&commands, &terms))
}

/// The best rate of some runs, in attempts a second.
fn best(run: impl Fn() -> f64) -> f64 {
    (0..RUNS).map(|_| run()).fold(0.0, f64::max)
}

/// Processor seconds of this thread. Unlike wall-clock time, they exclude the time of other
/// processes, but not their effect on the caches.
fn busy_seconds() -> f64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat");
    let nanoseconds = schedstat
        .ok()
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.expect("Linux accounts for the time of threads") / 1e9
}

fn rate(started: f64) -> f64 {
    f64::from(ATTEMPTS) / (busy_seconds() - started)
}

fn reference(commands: &[Command]) -> f64 {
    let mut seen = HashMap::new();
    let mut stock = ATTEMPTS;
    let started = busy_seconds();
    for command in commands {
        if let CommandBody::PlaceAttempt(place) = &command.body
            && seen.insert(place.attempt_id, ()).is_none()
        {
            stock -= 1;
        }
    }
    let rate = rate(started);
    assert_eq!(stock, 0, "every attempt is another one");
    black_box(seen);
    rate
}

/// As the decider does before it decides on the next few.
fn prefetch(product: &Product, commands: &[Command]) {
    for command in commands.iter().take(LOOK_AHEAD) {
        if let CommandBody::PlaceAttempt(place) = &command.body {
            product.prefetch(&place.attempt_id);
        }
    }
}

fn decide_and_evolve(commands: &[Command], terms: &SaleTerms) -> f64 {
    let mut product = on_sale(terms);
    let started = busy_seconds();
    for (offset, command) in commands.iter().enumerate() {
        if offset % LOOK_AHEAD == 0 {
            prefetch(&product, &commands[offset..]);
        }
        let events = decide(&product, command, Offset(offset as i64), NOW);
        for event in &events {
            evolve(&mut product, event);
        }
        black_box(events);
    }
    let rate = rate(started);
    assert_sold(&product, terms);
    rate
}

fn answer_all(commands: &[Command], terms: &SaleTerms) -> f64 {
    let mut product = on_sale(terms);
    let started = busy_seconds();
    for (offset, command) in commands.iter().enumerate() {
        if offset % LOOK_AHEAD == 0 {
            prefetch(&product, &commands[offset..]);
        }
        let decision = answer(&mut product, command, context(offset as i64));
        black_box(decision.expect("invariants hold"));
    }
    let rate = rate(started);
    assert_sold(&product, terms);
    rate
}

/// The argument that makes this program measure the memory of one kind of attempt.
pub const MEMORY: &str = "core-memory";

/// [`bytes_each`] in its own process, whose allocator has nothing to reuse, and returns at once the
/// memory that a growing table left.
fn bytes_each_alone(what: &str) -> std::io::Result<f64> {
    let out = process::Command::new(std::env::current_exe()?)
        .args([MEMORY, what])
        .env("MIMALLOC_PURGE_DELAY", "0")
        .output()?;
    let figure = String::from_utf8_lossy(&out.stdout).trim().parse();
    figure.map_err(|_| std::io::Error::other(format!("measuring memory ended with {}", out.status)))
}

/// Prints what an attempt adds to the process when it is refused, sold or held.
pub fn print_memory(what: &str) -> std::io::Result<()> {
    println!("{}", bytes_each(&terms_that(what))?);
    Ok(())
}

/// Terms under which attempts are refused, all but ten of them, sold or held.
fn terms_that(what: &str) -> SaleTerms {
    match what {
        "refused" => terms(10, None),
        "sold" => terms(ATTEMPTS, None),
        _ => terms(ATTEMPTS, Some(HOLD_MS)),
    }
}

/// The memory that an attempt adds to the process. Commands are made one by one and dropped, so
/// memory that the product shares with them counts as the product's.
fn bytes_each(terms: &SaleTerms) -> std::io::Result<f64> {
    let mut product = on_sale(terms);
    let before = resident_bytes()?;
    for number in 0..ATTEMPTS {
        let decision = answer(&mut product, &attempt(number), context(number.into()));
        black_box(decision.expect("invariants hold"));
    }
    let after = resident_bytes()?;
    assert_sold(&product, terms);
    Ok((after - before) / f64::from(ATTEMPTS))
}

/// The process's memory, as accounted by Linux.
fn resident_bytes() -> std::io::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kilobytes = status.lines().find_map(|line| {
        let value = line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?;
        value.trim().parse::<f64>().ok()
    });
    let kilobytes =
        kilobytes.ok_or_else(|| std::io::Error::other("no VmRSS in /proc/self/status"))?;
    Ok(kilobytes * 1024.0)
}

fn assert_sold(product: &Product, terms: &SaleTerms) {
    let given = product.head.stock.sold + product.head.stock.reserved;
    assert_eq!(given, terms.stock, "the stock is sold or held");
    assert_eq!(
        product.remembered(),
        ATTEMPTS as usize,
        "every attempt is answered"
    );
}

fn context(offset: i64) -> DecisionContext {
    DecisionContext {
        claim: Offset(0),
        offset: Offset(offset),
        follows: Offset(offset - 1),
        appended_at_ms: NOW,
    }
}

fn terms(stock: u32, hold_ms: Option<i64>) -> SaleTerms {
    SaleTerms {
        name: "Lamp".into(),
        price: Money {
            minor: 1999,
            currency: "GBP".into(),
        },
        stock,
        limit_per_buyer: Some(1),
        hold_ms,
        opens_at_ms: 0,
        closes_at_ms: None,
    }
}

fn on_sale(terms: &SaleTerms) -> Product {
    let mut product = Product::default();
    let command = Command {
        product_id: "lamp".parse().expect("a good id"),
        body: CommandBody::PutSale(terms.clone()),
        if_version: None,
    };
    answer(&mut product, &command, context(0)).expect("invariants hold");
    product
}

/// An attempt as the command API makes it: the id is a hash, so that ids are spread as in
/// production. Consecutive ids would access the domain's tables in order.
fn attempt(number: u32) -> Command {
    let product_id = "lamp".parse().expect("a good id");
    let buyer_id = format!("buyer-{number}").parse().expect("a good id");
    Command {
        body: CommandBody::PlaceAttempt(PlaceAttempt {
            attempt_id: AttemptId::from_key(&product_id, &buyer_id, "once", 1),
            buyer_id,
            quantity: 1,
            round: None,
        }),
        product_id,
        if_version: None,
    }
}
