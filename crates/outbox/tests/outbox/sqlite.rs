//! What SQLite does in its own way.

use std::time::{Duration, Instant};

use baton_outbox::OutboxError;

use crate::database::{Database, Kind, numbered};
use crate::finding::{all, look, number};

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_sleeps_is_woken_by_a_commit_and_by_nothing_else() {
    let database = Database::new(Kind::Sqlite).await;
    let (store, mut writer) = (database.store(), database.writer().await);
    let long = Duration::from_secs(30);
    // What was before it first looked.
    store.wait(long).await.unwrap();
    let mut waits = Vec::new();
    for round in 0..20 {
        let began = Instant::now();
        let write = async {
            tokio::time::sleep(Duration::from_millis(40)).await;
            writer.write(vec![numbered("k", round)]).await;
            Instant::now()
        };
        let wait = async {
            store.wait(long).await.unwrap();
            Instant::now()
        };
        let (written, woken) = tokio::join!(write, wait);
        assert!(woken.duration_since(began) >= Duration::from_millis(40), "nobody had written");
        waits.push(woken.saturating_duration_since(written));
    }
    waits.sort_unstable();
    println!("from the commit until woken: median {:?}, longest {:?}", waits[10], waits[19]);
    assert!(waits[10] < Duration::from_millis(200), "{waits:?}");

    writer.begin().await;
    writer.enqueue(vec![numbered("k", 99)]).await;
    writer.roll_back().await;
    let began = Instant::now();
    store.wait(Duration::from_millis(300)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300), "a rollback is no commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_before_a_wait_ends_it_at_once() {
    let database = Database::new(Kind::Sqlite).await;
    let (store, mut writer) = (database.store(), database.writer().await);
    let mut search = store.search();
    store.wait(Duration::from_millis(1)).await.unwrap();
    assert!(all(&mut *search, &look(10)).await.is_empty());
    // Between the look and the wait.
    writer.write(vec![numbered("k", 1)]).await;
    let began = Instant::now();
    store.wait(Duration::from_secs(30)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(all(&mut *search, &look(10)).await.iter().map(number).collect::<Vec<_>>(), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_held_for_long_is_something_that_passes() {
    let database = Database::new(Kind::Sqlite).await;
    let (store, mut writer) = (database.store(), database.writer().await);
    writer.begin().await;
    writer.enqueue(vec![numbered("k", 1)]).await;
    let lease = baton_outbox::Lease { member: "one".to_owned(), lasts: Duration::from_secs(60) };
    let refused = store.heartbeat(&lease).await;
    assert!(matches!(&refused, Err(error) if error.is_transient()), "{refused:?}");
    assert!(all(&mut *store.search(), &look(10)).await.is_empty(), "who looks waits for nobody");
    writer.commit().await;
    store.heartbeat(&lease).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_could_not_read_is_refused_whoever_writes_it() {
    let database = Database::new(Kind::Sqlite).await;
    let mut writer = database.writer().await;
    let wrong = [
        "(id, topic) VALUES ('a' || char(0) || ' b', 'orders')",
        "(id, topic) VALUES (x'61', 'orders')",
        "(id, topic) VALUES (17.5, x'61')",
        "(topic) VALUES (x'61')",
        "(topic, key) VALUES ('orders', 17)",
        "(topic, payload) VALUES ('orders', 1.5)",
        "(topic, payload) VALUES ('orders', zeroblob(16777217))",
        "(topic, partition) VALUES ('orders', -1)",
        "(topic, partition) VALUES ('orders', 'first')",
        "(topic, occurred_ms) VALUES ('orders', 'now')",
    ];
    for values in wrong {
        assert!(writer.run(&format!("INSERT INTO baton_outbox {values}")).await.is_err(), "{values}");
    }
    writer
        .run("INSERT INTO baton_outbox (topic, payload) VALUES (CAST(x'ff' AS TEXT), zeroblob(16777216))")
        .await
        .unwrap();
    let rows = all(&mut *database.store().search(), &look(10)).await;
    assert_eq!((rows.len(), &*rows[0].topic), (1, "\u{fffd}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_is_not_made_by_looking_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.db");
    let store = baton_outbox::SqliteOutbox::new(&path);
    let name = baton_outbox::OutboxStore::name(&store).await;
    assert!(matches!(name, Err(OutboxError::Unavailable { .. })), "{name:?}");
    assert!(!path.exists());
}
