//! kill -9 of services that use the library, again and again, and a verdict over what their database holds.
//!
//! The driver ([`run`]) starts real servers and, as processes of their own, consumers and producers that use the library as any
//! service does. It kills them at random times, and has `check_effects.py`, which shares no code with the library, judge what
//! the database holds against what the producers wrote down.
//!
//! A second driver ([`run_relays`]) does the same to an outbox: services that write into it, relays, database and engine.
//! `check_relay.py` judges what the topic holds against what the services' transactions committed.

mod child;
mod clock;
mod database;
mod faults;
mod held;
mod history;
mod kinds;
mod network;
mod order;
mod places;
mod plan;
mod processes;
mod relay;
mod report;
mod run;
mod servers;
mod watch;

pub use child::{exit_code, failed, ready, run_child, told_to_end};
pub use clock::now_ms;
pub use database::{Apply, Call, Store};
pub use held::{HeldArguments, become_program};
pub use history::{History, Line};
pub use kinds::{CLAIM_LEASE, DatabaseKind, EngineKind, GuardKind};
pub use order::{DEAD_LETTERS, GROUP, Order, PARTITIONS, TOPIC, UNDERTAKER};
pub use places::{CrashError, Places};
pub use relay::{Book, BookError, Change, RelayOptions, account, accounts, check_relays, prepare_relays, run_relays};
pub use report::{CrashReport, told};
pub use run::{Options, check, run};
