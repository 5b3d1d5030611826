//! How fast the core decides on one hot product with one thread, and what it remembers costs.
//!
//! The reference, in the same run, does the least that any answer once per attempt must do: it
//! inserts the same ids into a `HashMap` and counts a stock down.

use std::collections::HashMap;
use std::hint::black_box;

use domain::product::{Product, evolve};
use domain::{Turn, answer, decide};
use schemas::command::{Command, CommandBody, PlaceAttempt, SaleTerms};
use schemas::ids::{AttemptId, Money, Offset, TimestampMs};

/// Attempts of one run, each by a buyer of its own.
const ATTEMPTS: u32 = 2_000_000;
/// Runs of each kind, of which the best counts: the others had company on the machine.
const RUNS: usize = 3;
const NOW: TimestampMs = 1_760_000_000_000;
const HOLD_MS: i64 = 600_000;

/// Prints decisions a second, their ratio to the reference, and bytes an attempt.
pub fn run() -> std::io::Result<()> {
    let sell_out = terms(10, None);
    let all_sold = terms(ATTEMPTS, None);
    let all_held = terms(ATTEMPTS, Some(HOLD_MS));

    // Memory first, while nothing has been given back to the allocator for reuse.
    println!("core, memory of one product after {ATTEMPTS} attempts");
    println!(
        "  refused   {:6.1} bytes an attempt (goal 32)",
        bytes_each(&sell_out)?
    );
    println!(
        "  sold      {:6.1} bytes an attempt",
        bytes_each(&all_sold)?
    );
    println!(
        "  held      {:6.1} bytes an attempt (goal 128)",
        bytes_each(&all_held)?
    );

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
        ("sell-out", &sell_out),
        ("all sold", &all_sold),
        ("all held", &all_held),
    ] {
        line(
            &format!("{what}, decide + evolve"),
            best(|| decide_and_evolve(&commands, terms)),
        );
        line(
            &format!("{what}, answer"),
            best(|| answer_all(&commands, terms)),
        );
    }
    Ok(())
}

/// Decisions a second on one hot product whose few units are gone.
pub fn decisions_per_second() -> f64 {
    let commands: Vec<Command> = (0..ATTEMPTS).map(attempt).collect();
    let terms = terms(10, None);
    best(|| decide_and_evolve(&commands, &terms))
}

/// The best rate of some runs, in attempts a second.
fn best(run: impl Fn() -> f64) -> f64 {
    (0..RUNS).map(|_| run()).fold(0.0, f64::max)
}

/// Seconds that this thread has had a processor. Unlike the clock on the wall it does not
/// count the time that others had it; what they do to the caches it does count.
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

fn decide_and_evolve(commands: &[Command], terms: &SaleTerms) -> f64 {
    let mut product = on_sale(terms);
    let started = busy_seconds();
    for (offset, command) in commands.iter().enumerate() {
        let events = decide(&product, &command.body, Offset(offset as i64), NOW);
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
        let decision = answer(&mut product, command, turn(offset as i64));
        black_box(decision.expect("invariants hold"));
    }
    let rate = rate(started);
    assert_sold(&product, terms);
    rate
}

/// What an attempt adds to the process. Commands are made as they come and then dropped, so
/// what the product shares with them is the product's.
fn bytes_each(terms: &SaleTerms) -> std::io::Result<f64> {
    let mut product = on_sale(terms);
    let before = resident_bytes()?;
    for number in 0..ATTEMPTS {
        let decision = answer(&mut product, &attempt(number), turn(number.into()));
        black_box(decision.expect("invariants hold"));
    }
    let after = resident_bytes()?;
    assert_sold(&product, terms);
    Ok((after - before) / f64::from(ATTEMPTS))
}

/// The process's memory as Linux accounts for it.
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
    let given = product.stock.sold + product.stock.reserved;
    assert_eq!(given, terms.stock, "the stock is sold or held");
    assert_eq!(
        product.remembered(),
        ATTEMPTS as usize,
        "every attempt is answered"
    );
}

fn turn(offset: i64) -> Turn {
    Turn {
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
    };
    answer(&mut product, &command, turn(0)).expect("invariants hold");
    product
}

/// An attempt as the door makes it: the id is a hash, so that it is as evenly spread as in
/// production and no more. Counted ids would walk the core's tables in step.
fn attempt(number: u32) -> Command {
    let product_id = "lamp".parse().expect("a good id");
    let buyer_id = format!("buyer-{number}").parse().expect("a good id");
    Command {
        body: CommandBody::PlaceAttempt(PlaceAttempt {
            attempt_id: AttemptId::from_key(&product_id, &buyer_id, "once"),
            buyer_id,
            quantity: 1,
        }),
        product_id,
    }
}
