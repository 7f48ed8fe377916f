//! Requests about records.

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, BrokerId, DeleteRecordsRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest,
};

use crate::support::batches::{self, batch};
use crate::support::client::Client;
use crate::support::requests::{self, ALL, topic_name};

/// Clients from this version on name topics by their ids.
const TOPIC_IDS_IN_FETCH: i16 = 13;

/// Makes a request in a version; false if it is not one of these.
pub fn work(client: &mut Client, key: ApiKey, version: i16) -> bool {
    match key {
        ApiKey::Produce => produce(client, version),
        ApiKey::Fetch => fetch(client, version),
        ApiKey::ListOffsets => list_offsets(client, version),
        ApiKey::DeleteRecords => delete_records(client, version),
        ApiKey::OffsetForLeaderEpoch => offset_for_leader_epoch(client, version),
        ApiKey::ApiVersions => assert_eq!(client.call(version, &ApiVersionsRequest::default()).error_code, 0),
        ApiKey::InitProducerId => init_producer_id(client, version),
        _ => return false,
    }
    true
}

fn produce(client: &mut Client, version: i16) {
    let before = client.offset_at("t", -1);
    let answer = client.call(version, &requests::produce("t", 0, ALL, batch(&["a", "b"])));
    let answer = requests::produced(&answer);
    assert_eq!((answer.error_code, answer.base_offset), (0, before), "{version}");
    assert_eq!(client.offset_at("t", -1), before + 2);
}

fn fetch(client: &mut Client, version: i16) {
    let offset = client.produce("t", batch(&["fetched"]));
    let mut request = requests::fetch("t", 0, offset, 1000);
    let id = client.describe("t").topic_id;
    if version >= TOPIC_IDS_IN_FETCH {
        request.topics[0].topic = topic_name("");
        request.topics[0].topic_id = id;
    }
    if version >= 15 {
        request.replica_id = BrokerId(-1);
    }
    let response = client.call(version, &request);
    let read = requests::fetched(&response);
    assert_eq!((read.error_code, read.high_watermark), (0, offset + 1), "{version}");
    assert_eq!(batches::values(&read.records), [(offset, "fetched".to_owned())], "{version}");
    if version >= TOPIC_IDS_IN_FETCH {
        assert_eq!(response.responses[0].topic_id, id);
    }
}

fn list_offsets(client: &mut Client, version: i16) {
    let end = client.offset_at("t", -1);
    let ask = |client: &mut Client, timestamp: i64| {
        let request: ListOffsetsRequest = requests::list_offsets("t", 0, timestamp);
        let response = client.call(version, &request);
        let answer = &response.topics[0].partitions[0];
        assert_eq!(answer.error_code, 0, "{version}");
        answer.offset
    };
    assert_eq!(ask(client, -1), end);
    assert_eq!(ask(client, 0), ask(client, -2), "all records are later than 1970");
}

fn delete_records(client: &mut Client, version: i16) {
    let topic = format!("delete.records.{version}");
    client.create_topic(&topic, 1, &[]);
    client.produce(&topic, batch(&["a", "b"]));
    let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(1);
    let asked = DeleteRecordsTopic::default().with_name(topic_name(&topic)).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![asked]).with_timeout_ms(30_000);
    let response = client.call(version, &request);
    let answer = &response.topics[0].partitions[0];
    assert_eq!((answer.error_code, answer.low_watermark), (0, 1), "{version}");
}

fn offset_for_leader_epoch(client: &mut Client, version: i16) {
    let end = client.offset_at("t", -1);
    let partition = OffsetForLeaderPartition::default().with_partition(0).with_leader_epoch(0);
    let asked = OffsetForLeaderTopic::default().with_topic(topic_name("t")).with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![asked]);
    let request = if version >= 3 { request.with_replica_id(BrokerId(-1)) } else { request };
    let response = client.call(version, &request);
    let answer = &response.topics[0].partitions[0];
    assert_eq!((answer.error_code, answer.end_offset), (0, end), "{version}");
}

fn init_producer_id(client: &mut Client, version: i16) {
    let response = client.call(version, &requests::init_producer_id());
    assert_eq!((response.error_code, response.producer_epoch), (0, 0), "{version}");
    assert!(response.producer_id.0 >= 0);
}
