//! A seeded simulation of the commit log: a random workload on a disk that crashes, lies and fills up, next to a model
//! that knows what was acknowledged. Everything happens in one thread, so a seed replays exactly.

mod check;
mod model;
mod restart;
mod workload;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use world::World;

/// A rule of the log that is taken out, to see that the simulation finds the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimulatedMutant {
    /// No sync before the acknowledgement.
    SyncTakenOut,
    /// Directory entries are never synced.
    DirectorySyncTakenOut,
    /// Recovery takes frames without looking at checksums.
    TailNotChecked,
    /// A failed sync is tried again, and believed if it succeeds then.
    FailedSyncRetried,
}

impl SimulatedMutant {
    /// All of them, with their names on the command line.
    pub const ALL: [(&'static str, Self); 4] = [
        ("sync-taken-out", Self::SyncTakenOut),
        ("directory-sync-taken-out", Self::DirectorySyncTakenOut),
        ("tail-not-checked", Self::TailNotChecked),
        ("failed-sync-retried", Self::FailedSyncRetried),
    ];

    /// Whether the log itself is changed, which the feature `mutants` is needed for; the others are made by the disk.
    pub fn is_of_the_log(self) -> bool {
        matches!(self, Self::TailNotChecked | Self::FailedSyncRetried)
    }

    /// The name on the command line.
    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, mutant)| *mutant == self).map_or("", |(name, _)| name)
    }

    /// The mutant of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(of, _)| *of == name).map(|(_, mutant)| *mutant)
    }
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Simulation {
    /// Decides everything that happens.
    pub seed: u64,
    /// What is taken out, if anything.
    pub mutant: Option<SimulatedMutant>,
    /// Whether every step and disk operation is kept, for reading.
    pub trace: bool,
}

/// What runs did, summed up: a run in which nothing happens finds nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Runs.
    pub seeds: u64,
    /// Steps of the workload.
    pub steps: u64,
    /// Operations of the disk.
    pub disk_operations: u64,
    /// Batches acknowledged.
    pub acknowledged: u64,
    /// Batches that were recognised as stored before.
    pub duplicates: u64,
    /// Commit groups made durable.
    pub commits: u64,
    /// Restarts after a loss of power.
    pub power_losses: u64,
    /// Restarts after the process alone was killed.
    pub kills: u64,
    /// Restarts after closing in order.
    pub closes: u64,
    /// Starts that were themselves interrupted.
    pub interrupted_starts: u64,
    /// Torn tails cut.
    pub cuts: u64,
    /// Faults of the device that happened.
    pub faults: u64,
    /// Times the log was poisoned.
    pub poisoned: u64,
    /// Appends refused for want of space.
    pub refused_full: u64,
    /// Bits flipped in what was durable.
    pub flips: u64,
    /// Damaged batches that were reported, by recovery or by a read.
    pub damage_reported: u64,
    /// Changes of unknown fate that turned out to be there, and not to be.
    pub unknown_kept: u64,
    /// See above.
    pub unknown_lost: u64,
    /// Index files made again.
    pub indexes_rebuilt: u64,
    /// Batches read and compared.
    pub batches_compared: u64,
}

impl Figures {
    /// Adds another run's figures.
    pub fn add(&mut self, other: &Self) {
        let Self {
            seeds, steps, disk_operations, acknowledged, duplicates, commits, power_losses, kills, closes, ..
        } = other;
        self.seeds += seeds;
        self.steps += steps;
        self.disk_operations += disk_operations;
        self.acknowledged += acknowledged;
        self.duplicates += duplicates;
        self.commits += commits;
        self.power_losses += power_losses;
        self.kills += kills;
        self.closes += closes;
        self.interrupted_starts += other.interrupted_starts;
        self.cuts += other.cuts;
        self.faults += other.faults;
        self.poisoned += other.poisoned;
        self.refused_full += other.refused_full;
        self.flips += other.flips;
        self.damage_reported += other.damage_reported;
        self.unknown_kept += other.unknown_kept;
        self.unknown_lost += other.unknown_lost;
        self.indexes_rebuilt += other.indexes_rebuilt;
        self.batches_compared += other.batches_compared;
    }
}

/// A broken promise.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The run that shows it.
    pub seed: u64,
    /// What was taken out, if anything.
    pub mutant: Option<SimulatedMutant>,
    /// What should have been and what was.
    pub what: String,
    /// Steps and disk operations up to it, where a trace was asked for.
    pub trace: Vec<String>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, mutant, what, .. } = self;
        let (feature, mutant) = match mutant {
            Some(mutant) => (" --features mutants", format!(" --mutant {}", mutant.name())),
            None => ("", String::new()),
        };
        let end = seed + 1;
        write!(
            out,
            "seed {seed}: {what}\n  replay: cargo run -p baton-testkit{feature} --bin simulate-log -- --seeds \
             {seed}..{end}{mutant} --trace"
        )
    }
}

impl Simulation {
    /// A run of the log as it is.
    pub fn new(seed: u64) -> Self {
        Self { seed, mutant: None, trace: false }
    }

    /// Runs it.
    ///
    /// # Errors
    /// The first broken promise; a panic of the log is one.
    pub fn run(&self) -> Result<Figures, Violation> {
        let mut world = World::new(self);
        let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
        let violation = |what| Violation { seed: self.seed, mutant: self.mutant, what, trace: world.take_trace() };
        match outcome {
            Ok(Ok(figures)) => Ok(figures),
            Ok(Err(what)) => Err(violation(what)),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Err(violation(format!("panic: {}", text.unwrap_or_default())))
            }
        }
    }
}
