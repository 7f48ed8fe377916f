//! Producing and fetching.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::{ApiVersionsRequest, FetchRequest, ProduceRequest};
use kafka_protocol::records::TimestampType;

use crate::support::batches::{self, batch};
use crate::support::requests::{self, ALL};
use crate::support::server::Server;
use crate::support::wait_until;

const CORRUPT_MESSAGE: i16 = 2;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const MESSAGE_TOO_LARGE: i16 = 10;
const OFFSET_OUT_OF_RANGE: i16 = 1;
const INVALID_REQUIRED_ACKS: i16 = 21;
const INVALID_RECORD: i16 = 87;

#[test]
fn a_waiting_fetch_is_woken_by_a_record_and_not_by_one_elsewhere() {
    let server = Server::start();
    let mut producer = server.client();
    producer.create_topic("t", 2, &[]);
    let mut consumer = server.client();
    let begun = Instant::now();
    let sent = consumer.send(requests::FETCH, &requests::fetch("t", 0, 0, 30_000));
    wait_until("the fetch waits", || server.metrics()["baton_fetches_waiting"] >= 1.0);
    producer.call(requests::PRODUCE, &requests::produce("t", 1, ALL, batch(&["elsewhere"])));
    assert!(consumer.is_silent_for(Duration::from_millis(100)));
    producer.produce("t", batch(&["awaited"]));
    let read = requests::fetched(&consumer.receive::<FetchRequest>(requests::FETCH, sent));
    assert_eq!(batches::values(&read.records), [(0, "awaited".to_owned())]);
    assert!(begun.elapsed() < Duration::from_secs(20), "long before the end of the wait");
}

#[test]
fn a_fetch_waits_for_as_many_bytes_as_it_wants_and_no_longer_than_it_wants() {
    let server = Server::start();
    let mut client = server.client();
    client.create_topic("t", 1, &[]);
    client.produce("t", batch(&["little"]));
    let begun = Instant::now();
    let patient = requests::fetch("t", 0, 0, 200).with_min_bytes(100_000);
    let read = requests::fetched(&client.call(requests::FETCH, &patient));
    assert!(begun.elapsed() >= Duration::from_millis(200), "it waited for more");
    assert_eq!(batches::values(&read.records).len(), 1, "what is there is sent in the end");
    let mut producer = server.client();
    let sent = client.send(requests::FETCH, &patient.with_max_wait_ms(30_000));
    for _ in 0..11 {
        producer.produce("t", batch(&["x".repeat(10_000).as_str()]));
    }
    let read = requests::fetched(&client.receive::<FetchRequest>(requests::FETCH, sent));
    assert!(read.records.expect("records").len() >= 100_000);
}

#[test]
fn a_fetch_gets_at_least_one_batch_however_small_its_limits() {
    let server = Server::start();
    let mut client = server.client();
    client.create_topic("t", 2, &[]);
    let large = "x".repeat(50_000);
    client.produce("t", batch(&[large.as_str()]));
    client.produce("t", batch(&["second"]));
    let mut request = requests::fetch("t", 0, 0, 0).with_max_bytes(1);
    request.topics[0].partitions[0].partition_max_bytes = 1;
    let read = requests::fetched(&client.call(requests::FETCH, &request));
    assert_eq!(batches::values(&read.records), [(0, large)]);
}

#[test]
fn a_fetch_from_outside_of_the_partition_is_told_so_at_once() {
    let server = Server::start();
    let mut client = server.client();
    client.create_topic("t", 1, &[]);
    client.produce("t", batch(&["a"]));
    let begun = Instant::now();
    for offset in [-1, 2, i64::MAX] {
        assert_eq!(client.fetch("t", offset, 30_000).error_code, OFFSET_OUT_OF_RANGE, "{offset}");
    }
    let elsewhere = client.call(requests::FETCH, &requests::fetch("t", 7, 0, 30_000));
    assert_eq!(requests::fetched(&elsewhere).error_code, UNKNOWN_TOPIC_OR_PARTITION);
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let server = Server::start();
    let mut client = server.client();
    client.create_topic("t", 1, &[]);
    let rounds: Vec<_> = (0..200)
        .map(|round| {
            let produced =
                client.send(requests::PRODUCE, &requests::produce("t", 0, ALL, batch(&[&format!("{round}")])));
            let versions = client.send(3, &ApiVersionsRequest::default());
            let fetched = client.send(requests::FETCH, &requests::fetch("t", 0, 0, 0));
            (produced, versions, fetched)
        })
        .collect();
    for (round, (produced, versions, fetched)) in (0..).zip(rounds) {
        let answer = requests::produced(&client.receive::<ProduceRequest>(requests::PRODUCE, produced));
        assert_eq!((answer.error_code, answer.base_offset), (0, round));
        client.receive::<ApiVersionsRequest>(3, versions);
        assert_eq!(requests::fetched(&client.receive::<FetchRequest>(requests::FETCH, fetched)).error_code, 0);
    }
}

#[test]
fn a_producer_that_wants_no_acknowledgement_gets_none() {
    let server = Server::start();
    let mut client = server.client();
    client.create_topic("t", 1, &[]);
    client.send(requests::PRODUCE, &requests::produce("t", 0, 0, batch(&["unheard"])));
    // The next response is that of the next request.
    client.call(3, &ApiVersionsRequest::default());
    wait_until("the record is durable all the same", || client.offset_at("t", -1) == 1);
}

#[test]
fn a_producer_that_wants_no_acknowledgement_is_told_of_a_failure_by_the_end_of_its_connection() {
    let server = Server::start();
    let mut client = server.client();
    client.send(requests::PRODUCE, &requests::produce("missing", 0, 0, batch(&["lost"])));
    assert_eq!(client.read_to_close(), []);
    wait_until("it is counted", || server.closed_for("silent_produce_failed") == 1);
}

#[test]
fn records_get_the_time_of_the_broker_where_that_is_set() {
    let server = Server::start();
    let mut client = server.client();
    client.create_topic("t", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let before = batches::now_ms();
    let request = requests::produce("t", 0, ALL, batches::batch_at(1, &["a", "b"]));
    let answer = requests::produced(&client.call(requests::PRODUCE, &request));
    let appended = answer.log_append_time_ms;
    assert!((before..=batches::now_ms()).contains(&appended), "{appended}");
    let stored = client.fetch("t", 0, 1000).records.expect("records");
    let info = kafka_protocol::records::RecordBatchDecoder::decode_batch_info(&mut stored.clone()).expect("a batch");
    assert_eq!(info[0].timestamp_type, TimestampType::LogAppend);
    // For such a batch, a reader takes the batch's largest time for each record.
    assert_eq!(stored[35..43], appended.to_be_bytes());
    assert_eq!(client.offset_at("t", appended), 0);
    assert_eq!(client.offset_at("t", appended + 1), -1);
}

#[test]
fn offsets_are_found_by_time() {
    let server = Server::start();
    let mut client = server.client();
    client.create_topic("t", 1, &[]);
    for (timestamp, values) in [(1000, ["a", "b"]), (3000, ["c", "d"]), (2000, ["e", "f"])] {
        client.produce("t", batches::batch_at(timestamp, &values));
    }
    let expected = [(0, 0), (1000, 0), (1001, 2), (3000, 2), (3001, -1), (-1, 6), (-2, 0), (-3, 2)];
    for (timestamp, offset) in expected {
        assert_eq!(client.offset_at("t", timestamp), offset, "{timestamp}");
    }
}

#[test]
fn batches_that_a_reader_would_choke_on_are_refused_with_the_code_of_kafka() {
    let server = Server::start_with(&[("message.max.bytes", "1000")]);
    let mut client = server.client();
    client.create_topic("t", 1, &[]);
    let good = batch(&["a", "b"]);
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] ^= byte;
        Bytes::from(bytes)
    };
    let refused = [
        ("a wrong checksum", changed(17, 1), CORRUPT_MESSAGE),
        ("a changed record", changed(good.len() - 2, 1), CORRUPT_MESSAGE),
        ("cut short", good.slice(..good.len() - 1), INVALID_RECORD),
        ("too large", batch(&["x".repeat(2000).as_str()]), MESSAGE_TOO_LARGE),
    ];
    for (what, bytes, code) in refused {
        let answer = requests::produced(&client.call(requests::PRODUCE, &requests::produce("t", 0, ALL, bytes)));
        assert_eq!((answer.error_code, answer.base_offset), (code, -1), "{what}: {:?}", answer.error_message);
        assert!(answer.error_message.is_some_and(|message| !message.is_empty()));
    }
    for acks in [-2, 2] {
        let request = requests::produce("t", 0, acks, good.clone());
        let answer = requests::produced(&client.call(requests::PRODUCE, &request));
        assert_eq!(answer.error_code, INVALID_REQUIRED_ACKS);
    }
    let request = requests::produce("t", 5, ALL, good.clone());
    let answer = requests::produced(&client.call(requests::PRODUCE, &request));
    assert_eq!(answer.error_code, UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(client.offset_at("t", -1), 0, "nothing was stored");
    assert_eq!(client.produce("t", good), 0, "and the connection is fine");
}

#[test]
fn records_and_their_order_survive_a_restart() {
    let mut server = Server::start();
    server.client().create_topic("t", 1, &[]);
    let mut expected = Vec::new();
    for round in 0..3 {
        let mut client = server.client();
        for at in 0..20 {
            let value = format!("{round}/{at}");
            let offset = client.produce("t", batch(&[value.as_str()]));
            expected.push((offset, value));
        }
        server = server.restart();
        assert_eq!(batches::values(&server.client().fetch("t", 0, 1000).records), expected);
    }
    assert_eq!(expected.last().map(|(offset, _)| *offset), Some(59));
}
