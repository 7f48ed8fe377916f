//! Numbers for message ids: each comes once, whoever asks at the same time, and whatever happens to the server.

use std::ops::Range;
use std::time::{Duration, Instant};

use baton_guard::Sqlite;
use baton_guard::segments::{MysqlSegments, Numbers, PostgresSegments, RedisSegments, SegmentSource, SqliteSegments};
use baton_testkit::servers::Server;
use mysql_async::prelude::Queryable;

use crate::{mysql, postgres, redis};

const LENGTH: u32 = 10;
/// Who asks at the same time, and how often each.
const SOURCES: usize = 6;
const QUESTIONS: usize = 20;
/// How long a server that was killed may take to answer again.
const PATIENCE: Duration = Duration::from_secs(60);

fn numbers(name: &str) -> Numbers {
    Numbers::named(name).unwrap().at_a_time(LENGTH).unwrap()
}

/// Asks from all sides; all that was allotted, in order.
async fn allotted<S: SegmentSource + Clone + 'static>(sources: Vec<S>) -> Vec<Range<u64>> {
    let asking = sources.into_iter().map(|source| {
        tokio::spawn(async move {
            let mut own = Vec::new();
            for _ in 0..QUESTIONS {
                own.push(source.allot().await.unwrap());
            }
            assert!(own.is_sorted_by(|one, next| one.end <= next.start), "who asks once more goes back: {own:?}");
            own
        })
    });
    let mut all = Vec::new();
    for asked in asking.collect::<Vec<_>>() {
        all.extend(asked.await.unwrap());
    }
    all.sort_by_key(|segment| segment.start);
    all
}

/// `source` makes one on the same numbers, as another process has it; `kill` takes the server away, and gives it back with its data.
async fn come_once<S: SegmentSource + Clone + 'static>(source: impl AsyncFn() -> S, kill: impl AsyncFn()) {
    let mut sources = Vec::new();
    for _ in 0..SOURCES {
        sources.push(source().await);
    }
    let all = allotted(sources).await;
    assert!(all.windows(2).all(|two| two[0].end == two[1].start), "allotted twice, or left out: {all:?}");
    let expected = 1..1 + u64::from(LENGTH) * (SOURCES * QUESTIONS) as u64;
    assert_eq!(all[0].start..all[all.len() - 1].end, expected);
    kill().await;
    let (after, began) = (source().await, Instant::now());
    let segment = loop {
        match after.allot().await {
            Ok(segment) => break segment,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(segment.start >= expected.end, "{segment:?} was allotted before the server died");
}

async fn nothing_is_left<S: SegmentSource>(source: &S) {
    for _ in 0..2 {
        let refused = source.allot().await.unwrap_err().to_string();
        assert!(refused.contains("range") || refused.contains("overflow"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_allots_each_number_once() {
    let server = Server::start("postgres");
    let admin = postgres::pool(server.port(), 2);
    let prepare = || async { PostgresSegments::new(admin.clone(), numbers("orders")).prepare().await };
    let (once, twice) = tokio::join!(prepare(), prepare());
    once.unwrap();
    twice.unwrap();
    let roles =
        "REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE ROLE producer LOGIN; GRANT USAGE ON SCHEMA public TO producer";
    let client = admin.get().await.unwrap();
    client.batch_execute(roles).await.unwrap();
    client.batch_execute(&crate::block("PRODUCER.md", "sql", 0)).await.unwrap();
    drop(client);
    let of = async |name: &str| {
        let pool = postgres::pool_of("producer", server.port(), 1);
        PostgresSegments::new(pool, numbers(name))
    };
    come_once(async || of("orders").await, async || server.restart()).await;
    assert_eq!(of("others").await.allot().await.unwrap(), 1..11, "another name has numbers of its own");
    let last = format!("UPDATE baton_segments SET next = {}", i64::MAX);
    postgres::pool(server.port(), 1).get().await.unwrap().batch_execute(&last).await.unwrap();
    nothing_is_left(&of("orders").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_allots_each_number_once() {
    let server = Server::start("mariadb");
    let admin = mysql::pool(server.port(), 2);
    let prepare = || async { MysqlSegments::new(admin.clone(), numbers("orders")).prepare().await };
    let (once, twice) = tokio::join!(prepare(), prepare());
    once.unwrap();
    twice.unwrap();
    let mut client = admin.get_conn().await.unwrap();
    client.query_drop("CREATE USER producer").await.unwrap();
    client.query_drop(crate::block("PRODUCER.md", "sql", 0)).await.unwrap();
    drop(client);
    let of = async |name: &str| {
        let pool = mysql::pool_of("producer", server.port(), 1);
        MysqlSegments::new(pool, numbers(name))
    };
    come_once(async || of("orders").await, async || server.restart()).await;
    assert_eq!(of("others").await.allot().await.unwrap(), 1..11, "another name has numbers of its own");
    let last = format!("UPDATE baton_segments SET next = {}", i64::MAX);
    mysql::pool(server.port(), 1).get_conn().await.unwrap().query_drop(last).await.unwrap();
    nothing_is_left(&of("orders").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_allots_each_number_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("numbers.db");
    SqliteSegments::new(&Sqlite::open(&path).unwrap(), numbers("orders")).prepare().await.unwrap();
    let of = async |name: &str| SqliteSegments::new(&Sqlite::open(&path).unwrap(), numbers(name));
    // There is no server; each source has a connection of its own.
    come_once(async || of("orders").await, async || ()).await;
    assert_eq!(of("others").await.allot().await.unwrap(), 1..11, "another name has numbers of its own");
    let last = format!("UPDATE baton_segments SET next = {}", i64::MAX);
    Sqlite::open(&path).unwrap().run(move |connection| connection.execute_batch(&last)).await.unwrap().unwrap();
    let refused = of("orders").await.allot().await.unwrap_err();
    // It would go on in floating point.
    assert!(refused.to_string().contains("9223372036854775807") || refused.to_string().contains("type"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_allots_each_number_once_and_none_while_it_may_forget() {
    let server = Server::start("redis");
    let mut admin = redis::connect(server.port()).await;
    let rights = crate::block("PRODUCER.md", "redis", 0);
    let mut words = rights.split_whitespace();
    let mut allow = ::redis::cmd(words.next().unwrap());
    for word in words {
        allow.arg(word);
    }
    let of = async |key: &str| {
        let _: () = allow.query_async(&mut redis::connect(server.port()).await).await.unwrap();
        let connection = redis::connect_as("producer:secret@", server.port()).await;
        RedisSegments::new(connection, numbers(key))
    };
    come_once(async || of("numbers:orders").await, async || server.restart()).await;
    assert_eq!(of("numbers:others").await.allot().await.unwrap(), 1..11, "another name has numbers of its own");
    let forgetful = of("numbers:others").await;
    let mut set = ::redis::cmd("CONFIG");
    let _: () = set.arg("SET").arg("appendfsync").arg("everysec").query_async(&mut admin).await.unwrap();
    let refused = forgetful.allot().await.unwrap_err().to_string();
    assert!(refused.contains("appendfsync of Redis is everysec instead of always"), "{refused}");
    assert_eq!(forgetful.vouched().allot().await.unwrap(), 11..21, "somebody vouches for it");
    let mut set = ::redis::cmd("CONFIG");
    let _: () = set.arg("SET").arg("appendfsync").arg("always").query_async(&mut admin).await.unwrap();
    let mut last = ::redis::cmd("SET");
    let _: () = last.arg("numbers:orders").arg(i64::MAX).query_async(&mut admin).await.unwrap();
    nothing_is_left(&of("numbers:orders").await).await;
}
