//! Side stores in topics.

use std::path::Path;
use std::sync::Arc;

use baton::consumer::{Offsets, Place, SideStore, TopicStore};
use baton_core::consumer::Parked;
use baton_core::{Delivery, Headers, TopicPartition};
use baton_engine::Engine;
use baton_engine::embedded::{EmbeddedEngine, EmbeddedOptions};
use baton_engine::kafka::KafkaEngine;
use baton_guard::conformance::table;
use baton_guard::side::conformance::SideSubject;
use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};

use crate::servers::Kafka;

const KEPT: &str = "beans-svc.parked";

struct InTopic {
    name: &'static str,
    engine: Arc<dyn Engine>,
}

impl SideSubject for InTopic {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn store(&self) -> Arc<dyn SideStore> {
        Arc::new(TopicStore::new(self.engine.clone(), KEPT))
    }
}

fn admin(address: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", address).create().unwrap()
}

async fn cleanup_policy(address: &str) -> String {
    let asked = [ResourceSpecifier::Topic(KEPT)];
    let settings = admin(address).describe_configs(&asked, &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    settings.get("cleanup.policy").unwrap().value.clone().unwrap()
}

async fn passes(name: &'static str, engine: Arc<dyn Engine>) {
    let reports = [baton_guard::side::conformance::run(&InTopic { name, engine }).await];
    let text = table(&reports);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("side-stores");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{}.md", name.replace(' ', "-"))), &text).unwrap();
    let failures: Vec<String> = reports.iter().flat_map(|report| report.failures().collect::<Vec<_>>()).collect();
    assert!(failures.is_empty(), "{text}\n{}", failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_a_topic_of_the_embedded_broker_passes_the_suite() {
    let folder = tempfile::tempdir().unwrap();
    let engine = EmbeddedEngine::start(EmbeddedOptions::local(folder.path())).await.unwrap();
    passes("a topic of the embedded broker", Arc::new(engine)).await;
}

/// What the broker can do is found out by asking it, and not by what it is called.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_a_topic_of_our_own_broker_passes_the_suite_also_when_it_is_spoken_to_as_kafka() {
    let folder = tempfile::tempdir().unwrap();
    let served = EmbeddedEngine::start(EmbeddedOptions::local(folder.path())).await.unwrap();
    passes("a topic of baton serve", Arc::new(KafkaEngine::connect(served.address(), &[]).unwrap())).await;
    assert_eq!(cleanup_policy(served.address()).await, "delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_a_topic_of_kafka_passes_the_suite_and_is_compacted() {
    let server = Kafka::start().await;
    passes("a topic of Apache Kafka", Arc::new(KafkaEngine::connect(&server.address, &[]).unwrap())).await;
    assert_eq!(cleanup_policy(&server.address).await, "compact");
}

fn parked(place: &Place, offset: i64) -> Parked {
    let delivery = Delivery {
        from: place.partition.clone(),
        offset,
        key: Some(Bytes::from_static(b"a")),
        payload: Some(Bytes::from_static(b"beans")),
        headers: Headers::default(),
        timestamp_ms: None,
        delivered_before: None,
    };
    Parked { delivery: Arc::new(delivery), attempts: 1, failure: None }
}

/// Compaction and deletion remove what lies first; reading from the first offset that ever was is refused then.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_store_is_found_when_its_oldest_records_are_gone_and_the_loss_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Arc::new(EmbeddedEngine::start(EmbeddedOptions::local(folder.path())).await.unwrap());
    let (place, key) =
        (Place { group: "g".into(), partition: TopicPartition::new("orders", 0) }, Bytes::from_static(b"a"));
    let store = || TopicStore::new(engine.clone(), KEPT);
    let open = store();
    open.open(&place, Offsets::Lasting).await.unwrap();
    open.park(&place, &key, &[5, 6, 7].map(|offset| parked(&place, offset))).await.unwrap();
    let mut before = TopicPartitionList::new();
    for partition in 0..8 {
        let mut reader = engine.reader(&TopicPartition::new(KEPT, partition), 0).await.unwrap();
        if !reader.next().await.unwrap().is_empty() {
            before.add_partition_offset(KEPT, i32::try_from(partition).unwrap(), Offset::Offset(2)).unwrap();
        }
    }
    admin(engine.address()).delete_records(&before, &AdminOptions::new()).await.unwrap();
    let offsets = |loaded: Vec<baton_core::consumer::Loaded>| {
        loaded.into_iter().map(|loaded| loaded.delivery.offset).collect::<Vec<_>>()
    };
    // One that knew them says what is gone, once, and goes on with what there is.
    let error = open.load(&place, &key, 100).await.unwrap_err();
    assert!(error.0.contains("2 parked messages of orders-0 are not in"), "{error}");
    assert_eq!(offsets(open.load(&place, &key, 100).await.unwrap()), [7]);
    // One that starts now knows only those that are there.
    let fresh = store();
    let opened = fresh.open(&place, Offsets::Lasting).await.unwrap();
    assert_eq!((opened.parked.len(), opened.parked[0].messages), (1, 1));
    assert_eq!(offsets(fresh.load(&place, &key, 100).await.unwrap()), [7]);
}
