//! What the figures are held against.

use crate::peers;

/// The figure of one side that is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// Records per second.
    Rate,
    /// Median latency.
    Median,
    /// Server CPU per record.
    ServerCpu,
}

/// A bound on a ratio.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// Met when the ratio is at least this.
    AtLeast(f64),
    /// Met when the ratio is at most this.
    AtMost(f64),
}

/// One cell of the table of wanted ratios.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Whose figure, as (work, side).
    pub of: (&'static str, &'static str),
    /// Against whose, as (work, sides); with several sides, the best of them.
    pub against: (&'static str, &'static [&'static str]),
    /// Which figure.
    pub measure: Measure,
    /// How far apart they should be.
    pub bound: Bound,
}

const fn row(work: &'static str, against: &'static [&'static str], measure: Measure, bound: Bound) -> Wanted {
    Wanted { of: (work, "baton"), against: (work, against), measure, bound }
}

const SYNC: &[&str] = &["kafka-sync"];
const MEMORY: &[&str] = &["kafka"];
const RIVALS: &[&str] = &[
    "rabbitmq",
    "rabbitmq, amqp091-go",
    "rabbitmq, one connection",
    "nats",
    "nats, nats.go",
    "rocketmq",
    "rocketmq, Java",
];

/// All ratios that are wanted.
pub const WANTED: &[Wanted] = &[
    row("wait64", SYNC, Measure::Rate, Bound::AtLeast(12.0)),
    row("wait64", MEMORY, Measure::Rate, Bound::AtLeast(1.5)),
    row("wait64x64", SYNC, Measure::Rate, Bound::AtLeast(10.0)),
    row("wait64x64", MEMORY, Measure::Rate, Bound::AtLeast(1.5)),
    row("wait1", SYNC, Measure::Rate, Bound::AtLeast(3.0)),
    row("wait1", MEMORY, Measure::Median, Bound::AtMost(1.1)),
    row("pipe6", SYNC, Measure::Rate, Bound::AtLeast(1.3)),
    row("pipe6", MEMORY, Measure::Rate, Bound::AtLeast(1.0)),
    row("pipe6", MEMORY, Measure::ServerCpu, Bound::AtMost(0.5)),
    row("pipe1000", SYNC, Measure::Rate, Bound::AtLeast(8.0)),
    row("pipe1000", MEMORY, Measure::Rate, Bound::AtLeast(1.5)),
    Wanted {
        of: ("pipe1000", "baton"),
        against: ("pipe1", &["baton"]),
        measure: Measure::Rate,
        bound: Bound::AtLeast(0.8),
    },
    Wanted {
        of: ("rate1000", "baton"),
        against: ("rate1", &["baton"]),
        measure: Measure::Rate,
        bound: Bound::AtLeast(0.8),
    },
    row("read", MEMORY, Measure::Rate, Bound::AtLeast(1.0)),
    row("read", MEMORY, Measure::ServerCpu, Bound::AtMost(1.0)),
    Wanted {
        of: (peers::WORK, peers::BATON),
        against: (peers::WORK, RIVALS),
        measure: Measure::Rate,
        bound: Bound::AtLeast(1.5),
    },
    Wanted {
        of: (peers::WORK, peers::BATON_GO),
        against: (peers::WORK, RIVALS),
        measure: Measure::Rate,
        bound: Bound::AtLeast(1.5),
    },
];

/// Baton's own limits, as (fact, most).
pub const FACTS_AT_MOST: &[(&str, f64)] =
    &[("idle_resident_mib", 30.0), ("start_empty_ms", 150.0), ("start_full_ms", 1000.0)];
/// Most resident memory of Baton under any of the works, in MiB.
pub const RESIDENT_MIB_MAX: f64 = 256.0;
/// Most bytes written to the device per byte acknowledged, in the pipelined works.
pub const WRITTEN_PER_BYTE_MAX: f64 = 1.1;

impl Bound {
    /// Whether `ratio` is within it.
    pub fn met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(least) => write!(formatter, "≥ {least}"),
            Self::AtMost(most) => write!(formatter, "≤ {most}"),
        }
    }
}
