//! Thousands of seeded runs on a simulated disk. The long form of the same: `simulate-log --seeds 0..20000`.

use baton_testkit::{Figures, SimulatedMutant, Simulation, Violation};

/// Runs of every test run.
const SEEDS: u64 = 4_000;
/// Threads that share them.
const THREADS: u64 = 2;
/// Each mutant must be found by one of this many first seeds.
const SEEDS_PER_MUTANT: u64 = 40;

fn run(seeds: impl Iterator<Item = u64>) -> Result<Figures, Box<Violation>> {
    let mut figures = Figures::default();
    for seed in seeds {
        figures.add(&Simulation::new(seed).run()?);
    }
    Ok(figures)
}

#[test]
fn no_seed_breaks_a_promise() {
    let mut figures = Figures::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || run((thread..SEEDS).step_by(THREADS as usize)))).collect();
        for thread in threads {
            figures.add(&thread.join().unwrap().unwrap_or_else(|violation| panic!("{violation}")));
        }
    });
    println!("{figures:#?}");
    // A simulation in which nothing goes wrong proves nothing.
    assert_eq!(figures.seeds, SEEDS);
    let happened = [
        figures.duplicates,
        figures.power_losses,
        figures.kills,
        figures.closes,
        figures.interrupted_starts,
        figures.cuts,
        figures.faults,
        figures.poisoned,
        figures.refused_full,
        figures.flips,
        figures.damage_reported,
        figures.unknown_kept,
        figures.unknown_lost,
        figures.indexes_rebuilt,
    ];
    assert!(happened.iter().all(|count| *count >= SEEDS / 10), "hardly anything went wrong: {figures:#?}");
}

#[test]
fn the_same_seed_replays_the_same_run() {
    let traces = || {
        // A mutant that is found ends in a violation, which carries the trace.
        let runs =
            (0..5).map(|seed| Simulation { seed, mutant: Some(SimulatedMutant::SyncTakenOut), trace: true }.run());
        runs.filter_map(Result::err).flat_map(|violation| violation.trace).collect::<Vec<String>>()
    };
    let first = traces();
    assert!(first.len() > 300, "{} lines", first.len());
    assert!(first == traces());
}

/// Runs until the mutant is found; says after how many seeds.
#[allow(clippy::print_stdout, reason = "after how many seeds is worth knowing")]
fn is_found(mutant: SimulatedMutant) {
    // The panics of a broken log are among what is looked for.
    let violation = (0..SEEDS_PER_MUTANT).find_map(|seed| {
        let simulation = Simulation { seed, mutant: Some(mutant), trace: false };
        simulation.run().err()
    });
    let violation = violation.unwrap_or_else(|| panic!("{SEEDS_PER_MUTANT} seeds do not find {mutant:?}"));
    println!("{mutant:?} is found after {} seeds: {}", violation.seed + 1, violation.what);
    let sound = Simulation::new(violation.seed).run();
    assert!(sound.is_ok(), "the seed that finds {mutant:?} breaks the sound log, too: {sound:?}");
}

#[test]
fn the_loss_is_found_when_the_sync_before_the_acknowledgement_is_taken_out() {
    is_found(SimulatedMutant::SyncTakenOut);
}

#[test]
fn the_loss_is_found_when_the_directory_sync_is_taken_out() {
    is_found(SimulatedMutant::DirectorySyncTakenOut);
}

#[test]
fn the_fault_is_found_when_the_tail_is_not_checked() {
    is_found(SimulatedMutant::TailNotChecked);
}

#[test]
fn the_loss_is_found_when_a_failed_sync_is_retried() {
    is_found(SimulatedMutant::FailedSyncRetried);
}
