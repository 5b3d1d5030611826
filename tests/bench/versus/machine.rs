//! What a session runs on.

use std::fs;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// A machine, and the engines installed on it.
#[derive(Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    pub engines: Vec<String>,
}

impl Machine {
    /// This one.
    pub fn this() -> anyhow::Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        let memory = fs::read_to_string("/proc/meminfo")?;
        let kilobytes = value(&memory, "MemTotal").and_then(|it| it.strip_suffix(" kB"));
        let kilobytes: u64 = kilobytes.context("no MemTotal")?.parse()?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        Ok(Self {
            processor: value(&processors, "model name")
                .unwrap_or("unknown")
                .to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            memory_bytes: kilobytes * 1024,
            kernel: kernel.trim().to_owned(),
            engines: rivals::versions()?,
        })
    }
}

/// What follows a name and a colon.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}
