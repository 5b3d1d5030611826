//! What an attempt costs as one sale grows, and how long a start takes afterwards. Everything goes
//! through the HTTP API of the embedded product.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::load::{Connection, Follow, Load, PRODUCT, open_sale, settled, visible};
use crate::server::Server;
use crate::usage::Usage;
use crate::versus::{read, write, write_report};

/// The file in a report's directory.
const FILE: &str = "growth.json";

/// Where the sale is measured, in attempts. The first slice includes the start.
const FULL: [u64; 6] = [10_000, 100_000, 1_000_000, 3_000_000, 6_000_000, 10_000_000];
const QUICK: [u64; 4] = [10_000, 50_000, 100_000, 300_000];

/// One growing sale.
#[derive(Serialize, Deserialize)]
pub struct Growth {
    pub slices: Vec<Slice>,
    pub starts: Vec<Start>,
}

/// What a slice of its attempts costs the server.
#[derive(Serialize, Deserialize)]
pub struct Slice {
    pub from: u64,
    pub to: u64,
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub bytes_written: u64,
    /// At the end of it.
    pub memory_bytes: u64,
}

impl Slice {
    pub fn cpu_us(&self) -> f64 {
        self.cpu_seconds * 1e6 / (self.to - self.from) as f64
    }
}

/// A start with all that in the log.
#[derive(Serialize, Deserialize)]
pub struct Start {
    pub after: String,
    pub ready_seconds: f64,
    /// Until an attempt on the same sale was answered.
    pub answered_seconds: f64,
}

impl Growth {
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        read(&dir.join(FILE))
    }

    /// What an attempt costs in the last slice, as a ratio to the one after the first.
    pub fn cost_ratio(&self) -> Option<f64> {
        let (early, late) = (self.slices.get(1)?, self.slices.last()?);
        Some(late.cpu_us() / early.cpu_us())
    }
}

/// Grows a sale and prints what it costs; takes about six minutes, or one when quick.
pub async fn run(quick: bool, dir: &Path) -> anyhow::Result<()> {
    let bounds: &[u64] = if quick { &QUICK } else { &FULL };
    let data = tempfile::tempdir()?;
    let server = Server::doorbuster(data.path()).await?;
    open_sale(server.address, PRODUCT, r#""stock":10000"#).await?;
    visible(server.address, PRODUCT).await?;
    println!("one sale through the HTTP API, 10,000 units");
    let mut growth = Growth {
        slices: Vec::new(),
        starts: Vec::new(),
    };
    let mut from = 0;
    for to in bounds {
        let slice = grow(&server, from, *to).await?;
        println!(
            "{from:>9} to {to:>9} attempts: {:>6.1} us of processor each, {:>7.0}/s, {:>5.0} MB",
            slice.cpu_us(),
            (to - from) as f64 / slice.seconds,
            slice.memory_bytes as f64 / 1e6
        );
        growth.slices.push(slice);
        from = *to;
    }
    server.stop().await?;
    for after in ["an end in order", "SIGKILL"] {
        growth.starts.push(start(data.path(), after, from).await?);
        from += 1;
    }
    write(&growth, &dir.join(FILE))?;
    write_report(dir)
}

/// Starts the product on a directory, places the attempt with this number, and kills it.
async fn start(data: &Path, after: &str, attempt: u64) -> anyhow::Result<Start> {
    let began = Instant::now();
    let server = Server::doorbuster(data).await?;
    let ready_seconds = began.elapsed().as_secs_f64();
    let mut connection = Connection::open(server.address).await?;
    let attempt = connection.order(PRODUCT, attempt).await?;
    connection.outcome(&attempt).await?;
    let answered_seconds = began.elapsed().as_secs_f64();
    println!(
        "start after {after}: ready in {ready_seconds:.1} s, answers in {answered_seconds:.1} s"
    );
    server.kill().await?;
    Ok(Start {
        after: after.to_owned(),
        ready_seconds,
        answered_seconds,
    })
}

async fn grow(server: &Server, from: u64, to: u64) -> anyhow::Result<Slice> {
    let process = Vec::from_iter(server.pid().map(|pid| ("server".to_owned(), pid)));
    let before = Usage::of(&process)?;
    let unlimited = Duration::from_secs(3_600);
    let load = Load {
        from,
        to,
        follow: Follow::Last,
        ..Load::saturating(server.address.into(), unlimited)
    };
    let outcome = load.run().await?;
    settled(server.address, PRODUCT).await?;
    let after = Usage::of(&process)?;
    Ok(Slice {
        from,
        to,
        seconds: outcome.took.as_secs_f64(),
        cpu_seconds: after.cpu_seconds_since(&before).values().sum(),
        bytes_written: after.bytes_written - before.bytes_written,
        memory_bytes: after.memory_bytes,
    })
}
