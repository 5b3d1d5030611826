//! The session as a picture.

use std::path::Path;

use plotters::prelude::*;

use super::record::{Run, Session, Spread};
use super::systems::System;
use super::workloads::Workload;

/// The file in a report's directory.
pub const FILE: &str = "versus.svg";

const SIZE: (u32, u32) = (1_000, 760);
/// One colour per workload, also distinguishable with colour blindness.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
];

/// Draws throughput above and latency below, each by a logarithm, with the spread of the rounds
/// as a line on each bar.
pub fn write(session: &Session, dir: &Path) -> anyhow::Result<()> {
    let file = dir.join(FILE);
    let area = SVGBackend::new(&file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    // The colours are explained once, where there is most room.
    let (above, below) = area.split_vertically(SIZE.1 / 2);
    bars(
        &above,
        "attempts a second at saturation",
        session,
        true,
        |run| Some(run.per_second()),
    )?;
    bars(
        &below,
        "ms from due to outcome, p99 at half of that",
        session,
        false,
        |run| Some(run.half.as_ref()?.due_to_visible.p99),
    )?;
    area.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// The bars of one figure, grouped by system.
fn bars(
    area: &Area<'_>,
    title: &str,
    session: &Session,
    legend: bool,
    figure: impl Fn(&Run) -> Option<f64> + Copy,
) -> anyhow::Result<()> {
    let systems: Vec<System> = System::all().collect();
    let figures = session.runs.iter().filter_map(figure);
    let (least, most) = figures.fold((f64::MAX, f64::MIN), |(least, most), it| {
        (least.min(it), most.max(it))
    });
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(70)
        .build_cartesian_2d(
            0.0..systems.len() as f64,
            (least / 2.0..most * 2.0).log_scale(),
        )?;
    // The place after the last one has no name.
    let label = |x: &f64| {
        systems
            .get(*x as usize)
            .map_or("", |it| short(*it))
            .to_owned()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(systems.len() + 1)
        .x_label_offset(60)
        .x_label_formatter(&label)
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    let width = 0.8 / Workload::ALL.len() as f64;
    for (number, workload) in Workload::ALL.into_iter().enumerate() {
        let colour = COLOURS[number];
        let spreads = systems.iter().enumerate().filter_map(|(place, system)| {
            let left = place as f64 + 0.1 + number as f64 * width;
            Some((left, session.spread(*system, workload, figure)?))
        });
        let spreads: Vec<(f64, Spread)> = spreads.collect();
        let colours = move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled());
        let bar = |(left, spread): &(f64, Spread)| {
            let corners = [(*left, least / 2.0), (left + width * 0.9, spread.median)];
            Rectangle::new(corners, colour.filled())
        };
        let drawn = chart.draw_series(spreads.iter().map(bar))?;
        if legend {
            drawn.label(workload.title()).legend(colours);
        }
        let line = |(left, spread): &(f64, Spread)| {
            let middle = left + width * 0.45;
            PathElement::new([(middle, spread.least), (middle, spread.most)], BLACK)
        };
        chart.draw_series(spreads.iter().map(line))?;
    }
    if !legend {
        return Ok(());
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}

/// A name that fits under a group of bars.
fn short(system: System) -> &'static str {
    match system {
        System::RedisOff => "Redis, memory",
        System::RedisAlways => "Redis, always",
        System::PostgresRow => "PostgreSQL, row",
        System::PostgresSlots => "PostgreSQL, slots",
        System::Embedded => "Doorbuster",
        System::KafkaAppend => "Kafka append",
        System::Kafka => "Doorbuster, Kafka",
    }
}
