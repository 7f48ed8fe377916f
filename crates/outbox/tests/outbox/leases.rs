//! Who works on which shard, and that nobody else can write to it.

use std::time::{Duration, Instant};

use baton_core::relay::{Change, Claimed, Parked, Window};
use baton_outbox::{Lease, OutboxError, OutboxStore, Written};
use bytes::Bytes;

use crate::database::{Database, numbered, on_each_database};
use crate::finding::{all, look};

on_each_database!(
    the_outbox_keeps_its_first_name,
    tables_that_are_not_there_are_named_as_what_is_wrong,
    of_many_that_want_a_shard_one_gets_it,
    who_takes_a_shard_over_gets_its_window_and_shuts_out_the_one_before,
    a_lease_ends_by_the_clock_of_the_database_unless_it_is_renewed,
    who_leaves_keeps_nobody_waiting,
    a_change_is_all_or_nothing,
    a_change_that_is_written_twice_does_no_harm,
    done_rows_are_kept_and_pruned,
);

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_secs(2);

fn lease(member: &str, lasts: Duration) -> Lease {
    Lease { member: member.to_owned(), lasts }
}

fn window(positions: &[i64]) -> Bytes {
    let mut window = Window::default();
    for (sequence, position) in positions.iter().enumerate() {
        window.insert(*position, Claimed { partition: 1, epoch: 1, sequence: sequence as u64 + 1 });
    }
    Bytes::from(window.encode())
}

async fn owner(store: &dyn OutboxStore, shard: u16) -> Option<String> {
    let shards = store.status().await.unwrap().shards;
    shards.into_iter().find(|status| status.shard == shard).unwrap().owner
}

async fn the_outbox_keeps_its_first_name(database: Database) {
    let store = database.store();
    store.init("other").await.unwrap();
    assert_eq!(store.name().await.unwrap(), "shop");
    let mut writer = database.writer().await;
    writer.run("UPDATE baton_outbox_info SET version = 2").await.unwrap();
    assert!(matches!(store.name().await, Err(OutboxError::Caller(_))), "tables of a later version are left alone");
}

async fn tables_that_are_not_there_are_named_as_what_is_wrong(database: Database) {
    let (store, mut writer) = (database.store(), database.writer().await);
    for table in ["baton_outbox", "baton_outbox_info"] {
        writer.run(&format!("DROP TABLE {table}")).await.unwrap();
    }
    assert!(matches!(store.name().await, Err(OutboxError::NotPrepared(_))));
    assert!(matches!(store.search().next(&look(1)).await, Err(OutboxError::NotPrepared(_))));
    let refused = writer.enqueue_with(baton_outbox::Outbox::new(), vec![numbered("k", 1)]).await;
    assert!(matches!(refused, Err(OutboxError::NotPrepared(_))), "{refused:?}");
    // And can be made again.
    store.init("shop").await.unwrap();
    assert_eq!(store.name().await.unwrap(), "shop");
}

async fn of_many_that_want_a_shard_one_gets_it(database: Database) {
    for _ in 0..5 {
        let attempts: Vec<_> = (0..6)
            .map(|member| {
                let store = database.store();
                tokio::spawn(async move { store.take(&lease(&format!("m{member}"), LONG), 0).await })
            })
            .collect();
        let mut taken = Vec::new();
        for attempt in attempts {
            match attempt.await.unwrap() {
                Ok(tenure) => taken.extend(tenure),
                // It may be that they were in each other's way.
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        }
        assert_eq!(taken.len(), 1, "{taken:?}");
        database.store().release(0, taken[0].epoch).await.unwrap();
    }
}

async fn who_takes_a_shard_over_gets_its_window_and_shuts_out_the_one_before(database: Database) {
    let (one, two) = (database.store(), database.store());
    let first = one.take(&lease("one", LONG), 0).await.unwrap().unwrap();
    assert!(first.window.is_empty());
    let claims = window(&[17, 18]);
    let change = Change { windows: vec![(0, first.epoch, claims.clone())], ..Change::default() };
    assert_eq!(one.write(&change, false).await.unwrap(), Written::Done);
    assert_eq!(two.take(&lease("two", LONG), 0).await.unwrap(), None, "somebody has it");
    one.release(0, first.epoch + 1).await.unwrap();
    assert_eq!(owner(&*one, 0).await.as_deref(), Some("one"), "given up only under its own epoch");
    one.release(0, first.epoch).await.unwrap();
    let second = two.take(&lease("two", LONG), 0).await.unwrap().unwrap();
    assert_eq!((second.epoch, &second.window), (first.epoch + 1, &claims));
    let status = two.status().await.unwrap();
    assert_eq!((status.shards[0].claimed, status.shards[0].epoch), (2, u64::from(second.epoch)));

    // Whoever has been replaced writes nothing, and learns it.
    database.writer().await.write(vec![numbered("k", 1)]).await;
    let row = all(&mut *one.search(), &look(1)).await.remove(0).position;
    let late = Change { windows: vec![(0, first.epoch, Bytes::new())], done: vec![row], ..Change::default() };
    assert_eq!(one.write(&late, false).await.unwrap(), Written::Fenced(vec![(0, first.epoch)]));
    assert_eq!(database.rows().await, 1);
    one.release(0, first.epoch).await.unwrap();
    assert_eq!(owner(&*one, 0).await.as_deref(), Some("two"));
    two.release(0, second.epoch).await.unwrap();
    assert_eq!(one.take(&lease("one", LONG), 0).await.unwrap().unwrap().window, claims, "nothing of it was written");
}

async fn a_lease_ends_by_the_clock_of_the_database_unless_it_is_renewed(database: Database) {
    let (one, two) = (database.store(), database.store());
    let tenure = one.take(&lease("one", SHORT), 0).await.unwrap().unwrap();
    let members = one.heartbeat(&lease("one", SHORT)).await.unwrap();
    assert_eq!(members.live, ["one"]);
    let began = Instant::now();
    while began.elapsed() < SHORT * 2 {
        let members = one.heartbeat(&lease("one", SHORT)).await.unwrap();
        assert_eq!(members.shards[0].owner.as_deref(), Some("one"));
        if began.elapsed() < SHORT {
            assert_eq!(two.take(&lease("two", SHORT), 0).await.unwrap(), None);
        }
        tokio::time::sleep(SHORT / 10).await;
    }
    let last = Instant::now();
    let taken = loop {
        if let Some(taken) = two.take(&lease("two", LONG), 0).await.unwrap() {
            break taken;
        }
        assert!(last.elapsed() < LONG);
        tokio::time::sleep(SHORT / 20).await;
    };
    // It was renewed before `last`, by at most the time between two renewals.
    assert!(last.elapsed() > SHORT / 2, "{:?}", last.elapsed());
    assert_eq!(taken.epoch, tenure.epoch + 1);
    let members = two.heartbeat(&lease("two", LONG)).await.unwrap();
    assert_eq!((members.live, members.shards[0].owner.as_deref()), (vec!["two".to_owned()], Some("two")));
    let members = one.heartbeat(&lease("one", LONG)).await.unwrap();
    assert_eq!(members.shards[0].owner.as_deref(), Some("two"), "what was lost does not come back by renewing");
}

async fn who_leaves_keeps_nobody_waiting(database: Database) {
    let (one, two) = (database.store(), database.store());
    one.heartbeat(&lease("one", LONG)).await.unwrap();
    one.take(&lease("one", LONG), 0).await.unwrap().unwrap();
    two.heartbeat(&lease("two", LONG)).await.unwrap();
    one.leave(&lease("one", LONG)).await.unwrap();
    let members = two.heartbeat(&lease("two", LONG)).await.unwrap();
    assert_eq!((members.live, members.shards[0].owner.as_deref()), (vec!["two".to_owned()], None));
    two.take(&lease("two", LONG), 0).await.unwrap().unwrap();
    one.leave(&lease("one", LONG)).await.unwrap();
    assert_eq!(owner(&*two, 0).await.as_deref(), Some("two"));
}

async fn a_change_is_all_or_nothing(database: Database) {
    let store = database.store();
    if store.status().await.unwrap().shards.len() < 2 {
        return;
    }
    database.writer().await.write((0..3).map(|number| numbered("k", number)).collect()).await;
    let rows = all(&mut *store.search(), &look(10)).await;
    let mine = store.take(&lease("one", LONG), 3).await.unwrap().unwrap();
    let change = |epoch: u32| Change {
        windows: vec![(3, mine.epoch, window(&[1, 2])), (4, epoch, window(&[3]))],
        done: vec![rows[0].position],
        parked: vec![Parked { position: rows[1].position, shard: 3, reason: "it is".to_owned() }],
    };
    let not_mine = store.take(&lease("two", LONG), 4).await.unwrap().unwrap();
    let fenced = store.write(&change(not_mine.epoch - 1), false).await.unwrap();
    assert_eq!(fenced, Written::Fenced(vec![(4, not_mine.epoch - 1)]));
    let status = store.status().await.unwrap();
    assert_eq!((status.rows, status.parked, status.shards[3].claimed), (3, 0, 0));
    assert_eq!(store.write(&change(not_mine.epoch), false).await.unwrap(), Written::Done);
    let status = store.status().await.unwrap();
    assert_eq!((status.rows, status.parked), (2, 1));
    assert_eq!((status.shards[3].claimed, status.shards[4].claimed), (2, 1));
}

async fn a_change_that_is_written_twice_does_no_harm(database: Database) {
    let store = database.store();
    database.writer().await.write((0..1_200).map(|number| numbered("k", number)).collect()).await;
    let rows = all(&mut *store.search(), &look(2_000)).await;
    let epoch = store.take(&lease("one", LONG), 0).await.unwrap().unwrap().epoch;
    let change = Change {
        windows: vec![(0, epoch, window(&[rows[1_199].position]))],
        done: rows[..1_100].iter().map(|row| row.position).collect(),
        parked: vec![Parked { position: rows[1_198].position, shard: 0, reason: "x".repeat(5_000) }],
    };
    for _ in 0..2 {
        assert_eq!(store.write(&change, true).await.unwrap(), Written::Done);
        let status = store.status().await.unwrap();
        assert_eq!((status.rows, status.done, status.parked), (100, 1_100, 1));
        assert_eq!(status.shards[0].claimed, 1);
    }
}

async fn done_rows_are_kept_and_pruned(database: Database) {
    let store = database.store();
    database.writer().await.write((0..10).map(|number| numbered("k", number)).collect()).await;
    let rows = all(&mut *store.search(), &look(10)).await;
    let positions: Vec<i64> = rows.iter().map(|row| row.position).collect();
    store.write(&Change { done: positions[..2].to_vec(), ..Change::default() }, false).await.unwrap();
    store.write(&Change { done: positions[2..7].to_vec(), ..Change::default() }, true).await.unwrap();
    let status = store.status().await.unwrap();
    assert_eq!((status.name.as_str(), status.rows, status.done), ("shop", 3, 5));
    assert!(status.oldest.unwrap() < LONG && status.bytes > 0);
    assert_eq!(store.prune(LONG, 100).await.unwrap(), 0, "none is so old");
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(store.prune(Duration::from_millis(1), 3).await.unwrap(), 3);
    assert_eq!(store.prune(Duration::from_millis(1), 3).await.unwrap(), 2);
    assert_eq!(store.status().await.unwrap().done, 0);
}
