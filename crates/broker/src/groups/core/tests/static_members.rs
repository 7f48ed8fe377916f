use super::*;

fn static_join(bench: &mut Bench, instance: &str) -> Join {
    let request = bench.request();
    Join { instance_id: Some(text(instance)), fresh_member_id: format!("{instance}-{}", bench.ids).into(), ..request }
}

fn stable_static(bench: &mut Bench, instances: &[&str]) -> (Vec<Arc<str>>, i32) {
    let joins: Vec<Join> = instances.iter().map(|instance| static_join(bench, instance)).collect();
    bench.stable_of(&joins)
}

#[test]
fn a_static_member_needs_no_second_join_for_its_id() {
    let mut bench = Bench::new(options());
    let request = Join { requires_member_id: true, ..static_join(&mut bench, "one") };
    let token = bench.join(&request);
    bench.pass(i64::from(INITIAL_DELAY_MS));
    assert_eq!(bench.joined(token).error, ErrorCode::None);
    assert_eq!(bench.joined(token).members[0].instance_id.as_deref(), Some("one"));
}

#[test]
fn a_static_follower_that_restarts_comes_back_without_a_rebalance() {
    let mut bench = Bench::new(options());
    let (ids, generation) = stable_static(&mut bench, &["one", "two"]);
    let request = static_join(&mut bench, "two");
    let token = bench.join(&request);
    let reply = bench.joined(token).clone();
    assert_eq!((reply.error, reply.generation), (ErrorCode::None, generation));
    assert_ne!(reply.member_id, ids[1], "under a new id");
    assert!(!reply.skip_assignment && reply.members.is_empty());
    assert_eq!(bench.state(), GroupState::Stable);
    let request = Sync { instance_id: Some(text("two")), ..bench.sync_request(&reply.member_id, generation, &[]) };
    let token = bench.sync(&request);
    assert_eq!(bench.synced(token).assignment, &*ids[1], "with the assignment it had");
}

#[test]
fn the_new_id_of_a_static_member_is_durable_before_it_is_told() {
    let mut bench = Bench::new(options());
    let (_, generation) = stable_static(&mut bench, &["one", "two"]);
    bench.hold_stores = true;
    let request = static_join(&mut bench, "two");
    let token = bench.join(&request);
    assert!(!bench.joined.contains_key(&token));
    let stored = StoredGroup::decode(&bench.stores[0].2).expect("readable");
    assert!(stored.members.iter().any(|member| member.id == request.fresh_member_id));
    assert_eq!(stored.generation, generation);
    bench.finish_store(ErrorCode::None);
    assert_eq!(bench.joined(token).error, ErrorCode::None);

    let request = static_join(&mut bench, "two");
    let token = bench.join(&request);
    bench.finish_store(ErrorCode::CoordinatorNotAvailable);
    assert_eq!(bench.joined(token).error, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(&*bench.joined(token).member_id, "");
}

#[test]
fn a_static_leader_that_restarts_is_told_to_skip_the_assignment() {
    let mut bench = Bench::new(options());
    let (ids, generation) = stable_static(&mut bench, &["one", "two"]);
    let request = static_join(&mut bench, "one");
    let token = bench.join(&request);
    let reply = bench.joined(token).clone();
    assert_eq!((reply.error, reply.generation), (ErrorCode::None, generation));
    assert!(reply.skip_assignment);
    assert_eq!(reply.leader, reply.member_id);
    assert_eq!(reply.members.len(), 2);
    // Older clients know nothing of skipping: they are told that the old id leads.
    let request = Join { can_skip_assignment: false, ..static_join(&mut bench, "one") };
    let token = bench.join(&request);
    let older = bench.joined(token).clone();
    assert!(!older.skip_assignment && older.members.is_empty());
    assert_eq!(older.leader, reply.member_id);
    assert_ne!(older.leader, older.member_id);
    assert_eq!(bench.state(), GroupState::Stable);
    assert_ne!(ids[0], older.member_id);
}

#[test]
fn a_static_member_that_restarts_with_another_protocol_starts_a_rebalance() {
    let mut bench = Bench::new(options());
    let both = protocols(&["range", "sticky"]);
    let joins = [
        Join { protocols: both.clone(), ..static_join(&mut bench, "one") },
        Join { protocols: both, ..static_join(&mut bench, "two") },
    ];
    bench.stable_of(&joins);
    let request = Join { protocols: protocols(&["sticky"]), ..static_join(&mut bench, "two") };
    let token = bench.join(&request);
    assert!(!bench.joined.contains_key(&token));
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
}

#[test]
fn a_static_member_that_comes_back_while_the_leader_assigns_starts_over() {
    let mut bench = Bench::new(options());
    let (ids, generation) = stable_static(&mut bench, &["one", "two"]);
    for (id, instance) in ids.iter().zip(["one", "two"]) {
        let news = vec![Protocol { name: text("range"), metadata: subscription(&["news"]) }];
        let request = Join { member_id: id.clone(), protocols: news, ..static_join(&mut bench, instance) };
        bench.join(&request);
    }
    assert_eq!(bench.state(), GroupState::CompletingRebalance);
    let request = Sync { instance_id: Some(text("one")), ..bench.sync_request(&ids[0], generation + 1, &[]) };
    bench.hold_stores = true;
    let waiting = bench.sync(&request);
    let request = static_join(&mut bench, "two");
    bench.join(&request);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    assert_eq!(bench.synced(waiting).error, ErrorCode::RebalanceInProgress);
}

#[test]
fn the_old_id_of_a_static_member_is_fenced() {
    let mut bench = Bench::new(options());
    let (ids, generation) = stable_static(&mut bench, &["one", "two"]);
    let request = static_join(&mut bench, "two");
    bench.join(&request);
    let old = Identity { instance_id: Some("two"), ..bench.identity(&ids[1], generation) };
    let fenced = ErrorCode::FencedInstanceId;
    assert_eq!(bench.core.heartbeat(bench.now, &old), fenced);
    assert_eq!(bench.core.check_commit(bench.now, &old, 9), Err(fenced));
    assert_eq!(bench.leave(&ids[1], Some("two")), fenced);
    let sync = Sync { instance_id: Some(text("two")), ..bench.sync_request(&ids[1], generation, &[]) };
    let token = bench.sync(&sync);
    assert_eq!(bench.synced(token).error, fenced);
    let join = Join { member_id: ids[1].clone(), ..static_join(&mut bench, "two") };
    let token = bench.join(&join);
    assert_eq!(bench.joined(token).error, fenced);
}

#[test]
fn a_join_that_waits_under_the_old_id_is_told_that_it_is_fenced() {
    let mut bench = Bench::new(options());
    let (ids, generation) = stable_static(&mut bench, &["one", "two"]);
    let newcomer = bench.request();
    bench.join(&newcomer);
    let request = Join { member_id: ids[1].clone(), ..static_join(&mut bench, "two") };
    let waiting = bench.join(&request);
    let request = static_join(&mut bench, "two");
    let replacing = bench.join(&request);
    assert_eq!(bench.joined(waiting).error, ErrorCode::FencedInstanceId);
    assert_eq!(bench.joined(waiting).member_id, ids[1]);
    let request = Join { member_id: ids[0].clone(), ..static_join(&mut bench, "one") };
    bench.join(&request);
    assert_eq!(bench.joined(replacing).generation, generation + 1);
}

#[test]
fn a_static_member_that_is_late_stays_until_its_session_ends() {
    let mut bench = Bench::new(options());
    let (ids, generation) = stable_static(&mut bench, &["one", "two"]);
    let request = bench.request();
    let joiner = bench.join(&request);
    let request = Join { member_id: ids[0].clone(), ..static_join(&mut bench, "one") };
    bench.join(&request);
    let late = |generation: i32| Identity { group_id: GROUP, member_id: &ids[1], instance_id: Some("two"), generation };
    while !bench.joined.contains_key(&joiner) {
        assert_eq!(bench.core.heartbeat(bench.now, &late(generation)), ErrorCode::RebalanceInProgress);
        bench.pass(2_000);
    }
    assert_eq!(bench.core.counts().members, 3, "it was not thrown out");
    assert_eq!(bench.joined(joiner).generation, generation + 1);
    assert_eq!(bench.core.heartbeat(bench.now, &late(generation + 1)), ErrorCode::None);
    // But it has the rebalance timeout to fetch its assignment.
}

#[test]
fn an_operator_can_remove_a_static_member_by_its_instance_id() {
    let mut bench = Bench::new(options());
    let (ids, generation) = stable_static(&mut bench, &["one", "two"]);
    assert_eq!(bench.leave("", Some("no-such")), ErrorCode::UnknownMemberId);
    assert_eq!(bench.leave("", None), ErrorCode::UnknownMemberId);
    assert_eq!(bench.leave("", Some("two")), ErrorCode::None);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    let gone = Identity { instance_id: Some("two"), ..bench.identity(&ids[1], generation) };
    assert_eq!(bench.core.heartbeat(bench.now, &gone), ErrorCode::UnknownMemberId);
    let request = static_join(&mut bench, "two");
    bench.join(&request);
    assert_eq!(bench.core.counts().members, 2, "and it can come again");
}

#[test]
fn when_no_member_rejoins_the_group_waits_on_until_the_sessions_end() {
    let mut bench = Bench::new(options());
    let joins = [
        Join { rebalance_timeout_ms: 2_000, session_timeout_ms: 60_000, ..static_join(&mut bench, "one") },
        Join { rebalance_timeout_ms: 2_000, session_timeout_ms: 60_000, ..static_join(&mut bench, "two") },
        bench.request(),
    ];
    let joins = joins.map(|join| Join { rebalance_timeout_ms: 2_000, ..join });
    let (ids, _) = bench.stable_of(&joins);
    assert_eq!(bench.leave(&ids[2], None), ErrorCode::None);
    bench.pass(30_000);
    assert_eq!(bench.state(), GroupState::PreparingRebalance, "nobody joined, so there is no new generation");
    bench.pass(60_000);
    assert_eq!(bench.state(), GroupState::Empty);
}
