//! One workload on one system.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::record::{Half, Quantiles, Run};
use super::systems::{Running, System};
use super::workloads::Workload;
use crate::load::{Follow, Load};
use crate::usage::Usage;

/// How long the load lasts.
#[derive(Clone, Copy)]
pub struct Times {
    pub rounds: usize,
    pub warm_up: Duration,
    pub saturated: Duration,
    pub half: Duration,
}

/// Load that is not measured, to warm up caches, pools and compilers.
pub async fn warm_up(running: &Running<'_>, times: Times) -> anyhow::Result<()> {
    hot(running, times.warm_up).await?;
    Ok(())
}

/// Attempts a second on one hot product, on a system that has just started.
pub async fn hot_rate(running: &Running<'_>, times: Times) -> anyhow::Result<f64> {
    warm_up(running, times).await?;
    hot(running, times.saturated / 2).await
}

async fn hot(running: &Running<'_>, during: Duration) -> anyhow::Result<f64> {
    let name = format!("for-{}", during.as_millis());
    let demand = Workload::Hot.open(running.endpoints(), &name).await?;
    let load = Load::saturating(running.endpoints(), during);
    Ok(demand.of(load).run().await?.per_second())
}

/// At saturation, then at half of that.
pub async fn measure(
    running: &Running<'_>,
    system: System,
    workload: Workload,
    round: usize,
    times: Times,
) -> anyhow::Result<Run> {
    let endpoints = running.endpoints();
    let follow = match system.decides() {
        true => Follow::Last,
        false => Follow::None,
    };
    let demand = workload.open(endpoints, "full").await?;
    let before = Usage::of(&running.processes())?;
    let load = Load {
        follow,
        ..Load::saturating(endpoints, workload.saturated(times.saturated))
    };
    let full = demand.of(load).run().await?;
    if system.decides() {
        demand.settled(full.answered).await?;
    }
    let after = Usage::of(&running.processes())?;
    let mut run = Run {
        round,
        system,
        workload,
        attempts: full.answered,
        seconds: full.took.as_secs_f64(),
        cpu_seconds: after.cpu_seconds_since(&before),
        bytes_written: after.bytes_written - before.bytes_written,
        memory_bytes: after.memory_bytes as i64 - before.memory_bytes as i64,
        half: None,
    };
    if system.decides() {
        let demand = workload.open(endpoints, "half").await?;
        let per_second = run.per_second() / 2.0;
        let load = Load::steady(endpoints, per_second, times.half);
        let half = demand.of(load).run().await?;
        demand.settled(half.answered).await?;
        run.half = Some(Half {
            per_second,
            due_to_accepted: quantiles(&half.accepted_us),
            accepted_to_visible: quantiles(&half.visible_us),
            due_to_visible: quantiles(&half.decided_us),
        });
    }
    Ok(run)
}

fn quantiles(microseconds: &Histogram<u64>) -> Quantiles {
    let ms = |quantile| microseconds.value_at_quantile(quantile) as f64 / 1000.0;
    Quantiles {
        p50: ms(0.5),
        p99: ms(0.99),
        p999: ms(0.999),
    }
}
