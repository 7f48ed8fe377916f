//! No acknowledgement leaves before the sync that covers it, and nobody reads what is not durable.

use std::sync::Arc;
use std::time::Duration;

use baton_log::FileDisk;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, InitProducerIdRequest, ListOffsetsRequest,
    MetadataRequest, OffsetCommitRequest, ProduceRequest,
};

use crate::support::batches::{self, Producer, batch};
use crate::support::client::Client;
use crate::support::gated_disk::{Gate, gated_disk};
use crate::support::requests::{self, ALL, topic_name};
use crate::support::server::Server;
use crate::support::wait_until;

/// How long nothing may be answered while the sync is held up: a thousand times what an answer takes.
const SILENCE: Duration = Duration::from_millis(300);

const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const KAFKA_STORAGE_ERROR: i16 = 56;

fn gated_server() -> (Server, Arc<Gate>) {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let gate = Arc::new(Gate::default());
    let disk = FileDisk::open(directory.path()).expect("a data directory");
    let server = Server::start_on(Arc::new(gated_disk(disk, gate.clone())), directory);
    (server, gate)
}

/// Nobody gets anything for a while.
fn assert_silent(clients: &mut [(&str, &mut Client)]) {
    for (at, (what, client)) in clients.iter_mut().enumerate() {
        // All of them wait at the same time, so only the first has to be watched for long.
        let time = if at == 0 { SILENCE } else { Duration::from_millis(1) };
        assert!(client.is_silent_for(time), "{what} was answered before the sync");
    }
}

#[test]
fn no_append_is_answered_or_read_before_its_sync() {
    let (server, gate) = gated_server();
    let mut reader = server.client();
    reader.create_topic("t", 1, &[]);
    let id = reader.producer_id();
    let producer = |sequence| Producer { id, epoch: 0, sequence };
    let first = batches::idempotent(producer(0), &["durable"]);
    assert_eq!(reader.produce("t", first), 0);
    let [mut stored, mut duplicate, mut refused, mut anonymous, mut leader_only] = [0; 5].map(|_| server.client());

    let held = gate.hold();
    let next = batches::idempotent(producer(1), &["pending"]);
    let sent_stored = stored.send(requests::PRODUCE, &requests::produce("t", 0, ALL, next.clone()));
    wait_until("the sync of the batch is held up", || gate.waiting() > 0);
    let sent_duplicate = duplicate.send(requests::PRODUCE, &requests::produce("t", 0, ALL, next));
    let gap = batches::idempotent(producer(9), &["after a gap"]);
    let sent_refused = refused.send(requests::PRODUCE, &requests::produce("t", 0, ALL, gap));
    let sent_anonymous = anonymous.send(requests::PRODUCE, &requests::produce("t", 0, ALL, batch(&["second group"])));
    let sent_leader_only = leader_only.send(requests::PRODUCE, &requests::produce("t", 0, 1, batch(&["acks=1"])));
    assert_silent(&mut [
        ("a batch", &mut stored),
        ("a duplicate of a batch that is not durable", &mut duplicate),
        ("a refusal because of a batch that is not durable", &mut refused),
        ("a batch of the next group", &mut anonymous),
        ("a batch with acks=1", &mut leader_only),
    ]);
    let seen = reader.fetch("t", 1, 10);
    assert_eq!((seen.error_code, seen.high_watermark), (0, 1), "only what is durable counts");
    assert_eq!(batches::values(&seen.records), []);
    assert_eq!(reader.offset_at("t", -1), 1);
    drop(held);

    let answer = requests::produced(&stored.receive::<ProduceRequest>(11, sent_stored));
    assert_eq!((answer.error_code, answer.base_offset), (0, 1));
    let answer = requests::produced(&duplicate.receive::<ProduceRequest>(11, sent_duplicate));
    assert_eq!((answer.error_code, answer.base_offset), (0, 1), "answered like the batch itself");
    let answer = requests::produced(&refused.receive::<ProduceRequest>(11, sent_refused));
    assert_eq!(answer.error_code, OUT_OF_ORDER_SEQUENCE_NUMBER);
    for (client, sent) in [(&mut anonymous, sent_anonymous), (&mut leader_only, sent_leader_only)] {
        let answer = requests::produced(&client.receive::<ProduceRequest>(11, sent));
        assert_eq!(answer.error_code, 0);
        assert!((2..4).contains(&answer.base_offset));
    }
    assert_eq!(reader.offset_at("t", -1), 4, "the duplicate and the refused batch are not stored");
}

#[test]
fn no_change_of_topics_or_groups_is_answered_before_its_sync() {
    let (server, gate) = gated_server();
    let mut reader = server.client();
    reader.create_topic("t", 1, &[]);
    reader.produce("t", batch(&["a", "b"]));
    let [mut commit, mut create, mut partitions, mut records, mut id, mut metadata] = [0; 6].map(|_| server.client());

    let held = gate.hold();
    let sent_commit = commit.send(requests::OFFSET_COMMIT, &requests::offset_commit("g", "t", 0, 1));
    wait_until("the sync of the commit is held up", || gate.waiting() > 0);
    let request = requests::create_topics(vec![requests::creatable("new", 1, &[])]);
    let sent_create = create.send(requests::CREATE_TOPICS, &request);
    let more = CreatePartitionsTopic::default().with_name(topic_name("t")).with_count(2).with_assignments(None);
    let more = CreatePartitionsRequest::default().with_topics(vec![more]).with_timeout_ms(30_000);
    let sent_partitions = partitions.send(3, &more);
    let before = DeleteRecordsPartition::default().with_partition_index(0).with_offset(1);
    let before = DeleteRecordsTopic::default().with_name(topic_name("t")).with_partitions(vec![before]);
    let before = DeleteRecordsRequest::default().with_topics(vec![before]).with_timeout_ms(30_000);
    let sent_records = records.send(2, &before);
    let sent_id = id.send(requests::INIT_PRODUCER_ID, &requests::init_producer_id());
    let sent_metadata = metadata.send(requests::METADATA, &requests::metadata("made.by.metadata", true));
    assert_silent(&mut [
        ("a commit of an offset", &mut commit),
        ("a creation of a topic", &mut create),
        ("a creation of partitions", &mut partitions),
        ("a deletion of records", &mut records),
        ("a producer id", &mut id),
        ("metadata that create a topic", &mut metadata),
    ]);
    assert_eq!(reader.describe("new").error_code, 3, "a topic that is not durable is unknown");
    assert_eq!(reader.describe("t").partitions.len(), 1);
    assert_eq!(reader.offset_at("t", -2), 0, "the beginning has not moved");
    drop(held);

    let answer = commit.receive::<OffsetCommitRequest>(8, sent_commit);
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    let answer = create.receive::<CreateTopicsRequest>(7, sent_create);
    assert_eq!(answer.topics[0].error_code, 0);
    let answer = partitions.receive::<CreatePartitionsRequest>(3, sent_partitions);
    assert_eq!(answer.results[0].error_code, 0);
    let answer = records.receive::<DeleteRecordsRequest>(2, sent_records);
    assert_eq!((answer.topics[0].partitions[0].error_code, answer.topics[0].partitions[0].low_watermark), (0, 1));
    let answer = id.receive::<InitProducerIdRequest>(4, sent_id);
    assert_eq!(answer.error_code, 0);
    let answer = metadata.receive::<MetadataRequest>(12, sent_metadata);
    assert_eq!(answer.topics[0].error_code, 0);
    assert_eq!(reader.describe("t").partitions.len(), 2);
    assert_eq!(reader.offset_at("t", -2), 1);
}

#[test]
fn responses_wait_for_the_sync_of_those_before_them_on_the_same_connection() {
    let (server, gate) = gated_server();
    let mut client = server.client();
    client.create_topic("t", 1, &[]);

    let held = gate.hold();
    let produced = client.send(requests::PRODUCE, &requests::produce("t", 0, ALL, batch(&["a"])));
    let listed = client.send(requests::LIST_OFFSETS, &requests::list_offsets("t", 0, -1));
    let again = client.send(requests::PRODUCE, &requests::produce("t", 0, ALL, batch(&["b"])));
    assert!(client.is_silent_for(SILENCE), "the second answer is ready, but not its turn");
    drop(held);

    let answer = requests::produced(&client.receive::<ProduceRequest>(11, produced));
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    client.receive::<ListOffsetsRequest>(7, listed);
    let answer = requests::produced(&client.receive::<ProduceRequest>(11, again));
    assert_eq!((answer.error_code, answer.base_offset), (0, 1));
}

#[test]
fn a_topic_is_created_once_even_if_the_first_client_has_gone() {
    let (server, gate) = gated_server();
    let mut gone = server.client();
    let mut second = server.client();
    let request = requests::create_topics(vec![requests::creatable("t", 3, &[])]);

    let held = gate.hold();
    gone.send(requests::CREATE_TOPICS, &request);
    wait_until("the creation is being synced", || gate.waiting() > 0);
    drop(gone);
    wait_until("the connection is closed", || server.closed_for("closed_by_peer") > 0);
    let sent = second.send(requests::CREATE_TOPICS, &request);
    assert!(second.is_silent_for(SILENCE), "whether the topic exists is not known yet");
    drop(held);

    let answer = second.receive::<CreateTopicsRequest>(7, sent);
    assert_eq!(answer.topics[0].error_code, 36, "it exists: it was created for the client that has gone");
    assert_eq!(second.describe("t").partitions.len(), 3);
}

#[test]
fn after_a_failed_sync_nothing_is_promised_and_what_was_durable_can_be_read() {
    let (server, gate) = gated_server();
    let [mut reader, mut stored, mut refused] = [0; 3].map(|_| server.client());
    reader.create_topic("t", 1, &[]);
    let id = reader.producer_id();
    let batch_of = |sequence, value| batches::idempotent(Producer { id, epoch: 0, sequence }, &[value]);
    assert_eq!(reader.produce("t", batch_of(0, "durable")), 0);

    let held = gate.hold();
    let sent_stored = stored.send(requests::PRODUCE, &requests::produce("t", 0, ALL, batch_of(1, "who knows")));
    wait_until("the sync of the batch is held up", || gate.waiting() > 0);
    let sent_refused = refused.send(requests::PRODUCE, &requests::produce("t", 0, ALL, batch_of(9, "after a gap")));
    gate.break_disk();
    drop(held);
    for (client, sent) in [(&mut stored, sent_stored), (&mut refused, sent_refused)] {
        let answer = requests::produced(&client.receive::<ProduceRequest>(11, sent));
        assert_eq!(answer.error_code, NOT_ENOUGH_REPLICAS_AFTER_APPEND, "perhaps stored: a restart will tell");
    }
    let again = [
        (batch_of(1, "who knows"), NOT_ENOUGH_REPLICAS_AFTER_APPEND, "still perhaps stored"),
        (batch(&["later"]), KAFKA_STORAGE_ERROR, "certainly not stored"),
    ];
    for (batch, code, meaning) in again {
        let sent = stored.send(requests::PRODUCE, &requests::produce("t", 0, ALL, batch));
        let answer = requests::produced(&stored.receive::<ProduceRequest>(11, sent));
        assert_eq!(answer.error_code, code, "{meaning}");
    }
    let seen = reader.fetch("t", 0, 10);
    assert_eq!((seen.error_code, seen.high_watermark), (0, 1));
    assert_eq!(batches::values(&seen.records), [(0, "durable".to_owned())]);
    assert_eq!(server.metrics()["baton_log_poisoned"], 1.0);
}
