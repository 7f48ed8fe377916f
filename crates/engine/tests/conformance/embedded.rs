//! The embedded broker.

use std::sync::Arc;
use std::time::Duration;

use baton_core::TopicPartition;
use baton_engine::conformance::Subject;
use baton_engine::embedded::{EmbeddedEngine, EmbeddedOptions};
use baton_engine::{Engine, EngineFuture};

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

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_broker_passes_the_suite() {
    let subject = Embedded::start().await;
    crate::passes(&subject, SKIPPED).await;
}
