//! The resources that processes use, as accounted by Linux.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use rustix::param::clock_ticks_per_second;
use rustix::process::Pid;

/// The resources that some processes have used so far, and their current memory.
#[derive(Default)]
pub struct Usage {
    /// By kind of process.
    pub cpu_seconds: BTreeMap<String, f64>,
    /// Bytes written to the machine's disks by all processes. What Linux accounts to one process is
    /// whole folios, which may be many times the blocks of a small write.
    pub bytes_written: u64,
    /// Shared pages count once.
    pub memory_bytes: u64,
}

impl Usage {
    /// The usage of all these processes, once their writes are on disk. A process that has just
    /// ended counts as zero.
    pub fn of(processes: &[(String, Pid)]) -> anyhow::Result<Self> {
        rustix::fs::sync();
        let mut all = Self {
            bytes_written: disk_bytes_written(Path::new("/sys/block"))?,
            ..Self::default()
        };
        for (name, pid) in processes {
            let read = |file| fs::read_to_string(format!("/proc/{pid}/{file}"));
            let (Ok(stat), Ok(memory)) = (read("stat"), read("smaps_rollup")) else {
                continue;
            };
            let cpu_seconds = cpu_seconds(&stat).context("/proc/PID/stat is of another form")?;
            *all.cpu_seconds.entry(name.clone()).or_default() += cpu_seconds;
            all.memory_bytes += figure(&memory, "Pss:").context("no Pss")? * 1024;
        }
        Ok(all)
    }

    /// Processor time since an earlier measurement, in seconds, by kind of process.
    pub fn cpu_seconds_since(&self, before: &Self) -> BTreeMap<String, f64> {
        let since = self.cpu_seconds.iter().map(|(name, seconds)| {
            let before = before.cpu_seconds.get(name).unwrap_or(&0.0);
            (name.clone(), seconds - before)
        });
        since.collect()
    }
}

/// All disks, without the devices that are made of others.
fn disk_bytes_written(devices: &Path) -> anyhow::Result<u64> {
    let mut sectors = 0;
    for device in fs::read_dir(devices)? {
        let device = device?.path();
        if device.join("device").exists() {
            let stat = fs::read_to_string(device.join("stat"))?;
            let written = stat.split_whitespace().nth(6);
            sectors += written.context("a disk without a count")?.parse::<u64>()?;
        }
    }
    Ok(sectors * 512)
}

/// A process's own time and that of its ended children, such as connections of PostgreSQL.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The program's name, in parentheses, may hold spaces.
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks = fields.split(' ').skip(11).take(4);
    let ticks: Option<u64> = ticks.map(|field| field.parse::<u64>().ok()).sum();
    Some(ticks? as f64 / clock_ticks_per_second() as f64)
}

fn figure(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
