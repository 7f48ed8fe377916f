//! Requests about consumer groups.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ApiKey, DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;

use crate::support::client::Client;
use crate::support::requests::{self, group_id, text, topic_name};

const MEMBER_ID_REQUIRED: i16 = 79;
/// Versions for requests whose version does not matter.
const JOIN: i16 = 6;
const SYNC: i16 = 4;

/// Makes a request in a version; false if it is not one of these.
pub fn work(client: &mut Client, key: ApiKey, version: i16) -> bool {
    match key {
        ApiKey::FindCoordinator => find_coordinator(client, version),
        ApiKey::JoinGroup => drop(join(client, &format!("join.{version}"), version)),
        ApiKey::SyncGroup => {
            let (member, generation) = join(client, &format!("sync.{version}"), JOIN);
            sync(client, &format!("sync.{version}"), &member, generation, version);
        }
        ApiKey::Heartbeat => heartbeat(client, version),
        ApiKey::LeaveGroup => leave(client, version),
        ApiKey::OffsetCommit => offset_commit(client, version),
        ApiKey::OffsetFetch => offset_fetch(client, version),
        ApiKey::OffsetDelete => offset_delete(client, version),
        ApiKey::ListGroups => list(client, version),
        ApiKey::DescribeGroups => describe(client, version),
        ApiKey::DeleteGroups => delete(client, version),
        _ => return false,
    }
    true
}

fn find_coordinator(client: &mut Client, version: i16) {
    let address = client.stream.peer_addr().expect("connected").to_string();
    let request = FindCoordinatorRequest::default();
    if version >= 4 {
        let response = client.call(version, &request.with_coordinator_keys(vec![text("g"), text("h")]));
        let found: Vec<String> =
            response.coordinators.iter().map(|found| format!("{}:{}", found.host, found.port)).collect();
        assert_eq!(found, [address.as_str(), address.as_str()], "{version}");
    } else {
        let response = client.call(version, &request.with_key(text("g")));
        assert_eq!(response.error_code, 0);
        assert_eq!(format!("{}:{}", response.host, response.port), address, "{version}");
    }
}

/// Joins a group alone; returns member id and generation.
fn join(client: &mut Client, group: &str, version: i16) -> (StrBytes, i32) {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"\0\0\0\0\0\0\0\0\0\0"));
    let request = JoinGroupRequest::default()
        .with_group_id(group_id(group))
        .with_session_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let request = if version >= 1 { request.with_rebalance_timeout_ms(10_000) } else { request };
    let mut response = client.call(version, &request);
    if version >= 4 {
        assert_eq!(response.error_code, MEMBER_ID_REQUIRED, "{version}");
        response = client.call(version, &request.with_member_id(response.member_id));
    }
    assert_eq!(response.error_code, 0, "{version}");
    assert_eq!(response.leader, response.member_id, "alone, and so the leader");
    assert_eq!(response.members.len(), 1);
    (response.member_id, response.generation_id)
}

fn sync(client: &mut Client, group: &str, member: &StrBytes, generation: i32, version: i16) {
    let assignment = Bytes::from_static(b"everything");
    let assigned =
        SyncGroupRequestAssignment::default().with_member_id(member.clone()).with_assignment(assignment.clone());
    let request = SyncGroupRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(generation)
        .with_member_id(member.clone())
        .with_assignments(vec![assigned]);
    let request = match version {
        5.. => request.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range"))),
        _ => request,
    };
    let response = client.call(version, &request);
    assert_eq!((response.error_code, response.assignment), (0, assignment), "{version}");
}

/// A group with one member that has its assignment.
fn stable(client: &mut Client, group: &str) -> (StrBytes, i32) {
    let (member, generation) = join(client, group, JOIN);
    sync(client, group, &member, generation, SYNC);
    (member, generation)
}

fn heartbeat(client: &mut Client, version: i16) {
    let group = format!("heartbeat.{version}");
    let (member, generation) = stable(client, &group);
    let request = HeartbeatRequest::default()
        .with_group_id(group_id(&group))
        .with_member_id(member)
        .with_generation_id(generation);
    assert_eq!(client.call(version, &request).error_code, 0, "{version}");
}

fn leave(client: &mut Client, version: i16) {
    let group = format!("leave.{version}");
    let (member, _) = stable(client, &group);
    let request = LeaveGroupRequest::default().with_group_id(group_id(&group));
    let request = match version {
        3.. => request.with_members(vec![MemberIdentity::default().with_member_id(member)]),
        _ => request.with_member_id(member),
    };
    let response = client.call(version, &request);
    assert_eq!(response.error_code, 0, "{version}");
    assert!(response.members.iter().all(|member| member.error_code == 0));
}

fn offset_commit(client: &mut Client, version: i16) {
    let group = format!("commit.{version}");
    let response = client.call(version, &requests::offset_commit(&group, "t", 0, 5));
    assert_eq!(response.topics[0].partitions[0].error_code, 0, "{version}");
    assert_eq!(committed(client, &group), 5);
}

fn committed(client: &mut Client, group: &str) -> i64 {
    let topic = OffsetFetchRequestTopic::default().with_name(topic_name("t")).with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(Some(vec![topic]));
    client.call(5, &request).topics[0].partitions[0].committed_offset
}

fn offset_fetch(client: &mut Client, version: i16) {
    let group = format!("fetch.{version}");
    client.call(requests::OFFSET_COMMIT, &requests::offset_commit(&group, "t", 0, 7));
    let request = OffsetFetchRequest::default();
    let found = if version >= 8 {
        let topic = OffsetFetchRequestTopics::default().with_name(topic_name("t")).with_partition_indexes(vec![0]);
        let asked = OffsetFetchRequestGroup::default().with_group_id(group_id(&group)).with_topics(Some(vec![topic]));
        let response = client.call(version, &request.with_groups(vec![asked]));
        assert_eq!(response.groups[0].error_code, 0);
        response.groups[0].topics[0].partitions[0].committed_offset
    } else {
        let topic = OffsetFetchRequestTopic::default().with_name(topic_name("t")).with_partition_indexes(vec![0]);
        let response = client.call(version, &request.with_group_id(group_id(&group)).with_topics(Some(vec![topic])));
        assert_eq!(response.error_code, 0);
        response.topics[0].partitions[0].committed_offset
    };
    assert_eq!(found, 7, "{version}");
}

fn offset_delete(client: &mut Client, version: i16) {
    let group = format!("offset.delete.{version}");
    client.call(requests::OFFSET_COMMIT, &requests::offset_commit(&group, "t", 0, 3));
    let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
    let topic = OffsetDeleteRequestTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
    let request = OffsetDeleteRequest::default().with_group_id(group_id(&group)).with_topics(vec![topic]);
    let response = client.call(version, &request);
    assert_eq!((response.error_code, response.topics[0].partitions[0].error_code), (0, 0), "{version}");
    assert_eq!(committed(client, &group), -1);
}

fn list(client: &mut Client, version: i16) {
    let group = format!("list.{version}");
    stable(client, &group);
    let response = client.call(version, &ListGroupsRequest::default());
    assert_eq!(response.error_code, 0);
    let listed = response.groups.iter().find(|listed| listed.group_id == group_id(&group)).expect("it is listed");
    assert_eq!(&*listed.protocol_type, "consumer");
    if version >= 4 {
        assert_eq!(&*listed.group_state, "Stable", "{version}");
    }
    if version >= 5 {
        assert_eq!(listed.group_type.to_lowercase(), "classic", "{version}");
    }
}

fn describe(client: &mut Client, version: i16) {
    let group = format!("describe.{version}");
    stable(client, &group);
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id(&group)]);
    let response = client.call(version, &request);
    let described = &response.groups[0];
    assert_eq!((described.error_code, &*described.group_state), (0, "Stable"), "{version}");
    assert_eq!(&described.members[0].member_assignment[..], b"everything");
    assert_eq!(&*described.members[0].client_id, "test");
    assert_eq!(&*described.members[0].client_host, "/127.0.0.1");
}

fn delete(client: &mut Client, version: i16) {
    let group = format!("delete.{version}");
    client.call(requests::OFFSET_COMMIT, &requests::offset_commit(&group, "t", 0, 3));
    let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(&group), group_id("missing")]);
    let response = client.call(version, &request);
    let codes: Vec<i16> = response.results.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [0, 69], "{version}");
    assert_eq!(committed(client, &group), -1);
}
