use super::*;

#[test]
fn every_member_gets_what_the_leader_sent_for_it() {
    let mut bench = Bench::new(options());
    let joins = [bench.request(), bench.request(), bench.request()];
    let tokens: Vec<Token> = joins.iter().map(|join| bench.join(join)).collect();
    bench.pass_until_joined(tokens[0]);
    let ids: Vec<_> = tokens.iter().map(|token| bench.joined(*token).member_id.clone()).collect();
    let leader = bench.joined(tokens[0]).leader.clone();
    let followers: Vec<_> = ids.iter().filter(|id| **id != leader).cloned().collect();
    let request = bench.sync_request(&followers[0], 1, &[(&leader, "a follower has no say")]);
    let early = bench.sync(&request);
    assert!(!bench.synced.contains_key(&early), "it waits for the leader");
    let parts = [(&*leader, "l"), (&*followers[0], "f0"), ("stranger", "x")];
    let request = bench.sync_request(&leader, 1, &parts);
    let own = bench.sync(&request);
    assert_eq!(bench.synced(own).assignment, "l");
    assert_eq!(bench.synced(early).assignment, "f0");
    assert_eq!(bench.state(), GroupState::Stable);
    let request = bench.sync_request(&followers[1], 1, &[]);
    let late = bench.sync(&request);
    assert_eq!(bench.synced(late).error, ErrorCode::None);
    assert_eq!(bench.synced(late).assignment, "", "the leader left it out");
    assert_eq!(bench.synced(late).protocol_name.as_deref(), Some("range"));
}

#[test]
fn no_member_gets_its_assignment_before_it_is_durable() {
    let mut bench = Bench::new(options());
    let request = bench.request();
    let token = bench.join(&request);
    bench.pass(i64::from(INITIAL_DELAY_MS));
    let id = bench.joined(token).member_id.clone();
    bench.hold_stores = true;
    let request = bench.sync_request(&id, 1, &[(&id, "all")]);
    let token = bench.sync(&request);
    assert_eq!(bench.state(), GroupState::CompletingRebalance);
    assert!(!bench.synced.contains_key(&token));
    let stored = StoredGroup::decode(&bench.stores[0].2).expect("readable");
    assert_eq!(stored.members[0].assignment, "all");
    bench.finish_store(ErrorCode::None);
    assert_eq!(bench.synced(token).assignment, "all");
    assert_eq!(bench.state(), GroupState::Stable);
}

#[test]
fn when_the_assignment_cannot_be_stored_all_are_told_and_rebalance() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(2);
    let joins: Vec<Join> = ids.iter().map(|id| Join { member_id: id.clone(), ..bench.request() }).collect();
    for join in &joins {
        bench.join(join);
    }
    bench.hold_stores = true;
    let tokens = bench.sync_all(&ids, &ids[0].clone(), generation + 1);
    bench.finish_store(ErrorCode::CoordinatorNotAvailable);
    for token in tokens {
        assert_eq!(bench.synced(token).error, ErrorCode::CoordinatorNotAvailable);
    }
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
}

#[test]
fn a_rebalance_that_begins_while_the_assignment_is_stored_wins() {
    let mut bench = Bench::new(options());
    let request = bench.request();
    let token = bench.join(&request);
    bench.pass(i64::from(INITIAL_DELAY_MS));
    let id = bench.joined(token).member_id.clone();
    bench.hold_stores = true;
    let request = bench.sync_request(&id, 1, &[(&id, "all")]);
    let sync = bench.sync(&request);
    let request = bench.request();
    bench.join(&request);
    assert_eq!(bench.synced(sync).error, ErrorCode::RebalanceInProgress);
    bench.finish_store(ErrorCode::None);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    let members = bench.core.describe(GROUP).expect("a group").members;
    assert!(members.iter().all(|member| member.assignment.is_empty()));
}

#[test]
fn a_new_member_makes_the_others_join_again() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(2);
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::None);
    let request = bench.request();
    let joiner = bench.join(&request);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    for id in &ids {
        assert_eq!(bench.heartbeat(id, generation), ErrorCode::RebalanceInProgress);
    }
    let request = bench.sync_request(&ids[1], generation, &[]);
    let sync = bench.sync(&request);
    assert_eq!(bench.synced(sync).error, ErrorCode::RebalanceInProgress);
    for id in &ids {
        assert!(!bench.joined.contains_key(&joiner));
        let request = Join { member_id: id.clone(), ..bench.request() };
        bench.join(&request);
    }
    assert_eq!(bench.joined(joiner).generation, generation + 1);
    assert_eq!(bench.joined(joiner).leader, ids[0]);
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::IllegalGeneration);
    assert_eq!(bench.heartbeat(&ids[0], generation + 1), ErrorCode::None, "heartbeats count before the sync too");
}

#[test]
fn those_who_do_not_join_within_the_rebalance_timeout_are_out() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(3);
    let request = bench.request();
    let joiner = bench.join(&request);
    let request = Join { member_id: ids[1].clone(), ..bench.request() };
    bench.join(&request);
    let start_ms = bench.now.timer_ms;
    while !bench.joined.contains_key(&joiner) {
        // The late ones are alive, they just do not come.
        assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::RebalanceInProgress);
        assert_eq!(bench.heartbeat(&ids[2], generation), ErrorCode::RebalanceInProgress);
        bench.pass(2_000);
    }
    assert_eq!(bench.now.timer_ms - start_ms, i64::from(REBALANCE_MS));
    assert_eq!(bench.joined(joiner).generation, generation + 1);
    assert_eq!(bench.joined(joiner).leader, ids[1], "the leader was late: one who joined leads now");
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::UnknownMemberId);
    assert_eq!(bench.core.counts().members, 2);
}

#[test]
fn a_silent_member_is_removed_at_the_end_of_its_session_and_the_others_rebalance() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(2);
    bench.pass(i64::from(SESSION_MS) - 1);
    assert_eq!(bench.heartbeat(&ids[1], generation), ErrorCode::None);
    bench.pass(1);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::UnknownMemberId);
    assert_eq!(bench.heartbeat(&ids[1], generation), ErrorCode::RebalanceInProgress);
    assert_eq!(bench.core.counts().expired_members, 1);
    let request = Join { member_id: ids[1].clone(), ..bench.request() };
    let token = bench.join(&request);
    assert_eq!(bench.joined(token).generation, generation + 1);
    assert_eq!(bench.joined(token).leader, ids[1]);
}

#[test]
fn waiting_for_a_reply_is_a_sign_of_life() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(2);
    let request = Join { member_id: ids[0].clone(), ..bench.request() };
    let waiting = bench.join(&request);
    for _ in 0..10 {
        bench.pass(4_000);
        assert_eq!(bench.heartbeat(&ids[1], generation), ErrorCode::RebalanceInProgress);
    }
    assert!(!bench.joined.contains_key(&waiting));
    assert_eq!(bench.core.counts().members, 2);
    let request = Join { member_id: ids[1].clone(), ..bench.request() };
    bench.join(&request);
    assert_eq!(bench.joined(waiting).generation, generation + 1);
    // From the answer on it must show life again.
    bench.pass(i64::from(SESSION_MS));
    assert_eq!(bench.core.counts().members, 0);
    assert_eq!(bench.state(), GroupState::Empty);
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(1);
    for _ in 0..10 {
        bench.pass(6_000);
        let identity = bench.identity(&ids[0], generation);
        assert_eq!(bench.core.check_commit(bench.now, &identity, 9), Ok(()));
    }
    assert_eq!(bench.core.counts().members, 1);
}

#[test]
fn those_who_joined_but_do_not_sync_are_out_after_the_rebalance_timeout() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(2);
    for id in &ids {
        let request = Join { member_id: id.clone(), ..bench.request() };
        bench.join(&request);
    }
    let request = bench.sync_request(&ids[1], generation + 1, &[]);
    let waiting = bench.sync(&request);
    for _ in 0..29 {
        bench.pass(2_000);
        assert_eq!(bench.heartbeat(&ids[0], generation + 1), ErrorCode::None);
    }
    assert!(!bench.synced.contains_key(&waiting));
    bench.pass(2_000);
    assert_eq!(bench.synced(waiting).error, ErrorCode::RebalanceInProgress);
    assert_eq!(bench.heartbeat(&ids[0], generation + 1), ErrorCode::UnknownMemberId);
    assert_eq!(bench.core.counts().members, 1);
}

#[test]
fn one_that_never_syncs_is_out_even_when_the_group_is_stable() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(2);
    for id in &ids {
        let request = Join { member_id: id.clone(), ..bench.request() };
        bench.join(&request);
    }
    bench.sync_all(&ids[..1], &ids[0].clone(), generation + 1);
    assert_eq!(bench.state(), GroupState::Stable);
    for _ in 0..30 {
        for id in &ids {
            assert_eq!(bench.heartbeat(id, generation + 1), ErrorCode::None);
        }
        bench.pass(2_000);
    }
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    assert_eq!(bench.heartbeat(&ids[1], generation + 1), ErrorCode::UnknownMemberId);
}

#[test]
fn a_follower_that_joins_again_unchanged_gets_the_same_generation() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(2);
    let request = Join { member_id: ids[1].clone(), ..bench.request() };
    let token = bench.join(&request);
    assert_eq!(bench.joined(token).generation, generation);
    assert!(bench.joined(token).members.is_empty());
    assert_eq!(bench.state(), GroupState::Stable);
    let request = bench.sync_request(&ids[1], generation, &[]);
    let token = bench.sync(&request);
    assert_eq!(bench.synced(token).assignment, &*ids[1], "and the same assignment");
}

#[test]
fn a_leader_that_joins_again_or_a_member_with_news_starts_a_rebalance() {
    let mut bench = Bench::new(options());
    let (ids, _) = bench.stable(2);
    let request = Join { member_id: ids[0].clone(), ..bench.request() };
    bench.join(&request);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);

    let mut bench = Bench::new(options());
    let (ids, _) = bench.stable(2);
    let news = vec![Protocol { name: text("range"), metadata: subscription(&["orders", "payments"]) }];
    let request = Join { member_id: ids[1].clone(), protocols: news, ..bench.request() };
    bench.join(&request);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
}

#[test]
fn a_join_repeated_while_the_leader_assigns_gets_the_same_answer() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(2);
    let joins: Vec<Join> = ids.iter().map(|id| Join { member_id: id.clone(), ..bench.request() }).collect();
    let first: Vec<Token> = joins.iter().map(|join| bench.join(join)).collect();
    assert_eq!(bench.state(), GroupState::CompletingRebalance);
    let again: Vec<Token> = joins.iter().map(|join| bench.join(join)).collect();
    for (first, again) in first.iter().zip(&again) {
        assert_eq!(bench.joined(*first), bench.joined(*again));
    }
    assert_eq!(bench.joined(again[0]).generation, generation + 1);
    let news = vec![Protocol { name: text("range"), metadata: subscription(&["payments"]) }];
    let request = Join { protocols: news, ..joins[1].clone() };
    bench.join(&request);
    assert_eq!(bench.state(), GroupState::PreparingRebalance, "news start over");
}

#[test]
fn a_member_that_leaves_is_gone_at_once() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(2);
    assert_eq!(bench.leave(&ids[0], None), ErrorCode::None);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::UnknownMemberId);
    assert_eq!(bench.leave(&ids[0], None), ErrorCode::UnknownMemberId);
    assert_eq!(bench.leave(&ids[1], None), ErrorCode::None);
    assert_eq!(bench.state(), GroupState::Empty);
    assert_eq!(bench.core.describe(GROUP).expect("a group").generation, generation + 1);
}

#[test]
fn leaving_while_a_join_waits_answers_the_join_and_lets_the_others_go_on() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(2);
    let newcomer = bench.request();
    let joiner = bench.join(&newcomer);
    let request = Join { member_id: ids[0].clone(), ..bench.request() };
    let waiting = bench.join(&request);
    assert_eq!(bench.leave(&newcomer.fresh_member_id, None), ErrorCode::None);
    assert_eq!(bench.joined(joiner).error, ErrorCode::UnknownMemberId);
    assert!(!bench.joined.contains_key(&waiting));
    assert_eq!(bench.leave(&ids[1], None), ErrorCode::None);
    assert_eq!(bench.joined(waiting).generation, generation + 1);
}

#[test]
fn leaving_answers_a_sync_that_waits() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(2);
    for id in &ids {
        let request = Join { member_id: id.clone(), ..bench.request() };
        bench.join(&request);
    }
    let request = bench.sync_request(&ids[1], generation + 1, &[]);
    let waiting = bench.sync(&request);
    bench.leave(&ids[1], None);
    assert_eq!(bench.synced(waiting).error, ErrorCode::UnknownMemberId);
}

#[test]
fn one_that_was_given_an_id_can_leave_with_it() {
    let mut bench = Bench::new(options());
    let request = Join { requires_member_id: true, ..bench.request() };
    bench.join(&request);
    assert_eq!(bench.leave(&request.fresh_member_id, None), ErrorCode::None);
    assert_eq!(bench.core.counts().pending_members, 0);
    assert_eq!(bench.leave(&request.fresh_member_id, None), ErrorCode::UnknownMemberId);
}

#[test]
fn several_can_leave_in_one_request_and_each_gets_its_answer() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(3);
    let leaving = [(&*ids[0], None), ("stranger", None), (&*ids[1], Some("not-its-instance")), (&*ids[2], None)];
    let errors = bench.core.leave(bench.now, GROUP, &leaving).expect("a group id");
    bench.settle();
    let unknown = ErrorCode::UnknownMemberId;
    assert_eq!(errors, [ErrorCode::None, unknown, unknown, ErrorCode::None]);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    let request = Join { member_id: ids[1].clone(), ..bench.request() };
    let token = bench.join(&request);
    assert_eq!(bench.joined(token).generation, generation + 1, "one rebalance for all of them");
    assert_eq!(bench.core.leave(bench.now, "no-such-group", &[("a", None), ("b", None)]), Ok(vec![unknown, unknown]));
}

#[test]
fn syncs_are_checked() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(1);
    let good = bench.sync_request(&ids[0], generation, &[]);
    for (request, error) in [
        (Sync { generation: generation + 1, ..good.clone() }, ErrorCode::IllegalGeneration),
        (Sync { member_id: text("stranger"), ..good.clone() }, ErrorCode::UnknownMemberId),
        (Sync { instance_id: Some(text("stranger")), ..good.clone() }, ErrorCode::UnknownMemberId),
        (Sync { protocol_type: Some(text("connect")), ..good.clone() }, ErrorCode::InconsistentGroupProtocol),
        (Sync { protocol_name: Some(text("sticky")), ..good.clone() }, ErrorCode::InconsistentGroupProtocol),
        (Sync { group_id: text("no-such-group"), ..good.clone() }, ErrorCode::UnknownMemberId),
    ] {
        let token = bench.sync(&request);
        assert_eq!(bench.synced(token).error, error, "{request:?}");
    }
    bench.leave(&ids[0], None);
    let token = bench.sync(&good);
    assert_eq!(bench.synced(token).error, ErrorCode::UnknownMemberId, "the group is empty");
}

#[test]
fn a_cooperative_group_moves_partitions_in_two_rebalances() {
    let mut bench = Bench::new(options());
    let cooperative = || protocols(&["cooperative-sticky"]);
    let first = Join { protocols: cooperative(), ..bench.request() };
    let (ids, generation) = bench.stable_of(&[first]);
    let request = Join { protocols: cooperative(), ..bench.request() };
    let newcomer = bench.join(&request);
    let request = Join { member_id: ids[0].clone(), protocols: cooperative(), ..bench.request() };
    bench.join(&request);
    let second_id = bench.joined(newcomer).member_id.clone();
    // The first rebalance only takes away; the one that lost something joins again with what it still owns.
    let request = bench.sync_request(&ids[0], generation + 1, &[(&ids[0], "p0"), (&second_id, "")]);
    bench.sync(&request);
    let request = bench.sync_request(&second_id, generation + 1, &[]);
    let token = bench.sync(&request);
    assert_eq!(bench.synced(token).assignment, "");
    let owned = vec![Protocol { name: text("cooperative-sticky"), metadata: Bytes::from_static(b"owns p0") }];
    let request = Join { member_id: ids[0].clone(), protocols: owned, ..bench.request() };
    let leader = bench.join(&request);
    assert_eq!(bench.heartbeat(&second_id, generation + 1), ErrorCode::RebalanceInProgress);
    let request = Join { member_id: second_id.clone(), protocols: cooperative(), ..bench.request() };
    bench.join(&request);
    assert_eq!(bench.joined(leader).generation, generation + 2);
    let seen = bench.joined(leader).members.iter().find(|member| member.member_id == ids[0]).expect("itself");
    assert_eq!(seen.metadata, "owns p0");
    let request = bench.sync_request(&ids[0], generation + 2, &[(&ids[0], "p0"), (&second_id, "p1")]);
    bench.sync(&request);
    let request = bench.sync_request(&second_id, generation + 2, &[]);
    let token = bench.sync(&request);
    assert_eq!(bench.synced(token).assignment, "p1");
}

#[test]
fn commits_are_accepted_only_from_members_of_the_present_generation() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(1);
    let check = |bench: &mut Bench, member_id: &str, generation: i32| {
        let identity = bench.identity(member_id, generation);
        bench.core.check_commit(bench.now, &identity, 9)
    };
    assert_eq!(check(&mut bench, &ids[0], generation), Ok(()));
    assert_eq!(check(&mut bench, &ids[0], generation - 1), Err(ErrorCode::IllegalGeneration));
    assert_eq!(check(&mut bench, &ids[0], generation + 1), Err(ErrorCode::IllegalGeneration));
    assert_eq!(check(&mut bench, "stranger", generation), Err(ErrorCode::UnknownMemberId));
    assert_eq!(check(&mut bench, "", -1), Err(ErrorCode::UnknownMemberId), "others are at work on these partitions");
    let request = bench.request();
    bench.join(&request);
    assert_eq!(check(&mut bench, &ids[0], generation), Ok(()), "what was done before the rebalance counts");
    let request = Join { member_id: ids[0].clone(), ..bench.request() };
    bench.join(&request);
    assert_eq!(bench.state(), GroupState::CompletingRebalance);
    assert_eq!(check(&mut bench, &ids[0], generation + 1), Err(ErrorCode::RebalanceInProgress));
    assert_eq!(check(&mut bench, &ids[0], generation), Err(ErrorCode::IllegalGeneration));
}

#[test]
fn a_consumer_without_a_group_can_commit_to_an_empty_or_new_group() {
    let mut bench = Bench::new(options());
    let simple = Identity { group_id: "simple", ..bench.identity("", -1) };
    assert_eq!(bench.core.check_commit(bench.now, &simple, 9), Ok(()));
    assert!(bench.core.has_group("simple"));
    assert_eq!(bench.core.describe("simple").expect("a group").state, GroupState::Empty);
    for (version, error) in [(8, ErrorCode::IllegalGeneration), (9, ErrorCode::GroupIdNotFound)] {
        let member = Identity { group_id: "other", ..bench.identity("a", 3) };
        assert_eq!(bench.core.check_commit(bench.now, &member, version), Err(error));
        assert!(!bench.core.has_group("other"));
    }
    let (ids, _) = bench.stable(1);
    bench.leave(&ids[0], None);
    let operator = bench.identity("", -1);
    assert_eq!(bench.core.check_commit(bench.now, &operator, 9), Ok(()));
}

#[test]
fn groups_are_listed_and_described() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(2);
    bench.core.ensure_group(bench.now, "simple").expect("room");
    let listed: Vec<_> = bench.core.list().collect();
    assert_eq!(listed.len(), 2);
    assert_eq!(
        (&*listed[0].group_id, &*listed[0].protocol_type, listed[0].state),
        (GROUP, "consumer", GroupState::Stable)
    );
    assert_eq!((&*listed[1].group_id, &*listed[1].protocol_type, listed[1].state), ("simple", "", GroupState::Empty));
    let described = bench.core.describe(GROUP).expect("a group");
    assert_eq!((described.generation, &*described.protocol_name), (generation, "range"));
    assert_eq!(described.members[0].member_id, ids[0]);
    assert_eq!(described.members[0].assignment, &*ids[0]);
    assert_eq!(described.members[0].metadata, subscription(&["orders"]));
    assert_eq!(&*described.members[0].client_host, "/127.0.0.1");
    bench.leave(&ids[0], None);
    let described = bench.core.describe(GROUP).expect("a group");
    assert_eq!((described.state, &*described.protocol_name), (GroupState::PreparingRebalance, ""));
    assert_eq!(described.members[0].metadata, "", "only a stable group has metadata to show");
    assert_eq!(bench.core.describe("no-such-group"), None);
}

#[test]
fn only_an_empty_group_can_be_deleted() {
    let mut bench = Bench::new(options());
    assert_eq!(bench.core.check_delete(GROUP), Err(ErrorCode::GroupIdNotFound));
    let (ids, _) = bench.stable(1);
    assert_eq!(bench.core.check_delete(GROUP), Err(ErrorCode::NonEmptyGroup));
    bench.leave(&ids[0], None);
    assert_eq!(bench.core.check_delete(GROUP), Ok(()));
    bench.core.remove_group(GROUP);
    assert_eq!(bench.core.check_delete(GROUP), Err(ErrorCode::GroupIdNotFound));
    assert_eq!(bench.core.counts().bytes, 0);
}

#[test]
fn offsets_of_subscribed_topics_cannot_be_deleted() {
    let mut bench = Bench::new(options());
    assert_eq!(bench.core.check_offset_delete(GROUP), Err(ErrorCode::GroupIdNotFound));
    let (ids, _) = bench.stable(1);
    assert_eq!(bench.core.check_offset_delete(GROUP), Ok(()));
    assert!(bench.core.is_subscribed_to(GROUP, "orders"));
    assert!(!bench.core.is_subscribed_to(GROUP, "payments"));
    bench.leave(&ids[0], None);
    assert!(!bench.core.is_subscribed_to(GROUP, "orders"));

    let mut bench = Bench::new(options());
    let request = Join { protocol_type: text("connect"), ..bench.request() };
    bench.stable_of(&[request]);
    assert_eq!(bench.core.check_offset_delete(GROUP), Err(ErrorCode::NonEmptyGroup), "its topics cannot be known");

    let mut bench = Bench::new(options());
    let unreadable = vec![Protocol { name: text("range"), metadata: Bytes::from_static(b"?") }];
    let request = Join { protocols: unreadable, ..bench.request() };
    bench.stable_of(&[request]);
    assert!(bench.core.is_subscribed_to(GROUP, "payments"), "when in doubt it is subscribed");
}

#[test]
fn offsets_are_kept_while_members_may_need_them() {
    let mut bench = Bench::new(options());
    let committed_ms = bench.now.wall_ms;
    bench.core.ensure_group(bench.now, "simple").expect("room");
    assert_eq!(bench.core.retention_base_ms("simple", "orders", committed_ms), Some(committed_ms));
    let (ids, _) = bench.stable(1);
    assert_eq!(bench.core.retention_base_ms(GROUP, "orders", committed_ms), None, "subscribed");
    assert_eq!(bench.core.retention_base_ms(GROUP, "old", committed_ms), Some(committed_ms), "no longer subscribed");
    let request = bench.request();
    bench.join(&request);
    assert_eq!(bench.core.retention_base_ms(GROUP, "old", committed_ms), None, "not during a rebalance");
    bench.leave(&ids[0], None);
    bench.leave(&request.fresh_member_id, None);
    assert_eq!(bench.state(), GroupState::Empty);
    let emptied_ms = bench.now.wall_ms;
    bench.pass(1_000);
    assert_eq!(
        bench.core.retention_base_ms(GROUP, "orders", committed_ms),
        Some(emptied_ms),
        "from when it became empty"
    );
}
