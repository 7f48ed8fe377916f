//! Figures, and what is made of them.

use std::collections::HashMap;

use crate::Fallible;
use crate::machine::{self, Window};
use crate::sides::{Places, Side};
use crate::topic::{Found, Topic};

/// From a backlog.
pub struct Backlog {
    /// How many were brought.
    pub rows: u64,
    /// From the first to the last, by the engine's clock.
    pub seconds: f64,
    /// Memory of the relay when all were brought.
    pub peak_mib: f64,
    other_cores: f64,
}

impl Backlog {
    /// Of what was read.
    pub fn of(found: &[Found], peak_mib: f64, window: &Window) -> Self {
        let times = || found.iter().map(|one| one.appended_us);
        let took_us = times().max().unwrap_or(0) - times().min().unwrap_or(0);
        Self { rows: found.len() as u64, seconds: took_us as f64 / 1e6, peak_mib, other_cores: window.other_cores }
    }

    fn rate(&self) -> f64 {
        self.rows as f64 / self.seconds
    }
}

/// At a rate.
pub struct Latency {
    rate: u64,
    /// What the writers reached.
    reached: f64,
    /// From the commit until the engine had appended it.
    append_ms: Quantiles,
    /// From the commit until a raw reader had it.
    arrival_ms: Quantiles,
    other_cores: f64,
}

struct Quantiles {
    half: f64,
    ninety_nine: f64,
    most: f64,
}

impl Quantiles {
    fn of(mut all_us: Vec<i64>) -> Self {
        all_us.sort_unstable();
        let at = |part: f64| {
            let index = (all_us.len() as f64 * part).ceil() as usize;
            all_us.get(index.saturating_sub(1)).map_or(f64::NAN, |us| *us as f64 / 1e3)
        };
        Self { half: at(0.5), ninety_nine: at(0.99), most: at(1.0) }
    }
}

impl Latency {
    /// Of rows whose commits are known by their numbers; the first `warm` do not count.
    pub fn of(rate: u64, committed_us: &[i64], found: &[Found], warm: u64, window: &Window) -> Self {
        let counted: HashMap<u64, i64> =
            committed_us.iter().enumerate().map(|(number, us)| (number as u64, *us)).collect();
        let since = |at: fn(&Found) -> i64| {
            let counts = found.iter().filter(|one| one.number >= warm);
            Quantiles::of(counts.filter_map(|one| Some(at(one) - counted.get(&one.number)?)).collect())
        };
        let took_us = committed_us.iter().max().unwrap_or(&0) - committed_us.iter().min().unwrap_or(&0);
        Self {
            rate,
            reached: committed_us.len() as f64 * 1e6 / took_us as f64,
            append_ms: since(|one| one.appended_us),
            arrival_ms: since(|one| one.arrived_us),
            other_cores: window.other_cores,
        }
    }
}

/// Of one turn.
pub struct Figures {
    /// Whose.
    pub side: Side,
    /// Rows that waited.
    pub backlog: Backlog,
    /// At each rate.
    pub latencies: Vec<Latency>,
    /// Most memory of the relay.
    pub peak_mib: f64,
    /// Most memory of the broker, if it is ours.
    pub broker_peak_mib: Option<f64>,
}

impl Figures {
    /// As a line.
    pub fn line(&self, round: usize) -> String {
        let Backlog { rows, seconds, other_cores, .. } = self.backlog;
        let mut line = format!(
            "round {round} {:13} backlog {rows} rows {seconds:.3} s {:.0}/s (others {other_cores:.2}) peak {:.0} MiB",
            self.side.name(),
            self.backlog.rate(),
            self.peak_mib
        );
        if let Some(mib) = self.broker_peak_mib {
            line.push_str(&format!(" (broker {mib:.0} MiB)"));
        }
        for latency in &self.latencies {
            let Latency { rate, reached, append_ms, arrival_ms, other_cores } = latency;
            line.push_str(&format!(
                "\n    at {rate}/s (reached {reached:.0}, others {other_cores:.2}): appended p50 {:.2} p99 {:.2} max {:.2} ms, \
                 arrived p50 {:.2} p99 {:.2} max {:.2} ms",
                append_ms.half, append_ms.ninety_nine, append_ms.most, arrival_ms.half, arrival_ms.ninety_nine, arrival_ms.most
            ));
        }
        line
    }
}

/// What the figures are of.
pub fn head(places: &Places, rows: u64, bytes: usize) {
    for line in machine::describe(&places.data) {
        println!("{line}");
    }
    println!(
        "{rows} rows of {bytes} bytes; options of the virtual machine: {:?}; of the relay: {:?}",
        places.java.1, places.relay
    );
    println!("others: cores that were taken by programs that have nothing to do with it");
}

/// Reads a whole topic, when nothing is measured.
pub fn read_all(topic: &Topic, rows: u64) -> Fallible<Vec<Found>> {
    topic.read(rows)?.join().map_err(|_| "the reader panicked")?
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Medians over the rounds, and ratios.
pub fn medians(sides: &[Side], rates: &[u64], all: &[Figures]) {
    let of = |side: Side, figure: &dyn Fn(&Figures) -> Option<f64>| {
        median(all.iter().filter(|figures| figures.side == side).filter_map(figure).collect())
    };
    let rate = |side: Side| of(side, &|figures| Some(figures.backlog.rate()));
    let memory = |side: Side| of(side, &|figures| Some(figures.peak_mib));
    println!("\nmedians");
    for side in sides {
        println!("{:13} backlog {:8.0}/s, peak {:4.0} MiB", side.name(), rate(*side), memory(*side));
        for per_second in rates {
            let at = |figure: &dyn Fn(&Latency) -> f64| {
                of(*side, &|figures| figures.latencies.iter().find(|one| one.rate == *per_second).map(figure))
            };
            if *side == Side::Naive {
                continue;
            }
            println!(
                "    at {per_second}/s: appended p50 {:.2} p99 {:.2} ms, arrived p50 {:.2} p99 {:.2} ms",
                at(&|one| one.append_ms.half),
                at(&|one| one.append_ms.ninety_nine),
                at(&|one| one.arrival_ms.half),
                at(&|one| one.arrival_ms.ninety_nine)
            );
        }
    }
    for side in sides.iter().filter(|side| **side != Side::Kafka && sides.contains(&Side::Kafka)) {
        let (speed, size) = (rate(Side::Kafka) / rate(*side), memory(Side::Kafka) / memory(*side));
        println!("kafka against {}: {speed:.2} times the rows/s, {size:.2} times the memory", side.name());
    }
}
