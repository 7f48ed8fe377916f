use super::*;

#[test]
fn a_group_takes_no_more_members_than_its_size_allows() {
    let mut bench = Bench::new(CoreOptions { members_max: 2, ..options() });
    let (ids, generation) = bench.stable(2);
    let request = bench.request();
    let token = bench.join(&request);
    assert_eq!(bench.joined(token).error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(&*bench.joined(token).member_id, "");
    assert_eq!(bench.state(), GroupState::Stable);
    let request = Join { member_id: ids[1].clone(), ..bench.request() };
    let token = bench.join(&request);
    assert_eq!(bench.joined(token).generation, generation, "those who are in stay in");
}

#[test]
fn during_a_rebalance_those_who_come_first_stay() {
    let mut bench = Bench::new(CoreOptions { members_max: 2, ..options() });
    let joins = [bench.request(), bench.request(), bench.request()];
    let tokens: Vec<Token> = joins.iter().map(|join| bench.join(join)).collect();
    assert_eq!(bench.joined(tokens[2]).error, ErrorCode::GroupMaxSizeReached);
    bench.pass(60_000);
    assert_eq!(bench.joined(tokens[0]).members.len(), 2);
}

#[test]
fn no_more_groups_than_allowed() {
    let mut bench = Bench::new(CoreOptions { groups_max: 2, ..options() });
    bench.stable(1);
    let now = bench.now;
    assert_eq!(bench.core.ensure_group(now, "second"), Ok(()));
    assert_eq!(bench.core.ensure_group(now, "third"), Err(ErrorCode::PolicyViolation));
    assert_eq!(bench.core.ensure_group(now, "second"), Ok(()), "it is there already");
    let request = Join { group_id: text("third"), ..bench.request() };
    let token = bench.join(&request);
    assert_eq!(bench.joined(token).error, ErrorCode::PolicyViolation);
    let simple = Identity { group_id: "third", ..bench.identity("", -1) };
    assert_eq!(bench.core.check_commit(now, &simple, 9), Err(ErrorCode::PolicyViolation));
    bench.core.remove_group("second");
    assert_eq!(bench.core.ensure_group(now, "third"), Ok(()));
}

#[test]
fn what_members_say_of_themselves_is_bounded() {
    let mut bench = Bench::new(CoreOptions { group_bytes_max: 100_000, bytes_max: 150_000, ..options() });
    let large = |bytes: usize| vec![Protocol { name: text("range"), metadata: vec![7; bytes].into() }];
    let request = Join { protocols: large(60_000), ..bench.request() };
    bench.join(&request);
    let request = Join { protocols: large(60_000), ..bench.request() };
    let token = bench.join(&request);
    assert_eq!(bench.joined(token).error, ErrorCode::PolicyViolation, "more than a group may have");
    let request = Join { protocols: large(60_000), group_id: text("other"), ..bench.request() };
    let token = bench.join(&request);
    assert!(!bench.joined.contains_key(&token));
    let request = Join { protocols: large(60_000), group_id: text("third"), ..bench.request() };
    let token = bench.join(&request);
    assert_eq!(bench.joined(token).error, ErrorCode::PolicyViolation, "more than all of them may have");
    assert!(bench.core.counts().bytes <= 150_000);
}

#[test]
fn an_assignment_that_is_too_large_is_refused_for_all() {
    let mut bench = Bench::new(CoreOptions { group_bytes_max: 100_000, ..options() });
    let request = bench.request();
    let token = bench.join(&request);
    bench.pass(i64::from(INITIAL_DELAY_MS));
    let id = bench.joined(token).member_id.clone();
    let request = bench.sync_request(&id, 1, &[(&id, &"x".repeat(100_000))]);
    let token = bench.sync(&request);
    assert_eq!(bench.synced(token).error, ErrorCode::UnknownServerError);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    assert!(bench.core.counts().bytes < 10_000);
}

#[test]
fn ids_that_nobody_uses_are_bounded() {
    let mut bench = Bench::new(CoreOptions { group_bytes_max: 64 << 20, ..options() });
    let request = Join { requires_member_id: true, ..bench.request() };
    for count in 0..join::PENDING_MEMBERS_MAX {
        let request = Join { fresh_member_id: format!("m{count}").into(), ..request.clone() };
        bench.join(&request);
    }
    let token = bench.join(&request);
    assert_eq!(bench.joined(token).error, ErrorCode::CoordinatorLoadInProgress);
    bench.pass(i64::from(SESSION_MS));
    let token = bench.join(&request);
    assert_eq!(bench.joined(token).error, ErrorCode::MemberIdRequired);
}

#[test]
fn absurd_timeouts_do_no_harm() {
    let mut bench = Bench::new(CoreOptions { session_timeout_max_ms: i32::MAX, ..options() });
    for (rebalance_timeout_ms, session_timeout_ms) in [(i32::MIN, 6_000), (0, 6_000), (i32::MAX, i32::MAX)] {
        let request = Join { rebalance_timeout_ms, session_timeout_ms, ..bench.request() };
        bench.join(&request);
        bench.pass(1_000);
    }
    bench.now.timer_ms = i64::MAX - 10;
    bench.core.tick(bench.now);
    bench.settle();
    let request = bench.request();
    bench.join(&request);
    bench.core.tick(bench.now);
    bench.settle();
}
