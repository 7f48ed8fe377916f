//! What a consumer is told before it begins. Every limit has a default and a reason.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use crate::{Headers, Retry};

/// How a consumer decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which messages wait for which.
    pub order: Order,
    /// How the engine is told what is done.
    pub settling: Settling,
    /// How many handlers run at once.
    pub concurrency: Concurrency,
    /// What may be held in memory.
    pub limits: Limits,
    /// How long a failed message waits before it is tried again, and how often. Default 8 attempts, 100 ms doubling up to 30 s: a
    /// hiccup of seconds is ridden out. What could not be stored (dead letters, parked messages, settlements) waits as long as
    /// this, too, but is never given up.
    pub retry: Retry,
    /// What happens to a message that was tried often enough.
    pub exhausted: Remedy,
    /// What happens to a message that its handler calls hopeless.
    pub permanent: Remedy,
    /// When failures are a dependency's, and how it is probed.
    pub dependency: DependencySettings,
    /// Keys set aside.
    pub parking: ParkingSettings,
    /// All of these must let a message through, or it is skipped: done without being handled, and counted.
    pub filters: Vec<Filter>,
    /// After how long a handler is cancelled. Default 60 s: below the five minutes after which engines expel a consumer that hangs.
    pub handler_deadline_ms: u64,
    /// How often frontiers are settled. Default 200 ms: what a crash repeats, against a commit that costs the engine a write.
    /// Deliveries that are settled each for itself do not wait for this.
    pub settle_interval_ms: u64,
    /// Most bytes of text that the engine keeps with a position. Default 4,096, as on Kafka.
    pub metadata_bytes_max: usize,
    /// Whether there is a store beside the engine for what does not fit in the metadata ([`super::Action::StoreDone`]).
    pub side_store: bool,
    /// Most bytes that are handed to this store at once. Default 512 KiB: half of what Kafka accepts as one message.
    pub side_store_bytes_max: usize,
    /// How long handlers may go on once a partition is to be given up. Default 10 s: well below the rebalance timeout of engines.
    pub revoke_drain_ms: u64,
    /// How long the last settlement of a partition may take before it is given up without. Default 5 s.
    pub final_settle_ms: u64,
    /// A partition that has work and makes no progress for so long is reported. Default 30 s.
    pub stuck_after_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            order: Order::PerKey,
            settling: Settling::Frontier,
            concurrency: Concurrency::Fixed(64),
            limits: Limits::default(),
            retry: Retry::exponential(Duration::from_millis(100), 2, Duration::from_secs(30)).max_attempts(8),
            exhausted: Remedy::DeadLetter,
            permanent: Remedy::DeadLetter,
            dependency: DependencySettings::default(),
            parking: ParkingSettings::default(),
            filters: Vec::new(),
            handler_deadline_ms: 60_000,
            settle_interval_ms: 200,
            metadata_bytes_max: 4_096,
            side_store: false,
            side_store_bytes_max: 512 << 10,
            revoke_drain_ms: 10_000,
            final_settle_ms: 5_000,
            stuck_after_ms: 30_000,
        }
    }
}

/// Settings that contradict themselves; says which, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadSettings {
    /// A limit of nothing.
    #[error("{0} must be at least 1: nothing could be handled")]
    Zero(&'static str),
    /// Parking without keys.
    #[error("parking sets keys aside, so it needs Order::PerKey; with another order, use Remedy::DeadLetter")]
    ParkingNeedsKeys,
    /// Bounds the wrong way round.
    #[error("handlers_min {0} is above handlers_max {1}")]
    HandlersBounds(u32, u32),
}

impl Settings {
    /// Whether they make sense.
    pub fn check(&self) -> Result<(), BadSettings> {
        let (handlers, bounds) = match &self.concurrency {
            Concurrency::Fixed(handlers) => (*handlers, None),
            Concurrency::Adaptive(adaptive) => (adaptive.handlers_min, Some(adaptive)),
        };
        let batch = match self.order {
            Order::Batches(batches) => batches.messages_max,
            _ => 1,
        };
        let at_least_one = [
            ("concurrency", handlers as usize),
            ("limits.messages_max", self.limits.messages_max),
            ("limits.bytes_max", self.limits.bytes_max),
            ("limits.partition_messages_max", self.limits.partition_messages_max),
            ("limits.partition_bytes_max", self.limits.partition_bytes_max),
            ("parking.keys_max", self.parking.keys_max),
            ("parking.messages_max", self.parking.messages_max),
            ("parking.batch_max", self.parking.batch_max),
            ("parking.lane_messages_max", self.parking.lane_messages_max),
            ("parking.release_per_second", self.parking.release_per_second as usize),
            ("dependency.alike_keys_min", self.dependency.alike_keys_min),
            ("batches.messages_max", batch),
        ];
        if let Some((name, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(BadSettings::Zero(name));
        }
        if let Some(adaptive) = bounds.filter(|adaptive| adaptive.handlers_min > adaptive.handlers_max) {
            return Err(BadSettings::HandlersBounds(adaptive.handlers_min, adaptive.handlers_max));
        }
        if self.parks() && self.order != Order::PerKey {
            return Err(BadSettings::ParkingNeedsKeys);
        }
        Ok(())
    }

    /// Whether keys may be parked by a failure.
    pub fn parks(&self) -> bool {
        self.exhausted == Remedy::Park || self.permanent == Remedy::Park
    }
}

/// Which messages wait for which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Messages of one key, one after the other; messages without a key wait for none.
    #[default]
    PerKey,
    /// All of a partition, one after the other.
    PerPartition,
    /// None waits.
    None,
    /// Several at once to one handler; a partition's batches one after the other.
    Batches(Batches),
}

/// How messages are gathered for one handler. A batch begins when one of the three is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batches {
    /// So many messages.
    pub messages_max: usize,
    /// So many bytes; a message that is larger goes alone.
    pub bytes_max: usize,
    /// The first one waited for so long.
    pub wait_ms: u64,
    /// Whether messages of several partitions may go together.
    pub across_partitions: bool,
}

impl Default for Batches {
    /// 500 messages (what makes a database transaction worth its commit), 4 MiB, 20 ms, of one partition.
    fn default() -> Self {
        Self { messages_max: 500, bytes_max: 4 << 20, wait_ms: 20, across_partitions: false }
    }
}

/// How an engine is told what is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settling {
    /// By a frontier: everything before an offset is done.
    Frontier,
    /// Each delivery for itself.
    Each,
}

/// How many handlers run at once.
#[derive(Debug, Clone, PartialEq)]
pub enum Concurrency {
    /// So many.
    Fixed(u32),
    /// As many as what they call carries.
    Adaptive(AdaptiveSettings),
}

/// Bounds of a concurrency that adapts.
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptiveSettings {
    /// Never fewer. Default 4: enough to notice that latency is good.
    pub handlers_min: u32,
    /// Never more. Default 512: more open calls than this, connection pools do not carry.
    pub handlers_max: u32,
    /// Above this multiple of the best latency the limit shrinks. Default 2.
    pub latency_ratio_max: f64,
}

impl Default for AdaptiveSettings {
    fn default() -> Self {
        Self { handlers_min: 4, handlers_max: 512, latency_ratio_max: 2.0 }
    }
}

/// What may be held in memory. A partition at its bound is paused, and resumed when it holds half of it; what the engine had
/// fetched already still comes, so that the engine's own prefetch is on top of this.
///
/// Each partition's bound is the smaller one of its own and its share of the whole: so a partition that is blocked never takes
/// the room of the others, and the whole is bounded however many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages of all partitions. Default 100,000.
    pub messages_max: usize,
    /// Bytes of all partitions. Default 256 MiB.
    pub bytes_max: usize,
    /// Messages of one partition. Default 10,000: enough to find other keys behind one that is hot.
    pub partition_messages_max: usize,
    /// Bytes of one partition. Default 64 MiB.
    pub partition_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            messages_max: 100_000,
            bytes_max: 256 << 20,
            partition_messages_max: 10_000,
            partition_bytes_max: 64 << 20,
        }
    }
}

/// What happens to a message that cannot be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It goes to the dead letters; the next messages of its key are handled.
    DeadLetter,
    /// It is parked with all that follow of its key. A message without a key has no followers, and goes to the dead letters.
    Park,
}

/// When failures are a dependency's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DependencySettings {
    /// Keys that fail alike, more than succeed, until their dependency counts as down. Default 20.
    pub alike_keys_min: usize,
    /// Within so long. Default 10 s.
    pub alike_window_ms: u64,
    /// How long to wait between probes; they have no end. Default 500 ms, doubling up to 10 s.
    pub probe: Retry,
}

impl Default for DependencySettings {
    fn default() -> Self {
        Self {
            alike_keys_min: 20,
            alike_window_ms: 10_000,
            probe: Retry::exponential(Duration::from_millis(500), 2, Duration::from_secs(10)),
        }
    }
}

/// Bounds of parking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParkingSettings {
    /// Keys of one partition that may be parked. Default 10,000. When there are more, the next key waits with its messages, and
    /// the partition pauses at its bound: neither order nor a message is given up for room.
    pub keys_max: usize,
    /// Messages of one partition that may be parked. Default 100,000: some megabytes of what a store must know about them, and far
    /// more than people look through. When there are as many, whatever is to be parked waits with its key, the partition pauses at
    /// its bound, and [`super::Report::ParkingFull`] says so: neither order nor a message is given up for room.
    pub messages_max: usize,
    /// Messages of a key that wait behind one that fails, until the key is parked without waiting for its last attempt. Default 1,000.
    pub lane_messages_max: usize,
    /// Messages that are handed over to be parked at once. Default 500.
    pub batch_max: usize,
    /// Messages a second that are handled of the keys of one partition that are released. Default 100.
    pub release_per_second: u32,
}

impl Default for ParkingSettings {
    fn default() -> Self {
        Self {
            keys_max: 10_000,
            messages_max: 100_000,
            lane_messages_max: 1_000,
            batch_max: 500,
            release_per_second: 100,
        }
    }
}

/// Lets messages through by a header, before anything of them is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Name of the header; its last value counts.
    pub header: Arc<str>,
    /// What it must be.
    pub accept: Accept,
}

/// What a header must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accept {
    /// It has one of these values.
    OneOf(Vec<Bytes>),
    /// It has none of these values, or is absent.
    NoneOf(Vec<Bytes>),
    /// It is there, with a value.
    Present,
    /// It is not there.
    Absent,
}

impl Filter {
    /// Whether a message with these headers gets through.
    pub fn passes(&self, headers: &Headers) -> bool {
        let value = headers.last(&self.header);
        match &self.accept {
            Accept::OneOf(values) => value.is_some_and(|value| values.contains(value)),
            Accept::NoneOf(values) => value.is_none_or(|value| !values.contains(value)),
            Accept::Present => value.is_some(),
            Accept::Absent => value.is_none(),
        }
    }
}

/// How long to wait after so many failures in a row of something that is never given up. Half of it is left to chance: what
/// failed together does not come back together, and still nothing is asked in a tight loop.
pub(super) fn pause_ms(retry: &Retry, failures: u32, random: u64) -> u64 {
    let bound_ms = milliseconds(retry.bound(failures));
    bound_ms - random % (bound_ms / 2 + 1)
}

/// Whole milliseconds, rounded up: who waits for the last part of one would wake too early.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
