//! Responses: what is encoded here is read by the schema, and by another implementation, as the same values.

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey as OtherApiKey, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::Decodable;

use super::requests::{common_versions, served};
use super::value::Schema;
use super::{Random, SAMPLES, Sample};
use crate::encode_response;
use crate::messages::ApiKey;

const CORRELATION_ID: i32 = 0x0102_0304;

/// A random response: `{:?}` of it, and its bytes.
fn encode(api_key: ApiKey, version: i16, seed: u64) -> (String, Vec<u8>) {
    macro_rules! encode {
        ($($api:ident in $module:ident as $response:ident),* $(,)?) => {
            match api_key {
                $(ApiKey::$api => {
                    let response = crate::messages::$module::$response::sample(&mut Random::new(seed), version);
                    let chain = encode_response(CORRELATION_ID, api_key, version, &response);
                    (format!("{response:?}"), chain.concat())
                })*
                other => panic!("{} is not served", other.name()),
            }
        };
    }
    encode!(
        Produce in produce_response as ProduceResponse,
        Fetch in fetch_response as FetchResponse,
        ListOffsets in list_offsets_response as ListOffsetsResponse,
        Metadata in metadata_response as MetadataResponse,
        OffsetCommit in offset_commit_response as OffsetCommitResponse,
        OffsetFetch in offset_fetch_response as OffsetFetchResponse,
        FindCoordinator in find_coordinator_response as FindCoordinatorResponse,
        JoinGroup in join_group_response as JoinGroupResponse,
        Heartbeat in heartbeat_response as HeartbeatResponse,
        LeaveGroup in leave_group_response as LeaveGroupResponse,
        SyncGroup in sync_group_response as SyncGroupResponse,
        DescribeGroups in describe_groups_response as DescribeGroupsResponse,
        ListGroups in list_groups_response as ListGroupsResponse,
        ApiVersions in api_versions_response as ApiVersionsResponse,
        CreateTopics in create_topics_response as CreateTopicsResponse,
        DeleteTopics in delete_topics_response as DeleteTopicsResponse,
        DeleteRecords in delete_records_response as DeleteRecordsResponse,
        InitProducerId in init_producer_id_response as InitProducerIdResponse,
        OffsetForLeaderEpoch in offset_for_leader_epoch_response as OffsetForLeaderEpochResponse,
        DescribeConfigs in describe_configs_response as DescribeConfigsResponse,
        AlterConfigs in alter_configs_response as AlterConfigsResponse,
        DescribeLogDirs in describe_log_dirs_response as DescribeLogDirsResponse,
        CreatePartitions in create_partitions_response as CreatePartitionsResponse,
        DeleteGroups in delete_groups_response as DeleteGroupsResponse,
        IncrementalAlterConfigs in incremental_alter_configs_response as IncrementalAlterConfigsResponse,
        OffsetDelete in offset_delete_response as OffsetDeleteResponse,
        DescribeCluster in describe_cluster_response as DescribeClusterResponse,
    )
}

/// What follows length and header of a response.
fn body(api_key: ApiKey, version: i16, bytes: &[u8]) -> Bytes {
    let (length, rest) = bytes.split_first_chunk().unwrap();
    assert_eq!(u32::from_be_bytes(*length) as usize, rest.len());
    let mut left = Bytes::copy_from_slice(rest);
    let header_version = OtherApiKey::try_from(api_key as i16).unwrap().response_header_version(version);
    let header = ResponseHeader::decode(&mut left, header_version).unwrap();
    assert_eq!(header.correlation_id, CORRELATION_ID);
    left
}

#[test]
fn every_response_in_every_version_is_what_its_schema_says() {
    for api_key in served() {
        let schema = Schema::load(api_key, "Response");
        for version in api_key.schema_versions().unwrap() {
            for seed in 0..SAMPLES {
                let (debug, bytes) = encode(api_key, version, seed);
                let codec = schema.at(version);
                let value = codec.read_message(&body(api_key, version, &bytes));
                assert_eq!(codec.debug_message(&value), debug, "{} version {version}", api_key.name());
            }
        }
    }
}

#[test]
fn every_response_in_every_version_is_read_by_another_implementation() {
    for api_key in served() {
        for version in common_versions(api_key) {
            for seed in 0..SAMPLES {
                let (debug, bytes) = encode(api_key, version, seed);
                let body = body(api_key, version, &bytes);
                let mut left = body.clone();
                let other_key = OtherApiKey::try_from(api_key as i16).unwrap();
                let response = ResponseKind::decode(other_key, &mut left, version)
                    .unwrap_or_else(|error| panic!("{} version {version}: {error}: {debug}", api_key.name()));
                assert!(left.is_empty(), "{} version {version}", api_key.name());
                let mut again = Default::default();
                response.encode(&mut again, version).unwrap();
                assert_eq!(again, body, "{} version {version}: {debug}", api_key.name());
            }
        }
    }
}
