//! Many writers at once, as the relay sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use baton_core::relay::Change;
use baton_outbox::Look;
use tokio::sync::Mutex;

use crate::database::{Database, numbered, on_each_database};
use crate::finding::{look, number};

on_each_database!(whatever_commits_is_found_once_and_keys_come_in_their_order);

const WRITERS: u64 = 6;
const KEYS: usize = 5;
const LASTS: Duration = Duration::from_secs(4);

/// A small generator, so that a run can be told by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Whoever writes for a key holds its lock until it has committed, as a service holds the row of the account. Within a transaction there are
/// other rows before and after, and pauses, so that positions and commits cross.
async fn write(database: &Database, writer: u64, seed: u64, locks: &[Mutex<u64>]) -> BTreeSet<String> {
    let mut random = Random(seed ^ (writer << 32));
    let mut connection = database.writer().await;
    let (began, mut committed) = (Instant::now(), BTreeSet::new());
    while began.elapsed() < LASTS {
        let key = random.below(KEYS as u64) as usize;
        let mut next = locks[key].lock().await;
        connection.begin().await;
        let mut ids = Vec::new();
        let mut count = 0;
        for _ in 0..=random.below(3) {
            let free = numbered(&format!("free-{writer}"), 0);
            ids.extend(connection.enqueue(vec![free, numbered(&format!("k{key}"), *next + count)]).await);
            count += 1;
            if database.overlaps() {
                let pause_ms = if random.below(12) == 0 { 150 } else { random.below(4) };
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
        }
        if random.below(4) == 0 {
            connection.roll_back().await;
        } else {
            connection.commit().await;
            *next += count;
            committed.extend(ids.iter().map(ToString::to_string));
        }
        drop(next);
        tokio::time::sleep(Duration::from_millis(random.below(3))).await;
    }
    committed
}

async fn whatever_commits_is_found_once_and_keys_come_in_their_order(database: Database) {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let database = Arc::new(database);
    let locks: Arc<Vec<Mutex<u64>>> = Arc::new((0..KEYS).map(|_| Mutex::new(0)).collect());
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (database, locks) = (Arc::clone(&database), Arc::clone(&locks));
            tokio::spawn(async move { write(&database, writer, seed, &locks).await })
        })
        .collect();
    let (over, queries) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
    let finding = {
        let (database, over) = (Arc::clone(&database), Arc::clone(&over));
        tokio::spawn(async move {
            let (store, mut random) = (database.store(), Random(seed));
            let (mut search, mut found, mut deleted) = (store.search(), Vec::new(), 0);
            loop {
                let ended = over.load(Relaxed);
                let look = Look { bytes_max: 1 + random.below(200) as usize, ..look(1 + random.below(20) as usize) };
                let rows = search.next(&look).await.unwrap();
                queries.fetch_add(1, Relaxed);
                let more = rows.more;
                found.extend(rows.rows);
                // Some are done, and leave the table, others stay for long.
                let up_to = found.len().saturating_sub(random.below(100) as usize);
                if up_to > deleted && random.below(3) == 0 {
                    let done =
                        found[deleted..up_to].iter().map(|row: &baton_core::relay::Row<_>| row.position).collect();
                    deleted = up_to;
                    store.write(&Change { done, ..Change::default() }, false).await.unwrap();
                }
                if !more && ended {
                    return (found, queries.into_inner());
                }
                if !more {
                    store.wait(Duration::from_millis(20)).await.unwrap();
                }
            }
        })
    };
    let mut committed = BTreeSet::new();
    for writer in writers {
        committed.extend(writer.await.unwrap());
    }
    over.store(true, Relaxed);
    let (found, queries) = finding.await.unwrap();
    let ids: BTreeSet<String> = found.iter().map(|row| row.id.to_string()).collect();
    assert_eq!(ids.len(), found.len(), "nothing comes twice");
    assert_eq!(ids, committed, "all that has committed comes, and nothing else");
    let mut next: BTreeMap<&[u8], u64> = BTreeMap::new();
    for row in found.iter().filter(|row| row.key.as_ref().unwrap().starts_with(b"k")) {
        let next = next.entry(row.key.as_deref().unwrap()).or_default();
        assert_eq!(number(row), *next, "of key {:?}", row.key);
        *next += 1;
    }
    let late = found.windows(2).filter(|pair| pair[1].position < pair[0].position).count();
    println!("{} rows in {queries} queries; {late} times one came behind a later position", found.len());
    assert!(found.len() > 100 && (late > 0 || !database.overlaps()), "{} rows, {late} late", found.len());
}
