use super::*;
use crate::groups::core::GroupState;

#[tokio::test(start_paused = true)]
async fn the_timer_ends_the_initial_delay() {
    let node = Node::new();
    let started = Instant::now();
    let joined = node.groups.join(&join(&["orders"])).await;
    assert_eq!(joined.error, ErrorCode::None);
    assert_eq!(started.elapsed(), Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn the_timer_removes_those_who_fell_silent() {
    let node = Node::new();
    let (member_id, generation) = node.member(&["orders"]).await;
    let member = Identity { group_id: GROUP, member_id: &member_id, instance_id: None, generation };
    for _ in 0..5 {
        node.pass(Duration::from_secs(9)).await;
        assert_eq!(node.groups.heartbeat(&member), ErrorCode::None);
    }
    node.pass(Duration::from_millis(10_001)).await;
    let metrics = node.groups.metrics();
    assert_eq!((metrics.core.members, metrics.core.expired_members), (0, 1));
    assert_eq!(node.groups.describe(GROUP).expect("open").expect("a group").state, GroupState::Empty);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_members_need_one_timer() {
    let node = Node::new();
    let mut waiting = Vec::new();
    for _ in 0..1_000 {
        let groups = node.groups.clone();
        waiting.push(tokio::spawn(async move { groups.join(&join(&["orders"])).await }));
    }
    let mut generations = Vec::new();
    for answer in waiting {
        let joined = node.pump(answer).await.expect("it runs");
        assert_eq!(joined.error, ErrorCode::None);
        generations.push(joined.generation);
    }
    assert!(generations.iter().all(|generation| *generation == 1));
    assert_eq!(node.groups.metrics().core.members, 1_000);
    node.pass(Duration::from_millis(10_001)).await;
    node.pass(Duration::from_secs(60)).await;
    assert_eq!(node.groups.metrics().core.members, 0);
}

#[tokio::test(start_paused = true)]
async fn closing_answers_everyone_who_waits_and_everyone_who_comes() {
    let node = Node::new();
    let (member_id, generation) = node.member(&["orders"]).await;
    let groups = node.groups.clone();
    let waiting = tokio::spawn(async move { groups.join(&join(&["orders"])).await });
    node.let_others_work().await;
    assert!(!waiting.is_finished());
    node.groups.close();
    let closed = ErrorCode::CoordinatorNotAvailable;
    assert_eq!(waiting.await.expect("it runs").error, closed);
    let member = Identity { group_id: GROUP, member_id: &member_id, instance_id: None, generation };
    assert_eq!(node.groups.heartbeat(&member), closed);
    assert_eq!(node.groups.leave(GROUP, &[(&member_id, None)]), Err(closed));
    assert_eq!(node.groups.join(&join(&["orders"])).await.error, closed);
    assert_eq!(node.groups.list(), Err(closed));
    assert_eq!(node.commit(member, node.offset("orders", 0, 1)).await, Err(closed));
    assert_eq!(node.groups.delete_groups(&[GROUP]).await, [closed]);
}

#[tokio::test(start_paused = true)]
async fn the_tasks_of_a_dropped_service_end() {
    let node = Node::new();
    let before = Handle::current().metrics().num_alive_tasks();
    assert!(before >= 2);
    drop(node);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(Handle::current().metrics().num_alive_tasks(), before - 2);
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_connection_broke_does_not_hold_up_the_others() {
    let node = Node::new();
    let groups = node.groups.clone();
    let gone = tokio::spawn(async move { groups.join(&join(&["orders"])).await });
    node.let_others_work().await;
    gone.abort();
    let joined = node.groups.join(&join(&["orders"])).await;
    assert_eq!(joined.error, ErrorCode::None);
    assert_eq!(node.groups.metrics().core.members, 2, "nobody knows yet that it is gone");
    node.pass(Duration::from_millis(10_001)).await;
    assert!(node.groups.metrics().core.members < 2);
}
