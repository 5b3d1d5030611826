//! The goals, as ratios within the session, and whether they are reached.

use std::fmt::Write;

use super::spread;
use crate::growth::Growth;
use crate::versus::record::{Run, Session, Spread};
use crate::versus::systems::System;
use crate::versus::workloads::Workload::Hot;

/// A goal that the session has a figure for.
struct Goal {
    what: &'static str,
    goal: &'static str,
    figure: String,
    reached: bool,
}

pub fn write(text: &mut String, session: &Session, growth: Option<&Growth>) -> std::fmt::Result {
    writeln!(text, "### Goals\n")?;
    writeln!(text, "| on one hot product | goal | reached | |")?;
    writeln!(text, "|---|---|---|---|")?;
    let goals = compared(session).into_iter();
    for goal in goals.chain(growth.into_iter().flat_map(grown)) {
        let mark = if goal.reached { "yes" } else { "**no**" };
        let Goal {
            what, goal, figure, ..
        } = goal;
        writeln!(text, "| {what} | {goal} | {figure} | {mark} |")?;
    }
    writeln!(text)
}

fn compared(session: &Session) -> Vec<Goal> {
    let rate = |run: &Run| Some(run.per_second());
    let ratio = |one, other| session.ratio((one, Hot), (other, Hot), rate);
    let at_least = |what, goal, least: f64, ratio: Option<Spread>| {
        let ratio = ratio?;
        Some(Goal {
            what,
            goal,
            figure: spread(ratio, 2),
            reached: ratio.median >= least,
        })
    };
    let no_more = |what, ratio: Option<Spread>| {
        let ratio = ratio?;
        Some(Goal {
            what,
            goal: "at most 1",
            figure: spread(ratio, 2),
            reached: ratio.median <= 1.0,
        })
    };
    let decisions = session.decisions_per_second;
    let fastest = fastest_postgres(session);
    let goals = [
        Some(Goal {
            what: "decisions a second on one thread",
            goal: "6 million",
            figure: format!("**{:.1} million**", decisions / 1e6),
            reached: decisions >= 6e6,
        }),
        at_least(
            "embedded / Redis with `appendfsync always`, attempts a second",
            "more than 1",
            1.0,
            ratio(System::Embedded, System::RedisAlways),
        ),
        no_more(
            "the same, p99 from due to outcome, both read from the API",
            p99_ratio(session, |run| Some(run.half.as_ref()?.due_to_visible.p99)),
        ),
        no_more(
            "the same, if Redis' answer to the order had the outcome",
            p99_visible(session),
        ),
        at_least(
            "embedded / PostgreSQL's hot row, attempts a second",
            "30",
            30.0,
            ratio(System::Embedded, System::PostgresRow),
        ),
        at_least(
            "embedded / the faster PostgreSQL, attempts a second",
            "30",
            30.0,
            ratio(System::Embedded, fastest),
        ),
        at_least(
            "on Kafka / the faster PostgreSQL, attempts a second",
            "10",
            10.0,
            ratio(System::Kafka, fastest),
        ),
        at_least(
            "on Kafka / a bare front end that only appends, attempts a second",
            "0.70",
            0.7,
            ratio(System::Kafka, System::KafkaAppend),
        ),
    ];
    goals.into_iter().flatten().collect()
}

fn p99_ratio(session: &Session, p99: impl Fn(&Run) -> Option<f64>) -> Option<Spread> {
    let (embedded, redis) = (System::Embedded, System::RedisAlways);
    session.ratio((embedded, Hot), (redis, Hot), p99)
}

/// How late the client has the outcome. Doorbuster's client has to read it; Redis answers with it.
fn p99_visible(session: &Session) -> Option<Spread> {
    p99_ratio(session, |run| {
        let half = run.half.as_ref()?;
        Some(match run.system {
            System::RedisAlways => half.due_to_accepted.p99,
            _ => half.due_to_visible.p99,
        })
    })
}

fn fastest_postgres(session: &Session) -> System {
    let median = |system| {
        let rate = session.spread(system, Hot, |run| Some(run.per_second()));
        rate.map_or(0.0, |rate| rate.median)
    };
    match median(System::PostgresSlots) > median(System::PostgresRow) {
        true => System::PostgresSlots,
        false => System::PostgresRow,
    }
}

fn grown(growth: &Growth) -> Vec<Goal> {
    let cost = growth.cost_ratio().map(|ratio| Goal {
        what: "cost of the last attempts in one sale / of early ones",
        goal: "flat: at most 1.10",
        figure: format!("**{ratio:.2}**"),
        reached: ratio <= 1.1,
    });
    let slowest = growth.starts.iter().map(|start| start.answered_seconds);
    let slowest = slowest.max_by(f64::total_cmp).map(|seconds| Goal {
        what: "slowest start after that, until an attempt is answered",
        goal: "5 s",
        figure: format!("**{seconds:.1} s**"),
        reached: seconds <= 5.0,
    });
    cost.into_iter().chain(slowest).collect()
}
