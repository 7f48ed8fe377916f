//! What tests and fuzz targets do with bytes that may be a request.

use baton_wire::ApiKey;
use baton_wire::messages::*;

/// Decodes a request of any API that is served, and walks all of it.
pub fn decode_any(api_key: ApiKey, bytes: &[u8], version: i16) {
    macro_rules! decode {
        ($($api:ident in $module:ident as $request:ident),* $(,)?) => {
            match api_key {
                // Comparing a request with itself reads every element again.
                $(ApiKey::$api => if let Ok(request) = $module::$request::decode_request(bytes, version) {
                    let again = request;
                    assert!(request == again);
                },)*
                _ => assert_eq!(api_key.schema_versions(), None, "{} is served but not tried", api_key.name()),
            }
        };
    }
    decode!(
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
