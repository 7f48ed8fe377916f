//! The SQL of an outbox on SQLite.

/// Now, in milliseconds since 1970. It stands in the tables' defaults, which any program evaluates that writes a row: by the day, since
/// `unixepoch` knows fractions of a second only from SQLite 3.42 on.
macro_rules! now {
    () => {
        "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"
    };
}

/// The tables. Run by `init`; may be run any number of times.
///
/// What a relay could not read is refused here, whoever writes it: a text may hold a zero byte, which ends it for `length` and `GLOB`, but
/// not for what counts its bytes.
pub(super) const TABLES: &str = concat!(
    "
CREATE TABLE IF NOT EXISTS baton_outbox (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))) UNIQUE CHECK (typeof(id) = 'text' AND length(CAST(id AS BLOB)) BETWEEN 1 AND 128
    AND length(id) = length(CAST(id AS BLOB)) AND id NOT GLOB '*[^!-:<-~]*'),
  topic TEXT NOT NULL CHECK (typeof(topic) = 'text' AND length(CAST(topic AS BLOB)) BETWEEN 1 AND 255),
  key BLOB CHECK (typeof(key) IN ('null', 'blob', 'text')),
  payload BLOB CHECK (typeof(payload) IN ('null', 'blob', 'text') AND length(CAST(payload AS BLOB)) <= 16777216),
  headers TEXT CHECK (typeof(headers) IN ('null', 'text')),
  partition INTEGER CHECK (typeof(partition) IN ('null', 'integer') AND partition BETWEEN 0 AND 2147483647),
  occurred_ms INTEGER CHECK (typeof(occurred_ms) IN ('null', 'integer')),
  written_ms INTEGER NOT NULL DEFAULT (",
    now!(),
    ") CHECK (typeof(written_ms) = 'integer'),
  parked TEXT
);
CREATE INDEX IF NOT EXISTS baton_outbox_parked ON baton_outbox (position) WHERE parked IS NOT NULL;
CREATE TABLE IF NOT EXISTS baton_outbox_done (
  position INTEGER PRIMARY KEY,
  id TEXT NOT NULL,
  topic TEXT NOT NULL,
  key BLOB,
  payload BLOB,
  headers TEXT,
  partition INTEGER,
  written_ms INTEGER NOT NULL,
  done_ms INTEGER NOT NULL DEFAULT (",
    now!(),
    ")
);
CREATE INDEX IF NOT EXISTS baton_outbox_done_ms ON baton_outbox_done (done_ms);
CREATE TABLE IF NOT EXISTS baton_outbox_shard (
  shard INTEGER PRIMARY KEY,
  owner TEXT,
  epoch INTEGER NOT NULL DEFAULT 0,
  leased_until_ms INTEGER NOT NULL DEFAULT 0,
  claims BLOB NOT NULL DEFAULT x''
);
INSERT OR IGNORE INTO baton_outbox_shard (shard) VALUES (0);
CREATE TABLE IF NOT EXISTS baton_outbox_relay (member TEXT PRIMARY KEY, lives_until_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS baton_outbox_info (one INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1), name TEXT NOT NULL, version INTEGER NOT NULL)"
);

/// The outbox gets its name once.
pub(super) const NAME: &str = "INSERT OR IGNORE INTO baton_outbox_info (one, name, version) VALUES (1, ?1, 1)";
pub(super) const READ_NAME: &str = "SELECT name, version FROM baton_outbox_info";

/// Changes when another connection has committed. Reads no table.
pub(super) const DATA_VERSION: &str = "PRAGMA data_version";

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT position, topic, key, id, payload, headers, partition, written_ms, occurred_ms FROM baton_outbox ",
            $rest
        )
    };
}

pub(super) const PAGE: &str = select!("WHERE position > ?1 AND parked IS NULL ORDER BY position LIMIT ?2");
pub(super) const ROW: &str = select!("WHERE position = ?1");

pub(super) const INSERT: &str = "INSERT INTO baton_outbox (id, topic, key, payload, headers, partition, occurred_ms) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO NOTHING";

pub(super) const WRITE_WINDOW: &str = "UPDATE baton_outbox_shard SET claims = ?3 WHERE shard = ?1 AND epoch = ?2";
pub(super) const KEEP: &str = "INSERT INTO baton_outbox_done (position, id, topic, key, payload, headers, partition, written_ms) \
     SELECT position, id, topic, key, payload, headers, partition, written_ms FROM baton_outbox WHERE position = ?1";
pub(super) const DELETE: &str = "DELETE FROM baton_outbox WHERE position = ?1";
pub(super) const PARK: &str = "UPDATE baton_outbox SET parked = ?2 WHERE position = ?1";

pub(super) const LIVE: &str = concat!(
    "INSERT INTO baton_outbox_relay (member, lives_until_ms) VALUES (?1, ",
    now!(),
    " + ?2) ON CONFLICT (member) DO UPDATE SET lives_until_ms = excluded.lives_until_ms"
);
pub(super) const RENEW: &str =
    concat!("UPDATE baton_outbox_shard SET leased_until_ms = ", now!(), " + ?2 WHERE owner = ?1");
/// Relays that have been gone for an hour.
pub(super) const FORGET: &str = concat!("DELETE FROM baton_outbox_relay WHERE lives_until_ms < ", now!(), " - 3600000");
pub(super) const MEMBERS: &str = concat!("SELECT member FROM baton_outbox_relay WHERE lives_until_ms > ", now!());
pub(super) const SHARDS: &str = concat!(
    "SELECT shard, CASE WHEN leased_until_ms > ",
    now!(),
    " THEN owner END, epoch, claims FROM baton_outbox_shard ORDER BY shard"
);
pub(super) const TAKE: &str = concat!(
    "UPDATE baton_outbox_shard SET owner = ?1, epoch = epoch + 1, leased_until_ms = ",
    now!(),
    " + ?2 WHERE shard = ?3 AND (owner = ?1 OR leased_until_ms < ",
    now!(),
    ") RETURNING epoch, claims"
);
pub(super) const RELEASE: &str =
    "UPDATE baton_outbox_shard SET owner = NULL, leased_until_ms = 0 WHERE shard = ?1 AND epoch = ?2";
pub(super) const LEAVE_SHARDS: &str =
    "UPDATE baton_outbox_shard SET owner = NULL, leased_until_ms = 0 WHERE owner = ?1";
pub(super) const LEAVE: &str = "DELETE FROM baton_outbox_relay WHERE member = ?1";

pub(super) const PARKED: &str = "SELECT position, topic, key, id, parked FROM baton_outbox \
     WHERE parked IS NOT NULL AND position > ?1 ORDER BY position LIMIT ?2";
pub(super) const RETRY: &str = "UPDATE baton_outbox SET parked = NULL WHERE position = ?1 AND parked IS NOT NULL";
pub(super) const DISCARD: &str = "DELETE FROM baton_outbox WHERE position = ?1 AND parked IS NOT NULL";
pub(super) const PRUNE: &str = concat!(
    "DELETE FROM baton_outbox_done WHERE position IN (SELECT position FROM baton_outbox_done WHERE done_ms < ",
    now!(),
    " - ?1 ORDER BY done_ms LIMIT ?2)"
);
pub(super) const STATUS: &str = concat!(
    "SELECT (SELECT count(*) FROM baton_outbox), (SELECT ",
    now!(),
    " - written_ms FROM baton_outbox ORDER BY position LIMIT 1), \
     (SELECT count(*) FROM baton_outbox WHERE parked IS NOT NULL), (SELECT count(*) FROM baton_outbox_done), \
     (SELECT page_count FROM pragma_page_count()) * (SELECT page_size FROM pragma_page_size())"
);
