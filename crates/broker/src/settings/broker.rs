//! The broker's settings.

use super::value::{FromChecked, TYPE_INT, TYPE_LIST, TYPE_LONG, TYPE_STRING};
use super::{Definition, Kind, Update};

/// From one list: the table of definitions, and the structure of their values.
macro_rules! broker_settings {
    ($($(#[doc = $document:literal])+ $field:ident: $type:ty = $name:literal, $default:literal, $unit:literal, $update:ident, $kind:expr;)*) => {
        /// All settings of the broker, in the order in which they are documented.
        pub const BROKER_SETTINGS: &[Definition] = &[$(
            Definition {
                name: $name,
                kind: $kind,
                default: $default,
                unit: $unit,
                update: Update::$update,
                synonym: None,
                document: concat!($($document),+),
            },
        )*];

        /// The values of all settings of the broker.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct BrokerValues {
            $($(#[doc = $document])+ pub $field: $type,)*
        }

        impl BrokerValues {
            /// Gathers the values; `value_of` gives those that were checked.
            pub(super) fn new<'a>(value_of: impl Fn(&'static Definition) -> &'a str) -> Self {
                let mut definitions = BROKER_SETTINGS.iter();
                // One definition for each field, in the same order: both come from the same list.
                let mut next = || definitions.next().map_or("", &value_of);
                Self { $($field: <$type>::from_checked(next()),)* }
            }
        }
    };
}

const fn int(min: i32) -> Kind {
    Kind::Int { min, max: i32::MAX }
}

const fn long(min: i64) -> Kind {
    Kind::Long { min, max: i64::MAX }
}

const fn only(value: &'static str, type_number: i8, reason: &'static str) -> Kind {
    Kind::Only { value, type_number, reason }
}

pub(super) const TIMESTAMP_TYPES: Kind = Kind::Choice(&["CreateTime", "LogAppendTime"]);
pub(super) const MESSAGE_BYTES: Kind = int(0);
pub(super) const TIMESTAMP_DISTANCE: Kind = long(0);
pub(super) const RETENTION: Kind =
    only("-1", TYPE_LONG, "records are kept until somebody deletes them; retention comes in a later version");
pub(super) const CLEANUP: Kind = only("delete", TYPE_LIST, "compaction comes in a later version");
pub(super) const COMPRESSION: Kind =
    only("producer", TYPE_STRING, "batches are kept as their producers compressed them");
pub(super) const IN_SYNC_REPLICAS: Kind = only("1", TYPE_INT, "there is one copy, on the disk of this machine");

broker_settings! {
    /// Whether a topic is created when a client asks for its metadata and wants it created.
    auto_create_topics: bool = "auto.create.topics.enable", "true", "", Restart, Kind::Boolean;
    /// Partitions of a topic that is created without a number of its own.
    partitions_default: u32 = "num.partitions", "1", "partitions", Restart, Kind::Int { min: 1, max: 10_000 };
    /// Copies of a partition. There is one; replication is what Kafka, RocketMQ and RabbitMQ are for.
    replication_factor: i32 = "default.replication.factor", "1", "copies", Restart, IN_SYNC_REPLICAS;
    /// Copies that must be on a disk before an acknowledgement.
    in_sync_replicas_min: i32 = "min.insync.replicas", "1", "copies", Restart, IN_SYNC_REPLICAS;
    /// Whether topics can be deleted.
    delete_topics: bool = "delete.topic.enable", "true", "", Restart, Kind::Boolean;

    /// The largest batch of records, as it is sent: compressed, if it is.
    message_bytes_max: usize = "message.max.bytes", "1048588", "bytes", Running, MESSAGE_BYTES;
    /// Whether records keep their producer's time, or get the time at which they were appended.
    timestamp_type: String = "log.message.timestamp.type", "CreateTime", "", Running, TIMESTAMP_TYPES;
    /// How much older than now a producer's timestamp may be.
    timestamp_before_max_ms: i64 = "log.message.timestamp.before.max.ms", "9223372036854775807", "ms", Running, TIMESTAMP_DISTANCE;
    /// How much later than now a producer's timestamp may be.
    timestamp_after_max_ms: i64 = "log.message.timestamp.after.max.ms", "3600000", "ms", Running, TIMESTAMP_DISTANCE;
    /// How batches are compressed.
    compression: String = "compression.type", "producer", "", Restart, COMPRESSION;
    /// What happens to old records.
    cleanup: String = "log.cleanup.policy", "delete", "", Restart, CLEANUP;
    /// How long records are kept. -1 is for ever (Kafka's default is 7 days).
    retention_ms: i64 = "log.retention.ms", "-1", "ms", Restart, RETENTION;
    /// How many bytes of records are kept. -1 is all.
    retention_bytes: i64 = "log.retention.bytes", "-1", "bytes", Restart, RETENTION;

    /// Connections at once; further ones are closed as soon as they are accepted, and counted. Kafka has no limit by default.
    connections_max: usize = "max.connections", "10000", "connections", Running, int(1);
    /// A connection without a request, and without anything to wait for, is closed after this.
    idle_max_ms: u64 = "connections.max.idle.ms", "600000", "ms", Restart, long(1);
    /// A connection is closed when a request takes longer than this to arrive once it has begun, or when its peer takes nothing
    /// of a response for so long.
    slow_max_ms: u64 = "connections.max.slow.ms", "60000", "ms", Restart, long(1);
    /// The largest request; a larger one closes the connection before anything is allocated for it.
    request_bytes_max: usize = "socket.request.max.bytes", "104857600", "bytes", Restart, int(1);
    /// Bytes of requests that have arrived and are not answered, over all connections; beyond, the broker stops reading from
    /// connections that hold some of them. Kafka has no limit by default.
    queued_request_bytes_max: usize = "queued.max.request.bytes", "67108864", "bytes", Restart, long(1);
    /// Bytes of responses that peers have not read, over all connections; beyond, no request is worked on, and peers that have
    /// read nothing for a second are cut off.
    queued_response_bytes_max: usize = "queued.max.response.bytes", "134217728", "bytes", Restart, long(1);
    /// Requests of one connection that are worked on or wait for the disk at once; further ones are left with the operating
    /// system, which slows their sender down.
    connection_requests_max: usize = "connection.max.requests", "10000", "requests", Restart, int(1);
    /// Bytes of responses that one connection's peer has not read; beyond, none of its requests is worked on.
    connection_unread_bytes_max: usize = "connection.max.unread.bytes", "67108864", "bytes", Restart, int(1);
    /// The largest fetch response, unless a single batch is larger.
    fetch_bytes_max: usize = "fetch.max.bytes", "57671680", "bytes", Restart, int(1024);
    /// Bytes of fetched records on their way to clients, over all connections; beyond, fetches get less or wait.
    fetched_bytes_max: usize = "fetch.max.queued.bytes", "100663296", "bytes", Restart, long(1 << 20);
    /// Reads that wait for the disk at once.
    disk_reads_max: usize = "disk.reads.max", "8", "reads", Restart, Kind::Int { min: 1, max: 512 };

    /// Topics at once; a further one is refused with POLICY_VIOLATION.
    topics_max: usize = "topics.max", "10000", "topics", Running, int(0);
    /// Partitions of all topics at once; further ones are refused with POLICY_VIOLATION.
    partitions_max: usize = "partitions.max", "50000", "partitions", Running, int(0);

    /// The shortest session timeout that a member of a group may ask for.
    session_timeout_min_ms: i32 = "group.min.session.timeout.ms", "6000", "ms", Restart, int(0);
    /// The longest session timeout that a member of a group may ask for.
    session_timeout_max_ms: i32 = "group.max.session.timeout.ms", "1800000", "ms", Restart, int(0);
    /// How long an empty group waits for more members before its first rebalance.
    rebalance_delay_ms: i32 = "group.initial.rebalance.delay.ms", "3000", "ms", Restart, int(0);
    /// Members of one group; further ones are refused with GROUP_MAX_SIZE_REACHED.
    group_members_max: usize = "group.max.size", "2147483647", "members", Restart, int(1);
    /// Bytes of one group's member ids, protocols and assignments.
    group_bytes_max: usize = "group.max.bytes", "8388608", "bytes", Restart, int(1);
    /// Groups at once; members of a further one are refused.
    groups_max: usize = "groups.max", "10000", "groups", Restart, int(0);
    /// Bytes of all groups' member ids, protocols and assignments.
    groups_bytes_max: usize = "groups.bytes.max", "67108864", "bytes", Restart, long(1);
    /// Committed offsets kept over all groups.
    offsets_max: usize = "offsets.max", "1000000", "offsets", Restart, int(0);
    /// Bytes that they take up in memory, with what clients keep with them; what would be more is refused with POLICY_VIOLATION.
    offsets_bytes_max: usize = "offsets.bytes.max", "134217728", "bytes", Restart, long(1);
    /// Characters that a client may keep with a committed offset.
    offset_metadata_max: usize = "offset.metadata.max.bytes", "4096", "bytes", Restart, int(0);
    /// How long a commit of offsets waits for room in the log.
    offset_commit_timeout_ms: u64 = "offsets.commit.timeout.ms", "5000", "ms", Restart, int(1);
    /// How long offsets are kept after their group became empty.
    offsets_retention_minutes: i64 = "offsets.retention.minutes", "10080", "minutes", Restart, int(1);
    /// How often offsets are looked at for having expired.
    offsets_check_interval_ms: u64 = "offsets.retention.check.interval.ms", "600000", "ms", Restart, long(1);

    /// Idempotent producers remembered over all partitions; beyond, batches of new ones are refused until some expire.
    producers_max: usize = "producers.max", "200000", "producers", Restart, int(0);
    /// A producer that has not written to a partition for so long is forgotten there.
    producer_expiration_ms: i64 = "producer.id.expiration.ms", "86400000", "ms", Restart, int(1);

    /// A segment of the log is closed at the first commit that ends beyond this; one log holds all partitions. It is also what
    /// a start after a crash may have to read again.
    segment_bytes: u64 = "commit.segment.bytes", "134217728", "bytes", Restart, Kind::Long { min: 1 << 20, max: 2 << 30 };
    /// Bytes that may wait for the next commit; beyond, producers wait.
    pending_bytes_max: usize = "commit.max.pending.bytes", "33554432", "bytes", Restart, Kind::Int { min: 1 << 20, max: 1 << 30 };
    /// Disk space is reserved in steps of this, so that a full disk is noticed before anything is accepted.
    reserve_step_bytes: u64 = "commit.reserve.step.bytes", "16777216", "bytes", Restart, Kind::Long { min: 1 << 20, max: 1 << 30 };
    /// Free disk space that is left for index files and checkpoints; records are refused before it is touched.
    disk_free_bytes_min: u64 = "disk.min.free.bytes", "67108864", "bytes", Restart, long(0);
    /// Index entries of closed segments kept in memory.
    index_cache_bytes: usize = "index.cache.max.bytes", "16777216", "bytes", Restart, int(0);
    /// How long a shutdown waits for requests that are being answered.
    shutdown_max_ms: u64 = "shutdown.max.ms", "10000", "ms", Restart, int(0);
}
