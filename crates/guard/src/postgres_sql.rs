//! The statements. Names of tables carry no schema: the `search_path` of the role decides.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::Durable;

/// Held while tables are created; any number that nobody else uses.
pub(super) const PREPARE_LOCK: i64 = 0x6261_746f_6e21;

pub(super) const TABLES: &str = r#"
CREATE TABLE IF NOT EXISTS baton_inbox (
  consumer_group text COLLATE "C" NOT NULL,
  message_id     text COLLATE "C" NOT NULL,
  done_at        timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (consumer_group, message_id)
);
-- Rows are added in the order of time, so a summary for each range of pages finds the old ones, at no cost to writers.
CREATE INDEX IF NOT EXISTS baton_inbox_done_at ON baton_inbox USING brin (done_at) WITH (autosummarize = on);
CREATE TABLE IF NOT EXISTS baton_frontier (
  consumer_group text COLLATE "C" NOT NULL,
  topic          text COLLATE "C" NOT NULL,
  partition      bigint NOT NULL,
  instance       text COLLATE "C" NOT NULL,
  epoch          bigint NOT NULL,
  version        bigint NOT NULL,
  frontier       bigint NOT NULL,
  beyond         text NOT NULL,
  changed_at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (consumer_group, topic, partition, instance, epoch)
) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS baton_fence (
  consumer_group text COLLATE "C" NOT NULL,
  topic          text COLLATE "C" NOT NULL,
  partition      bigint NOT NULL,
  epoch          bigint NOT NULL,
  PRIMARY KEY (consumer_group, topic, partition)
) WITH (fillfactor = 50)"#;

/// Begins a transaction. Both limits end with it.
pub(super) fn begin(lock_wait: Duration, idle_wait: Duration) -> Arc<str> {
    // Zero would mean: without end.
    let milliseconds = |wait: Duration| wait.as_millis().clamp(1, i32::MAX as u128);
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {}; \
         SET LOCAL idle_in_transaction_session_timeout = {}",
        milliseconds(lock_wait),
        milliseconds(idle_wait)
    )
    .into()
}

/// A row for each fence that is still the newest. The lock keeps the next owner waiting until this transaction has ended.
pub(super) const CHECK_FENCES: &str = "\
SELECT 1 FROM baton_fence WHERE consumer_group = $1 AND (topic, partition, epoch) IN \
(SELECT * FROM unnest($2::text[], $3::bigint[], $4::bigint[])) ORDER BY topic, partition FOR SHARE";

pub(super) const TAKE_OVER: &str = "\
INSERT INTO baton_fence AS fence (consumer_group, topic, partition, epoch) VALUES ($1, $2, $3, 1) \
ON CONFLICT (consumer_group, topic, partition) DO UPDATE SET epoch = fence.epoch + 1 RETURNING epoch";

/// How messages are marked in an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marking {
    /// One message.
    One,
    /// Many, some of which may be marked already.
    Any,
    /// Many of which none is marked; fails if one is.
    New,
}

pub(super) fn inbox_statement(marking: Marking) -> &'static str {
    match marking {
        Marking::One => MARK_ONE,
        Marking::Any => MARK_MANY,
        Marking::New => MARK_MANY_NEW,
    }
}

pub(super) const MARK_ONE: &str =
    "INSERT INTO baton_inbox (consumer_group, message_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";

/// The ids come sorted and are inserted in that order, so that two batches cannot wait for each other in a circle.
pub(super) const MARK_MANY: &str = "\
INSERT INTO baton_inbox (consumer_group, message_id) SELECT $1, id FROM unnest($2::text[]) AS id \
ON CONFLICT DO NOTHING RETURNING message_id";

/// Fails if one of them is there. Takes about half the time of the other, which looks for each row beforehand and writes it twice to
/// the log of the server: as a promise, and then for good.
pub(super) const MARK_MANY_NEW: &str = "\
INSERT INTO baton_inbox (consumer_group, message_id) SELECT $1, id FROM unnest($2::text[]) AS id";

/// Sequences, each with its place in the arrays, from 1; the columns of those that have no row are null. `now()` is when the
/// transaction began, which is what tells it from any other on the same connection.
pub(super) const READ_FRONTIER: &str = "\
SELECT now(), key.place, version, frontier, beyond \
FROM unnest($2::text[], $3::bigint[], $4::text[], $5::bigint[]) WITH ORDINALITY AS key (topic, partition, instance, epoch, place) \
LEFT JOIN baton_frontier AS stored ON stored.consumer_group = $1 AND stored.topic = key.topic \
AND stored.partition = key.partition AND stored.instance = key.instance AND stored.epoch = key.epoch";

/// Changes rows that are at the version that was read; 0 is a row that was not there. Rows at another version are locked and not
/// returned. Changes nothing in any other transaction than the one that began at `$9`. How many were changed is left to the rest of the
/// transaction, for [`commit_if_moved`].
pub(super) const MOVE_FRONTIER: &str = "\
WITH moved AS (\
INSERT INTO baton_frontier AS stored (consumer_group, topic, partition, instance, epoch, version, frontier, beyond) \
SELECT $1, topic, partition, instance, epoch, version + 1, frontier, beyond FROM \
unnest($2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[]) \
AS new (topic, partition, instance, epoch, version, frontier, beyond) WHERE now() = $9 \
ON CONFLICT (consumer_group, topic, partition, instance, epoch) DO UPDATE SET version = excluded.version, \
frontier = excluded.frontier, beyond = excluded.beyond, changed_at = now() WHERE stored.version = excluded.version - 1 \
RETURNING topic, partition, instance, epoch) \
SELECT set_config('baton.moved', count(*)::text, true), array_agg(topic), array_agg(partition), array_agg(instance), \
array_agg(epoch) FROM moved";

/// Commits if so many rows were changed by [`MOVE_FRONTIER`] just before. If not, fails with [`NOT_ALL_MOVED`], and the transaction can
/// go on behind the savepoint. The savepoint itself fails unless the transaction is open and sound.
pub(super) fn commit_if_moved(rows: usize) -> String {
    format!(
        "SAVEPOINT baton_end; SELECT CASE current_setting('baton.moved') WHEN '{rows}' THEN 0 ELSE \
         ('a frontier moved meanwhile, this is tried again; as expected: ' || current_setting('baton.moved') \
         || ' of {rows}')::integer END; COMMIT"
    )
}

/// What a text is refused with that is no number.
pub(super) const NOT_ALL_MOVED: SqlState = SqlState::INVALID_TEXT_REPRESENTATION;

pub(super) const PRUNE_INBOX: &str = "\
DELETE FROM baton_inbox WHERE ctid = ANY (ARRAY (SELECT ctid FROM baton_inbox WHERE consumer_group = $1 \
AND done_at < now() - make_interval(secs => $2) LIMIT $3 FOR UPDATE SKIP LOCKED))";

pub(super) const PRUNE_FRONTIER: &str = "\
DELETE FROM baton_frontier WHERE ctid = ANY (ARRAY (SELECT ctid FROM baton_frontier WHERE consumer_group = $1 \
AND changed_at < now() - make_interval(secs => $2) LIMIT $3 FOR UPDATE SKIP LOCKED))";

/// Effect and mark of a message that was acknowledged are gone together: it is missing.
const LOST: &str =
    "a crash of the server takes the last commits back: effects of messages that were acknowledged are missing";

pub(super) const SETTINGS: &[Durable] = &[
    Durable { setting: "fsync", fine: &["on"], wanted: "on", consequence: LOST },
    Durable { setting: "full_page_writes", fine: &["on"], wanted: "on", consequence: LOST },
    Durable {
        setting: "synchronous_commit",
        // `local` is not: whoever has synchronous standbys wants them to be waited for.
        fine: &["on", "remote_apply"],
        wanted: "on",
        consequence: LOST,
    },
];
