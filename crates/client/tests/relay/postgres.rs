use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use baton::outbox::{Duplicate, Outbox, OutboxError, OutboxStore, PostgresOutbox};
use baton::relay::Relay;
use baton::{Message, MessageId};
use baton_testkit::servers::Server;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, Config, NoTls};

use crate::support::{LONG, World, until};
use crate::topic::{judge, read, wait_for};

const LEASE: Duration = Duration::from_millis(600);

/// A database of its own, with an outbox in it.
struct Database {
    config: Config,
    client: Client,
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Database {
    async fn new() -> Self {
        static SERVER: OnceCell<Server> = OnceCell::const_new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let start = || async { tokio::task::spawn_blocking(|| Server::start("postgres")).await.unwrap() };
        let address = SERVER.get_or_init(start).await.address();
        let (host, port) = address.split_once(':').unwrap();
        let mut config = Config::new();
        config.host(host).port(port.parse().unwrap()).user("postgres").dbname("postgres");
        let name = format!("relay_{}", NEXT.fetch_add(1, Relaxed));
        connect(&config).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        config.dbname(&name);
        let database = Self { client: connect(&config).await, config };
        database.store().init("shop").await.unwrap();
        database
    }

    fn store(&self) -> Arc<PostgresOutbox> {
        Arc::new(PostgresOutbox::new(self.config.clone()))
    }

    async fn relay(&self, world: &World, member: &str) -> Relay {
        world.baton.relay(self.store()).member(member).lease(LEASE).start().await.unwrap()
    }

    async fn rows(&self) -> i64 {
        self.client.query_one("SELECT count(*) FROM baton_outbox", &[]).await.unwrap().get(0)
    }
}

fn numbered(key: &str, number: u64) -> Message {
    Message::to("orders").key(key.to_owned()).payload(number.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_rows_come_in_the_order_of_their_keys_and_leave_the_table() {
    let world = World::start(&[("orders", 3)]).await;
    let mut database = Database::new().await;
    let relay = database.relay(&world, "one").await;
    let outbox = Outbox::new();
    for number in 0..200_u64 {
        let mut transaction = database.client.transaction().await.unwrap();
        let messages = (0..5).map(|place| numbered(&format!("k{}", (number + place) % 17), number * 5 + place));
        outbox.enqueue_all(&mut transaction, messages).await.unwrap();
        if number % 4 == 3 { transaction.rollback().await.unwrap() } else { transaction.commit().await.unwrap() }
    }
    let came = wait_for(&world, "orders", 3, 750).await;
    judge(&came);
    assert_eq!(came.len(), 750, "nothing is sent twice, or of a transaction that was rolled back");
    until("everything is acknowledged", || relay.metrics().acknowledged == 750).await;
    relay.stop(LONG).await.unwrap();
    assert_eq!(database.rows().await, 0);
    let status = database.store().status().await.unwrap();
    assert!(status.members.is_empty() && status.shards.iter().all(|shard| shard.owner.is_none() && shard.claimed == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_commit_is_sent_and_delays_nobody() {
    let world = World::start(&[("orders", 1)]).await;
    let mut database = Database::new().await;
    let relay = database.relay(&world, "one").await;
    let outbox = Outbox::new();
    let mut other = connect(&database.config).await;
    let mut long = other.transaction().await.unwrap();
    outbox.enqueue(&mut long, numbered("slow", 1)).await.unwrap();
    for number in 0..50 {
        let mut transaction = database.client.transaction().await.unwrap();
        outbox.enqueue(&mut transaction, numbered("quick", number)).await.unwrap();
        transaction.commit().await.unwrap();
    }
    let came = wait_for(&world, "orders", 1, 50).await;
    assert!(came.iter().all(|came| came.key == "quick"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    long.commit().await.unwrap();
    let came = wait_for(&world, "orders", 1, 51).await;
    assert_eq!(came.last().unwrap().key, "slow");
    relay.stop(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_any_program_inserts_is_sent_under_the_id_of_its_row() {
    let world = World::start(&[("orders", 2)]).await;
    let database = Database::new().await;
    let relay = database.relay(&world, "one").await;
    let insert = "INSERT INTO baton_outbox (id, topic, key, payload, headers) \
                  VALUES ('order-17', 'orders', 'k', '1', '{\"tenant\":\"north\",\"raw\":{\"base64\":\"/w==\"}}')";
    database.client.batch_execute(insert).await.unwrap();
    let came = wait_for(&world, "orders", 2, 1).await;
    assert_eq!((came[0].id.as_str(), came[0].stamp.instance.as_str().split_once('.').unwrap().0), ("order-17", "shop"));
    let mut delivered = world.read("orders", 0).await;
    delivered.extend(world.read("orders", 1).await);
    let headers = &delivered[0].headers;
    assert_eq!(
        (headers.last("tenant").unwrap().as_ref(), headers.last("raw").unwrap().as_ref()),
        (&b"north"[..], &[0xff][..])
    );
    let twice = database.client.batch_execute("INSERT INTO baton_outbox (id, topic) VALUES ('a b', 'orders')").await;
    assert!(twice.is_err(), "what cannot be an id is refused when it is written");
    relay.stop(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_there_is_refused_or_passed_over_as_the_caller_says() {
    let mut database = Database::new().await;
    let message = || numbered("k", 1).id(MessageId::new("order-17").unwrap());
    let mut transaction = database.client.transaction().await.unwrap();
    Outbox::new().enqueue(&mut transaction, message()).await.unwrap();
    let again = Outbox::new().enqueue(&mut transaction, message()).await;
    assert!(matches!(again, Err(OutboxError::Duplicate(id)) if id == "order-17"));
    Outbox::new().on_duplicate(Duplicate::Ignore).enqueue(&mut transaction, message()).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(database.rows().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_engine_cannot_have_is_parked_and_its_key_alone_waits() {
    let world = World::start(&[("orders", 2)]).await;
    let mut database = Database::new().await;
    let store = database.store();
    let relay = database.relay(&world, "one").await;
    let outbox = Outbox::new();
    let mut transaction = database.client.transaction().await.unwrap();
    let large = Message::to("orders").key("large").payload(vec![b'x'; 2 << 20]);
    let nowhere = Message::to("nowhere").key("k").payload("1");
    outbox.enqueue_all(&mut transaction, [large, numbered("k", 1), nowhere]).await.unwrap();
    transaction.commit().await.unwrap();
    wait_for(&world, "orders", 2, 1).await;
    let mut parked = Vec::new();
    while parked.len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        parked = store.parked(0, 10).await.unwrap();
    }
    assert_eq!((parked[0].topic.as_str(), parked[1].topic.as_str()), ("orders", "nowhere"), "{parked:?}");
    let mut transaction = database.client.transaction().await.unwrap();
    outbox.enqueue_all(&mut transaction, [numbered("large", 2), numbered("k", 2)]).await.unwrap();
    transaction.commit().await.unwrap();
    let came = wait_for(&world, "orders", 2, 2).await;
    assert!(came.iter().all(|came| came.key == "k"));
    assert_eq!(read(&world, "orders", 2).await.len(), 2);

    // Somebody has looked at it: what waited goes on.
    store.discard(&[parked[0].position]).await.unwrap();
    world.create("nowhere", 1).await;
    store.retry(&[parked[1].position]).await.unwrap();
    wait_for(&world, "orders", 2, 3).await;
    wait_for(&world, "nowhere", 1, 1).await;
    relay.stop(LONG).await.unwrap();
    assert_eq!(database.rows().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_share_the_work_and_a_dead_one_is_replaced_within_its_lease() {
    let world = World::start(&[("orders", 4)]).await;
    let mut database = Database::new().await;
    let outbox = Outbox::new();
    let mut relays = Vec::new();
    for member in ["one", "two", "three"] {
        relays.push(database.relay(&world, member).await);
    }
    until("they have come to even shares", || {
        let mut shards: Vec<usize> = relays.iter().map(|relay| relay.metrics().shards).collect();
        shards.sort_unstable();
        shards == [5, 5, 6]
    })
    .await;
    let mut number = 0;
    for round in 0..60 {
        let mut transaction = database.client.transaction().await.unwrap();
        let messages = (0..25).map(|place| numbered(&format!("k{}", place % 23), number + place)).collect::<Vec<_>>();
        number += 25;
        outbox.enqueue_all(&mut transaction, messages).await.unwrap();
        transaction.commit().await.unwrap();
        if round % 20 == 10 && relays.len() > 1 {
            // Without a word, while it has rows under way.
            drop(relays.remove(0));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let came = wait_for(&world, "orders", 4, 1_500).await;
    judge(&came);
    until("the last one has all shards", || relays[0].metrics().shards == 16).await;
    relays.remove(0).stop(LONG).await.unwrap();
    assert_eq!(database.rows().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_holds_nobody_up_and_gets_everything_later() {
    let mut world = World::start(&[("orders", 2)]).await;
    let mut database = Database::new().await;
    let relay = database.relay(&world, "one").await;
    let outbox = Outbox::new();
    let mut number = 0;
    for phase in 0..3 {
        for _ in 0..100 {
            let mut transaction = database.client.transaction().await.unwrap();
            outbox.enqueue(&mut transaction, numbered(&format!("k{}", number % 7), number)).await.unwrap();
            transaction.commit().await.unwrap();
            number += 1;
        }
        match phase {
            0 => world.kill().await,
            1 => {
                tokio::time::sleep(Duration::from_secs(2)).await;
                world.start_again().await;
            }
            _ => {}
        }
    }
    judge(&wait_for(&world, "orders", 2, 300).await);
    until("everything is acknowledged", || relay.metrics().acknowledged == 300).await;
    relay.stop(LONG).await.unwrap();
    assert_eq!(database.rows().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_sleeps_is_woken_by_a_commit() {
    let world = World::start(&[("orders", 2)]).await;
    let mut database = Database::new().await;
    let store = database.store();
    // It would look again after a minute.
    let relay = world.baton.relay(store).poll(LONG).start().await.unwrap();
    until("it has its shards", || relay.metrics().shards == 16).await;
    for number in 0..40 {
        let mut transaction = database.client.transaction().await.unwrap();
        Outbox::new().enqueue(&mut transaction, numbered("k", number)).await.unwrap();
        transaction.commit().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20 * (number % 3))).await;
    }
    until("everything is acknowledged", || relay.metrics().acknowledged == 40).await;
    let latency = relay.metrics().latency;
    println!("{latency:?}");
    assert!(latency.quantile(0.9).unwrap() < Duration::from_secs(1), "{latency:?}");
    relay.stop(LONG).await.unwrap();
}
