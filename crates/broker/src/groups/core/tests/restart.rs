use super::*;

/// What the last write of the group holds, put into a new core.
fn restarted(bench: &mut Bench, stored: &Bytes) -> Bench {
    let mut other = Bench::new(options());
    other.ids = bench.ids + 100;
    other.now = Now { timer_ms: 0, wall_ms: bench.now.wall_ms + 1_000 };
    other.core.restore(other.now, text(GROUP), StoredGroup::decode(stored).expect("readable"));
    other.settle();
    other
}

/// A stable group and its stored form.
fn stable_and_stored(count: usize) -> (Bench, Vec<Arc<str>>, i32, Bytes) {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(count);
    for id in &ids {
        let request = Join { member_id: id.clone(), ..bench.request() };
        bench.join(&request);
    }
    bench.hold_stores = true;
    bench.sync_all(&ids, &ids[0].clone(), generation + 1);
    let stored = bench.stores[0].2.clone();
    bench.finish_store(ErrorCode::None);
    bench.hold_stores = false;
    (bench, ids, generation + 1, stored)
}

#[test]
fn members_go_on_after_a_restart_as_if_nothing_had_happened() {
    let (mut bench, ids, generation, stored) = stable_and_stored(2);
    let mut bench = restarted(&mut bench, &stored);
    assert_eq!(bench.state(), GroupState::Stable);
    for id in &ids {
        assert_eq!(bench.heartbeat(id, generation), ErrorCode::None);
        assert_eq!(bench.core.check_commit(bench.now, &bench.identity(id, generation), 9), Ok(()));
        assert_eq!(bench.heartbeat(id, generation - 1), ErrorCode::IllegalGeneration);
    }
    let request = bench.sync_request(&ids[1], generation, &[]);
    let token = bench.sync(&request);
    assert_eq!(bench.synced(token).assignment, &*ids[1]);
    let request = Join { member_id: ids[1].clone(), ..bench.request() };
    let token = bench.join(&request);
    assert_eq!((bench.joined(token).generation, &bench.joined(token).leader), (generation, &ids[0]));
    assert!(bench.core.is_subscribed_to(GROUP, "orders"));
}

#[test]
fn members_that_died_with_the_broker_are_removed_after_their_session() {
    let (mut bench, ids, generation, stored) = stable_and_stored(2);
    let mut bench = restarted(&mut bench, &stored);
    bench.pass(5_000);
    assert_eq!(bench.heartbeat(&ids[1], generation), ErrorCode::None);
    bench.pass(5_000);
    assert_eq!(bench.core.counts().members, 1);
    let request = Join { member_id: ids[1].clone(), ..bench.request() };
    let token = bench.join(&request);
    assert_eq!(bench.joined(token).generation, generation + 1, "generations go on counting");
}

#[test]
fn a_static_member_keeps_its_place_over_a_restart_of_both() {
    let mut bench = Bench::new(options());
    let request = Join { instance_id: Some(text("one")), ..bench.request() };
    let token = bench.join(&request);
    bench.pass(i64::from(INITIAL_DELAY_MS));
    let id = bench.joined(token).member_id.clone();
    bench.hold_stores = true;
    let request = Sync { instance_id: Some(text("one")), ..bench.sync_request(&id, 1, &[(&id, "p0")]) };
    bench.sync(&request);
    let stored = bench.stores[0].2.clone();
    let mut bench = restarted(&mut bench, &stored);
    let request = Join { instance_id: Some(text("one")), ..bench.request() };
    let token = bench.join(&request);
    let reply = bench.joined(token).clone();
    assert_eq!((reply.error, reply.generation, reply.skip_assignment), (ErrorCode::None, 1, true));
    let request = Sync { instance_id: Some(text("one")), ..bench.sync_request(&reply.member_id, 1, &[]) };
    let token = bench.sync(&request);
    assert_eq!(bench.synced(token).assignment, "p0");
}

#[test]
fn an_empty_group_remembers_since_when() {
    let mut bench = Bench::new(options());
    let (ids, generation) = bench.stable(1);
    bench.hold_stores = true;
    bench.leave(&ids[0], None);
    let emptied_ms = bench.now.wall_ms;
    let stored = bench.stores[0].2.clone();
    let mut bench = restarted(&mut bench, &stored);
    assert_eq!(bench.state(), GroupState::Empty);
    assert_eq!(bench.core.describe(GROUP).expect("a group").generation, generation + 1);
    assert_eq!(bench.core.retention_base_ms(GROUP, "orders", 1), Some(emptied_ms));
    let (_, next) = bench.stable(1);
    assert_eq!(next, generation + 2);
}

#[test]
fn a_group_over_a_lowered_size_rebalances_down_to_it() {
    let (bench, ids, generation, stored) = stable_and_stored(3);
    let mut small = Bench::new(CoreOptions { members_max: 2, ..options() });
    small.now = bench.now;
    small.core.restore(small.now, text(GROUP), StoredGroup::decode(&stored).expect("readable"));
    assert_eq!(small.heartbeat(&ids[0], generation), ErrorCode::RebalanceInProgress);
    let joins: Vec<Join> = ids.iter().map(|id| Join { member_id: id.clone(), ..small.request() }).collect();
    let tokens: Vec<Token> = joins.iter().map(|join| small.join(join)).collect();
    assert_eq!(small.joined(tokens[2]).error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(small.joined(tokens[0]).generation, generation + 1);
    assert_eq!(small.joined(tokens[0]).members.len(), 2);
}
