//! Topics, partitions and records are created, deleted and described as in Apache Kafka.

use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeLogDirsRequest, OffsetForLeaderEpochRequest,
};
use kafka_protocol::protocol::StrBytes;

use crate::support::batches::{self, batch};
use crate::support::client::Client;
use crate::support::requests::{self, CREATE_TOPICS, creatable, create_topics, topic_name};
use crate::support::server::Server;
use crate::support::wait_until;

const NONE: i16 = 0;
const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_TOPIC_EXCEPTION: i16 = 17;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const INVALID_PARTITIONS: i16 = 37;
const INVALID_REPLICATION_FACTOR: i16 = 38;
const INVALID_REPLICA_ASSIGNMENT: i16 = 39;
const INVALID_CONFIG: i16 = 40;
const INVALID_REQUEST: i16 = 42;
const POLICY_VIOLATION: i16 = 44;
const TOPIC_DELETION_DISABLED: i16 = 73;
const UNKNOWN_LEADER_EPOCH: i16 = 75;
const UNKNOWN_TOPIC_ID: i16 = 100;
const MISMATCHED_ENDPOINT_TYPE: i16 = 114;

fn create(client: &mut Client, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
    client.call(CREATE_TOPICS, &create_topics(topics)).topics
}

fn codes(results: &[CreatableTopicResult]) -> Vec<i16> {
    results.iter().map(|result| result.error_code).collect()
}

fn placed(name: &str, placement: &[(i32, &[i32])]) -> CreatableTopic {
    let assignment = |(index, nodes): &(i32, &[i32])| {
        let nodes = nodes.iter().map(|node| BrokerId(*node)).collect();
        CreatableReplicaAssignment::default().with_partition_index(*index).with_broker_ids(nodes)
    };
    creatable(name, -1, &[]).with_replication_factor(-1).with_assignments(placement.iter().map(assignment).collect())
}

#[test]
fn a_topic_is_created_as_it_is_asked_for() {
    let server = Server::start_with(&[("num.partitions", "3")]);
    let mut client = server.client();
    let topics = vec![
        creatable("one", 5, &[("max.message.bytes", "2000")]),
        creatable("default", -1, &[]).with_replication_factor(-1),
        placed("placed", &[(1, &[0]), (0, &[0])]),
    ];
    let created = create(&mut client, topics);
    assert_eq!(codes(&created), [NONE; 3]);
    for (result, size) in created.iter().zip(["2000", "1048588", "1048588"]) {
        let settings = result.configs.as_ref().expect("settings");
        let found = settings.iter().find(|setting| &*setting.name == "max.message.bytes").expect("it is told");
        assert_eq!(found.value.as_deref(), Some(size));
        assert_eq!(found.config_source, if size == "2000" { 1 } else { 5 }, "set for the topic, or default");
    }
    for (result, partitions) in created.iter().zip([5, 3, 2]) {
        assert_eq!((result.num_partitions, result.replication_factor), (partitions, 1));
        let described = client.describe(&result.name);
        assert_eq!(described.partitions.len() as i32, partitions);
        assert_eq!(described.topic_id, result.topic_id);
        assert!(!result.topic_id.is_nil());
    }
}

#[test]
fn what_cannot_be_created_is_refused_with_the_code_of_kafka_and_the_rest_is_created() {
    let server = Server::start();
    let mut client = server.client();
    client.create_topic("there", 1, &[]);
    client.create_topic("with.dot", 1, &[]);
    let long = "n".repeat(250);
    let cases = [
        (creatable("there", 1, &[]), TOPIC_ALREADY_EXISTS),
        (creatable("with_dot", 1, &[]), INVALID_TOPIC_EXCEPTION),
        (creatable("", 1, &[]), INVALID_TOPIC_EXCEPTION),
        (creatable("..", 1, &[]), INVALID_TOPIC_EXCEPTION),
        (creatable("a b", 1, &[]), INVALID_TOPIC_EXCEPTION),
        (creatable(&long, 1, &[]), INVALID_TOPIC_EXCEPTION),
        (creatable("none", 0, &[]), INVALID_PARTITIONS),
        (creatable("negative", -2, &[]), INVALID_PARTITIONS),
        (creatable("many", i32::MAX, &[]), POLICY_VIOLATION),
        (creatable("copies", 1, &[]).with_replication_factor(2), INVALID_REPLICATION_FACTOR),
        (creatable("no.copies", 1, &[]).with_replication_factor(0), INVALID_REPLICATION_FACTOR),
        (creatable("odd.config", 1, &[("no.such.setting", "1")]), INVALID_CONFIG),
        (creatable("odd.value", 1, &[("max.message.bytes", "many")]), INVALID_CONFIG),
        (placed("elsewhere", &[(0, &[1])]), INVALID_REPLICA_ASSIGNMENT),
        (placed("nowhere", &[(0, &[])]), INVALID_REPLICA_ASSIGNMENT),
        (placed("with.hole", &[(0, &[0]), (2, &[0])]), INVALID_REPLICA_ASSIGNMENT),
        (placed("placed.twice", &[(0, &[0]), (0, &[0])]), INVALID_REPLICA_ASSIGNMENT),
        (placed("both", &[(0, &[0])]).with_num_partitions(1), INVALID_REQUEST),
        (creatable("good", 1, &[]), NONE),
    ];
    let expected: Vec<i16> = cases.iter().map(|(_, code)| *code).collect();
    let results = create(&mut client, cases.iter().map(|(topic, _)| topic.clone()).collect());
    assert_eq!(codes(&results), expected);
    for result in results.iter().filter(|result| result.error_code != NONE) {
        assert!(result.error_message.as_ref().is_some_and(|message| message.len() > 10), "{result:?}");
        assert!(!server_knows(&mut client, &result.name) || ["there"].contains(&&*result.name.0));
    }
    assert!(server_knows(&mut client, "good"));
}

fn server_knows(client: &mut Client, topic: &str) -> bool {
    client.describe(topic).error_code == NONE
}

#[test]
fn a_name_twice_in_one_request_is_refused_and_so_are_names_that_collide() {
    let server = Server::start();
    let mut client = server.client();
    let twice = ["a", "b", "a", "x.y", "x_y"].map(|name| creatable(name, 1, &[]));
    let results = create(&mut client, twice.to_vec());
    let mut found: Vec<(String, i16)> =
        results.iter().map(|result| (result.name.to_string(), result.error_code)).collect();
    found.sort();
    let expected = [("a", INVALID_REQUEST), ("b", NONE), ("x.y", NONE), ("x_y", INVALID_TOPIC_EXCEPTION)];
    assert_eq!(found, expected.map(|(name, code)| (name.to_owned(), code)));
}

#[test]
fn a_creation_that_is_only_to_be_checked_creates_nothing() {
    let server = Server::start();
    let mut client = server.client();
    let request = create_topics(vec![creatable("good", 2, &[]), creatable("bad", 0, &[])]).with_validate_only(true);
    assert_eq!(codes(&client.call(CREATE_TOPICS, &request).topics), [NONE, INVALID_PARTITIONS]);
    assert!(!server_knows(&mut client, "good"));
}

#[test]
fn there_are_not_more_topics_and_partitions_than_the_settings_allow() {
    let server = Server::start_with(&[("topics.max", "3"), ("partitions.max", "10")]);
    let mut client = server.client();
    let first = create(&mut client, vec![creatable("a", 6, &[]), creatable("b", 5, &[]), creatable("c", 4, &[])]);
    assert_eq!(codes(&first), [NONE, POLICY_VIOLATION, NONE], "what was accepted before it in the request counts");
    let more = CreatePartitionsTopic::default().with_name(topic_name("a")).with_count(7).with_assignments(None);
    let more = CreatePartitionsRequest::default().with_topics(vec![more]).with_timeout_ms(1000);
    assert_eq!(client.call(3, &more).results[0].error_code, POLICY_VIOLATION);
    let metadata = client.call(requests::METADATA, &requests::metadata("by.metadata", true));
    assert_eq!(metadata.topics[0].error_code, POLICY_VIOLATION);
}

fn delete(client: &mut Client, topics: Vec<DeleteTopicState>) -> Vec<DeletableTopicResult> {
    client.call(6, &DeleteTopicsRequest::default().with_topics(topics).with_timeout_ms(30_000)).responses
}

#[test]
fn topics_are_deleted_by_name_and_by_id_with_all_that_was_in_them() {
    let server = Server::start();
    let mut client = server.client();
    let created = create(&mut client, ["a", "b", "kept"].map(|name| creatable(name, 2, &[])).to_vec());
    client.produce("a", batch(&["old"]));
    let by_name = DeleteTopicState::default().with_name(Some(topic_name("a")));
    let by_id = DeleteTopicState::default().with_name(None).with_topic_id(created[1].topic_id);
    let results = delete(&mut client, vec![by_name.clone(), by_id.clone()]);
    assert_eq!(results.iter().map(|result| result.error_code).collect::<Vec<_>>(), [NONE, NONE]);
    assert_eq!(results[1].name, Some(topic_name("b")));
    for name in ["a", "b"] {
        assert!(!server_knows(&mut client, name));
    }
    assert!(server_knows(&mut client, "kept"));
    let again = delete(&mut client, vec![by_name, by_id]);
    let again: Vec<i16> = again.iter().map(|result| result.error_code).collect();
    assert_eq!(again, [UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID]);
    client.create_topic("a", 1, &[]);
    assert_eq!(client.offset_at("a", -1), 0, "a new topic of an old name is empty");
    assert_ne!(client.describe("a").topic_id, created[0].topic_id);
    let server = server.restart();
    let mut client = server.client();
    assert_eq!(client.offset_at("a", -1), 0);
    assert!(!server_knows(&mut client, "b"));
}

#[test]
fn a_deletion_that_is_not_clear_is_refused() {
    let server = Server::start();
    let mut client = server.client();
    let created = create(&mut client, vec![creatable("a", 1, &[])]);
    let named = DeleteTopicState::default().with_name(Some(topic_name("a")));
    let nothing = DeleteTopicState::default().with_name(None);
    let both = named.clone().with_topic_id(created[0].topic_id);
    let results = delete(&mut client, vec![named.clone(), nothing, both, named]);
    assert_eq!(results.len(), 3, "what is named twice is answered once");
    assert!(results.iter().all(|result| result.error_code == INVALID_REQUEST), "{results:?}");
    assert!(server_knows(&mut client, "a"));
}

#[test]
fn nothing_is_deleted_where_deletion_is_switched_off() {
    let server = Server::start_with(&[("delete.topic.enable", "false")]);
    let mut client = server.client();
    client.create_topic("a", 1, &[]);
    let named = DeleteTopicState::default().with_name(Some(topic_name("a")));
    assert_eq!(delete(&mut client, vec![named])[0].error_code, TOPIC_DELETION_DISABLED);
    let old = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("a")]);
    assert_eq!(client.call(2, &old).responses[0].error_code, INVALID_REQUEST);
    assert!(server_knows(&mut client, "a"));
}

#[test]
fn a_topic_gets_more_partitions_but_never_fewer() {
    let server = Server::start();
    let mut client = server.client();
    client.create_topic("t", 2, &[]);
    client.produce("t", batch(&["kept"]));
    let mut grow = |name: &str, count: i32, placement: Option<Vec<Vec<i32>>>| {
        let assignment = |nodes: Vec<i32>| {
            CreatePartitionsAssignment::default().with_broker_ids(nodes.into_iter().map(BrokerId).collect())
        };
        let placement = placement.map(|all| all.into_iter().map(assignment).collect());
        let topic =
            CreatePartitionsTopic::default().with_name(topic_name(name)).with_count(count).with_assignments(placement);
        let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        client.call(3, &request).results[0].error_code
    };
    assert_eq!(grow("t", 2, None), INVALID_PARTITIONS);
    assert_eq!(grow("t", 1, None), INVALID_PARTITIONS);
    assert_eq!(grow("t", -5, None), INVALID_PARTITIONS);
    assert_eq!(grow("missing", 3, None), UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(grow("t", 4, Some(vec![vec![0]])), INVALID_REPLICA_ASSIGNMENT);
    assert_eq!(grow("t", 4, Some(vec![vec![0], vec![7]])), INVALID_REPLICA_ASSIGNMENT);
    assert_eq!(grow("t", 4, Some(vec![vec![0], vec![0]])), NONE);
    assert_eq!(grow("t", 6, None), NONE);
    assert_eq!(client.describe("t").partitions.len(), 6);
    assert_eq!(batches::values(&client.fetch("t", 0, 100).records), [(0, "kept".to_owned())]);
}

#[test]
fn records_are_deleted_up_to_an_offset_and_stay_deleted() {
    let mut server = Server::start();
    let mut client = server.client();
    client.create_topic("t", 1, &[]);
    for value in ["a", "b", "c", "d"] {
        client.produce("t", batch(&[value]));
    }
    let delete_before = |client: &mut Client, topic: &str, offset: i64| {
        let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(offset);
        let topic = DeleteRecordsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        let answer = client.call(2, &request).topics[0].partitions[0].clone();
        (answer.error_code, answer.low_watermark)
    };
    assert_eq!(delete_before(&mut client, "t", 2), (NONE, 2));
    assert_eq!(delete_before(&mut client, "t", 1), (NONE, 2), "a beginning does not move back");
    assert_eq!(delete_before(&mut client, "t", 5), (OFFSET_OUT_OF_RANGE, -1));
    assert_eq!(delete_before(&mut client, "t", -2), (OFFSET_OUT_OF_RANGE, -1));
    assert_eq!(delete_before(&mut client, "missing", 0), (UNKNOWN_TOPIC_OR_PARTITION, -1));
    for _ in 0..2 {
        let mut client = server.client();
        assert_eq!(client.offset_at("t", -2), 2);
        assert_eq!(client.fetch("t", 1, 100).error_code, OFFSET_OUT_OF_RANGE);
        assert_eq!(batches::values(&client.fetch("t", 2, 100).records), [(2, "c".to_owned()), (3, "d".to_owned())]);
        drop(client);
        server = server.restart();
    }
    let mut client = server.client();
    assert_eq!(delete_before(&mut client, "t", -1), (NONE, 4), "-1 is all");
    assert_eq!(client.produce("t", batch(&["e"])), 4, "offsets go on");
}

#[test]
fn offsets_of_a_deleted_topic_are_not_those_of_a_new_one_of_its_name() {
    let server = Server::start();
    let mut client = server.client();
    client.create_topic("t", 1, &[]);
    client.produce("t", batch(&["a"]));
    client.call(requests::OFFSET_COMMIT, &requests::offset_commit("g", "t", 0, 1));
    delete(&mut client, vec![DeleteTopicState::default().with_name(Some(topic_name("t")))]);
    client.create_topic("t", 1, &[]);
    wait_until("the offset is gone", || committed(&mut client) == -1);
}

fn committed(client: &mut Client) -> i64 {
    use kafka_protocol::messages::OffsetFetchRequest;
    use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
    let topic = OffsetFetchRequestTopic::default().with_name(topic_name("t")).with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default().with_group_id(requests::group_id("g")).with_topics(Some(vec![topic]));
    client.call(5, &request).topics[0].partitions[0].committed_offset
}

#[test]
fn the_cluster_is_one_node_at_the_address_that_clients_are_told() {
    let server = Server::start();
    let mut client = server.client();
    let answer = client.call(2, &DescribeClusterRequest::default().with_endpoint_type(1));
    assert_eq!((answer.error_code, answer.controller_id), (NONE, BrokerId(0)));
    assert_eq!(answer.brokers.len(), 1);
    let node = &answer.brokers[0];
    assert_eq!(format!("{}:{}", node.host, node.port), server.address.to_string());
    let metadata = client.call(requests::METADATA, &requests::metadata("none", false));
    assert_eq!(metadata.cluster_id, Some(answer.cluster_id));
    let answer = client.call(2, &DescribeClusterRequest::default().with_endpoint_type(2));
    assert_eq!(answer.error_code, MISMATCHED_ENDPOINT_TYPE);
}

#[test]
fn the_data_directory_says_how_many_bytes_each_partition_has() {
    let server = Server::start();
    let mut client = server.client();
    client.create_topic("t", 2, &[]);
    let stored = batch(&["some bytes"]);
    client.produce("t", stored.clone());
    let answer = client.call(4, &DescribeLogDirsRequest::default().with_topics(None));
    assert_eq!((answer.error_code, answer.results.len()), (NONE, 1));
    let directory = &answer.results[0];
    assert!(!directory.log_dir.is_empty());
    assert!(directory.usable_bytes > 0 && directory.total_bytes >= directory.usable_bytes);
    let sizes: Vec<i64> = directory.topics[0].partitions.iter().map(|partition| partition.partition_size).collect();
    assert!(sizes[0] >= stored.len() as i64 && sizes[1] == 0, "{sizes:?}");
    let asked =
        |topic: &str| DescribableLogDirTopic::default().with_topic(topic_name(topic)).with_partitions(vec![1, 9]);
    let some = DescribeLogDirsRequest::default().with_topics(Some(vec![asked("t"), asked("missing")]));
    let answer = client.call(4, &some);
    assert_eq!(answer.results[0].topics.len(), 1);
    assert_eq!(answer.results[0].topics[0].partitions.len(), 1);
}

#[test]
fn the_only_epoch_ends_at_the_high_watermark() {
    let server = Server::start();
    let mut client = server.client();
    client.create_topic("t", 1, &[]);
    client.produce("t", batch(&["a", "b"]));
    let mut ask = |topic: &str, current: i32, epoch: i32| {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(0)
            .with_current_leader_epoch(current)
            .with_leader_epoch(epoch);
        let topic = OffsetForLeaderTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let answer = client.call(4, &request).topics[0].partitions[0].clone();
        (answer.error_code, answer.leader_epoch, answer.end_offset)
    };
    assert_eq!(ask("t", 0, 0), (NONE, 0, 2));
    assert_eq!(ask("t", -1, 0), (NONE, 0, 2));
    assert_eq!(ask("t", 0, 1), (NONE, -1, -1));
    assert_eq!(ask("t", 1, 0), (UNKNOWN_LEADER_EPOCH, -1, -1));
    assert_eq!(ask("missing", 0, 0), (UNKNOWN_TOPIC_OR_PARTITION, -1, -1));
}

#[test]
fn metadata_create_a_topic_only_where_client_and_settings_want_it() {
    let server = Server::start_with(&[("num.partitions", "4")]);
    let mut client = server.client();
    assert_eq!(client.describe("t").error_code, UNKNOWN_TOPIC_OR_PARTITION);
    let created = client.call(requests::METADATA, &requests::metadata("t", true));
    assert_eq!((created.topics[0].error_code, created.topics[0].partitions.len()), (NONE, 4));
    let odd = client.call(requests::METADATA, &requests::metadata("not a name", true));
    assert_eq!(odd.topics[0].error_code, INVALID_TOPIC_EXCEPTION);
    let server = Server::start_with(&[("auto.create.topics.enable", "false")]);
    let refused = server.client().call(requests::METADATA, &requests::metadata("t", true));
    assert_eq!(refused.topics[0].error_code, UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(refused.topics[0].name, Some(StrBytes::from_static_str("t").into()));
}
