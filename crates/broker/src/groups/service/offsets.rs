//! Committing, fetching and deleting offsets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use baton_log::{AppendError, Catalog, Ticket};
use baton_wire::ErrorCode;
use bytes::Bytes;

use super::{GROUPS_TABLE, GroupService, Inner, OFFSETS_TABLE, State, store_error};
use crate::groups::core::Identity;
use crate::groups::format::{OffsetKey, StoredOffset};

/// An offset to be committed. Topic and partition are known to exist.
#[derive(Debug, Clone, Copy)]
pub struct CommitOffset<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The topic's id.
    pub topic_id: [u8; 16],
    /// The partition's index.
    pub partition: i32,
    /// The offset of the record to be read next.
    pub offset: i64,
    /// The leader epoch of the last record read, or -1.
    pub leader_epoch: i32,
    /// What the client wants to keep with it.
    pub metadata: Option<&'a str>,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The partition's index.
    pub partition: i32,
    /// The offset of the record to be read next.
    pub offset: i64,
    /// The leader epoch of the last record read, or -1.
    pub leader_epoch: i32,
    /// What the client kept with it.
    pub metadata: Arc<str>,
}

/// The committed offsets of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOffsets {
    /// The topic's name.
    pub topic: String,
    /// The topic's id.
    pub topic_id: [u8; 16],
    /// Its partitions that have one.
    pub offsets: Vec<FetchedOffset>,
}

/// Bytes of what a client keeps with an offset, whatever the setting says: a string of the protocol is no longer.
const METADATA_BYTES_MAX: usize = i16::MAX as usize;
/// What an offset costs in memory beyond its key and value, roughly.
const OFFSET_OVERHEAD_BYTES: usize = 128;

/// What an offset costs in memory.
pub(super) fn offset_bytes(key: &[u8], value: &[u8]) -> usize {
    OFFSET_OVERHEAD_BYTES + key.len() + value.len()
}

/// How many offsets there are, and what they cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OffsetTotals {
    pub count: usize,
    pub bytes: usize,
}

impl OffsetTotals {
    pub fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
    }

    /// An offset changes from one size to another; `None` is none.
    fn change(&mut self, before: Option<usize>, after: Option<usize>) {
        self.count = (self.count + usize::from(after.is_some())).saturating_sub(usize::from(before.is_some()));
        self.bytes = (self.bytes + after.unwrap_or(0)).saturating_sub(before.unwrap_or(0));
    }
}

/// The last write of a key that the table does not show yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct InFlight {
    ticket: Ticket,
    /// What it will cost, `None` if it is removed.
    bytes: Option<usize>,
}

/// A table write that was handed to the log, or the wish to wait for room.
pub(super) enum Handed {
    Written(Option<Ticket>),
    NoRoom,
}

impl Handed {
    pub fn is_written(&self) -> bool {
        matches!(self, Self::Written(_))
    }
}

type Change = (Bytes, Option<Bytes>);

impl GroupService {
    /// Commits offsets, durably. One answer for each.
    ///
    /// `retention_ms` is how long to keep them when the client says so (versions up to 4).
    ///
    /// # Errors
    /// What is wrong with the request as a whole.
    pub async fn commit(
        &self,
        identity: &Identity<'_>,
        api_version: i16,
        retention_ms: Option<i64>,
        offsets: &[CommitOffset<'_>],
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        let (ticket, answers) = self
            .with_room(|inner, state| {
                let now = inner.now();
                let is_new_group = !state.core.has_group(identity.group_id);
                state.core.check_commit(now, identity, api_version)?;
                let mut answers = Vec::with_capacity(offsets.len());
                let mut changes: Vec<Change> = Vec::with_capacity(offsets.len());
                let mut totals = state.offsets;
                for commit in offsets {
                    let key =
                        OffsetKey { group_id: identity.group_id, topic: commit.topic, partition: commit.partition };
                    let expires = retention_ms.map(|retention_ms| now.wall_ms.saturating_add(retention_ms));
                    match inner.change_for(state, &mut totals, key.encode(), commit, now.wall_ms, expires) {
                        Ok(change) => changes.push(change),
                        Err(error) => {
                            answers.push(error);
                            continue;
                        }
                    }
                    answers.push(ErrorCode::None);
                }
                let committed = changes.len();
                if committed == 0 && is_new_group {
                    // A refused commit leaves no group behind.
                    state.core.remove_group(identity.group_id);
                }
                let handed = inner.write_offsets(state, changes)?;
                if let Handed::Written(_) = handed {
                    inner.counters.commits.fetch_add(committed as u64, Ordering::Relaxed);
                }
                Ok((handed, answers))
            })
            .await?;
        self.durable(ticket).await?;
        Ok(answers)
    }

    /// The committed offsets of a group for these partitions of a topic; none for those without.
    pub fn fetch(
        &self,
        group_id: &str,
        topic: &str,
        partitions: impl Iterator<Item = i32>,
    ) -> Vec<Option<FetchedOffset>> {
        let catalog = self.inner.log.catalog();
        let topic_id = catalog.topic(topic).map(|topic| topic.id);
        let get = |partition| {
            let key = OffsetKey { group_id, topic, partition }.encode();
            let stored = StoredOffset::decode(&self.inner.log.table_get(OFFSETS_TABLE, &key)?).ok()?;
            // An offset of a topic that was deleted says nothing about another one of the same name.
            (Some(stored.topic_id) == topic_id).then(|| fetched(partition, stored))
        };
        partitions.map(get).collect()
    }

    /// All the committed offsets of a group, by topic.
    pub fn fetch_all(&self, group_id: &str) -> Vec<TopicOffsets> {
        let catalog = self.inner.log.catalog();
        let mut topics: Vec<TopicOffsets> = Vec::new();
        for (key, value) in self.inner.log.table_scan(OFFSETS_TABLE, &OffsetKey::prefix(group_id)) {
            let (Ok(key), Ok(stored)) = (OffsetKey::decode(&key), StoredOffset::decode(&value)) else { continue };
            if !is_of_this_topic(&catalog, key.topic, &stored) {
                continue;
            }
            if topics.last().is_none_or(|last| last.topic != key.topic) {
                let topic = key.topic.to_owned();
                topics.push(TopicOffsets { topic, topic_id: stored.topic_id, offsets: Vec::new() });
            }
            if let Some(last) = topics.last_mut() {
                last.offsets.push(fetched(key.partition, stored));
            }
        }
        topics
    }

    /// Deletes the group's offsets of these partitions, durably; one answer for each.
    ///
    /// # Errors
    /// What is wrong with the request as a whole.
    pub async fn delete_offsets(
        &self,
        group_id: &str,
        partitions: &[(&str, i32)],
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        if group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let (ticket, answers) = self
            .with_room(|inner, state| {
                state.core.check_offset_delete(group_id)?;
                let mut changes: Vec<Change> = Vec::new();
                let mut answers = Vec::with_capacity(partitions.len());
                for (topic, partition) in partitions {
                    let is_subscribed = state.core.is_subscribed_to(group_id, topic);
                    answers.push(if is_subscribed { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None });
                    let key = OffsetKey { group_id, topic, partition: *partition }.encode();
                    if !is_subscribed && inner.size_of(state, &key).is_some() {
                        changes.push((key, None));
                    }
                }
                let deleted = changes.len();
                let handed = inner.write_offsets(state, changes)?;
                if handed.is_written() {
                    inner.counters.deletions.fetch_add(deleted as u64, Ordering::Relaxed);
                }
                // What was deleted by someone else just now is gone only when that is durable.
                let handed = if deleted == 0 { Handed::Written(state.last_write) } else { handed };
                Ok((handed, answers))
            })
            .await?;
        self.durable(ticket).await?;
        Ok(answers)
    }

    /// Deletes groups with their offsets, durably; one answer for each.
    pub async fn delete_groups(&self, group_ids: &[&str]) -> Vec<ErrorCode> {
        let mut handed = Vec::with_capacity(group_ids.len());
        for group_id in group_ids {
            let removed = self.with_room(|inner, state| {
                Ok(match state.core.check_delete(group_id) {
                    Ok(()) => (inner.remove_group(state, group_id)?, ErrorCode::None),
                    // A group that someone else deleted just now is gone only when that is durable.
                    Err(error) => (Handed::Written(state.last_write), error),
                })
            });
            handed.push(removed.await);
        }
        // All of them are on their way: they share what waiting there is.
        let mut answers = Vec::with_capacity(group_ids.len());
        for outcome in handed {
            answers.push(match outcome {
                Ok((ticket, answer)) => self.durable(ticket).await.err().unwrap_or(answer),
                Err(error) => error,
            });
        }
        answers
    }

    /// Does something under the lock, again each time the log had no room for what it wrote.
    async fn with_room<T>(
        &self,
        mut change: impl FnMut(&Arc<Inner>, &mut State) -> Result<(Handed, T), ErrorCode>,
    ) -> Result<(Option<Ticket>, T), ErrorCode> {
        let attempt = async {
            loop {
                {
                    let mut state = self.inner.lock();
                    if state.is_closed {
                        return Err(ErrorCode::CoordinatorNotAvailable);
                    }
                    let outcome = change(&self.inner, &mut state);
                    self.inner.carry_out(&mut state);
                    if let (Handed::Written(ticket), answer) = outcome? {
                        return Ok((ticket, answer));
                    }
                }
                self.inner.log.room().await;
            }
        };
        tokio::time::timeout(self.inner.options.offset_commit_timeout, attempt)
            .await
            .unwrap_or(Err(ErrorCode::CoordinatorNotAvailable))
    }

    /// Nothing is answered before it is durable.
    async fn durable(&self, ticket: Option<Ticket>) -> Result<(), ErrorCode> {
        let Some(ticket) = ticket else { return Ok(()) };
        self.inner.log.durable(ticket).await.map_err(|poisoned| store_error(&poisoned.into()))
    }
}

impl Inner {
    fn change_for(
        &self,
        state: &State,
        totals: &mut OffsetTotals,
        key: Bytes,
        commit: &CommitOffset<'_>,
        committed_wall_ms: i64,
        expires_wall_ms: Option<i64>,
    ) -> Result<Change, ErrorCode> {
        let metadata = commit.metadata.unwrap_or_default();
        // Kafka counts UTF-16 units, whatever the name of the setting says.
        let is_too_long = metadata.encode_utf16().count() > self.options.offset_metadata_max;
        if is_too_long || metadata.len() > METADATA_BYTES_MAX {
            return Err(ErrorCode::OffsetMetadataTooLarge);
        }
        let stored = StoredOffset {
            topic_id: commit.topic_id,
            offset: commit.offset,
            leader_epoch: commit.leader_epoch,
            committed_wall_ms,
            expires_wall_ms,
            metadata: metadata.into(),
        };
        let value = stored.encode();
        let before = self.size_of(state, &key);
        let mut grown = *totals;
        grown.change(before, Some(offset_bytes(&key, &value)));
        let is_more = grown.count > totals.count && grown.count > self.options.offsets_max;
        if is_more || (grown.bytes > totals.bytes && grown.bytes > self.options.offsets_bytes_max) {
            return Err(ErrorCode::PolicyViolation);
        }
        *totals = grown;
        Ok((key, Some(value)))
    }

    /// What an offset costs, or will when what is under way is durable; `None` if there is none.
    fn size_of(&self, state: &State, key: &Bytes) -> Option<usize> {
        match state.in_flight.get(key) {
            Some(in_flight) => in_flight.bytes,
            None => self.log.table_get(OFFSETS_TABLE, key).map(|value| offset_bytes(key, &value)),
        }
    }

    /// Hands changes of offsets to the log, and remembers them until the table shows them.
    pub(super) fn write_offsets(&self, state: &mut State, changes: Vec<Change>) -> Result<Handed, ErrorCode> {
        self.forget_landed(state);
        if changes.is_empty() {
            return Ok(Handed::Written(None));
        }
        let sizes: Vec<(Bytes, Option<usize>)> = changes
            .iter()
            .map(|(key, value)| (key.clone(), value.as_ref().map(|value| offset_bytes(key, value))))
            .collect();
        match self.log.write_table(OFFSETS_TABLE, changes) {
            Ok(ticket) => {
                let mut keys = Vec::with_capacity(sizes.len());
                for (key, bytes) in sizes {
                    let before = self.size_of(state, &key);
                    state.offsets.change(before, bytes);
                    state.in_flight.insert(key.clone(), InFlight { ticket, bytes });
                    keys.push(key);
                }
                state.flights.push_back((ticket, keys));
                state.last_write = Some(ticket);
                Ok(Handed::Written(Some(ticket)))
            }
            Err(AppendError::Backlogged) => Ok(Handed::NoRoom),
            Err(AppendError::TooLarge(_)) => Err(ErrorCode::InvalidCommitOffsetSize),
            Err(error) => Err(store_error(&error)),
        }
    }

    pub(super) fn forget_landed(&self, state: &mut State) {
        while let Some((ticket, keys)) = state.flights.pop_front() {
            if self.log.durable(ticket).now().is_none() {
                state.flights.push_front((ticket, keys));
                return;
            }
            for key in keys {
                if state.in_flight.get(&key).is_some_and(|in_flight| in_flight.ticket == ticket) {
                    state.in_flight.remove(&key);
                }
            }
        }
    }

    /// The keys of a group's offsets, those under way included.
    fn keys_of(&self, state: &State, group_id: &str) -> BTreeSet<Bytes> {
        let prefix = Bytes::from(OffsetKey::prefix(group_id));
        let under_way = state.in_flight.range(prefix.clone()..).map(|(key, _)| key.clone());
        let mut keys: BTreeSet<Bytes> = under_way.take_while(|key| key.starts_with(&prefix)).collect();
        keys.extend(self.log.table_scan(OFFSETS_TABLE, &prefix).into_iter().map(|(key, _)| key));
        keys
    }

    /// Hands the removal of a group and all its offsets to the log; then the group is gone.
    pub(super) fn remove_group(&self, state: &mut State, group_id: &str) -> Result<Handed, ErrorCode> {
        self.forget_landed(state);
        let changes: Vec<Change> = self.keys_of(state, group_id).into_iter().map(|key| (key, None)).collect();
        let deleted = changes.len();
        let Handed::Written(offsets) = self.write_offsets(state, changes)? else { return Ok(Handed::NoRoom) };
        self.counters.deletions.fetch_add(deleted as u64, Ordering::Relaxed);
        let mut last = offsets;
        if state.core.is_stored(group_id) {
            let key = Bytes::copy_from_slice(group_id.as_bytes());
            match self.log.write_table(GROUPS_TABLE, vec![(key, None)]) {
                Ok(ticket) => {
                    last = Some(ticket);
                    state.last_write = last;
                }
                Err(AppendError::Backlogged) => return Ok(Handed::NoRoom),
                Err(error) => return Err(store_error(&error)),
            }
        }
        // A state that still waits for room would bring the group back.
        state.outbox.retain(|store| *store.group_id != *group_id);
        state.core.remove_group(group_id);
        Ok(Handed::Written(last))
    }
}

fn fetched(partition: i32, stored: StoredOffset) -> FetchedOffset {
    FetchedOffset { partition, offset: stored.offset, leader_epoch: stored.leader_epoch, metadata: stored.metadata }
}

pub(super) fn is_of_this_topic(catalog: &Catalog, topic: &str, stored: &StoredOffset) -> bool {
    catalog.topic(topic).is_some_and(|topic| topic.id == stored.topic_id)
}
