//! RabbitMQ, one node.

use std::sync::Arc;

use baton_core::TopicPartition;
use baton_engine::conformance::Subject;
use baton_engine::rabbitmq::RabbitEngine;
use baton_engine::{Engine, EngineFuture};

use crate::kafka::pairs;
use crate::servers::{START_SECONDS_MAX, free_port, script};

struct Rabbit {
    engine: Arc<RabbitEngine>,
    settings: Vec<(&'static str, String)>,
    _data: tempfile::TempDir,
}

impl Rabbit {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let settings = vec![
            ("RABBIT_DATA", data.path().join("rabbitmq").display().to_string()),
            ("RABBIT_PORT", free_port().to_string()),
            ("RABBIT_NODE_PORT", free_port().to_string()),
            ("RABBIT_EPMD_PORT", free_port().to_string()),
            ("RABBIT_WAIT", START_SECONDS_MAX.to_string()),
            // An interrupted test cannot stop it any more.
            ("RABBIT_OWNER", std::process::id().to_string()),
        ];
        let address = script("rabbitmq-up", &settings, &[]).await.unwrap();
        let engine = Arc::new(RabbitEngine::connect(&format!("amqp://guest:guest@{address}/%2f")).unwrap());
        Self { engine, settings, _data: data }
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        let mut down = std::process::Command::new(crate::servers::root().join("scripts/rabbitmq-down"));
        down.env("RABBIT_KILL", "1").stdout(std::process::Stdio::null());
        for (name, value) in &self.settings {
            down.env(name, value);
        }
        let _ = down.status();
    }
}

impl Subject for Rabbit {
    fn name(&self) -> String {
        "RabbitMQ 3.10, quorum queues, 1 node".to_owned()
    }

    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    fn small_buffer(&self) -> Vec<(String, String)> {
        pairs(&[("buffer.messages.max", "10")])
    }

    /// Stopped in order: killed, a node of 3.10 that has many quorum queues does not always bring each of them back.
    fn interrupt(&self) -> Option<EngineFuture<'_, Result<(), String>>> {
        Some(Box::pin(async { script("rabbitmq-down", &self.settings, &[]).await.map(drop) }))
    }

    fn restore(&self) -> EngineFuture<'_, Result<(), String>> {
        Box::pin(async { script("rabbitmq-up", &self.settings, &[]).await.map(drop) })
    }

    fn remove<'a>(&'a self, _: &'a TopicPartition, _: i64) -> Option<EngineFuture<'a, Result<(), String>>> {
        None
    }

    fn short_patience(&self) -> Option<Vec<(String, String)>> {
        None
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_passes_the_suite() {
    let subject = Rabbit::start().await;
    let skipped = [
        "a_reader_gives_all_from_an_offset_and_ends",
        "a_reader_refuses_what_is_not_there",
        "a_reader_finds_the_oldest_that_is_kept",
        "a_resolved_send_can_be_read_at_once",
        "an_offset_in_a_receipt_is_where_the_message_is",
        "frontier_and_metadata_come_back_at_the_next_assignment",
        "seek_delivers_from_there",
        "a_new_group_starts_at_the_earliest_if_told_so",
        "a_new_group_starts_at_the_latest_for_good",
        "removed_messages_are_reported_and_not_skipped_in_silence",
        "members_share_partitions_and_hand_over_without_loss",
        "what_was_settled_before_release_is_seen_by_the_next_owner",
        "who_does_not_release_loses_the_partition_and_cannot_settle_it",
        "a_silent_member_is_put_out_and_fenced",
    ];
    crate::passes(&subject, &skipped).await;
}
