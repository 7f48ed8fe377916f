//! Runs the simulation of the commit log over many seeds.
//!
//! `simulate-log --seeds 0..20000 [--mutant NAME] [--trace]`; some mutants need a build with `--features mutants`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::Instant;

use baton_testkit::{Figures, SimulatedMutant, Simulation};

/// Violations after which a run ends: they are likely the same one.
const VIOLATIONS_MAX: u64 = 20;

struct Arguments {
    seeds: std::ops::Range<u64>,
    mutant: Option<SimulatedMutant>,
    trace: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments { seeds: 0..2000, mutant: None, trace: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--seeds" => {
                let text = value()?;
                let (from, to) = text.split_once("..").ok_or("--seeds needs FROM..TO")?;
                let number = |text: &str| text.parse().map_err(|_| format!("{text} is not a number"));
                parsed.seeds = number(from)?..number(to)?;
            }
            "--mutant" => {
                let name = value()?;
                let names = SimulatedMutant::ALL.map(|(name, _)| name).join(", ");
                let mutant = SimulatedMutant::named(&name).ok_or(format!("there is no mutant {name}, only {names}"))?;
                if mutant.is_of_the_log() && !cfg!(feature = "mutants") {
                    return Err(format!("{name} needs a build with --features mutants"));
                }
                parsed.mutant = Some(mutant);
            }
            "--trace" => parsed.trace = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(parsed)
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\nusage: simulate-log [--seeds FROM..TO] [--mutant NAME] [--trace]");
            return ExitCode::from(2);
        }
    };
    let started = Instant::now();
    let mut figures = Figures::default();
    let mut violations = 0;
    for seed in arguments.seeds {
        match (Simulation { seed, mutant: arguments.mutant, trace: arguments.trace }).run() {
            Ok(run) => figures.add(&run),
            Err(violation) => {
                violation.trace.iter().for_each(|line| println!("{line}"));
                println!("VIOLATION {violation}");
                violations += 1;
                if violations == VIOLATIONS_MAX {
                    break;
                }
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{figures:#?}\n{violations} violations, {:.0} seeds/s", figures.seeds as f64 / seconds);
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
