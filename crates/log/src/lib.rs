//! The durable commit log: one sequential log under all partitions, no async runtime, no sockets.
//!
//! All partitions share one sequence of segment files. What arrives while the disk is busy forms one *commit group*: it is
//! written with one write and made durable with one sync, however many partitions it touches. An append is acknowledged,
//! and becomes visible to readers, only when its group is durable: both wait for the same event ([`Log::durable`]).
//!
//! The first failed write or sync poisons the log: every later append is refused until the log is opened again, while
//! readers of durable data go on. See `docs/FORMAT.md` for every byte on disk and `ARCHITECTURE.md` for the way of a record.

mod append;
mod catalog;
mod checkpoint;
mod clock;
mod codec;
mod commit;
mod control;
mod disk;
mod durability;
mod error;
mod frame;
mod index;
mod index_file;
mod log;
mod maintain;
#[cfg(feature = "mutants")]
pub mod mutants;
mod options;
mod producers;
mod read;
mod rebuild;
mod recovery;
mod segment;
mod times;

pub use append::{AppendOutcome, AppendReceipt};
pub use catalog::{Catalog, Topic};
pub use clock::{Clock, SystemClock};
pub use disk::{Disk, DiskFile, FileDisk};
pub use durability::{Durable, Ticket};
pub use error::{AppendError, OpenError, Poisoned, ReadError};
pub use log::{Bounds, Log, LogObserver, LogStats, NoObserver, Room};
pub use options::LogOptions;
pub use producers::ProducerFault;
pub use read::{ReadBatches, ReadMode};
pub use recovery::{Cut, Damage, RecoveryReport};

/// Names a partition within a log; numbers are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u32);

/// Names a table of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u8);
