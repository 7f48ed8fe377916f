//! One member of a group.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::types::{Join, MemberDescription, Protocol, Token};

/// What a member costs beyond the bytes of its strings, roughly.
const MEMBER_OVERHEAD_BYTES: usize = 256;
/// The deadline of a member of which no sign of life is expected at the moment.
pub(super) const NO_DEADLINE: i64 = i64::MAX;

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    /// The join that waits for the rebalance.
    pub join: Option<Token>,
    /// The sync that waits for the leader.
    pub sync: Option<Token>,
    /// Added by a join that was not answered yet.
    pub is_new: bool,
    /// When it counts as dead, on the timer's clock.
    pub deadline_ms: i64,
}

impl Member {
    pub fn new(id: Arc<str>, join: &Join) -> Self {
        Self {
            id,
            instance_id: join.instance_id.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            session_timeout_ms: join.session_timeout_ms,
            protocols: distinct(&join.protocols),
            assignment: Bytes::new(),
            join: None,
            sync: None,
            is_new: false,
            deadline_ms: NO_DEADLINE,
        }
    }

    pub fn is_static(&self) -> bool {
        self.instance_id.is_some()
    }

    pub fn metadata(&self, protocol_name: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|protocol| &*protocol.name == protocol_name)
            .map_or_else(Bytes::new, |protocol| protocol.metadata.clone())
    }

    /// A member that waits for a reply is alive as long as its connection is; a new one gets only so much time.
    pub fn must_show_life(&self) -> bool {
        self.is_new || (self.join.is_none() && self.sync.is_none())
    }

    pub fn vote(&self, candidates: &BTreeSet<Arc<str>>) -> Option<Arc<str>> {
        self.protocols.iter().map(|protocol| &protocol.name).find(|name| candidates.contains(*name)).cloned()
    }

    pub fn matches(&self, join: &Join) -> bool {
        self.protocols == distinct(&join.protocols)
    }

    pub fn bytes(&self) -> usize {
        let protocols: usize =
            self.protocols.iter().map(|protocol| protocol.name.len() + protocol.metadata.len()).sum();
        let names = self.id.len() + self.instance_id.as_ref().map_or(0, |id| id.len());
        MEMBER_OVERHEAD_BYTES
            + protocols
            + names
            + self.client_id.len()
            + self.client_host.len()
            + self.assignment.len()
    }

    pub fn describe(&self, protocol_name: Option<&str>) -> MemberDescription {
        MemberDescription {
            member_id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            metadata: protocol_name.map_or_else(Bytes::new, |name| self.metadata(name)),
            assignment: self.assignment.clone(),
        }
    }
}

/// The bytes that a join would add to a group.
pub(super) fn join_bytes(join: &Join) -> usize {
    Member::new(join.fresh_member_id.clone(), join).bytes()
}

/// Of several protocols with one name the first counts, as in Kafka.
pub(super) fn distinct(protocols: &[Protocol]) -> Vec<Protocol> {
    let mut names = BTreeSet::new();
    protocols.iter().filter(|protocol| names.insert(protocol.name.clone())).cloned().collect()
}
