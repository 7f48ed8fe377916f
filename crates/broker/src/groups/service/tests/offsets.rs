use super::*;
use crate::groups::core::GroupState;

#[tokio::test(start_paused = true)]
async fn metadata_is_limited_in_characters_and_for_each_partition_on_its_own() {
    let node = Node::new().with_topic("orders", 4).await;
    let max = options().offset_metadata_max;
    let (fits, long, wide) = ("x".repeat(max), "x".repeat(max + 1), "ü".repeat(max));
    let offsets = [(0, Some(&fits)), (1, Some(&long)), (2, Some(&wide)), (3, None)].map(|(partition, metadata)| {
        CommitOffset { metadata: metadata.map(String::as_str), ..node.offset("orders", partition, 9) }
    });
    let answers = node.pump(node.groups.commit(&simple(GROUP), 9, None, &offsets)).await;
    let none = ErrorCode::None;
    assert_eq!(answers, Ok(vec![none, ErrorCode::OffsetMetadataTooLarge, none, none]));
    let found = node.groups.fetch(GROUP, "orders", 0..4);
    let metadata: Vec<_> = found.iter().map(|found| found.as_ref().map(|found| found.metadata.len())).collect();
    assert_eq!(metadata, [Some(max), None, Some(2 * max), Some(0)]);
}

#[tokio::test(start_paused = true)]
async fn metadata_is_never_longer_than_a_string_of_the_protocol() {
    let generous = GroupOptions { offset_metadata_max: usize::MAX, ..options() };
    let node = Node::on(SimDisk::new(1), START_WALL_MS, generous, log_options()).with_topic("orders", 1).await;
    for (length, answer) in [(32_767, ErrorCode::None), (32_768, ErrorCode::OffsetMetadataTooLarge)] {
        let metadata = "x".repeat(length);
        let offset = CommitOffset { metadata: Some(&metadata), ..node.offset("orders", 0, 1) };
        assert_eq!(node.commit(simple(GROUP), offset).await, Ok(answer), "{length}");
    }
    let found = node.groups.fetch(GROUP, "orders", std::iter::once(0));
    assert_eq!(found[0].as_ref().map(|found| found.metadata.len()), Some(32_767), "and nothing is cut off");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_commits_nothing_leaves_no_group_behind() {
    let node = Node::new().with_topic("orders", 1).await;
    let long = "x".repeat(10_000);
    let offset = CommitOffset { metadata: Some(&long), ..node.offset("orders", 0, 1) };
    assert_eq!(node.commit(simple(GROUP), offset).await, Ok(ErrorCode::OffsetMetadataTooLarge));
    assert_eq!(node.groups.list(), Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_fenced_cannot_commit() {
    let node = Node::new().with_topic("orders", 1).await;
    let (member_id, generation) = node.member(&["orders"]).await;
    let member = Identity { group_id: GROUP, member_id: &member_id, instance_id: None, generation };
    assert_eq!(node.commit(member, node.offset("orders", 0, 1)).await, Ok(ErrorCode::None));
    let stale = Identity { generation: generation - 1, ..member };
    assert_eq!(node.commit(stale, node.offset("orders", 0, 2)).await, Err(ErrorCode::IllegalGeneration));
    assert_eq!(node.groups.leave(GROUP, &[(&member_id, None)]), Ok(vec![ErrorCode::None]));
    assert_eq!(node.commit(member, node.offset("orders", 0, 3)).await, Err(ErrorCode::UnknownMemberId));
    assert_eq!(node.fetched(GROUP, "orders", 0), Some(1));
}

#[tokio::test(start_paused = true)]
async fn the_last_of_several_commits_counts() {
    let node = Node::new().with_topic("orders", 1).await;
    let mut waiting = Vec::new();
    for offset in [5, 3, 8, 1] {
        let (groups, offset) = (node.groups.clone(), node.offset("orders", 0, offset));
        waiting.push(tokio::spawn(async move { groups.commit(&simple(GROUP), 9, None, &[offset]).await }));
        node.let_others_work().await;
    }
    node.pump(tokio::time::sleep(Duration::from_millis(10))).await;
    assert_eq!(node.fetched(GROUP, "orders", 0), Some(1), "an operator may go back");
    assert_eq!(node.groups.metrics().offset_commits, 4);
    assert_eq!(node.groups.metrics().offsets, 1);
}

#[tokio::test(start_paused = true)]
async fn offsets_of_a_deleted_topic_are_gone_with_it_and_do_not_come_back_with_its_name() {
    let node = Node::new().with_topic("orders", 1).await.with_topic("payments", 1).await;
    node.commit(simple(GROUP), node.offset("orders", 0, 42)).await.expect("committed");
    node.commit(simple(GROUP), node.offset("payments", 0, 7)).await.expect("committed");
    node.log.delete_topic("orders").expect("room");
    while node.log.commit_once() {}
    assert_eq!(node.fetched(GROUP, "orders", 0), None);
    let topics: Vec<_> = node.groups.fetch_all(GROUP).into_iter().map(|topic| topic.topic).collect();
    assert_eq!(topics, ["payments"]);
    node.create_topic("orders", 1).await;
    assert_eq!(node.fetched(GROUP, "orders", 0), None, "another topic of the same name");
    assert_eq!(node.log.table_scan(OFFSETS_TABLE, &[]).len(), 2);
    node.groups.topics_deleted();
    node.pass(Duration::from_millis(1)).await;
    assert_eq!(node.log.table_scan(OFFSETS_TABLE, &[]).len(), 1, "and its bytes go too");
    assert_eq!(node.groups.metrics().offset_expirations, 1);
}

#[tokio::test(start_paused = true)]
async fn offsets_of_a_simple_consumer_expire_after_their_last_commit() {
    let node = Node::new().with_topic("orders", 2).await;
    node.commit(simple(GROUP), node.offset("orders", 0, 1)).await.expect("committed");
    node.pass(Duration::from_secs(6 * 24 * 3600)).await;
    node.commit(simple(GROUP), node.offset("orders", 1, 2)).await.expect("committed");
    node.pass(Duration::from_secs(24 * 3600)).await;
    assert_eq!((node.fetched(GROUP, "orders", 0), node.fetched(GROUP, "orders", 1)), (None, Some(2)));
    assert_eq!(node.groups.metrics().offsets, 1);
    node.pass(Duration::from_secs(7 * 24 * 3600)).await;
    assert_eq!(node.fetched(GROUP, "orders", 1), None);
    node.pass(Duration::from_secs(3600)).await;
    assert_eq!(node.groups.list(), Ok(vec![]), "a group without members and offsets goes");
}

#[tokio::test(start_paused = true)]
async fn offsets_of_a_group_are_kept_while_it_reads_the_topic_and_expire_after_it_became_empty() {
    let node = Node::new().with_topic("orders", 1).await.with_topic("payments", 1).await;
    let (member_id, generation) = node.member(&["orders"]).await;
    let member = Identity { group_id: GROUP, member_id: &member_id, instance_id: None, generation };
    node.commit(member, node.offset("orders", 0, 1)).await.expect("committed");
    node.commit(member, node.offset("payments", 0, 2)).await.expect("committed");
    // Eight days with heartbeats, in steps shorter than the session.
    node.clock.advance(8 * 24 * 3600 * 1000);
    node.groups.topics_deleted();
    node.pass(Duration::from_millis(1)).await;
    assert_eq!(node.groups.heartbeat(&member), ErrorCode::None);
    assert_eq!(node.fetched(GROUP, "orders", 0), Some(1), "subscribed");
    assert_eq!(node.fetched(GROUP, "payments", 0), None, "not subscribed any more");
    assert_eq!(node.groups.leave(GROUP, &[(&member_id, None)]), Ok(vec![ErrorCode::None]));
    node.pass(Duration::from_secs(6 * 24 * 3600)).await;
    assert_eq!(node.fetched(GROUP, "orders", 0), Some(1));
    let node = node.after_power_loss();
    assert_eq!(node.fetched(GROUP, "orders", 0), Some(1));
    node.pass(Duration::from_secs(24 * 3600)).await;
    assert_eq!(node.fetched(GROUP, "orders", 0), None, "it remembers over a restart since when it is empty");
}

#[tokio::test(start_paused = true)]
async fn a_retention_that_the_client_asks_for_counts_instead() {
    let node = Node::new().with_topic("orders", 1).await;
    let offset = node.offset("orders", 0, 1);
    node.pump(node.groups.commit(&simple(GROUP), 2, Some(3_600_000), &[offset])).await.expect("committed");
    node.pass(Duration::from_secs(3_599)).await;
    assert_eq!(node.fetched(GROUP, "orders", 0), Some(1));
    node.pass(Duration::from_secs(601)).await;
    assert_eq!(node.fetched(GROUP, "orders", 0), None);
}

#[tokio::test(start_paused = true)]
async fn offsets_of_topics_that_are_read_cannot_be_deleted() {
    let node = Node::new().with_topic("orders", 1).await.with_topic("payments", 1).await;
    let delete = |group_id: &'static str| {
        let groups = node.groups.clone();
        async move { groups.delete_offsets(group_id, &[("orders", 0), ("payments", 0), ("payments", 5)]).await }
    };
    assert_eq!(node.pump(delete("")).await, Err(ErrorCode::InvalidGroupId));
    assert_eq!(node.pump(delete("missing")).await, Err(ErrorCode::GroupIdNotFound));
    let (member_id, generation) = node.member(&["orders"]).await;
    let member = Identity { group_id: GROUP, member_id: &member_id, instance_id: None, generation };
    node.commit(member, node.offset("orders", 0, 1)).await.expect("committed");
    node.commit(member, node.offset("payments", 0, 2)).await.expect("committed");
    let (none, subscribed) = (ErrorCode::None, ErrorCode::GroupSubscribedToTopic);
    assert_eq!(node.pump(delete(GROUP)).await, Ok(vec![subscribed, none, none]));
    assert_eq!((node.fetched(GROUP, "orders", 0), node.fetched(GROUP, "payments", 0)), (Some(1), None));
    assert_eq!(node.groups.metrics().offset_deletions, 1, "what is not there cannot be deleted");
}

#[tokio::test(start_paused = true)]
async fn only_empty_groups_can_be_deleted() {
    let node = Node::new().with_topic("orders", 1).await;
    let (member_id, _) = node.member(&["orders"]).await;
    node.commit(simple("simple"), node.offset("orders", 0, 1)).await.expect("committed");
    let answers = node.pump(node.groups.delete_groups(&[GROUP, "missing", "simple"])).await;
    assert_eq!(answers, [ErrorCode::NonEmptyGroup, ErrorCode::GroupIdNotFound, ErrorCode::None]);
    assert_eq!(node.groups.leave(GROUP, &[(&member_id, None)]), Ok(vec![ErrorCode::None]));
    assert_eq!(node.groups.describe(GROUP).expect("open").expect("a group").state, GroupState::Empty);
    assert_eq!(node.pump(node.groups.delete_groups(&[GROUP])).await, [ErrorCode::None]);
    assert_eq!(node.groups.list(), Ok(vec![]));
    let node = node.after_power_loss();
    assert_eq!(node.groups.list(), Ok(vec![]), "no state of the group was left behind");
}

#[tokio::test(start_paused = true)]
async fn no_more_offsets_than_allowed() {
    let few = GroupOptions { offsets_max: 2, ..options() };
    let node = Node::on(SimDisk::new(1), START_WALL_MS, few, log_options()).with_topic("orders", 3).await;
    let offsets = [0, 1].map(|partition| node.offset("orders", partition, 1));
    node.pump(node.groups.commit(&simple(GROUP), 9, None, &offsets)).await.expect("committed");
    assert_eq!(node.commit(simple(GROUP), node.offset("orders", 2, 1)).await, Ok(ErrorCode::PolicyViolation));
    assert_eq!(
        node.commit(simple(GROUP), node.offset("orders", 1, 2)).await,
        Ok(ErrorCode::None),
        "it is there already"
    );
    node.pump(node.groups.delete_offsets(GROUP, &[("orders", 0)])).await.expect("deleted");
    assert_eq!(node.commit(simple(GROUP), node.offset("orders", 2, 1)).await, Ok(ErrorCode::None));
}

#[tokio::test(start_paused = true)]
async fn what_clients_keep_with_their_offsets_is_limited_over_all_of_them() {
    let small = GroupOptions { offsets_bytes_max: 10_000, ..options() };
    let node = Node::on(SimDisk::new(1), START_WALL_MS, small, log_options()).with_topic("orders", 10).await;
    let long = "x".repeat(3_000);
    let offsets: Vec<_> = (0..10)
        .map(|partition| CommitOffset { metadata: Some(&long), ..node.offset("orders", partition, 1) })
        .collect();
    let answers = node.pump(node.groups.commit(&simple(GROUP), 9, None, &offsets)).await.expect("answered");
    let accepted = answers.iter().filter(|error| **error == ErrorCode::None).count();
    assert_eq!(accepted, 3);
    assert!(answers[accepted..].iter().all(|error| *error == ErrorCode::PolicyViolation));
    let full = node.groups.metrics();
    assert!((9_000..=10_000).contains(&full.offset_bytes), "{full:?}");
    let smaller = CommitOffset { metadata: Some("x"), ..node.offset("orders", 0, 2) };
    assert_eq!(node.commit(simple(GROUP), smaller).await, Ok(ErrorCode::None), "what is there may shrink");
    assert_eq!(node.groups.metrics().offset_bytes, full.offset_bytes - 2_999);
    let node = node.after_power_loss();
    assert_eq!(node.groups.metrics().offset_bytes, full.offset_bytes - 2_999, "counting anew gives the same");
    node.pump(node.groups.delete_groups(&[GROUP])).await;
    assert_eq!((node.groups.metrics().offsets, node.groups.metrics().offset_bytes), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_old_offset_that_is_just_being_committed_anew_does_not_expire() {
    let node = Node::new().with_topic("orders", 1).await;
    node.commit(simple(GROUP), node.offset("orders", 0, 1)).await.expect("committed");
    node.clock.advance(8 * 24 * 3600 * 1000);
    let (groups, offset) = (node.groups.clone(), node.offset("orders", 0, 2));
    let commit = tokio::spawn(async move { groups.commit(&simple(GROUP), 9, None, &[offset]).await });
    node.let_others_work().await;
    node.groups.topics_deleted();
    node.let_others_work().await;
    assert_eq!(node.pump(commit).await.expect("it runs"), Ok(vec![ErrorCode::None]));
    node.pass(Duration::from_millis(1)).await;
    assert_eq!(node.fetched(GROUP, "orders", 0), Some(2));
}
