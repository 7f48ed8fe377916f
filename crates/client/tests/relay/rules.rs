//! What a relay promises, on each database.

use std::time::{Duration, Instant};

use baton::Message;
use baton::relay::Relay;
use baton_testkit::proxy::{Fault, Proxy};

use crate::database::{Database, Kind, numbered, on_each_database};
use crate::support::{LONG, World, until};
use crate::topic::{judge, read, wait_for};

/// Long beside what a database takes for a transaction on a machine that is busy with many other tests.
const LEASE: Duration = Duration::from_secs(3);

on_each_database!(
    committed_rows_come_in_the_order_of_their_keys_and_leave_the_table,
    a_late_commit_is_sent_and_delays_nobody,
    what_any_program_inserts_is_sent_under_the_id_of_its_row,
    a_row_that_the_engine_cannot_have_is_parked_and_its_key_alone_waits,
    relays_share_the_work_and_a_dead_one_is_replaced_within_its_lease,
    an_engine_that_is_away_holds_nobody_up_and_gets_everything_later,
    a_relay_that_sleeps_is_woken_by_a_commit,
    a_row_without_a_key_that_was_let_go_is_sent,
    a_relay_that_comes_back_under_its_name_goes_on_with_what_it_left,
    a_database_that_falls_silent_is_given_up_and_asked_anew,
    for_a_topic_that_is_not_there_some_rows_are_parked_and_the_rest_waits_until_it_is,
);

async fn start(database: &Database, world: &World, member: &str) -> Relay {
    world.baton.relay(database.store()).member(member).lease(LEASE).start().await.unwrap()
}

async fn committed_rows_come_in_the_order_of_their_keys_and_leave_the_table(database: Database) {
    let world = World::start(&[("orders", 3)]).await;
    let relay = start(&database, &world, "one").await;
    let mut writer = database.writer().await;
    for number in 0..200_u64 {
        writer.begin().await;
        let messages = (0..5).map(|place| numbered(&format!("k{}", (number + place) % 17), number * 5 + place));
        writer.enqueue(messages.collect()).await;
        if number % 4 == 3 { writer.roll_back().await } else { writer.commit().await }
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

async fn a_late_commit_is_sent_and_delays_nobody(database: Database) {
    if !database.overlaps() {
        return;
    }
    let world = World::start(&[("orders", 1)]).await;
    let relay = start(&database, &world, "one").await;
    let (mut writer, mut long) = (database.writer().await, database.writer().await);
    long.begin().await;
    long.enqueue(vec![numbered("slow", 1)]).await;
    for number in 0..50 {
        writer.begin().await;
        writer.enqueue(vec![numbered("quick", number)]).await;
        writer.commit().await;
    }
    let came = wait_for(&world, "orders", 1, 50).await;
    assert!(came.iter().all(|came| came.key == "quick"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    long.commit().await;
    let came = wait_for(&world, "orders", 1, 51).await;
    assert_eq!(came.last().unwrap().key, "slow");
    relay.stop(LONG).await.unwrap();
}

async fn what_any_program_inserts_is_sent_under_the_id_of_its_row(database: Database) {
    let world = World::start(&[("orders", 2)]).await;
    let relay = start(&database, &world, "one").await;
    let mut writer = database.writer().await;
    let key = if database.kind == Kind::Mariadb { "`key`" } else { "key" };
    let insert = format!(
        "INSERT INTO baton_outbox (id, topic, {key}, payload, headers) \
         VALUES ('order-17', 'orders', 'k', '1', '{{\"tenant\":\"north\",\"raw\":{{\"base64\":\"/w==\"}}}}')"
    );
    writer.run(&insert).await.unwrap();
    let came = wait_for(&world, "orders", 2, 1).await;
    assert_eq!((came[0].id.as_str(), came[0].stamp.instance.as_str().split_once('.').unwrap().0), ("order-17", "shop"));
    let mut delivered = world.read("orders", 0).await;
    delivered.extend(world.read("orders", 1).await);
    let headers = &delivered[0].headers;
    assert_eq!(
        (headers.last("tenant").unwrap().as_ref(), headers.last("raw").unwrap().as_ref()),
        (&b"north"[..], &[0xff][..])
    );
    relay.stop(LONG).await.unwrap();
}

async fn a_row_that_the_engine_cannot_have_is_parked_and_its_key_alone_waits(database: Database) {
    let world = World::start(&[("orders", 2)]).await;
    let store = database.store();
    let relay = start(&database, &world, "one").await;
    let mut writer = database.writer().await;
    writer.begin().await;
    let large = Message::to("orders").key("large").payload(vec![b'x'; 2 << 20]);
    let nowhere = Message::to("nowhere").key("k").payload("1");
    writer.enqueue(vec![large, numbered("k", 1), nowhere]).await;
    writer.commit().await;
    wait_for(&world, "orders", 2, 1).await;
    let mut parked = Vec::new();
    while parked.len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        parked = store.parked(0, 10).await.unwrap();
    }
    assert_eq!((parked[0].topic.as_str(), parked[1].topic.as_str()), ("orders", "nowhere"), "{parked:?}");
    writer.begin().await;
    writer.enqueue(vec![numbered("large", 2), numbered("k", 2)]).await;
    writer.commit().await;
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

async fn relays_share_the_work_and_a_dead_one_is_replaced_within_its_lease(database: Database) {
    let world = World::start(&[("orders", 4)]).await;
    let mut writer = database.writer().await;
    let mut relays = Vec::new();
    for member in ["one", "two", "three"] {
        relays.push(start(&database, &world, member).await);
    }
    // On SQLite one works, and the others stand by.
    let shares = if database.kind == Kind::Sqlite { [0, 0, 1] } else { [5, 5, 6] };
    until("they have come to their shares", || {
        let mut shards: Vec<usize> = relays.iter().map(|relay| relay.metrics().shards).collect();
        shards.sort_unstable();
        shards == shares
    })
    .await;
    let mut number = 0;
    for round in 0..60 {
        writer.begin().await;
        let messages = (0..25).map(|place| numbered(&format!("k{}", place % 23), number + place)).collect::<Vec<_>>();
        number += 25;
        writer.enqueue(messages).await;
        writer.commit().await;
        if round % 20 == 10 && relays.len() > 1 {
            // Without a word, while it has rows under way.
            drop(relays.remove(0));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let came = wait_for(&world, "orders", 4, 1_500).await;
    judge(&came);
    until("the last one has all shards", || relays[0].metrics().shards == shares.iter().sum::<usize>()).await;
    relays.remove(0).stop(LONG).await.unwrap();
    assert_eq!(database.rows().await, 0);
}

async fn an_engine_that_is_away_holds_nobody_up_and_gets_everything_later(database: Database) {
    let mut world = World::start(&[("orders", 2)]).await;
    let relay = start(&database, &world, "one").await;
    let mut writer = database.writer().await;
    let mut number = 0;
    for phase in 0..3 {
        for _ in 0..100 {
            writer.begin().await;
            writer.enqueue(vec![numbered(&format!("k{}", number % 7), number)]).await;
            writer.commit().await;
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

async fn a_relay_that_sleeps_is_woken_by_a_commit(database: Database) {
    let world = World::start(&[("orders", 2)]).await;
    let mut writer = database.writer().await;
    // It would look again after a minute, where the database tells when there is something; MariaDB does not.
    let poll = if database.kind == Kind::Mariadb { Duration::from_millis(100) } else { LONG };
    let relay = world.baton.relay(database.store()).poll(poll).start().await.unwrap();
    until("it has its shards", || relay.metrics().shards > 0).await;
    for number in 0..40 {
        writer.begin().await;
        writer.enqueue(vec![numbered("k", number)]).await;
        writer.commit().await;
        tokio::time::sleep(Duration::from_millis(20 * (number % 3))).await;
    }
    until("everything is acknowledged", || relay.metrics().acknowledged == 40).await;
    let latency = relay.metrics().latency;
    println!("{latency:?}");
    assert!(latency.quantile(0.9).unwrap() < LONG / 4, "{latency:?}");
    relay.stop(LONG).await.unwrap();
}

async fn a_row_without_a_key_that_was_let_go_is_sent(database: Database) {
    let world = World::start(&[("orders", 1)]).await;
    let (store, mut writer) = (database.store(), database.writer().await);
    let relay = start(&database, &world, "one").await;
    writer.write(vec![Message::to("nowhere").payload("1"), numbered("k", 2)]).await;
    wait_for(&world, "orders", 1, 1).await;
    let mut parked = Vec::new();
    while parked.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        parked = store.parked(i64::MIN, 10).await.unwrap();
    }
    // The relay has seen that it is parked.
    tokio::time::sleep(LEASE).await;
    world.create("nowhere", 1).await;
    assert_eq!(store.retry(&[parked[0].position]).await.unwrap(), 1);
    wait_for(&world, "nowhere", 1, 1).await;
    relay.stop(LONG).await.unwrap();
    assert_eq!(database.rows().await, 0);
}

async fn a_relay_that_comes_back_under_its_name_goes_on_with_what_it_left(database: Database) {
    let world = World::start(&[("orders", 1)]).await;
    let mut writer = database.writer().await;
    let relay = start(&database, &world, "one").await;
    until("it has its shards", || relay.metrics().shards > 0).await;
    // Without a word: the leases are its own still when it comes back, and it renews them.
    drop(relay);
    writer.write(vec![numbered("k", 1)]).await;
    let relay = start(&database, &world, "one").await;
    wait_for(&world, "orders", 1, 1).await;
    relay.stop(LONG).await.unwrap();
    assert_eq!(database.rows().await, 0);
}

async fn a_database_that_falls_silent_is_given_up_and_asked_anew(database: Database) {
    let Some(address) = database.address() else { return };
    let world = World::start(&[("orders", 1)]).await;
    let proxy = Proxy::start("127.0.0.1:0", address).await.unwrap();
    let relay = world.baton.relay(database.store_at(proxy.address())).lease(LEASE).start().await.unwrap();
    let mut writer = database.writer().await;
    writer.write(vec![numbered("k", 1)]).await;
    wait_for(&world, "orders", 1, 1).await;
    // The connections stay open, and nothing comes: no system ends them.
    let opened = proxy.connections();
    proxy.set(Fault::Stall);
    until("it is noticed", || relay.metrics().database_errors > 0).await;
    writer.write(vec![numbered("k", 2)]).await;
    proxy.set(Fault::None);
    let came = wait_for(&world, "orders", 1, 2).await;
    judge(&came);
    assert!(proxy.connections() > opened, "on new connections: the state of the others is not known");
    relay.stop(LONG).await.unwrap();
}

async fn for_a_topic_that_is_not_there_some_rows_are_parked_and_the_rest_waits_until_it_is(database: Database) {
    const PARKED: u64 = 1_000;
    const ROWS: usize = 1_500;
    let world = World::start(&[("orders", 1)]).await;
    let relay = start(&database, &world, "one").await;
    let mut writer = database.writer().await;
    let lost = |number: usize| Message::to("nowhere").payload(number.to_string());
    writer.write((0..ROWS).map(lost).collect()).await;
    until("as many are parked as say what is wrong", || relay.metrics().parked >= PARKED).await;
    writer.write(vec![numbered("k", 1)]).await;
    wait_for(&world, "orders", 1, 1).await;
    // The row of the other topic leaves a moment after it came.
    until("it is acknowledged", || relay.metrics().acknowledged == 1).await;
    let began = Instant::now();
    while database.rows().await != ROWS as u64 {
        assert!(began.elapsed() < LONG, "{} rows", database.rows().await);
    }
    assert_eq!(database.store().status().await.unwrap().parked, PARKED);
    world.create("nowhere", 1).await;
    let came = wait_for(&world, "nowhere", 1, ROWS - usize::try_from(PARKED).unwrap()).await;
    assert_eq!(came.len(), ROWS - usize::try_from(PARKED).unwrap(), "those that are parked wait for somebody");
    relay.stop(LONG).await.unwrap();
}
