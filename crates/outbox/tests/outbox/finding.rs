//! Which rows are found, and in which order.

use baton_core::Message;
use baton_core::relay::{Change, Parked, Row};
use baton_outbox::{Look, OutboxRow, OutboxStore, SHARDS, Search, decode_headers};
use bytes::Bytes;

use crate::database::{Database, Kind, numbered, on_each_database};

on_each_database!(
    what_commits_is_found_once_and_what_is_rolled_back_never,
    a_late_commit_is_found_before_what_comes_after_it,
    late_rows_that_do_not_fit_into_one_query_come_in_order,
    rows_that_do_not_fit_into_one_query_come_in_order_with_the_next_ones,
    a_search_that_begins_again_brings_everything_that_is_there,
    a_search_brings_the_shards_that_it_is_asked_for,
    a_parked_row_is_not_found_until_it_is_let_go,
    headers_and_contents_come_back_as_they_were,
    what_any_program_inserts_is_checked_and_read,
);

pub fn look(rows_max: usize) -> Look {
    Look { restart: false, shards: (0..SHARDS).collect(), rows_max, bytes_max: 1 << 20 }
}

pub fn number(row: &Row<OutboxRow>) -> u64 {
    std::str::from_utf8(row.item.payload.as_deref().unwrap()).unwrap().parse().unwrap()
}

/// Everything that a search brings until there is no more.
pub async fn all(search: &mut dyn Search, look: &Look) -> Vec<Row<OutboxRow>> {
    let mut rows = Vec::new();
    loop {
        let found = search.next(look).await.unwrap();
        assert!(found.rows.len() <= look.rows_max);
        rows.extend(found.rows);
        if !found.more {
            return rows;
        }
    }
}

async fn numbers(search: &mut dyn Search, look: &Look) -> Vec<u64> {
    all(search, look).await.iter().map(number).collect()
}

async fn what_commits_is_found_once_and_what_is_rolled_back_never(database: Database) {
    let store = database.store();
    let (mut search, mut writer) = (store.search(), database.writer().await);
    assert!(all(&mut *search, &look(10)).await.is_empty());
    for round in 0..10 {
        writer.begin().await;
        let ids = writer.enqueue(vec![numbered("a", round * 2), numbered("b", round * 2 + 1)]).await;
        if database.overlaps() {
            assert!(all(&mut *search, &look(10)).await.is_empty(), "nothing has committed");
        }
        if round % 3 == 2 {
            writer.roll_back().await;
            assert!(all(&mut *search, &look(10)).await.is_empty());
            continue;
        }
        writer.commit().await;
        let rows = all(&mut *search, &look(10)).await;
        let found: Vec<_> = rows.iter().map(|row| (row.id.clone(), number(row), &*row.topic)).collect();
        let written = [(ids[0].clone(), round * 2, "orders"), (ids[1].clone(), round * 2 + 1, "orders")];
        assert_eq!(found, written);
    }
}

/// As long as nobody has told the planner how large the table is, which is a minute or more under load.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_does_not_read_what_is_new_once_for_each_row_that_was_seen() {
    let database = Database::new(Kind::Postgres).await;
    let mut writer = database.writer().await;
    let insert = |rows: u64| {
        format!("INSERT INTO baton_outbox (topic, payload) SELECT 'orders', '7' FROM generate_series(1, {rows})")
    };
    // Of connections made from now on. It takes milliseconds, or minutes.
    let limit =
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = ''20s''', current_database()); END $$";
    writer.run(limit).await.unwrap();
    writer.run("ALTER TABLE baton_outbox SET (autovacuum_enabled = false)").await.unwrap();
    let store = database.store();
    let (mut search, look) = (store.search(), look(10_000));
    assert!(all(&mut *search, &look).await.is_empty(), "what it asks is prepared while the table is empty");
    writer.run(&insert(10_000)).await.unwrap();
    assert_eq!(all(&mut *search, &look).await.len(), 10_000);
    writer.run(&insert(30_000)).await.unwrap();
    assert_eq!(all(&mut *search, &look).await.len(), 30_000);
}

async fn a_late_commit_is_found_before_what_comes_after_it(database: Database) {
    if !database.overlaps() {
        return;
    }
    let store = database.store();
    let mut search = store.search();
    let (mut first, mut second, mut third) =
        (database.writer().await, database.writer().await, database.writer().await);
    first.begin().await;
    first.enqueue(vec![numbered("k", 1)]).await;
    second.begin().await;
    second.enqueue(vec![numbered("late", 2), numbered("k", 3)]).await;
    third.write(vec![numbered("k", 4)]).await;
    assert_eq!(numbers(&mut *search, &look(10)).await, [4], "it waits for nobody");
    first.commit().await;
    third.write(vec![numbered("k", 5)]).await;
    assert_eq!(numbers(&mut *search, &look(10)).await, [1, 5], "late rows come first");
    third.write(vec![numbered("k", 6)]).await;
    assert_eq!(numbers(&mut *search, &look(10)).await, [6]);
    second.commit().await;
    assert_eq!(numbers(&mut *search, &look(10)).await, [2, 3]);
    assert_eq!(numbers(&mut *search, &look(10)).await, [0; 0]);
}

async fn late_rows_that_do_not_fit_into_one_query_come_in_order(database: Database) {
    if !database.overlaps() {
        return;
    }
    let store = database.store();
    let mut search = store.search();
    let (mut long, mut other, mut quick) = (database.writer().await, database.writer().await, database.writer().await);
    long.begin().await;
    other.begin().await;
    for number in 0..10 {
        other.enqueue(vec![numbered("other", number)]).await;
        long.enqueue(vec![numbered("k", 100 + number)]).await;
    }
    quick.write(vec![numbered("quick", 200)]).await;
    assert_eq!(numbers(&mut *search, &look(3)).await, [200]);
    long.commit().await;
    quick.write(vec![numbered("k", 300)]).await;
    let first = search.next(&look(3)).await.unwrap();
    assert_eq!((first.rows.iter().map(number).collect::<Vec<_>>(), first.more), (vec![100, 101, 102], true));
    // Positions before and between those that came and those that did not.
    other.commit().await;
    quick.write(vec![numbered("other", 400)]).await;
    let rest = numbers(&mut *search, &look(3)).await;
    let of = |from: u64, to: u64| rest.iter().copied().filter(|number| (from..to).contains(number)).collect::<Vec<_>>();
    assert_eq!(of(100, 110), (103..110).collect::<Vec<_>>());
    assert_eq!(of(0, 10), (0..10).collect::<Vec<_>>());
    let place = |number| rest.iter().position(|found| *found == number).unwrap();
    assert!(place(109) < place(300) && place(9) < place(400), "{rest:?}");
    assert_eq!(rest.len(), 19, "each once: {rest:?}");
    assert_eq!(numbers(&mut *search, &look(3)).await, [0; 0]);
}

async fn rows_that_do_not_fit_into_one_query_come_in_order_with_the_next_ones(database: Database) {
    let store = database.store();
    let mut writer = database.writer().await;
    writer.write((0..50).map(|number| numbered(&format!("k{}", number % 3), number)).collect()).await;
    let written: Vec<u64> = (0..50).collect();
    for rows_max in [1, 7, 50, 51] {
        assert_eq!(numbers(&mut *store.search(), &look(rows_max)).await, written);
    }
    for bytes_max in [1, 9, 100, 10_000] {
        let look = Look { bytes_max, ..look(1_000) };
        let mut search = store.search();
        let first = search.next(&look).await.unwrap();
        let bytes = |row: &Row<OutboxRow>| row.item.payload.as_ref().unwrap().len() + row.key.as_ref().unwrap().len();
        let before_last: usize = first.rows.iter().rev().skip(1).map(bytes).sum();
        assert!(before_last < bytes_max, "one more than fits at most");
        assert_eq!(first.more, bytes_max < 10_000);
        let mut found: Vec<u64> = first.rows.iter().map(number).collect();
        found.extend(numbers(&mut *search, &look).await);
        assert_eq!(found, written);
    }
}

async fn a_search_that_begins_again_brings_everything_that_is_there(database: Database) {
    let store = database.store();
    let mut writer = database.writer().await;
    let mut search = store.search();
    writer.write((0..20).map(|number| numbered("k", number)).collect()).await;
    let rows = all(&mut *search, &look(6)).await;
    let change = Change { done: rows[..5].iter().map(|row| row.position).collect(), ..Change::default() };
    store.write(&change, false).await.unwrap();
    assert!(all(&mut *search, &look(6)).await.is_empty());
    let mut again = search.next(&Look { restart: true, ..look(6) }).await.unwrap().rows;
    again.extend(all(&mut *search, &look(6)).await);
    assert_eq!(again, rows[5..]);
    assert!(all(&mut *search, &look(6)).await.is_empty());
}

async fn a_search_brings_the_shards_that_it_is_asked_for(database: Database) {
    let store = database.store();
    let mut writer = database.writer().await;
    writer.write((0..200).map(|number| numbered(&format!("k{number}"), number)).collect()).await;
    let every = all(&mut *store.search(), &look(1_000)).await;
    assert_eq!(every.len(), 200);
    let mut found = 0;
    for shard in 0..SHARDS {
        let look = Look { shards: vec![shard], ..look(7) };
        let rows = all(&mut *store.search(), &look).await;
        assert!(rows.iter().all(|row| row.shard == shard));
        found += rows.len();
    }
    assert_eq!(found, 200, "each row is in one shard");
    let lease = baton_outbox::Lease { member: "one".to_owned(), lasts: std::time::Duration::from_secs(60) };
    let shards = store.heartbeat(&lease).await.unwrap().shards.len();
    let mut used: Vec<u16> = every.iter().map(|row| row.shard).collect();
    used.sort_unstable();
    used.dedup();
    assert_eq!(used.len(), shards, "of 200 keys one falls into each shard");
    assert!(all(&mut *store.search(), &Look { shards: Vec::new(), ..look(7) }).await.is_empty());
}

async fn a_parked_row_is_not_found_until_it_is_let_go(database: Database) {
    let store = database.store();
    let mut writer = database.writer().await;
    let mut search = store.search();
    writer.write((0..6).map(|number| numbered("k", number)).collect()).await;
    let rows = all(&mut *search, &look(100)).await;
    let park =
        |row: &Row<OutboxRow>| Parked { position: row.position, shard: row.shard, reason: "too large ☹".to_owned() };
    let change = Change { parked: vec![park(&rows[1]), park(&rows[2]), park(&rows[3])], ..Change::default() };
    store.write(&change, false).await.unwrap();
    let parked = store.parked(i64::MIN, 2).await.unwrap();
    assert_eq!(parked.len(), 2);
    assert_eq!((parked[0].position, parked[0].id.as_str()), (rows[1].position, rows[1].id.as_str()));
    assert_eq!((parked[0].topic.as_str(), parked[0].key.as_deref()), ("orders", Some(&b"k"[..])));
    assert_eq!(parked[0].reason, "too large ☹");
    assert_eq!(store.parked(parked[1].position, 2).await.unwrap().len(), 1);
    assert_eq!(store.status().await.unwrap().parked, 3);

    let again = Look { restart: true, ..look(100) };
    let found = |rows: Vec<Row<OutboxRow>>| rows.iter().map(number).collect::<Vec<_>>();
    assert_eq!(found(search.next(&again).await.unwrap().rows), [0, 4, 5]);
    assert_eq!(numbers(&mut *search, &look(100)).await, [0; 0], "those that were passed over are not late");
    assert_eq!(store.retry(&[rows[1].position, rows[4].position]).await.unwrap(), 1, "one of them was parked");
    assert_eq!(store.discard(&[rows[2].position, rows[4].position]).await.unwrap(), 1);
    assert_eq!(found(search.next(&again).await.unwrap().rows), [0, 1, 4, 5]);
    assert_eq!(store.parked(i64::MIN, 10).await.unwrap().len(), 1);
    assert_eq!(database.rows().await, 5);
}

async fn headers_and_contents_come_back_as_they_were(database: Database) {
    let store = database.store();
    let mut writer = database.writer().await;
    let bytes: Vec<u8> = (0..=255).collect();
    let full = Message::to("Orders-é")
        .key(bytes.clone())
        .payload(bytes.clone())
        .header("tenant", "north \"quoted\" \\ \u{1F600}")
        .header("raw", vec![0xff, 0, 0xfe])
        .header("tenant", "twice")
        .header("empty", "")
        .partition(7)
        .timestamp_ms(1_698_539_400_123);
    let mut full = full;
    full.headers.push("absent", None);
    let empty = Message::to("t");
    let blank = Message::to("t").key("").payload("");
    let headers = full.headers.clone();
    writer.write(vec![full, empty, blank]).await;
    let rows = all(&mut *store.search(), &look(10)).await;
    assert_eq!(&*rows[0].topic, "Orders-é");
    assert_eq!((rows[0].key.as_deref(), rows[0].item.payload.as_deref()), (Some(&bytes[..]), Some(&bytes[..])));
    assert_eq!(decode_headers(rows[0].item.headers.as_deref().unwrap()).unwrap(), headers);
    assert_eq!((rows[0].item.partition, rows[0].item.timestamp_ms), (Some(7), Some(1_698_539_400_123)));
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    assert!(u128::from(rows[0].item.written_ms.unsigned_abs()).abs_diff(now_ms) < 60_000);
    let none = (&rows[1].key, &rows[1].item.payload, &rows[1].item.headers, rows[1].item.partition);
    assert_eq!((none, rows[1].item.timestamp_ms), ((&None, &None, &None, None), None));
    assert_eq!((&rows[2].key, &rows[2].item.payload), (&Some(Bytes::new()), &Some(Bytes::new())));
    let positions: Vec<i64> = rows.iter().map(|row| row.position).collect();
    let mut read = store.rows(&positions).await.unwrap();
    read.sort_by_key(|row| row.position);
    assert_eq!(read, rows);
    assert!(store.rows(&[i64::MAX]).await.unwrap().is_empty());
}

async fn what_any_program_inserts_is_checked_and_read(database: Database) {
    let store = database.store();
    let mut writer = database.writer().await;
    let key = if database.kind == Kind::Mariadb { "`key`" } else { "key" };
    let insert = format!(
        "INSERT INTO baton_outbox (id, topic, {key}, payload, headers) \
         VALUES ('order-17', 'orders', 'k', '1', '{{\"tenant\":\"north\",\"raw\":{{\"base64\":\"/w==\"}},\"tenant\":null}}')"
    );
    writer.run(&insert).await.unwrap();
    writer.run("INSERT INTO baton_outbox (topic) VALUES ('orders')").await.unwrap();
    let wrong = [
        "(id, topic) VALUES ('a b', 'orders')",
        "(id, topic) VALUES ('a;b', 'orders')",
        "(id, topic) VALUES ('line\n', 'orders')",
        "(id, topic) VALUES ('é', 'orders')",
        "(id, topic) VALUES ('', 'orders')",
        "(id, topic) VALUES ('order-17', 'orders')",
        "(id, topic) VALUES (NULL, 'orders')",
        "(topic) VALUES ('')",
        "(topic) VALUES (NULL)",
        "(topic, payload) VALUES ('orders', repeat('x', 16777217))",
    ];
    for values in wrong {
        if database.kind == Kind::Sqlite && values.contains("repeat") {
            continue;
        }
        assert!(writer.run(&format!("INSERT INTO baton_outbox {values}")).await.is_err(), "{values}");
    }
    let long =
        |length: usize| format!("INSERT INTO baton_outbox (id, topic) VALUES ('{}', 'orders')", "x".repeat(length));
    assert!(writer.run(&long(129)).await.is_err());
    writer.run(&long(128)).await.unwrap();
    let rows = all(&mut *store.search(), &look(10)).await;
    assert_eq!(rows.iter().map(|row| row.id.as_str().len()).collect::<Vec<_>>(), [8, rows[1].id.as_str().len(), 128]);
    assert!(rows[1].id.as_str().len() >= 32, "an id is made: {}", rows[1].id);
    assert_eq!((rows[0].key.as_deref(), number(&rows[0])), (Some(&b"k"[..]), 1));
    let headers = decode_headers(rows[0].item.headers.as_deref().unwrap()).unwrap();
    assert_eq!((headers.len(), headers.last("raw").unwrap().as_ref()), (3, &[0xff][..]));
}

/// The trait's objects are used from several tasks.
#[test]
fn stores_can_be_shared() {
    fn shared<T: Send + Sync + ?Sized>() {}
    shared::<dyn OutboxStore>();
}
