//! How much one request may list. An answer is larger than its question, so that a question must not be too long; what
//! real clients send is far below.

/// Protocols in a JoinGroup; the consumers of Apache Kafka send two.
pub(crate) const PROTOCOLS_MAX: usize = 100;
/// Assignments in a SyncGroup, and members in a LeaveGroup.
pub(crate) const MEMBERS_MAX: usize = 100_000;
/// Partitions in an OffsetCommit, OffsetFetch or OffsetDelete, over all its topics and groups.
pub(crate) const PARTITIONS_MAX: usize = 100_000;
/// Groups in a DescribeGroups, DeleteGroups or OffsetFetch.
pub(crate) const GROUPS_MAX: usize = 10_000;
/// Bytes of a name that others may get to see in a version whose strings are no longer.
pub(crate) const NAME_BYTES_MAX: usize = i16::MAX as usize;
