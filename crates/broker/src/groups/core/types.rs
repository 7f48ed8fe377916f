//! What goes into the coordinator's core, and what comes out of it.

use std::sync::Arc;

use baton_wire::ErrorCode;
use bytes::Bytes;

/// Who waits for a reply. The caller chooses it and never uses it twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// One write of a group's state, whose outcome is to be told with [`super::Core::stored`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u64);

/// The time of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back; deadlines are measured on it.
    pub timer_ms: i64,
    /// Milliseconds since 1970; what is stored carries it.
    pub wall_ms: i64,
}

/// Limits and delays of the coordinator.
#[derive(Debug, Clone)]
pub struct CoreOptions {
    /// `group.min.session.timeout.ms`. Default 6,000.
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`. Default 1,800,000.
    pub session_timeout_max_ms: i32,
    /// `group.initial.rebalance.delay.ms`. Default 3,000.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members of one group. Default `i32::MAX`, as in Kafka; the byte limits below hold anyway.
    pub members_max: usize,
    /// Groups, simple ones included. Default 10,000.
    pub groups_max: usize,
    /// Bytes of one group's member ids, protocols and assignments. Default 8 MiB.
    pub group_bytes_max: usize,
    /// The same over all the groups. Default 64 MiB.
    pub bytes_max: usize,
}

impl Default for CoreOptions {
    fn default() -> Self {
        Self {
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            members_max: i32::MAX as usize,
            groups_max: 10_000,
            group_bytes_max: 8 << 20,
            bytes_max: 64 << 20,
        }
    }
}

/// The states of a group, named as in Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupState {
    /// No members; committed offsets may be left.
    Empty,
    /// Members are expected to join (again).
    PreparingRebalance,
    /// The leader is expected to send the assignment.
    CompletingRebalance,
    /// Every member can have its assignment.
    Stable,
    /// There is no such group (any more). No group is kept in this state: it is what a question about an unknown one gets.
    Dead,
}

impl GroupState {
    /// All states.
    pub const ALL: [Self; 5] =
        [Self::Empty, Self::PreparingRebalance, Self::CompletingRebalance, Self::Stable, Self::Dead];

    /// The name in Kafka's replies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// One way of assigning that a member can take part in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    /// Its name, `range` or `cooperative-sticky` for instance.
    pub name: Arc<str>,
    /// What the leader needs to know of the member; a subscription for consumers.
    pub metadata: Bytes,
}

/// A request to join.
#[derive(Debug, Clone)]
pub struct Join {
    /// The group; never empty.
    pub group_id: Arc<str>,
    /// The member's id, empty when it has none yet.
    pub member_id: Arc<str>,
    /// The id to give when it needs one; never used before.
    pub fresh_member_id: Arc<str>,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
    /// For descriptions.
    pub client_id: Arc<str>,
    /// For descriptions.
    pub client_host: Arc<str>,
    /// After this long without a sign of life the member is removed.
    pub session_timeout_ms: i32,
    /// How long a rebalance waits for the member.
    pub rebalance_timeout_ms: i32,
    /// `consumer` or `connect` for instance.
    pub protocol_type: Arc<str>,
    /// In order of preference.
    pub protocols: Vec<Protocol>,
    /// Whether a dynamic member must come back with the id it was given (from version 4 on).
    pub requires_member_id: bool,
    /// Whether the leader can be told to leave the assignment as it is (from version 9 on).
    pub can_skip_assignment: bool,
}

/// The answer to a [`Join`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinReply {
    /// What went wrong.
    pub error: ErrorCode,
    /// The generation joined, or -1.
    pub generation: i32,
    /// The group's protocol type.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol chosen for this generation.
    pub protocol_name: Option<Arc<str>>,
    /// Member id of the leader, or empty.
    pub leader: Arc<str>,
    /// The leader shall not assign.
    pub skip_assignment: bool,
    /// The member's id.
    pub member_id: Arc<str>,
    /// For the leader, all the members.
    pub members: Vec<JoinedMember>,
}

impl JoinReply {
    /// A refusal.
    pub fn refused(error: ErrorCode, member_id: Arc<str>) -> Self {
        Self {
            error,
            generation: -1,
            protocol_type: None,
            protocol_name: None,
            leader: Arc::from(""),
            skip_assignment: false,
            member_id,
            members: Vec::new(),
        }
    }
}

/// A member, as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: Arc<str>,
    /// Its `group.instance.id`.
    pub instance_id: Option<Arc<str>>,
    /// What it says of itself for the chosen protocol.
    pub metadata: Bytes,
}

/// A request for (and, from the leader, with) the assignment.
#[derive(Debug, Clone)]
pub struct Sync {
    /// The group; never empty.
    pub group_id: Arc<str>,
    /// The member's id.
    pub member_id: Arc<str>,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The generation joined.
    pub generation: i32,
    /// What the member thinks the group's protocol type is; checked if given.
    pub protocol_type: Option<Arc<str>>,
    /// What the member thinks the chosen protocol is; checked if given.
    pub protocol_name: Option<Arc<str>>,
    /// From the leader: member id and assignment of each.
    pub assignments: Vec<(Arc<str>, Bytes)>,
}

/// The answer to a [`Sync`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncReply {
    /// What went wrong.
    pub error: ErrorCode,
    /// The group's protocol type.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol chosen for this generation.
    pub protocol_name: Option<Arc<str>>,
    /// The member's assignment, as the leader sent it.
    pub assignment: Bytes,
}

impl SyncReply {
    /// A refusal.
    pub fn refused(error: ErrorCode) -> Self {
        Self { error, protocol_type: None, protocol_name: None, assignment: Bytes::new() }
    }
}

/// What a member shows of itself with heartbeats, commits and when leaving.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The group; never empty, except for commits.
    pub group_id: &'a str,
    /// The member's id, or empty.
    pub member_id: &'a str,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<&'a str>,
    /// The generation that the member is in, or -1.
    pub generation: i32,
}

/// What the caller has to do. Effects are to be carried out in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Answer a join.
    Joined(Token, JoinReply),
    /// Answer a sync.
    Synced(Token, SyncReply),
    /// Make the group's state durable and tell [`super::Core::stored`] how that went.
    Store {
        /// Names this write.
        id: StoreId,
        /// The group.
        group_id: Arc<str>,
        /// Its encoded state.
        value: Bytes,
    },
}

/// A group in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// The group.
    pub group_id: Arc<str>,
    /// Empty for a group that only holds offsets.
    pub protocol_type: Arc<str>,
    /// Its state.
    pub state: GroupState,
}

/// A group in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its state.
    pub state: GroupState,
    /// Empty for a group that only holds offsets.
    pub protocol_type: Arc<str>,
    /// The chosen protocol of a stable group, else empty.
    pub protocol_name: Arc<str>,
    /// The generation.
    pub generation: i32,
    /// Its members.
    pub members: Vec<MemberDescription>,
}

/// A member in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    /// Its id.
    pub member_id: Arc<str>,
    /// Its `group.instance.id`.
    pub instance_id: Option<Arc<str>>,
    /// As the client calls itself.
    pub client_id: Arc<str>,
    /// Where it connects from.
    pub client_host: Arc<str>,
    /// What it said of itself for the chosen protocol; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its assignment.
    pub assignment: Bytes,
}

/// Numbers for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CoreCounts {
    /// Groups by [`GroupState`], in the order of [`GroupState::ALL`].
    pub groups: [usize; 5],
    /// Members over all groups.
    pub members: usize,
    /// Members that were given an id and have not come back with it yet.
    pub pending_members: usize,
    /// Rebalances completed since the start.
    pub rebalances: u64,
    /// Members removed because they fell silent, since the start.
    pub expired_members: u64,
    /// Bytes of ids, protocols and assignments.
    pub bytes: usize,
}
