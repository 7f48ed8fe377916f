//! The embedded broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_core::TopicPartition;
use baton_engine::conformance::Subject;
use baton_engine::embedded::{EmbeddedEngine, EmbeddedOptions};
use baton_engine::{ConsumerOptions, Engine, EngineFuture, Event, Start, TopicSpec};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::kafka::{SKIPPED, SMALL_BUFFER, delete_records, pairs, short_patience};
use crate::servers::free_port;

struct Embedded {
    engine: Arc<EmbeddedEngine>,
    _data: tempfile::TempDir,
}

impl Embedded {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut options = EmbeddedOptions::local(data.path());
        options.listen = format!("127.0.0.1:{}", free_port());
        let engine = Arc::new(EmbeddedEngine::start(options).await.unwrap());
        Self { engine, _data: data }
    }
}

impl Subject for Embedded {
    fn name(&self) -> String {
        "embedded".to_owned()
    }

    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    fn small_buffer(&self) -> Vec<(String, String)> {
        pairs(SMALL_BUFFER)
    }

    fn interrupt(&self) -> Option<EngineFuture<'_, Result<(), String>>> {
        Some(Box::pin(async {
            self.engine.stop(Duration::ZERO).await;
            Ok(())
        }))
    }

    fn restore(&self) -> EngineFuture<'_, Result<(), String>> {
        Box::pin(async { self.engine.start_again().await.map_err(|error| error.to_string()) })
    }

    fn remove<'a>(
        &'a self,
        partition: &'a TopicPartition,
        offset: i64,
    ) -> Option<EngineFuture<'a, Result<(), String>>> {
        Some(Box::pin(delete_records(self.engine.address(), partition, offset)))
    }

    fn short_patience(&self) -> Option<Vec<(String, String)>> {
        Some(short_patience())
    }
}

/// How long a member of the client library alone takes to leave a group of its own.
fn leaving_by_hand(address: &str, group: &str) -> Duration {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("group.id", group);
    config.set("partition.assignment.strategy", "cooperative-sticky");
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&["orders"]).unwrap();
    while consumer.assignment().unwrap().count() == 0 {
        drop(consumer.poll(Duration::from_millis(10)));
    }
    let began = Instant::now();
    drop(consumer);
    began.elapsed()
}

async fn leaving(engine: &EmbeddedEngine, group: String) -> Duration {
    let options = ConsumerOptions {
        group,
        topics: vec!["orders".into()],
        start: Start::Earliest,
        prefetch: None,
        release_wait: Duration::from_secs(1),
        settings: Vec::new(),
    };
    let mut consumer = engine.consumer(options).await.unwrap();
    while !matches!(consumer.next(Duration::from_secs(1)).await, Ok(Event::Assigned(_))) {}
    let began = Instant::now();
    consumer.close().await.unwrap();
    began.elapsed()
}

/// The client library waits for 100 ms at its end, mostly for nothing. Measured side by side, since the machine may be busy.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_leaves_is_not_waited_for_longer_than_it_takes() {
    const PAIRS: usize = 9;
    /// Of the 100 ms, what is certainly saved.
    const SAVED_MIN: Duration = Duration::from_millis(40);
    let _turn = crate::TURN.lock().await;
    let subject = Embedded::start().await;
    subject.engine.create_topic(&TopicSpec::new("orders", 1)).await.unwrap();
    let (mut by_hand, mut ours) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let address = subject.engine.address().to_owned();
        let left = tokio::task::spawn_blocking(move || leaving_by_hand(&address, &format!("by-hand-{pair}")));
        by_hand.push(left.await.unwrap());
        ours.push(leaving(&subject.engine, format!("ours-{pair}")).await);
    }
    by_hand.sort_unstable();
    ours.sort_unstable();
    assert!(ours[PAIRS / 2] + SAVED_MIN < by_hand[PAIRS / 2], "{ours:?}, by hand {by_hand:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_broker_passes_the_suite() {
    let subject = Embedded::start().await;
    crate::passes(&subject, SKIPPED).await;
}
