//! Requests as short as the tests need them, and the calls made of them.

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, FetchRequest, FetchResponse, GroupId, InitProducerIdRequest, ListOffsetsRequest,
    MetadataRequest, OffsetCommitRequest, ProduceRequest, ProduceResponse, ProducerId, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::client::Client;

/// Versions for requests whose version does not matter.
pub const PRODUCE: i16 = 11;
pub const FETCH: i16 = 12;
pub const LIST_OFFSETS: i16 = 7;
pub const METADATA: i16 = 12;
pub const CREATE_TOPICS: i16 = 7;
pub const OFFSET_COMMIT: i16 = 8;
pub const INIT_PRODUCER_ID: i16 = 4;

/// All replicas.
pub const ALL: i16 = -1;

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub fn group_id(name: &str) -> GroupId {
    GroupId(text(name))
}

/// One batch to one partition.
pub fn produce(topic: &str, partition: i32, acks: i16, batch: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

/// The answer for the one partition that was produced to.
pub fn produced(response: &ProduceResponse) -> PartitionProduceResponse {
    response.responses[0].partition_responses[0].clone()
}

/// Reads one partition.
pub fn fetch(topic: &str, partition: i32, offset: i64, wait_ms: i32) -> FetchRequest {
    let partition =
        FetchPartition::default().with_partition(partition).with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// The answer for the one partition that was fetched.
pub fn fetched(response: &FetchResponse) -> PartitionData {
    assert_eq!(response.error_code, 0);
    response.responses[0].partitions[0].clone()
}

pub fn list_offsets(topic: &str, partition: i32, timestamp: i64) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_current_leader_epoch(-1)
        .with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
}

pub fn metadata(topic: &str, creating: bool) -> MetadataRequest {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(creating)
}

pub fn creatable(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreatableTopic {
    let config = |(name, value): &(&str, &str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.iter().map(config).collect())
}

pub fn create_topics(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(30_000)
}

/// A commit from outside of a group's membership.
pub fn offset_commit(group: &str, topic: &str, partition: i32, offset: i64) -> OffsetCommitRequest {
    let partition =
        OffsetCommitRequestPartition::default().with_partition_index(partition).with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

pub fn init_producer_id() -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}

impl Client {
    /// Creates a topic.
    pub fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let request = create_topics(vec![creatable(name, partitions, configs)]);
        let response = self.call(CREATE_TOPICS, &request);
        assert_eq!(response.topics[0].error_code, 0, "{:?}", response.topics[0].error_message);
    }

    /// Produces to partition 0; returns the base offset.
    pub fn produce(&mut self, topic: &str, batch: Bytes) -> i64 {
        let answer = produced(&self.call(PRODUCE, &produce(topic, 0, ALL, batch)));
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
        answer.base_offset
    }

    /// Fetches from partition 0.
    pub fn fetch(&mut self, topic: &str, offset: i64, wait_ms: i32) -> PartitionData {
        fetched(&self.call(FETCH, &fetch(topic, 0, offset, wait_ms)))
    }

    /// The offset at a time, or -1.
    pub fn offset_at(&mut self, topic: &str, timestamp: i64) -> i64 {
        let response = self.call(LIST_OFFSETS, &list_offsets(topic, 0, timestamp));
        let answer = &response.topics[0].partitions[0];
        assert_eq!(answer.error_code, 0);
        answer.offset
    }

    /// What is said of a topic.
    pub fn describe(&mut self, topic: &str) -> MetadataResponseTopic {
        self.call(METADATA, &metadata(topic, false)).topics[0].clone()
    }

    /// A new idempotent producer's id.
    pub fn producer_id(&mut self) -> i64 {
        let response = self.call(INIT_PRODUCER_ID, &init_producer_id());
        assert_eq!(response.error_code, 0);
        response.producer_id.0
    }
}
