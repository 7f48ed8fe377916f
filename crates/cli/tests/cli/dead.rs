//! Dead letters, from a service that gives them up to one that was repaired.

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

use crate::binary::{Serving, ran};
use crate::letters::{DEAD, WAIT, World, eventually, ids};

async fn world(dead_partitions: u32) -> World<Serving> {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(&folder.path().join("broker"), &["--set", "group.initial.rebalance.delay.ms=0"]);
    let address = format!("kafka://{}", serving.address());
    World::new(serving, address, folder, dead_partitions).await
}

/// Letters `a`, `b` and `c`, and nobody who consumes.
async fn with_letters(dead_partitions: u32) -> World<Serving> {
    let world = world(dead_partitions).await;
    world.make_letters().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_filtered_and_shown_without_taking_anything_away() {
    let world = with_letters(1).await;
    let letters = world.list(&[]).await;
    assert_eq!(ids(&letters), ["a", "b", "c"]);
    for (name, value) in [("group", "beans-svc"), ("class", "permanent"), ("reason", "no such order")] {
        assert_eq!(letters[0][name], value, "{name}");
    }
    assert_eq!(ids(&world.list(&["--key", "key-b"]).await), ["b"]);
    let all = [
        "--origin-topic",
        "orders",
        "--group",
        "beans-svc",
        "--class",
        "permanent",
        "--reason",
        "such",
        "--since",
        "1h",
    ];
    assert_eq!(world.list(&all).await.len(), 3);
    assert_eq!(world.list(&["--limit", "2"]).await.len(), 2);
    for none in [["--origin-topic", "payments"], ["--class", "exhausted"], ["--reason", "disk"], ["--since", "0s"]] {
        assert!(world.list(&none).await.is_empty(), "{none:?}");
    }
    let table = world.dead("list", &[]).await;
    assert!(table.contains("orders-1-1") && table.contains("3 dead letters."), "{table}");
    assert!(!table.contains('\u{1b}'), "no colours in a file");
    let by_id = world.dead("show", &["b"]).await;
    assert!(by_id.contains("beans of b") && by_id.contains("baton-dead-class = permanent"), "{by_id}");
    assert_eq!(world.dead("show", &["orders-1-1"]).await, by_id);
    assert_eq!(world.dead("show", &["b", "--raw"]).await, "beans of b");
    let shown: Value = serde_json::from_str(&world.dead("show", &["b", "--json"]).await).unwrap();
    assert_eq!((&shown["payload"], &shown["replayed"]), (&"beans of b".into(), &false.into()));
    let engine = format!("kafka://{}", world.server.address());
    let (code, _, stderr) = ran(&["dead", "show", "--engine", &engine, "--topic", DEAD, "d"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("holds no letter d"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_sent_twice_has_its_effect_once() {
    let world = with_letters(1).await;
    let dry = world.dead("replay", &["--dry-run"]).await;
    assert!(dry.contains("would send orders-1-0 (a) to orders") && dry.contains("3 would be sent."), "{dry}");
    assert_eq!(world.replay(&["--key", "key-b"]).await, (1, 0), "the dry run has sent and marked nothing");
    assert_eq!(world.replay(&["--rate", "1000"]).await, (2, 1), "what was sent is skipped");
    assert_eq!(world.replay(&[]).await, (0, 3));
    assert!(world.list(&[]).await.iter().all(|letter| letter["replayed"] == true));
    world.repair();
    let consumer = world.consumer().await;
    eventually("three effects", || world.beans().len() >= 3).await;
    assert_eq!(world.replay(&["--again"]).await, (3, 0));
    eventually("the guard to keep three out", || consumer.metrics().already_done >= 3).await;
    consumer.stop(WAIT).await.unwrap();
    assert_eq!(world.beans(), ["beans of a", "beans of b", "beans of c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_again_is_another_letter_and_not_part_of_the_same_run() {
    // In two partitions: what dies again comes before what was not sent yet.
    let world = with_letters(2).await;
    let letters = world.list(&[]).await;
    assert!(letters.iter().any(|letter| letter["lies"]["partition"] != letters[0]["lies"]["partition"]));
    let consumer = world.consumer().await;
    // While each letter that is sent dies at once: the run ends all the same.
    assert_eq!(world.replay(&["--rate", "5"]).await, (3, 0));
    eventually("three more dead letters", || consumer.metrics().counters.dead_lettered == 3).await;
    consumer.stop(WAIT).await.unwrap();
    let letters = world.list(&[]).await;
    assert_eq!(ids(&letters), ["a", "a", "b", "b", "c", "c"]);
    let replayed: Vec<_> = letters.iter().filter(|letter| letter["replayed"] == true).cloned().collect();
    assert_eq!(ids(&replayed), ["a", "b", "c"]);
    assert!(letters.iter().all(|letter| letter["origin"]["topic"] == "orders"));
    assert_eq!(world.replay(&["--dry-run"]).await, (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_found_also_when_the_oldest_are_gone() {
    let world = with_letters(1).await;
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", world.server.address()).create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(DEAD, 0, Offset::Offset(2)).unwrap();
    client.delete_records(&before, &AdminOptions::new()).await.unwrap();
    assert_eq!(world.list(&[]).await.len(), 1);
}

#[test]
fn an_address_of_no_engine_is_a_usage_error() {
    let (code, _, stderr) = ran(&["dead", "list", "--engine", "localhost:9092", "--topic", DEAD]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("kafka://host:port"), "{stderr}");
}
