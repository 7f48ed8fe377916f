use super::*;

#[test]
fn an_empty_group_id_is_refused_everywhere() {
    let mut bench = Bench::new(options());
    let request = Join { group_id: text(""), ..bench.request() };
    let token = bench.join(&request);
    assert_eq!(bench.joined(token).error, ErrorCode::InvalidGroupId);
    let request = Sync { group_id: text(""), ..bench.sync_request("a", 1, &[]) };
    let token = bench.sync(&request);
    assert_eq!(bench.synced(token).error, ErrorCode::InvalidGroupId);
    let identity = Identity { group_id: "", ..bench.identity("a", 1) };
    assert_eq!(bench.core.heartbeat(bench.now, &identity), ErrorCode::InvalidGroupId);
    assert_eq!(bench.core.leave(bench.now, "", &[("a", None)]), Err(ErrorCode::InvalidGroupId));
}

#[test]
fn session_timeouts_outside_of_the_limits_are_refused() {
    let mut bench = Bench::new(options());
    for (timeout_ms, error) in [
        (5_999, Some(ErrorCode::InvalidSessionTimeout)),
        (6_000, None),
        (1_800_000, None),
        (1_800_001, Some(ErrorCode::InvalidSessionTimeout)),
        (-1, Some(ErrorCode::InvalidSessionTimeout)),
    ] {
        let request = Join { session_timeout_ms: timeout_ms, ..bench.request() };
        let token = bench.join(&request);
        assert_eq!(bench.joined.get(&token).map(|reply| reply.error), error, "{timeout_ms} ms");
    }
}

#[test]
fn a_dynamic_member_must_come_back_with_the_id_it_was_given() {
    let mut bench = Bench::new(options());
    let first = Join { requires_member_id: true, ..bench.request() };
    let token = bench.join(&first);
    let reply = bench.joined(token).clone();
    assert_eq!((reply.error, reply.member_id.clone()), (ErrorCode::MemberIdRequired, first.fresh_member_id.clone()));
    assert_eq!(bench.core.counts().pending_members, 1);
    assert_eq!(bench.state(), GroupState::Empty);

    let second = Join { member_id: reply.member_id.clone(), ..first };
    let token = bench.join(&second);
    assert_eq!(bench.core.counts().pending_members, 0);
    bench.pass(i64::from(INITIAL_DELAY_MS));
    let joined = bench.joined(token);
    assert_eq!((joined.error, &joined.member_id, joined.generation), (ErrorCode::None, &reply.member_id, 1));
}

#[test]
fn an_id_that_nobody_gave_out_is_unknown() {
    let mut bench = Bench::new(options());
    let request = Join { member_id: text("made-up"), ..bench.request() };
    let token = bench.join(&request);
    assert_eq!(bench.joined(token).error, ErrorCode::UnknownMemberId);
    assert!(!bench.core.has_group(GROUP), "no group is made for a stranger");
    bench.stable(1);
    let token = bench.join(&request);
    assert_eq!(bench.joined(token).error, ErrorCode::UnknownMemberId);
    assert_eq!(bench.state(), GroupState::Stable);
}

#[test]
fn an_id_that_is_not_used_within_the_session_timeout_is_forgotten() {
    let mut bench = Bench::new(options());
    let first = Join { requires_member_id: true, ..bench.request() };
    let token = bench.join(&first);
    let member_id = bench.joined(token).member_id.clone();
    bench.pass(i64::from(SESSION_MS));
    assert_eq!(bench.core.counts().pending_members, 0);
    let second = Join { member_id, ..first };
    let token = bench.join(&second);
    assert_eq!(bench.joined(token).error, ErrorCode::UnknownMemberId);
}

#[test]
fn a_rebalance_waits_for_those_who_were_given_an_id() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(1);
    let pending = Join { requires_member_id: true, ..bench.request() };
    let token = bench.join(&pending);
    let pending_id = bench.joined(token).member_id.clone();
    // The leader joins again: everyone is there but the one with the fresh id.
    let request = Join { member_id: ids[0].clone(), ..bench.request() };
    let leader = bench.join(&request);
    assert!(!bench.joined.contains_key(&leader));
    let request = Join { member_id: pending_id.clone(), ..pending };
    let joiner = bench.join(&request);
    assert_eq!(bench.joined(leader).generation, generation + 1);
    assert_eq!(bench.joined(joiner).generation, generation + 1);
    assert_eq!(bench.joined(leader).members.len(), 2);
    assert!(bench.joined(joiner).members.is_empty(), "only the leader sees the members");
}

#[test]
fn a_rebalance_goes_on_when_a_given_id_expires() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(1);
    let pending = Join { requires_member_id: true, ..bench.request() };
    bench.join(&pending);
    let request = Join { member_id: ids[0].clone(), ..bench.request() };
    let leader = bench.join(&request);
    bench.pass(i64::from(SESSION_MS));
    assert_eq!(bench.joined(leader).generation, generation + 1);
}

#[test]
fn a_new_group_needs_a_protocol_type_and_a_protocol() {
    let mut bench = Bench::new(options());
    for request in
        [Join { protocol_type: text(""), ..bench.request() }, Join { protocols: Vec::new(), ..bench.request() }]
    {
        let token = bench.join(&request);
        assert_eq!(bench.joined(token).error, ErrorCode::InconsistentGroupProtocol);
        assert!(!bench.core.has_group(GROUP), "a refused join leaves no group behind");
    }
}

#[test]
fn members_must_have_a_protocol_in_common() {
    let mut bench = Bench::new(options());
    bench.stable(1);
    for request in [
        Join { protocol_type: text("connect"), ..bench.request() },
        Join { protocols: protocols(&["sticky"]), ..bench.request() },
        Join { protocols: Vec::new(), ..bench.request() },
    ] {
        let token = bench.join(&request);
        assert_eq!(bench.joined(token).error, ErrorCode::InconsistentGroupProtocol);
    }
    assert_eq!(bench.state(), GroupState::Stable);
}

#[test]
fn the_protocol_with_most_votes_is_chosen_among_those_that_all_support() {
    let mut bench = Bench::new(options());
    let wishes: [&[&str]; 4] =
        [&["own", "range", "sticky"], &["sticky", "range"], &["sticky", "range", "own"], &["range", "sticky"]];
    let joins: Vec<Join> = wishes.iter().map(|names| Join { protocols: protocols(names), ..bench.request() }).collect();
    let tokens: Vec<Token> = joins.iter().map(|join| bench.join(join)).collect();
    bench.pass(60_000);
    // range and sticky have two votes each; one more member decides.
    let first = bench.joined(tokens[0]).protocol_name.clone().expect("a protocol");
    assert!(["range", "sticky"].contains(&&*first));
    for token in &tokens {
        assert_eq!(bench.joined(*token).protocol_name.as_ref(), Some(&first));
    }

    let mut bench = Bench::new(options());
    let wishes: [&[&str]; 3] = [&["range", "sticky"], &["sticky", "range"], &["sticky", "range", "own"]];
    let joins: Vec<Join> = wishes.iter().map(|names| Join { protocols: protocols(names), ..bench.request() }).collect();
    let tokens: Vec<Token> = joins.iter().map(|join| bench.join(join)).collect();
    bench.pass(60_000);
    assert_eq!(bench.joined(tokens[0]).protocol_name.as_deref(), Some("sticky"));
}

#[test]
fn of_protocols_with_one_name_the_first_counts() {
    let mut bench = Bench::new(options());
    let twice = vec![
        Protocol { name: text("range"), metadata: Bytes::from_static(b"first") },
        Protocol { name: text("range"), metadata: Bytes::from_static(b"second") },
    ];
    let request = Join { protocols: twice, ..bench.request() };
    let token = bench.join(&request);
    bench.pass(i64::from(INITIAL_DELAY_MS));
    assert_eq!(bench.joined(token).members[0].metadata, Bytes::from_static(b"first"));
    let other = bench.request();
    let token = bench.join(&other);
    assert!(!bench.joined.contains_key(&token), "the protocol counts once for a member, so another can share it");
}

#[test]
fn the_first_join_waits_for_the_initial_delay() {
    let mut bench = Bench::new(options());
    let request = bench.request();
    let token = bench.join(&request);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    bench.pass(i64::from(INITIAL_DELAY_MS) - 1);
    assert!(!bench.joined.contains_key(&token));
    bench.pass(1);
    assert_eq!(bench.joined(token).generation, 1);
    assert_eq!(bench.joined(token).leader, bench.joined(token).member_id);
    assert_eq!(bench.state(), GroupState::CompletingRebalance);
}

#[test]
fn members_that_come_during_the_initial_delay_extend_it_up_to_the_rebalance_timeout() {
    let mut bench = Bench::new(options());
    // 3 s + 3 s + 1 s = the rebalance timeout of 7 s.
    let request = Join { rebalance_timeout_ms: 7_000, ..bench.request() };
    let first = bench.join(&request);
    for _ in 0..3 {
        bench.pass(2_000);
        let request = Join { rebalance_timeout_ms: 7_000, ..bench.request() };
        bench.join(&request);
    }
    assert!(!bench.joined.contains_key(&first), "6 s: extended twice");
    bench.pass(999);
    assert!(!bench.joined.contains_key(&first));
    bench.pass(1);
    assert_eq!(bench.joined(first).members.len(), 4, "7 s: all of the rebalance timeout is used up");
}

#[test]
fn the_initial_delay_is_not_extended_when_nobody_comes() {
    let mut bench = Bench::new(options());
    let (one, two) = (bench.request(), bench.request());
    let first = bench.join(&one);
    let second = bench.join(&two);
    bench.pass(i64::from(INITIAL_DELAY_MS));
    assert!(!bench.joined.contains_key(&first), "the second one came meanwhile");
    bench.pass(i64::from(INITIAL_DELAY_MS));
    assert_eq!(bench.joined(first).members.len(), 2);
    assert_eq!(bench.joined(second).leader, bench.joined(first).leader);
}

#[test]
fn without_an_initial_delay_the_first_join_is_answered_at_the_next_tick() {
    let mut bench = Bench::new(CoreOptions { initial_rebalance_delay_ms: 0, ..options() });
    let request = bench.request();
    let token = bench.join(&request);
    bench.pass(0);
    assert_eq!(bench.joined(token).generation, 1);
}

#[test]
fn a_new_member_whose_join_is_not_answered_in_five_minutes_must_ask_again() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(1);
    // A second member waits; the first one keeps its session but does not join, and would be waited for ten minutes.
    let request = Join { member_id: ids[0].clone(), rebalance_timeout_ms: 600_000, ..bench.request() };
    bench.join(&request);
    let leader = bench.core.describe(GROUP).expect("a group").generation;
    bench.sync_all(&ids, &ids[0].clone(), leader);
    assert_eq!(leader, generation + 1);
    let request = bench.request();
    let joiner = bench.join(&request);
    for _ in 0..99 {
        bench.pass(3_000);
        assert_eq!(bench.heartbeat(&ids[0], leader), ErrorCode::RebalanceInProgress);
        assert!(!bench.joined.contains_key(&joiner));
    }
    bench.pass(3_000);
    assert_eq!(bench.joined(joiner).error, ErrorCode::UnknownMemberId);
    assert_eq!(bench.core.counts().members, 1);
}

#[test]
fn a_join_that_is_repeated_supersedes_the_one_that_waits() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(2);
    let request = Join { member_id: ids[0].clone(), ..bench.request() };
    let first = bench.join(&request);
    let second = bench.join(&request);
    assert_eq!(bench.joined(first).error, ErrorCode::RebalanceInProgress);
    let request = Join { member_id: ids[1].clone(), ..bench.request() };
    bench.join(&request);
    assert_eq!((bench.joined(second).error, bench.joined(second).generation), (ErrorCode::None, generation + 1));
}
