//! The session as text: Markdown, ready to be kept.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Context;

use super::plot;
use super::record::{Quantiles, Run, Session, Spread};
use super::systems::System;
use super::workloads::Workload;
use crate::growth::Growth;

mod goals;

/// The file in a report's directory.
const FILE: &str = "report.md";

const HOW: &str = "\
Every system is behind the same axum front end: the same routes, extractors, bounds and sizes
of answers, in a process of its own, under the same client. Engines, server and client share the
machine. The rivals decide before they answer the order; Doorbuster answers once the attempt is
durably queued, and returns the outcome on a read.

- **Redis** decides by one Lua script, called by its hash over one pipelined connection that all
  requests share, on a Unix socket. Its log is not rewritten during a run.
- **PostgreSQL** decides by one function in one transaction with a durable commit, prepared, over a
  pool of connections on a Unix socket, with 512 MB of shared buffers; the session begins by trying
  sizes of the pool and takes the best. *Hot row* updates one row of stock, whose lock is taken
  last; *SKIP LOCKED* spreads the stock over as many rows as there are connections, of which each
  takes one that is free, and gives up on serving who came first. The faster of the two is the
  reference. An advisory lock was not tried: held until the commit it queues as the row's does, and
  released earlier it would promise what may be rolled back.
- **The bare front end** appends to Kafka with the product's producer settings, and decides nothing.

Saturation: 256 connections, each with its next attempt when the last was answered, until every
attempt is decided. Then half of that rate by a timetable, whatever the answers do, so that a slow
answer cannot hide those behind it; one attempt in 20 is followed to its outcome by a second
request. Due counts from the timetable; the client's timer adds up to a millisecond to all of them.
In each round systems take turns at each workload, every other round in the opposite order, and
each is started anew for it: what is compared is measured within a minute. Those on Kafka have
rounds of their own, since its engines take memory and time even when idle. After each run the stock
is looked at: not a unit too many or too few.

";

/// Writes plot and report from what the directory has.
pub fn write(dir: &Path) -> anyhow::Result<()> {
    let growth = Growth::read(dir).ok();
    // Without a session there is nothing yet to report on.
    let Ok(session) = Session::read(dir) else {
        return Ok(());
    };
    plot::write(&session, dir)?;
    let file = dir.join(FILE);
    let text = text(&session, growth.as_ref())?;
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    println!("the report is in {}", file.display());
    Ok(())
}

fn text(session: &Session, growth: Option<&Growth>) -> Result<String, std::fmt::Error> {
    let mut text = String::from("## Against what people would use instead\n\n");
    let machine = &session.machine;
    let rounds = session.runs.iter().map(|run| run.round).max().unwrap_or(0);
    if session.quick {
        text += "**A quick trial with short runs: not for quoting.**\n\n";
    }
    text += HOW;
    writeln!(
        text,
        "Medians of {rounds} rounds, least and most in parentheses; every run is in \
         [versus.json](versus.json). PostgreSQL has a pool of {} connections for the hot row and of \
         {} for `SKIP LOCKED`. {}, {} cores, {:.0} GB, Linux {}; {}; Kafka and Cassandra as \
         `infra/engines` has them.\n",
        session.pool(System::PostgresRow),
        session.pool(System::PostgresSlots),
        machine.processor,
        machine.cores,
        machine.memory_bytes as f64 / 1e9,
        machine.kernel,
        machine.engines.join("; ")
    )?;
    writeln!(text, "![The session]({})\n", plot::FILE)?;
    goals::write(&mut text, session, growth)?;
    throughput(&mut text, session)?;
    latency(&mut text, session)?;
    costs(&mut text, session)?;
    losses(&mut text, session)?;
    if let Some(growth) = growth {
        growing(&mut text, growth)?;
    }
    Ok(text)
}

fn throughput(text: &mut String, session: &Session) -> std::fmt::Result {
    writeln!(text, "### Attempts a second at saturation\n")?;
    by_workload(text, session, |system, workload| {
        let rate = session.spread(system, workload, |run| Some(run.per_second()))?;
        Some(spread(rate, 0))
    })
}

type QuantilesOf = fn(&Run) -> Option<&Quantiles>;

fn latency(text: &mut String, session: &Session) -> std::fmt::Result {
    writeln!(
        text,
        "### Latency at half of that\n\nMilliseconds: p50 / p99 / p99.9, each the median of the \
         rounds, in parentheses the least and most p99.\n"
    )?;
    let kinds: [(&str, QuantilesOf); 3] = [
        ("From accepted to visible:", |run| {
            Some(&run.half.as_ref()?.accepted_to_visible)
        }),
        (
            "From due to accepted, when a rival's outcome is decided:",
            |run| Some(&run.half.as_ref()?.due_to_accepted),
        ),
        (
            "From due to the outcome at the client, read in the same way:",
            |run| Some(&run.half.as_ref()?.due_to_visible),
        ),
    ];
    for (title, of) in kinds {
        writeln!(text, "{title}\n")?;
        by_workload(text, session, |system, workload| {
            let of = |figure: fn(&Quantiles) -> f64| {
                session.spread(system, workload, |run| of(run).map(figure))
            };
            let (p50, p99, p999) = (of(|it| it.p50)?, of(|it| it.p99)?, of(|it| it.p999)?);
            Some(format!(
                "{:.1} / **{:.1}** / {:.1} ({:.1} to {:.1})",
                p50.median, p99.median, p999.median, p99.least, p99.most
            ))
        })?;
    }
    Ok(())
}

fn costs(text: &mut String, session: &Session) -> std::fmt::Result {
    writeln!(
        text,
        "### What an attempt costs\n\nServer and engines together, at saturation: microseconds of \
         processor; bytes that the machine's disks were given, from one sync to another, by any process; \
         MB of memory for a million attempts. The memory of engines that \
         run on the JVM is what their collectors left.\n"
    )?;
    by_workload(text, session, |system, workload| {
        let each = |figure: fn(&Run) -> f64| {
            session.spread(system, workload, |run| {
                Some(figure(run) / run.attempts as f64)
            })
        };
        Some(format!(
            "{} us; {} B; {} MB",
            spread(each(|run| run.cpu_seconds.values().sum::<f64>() * 1e6)?, 0),
            spread(each(|run| run.bytes_written as f64)?, 0),
            spread(each(|run| run.memory_bytes as f64)?, 0)
        ))
    })?;
    writeln!(
        text,
        "Whose processor time that is, on one hot product, in microseconds an attempt:\n"
    )?;
    writeln!(text, "| | processes |\n|---|---|")?;
    for system in System::all() {
        let Some(run) = session.of(system, Workload::Hot).next() else {
            continue;
        };
        let of = |name: &String| {
            let each = session.spread(system, Workload::Hot, |run| {
                Some(run.cpu_seconds.get(name)? * 1e6 / run.attempts as f64)
            });
            Some(format!("{name} {:.0}", each?.median))
        };
        let processes = Vec::from_iter(run.cpu_seconds.keys().filter_map(of));
        writeln!(text, "| {} | {} |", system.title(), processes.join(", "))?;
    }
    writeln!(text)
}

fn losses(text: &mut String, session: &Session) -> std::fmt::Result {
    writeln!(
        text,
        "### What SIGKILL takes\n\nServer and engine are killed under load and started again; the \
         attempts acknowledged last are read. The machine runs on, so what an engine wrote and \
         did not sync is not lost here.\n"
    )?;
    writeln!(text, "| | acknowledged | read | gone | back after |")?;
    writeln!(text, "|---|---|---|---|---|")?;
    for loss in &session.losses {
        writeln!(
            text,
            "| {} | {} | {} | **{}** | {:.1} s |",
            loss.system.title(),
            loss.acknowledged,
            loss.asked,
            loss.gone,
            loss.back_after_seconds
        )?;
    }
    writeln!(text)
}

fn growing(text: &mut String, growth: &Growth) -> std::fmt::Result {
    writeln!(
        text,
        "### One sale as it grows\n\nThe embedded product, through its HTTP API, all but 10,000 \
         attempts refused; every slice is in [growth.json](growth.json).\n"
    )?;
    writeln!(
        text,
        "| attempts | us of processor each | bytes to disk each | attempts/s | memory in the end |"
    )?;
    writeln!(text, "|---|---|---|---|---|")?;
    for slice in &growth.slices {
        let attempts = (slice.to - slice.from) as f64;
        writeln!(
            text,
            "| {} to {} | {:.1} | {:.0} | {:.0} | {:.0} MB |",
            slice.from,
            slice.to,
            slice.cpu_us(),
            slice.bytes_written as f64 / attempts,
            attempts / slice.seconds,
            slice.memory_bytes as f64 / 1e6
        )?;
    }
    writeln!(text)?;
    for start in &growth.starts {
        writeln!(
            text,
            "- Start after {}: ready in {:.1} s, the first attempt answered in {:.1} s.",
            start.after, start.ready_seconds, start.answered_seconds
        )?;
    }
    writeln!(text)
}

/// A table of systems by workloads.
fn by_workload(
    text: &mut String,
    session: &Session,
    cell: impl Fn(System, Workload) -> Option<String>,
) -> std::fmt::Result {
    let titles = Workload::ALL.map(Workload::title);
    writeln!(text, "| | {} |", titles.join(" | "))?;
    writeln!(text, "|---|{}", "---|".repeat(titles.len()))?;
    let measured = |system: &System| session.runs.iter().any(|run| run.system == *system);
    for system in System::all().filter(measured) {
        let cells = Workload::ALL.map(|workload| cell(system, workload).unwrap_or_default());
        // A system that gives no such figure at all has no row.
        if cells.iter().any(|cell| !cell.is_empty()) {
            writeln!(text, "| {} | {} |", system.title(), cells.join(" | "))?;
        }
    }
    writeln!(text)
}

fn spread(it: Spread, digits: usize) -> String {
    let Spread {
        least,
        median,
        most,
    } = it;
    match least == most {
        true => format!("**{median:.digits$}**"),
        false => format!("**{median:.digits$}** ({least:.digits$} to {most:.digits$})"),
    }
}
