//! The demonstration, in small.

use std::path::Path;

use rusqlite::Connection;
use serde_json::Value;

use crate::binary::ran;

fn number(database: &Path, sql: &str) -> i64 {
    Connection::open(database).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn every_order_is_applied_once_whoever_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let keep = kept.to_str().unwrap();
    let (code, stdout, stderr) = ran(&["demo", "--orders", "800", "--kills", "2", "--json", "--keep", keep]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let verdict: Value = serde_json::from_str(&stdout).unwrap();
    let expected = [
        ("orders_sent", 800),
        ("orders_applied", 800),
        ("beans", 80_000),
        ("applied_twice", 0),
        ("missing", 0),
        ("applied_without_receipt", 0),
        ("consumer_kills", 2),
        ("broker_kills", 1),
    ];
    for (name, figure) in expected {
        assert_eq!(verdict[name], figure, "{name} in {verdict}");
    }
    assert_eq!(verdict["holds"], true);
    // The same from the databases, which it was told to keep.
    let beans = kept.join("beans.db");
    assert_eq!(number(&beans, "SELECT count(*) FROM beans"), 800);
    assert_eq!(number(&beans, "SELECT count(DISTINCT order_id) FROM beans"), 800);
    assert_eq!(number(&kept.join("receipts.db"), "SELECT count(*) FROM receipts"), 800);
    // Each start of each process has left its lines: they were started again.
    let started = std::fs::read_to_string(kept.join("serve.log")).unwrap().matches("ready").count();
    assert_eq!(started, 2, "the broker, and the broker after its kill");
    let (code, _, stderr) = ran(&["demo", "--keep", keep]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("not empty"), "{stderr}");
}
