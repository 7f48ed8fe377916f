//! Removing what nobody needs any more: offsets past their retention or without their topic, and groups without either.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use baton_log::Catalog;
use bytes::Bytes;

use super::offsets::is_of_this_topic;
use super::{Inner, OFFSETS_TABLE, State, Wakes};
use crate::groups::core::Now;
use crate::groups::format::{OffsetKey, StoredOffset};

/// Changes in one frame of the log: a large group is cleaned up in steps.
const CHANGES_MAX: usize = 1_000;

/// Sweeps now and then, until the service is closed or gone.
pub(super) async fn run(inner: Weak<Inner>, wakes: Arc<Wakes>) {
    loop {
        let Some(interval) = inner.upgrade().map(|inner| inner.options.offsets_retention_check_interval) else {
            return;
        };
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = wakes.sweep.notified() => {}
        }
        let Some(inner) = inner.upgrade().filter(|inner| !inner.lock().is_closed) else { return };
        inner.sweep_all().await;
    }
}

impl Inner {
    /// Looks at every group once. What the log has no room for is left for the next time.
    pub(super) async fn sweep_all(self: &Arc<Self>) {
        let groups: Vec<Arc<str>> = self.lock().core.list().map(|group| group.group_id).collect();
        let catalog = self.log.catalog();
        for group_id in groups {
            self.sweep_group(&mut self.lock(), &catalog, &group_id);
            // Each group takes the lock for a moment only.
            tokio::task::yield_now().await;
        }
    }

    fn sweep_group(self: &Arc<Self>, state: &mut State, catalog: &Catalog, group_id: &str) {
        let now = self.now();
        self.forget_landed(state);
        let offsets = self.log.table_scan(OFFSETS_TABLE, &OffsetKey::prefix(group_id));
        let has_offsets = !offsets.is_empty() || self.has_offsets_under_way(state, group_id);
        // What is being changed just now is not old.
        let is_due = |key: &Bytes, value: &[u8]| {
            !state.in_flight.contains_key(key) && self.is_due(state, catalog, now, group_id, key, value)
        };
        let due = offsets.into_iter().filter(|(key, value)| is_due(key, value)).take(CHANGES_MAX);
        let due: Vec<_> = due.map(|(key, _)| (key, None)).collect();
        let removed = due.len();
        if removed > 0 && self.write_offsets(state, due).is_ok_and(|handed| handed.is_written()) {
            self.counters.expirations.fetch_add(removed as u64, Ordering::Relaxed);
            tracing::info!(group = group_id, removed, "offsets expired or lost their topic");
        }
        // If this fails the group stays until the next time.
        let is_idle = !has_offsets && state.core.is_idle(group_id);
        if is_idle && self.remove_group(state, group_id).is_ok_and(|handed| handed.is_written()) {
            tracing::info!(group = group_id, "an empty group without offsets was removed");
        }
    }

    fn is_due(&self, state: &State, catalog: &Catalog, now: Now, group_id: &str, key: &[u8], value: &[u8]) -> bool {
        let (Ok(key), Ok(stored)) = (OffsetKey::decode(key), StoredOffset::decode(value)) else { return false };
        if !is_of_this_topic(catalog, key.topic, &stored) {
            return true;
        }
        let Some(base_ms) = state.core.retention_base_ms(group_id, key.topic, stored.committed_wall_ms) else {
            return false;
        };
        match stored.expires_wall_ms {
            Some(expires_ms) => now.wall_ms >= expires_ms,
            None => now.wall_ms.saturating_sub(base_ms) >= self.options.offsets_retention_ms,
        }
    }

    fn has_offsets_under_way(&self, state: &State, group_id: &str) -> bool {
        let prefix = Bytes::from(OffsetKey::prefix(group_id));
        state.in_flight.range(prefix.clone()..).next().is_some_and(|(key, _)| key.starts_with(&prefix))
    }
}
