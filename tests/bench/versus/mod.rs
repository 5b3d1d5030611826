//! The product compared with its alternatives: the same workloads on every system in one session,
//! each behind the same front end and under the same client.

mod loss;
mod measure;
mod systems;
mod workloads;

mod machine;
mod plot;
mod record;
mod report;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use engines::Engines;
use indicatif::{ProgressBar, ProgressStyle};

use self::machine::Machine;
use self::measure::Times;
use self::record::{Pool, Session};
use self::systems::{Place, System};
use self::workloads::Workload;
use crate::{core, kafka};

pub use self::record::{read, write};
pub use self::report::write as write_report;

const FULL: Times = Times {
    rounds: 3,
    warm_up: Duration::from_secs(2),
    saturated: Duration::from_secs(3),
    half: Duration::from_secs(3),
};
const QUICK: Times = Times {
    rounds: 1,
    warm_up: Duration::from_millis(500),
    saturated: Duration::from_millis(1_500),
    half: Duration::from_millis(1_500),
};

/// Numbers of connections to a database that are tried before the rounds.
const POOLS: [u32; 3] = [16, 32, 64];

/// Runs the session, and keeps its data, plot and report in a directory. Takes about fifteen
/// minutes, or four when quick.
pub async fn run(quick: bool, dir: &Path) -> anyhow::Result<()> {
    let times = if quick { QUICK } else { FULL };
    let mut run = Running {
        times,
        session: Session {
            quick,
            machine: Machine::this()?,
            decisions_per_second: 0.0,
            pools: Vec::new(),
            runs: Vec::new(),
            losses: Vec::new(),
        },
        bar: bar(times.rounds),
    };
    run.bar.set_message("the core");
    run.session.decisions_per_second = tokio::task::block_in_place(core::decisions_per_second);
    run.tune().await?;
    run.all(&System::ALONE, None).await?;
    // Saved at once: the next engines may fail to start.
    run.session.write(dir)?;
    run.bar.set_message("starting Kafka and Cassandra");
    let engines = kafka::start_engines().await?;
    run.all(&System::ON_KAFKA, Some(&engines)).await?;
    kafka::stop_engines(engines).await?;
    run.bar.finish_and_clear();
    run.session.write(dir)?;
    write_report(dir)
}

/// A session under way.
struct Running {
    times: Times,
    session: Session,
    bar: ProgressBar,
}

impl Running {
    /// Finds the best number of connections for a system with a connection pool.
    async fn tune(&mut self) -> anyhow::Result<()> {
        for system in System::POOLED {
            for connections in POOLS {
                let title = system.title();
                self.bar
                    .set_message(format!("{title}, {connections} connections"));
                let place = Place::new(system, None, connections)?;
                let running = place.start().await?;
                let per_second = measure::hot_rate(&running, self.times).await?;
                running.stop().await?;
                self.say(&format!(
                    "{title:<32} {connections:>3} connections     {per_second:>9.0} attempts/s"
                ));
                self.session.pools.push(Pool {
                    system,
                    connections,
                    per_second,
                });
            }
        }
        Ok(())
    }

    /// Runs all rounds on some systems, and then kills each of them. They alternate within each
    /// workload, every other round in the opposite order: the machine's speed drifts, so compared
    /// figures must be measured close together.
    async fn all(&mut self, systems: &[System], engines: Option<&Engines>) -> anyhow::Result<()> {
        let mut systems = systems.to_vec();
        for round in 1..=self.times.rounds {
            for workload in Workload::ALL {
                for system in systems.iter().filter(|system| system.runs(workload)) {
                    let what = || format!("{}, {}", system.title(), workload.title());
                    self.turn(round, *system, workload, engines)
                        .await
                        .with_context(what)?;
                }
            }
            systems.reverse();
        }
        for system in systems.iter().filter(|system| system.decides()) {
            self.bar.set_message(format!("{}, killed", system.title()));
            let place = Place::new(*system, engines, self.session.pool(*system))?;
            let loss = loss::measure(&place, *system, self.times.saturated);
            let loss = loss.await.with_context(|| system.title())?;
            self.say(&format!(
                "{:<32} killed: {} of {} acknowledged attempts are gone",
                system.title(),
                loss.gone,
                loss.asked
            ));
            self.session.losses.push(loss);
            self.bar.inc(1);
        }
        Ok(())
    }

    /// One workload on one system, which is started for it, so that no leftover work runs beside it.
    async fn turn(
        &mut self,
        round: usize,
        system: System,
        workload: Workload,
        engines: Option<&Engines>,
    ) -> anyhow::Result<()> {
        let (system_title, title) = (system.title(), workload.title());
        self.bar.set_message(format!("{system_title}, {title}"));
        let place = Place::new(system, engines, self.session.pool(system))?;
        let running = place.start().await?;
        measure::warm_up(&running, self.times).await?;
        let run = measure::measure(&running, system, workload, round, self.times).await?;
        running.stop().await?;
        let p99 = run.half.as_ref().map(|half| half.due_to_visible.p99);
        let p99 = p99.map(|ms| format!(", outcome p99 {ms:>7.1} ms"));
        self.say(&format!(
            "{system_title:<32} {title:<20} {:>9.0} attempts/s{}",
            run.per_second(),
            p99.unwrap_or_default()
        ));
        self.session.runs.push(run);
        self.bar.inc(1);
        Ok(())
    }

    /// Prints a line whether or not there is a terminal for the bar.
    fn say(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
    }
}

fn bar(rounds: usize) -> ProgressBar {
    let deciding = System::all().filter(|system| system.decides()).count();
    let systems = |workload| System::all().filter(move |system| system.runs(workload));
    let runs = Workload::ALL.into_iter().flat_map(systems).count();
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} {msg}");
    let bar = ProgressBar::new((rounds * runs + deciding) as u64);
    bar.enable_steady_tick(Duration::from_secs(1));
    bar.with_style(style.expect("the template is valid"))
}
