//! Requests of few bytes that ask for a lot.

use std::time::Instant;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{CreatePartitionsRequest, DeleteTopicsRequest, FetchRequest, MetadataRequest};

use crate::support::batches::batch;
use crate::support::client::Client;
use crate::support::requests::{self, CREATE_TOPICS, FETCH, METADATA, creatable, create_topics, topic_name};
use crate::support::server::Server;
use crate::{Bystander, MemoryWatch, alone};

const POLICY_VIOLATION: i16 = 44;
/// As many topics as the settings allow by default.
const TOPICS: usize = 10_000;

fn server() -> Server {
    let server = Server::start();
    server.client().create_topic("bystander", 1, &[]);
    server
}

/// The codes of an answer, and how often each is there.
fn count(codes: impl Iterator<Item = i16>, code: i16) -> usize {
    codes.filter(|other| *other == code).count()
}

fn create_many(client: &mut Client) -> (usize, usize) {
    let topics = (0..TOPICS).map(|at| creatable(&format!("topic.{at}"), 1, &[])).collect();
    let answer = client.call(CREATE_TOPICS, &create_topics(topics));
    let codes = || answer.topics.iter().map(|topic| topic.error_code);
    (count(codes(), 0), count(codes(), POLICY_VIOLATION))
}

#[test]
fn ten_thousand_topics_in_one_request_are_created_and_deleted_while_others_are_served() {
    let _alone = alone();
    let server = server();
    let mut client = server.client();
    let bystander = Bystander::start(&server);
    let memory = MemoryWatch::start();
    let begun = Instant::now();
    assert_eq!(create_many(&mut client), (TOPICS - 1, 1), "one more was there");
    println!("created: {:?}", begun.elapsed());
    let everything = MetadataRequest::default().with_topics(None);
    assert_eq!(client.call(METADATA, &everything).topics.len(), TOPICS);
    let named = |at: usize| DeleteTopicState::default().with_name(Some(topic_name(&format!("topic.{at}"))));
    let request = DeleteTopicsRequest::default().with_topics((0..TOPICS).map(named).collect()).with_timeout_ms(60_000);
    let answer = client.call(6, &request);
    assert_eq!(count(answer.responses.iter().map(|topic| topic.error_code), 0), TOPICS - 1);
    println!("deleted: {:?}", begun.elapsed());
    memory.finish("ten thousand topics");
    bystander.finish("ten thousand topics");
}

#[test]
fn partitions_are_created_up_to_their_limit_while_others_are_served() {
    let _alone = alone();
    let server = server();
    let mut client = server.client();
    client.create_topic("t", 1, &[]);
    let bystander = Bystander::start(&server);
    let memory = MemoryWatch::start();
    for (partitions, code) in [(i32::MAX, POLICY_VIOLATION), (50_001, POLICY_VIOLATION), (49_999, 0)] {
        let topic =
            CreatePartitionsTopic::default().with_name(topic_name("t")).with_count(partitions).with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(60_000);
        assert_eq!(client.call(3, &request).results[0].error_code, code, "{partitions}");
    }
    assert_eq!(client.describe("t").partitions.len(), 49_999);
    memory.finish("fifty thousand partitions");
    bystander.finish("fifty thousand partitions");
}

#[test]
fn a_fetch_that_names_one_partition_many_times_gets_no_more_than_its_limit() {
    let _alone = alone();
    let server = server();
    let mut client = server.client();
    client.create_topic("t", 1, &[]);
    for _ in 0..10 {
        client.produce("t", batch(&["x".repeat(100_000).as_str()]));
    }
    let bystander = Bystander::start(&server);
    let memory = MemoryWatch::start();
    let mut request: FetchRequest = requests::fetch("t", 0, 0, 0).with_max_bytes(i32::MAX);
    let wanted = request.topics[0].partitions[0].clone().with_partition_max_bytes(i32::MAX);
    request.topics[0].partitions = vec![wanted; 20_000];
    let answer = client.call(FETCH, &request);
    let bytes: usize =
        answer.responses[0].partitions.iter().filter_map(|partition| Some(partition.records.as_ref()?.len())).sum();
    println!("{bytes} bytes for 20,000 times 1 MB");
    assert!((1_000_000..64 << 20).contains(&bytes), "{bytes}");
    memory.finish("one partition many times");
    bystander.finish("one partition many times");
}
