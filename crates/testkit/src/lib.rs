//! Simulated disk and clock, broker fixture, independent checkers: for tests only.

mod log_simulation;
mod probed_disk;
#[cfg(feature = "proxy")]
pub mod proxy;
mod random;
#[cfg(feature = "servers")]
pub mod servers;
mod sim_clock;
mod sim_disk;

pub use log_simulation::{Figures, SimulatedMutant, Simulation, Violation};
pub use probed_disk::ProbedDisk;
pub use random::Random;
pub use sim_clock::SimClock;
pub use sim_disk::{Counts, Lies, Operation, SECTOR_BYTES, SimDisk};
