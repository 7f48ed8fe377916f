//! The statements. They are about the database that the connection has chosen.

use std::time::Duration;

use crate::Durable;

pub(super) const TABLES: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS baton_inbox (
  consumer_group VARBINARY(255) NOT NULL,
  message_id     VARBINARY(128) NOT NULL,
  done_at        TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (consumer_group, message_id),
  INDEX baton_inbox_done_at (consumer_group, done_at)
) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS baton_frontier (
  consumer_group VARBINARY(255) NOT NULL,
  topic          VARBINARY(255) NOT NULL,
  `partition`    INT UNSIGNED NOT NULL,
  instance       VARBINARY(64) NOT NULL,
  epoch          INT UNSIGNED NOT NULL,
  version        BIGINT NOT NULL,
  frontier       BIGINT NOT NULL,
  beyond         MEDIUMTEXT CHARACTER SET ascii NOT NULL,
  changed_at     TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (consumer_group, topic, `partition`, instance, epoch)
) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS baton_fence (
  consumer_group VARBINARY(255) NOT NULL,
  topic          VARBINARY(255) NOT NULL,
  `partition`    INT UNSIGNED NOT NULL,
  epoch          BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (consumer_group, topic, `partition`)
) ENGINE = InnoDB",
];

/// Begins a transaction. Without `autocommit = 0`, what a handler writes after a deadlock would be committed at once.
pub(super) fn begin(lock_wait: Duration, idle_wait: Duration) -> String {
    let seconds = |wait: Duration| wait.as_secs_f64().ceil().clamp(1.0, 1e6);
    format!(
        "SET autocommit = 0, innodb_lock_wait_timeout = {}, wait_timeout = {}; \
         SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION; SAVEPOINT baton_begin",
        seconds(lock_wait),
        seconds(idle_wait)
    )
}

pub(super) const COMMIT: &str = "COMMIT; SET autocommit = 1";
/// Fails if the transaction is not the one that was begun, and then does nothing more.
pub(super) const CHECK_AND_COMMIT: &str = "RELEASE SAVEPOINT baton_begin; COMMIT; SET autocommit = 1";
pub(super) const ROLLBACK: &str = "ROLLBACK; SET autocommit = 1";

/// The lock keeps the next owner waiting until this transaction has ended.
pub(super) const CHECK_FENCE: &str = "SELECT 1 FROM baton_fence WHERE consumer_group = ? AND topic = ? AND `partition` = ? \
AND epoch = ? LOCK IN SHARE MODE";

pub(super) const TAKE_OVER: &str =
    "INSERT INTO baton_fence VALUES (?, ?, ?, 1) ON DUPLICATE KEY UPDATE epoch = epoch + 1";

pub(super) const READ_FENCE: &str =
    "SELECT epoch FROM baton_fence WHERE consumer_group = ? AND topic = ? AND `partition` = ?";

/// IGNORE would also pass over values that do not fit; these do: both are checked before they get here.
pub(super) const MARK_ONE: &str = "INSERT IGNORE INTO baton_inbox (consumer_group, message_id) VALUES (?, ?)";

pub(super) const MARK_MANY_RETURNING: &str = "INSERT IGNORE INTO baton_inbox (consumer_group, message_id) \
SELECT ?, id FROM JSON_TABLE(?, '$[*]' COLUMNS (id VARCHAR(128) CHARACTER SET ascii PATH '$')) AS ids RETURNING message_id";

pub(super) const LOCK_MARKED: &str = "SELECT message_id FROM baton_inbox WHERE consumer_group = ? AND message_id IN \
(SELECT CAST(id AS BINARY) FROM JSON_TABLE(?, '$[*]' COLUMNS (id VARCHAR(128) CHARACTER SET ascii PATH '$')) AS ids) FOR UPDATE";

pub(super) const MARK_MANY: &str = "INSERT INTO baton_inbox (consumer_group, message_id) \
SELECT ?, id FROM JSON_TABLE(?, '$[*]' COLUMNS (id VARCHAR(128) CHARACTER SET ascii PATH '$')) AS ids";

pub(super) const READ_FRONTIER: &str = "SELECT version, frontier, beyond FROM baton_frontier \
WHERE consumer_group = :group AND topic = :topic AND `partition` = :partition AND instance = :instance AND epoch = :epoch";

pub(super) const LOCK_FRONTIER: &str = "SELECT version, frontier, beyond FROM baton_frontier \
WHERE consumer_group = :group AND topic = :topic AND `partition` = :partition AND instance = :instance AND epoch = :epoch \
FOR UPDATE";

pub(super) const CREATE_FRONTIER: &str = "INSERT IGNORE INTO baton_frontier \
(consumer_group, topic, `partition`, instance, epoch, version, frontier, beyond) \
VALUES (:group, :topic, :partition, :instance, :epoch, 0, 0, '')";

pub(super) const MOVE_FRONTIER: &str = "UPDATE baton_frontier SET version = :version, frontier = :frontier, beyond = :beyond, \
changed_at = CURRENT_TIMESTAMP WHERE consumer_group = :group AND topic = :topic AND `partition` = :partition \
AND instance = :instance AND epoch = :epoch";

/// Without locks. A `DELETE` of a range of times would lock, and wait for, the row behind the range, which somebody may be making.
pub(super) const FIND_OLD_MARKS: &str = "SELECT message_id FROM baton_inbox \
WHERE consumer_group = ? AND done_at < NOW() - INTERVAL ? SECOND LIMIT ?";

/// Deletes so many marks by their keys: nothing between them is locked. The age is looked at again, since a mark may have been pruned
/// by another and made anew meanwhile.
pub(super) fn prune_marks(count: usize) -> String {
    let keys = vec!["?"; count].join(", ");
    format!(
        "DELETE mark FROM baton_inbox AS mark FORCE INDEX (PRIMARY) WHERE mark.consumer_group = ? \
         AND mark.message_id IN ({keys}) AND mark.done_at < NOW() - INTERVAL ? SECOND"
    )
}

pub(super) const PRUNE_FRONTIER: &str =
    "DELETE FROM baton_frontier WHERE consumer_group = ? AND changed_at < NOW() - INTERVAL ? SECOND LIMIT ?";

const LOST: &str = "a crash takes the last commits back: effects of messages that were acknowledged are missing";

pub(crate) const SETTINGS: &[Durable] = &[
    Durable { setting: "innodb_flush_log_at_trx_commit", fine: &["1"], wanted: "1", consequence: LOST },
    Durable {
        setting: "innodb_doublewrite",
        fine: &["1", "ON", "DETECT_AND_RECOVER"],
        wanted: "ON",
        consequence: "a page that was half written when the power failed cannot be repaired",
    },
];

/// Message ids are visible ASCII, so that two characters are all that needs care.
pub(super) fn json_array(ids: &[&str]) -> String {
    let mut text = String::with_capacity(ids.iter().map(|id| id.len() + 3).sum::<usize>() + 2);
    text.push('[');
    for (at, id) in ids.iter().enumerate() {
        text.push_str(if at == 0 { "\"" } else { ",\"" });
        for character in id.chars() {
            if matches!(character, '"' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push('"');
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_all_characters_stay_what_they_are_in_json() {
        assert_eq!(json_array(&["a", r#"b"\c"#]), r#"["a","b\"\\c"]"#);
        assert_eq!(json_array(&[]), "[]");
    }
}
