//! Requests: what is written by the schema is read back as the same values.

use kafka_protocol::messages::{ApiKey as OtherApiKey, OffsetCommitRequest, OffsetFetchRequest, RequestKind};
use kafka_protocol::protocol::{Message, VersionRange};

use super::value::Schema;
use super::{Random, SAMPLES};
use crate::messages::ApiKey;

/// `{:?}` of a request, decoded here.
fn decode(api_key: ApiKey, bytes: &[u8], version: i16) -> Result<String, crate::DecodeError> {
    macro_rules! debug {
        ($($api:ident in $module:ident as $request:ident),* $(,)?) => {
            match api_key {
                $(ApiKey::$api => crate::messages::$module::$request::decode_request(bytes, version)
                    .map(|request| format!("{request:?}")),)*
                other => panic!("{} is not served", other.name()),
            }
        };
    }
    debug!(
        Produce in produce_request as ProduceRequest,
        Fetch in fetch_request as FetchRequest,
        ListOffsets in list_offsets_request as ListOffsetsRequest,
        Metadata in metadata_request as MetadataRequest,
        OffsetCommit in offset_commit_request as OffsetCommitRequest,
        OffsetFetch in offset_fetch_request as OffsetFetchRequest,
        FindCoordinator in find_coordinator_request as FindCoordinatorRequest,
        JoinGroup in join_group_request as JoinGroupRequest,
        Heartbeat in heartbeat_request as HeartbeatRequest,
        LeaveGroup in leave_group_request as LeaveGroupRequest,
        SyncGroup in sync_group_request as SyncGroupRequest,
        DescribeGroups in describe_groups_request as DescribeGroupsRequest,
        ListGroups in list_groups_request as ListGroupsRequest,
        ApiVersions in api_versions_request as ApiVersionsRequest,
        CreateTopics in create_topics_request as CreateTopicsRequest,
        DeleteTopics in delete_topics_request as DeleteTopicsRequest,
        DeleteRecords in delete_records_request as DeleteRecordsRequest,
        InitProducerId in init_producer_id_request as InitProducerIdRequest,
        OffsetForLeaderEpoch in offset_for_leader_epoch_request as OffsetForLeaderEpochRequest,
        DescribeConfigs in describe_configs_request as DescribeConfigsRequest,
        AlterConfigs in alter_configs_request as AlterConfigsRequest,
        DescribeLogDirs in describe_log_dirs_request as DescribeLogDirsRequest,
        CreatePartitions in create_partitions_request as CreatePartitionsRequest,
        DeleteGroups in delete_groups_request as DeleteGroupsRequest,
        IncrementalAlterConfigs in incremental_alter_configs_request as IncrementalAlterConfigsRequest,
        OffsetDelete in offset_delete_request as OffsetDeleteRequest,
        DescribeCluster in describe_cluster_request as DescribeClusterRequest,
    )
}

/// The APIs that have schemas here.
pub fn served() -> impl Iterator<Item = ApiKey> {
    ApiKey::ALL.iter().copied().filter(|api_key| api_key.schema_versions().is_some())
}

/// The versions of an API that both implementations know.
pub fn common_versions(api_key: ApiKey) -> impl Iterator<Item = i16> {
    let VersionRange { min, max } = match api_key {
        // Its table of keys says more than its messages can.
        ApiKey::OffsetCommit => OffsetCommitRequest::VERSIONS,
        ApiKey::OffsetFetch => OffsetFetchRequest::VERSIONS,
        _ => OtherApiKey::try_from(api_key as i16).unwrap().valid_versions(),
    };
    api_key.schema_versions().unwrap().filter(move |version| (min..=max).contains(version))
}

#[test]
fn every_request_in_every_version_decodes_to_the_values_that_were_written() {
    let mut tried = 0;
    for api_key in served() {
        let schema = Schema::load(api_key, "Request");
        for version in api_key.schema_versions().unwrap() {
            for seed in 0..SAMPLES {
                let codec = schema.at(version);
                let value = codec.random_message(&mut Random::new(seed));
                let bytes = codec.write_message(&value);
                let decoded = decode(api_key, &bytes, version);
                assert_eq!(decoded, Ok(codec.debug_message(&value)), "{} version {version}", api_key.name());
                tried += 1;
            }
        }
    }
    assert_eq!(served().count(), 27);
    assert!(tried > 150 * SAMPLES, "only {tried} requests were tried");
}

#[test]
fn requests_written_by_the_schema_are_requests_to_another_implementation() {
    for api_key in served() {
        let schema = Schema::load(api_key, "Request");
        for version in common_versions(api_key) {
            for seed in 0..SAMPLES {
                let codec = schema.at(version);
                let bytes = codec.write_message(&codec.random_message(&mut Random::new(seed)));
                let other_key = OtherApiKey::try_from(api_key as i16).unwrap();
                let mut left = bytes.clone().into();
                let request = RequestKind::decode(other_key, &mut left, version)
                    .unwrap_or_else(|error| panic!("{} version {version}: {error}", api_key.name()));
                assert!(left.is_empty(), "{} version {version}", api_key.name());
                let mut again = Default::default();
                request.encode(&mut again, version).unwrap();
                assert_eq!(again, bytes, "{} version {version}: {request:?}", api_key.name());
            }
        }
    }
}

#[test]
fn versions_that_only_this_crate_knows_are_few_and_named() {
    let mut only_here = Vec::new();
    for api_key in served() {
        let common: Vec<i16> = common_versions(api_key).collect();
        for version in api_key.schema_versions().unwrap().filter(|version| !common.contains(version)) {
            only_here.push((api_key.name(), version));
        }
    }
    // Newer than the other implementation; their requests are still checked against the schema.
    let newer = [("ListOffsets", 11), ("OffsetCommit", 10), ("OffsetFetch", 10), ("DescribeLogDirs", 5)];
    assert_eq!(only_here, newer);
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    for api_key in served() {
        let schema = Schema::load(api_key, "Request");
        for version in api_key.schema_versions().unwrap().filter(|version| api_key.is_flexible(*version)) {
            let mut codec = schema.at(version);
            codec.unknown_tag = true;
            let value = codec.random_message(&mut Random::new(1));
            let decoded = decode(api_key, &codec.write_message(&value), version);
            assert_eq!(decoded, Ok(codec.debug_message(&value)), "{} version {version}", api_key.name());
        }
    }
}

#[test]
fn no_request_decodes_when_it_is_cut_short_and_what_follows_it_is_ignored() {
    for api_key in served() {
        let schema = Schema::load(api_key, "Request");
        for version in api_key.schema_versions().unwrap() {
            let codec = schema.at(version);
            let message = codec.random_message(&mut Random::new(2));
            let mut bytes = codec.write_message(&message);
            for length in 0..bytes.len() {
                let decoded = decode(api_key, &bytes[..length], version);
                assert!(decoded.is_err(), "{} version {version} cut to {length} bytes", api_key.name());
            }
            // As Apache Kafka does; librdkafka 2.16 sends these with each Metadata request for all topics.
            bytes.extend([1, 0, 0]);
            let decoded = decode(api_key, &bytes, version);
            assert_eq!(decoded, Ok(codec.debug_message(&message)), "{} version {version}", api_key.name());
        }
    }
}

#[test]
fn versions_without_a_schema_are_refused() {
    for api_key in served() {
        let versions = api_key.schema_versions().unwrap();
        for version in [versions.start() - 1, versions.end() + 1, i16::MIN, i16::MAX] {
            let refused = Err(crate::DecodeError::UnsupportedVersion { api_key, version });
            assert_eq!(decode(api_key, &[0; 64], version), refused);
        }
    }
}
