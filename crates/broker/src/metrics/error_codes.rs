//! Where the error codes are in each kind of response.

use baton_wire::messages as m;

/// Tells the error codes that a response holds.
pub(crate) trait ErrorCodes {
    /// Calls `count` with each code, 0 ("none") included.
    fn each_code(&self, count: &mut dyn FnMut(i16));
}

/// `self`: the response has a code itself. `each field`: each element of a list has one. `each field in list`: each element of
/// a list in each element of a list.
macro_rules! error_codes {
    ($($response:path: $($whole:ident)? [$($one:ident),*] [$($inner:ident in $outer:ident),*];)*) => {$(
        impl ErrorCodes for $response {
            fn each_code(&self, count: &mut dyn FnMut(i16)) {
                $(count(self.$whole);)?
                $(self.$one.iter().for_each(|one| count(one.error_code));)*
                $(self.$outer.iter().flat_map(|outer| &outer.$inner).for_each(|inner| count(inner.error_code));)*
            }
        }
    )*};
}

error_codes! {
    m::api_versions_response::ApiVersionsResponse: error_code [] [];
    m::produce_response::ProduceResponse: [] [partition_responses in responses];
    m::fetch_response::FetchResponse: error_code [] [partitions in responses];
    m::list_offsets_response::ListOffsetsResponse: [] [partitions in topics];
    m::metadata_response::MetadataResponse: [topics] [];
    m::offset_commit_response::OffsetCommitResponse: [] [partitions in topics];
    m::find_coordinator_response::FindCoordinatorResponse: error_code [coordinators] [];
    m::join_group_response::JoinGroupResponse: error_code [] [];
    m::heartbeat_response::HeartbeatResponse: error_code [] [];
    m::leave_group_response::LeaveGroupResponse: error_code [members] [];
    m::sync_group_response::SyncGroupResponse: error_code [] [];
    m::describe_groups_response::DescribeGroupsResponse: [groups] [];
    m::list_groups_response::ListGroupsResponse: error_code [] [];
    m::create_topics_response::CreateTopicsResponse: [topics] [];
    m::delete_topics_response::DeleteTopicsResponse: [responses] [];
    m::delete_records_response::DeleteRecordsResponse: [] [partitions in topics];
    m::init_producer_id_response::InitProducerIdResponse: error_code [] [];
    m::offset_for_leader_epoch_response::OffsetForLeaderEpochResponse: [] [partitions in topics];
    m::describe_configs_response::DescribeConfigsResponse: [results] [];
    m::alter_configs_response::AlterConfigsResponse: [responses] [];
    m::incremental_alter_configs_response::IncrementalAlterConfigsResponse: [responses] [];
    m::describe_log_dirs_response::DescribeLogDirsResponse: error_code [results] [];
    m::create_partitions_response::CreatePartitionsResponse: [results] [];
    m::delete_groups_response::DeleteGroupsResponse: [results] [];
    m::offset_delete_response::OffsetDeleteResponse: error_code [] [partitions in topics];
    m::describe_cluster_response::DescribeClusterResponse: error_code [] [];
    m::offset_fetch_response::OffsetFetchResponse: error_code [groups] [partitions in topics];
}
