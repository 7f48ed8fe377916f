//! The demonstration, in small.

use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;

use crate::binary::{baton, ran};

const PATIENCE: Duration = Duration::from_secs(60);

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
    let started = std::fs::read_to_string(kept.join("demo-broker.log")).unwrap().matches("ready").count();
    assert_eq!(started, 2, "the broker, and the broker after its kill");
    let (code, _, stderr) = ran(&["demo", "--keep", keep]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("not empty"), "{stderr}");
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_demonstration_that_is_killed_leaves_no_broker_behind() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let mut demo = baton(&["demo", "--keep", kept.to_str().unwrap()]).stdout(Stdio::null()).spawn().unwrap();
    let address = eventually("the broker", || {
        let log = std::fs::read_to_string(kept.join("demo-broker.log")).ok()?;
        let ready = log.lines().find(|line| line.contains("ready"))?;
        let address = ready.split("address=").nth(1)?.split_whitespace().next()?;
        Some(address.to_owned())
    });
    TcpStream::connect(&address).unwrap();
    demo.kill().unwrap();
    demo.wait().unwrap();
    eventually("the broker to end", || TcpStream::connect(&address).is_err().then_some(()));
}
