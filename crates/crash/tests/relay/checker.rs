//! The checker over runs that were made up.

use std::fmt::Write as _;

use baton_crash::check_relays;
use rusqlite::Connection;

use crate::places;

/// A message in the topic: partition, account, version, attempt, and the fields of its stamp behind the version.
type Arrived = (u32, &'static str, i64, &'static str, &'static str);

const LINES: [&str; 7] = [
    r#"{"kind":"killed","member":"relay-1"}"#,
    r#"{"kind":"killed","member":"service-2"}"#,
    r#"{"kind":"fault","what":"relay killed","hides_commits":false,"from_ms":1,"to_ms":2}"#,
    r#"{"kind":"attempt","name":"s/1","how":"committed"}"#,
    r#"{"kind":"attempt","name":"s/2","how":"rolled back"}"#,
    r#"{"kind":"attempt","name":"s/3","how":"unknown"}"#,
    r#"{"kind":"attempt","name":"s/4","how":"failed"}"#,
];
/// `s/5` was killed after its commit. Account, version, attempt, id.
const CHANGES: [(&str, i64, &str, &str); 5] = [
    ("account-0", 1, "s/1", "m1"),
    ("account-0", 2, "s/3", "m2"),
    ("account-1", 1, "s/1", "m3"),
    ("account-0", 3, "s/5", "m4"),
    ("loose-120", 1, "s/5", "m5"),
];
/// The relay died after two messages. The second one comes again after the take-over, under its stamp.
const ARRIVALS: [Arrived; 6] = [
    (0, "account-0", 1, "s/1", "m1;crash.0;1;1"),
    (0, "account-0", 2, "s/3", "m2;crash.0;1;2"),
    (0, "account-0", 2, "s/3", "m2;crash.0;1;2"),
    (0, "account-0", 3, "s/5", "m4;crash.0;2;1"),
    (1, "account-1", 1, "s/1", "m3;crash.1;1;1"),
    (1, "loose-120", 1, "s/5", "m5;crash.2;1;1"),
];
const BYTES: u32 = 100;

/// A run, to be spoilt.
struct MadeUp {
    lines: Vec<&'static str>,
    changes: Vec<(&'static str, i64, &'static str, &'static str)>,
    arrivals: Vec<Arrived>,
    bytes: u32,
    waiting: bool,
}

impl MadeUp {
    fn clean() -> Self {
        let (lines, changes, arrivals) = (LINES.to_vec(), CHANGES.to_vec(), ARRIVALS.to_vec());
        Self { lines, changes, arrivals, bytes: BYTES, waiting: false }
    }

    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut run = Self::clean();
        change(&mut run);
        run
    }

    fn verdict(&self) -> (bool, String) {
        let folder = tempfile::tempdir().unwrap();
        let mut text = self.lines.join("\n") + "\n";
        for (place, (partition, account, version, attempt, stamp)) in self.arrivals.iter().enumerate() {
            let key = if account.starts_with("loose") { "null".to_owned() } else { format!("\"{account}\"") };
            let head = format!(r#"{{\"name\":\"{account}\",\"version\":{version},\"attempt\":\"{attempt}\"}}"#);
            writeln!(
                text,
                r#"{{"kind":"arrival","partition":{partition},"place":{place},"key":{key},"stamp":"1;{stamp}","head":"{head}","bytes":{}}}"#,
                self.bytes
            )
            .unwrap();
        }
        // A process that was killed leaves a torn line.
        std::fs::write(folder.path().join("all.jsonl"), text + r#"{"kind":"attem"#).unwrap();
        let path = folder.path().join("business.db");
        let connection = Connection::open(&path).unwrap();
        let tables =
            "CREATE TABLE accounts (name, version); CREATE TABLE changes (name, version, attempt, message_id, bytes);
            CREATE TABLE baton_outbox (position, topic, id, parked);
            INSERT INTO accounts VALUES ('account-0', 3), ('account-1', 1), ('account-2', 0), ('loose-120', 1)";
        connection.execute_batch(tables).unwrap();
        for (account, version, attempt, id) in &self.changes {
            let row = (account, version, attempt, id, BYTES);
            connection.execute("INSERT INTO changes VALUES (?1, ?2, ?3, ?4, ?5)", row).unwrap();
        }
        if self.waiting {
            connection.execute("INSERT INTO baton_outbox VALUES (9, 'orders', 'm9', NULL)", ()).unwrap();
        }
        drop(connection);
        check_relays(&places(), folder.path(), &format!("sqlite:{}", path.display())).unwrap()
    }

    fn breaks(&self, rule: &str) {
        let (clean, said) = self.verdict();
        assert!(!clean, "{rule} is not found:\n{said}");
        assert!(said.contains(&format!("\n{rule}: ")), "{rule} is no rule:\n{said}");
        assert!(!said.contains(&format!("\n{rule}: 0")), "{rule} is not what was found:\n{said}");
    }
}

#[test]
fn a_clean_run_passes_with_unknown_commits_and_a_message_that_came_again() {
    let (clean, said) = MadeUp::clean().verdict();
    assert!(clean, "{said}");
}

#[test]
fn a_committed_row_that_has_not_arrived_is_lost() {
    MadeUp::with(|run| _ = run.arrivals.remove(3)).breaks("lost");
    MadeUp::with(|run| _ = run.arrivals.pop()).breaks("lost");
}

#[test]
fn what_was_not_committed_is_a_stranger() {
    MadeUp::with(|run| run.arrivals.push((0, "account-0", 4, "s/2", "m6;crash.0;2;2"))).breaks("strangers");
    // The version was committed, by another transaction.
    MadeUp::with(|run| run.arrivals[0].3 = "s/2").breaks("strangers");
    // It was written with another length.
    MadeUp::with(|run| run.bytes = 99).breaks("strangers");
}

#[test]
fn a_key_out_of_the_order_of_commits_is_found() {
    MadeUp::with(|run| run.arrivals.swap(1, 0)).breaks("out_of_order");
    // A copy in another partition has no order there.
    MadeUp::with(|run| run.arrivals[3].0 = 1).breaks("out_of_order");
}

#[test]
fn a_repeat_under_another_stamp_or_id_is_found() {
    MadeUp::with(|run| run.arrivals[2].4 = "m2;crash.0;2;1").breaks("restamped");
    MadeUp::with(|run| run.arrivals[2].4 = "m7;crash.0;1;2").breaks("restamped");
    // Not the id that it was written with.
    MadeUp::with(|run| run.arrivals[4].4 = "m7;crash.1;1;1").breaks("restamped");
    // The number of another message.
    MadeUp::with(|run| run.arrivals[3].4 = "m4;crash.0;1;2").breaks("restamped");
    MadeUp::with(|run| run.arrivals[4].4 = "none").breaks("restamped");
}

#[test]
fn a_sequence_with_a_gap_is_found() {
    MadeUp::with(|run| run.arrivals[3].4 = "m4;crash.0;2;2").breaks("gaps");
}

#[test]
fn what_a_frontier_would_drop_is_found() {
    MadeUp::with(|run| {
        run.arrivals[4] = (1, "account-1", 1, "s/1", "m3;crash.2;1;2");
    })
    .breaks("dropped");
}

#[test]
fn a_database_that_does_not_keep_its_word_is_found() {
    MadeUp::with(|run| run.lines[6] = r#"{"kind":"attempt","name":"s/5","how":"rolled back"}"#).breaks("broken_word");
    MadeUp::with(|run| run.lines[6] = r#"{"kind":"attempt","name":"s/5","how":"failed"}"#).breaks("broken_word");
    MadeUp::with(|run| run.lines[6] = r#"{"kind":"attempt","name":"s/9","how":"committed"}"#).breaks("broken_word");
    MadeUp::with(|run| _ = run.changes.remove(1)).breaks("broken_word");
}

#[test]
fn a_row_that_waits_at_the_end_is_left_behind() {
    MadeUp::with(|run| run.waiting = true).breaks("left_behind");
}

#[test]
fn a_run_without_evidence_is_not_clean() {
    for line in [0, 1, 2, 4] {
        MadeUp::with(|run| _ = run.lines.remove(line)).breaks("nothing_to_judge");
    }
    MadeUp::with(|run| run.arrivals.clear()).breaks("nothing_to_judge");
}
