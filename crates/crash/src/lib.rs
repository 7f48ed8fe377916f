//! kill -9 of services that use the library, again and again, and a verdict over what their database holds.
//!
//! The driver ([`run`]) starts real servers and, as processes of their own, consumers and producers that use the library as any
//! service does. It kills them at random times, and has `check_effects.py`, which shares no code with the library, judge what
//! the database holds against what the producers wrote down.

mod clock;
mod database;
mod faults;
mod history;
mod kinds;
mod network;
mod order;
mod places;
mod plan;
mod processes;
mod run;
mod servers;
mod watch;

pub use clock::now_ms;
pub use database::{Apply, Call, Store};
pub use history::{History, Line};
pub use kinds::{CLAIM_LEASE, DatabaseKind, EngineKind, GuardKind};
pub use order::{DEAD_LETTERS, GROUP, Order, PARTITIONS, TOPIC, UNDERTAKER};
pub use places::{CrashError, Places};
pub use run::{CrashReport, Options, check, run};
