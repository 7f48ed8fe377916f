//! Making groups durable.

use std::sync::Arc;

use baton_log::{AppendError, Ticket};
use baton_wire::ErrorCode;
use bytes::Bytes;

use super::{GROUPS_TABLE, Inner, State, StoreId, store_error};

impl Inner {
    /// Hands group states to the log, in order, as far as it has room.
    pub(super) fn send_outbox(self: &Arc<Self>, state: &mut State) {
        while let Some(store) = state.outbox.pop_front() {
            let key = Bytes::copy_from_slice(store.group_id.as_bytes());
            match self.log.write_table(GROUPS_TABLE, vec![(key, Some(store.value.clone()))]) {
                Ok(ticket) => self.tell_when_durable(ticket, store.group_id, store.id),
                Err(AppendError::Backlogged) => {
                    state.outbox.push_front(store);
                    return self.send_when_there_is_room(state);
                }
                Err(error) => {
                    tracing::warn!(group = &*store.group_id, %error, "the state of a group could not be stored");
                    let now = self.now();
                    state.core.stored(now, &store.group_id, store.id, store_error(&error));
                }
            }
        }
    }

    fn send_when_there_is_room(self: &Arc<Self>, state: &mut State) {
        if std::mem::replace(&mut state.is_waiting_for_room, true) {
            return;
        }
        let inner = self.clone();
        self.runtime.spawn(async move {
            inner.log.room().await;
            let mut state = inner.lock();
            state.is_waiting_for_room = false;
            inner.send_outbox(&mut state);
            inner.carry_out(&mut state);
        });
    }

    fn tell_when_durable(self: &Arc<Self>, ticket: Ticket, group_id: Arc<str>, id: StoreId) {
        let inner = self.clone();
        self.runtime.spawn(async move {
            let outcome = inner.log.durable(ticket).await;
            let error = outcome.map_or_else(|poisoned| store_error(&poisoned.into()), |()| ErrorCode::None);
            let mut state = inner.lock();
            state.core.stored(inner.now(), &group_id, id, error);
            inner.carry_out(&mut state);
        });
    }
}
