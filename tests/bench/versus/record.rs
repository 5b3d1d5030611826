//! The stored measurements of a session: every run, so that they can be checked again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::systems::System;
use super::workloads::Workload;

/// The file in a report's directory.
const FILE: &str = "versus.json";

/// One session on one machine.
#[derive(Serialize, Deserialize)]
pub struct Session {
    pub quick: bool,
    pub machine: Machine,
    /// Decisions a second of the core on one thread.
    pub decisions_per_second: f64,
    pub pools: Vec<Pool>,
    pub runs: Vec<Run>,
    pub losses: Vec<Loss>,
}

/// A number of connections that was tried on a hot product.
#[derive(Serialize, Deserialize)]
pub struct Pool {
    pub system: System,
    pub connections: u32,
    pub per_second: f64,
}

/// One workload on one system, once.
#[derive(Serialize, Deserialize)]
pub struct Run {
    pub round: usize,
    pub system: System,
    pub workload: Workload,
    /// At saturation.
    pub attempts: u64,
    pub seconds: f64,
    /// By kind of process: the server, its engine, or the product's services and engines.
    pub cpu_seconds: BTreeMap<String, f64>,
    pub bytes_written: u64,
    pub memory_bytes: i64,
    /// Absent where nothing is decided.
    pub half: Option<Half>,
}

impl Run {
    pub fn per_second(&self) -> f64 {
        self.attempts as f64 / self.seconds
    }
}

/// At half of the rate at saturation.
#[derive(Serialize, Deserialize)]
pub struct Half {
    pub per_second: f64,
    pub due_to_accepted: Quantiles,
    pub accepted_to_visible: Quantiles,
    pub due_to_visible: Quantiles,
}

/// In milliseconds.
#[derive(Serialize, Deserialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

/// The loss when server and engine are killed under load.
#[derive(Serialize, Deserialize)]
pub struct Loss {
    pub system: System,
    /// Attempts that had been acknowledged.
    pub acknowledged: u64,
    /// How many of them were read afterwards, the last ones first.
    pub asked: u64,
    /// How many of those are unknown.
    pub gone: u64,
    /// From the start after the kill until the first attempt was answered.
    pub back_after_seconds: f64,
}

impl Session {
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        read(&dir.join(FILE))
    }

    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        write(self, &dir.join(FILE))
    }

    /// The number of connections that did best; one for a system that was not tried with more.
    pub fn pool(&self, system: System) -> u32 {
        let tried = self.pools.iter().filter(|pool| pool.system == system);
        let best = tried.max_by(|a, b| a.per_second.total_cmp(&b.per_second));
        best.map_or(1, |pool| pool.connections)
    }

    /// The runs of one workload on one system, in the order of the rounds.
    pub fn of(&self, system: System, workload: Workload) -> impl Iterator<Item = &Run> {
        let wanted = move |run: &&Run| run.system == system && run.workload == workload;
        self.runs.iter().filter(wanted)
    }

    /// A figure of those runs.
    pub fn spread(
        &self,
        system: System,
        workload: Workload,
        figure: impl Fn(&Run) -> Option<f64>,
    ) -> Option<Spread> {
        Spread::of(self.of(system, workload).filter_map(figure).collect())
    }

    /// A figure of one system as a ratio to another's in the same round.
    pub fn ratio(
        &self,
        one: (System, Workload),
        other: (System, Workload),
        figure: impl Fn(&Run) -> Option<f64>,
    ) -> Option<Spread> {
        let pairs = self.of(one.0, one.1).zip(self.of(other.0, other.1));
        let ratios = pairs.filter_map(|(one, other)| Some(figure(one)? / figure(other)?));
        Spread::of(ratios.collect())
    }
}

/// The median of some figures, and the least and the most.
#[derive(Clone, Copy)]
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

impl Spread {
    fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        Some(Self {
            least: *figures.first()?,
            median: figures[figures.len() / 2],
            most: *figures.last()?,
        })
    }
}

pub fn read<T: DeserializeOwned>(file: &Path) -> anyhow::Result<T> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not ours", file.display()))
}

pub fn write(what: &impl Serialize, file: &Path) -> anyhow::Result<()> {
    let dir = file.parent().context("a file without a directory")?;
    fs::create_dir_all(dir)?;
    let mut text = serde_json::to_vec_pretty(what)?;
    text.push(b'\n');
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
