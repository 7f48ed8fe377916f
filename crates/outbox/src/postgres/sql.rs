//! The SQL of an outbox on Postgres.

/// Held while tables are created, so that two that do so at once do not fail.
pub(super) const PREPARE_LOCK: i64 = 0x0062_6174_6f6e_0001;

/// What relays listen to.
pub(super) const CHANNEL: &str = "baton_outbox";

/// How many relays can sleep until they are woken; more look again and again.
pub(super) const SLEEPERS: i32 = 8;

/// The tables. Run by `init`; may be run any number of times.
///
/// `writer` is the transaction that wrote a row: what was not visible to one query and is to the next is found by it, however late it
/// commits. `shard` is computed here, so that every program that writes rows shards them alike.
///
/// A relay that has nothing to do takes the exclusive lock of a slot (class: the table, object: the slot), and every writer tries the
/// shared one, until its transaction ends. A writer that does not get it wakes the relays when it commits; a relay that does not get it
/// knows that somebody is writing, and looks again. So nobody is woken while relays are awake: commits that notify wait for each other.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS baton_outbox (
  position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  writer xid8 NOT NULL DEFAULT pg_current_xact_id(),
  id text COLLATE \"C\" NOT NULL DEFAULT gen_random_uuid()::text UNIQUE CHECK (id ~ '^[!-:<-~]{1,128}$'),
  topic text NOT NULL CHECK (octet_length(topic) BETWEEN 1 AND 255),
  key bytea CHECK (octet_length(key) <= 65536),
  payload bytea CHECK (octet_length(payload) <= 16777216),
  headers text CHECK (octet_length(headers) <= 1048576),
  partition integer CHECK (partition >= 0),
  occurred_at timestamptz CHECK (isfinite(occurred_at)),
  written_at timestamptz NOT NULL DEFAULT clock_timestamp() CHECK (isfinite(written_at)),
  shard smallint NOT NULL GENERATED ALWAYS AS (
    (('x' || left(CASE WHEN key IS NULL THEN md5(id) ELSE md5(key) END, 4))::bit(16)::integer % 16)::smallint) STORED,
  parked text
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_scale_factor = 0,
  autovacuum_vacuum_insert_threshold = 1000000, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000,
  autovacuum_vacuum_cost_delay = 0, toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 20000);
CREATE INDEX IF NOT EXISTS baton_outbox_writer ON baton_outbox (writer);
CREATE INDEX IF NOT EXISTS baton_outbox_parked ON baton_outbox (position) WHERE parked IS NOT NULL;
CREATE TABLE IF NOT EXISTS baton_outbox_done (
  position bigint PRIMARY KEY,
  id text NOT NULL,
  topic text NOT NULL,
  key bytea,
  payload bytea,
  headers text,
  partition integer,
  written_at timestamptz NOT NULL,
  done_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX IF NOT EXISTS baton_outbox_done_at ON baton_outbox_done (done_at);
CREATE TABLE IF NOT EXISTS baton_outbox_shard (
  shard smallint PRIMARY KEY,
  owner text,
  epoch bigint NOT NULL DEFAULT 0,
  leased_until timestamptz NOT NULL DEFAULT '-infinity',
  claims bytea NOT NULL DEFAULT ''
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
INSERT INTO baton_outbox_shard (shard) SELECT generate_series(0, 15) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS baton_outbox_relay (member text PRIMARY KEY, lives_until timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS baton_outbox_info (one boolean PRIMARY KEY DEFAULT true CHECK (one), name text NOT NULL, version integer NOT NULL);
CREATE OR REPLACE FUNCTION baton_outbox_wake() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE awake boolean;
BEGIN
  SELECT bool_and(pg_try_advisory_xact_lock_shared(TG_RELID::integer, slot)) INTO awake FROM generate_series(0, 7) AS slot;
  IF NOT awake THEN
    PERFORM pg_notify('baton_outbox', '');
  END IF;
  RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS baton_outbox_wake ON baton_outbox;
CREATE TRIGGER baton_outbox_wake AFTER INSERT ON baton_outbox FOR EACH STATEMENT EXECUTE FUNCTION baton_outbox_wake()";

/// The outbox gets its name once.
pub(super) const NAME: &str = "INSERT INTO baton_outbox_info (name, version) VALUES ($1, 1) ON CONFLICT DO NOTHING";
pub(super) const READ_NAME: &str = "SELECT name, version FROM baton_outbox_info";

/// Planners that see a queue table at a bad moment take it for an empty one. And a relay that stands still in the middle of a transaction
/// holds its successors up for no longer than this.
pub(super) const SESSION: &str =
    "SET enable_seqscan = off; SET idle_in_transaction_session_timeout = '3s'; SET lock_timeout = '2s'";

pub(super) const BEGIN_SEARCH: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
pub(super) const SNAPSHOT: &str = "SELECT pg_current_snapshot()::text";

macro_rules! row {
    () => {
        "position, shard, topic, key, id, payload, headers, partition, \
         (extract(epoch FROM written_at) * 1000)::bigint, (extract(epoch FROM occurred_at) * 1000)::bigint"
    };
}

/// Rows in the order of their positions, at most $2 of them, until they have $3 bytes.
macro_rules! bounded {
    ($where:literal) => {
        concat!(
            "SELECT ",
            row!(),
            " FROM (SELECT *, sum(octet_length(coalesce(payload, '')) + octet_length(coalesce(key, '')) + octet_length(coalesce(headers, ''))) \
             OVER (ORDER BY position) - octet_length(coalesce(payload, '')) - octet_length(coalesce(key, '')) \
             - octet_length(coalesce(headers, '')) AS before FROM (SELECT * FROM baton_outbox WHERE shard = ANY($1) AND parked IS NULL AND ",
            $where,
            " ORDER BY position LIMIT $2) AS found) AS summed WHERE before < $3 ORDER BY position"
        )
    };
}

/// New rows: behind $4.
pub(super) const PAGE: &str = bounded!("position > $4");
/// Late ones: up to $4, by a transaction that was open in the snapshot before: one of $5, or one from $6 on. Of those, behind $7, what the
/// snapshot $8 shows. Rows that were restored from another server may name transactions that are yet to come here: no late ones.
///
/// The positions are an array, and not a subquery that is joined: of a table that was empty a minute ago the planner expects a few rows, joins
/// by a nested loop, and reads what is behind the cursor once for each row up to it (99 s for 60,000 rows, 17 ms like this). For the same
/// reason `+ 0`: these bounds are no reason to read the table by its positions.
pub(super) const LATE: &str = bounded!(
    "position > $7 AND position <= $4 AND ($8::text IS NULL OR pg_visible_in_snapshot(writer, $8::text::pg_snapshot)) \
     AND position = ANY(ARRAY(SELECT position FROM baton_outbox \
     WHERE writer = ANY($5::text[]::xid8[]) AND position + 0 > $7 AND position + 0 <= $4 \
     UNION ALL SELECT position FROM baton_outbox \
     WHERE writer >= $6::text::xid8 AND writer < pg_snapshot_xmax(pg_current_snapshot()) AND position + 0 > $7 AND position + 0 <= $4))"
);
pub(super) const ROWS: &str = concat!("SELECT ", row!(), " FROM baton_outbox WHERE position = ANY($1)");

pub(super) const INSERT: &str = "INSERT INTO baton_outbox (id, topic, key, payload, headers, partition, occurred_at) \
     SELECT id, topic, key, payload, headers, partition, to_timestamp(occurred::double precision / 1000) \
     FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::text[], $6::integer[], $7::bigint[]) \
     WITH ORDINALITY AS new (id, topic, key, payload, headers, partition, occurred, place) ORDER BY place \
     ON CONFLICT (id) DO NOTHING RETURNING id";

pub(super) const WRITE_WINDOWS: &str = "UPDATE baton_outbox_shard AS s SET claims = new.claims \
     FROM unnest($1::smallint[], $2::bigint[], $3::bytea[]) AS new (shard, epoch, claims) \
     WHERE s.shard = new.shard AND s.epoch = new.epoch RETURNING s.shard";
pub(super) const DELETE: &str = "DELETE FROM baton_outbox WHERE position = ANY($1)";
pub(super) const KEEP: &str = "WITH done AS (DELETE FROM baton_outbox WHERE position = ANY($1) RETURNING *) \
     INSERT INTO baton_outbox_done (position, id, topic, key, payload, headers, partition, written_at) \
     SELECT position, id, topic, key, payload, headers, partition, written_at FROM done";
pub(super) const PARK: &str = "UPDATE baton_outbox AS o SET parked = new.reason \
     FROM unnest($1::bigint[], $2::text[]) AS new (position, reason) WHERE o.position = new.position";

pub(super) const LIVE: &str = "INSERT INTO baton_outbox_relay (member, lives_until) VALUES ($1, clock_timestamp() + $2 * interval '1 ms') \
     ON CONFLICT (member) DO UPDATE SET lives_until = excluded.lives_until";
pub(super) const RENEW: &str =
    "UPDATE baton_outbox_shard SET leased_until = clock_timestamp() + $2 * interval '1 ms' WHERE owner = $1";
pub(super) const MEMBERS: &str = "SELECT member FROM baton_outbox_relay WHERE lives_until > clock_timestamp()";
pub(super) const FORGET: &str =
    "DELETE FROM baton_outbox_relay WHERE lives_until < clock_timestamp() - interval '1 hour'";
pub(super) const SHARDS: &str = "SELECT shard, CASE WHEN leased_until > clock_timestamp() THEN owner END, epoch, claims \
     FROM baton_outbox_shard ORDER BY shard";
/// Also one that is ours already, which a process of the same name, or a lost answer, has left behind.
pub(super) const TAKE: &str = "UPDATE baton_outbox_shard SET owner = $1, epoch = epoch + 1, \
     leased_until = clock_timestamp() + $2 * interval '1 ms' \
     WHERE shard = (SELECT shard FROM baton_outbox_shard \
     WHERE shard = $3 AND (leased_until < clock_timestamp() OR owner = $1) FOR UPDATE SKIP LOCKED) RETURNING epoch, claims";
pub(super) const RELEASE: &str =
    "UPDATE baton_outbox_shard SET owner = NULL, leased_until = '-infinity' WHERE shard = $1 AND epoch = $2";
pub(super) const LEAVE: &str = "WITH gone AS (DELETE FROM baton_outbox_relay WHERE member = $1) \
     UPDATE baton_outbox_shard SET owner = NULL, leased_until = '-infinity' WHERE owner = $1";

pub(super) const PARKED: &str = "SELECT position, topic, key, id, parked FROM baton_outbox \
     WHERE parked IS NOT NULL AND position > $1 ORDER BY position LIMIT $2";
pub(super) const RETRY: &str = "UPDATE baton_outbox SET parked = NULL WHERE position = ANY($1) AND parked IS NOT NULL";
pub(super) const DISCARD: &str = "DELETE FROM baton_outbox WHERE position = ANY($1) AND parked IS NOT NULL";
pub(super) const PRUNE: &str = "DELETE FROM baton_outbox_done WHERE position IN (SELECT position FROM baton_outbox_done \
     WHERE done_at < clock_timestamp() - $1 * interval '1 ms' ORDER BY done_at LIMIT $2)";
pub(super) const STATUS: &str = "SELECT (SELECT count(*) FROM baton_outbox), \
     (SELECT (extract(epoch FROM clock_timestamp() - written_at) * 1000)::bigint FROM baton_outbox ORDER BY position LIMIT 1), \
     (SELECT count(*) FROM baton_outbox WHERE parked IS NOT NULL), (SELECT count(*) FROM baton_outbox_done), \
     pg_total_relation_size('baton_outbox') + pg_total_relation_size('baton_outbox_done'), \
     (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'baton_outbox'::regclass)";
