use baton_testkit::Operation;

use super::*;

#[tokio::test(start_paused = true)]
async fn no_commit_is_answered_or_seen_before_it_is_durable() {
    let node = Node::new().with_topic("orders", 1).await;
    let syncs = node.disk.counts().syncs;
    let groups = node.groups.clone();
    let offset = node.offset("orders", 0, 42);
    let answer = tokio::spawn(async move { groups.commit(&simple(GROUP), 9, None, &[offset]).await });
    node.let_others_work().await;
    assert!(!answer.is_finished());
    assert_eq!(node.fetched(GROUP, "orders", 0), None);
    assert_eq!(node.disk.counts().syncs, syncs);
    assert!(node.log.commit_once());
    assert_eq!(answer.await.expect("it runs"), Ok(vec![ErrorCode::None]));
    assert!(node.disk.counts().syncs > syncs);
    assert_eq!(node.fetched(GROUP, "orders", 0), Some(42));
}

#[tokio::test(start_paused = true)]
async fn no_assignment_is_given_before_the_group_is_durable() {
    let node = Node::new();
    let joined = node.pump(node.groups.join(&join(&["orders"]))).await;
    let groups = node.groups.clone();
    let request = sync(&joined);
    let answer = tokio::spawn(async move { groups.sync(&request).await });
    node.let_others_work().await;
    assert!(!answer.is_finished());
    assert!(node.log.commit_once());
    assert_eq!(answer.await.expect("it runs").assignment, "all of it");
}

#[tokio::test(start_paused = true)]
async fn what_was_committed_is_there_after_a_power_loss() {
    let node = Node::new().with_topic("orders", 3).await.with_topic("payments", 1).await;
    let (member_id, generation) = node.member(&["orders"]).await;
    let member = Identity { group_id: GROUP, member_id: &member_id, instance_id: None, generation };
    for partition in 0..3 {
        let offset = node.offset("orders", partition, 100 + i64::from(partition));
        assert_eq!(node.commit(member, offset).await, Ok(ErrorCode::None));
    }
    assert_eq!(node.commit(simple("simple"), node.offset("payments", 0, 7)).await, Ok(ErrorCode::None));
    let before = (node.groups.fetch_all(GROUP), node.groups.describe(GROUP), node.groups.list());

    let node = node.after_power_loss();
    assert_eq!((node.groups.fetch_all(GROUP), node.groups.describe(GROUP), node.groups.list()), before);
    let found = node.groups.fetch(GROUP, "orders", [2, 3, -1].into_iter());
    let expected = FetchedOffset { partition: 2, offset: 102, leader_epoch: 3, metadata: "note".into() };
    assert_eq!(found, [Some(expected), None, None]);
    assert_eq!(node.fetched("simple", "payments", 0), Some(7));
    assert_eq!(node.groups.metrics().offsets, 4);
    // The member goes on where it was.
    assert_eq!(node.groups.heartbeat(&member), ErrorCode::None);
    assert_eq!(node.commit(member, node.offset("orders", 0, 200)).await, Ok(ErrorCode::None));
    assert_eq!(node.fetched(GROUP, "orders", 0), Some(200));
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_stays_deleted_after_a_power_loss() {
    let node = Node::new().with_topic("orders", 2).await;
    for group_id in ["one", "two"] {
        for partition in 0..2 {
            node.commit(simple(group_id), node.offset("orders", partition, 5)).await.expect("committed");
        }
    }
    assert_eq!(node.pump(node.groups.delete_offsets("one", &[("orders", 1)])).await, Ok(vec![ErrorCode::None]));
    assert_eq!(node.pump(node.groups.delete_groups(&["two"])).await, [ErrorCode::None]);
    let node = node.after_power_loss();
    assert_eq!((node.fetched("one", "orders", 0), node.fetched("one", "orders", 1)), (Some(5), None));
    assert_eq!(node.groups.fetch_all("two"), []);
    let groups: Vec<_> = node.groups.list().expect("open").into_iter().map(|group| group.group_id).collect();
    assert_eq!(groups, ["one".into()] as [Arc<str>; 1]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_sync_fails_is_never_confirmed() {
    let node = Node::new().with_topic("orders", 1).await;
    let joined = node.pump(node.groups.join(&join(&["orders"]))).await;
    node.disk.fail(Operation::SyncData, 1);
    let answer = node.commit(simple("simple"), node.offset("orders", 0, 42)).await;
    assert_eq!(answer, Err(ErrorCode::NotCoordinator));
    assert_eq!(node.fetched("simple", "orders", 0), None);
    // The log stays shut, and everyone is told, members that wait for their assignment included.
    let answer = node.commit(simple("simple"), node.offset("orders", 0, 43)).await;
    assert_eq!(answer, Err(ErrorCode::NotCoordinator));
    let synced = node.pump(node.groups.sync(&sync(&joined))).await;
    assert_eq!(synced.error, ErrorCode::NotCoordinator);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_commits_until_there_is_space_again() {
    let node = Node::new().with_topic("orders", 1).await;
    let full = node.disk.used_bytes();
    node.disk.set_capacity(full);
    let mut refused = None;
    for offset in 0..2_000 {
        match node.commit(simple("simple"), node.offset("orders", 0, offset)).await {
            Ok(error) => assert_eq!(error, ErrorCode::None),
            Err(error) => {
                refused = Some((offset, error));
                break;
            }
        }
    }
    let (offset, error) = refused.expect("the disk is full at some time");
    assert_eq!(error, ErrorCode::CoordinatorNotAvailable, "clients try again");
    assert_eq!(node.fetched("simple", "orders", 0), Some(offset - 1), "what was confirmed can be read");
    node.disk.set_capacity(u64::MAX);
    assert_eq!(node.commit(simple("simple"), node.offset("orders", 0, offset)).await, Ok(ErrorCode::None));
}

#[tokio::test(start_paused = true)]
async fn a_commit_waits_for_room_in_the_log_but_not_for_ever() {
    let small = LogOptions { pending_bytes_max: 2_000, ..log_options() };
    let node = Node::on(SimDisk::new(3), START_WALL_MS, options(), small).with_topic("orders", 1).await;
    let offset = node.offset("orders", 0, 1);
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let groups = node.groups.clone();
        waiting.push(tokio::spawn(async move { groups.commit(&simple(GROUP), 9, None, &[offset]).await }));
    }
    node.let_others_work().await;
    assert!(waiting.iter().all(|answer| !answer.is_finished()));
    node.pump(tokio::time::sleep(Duration::from_millis(200))).await;
    for answer in waiting {
        assert_eq!(answer.await.expect("it runs"), Ok(vec![ErrorCode::None]));
    }
    // Nobody commits what is pending: those without room give up.
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let groups = node.groups.clone();
        waiting.push(tokio::spawn(async move { groups.commit(&simple(GROUP), 9, None, &[offset]).await }));
    }
    tokio::time::sleep(options().offset_commit_timeout + Duration::from_millis(1)).await;
    let (given_up, pending): (Vec<_>, Vec<_>) = waiting.into_iter().partition(tokio::task::JoinHandle::is_finished);
    assert!(!given_up.is_empty() && !pending.is_empty());
    for answer in given_up {
        assert_eq!(answer.await.expect("it runs"), Err(ErrorCode::CoordinatorNotAvailable));
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_whose_state_finds_no_room_is_stored_when_there_is_some() {
    let small = LogOptions { pending_bytes_max: 1_000, ..log_options() };
    let node = Node::on(SimDisk::new(4), START_WALL_MS, options(), small).with_topic("orders", 1).await;
    let joined = node.pump(node.groups.join(&join(&["orders"]))).await;
    let offset = node.offset("orders", 0, 1);
    for _ in 0..20 {
        let groups = node.groups.clone();
        tokio::spawn(async move { groups.commit(&simple("simple"), 9, None, &[offset]).await });
    }
    node.let_others_work().await;
    let groups = node.groups.clone();
    let request = sync(&joined);
    let answer = tokio::spawn(async move { groups.sync(&request).await });
    node.let_others_work().await;
    assert!(!answer.is_finished());
    let answer = node.pump(answer).await.expect("it runs");
    assert_eq!((answer.error, &answer.assignment[..]), (ErrorCode::None, &b"all of it"[..]));
}

#[tokio::test(start_paused = true)]
async fn deleting_a_group_takes_commits_along_that_are_still_under_way() {
    let node = Node::new().with_topic("orders", 2).await;
    node.commit(simple(GROUP), node.offset("orders", 0, 1)).await.expect("committed");
    let groups = node.groups.clone();
    let offset = node.offset("orders", 1, 2);
    let commit = tokio::spawn(async move { groups.commit(&simple(GROUP), 9, None, &[offset]).await });
    node.let_others_work().await;
    let groups = node.groups.clone();
    let delete = tokio::spawn(async move { groups.delete_groups(&[GROUP]).await });
    node.let_others_work().await;
    assert!(!commit.is_finished() && !delete.is_finished());
    assert_eq!(node.pump(commit).await.expect("it runs"), Ok(vec![ErrorCode::None]));
    assert_eq!(node.pump(delete).await.expect("it runs"), [ErrorCode::None]);
    assert_eq!(node.groups.fetch_all(GROUP), []);
    assert_eq!(node.groups.metrics().offsets, 0);
    let node = node.after_power_loss();
    assert_eq!(node.groups.fetch_all(GROUP), []);
    assert_eq!(node.groups.list(), Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_a_newer_version_wrote_is_not_opened() {
    let node = Node::new();
    let key = Bytes::from_static(b"billing");
    node.log.write_table(GROUPS_TABLE, vec![(key, Some(Bytes::from_static(&[2, 0, 0])))]).expect("room");
    while node.log.commit_once() {}
    let opened = GroupService::open(node.log.clone(), node.clock.clone(), options(), Handle::current());
    let message = opened.err().expect("refused").to_string();
    assert!(message.contains("billing") && message.contains("newer baton"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_that_there_is_nothing_to_delete_before_that_is_durable() {
    let node = Node::new().with_topic("orders", 1).await;
    node.commit(simple(GROUP), node.offset("orders", 0, 1)).await.expect("committed");
    let mut deletes = Vec::new();
    for _ in 0..2 {
        let groups = node.groups.clone();
        deletes.push(tokio::spawn(async move { groups.delete_offsets(GROUP, &[("orders", 0)]).await }));
        node.let_others_work().await;
    }
    assert!(deletes.iter().all(|delete| !delete.is_finished()));
    for delete in deletes {
        assert_eq!(node.pump(delete).await.expect("it runs"), Ok(vec![ErrorCode::None]));
    }
    node.commit(simple(GROUP), node.offset("orders", 0, 1)).await.expect("committed");
    let mut deletes = Vec::new();
    for _ in 0..2 {
        let groups = node.groups.clone();
        deletes.push(tokio::spawn(async move { groups.delete_groups(&[GROUP]).await }));
        node.let_others_work().await;
    }
    assert!(deletes.iter().all(|delete| !delete.is_finished()));
    let mut answers = Vec::new();
    for delete in deletes {
        answers.extend(node.pump(delete).await.expect("it runs"));
    }
    assert_eq!(answers, [ErrorCode::None, ErrorCode::GroupIdNotFound]);
}
