//! Consumer groups, as several clients see them.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::support::client::Client;
use crate::support::requests::{group_id, offset_commit, text, topic_name};
use crate::support::server::Server;

const GROUP: &str = "billing";
const JOIN: i16 = 9;
const SYNC: i16 = 5;
const HEARTBEAT: i16 = 4;
const LEAVE: i16 = 5;
const COMMIT: i16 = 9;
const FETCH_OFFSETS: i16 = 9;

const NONE: i16 = 0;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const OFFSET_METADATA_TOO_LARGE: i16 = 12;
const ILLEGAL_GENERATION: i16 = 22;
const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
const INVALID_GROUP_ID: i16 = 24;
const UNKNOWN_MEMBER_ID: i16 = 25;
const INVALID_SESSION_TIMEOUT: i16 = 26;
const REBALANCE_IN_PROGRESS: i16 = 27;
const INVALID_REQUEST: i16 = 42;
const NON_EMPTY_GROUP: i16 = 68;
const GROUP_ID_NOT_FOUND: i16 = 69;
const MEMBER_ID_REQUIRED: i16 = 79;
const FENCED_INSTANCE_ID: i16 = 82;
const GROUP_SUBSCRIBED_TO_TOPIC: i16 = 86;

/// A consumer on its own connection, one step at a time.
struct Member {
    client: Client,
    id: StrBytes,
    instance: Option<StrBytes>,
    generation: i32,
}

impl Member {
    fn new(server: &Server, instance: Option<&str>) -> Self {
        Self { client: server.client(), id: StrBytes::default(), instance: instance.map(text), generation: -1 }
    }

    fn join_request(&self) -> JoinGroupRequest {
        // A subscription to topic "t".
        let metadata = Bytes::from_static(b"\0\x01\0\0\0\x01\0\x01t\xff\xff\xff\xff\0\0\0\0");
        let protocol = |name| JoinGroupRequestProtocol::default().with_name(text(name)).with_metadata(metadata.clone());
        JoinGroupRequest::default()
            .with_group_id(group_id(GROUP))
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_session_timeout_ms(6_000)
            .with_rebalance_timeout_ms(60_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol("range"), protocol("cooperative-sticky")])
    }

    /// Asks to join, with the id that it is given if it has none.
    fn start_join(&mut self) -> i32 {
        if self.id.is_empty() && self.instance.is_none() {
            let request = self.join_request();
            let response = self.client.call(JOIN, &request);
            assert_eq!(response.error_code, MEMBER_ID_REQUIRED);
            self.id = response.member_id;
        }
        let request = self.join_request();
        self.client.send(JOIN, &request)
    }

    fn finish_join(&mut self, sent: i32) -> JoinGroupResponse {
        let response = self.client.receive::<JoinGroupRequest>(JOIN, sent);
        assert_eq!(response.error_code, NONE);
        self.id = response.member_id.clone();
        self.generation = response.generation_id;
        response
    }

    fn start_sync(&mut self, assignments: Vec<(StrBytes, String)>) -> i32 {
        let assigned = |(id, part): (StrBytes, String)| {
            SyncGroupRequestAssignment::default().with_member_id(id).with_assignment(part.into())
        };
        let request = SyncGroupRequest::default()
            .with_group_id(group_id(GROUP))
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")))
            .with_assignments(assignments.into_iter().map(assigned).collect());
        self.client.send(SYNC, &request)
    }

    fn finish_sync(&mut self, sent: i32) -> SyncGroupResponse {
        self.client.receive::<SyncGroupRequest>(SYNC, sent)
    }

    fn heartbeat(&mut self) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(group_id(GROUP))
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone());
        self.client.call(HEARTBEAT, &request).error_code
    }

    fn commit_request(&self, offset: i64) -> OffsetCommitRequest {
        offset_commit(GROUP, "t", 0, offset)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_generation_id_or_member_epoch(self.generation)
    }

    fn commit(&mut self, offset: i64) -> i16 {
        let request = self.commit_request(offset);
        self.client.call(COMMIT, &request).topics[0].partitions[0].error_code
    }

    fn leave(&mut self) -> i16 {
        let member =
            MemberIdentity::default().with_member_id(self.id.clone()).with_group_instance_id(self.instance.clone());
        let request = LeaveGroupRequest::default().with_group_id(group_id(GROUP)).with_members(vec![member]);
        self.client.call(LEAVE, &request).members[0].error_code
    }
}

/// All of them join, and each is assigned a part named after its id.
fn rebalance(members: &mut [&mut Member]) {
    let sent: Vec<i32> = members.iter_mut().map(|member| member.start_join()).collect();
    let joined: Vec<JoinGroupResponse> =
        members.iter_mut().zip(sent).map(|(member, sent)| member.finish_join(sent)).collect();
    let generations: BTreeSet<i32> = joined.iter().map(|joined| joined.generation_id).collect();
    assert_eq!(generations.len(), 1, "all are in one generation");
    let leaders: Vec<_> = joined.iter().filter(|joined| !joined.members.is_empty()).collect();
    assert_eq!(leaders.len(), 1, "one leads");
    assert_eq!(leaders[0].leader, leaders[0].member_id);
    let ids: BTreeSet<_> = members.iter().map(|member| member.id.clone()).collect();
    assert_eq!(leaders[0].members.iter().map(|member| member.member_id.clone()).collect::<BTreeSet<_>>(), ids);
    let leader = leaders[0].leader.clone();
    let mut sent = Vec::new();
    for member in members.iter_mut() {
        let parts = ids.iter().map(|id| (id.clone(), format!("part of {id}")));
        let assignments = if member.id == leader { parts.collect() } else { Vec::new() };
        sent.push(member.start_sync(assignments));
    }
    for (member, sent) in members.iter_mut().zip(sent) {
        let synced = member.finish_sync(sent);
        assert_eq!(synced.error_code, NONE);
        assert_eq!(synced.assignment, format!("part of {}", member.id));
    }
}

fn server() -> Server {
    let server = Server::start_with(&[("group.initial.rebalance.delay.ms", "200")]);
    server.client().create_topic("t", 2, &[]);
    server.client().create_topic("other", 1, &[]);
    server
}

fn committed(client: &mut Client, group: &str) -> Vec<(String, i32, i64, Option<StrBytes>)> {
    let asked = OffsetFetchRequestGroup::default().with_group_id(group_id(group)).with_topics(None);
    let response = client.call(FETCH_OFFSETS, &OffsetFetchRequest::default().with_groups(vec![asked]));
    let topics = response.groups.into_iter().flat_map(|group| group.topics);
    let offsets = topics.flat_map(|topic| {
        let name = topic.name.to_string();
        let found = topic.partitions.into_iter();
        found.map(move |found| (name.clone(), found.partition_index, found.committed_offset, found.metadata))
    });
    offsets.collect()
}

fn delete_group(client: &mut Client, group: &str) -> i16 {
    client.call(2, &DeleteGroupsRequest::default().with_groups_names(vec![group_id(group)])).results[0].error_code
}

#[test]
fn three_members_share_the_work_and_those_who_stay_take_over() {
    let server = server();
    let (mut one, mut two, mut three) =
        (Member::new(&server, None), Member::new(&server, None), Member::new(&server, None));
    rebalance(&mut [&mut one, &mut two, &mut three]);
    assert_eq!(three.commit(41), NONE);
    assert_eq!(three.leave(), NONE);
    assert_eq!((one.heartbeat(), two.heartbeat()), (REBALANCE_IN_PROGRESS, REBALANCE_IN_PROGRESS));
    rebalance(&mut [&mut one, &mut two]);
    assert_eq!(three.commit(42), UNKNOWN_MEMBER_ID);
    // One dies without a word; after its session the other one goes on alone.
    drop(one);
    let started = std::time::Instant::now();
    while two.heartbeat() == NONE {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(started.elapsed().as_millis() < 12_000, "after the session timeout");
    rebalance(&mut [&mut two]);
    assert_eq!(two.commit(43), NONE);
    let stale = two.commit_request(44).with_generation_id_or_member_epoch(two.generation - 1);
    assert_eq!(two.client.call(COMMIT, &stale).topics[0].partitions[0].error_code, ILLEGAL_GENERATION);
    assert_eq!(committed(&mut two.client, GROUP), [("t".to_owned(), 0, 43, Some(text("")))]);
}

#[test]
fn a_restart_of_the_broker_changes_nothing_for_a_group() {
    let server = server();
    let mut member = Member::new(&server, None);
    rebalance(&mut [&mut member]);
    assert_eq!(member.commit(7), NONE);
    let server = server.restart();
    member.client = server.client();
    assert_eq!(committed(&mut member.client, GROUP), [("t".to_owned(), 0, 7, Some(text("")))]);
    assert_eq!(member.heartbeat(), NONE);
    assert_eq!(member.commit(8), NONE);
    let sent = member.start_sync(Vec::new());
    assert_eq!(member.finish_sync(sent).assignment, format!("part of {}", member.id));
}

#[test]
fn a_static_member_comes_back_to_its_place_and_its_former_self_is_fenced() {
    let server = server();
    let (mut one, mut two) = (Member::new(&server, Some("pod-1")), Member::new(&server, Some("pod-2")));
    rebalance(&mut [&mut one, &mut two]);
    let mut back = Member::new(&server, Some("pod-2"));
    let sent = back.start_join();
    let joined = back.finish_join(sent);
    assert_eq!(joined.generation_id, two.generation, "there is no rebalance");
    assert_ne!(joined.member_id, two.id);
    let sent = back.start_sync(Vec::new());
    assert_eq!(back.finish_sync(sent).assignment, format!("part of {}", two.id));
    assert_eq!((one.heartbeat(), back.heartbeat()), (NONE, NONE));
    assert_eq!(two.heartbeat(), FENCED_INSTANCE_ID);
    assert_eq!(two.commit(1), FENCED_INSTANCE_ID);
    assert_eq!(two.leave(), FENCED_INSTANCE_ID);
    // An operator takes it out by its name.
    let named = MemberIdentity::default().with_group_instance_id(Some(text("pod-2")));
    let unknown = MemberIdentity::default().with_group_instance_id(Some(text("pod-3")));
    let request = LeaveGroupRequest::default().with_group_id(group_id(GROUP)).with_members(vec![named, unknown]);
    let response = one.client.call(LEAVE, &request);
    let codes: Vec<i16> = response.members.iter().map(|member| member.error_code).collect();
    assert_eq!(codes, [NONE, UNKNOWN_MEMBER_ID]);
    assert_eq!(one.heartbeat(), REBALANCE_IN_PROGRESS);
}

#[test]
fn a_static_leader_that_comes_back_is_told_not_to_assign() {
    let server = server();
    let mut one = Member::new(&server, Some("pod-1"));
    rebalance(&mut [&mut one]);
    let mut back = Member::new(&server, Some("pod-1"));
    let sent = back.start_join();
    let joined = back.finish_join(sent);
    assert!(joined.skip_assignment);
    assert_eq!((joined.leader.clone(), joined.members.len()), (joined.member_id, 1));
}

#[test]
fn requests_that_make_no_sense_are_refused_by_name() {
    let server = server();
    let mut member = Member::new(&server, None);
    let good = member.join_request();
    for (request, code) in [
        (good.clone().with_group_id(group_id("")), INVALID_GROUP_ID),
        (good.clone().with_session_timeout_ms(5_999), INVALID_SESSION_TIMEOUT),
        (good.clone().with_session_timeout_ms(1_800_001), INVALID_SESSION_TIMEOUT),
        (good.clone().with_member_id(text("stranger")), UNKNOWN_MEMBER_ID),
        (good.clone().with_protocols(Vec::new()), INCONSISTENT_GROUP_PROTOCOL),
        (good.with_protocol_type(text("")), INCONSISTENT_GROUP_PROTOCOL),
    ] {
        assert_eq!(member.client.call(JOIN, &request).error_code, code);
    }
    rebalance(&mut [&mut member]);
    let sync = SyncGroupRequest::default()
        .with_group_id(group_id(GROUP))
        .with_member_id(member.id.clone())
        .with_generation_id(member.generation);
    assert_eq!(member.client.call(SYNC, &sync).error_code, INCONSISTENT_GROUP_PROTOCOL, "version 5 names the protocol");
    let wrong = sync.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("sticky")));
    assert_eq!(member.client.call(SYNC, &wrong).error_code, INCONSISTENT_GROUP_PROTOCOL);
    let empty = LeaveGroupRequest::default();
    assert_eq!(member.client.call(LEAVE, &empty).error_code, INVALID_GROUP_ID);
    let missing = LeaveGroupRequest::default().with_group_id(group_id("missing")).with_member_id(text("m"));
    assert_eq!(member.client.call(2, &missing).error_code, UNKNOWN_MEMBER_ID, "older versions have one error for all");
}

#[test]
fn offsets_are_committed_partition_by_partition() {
    let server = server();
    let mut client = server.client();
    let mut request = offset_commit("simple", "t", 0, 5);
    let good = request.topics[0].partitions[0].clone();
    request.topics[0].partitions[0].committed_metadata = Some(text("where I was"));
    request.topics[0]
        .partitions
        .push(good.clone().with_partition_index(1).with_committed_metadata(Some(text(&"x".repeat(4_097)))));
    request.topics[0].partitions.push(good.clone().with_partition_index(2));
    request.topics[0].partitions.push(good.with_partition_index(-1));
    request.topics.push(request.topics[0].clone().with_name(topic_name("missing")));
    let response = client.call(COMMIT, &request);
    let codes: Vec<Vec<i16>> = response
        .topics
        .iter()
        .map(|topic| topic.partitions.iter().map(|partition| partition.error_code).collect())
        .collect();
    let unknown = UNKNOWN_TOPIC_OR_PARTITION;
    assert_eq!(codes, [vec![NONE, OFFSET_METADATA_TOO_LARGE, unknown, unknown], vec![unknown; 4]]);
    assert_eq!(committed(&mut client, "simple"), [("t".to_owned(), 0, 5, Some(text("where I was")))]);
    assert_eq!(committed(&mut client, "missing"), []);
    let twice = OffsetFetchRequestGroup::default().with_group_id(group_id("simple")).with_topics(None);
    let response = client.call(FETCH_OFFSETS, &OffsetFetchRequest::default().with_groups(vec![twice.clone(), twice]));
    let codes: Vec<i16> = response.groups.iter().map(|group| group.error_code).collect();
    assert_eq!(codes, [NONE, INVALID_REQUEST], "asking twice is no way to a larger answer");
}

#[test]
fn groups_are_listed_described_and_deleted() {
    let server = server();
    let mut member = Member::new(&server, None);
    rebalance(&mut [&mut member]);
    let client = &mut server.client();
    client.call(COMMIT, &offset_commit("simple", "t", 0, 5));
    let mut list = |states: &[&str], types: &[&str]| -> Vec<String> {
        let request = ListGroupsRequest::default()
            .with_states_filter(states.iter().map(|state| text(state)).collect())
            .with_types_filter(types.iter().map(|kind| text(kind)).collect());
        client.call(5, &request).groups.iter().map(|group| group.group_id.to_string()).collect()
    };
    assert_eq!(list(&[], &[]), [GROUP, "simple"]);
    assert_eq!(list(&["stable"], &[]), [GROUP]);
    assert_eq!(list(&["Empty", "Dead"], &["Classic"]), ["simple"]);
    assert_eq!(list(&["NoSuchState"], &[]), [] as [String; 0]);
    assert_eq!(list(&[], &["consumer"]), [] as [String; 0]);

    let names = vec![group_id("missing"), group_id(GROUP), group_id(GROUP)];
    let request = DescribeGroupsRequest::default().with_groups(names);
    let described = client.call(6, &request).groups;
    assert_eq!(described.len(), 2);
    assert_eq!((described[0].error_code, &*described[0].group_state), (NONE, "Stable"));
    assert_eq!((&*described[0].protocol_type, &*described[0].protocol_data), ("consumer", "range"));
    assert_eq!(described[0].authorized_operations, i32::MIN);
    assert_eq!((described[1].error_code, &*described[1].group_state), (GROUP_ID_NOT_FOUND, "Dead"));
    assert_eq!(described[1].error_message, Some(text("Group missing not found.")));
    assert_eq!(client.call(5, &request).groups[1].error_code, NONE, "older clients know a missing group as a dead one");

    assert_eq!(delete_group(client, GROUP), NON_EMPTY_GROUP);
    assert_eq!(delete_group(client, "missing"), GROUP_ID_NOT_FOUND);
    assert_eq!(delete_group(client, "simple"), NONE);
    assert_eq!(member.leave(), NONE);
    assert_eq!(delete_group(client, GROUP), NONE);
    let server = server.restart();
    assert_eq!(server.client().call(5, &ListGroupsRequest::default()).groups, []);
}

#[test]
fn offsets_of_topics_that_nobody_reads_can_be_deleted() {
    let server = server();
    let mut member = Member::new(&server, None);
    rebalance(&mut [&mut member]);
    member.commit(5);
    let other = offset_commit(GROUP, "other", 0, 6)
        .with_member_id(member.id.clone())
        .with_generation_id_or_member_epoch(member.generation);
    assert_eq!(member.client.call(COMMIT, &other).topics[0].partitions[0].error_code, NONE);
    let topic = |name: &str, partition: i32| {
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(partition);
        OffsetDeleteRequestTopic::default().with_name(topic_name(name)).with_partitions(vec![partition])
    };
    let topics = vec![topic("missing", 0), topic("t", 0), topic("other", 1), topic("other", 0)];
    let request = OffsetDeleteRequest::default().with_group_id(group_id(GROUP)).with_topics(topics);
    let response = member.client.call(0, &request);
    let codes: Vec<i16> = response.topics.iter().map(|topic| topic.partitions[0].error_code).collect();
    let unknown = UNKNOWN_TOPIC_OR_PARTITION;
    assert_eq!((response.error_code, codes), (NONE, vec![unknown, GROUP_SUBSCRIBED_TO_TOPIC, unknown, NONE]));
    assert_eq!(committed(&mut member.client, GROUP), [("t".to_owned(), 0, 5, Some(text("")))]);
    let missing = OffsetDeleteRequest::default().with_group_id(group_id("missing"));
    assert_eq!(member.client.call(0, &missing).error_code, GROUP_ID_NOT_FOUND);
}

#[test]
fn members_that_wait_are_told_when_the_broker_stops() {
    let server = server();
    let (mut one, mut two) = (Member::new(&server, None), Member::new(&server, None));
    rebalance(&mut [&mut one]);
    let sent = two.start_join();
    let waiting = std::thread::spawn(move || two.client.receive::<JoinGroupRequest>(JOIN, sent).error_code);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let started = std::time::Instant::now();
    drop(one);
    let _server = server.restart();
    assert_eq!(waiting.join().expect("an answer"), 15, "COORDINATOR_NOT_AVAILABLE");
    assert!(started.elapsed().as_secs() < 30, "nobody holds up the stop");
}
