//! The SQL of an outbox on MariaDB and MySQL. It is about the database that the connection has chosen.

/// Now, in milliseconds since 1970, whatever the session's time zone is.
macro_rules! now {
    () => {
        "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000)"
    };
}

/// The tables. Run by `init`, one by one; may be run any number of times.
///
/// `shard` is computed here, so that every program that writes rows shards them alike. Headers are text: JSON columns of MySQL sort names and
/// drop those that stand twice.
pub(super) const TABLES: [&str; 6] = [
    concat!(
        "CREATE TABLE IF NOT EXISTS baton_outbox (
  position BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  id VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT (UUID())
    CHECK (LENGTH(id) BETWEEN 1 AND 128 AND id NOT REGEXP '[^!-:<-~]'),
  topic VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL CHECK (LENGTH(topic) BETWEEN 1 AND 255),
  `key` LONGBLOB,
  payload LONGBLOB CHECK (LENGTH(payload) <= 16777216),
  headers LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
  `partition` INT CHECK (`partition` >= 0),
  occurred_ms BIGINT,
  written_ms BIGINT NOT NULL DEFAULT ",
        now!(),
        ",
  shard TINYINT UNSIGNED GENERATED ALWAYS AS (CASE WHEN `key` IS NULL THEN CRC32(id) ELSE CRC32(`key`) END % 16) STORED,
  parked VARCHAR(4000) CHARACTER SET utf8mb4,
  UNIQUE KEY baton_outbox_id (id),
  KEY baton_outbox_shard (shard, position),
  KEY baton_outbox_parked (parked(1))
) ENGINE = InnoDB"
    ),
    concat!(
        "CREATE TABLE IF NOT EXISTS baton_outbox_done (
  position BIGINT NOT NULL PRIMARY KEY,
  id VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  topic VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `key` LONGBLOB,
  payload LONGBLOB,
  headers LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
  `partition` INT,
  written_ms BIGINT NOT NULL,
  done_ms BIGINT NOT NULL DEFAULT ",
        now!(),
        ",
  KEY baton_outbox_done_ms (done_ms)
) ENGINE = InnoDB"
    ),
    "CREATE TABLE IF NOT EXISTS baton_outbox_shard (
  shard TINYINT UNSIGNED NOT NULL PRIMARY KEY,
  owner VARBINARY(255),
  epoch BIGINT NOT NULL DEFAULT 0,
  leased_until_ms BIGINT NOT NULL DEFAULT 0,
  claims MEDIUMBLOB
) ENGINE = InnoDB",
    "INSERT IGNORE INTO baton_outbox_shard (shard) VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9), (10), (11), (12), (13), \
(14), (15)",
    "CREATE TABLE IF NOT EXISTS baton_outbox_relay (member VARBINARY(255) NOT NULL PRIMARY KEY, lives_until_ms BIGINT NOT NULL) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS baton_outbox_info (one TINYINT NOT NULL PRIMARY KEY DEFAULT 1 CHECK (one = 1), \
name VARBINARY(255) NOT NULL, version INT NOT NULL) ENGINE = InnoDB",
];

/// The outbox gets its name once.
pub(super) const NAME: &str = "INSERT IGNORE INTO baton_outbox_info (one, name, version) VALUES (1, ?, 1)";
pub(super) const READ_NAME: &str = "SELECT name, version FROM baton_outbox_info";

/// For whoever writes claims and leases: a row that is not there locks no gap, in which others could not insert.
pub(super) const SESSION: &str =
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET SESSION innodb_lock_wait_timeout = 10";

/// Everything until the commit is of one snapshot.
pub(super) const BEGIN_SEARCH: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
     START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

pub(super) const COLUMNS: &str =
    "position, shard, topic, `key`, id, payload, headers, `partition`, written_ms, occurred_ms";

/// What a row has of what `Look::bytes_max` counts.
const BYTES: &str = "COALESCE(LENGTH(payload), 0) + COALESCE(LENGTH(`key`), 0) + COALESCE(LENGTH(headers), 0)";

/// Which rows come next, and their bytes: new rows, behind a position.
pub(super) fn page(shards: &str, after: i64, rows_max: usize) -> String {
    format!(
        "SELECT position, {BYTES} FROM baton_outbox FORCE INDEX (PRIMARY) WHERE position > {after} AND shard IN ({shards}) \
         AND parked IS NULL ORDER BY position LIMIT {rows_max}"
    )
}

/// All rows that are there, up to a position. Reads the index alone.
pub(super) fn present(shards: &str, up_to: i64) -> String {
    format!(
        "SELECT position FROM baton_outbox FORCE INDEX (baton_outbox_shard) WHERE shard IN ({shards}) AND position <= {up_to}"
    )
}

/// Of these rows the bytes, and whether they are parked.
pub(super) fn sizes(positions: &str) -> String {
    format!("SELECT position, parked IS NOT NULL, {BYTES} FROM baton_outbox WHERE position IN ({positions})")
}

pub(super) fn rows(positions: &str) -> String {
    format!("SELECT {COLUMNS} FROM baton_outbox WHERE position IN ({positions}) ORDER BY position")
}

const INSERT: &str = "INSERT INTO baton_outbox (id, topic, `key`, payload, headers, `partition`, occurred_ms) VALUES ";
const PLACES: &str = "(?, ?, ?, ?, ?, ?, ?)";

/// For so many rows.
pub(super) fn insert(rows: usize) -> String {
    format!("{INSERT}{}", vec![PLACES; rows].join(", "))
}

/// For one, unless its id is there. Not `INSERT IGNORE`, which makes warnings of all other errors, too.
pub(super) fn insert_new() -> String {
    format!("{INSERT}{PLACES} ON DUPLICATE KEY UPDATE id = id")
}

pub(super) const BEGIN: &str = "START TRANSACTION";

/// The shards that are to be written, locked in an order that is the same for everybody.
pub(super) fn lock_shards(shards: &str) -> String {
    format!("SELECT shard, epoch FROM baton_outbox_shard WHERE shard IN ({shards}) ORDER BY shard FOR UPDATE")
}

/// Takes shard and claims of each, in this order.
pub(super) fn write_windows(shards: &str, count: usize) -> String {
    let cases = "WHEN ? THEN ? ".repeat(count);
    format!("UPDATE baton_outbox_shard SET claims = CASE shard {cases}END WHERE shard IN ({shards})")
}

pub(super) fn keep(positions: &str) -> String {
    format!(
        "INSERT INTO baton_outbox_done (position, id, topic, `key`, payload, headers, `partition`, written_ms) \
         SELECT position, id, topic, `key`, payload, headers, `partition`, written_ms FROM baton_outbox FORCE INDEX (PRIMARY) WHERE position IN ({positions})"
    )
}

/// Row by row along the primary key: a scan of the table would wait for each row that somebody has written and not committed.
pub(super) fn delete(positions: &str) -> String {
    format!("DELETE o FROM baton_outbox AS o FORCE INDEX (PRIMARY) WHERE o.position IN ({positions})")
}

pub(super) const PARK: &str = "UPDATE baton_outbox SET parked = ? WHERE position = ?";

pub(super) const LIVE: &str = concat!(
    "INSERT INTO baton_outbox_relay (member, lives_until_ms) VALUES (?, ",
    now!(),
    " + ?) ON DUPLICATE KEY UPDATE lives_until_ms = VALUES(lives_until_ms)"
);
/// The shards of a member, to be renewed by their primary keys: nobody's lock is waited for but theirs.
pub(super) const OWNED: &str = "SELECT shard FROM baton_outbox_shard WHERE owner = ?";
pub(super) const RENEW: &str =
    concat!("UPDATE baton_outbox_shard SET leased_until_ms = ", now!(), " + ? WHERE shard = ? AND owner = ?");
/// Relays that have been gone for an hour.
pub(super) const FORGET: &str = concat!("DELETE FROM baton_outbox_relay WHERE lives_until_ms < ", now!(), " - 3600000");
pub(super) const MEMBERS: &str = concat!("SELECT member FROM baton_outbox_relay WHERE lives_until_ms > ", now!());
pub(super) const SHARDS: &str = concat!(
    "SELECT shard, CASE WHEN leased_until_ms > ",
    now!(),
    " THEN owner END, epoch, claims FROM baton_outbox_shard ORDER BY shard"
);
pub(super) const TAKE: &str = concat!(
    "UPDATE baton_outbox_shard SET owner = ?, epoch = epoch + 1, leased_until_ms = ",
    now!(),
    " + ? WHERE shard = ? AND (owner = ? OR leased_until_ms < ",
    now!(),
    ")"
);
pub(super) const TAKEN: &str = "SELECT epoch, claims FROM baton_outbox_shard WHERE shard = ?";
pub(super) const RELEASE: &str =
    "UPDATE baton_outbox_shard SET owner = NULL, leased_until_ms = 0 WHERE shard = ? AND epoch = ?";
pub(super) const LEAVE_SHARDS: &str =
    "UPDATE baton_outbox_shard SET owner = NULL, leased_until_ms = 0 WHERE shard = ? AND owner = ?";
pub(super) const LEAVE: &str = "DELETE FROM baton_outbox_relay WHERE member = ?";

pub(super) const PARKED: &str = "SELECT position, topic, `key`, id, parked FROM baton_outbox \
     FORCE INDEX (baton_outbox_parked) WHERE parked IS NOT NULL AND position > ? ORDER BY position LIMIT ?";

pub(super) fn retry(positions: &str) -> String {
    format!(
        "UPDATE baton_outbox FORCE INDEX (PRIMARY) SET parked = NULL WHERE position IN ({positions}) AND parked IS NOT NULL"
    )
}

pub(super) fn discard(positions: &str) -> String {
    format!(
        "DELETE o FROM baton_outbox AS o FORCE INDEX (PRIMARY) WHERE o.position IN ({positions}) AND o.parked IS NOT NULL"
    )
}

pub(super) const PRUNE: &str =
    concat!("DELETE FROM baton_outbox_done WHERE done_ms < ", now!(), " - ? ORDER BY done_ms LIMIT ?");
pub(super) const STATUS: &str = concat!(
    "SELECT (SELECT COUNT(*) FROM baton_outbox), CAST((SELECT ",
    now!(),
    " - written_ms FROM baton_outbox ORDER BY position LIMIT 1) AS SIGNED), \
     (SELECT COUNT(*) FROM baton_outbox FORCE INDEX (baton_outbox_parked) WHERE parked IS NOT NULL), (SELECT COUNT(*) FROM baton_outbox_done), \
     (SELECT CAST(COALESCE(SUM(data_length + index_length), 0) AS SIGNED) FROM information_schema.tables \
     WHERE table_schema = DATABASE() AND table_name IN ('baton_outbox', 'baton_outbox_done'))"
);
