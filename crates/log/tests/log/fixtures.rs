//! Directories written by earlier versions: each of them opens for ever.
//!
//! A new one is made with `BATON_WRITE_FIXTURES=1 cargo test -p baton-log --test log fixtures`, once per format version,
//! and never changed afterwards.

use std::path::{Path, PathBuf};

use baton_log::{AppendOutcome, FileDisk, LogOptions};

use super::support::*;

fn directory(version: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version).join(name)
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 2 << 10, reserve_step_bytes: 1 << 10, free_bytes_min: 0, ..LogOptions::default() }
}

/// Batches of idempotent producer 9, one after the other.
fn payments() -> Vec<Vec<u8>> {
    (0..20).map(|at| batch_of((9, 3, at * 2), 2, 60)).collect()
}

/// What every fixture holds: closed segments, checkpoints, a moved log start, a deleted topic, tables, producers.
fn write_fixture(path: &Path, in_order: bool) {
    std::fs::create_dir_all(path).unwrap();
    let (log, _) = open_on(std::sync::Arc::new(FileDisk::open(path).unwrap()), options());
    let orders = create_topic(&log, "orders", 2);
    create_topic(&log, "gone", 1);
    let payments_partition = create_topic(&log, "payments", 1)[0];
    commit(&log, log.delete_topic("gone").unwrap());
    let configs = [("cleanup.policy".to_owned(), "delete".to_owned())].into();
    commit(&log, log.set_topic_configs("orders", configs).unwrap());
    for (at, batch) in payments().iter().enumerate() {
        write(&log, payments_partition, batch);
        write(&log, orders[at % 2], &super::support::batch(&format!("order {at}")));
        log.maintain_once();
    }
    commit(&log, log.write_table(TABLE, vec![("group-a".into(), Some("41".into())), ("b".into(), None)]).unwrap());
    commit(&log, log.delete_records(orders[0], 4).unwrap());
    if in_order {
        log.close();
    }
    drop(log);
    std::fs::remove_file(path.join("lock")).unwrap();
}

fn assert_fixture_opens(path: &Path) {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let place = Place::Real(copy);
    let (log, report) = place.open(options());
    assert_eq!((report.cut, report.damage.len(), report.indexes_rebuilt), (None, 0, 0));
    assert!(report.segments > 2);
    let catalog = log.catalog();
    let names: Vec<&str> = catalog.topics().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["orders", "payments"]);
    let (orders, payments_topic) = (catalog.topic("orders").unwrap(), catalog.topic("payments").unwrap());
    assert_eq!(orders.configs.get("cleanup.policy").map(String::as_str), Some("delete"));
    assert_eq!(&orders.id[..6], b"orders");
    let partition = payments_topic.partitions[0];
    let expected: Vec<Vec<u8>> =
        payments().iter().enumerate().map(|(at, batch)| stored(batch, at as i64 * 2)).collect();
    assert_eq!(read_from(&log, partition, 0).unwrap(), expected);
    for (number, partition) in orders.partitions.iter().enumerate() {
        let start = if number == 0 { 4 } else { 0 };
        assert_eq!(log.bounds(*partition).map(|bounds| (bounds.log_start, bounds.high_watermark)), Some((start, 10)));
        let expected: Vec<Vec<u8>> = (start..10)
            .map(|offset| stored(&batch(&format!("order {}", offset * 2 + number as i64)), offset))
            .collect();
        assert_eq!(read_from(&log, *partition, start).unwrap(), expected);
    }
    assert_eq!(log.table_scan(TABLE, b""), [("group-a".into(), "41".into())]);
    assert_eq!(append(&log, partition, &payments()[17]).outcome, AppendOutcome::Duplicate { base_offset: 34 });
    assert_eq!(write(&log, partition, &batch_of((9, 3, 40), 1, 5)), 40);
    assert!(create_topic(&log, "new", 1)[0].0 >= 4, "the deleted topic's number is not used again");
}

#[test]
fn a_v1_directory_that_was_closed_in_order_opens() {
    assert_fixture_opens(&directory("v1", "closed"));
}

#[test]
fn a_v1_directory_whose_process_was_killed_opens() {
    assert_fixture_opens(&directory("v1", "killed"));
}

/// What is written today opens today, so that a fixture of the next version would.
#[test]
fn what_the_generator_writes_opens() {
    let temporary = tempfile::tempdir().unwrap();
    for (name, in_order) in [("closed", true), ("killed", false)] {
        let path = temporary.path().join(name);
        write_fixture(&path, in_order);
        assert_fixture_opens(&path);
        if std::env::var_os("BATON_WRITE_FIXTURES").is_some() {
            let target = directory("v1", name);
            assert!(!target.exists(), "{} exists; fixtures are never changed", target.display());
            write_fixture(&target, in_order);
        }
    }
}
