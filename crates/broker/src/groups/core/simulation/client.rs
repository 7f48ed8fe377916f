//! A client of the simulation: mostly it does what a Kafka client does.

use std::sync::Arc;

use baton_testkit::Random;
use bytes::Bytes;

use super::{GROUPS, World, one_of};
use crate::groups::core::*;

/// How long a client waits for a reply before it asks again.
const REQUEST_TIMEOUT_MS: i64 = 90_000;
const PROTOCOLS: [&[&str]; 4] = [&["range", "sticky"], &["sticky", "range"], &["range"], &["cooperative"]];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Out,
    Joining(Token),
    Joined,
    Syncing(Token),
    Member,
}

#[derive(Debug)]
pub(super) struct Client {
    pub group_id: &'static str,
    pub member_id: Arc<str>,
    pub generation: i32,
    pub phase: Phase,
    pub is_alive: bool,
    /// There was no room for it the last time it asked.
    pub is_turned_away: bool,
    name: String,
    instance_id: Option<Arc<str>>,
    requires_member_id: bool,
    can_skip_assignment: bool,
    session_timeout_ms: i32,
    rebalance_timeout_ms: i32,
    protocols: &'static [&'static str],
    /// Counts changes of its metadata.
    news: u64,
    /// For the leader: whom to assign to, or nobody when it is told to skip that.
    assignees: Vec<Arc<str>>,
    next_ms: i64,
}

impl Client {
    pub fn new(number: u64, dice: &mut Random) -> Self {
        let version = dice.below(3);
        Self {
            group_id: GROUPS[usize::from(dice.percent(25))],
            member_id: Arc::from(""),
            generation: -1,
            phase: Phase::Out,
            is_alive: true,
            is_turned_away: false,
            name: format!("client-{number}"),
            instance_id: dice.percent(35).then(|| format!("instance-{number}").into()),
            requires_member_id: version >= 1,
            can_skip_assignment: version == 2,
            session_timeout_ms: one_of(dice, &[6_000, 10_000, 45_000]),
            rebalance_timeout_ms: one_of(dice, &[2_000, 20_000, 60_000]),
            protocols: if dice.percent(3) { PROTOCOLS[3] } else { one_of(dice, &PROTOCOLS[..3]) },
            news: 0,
            assignees: Vec::new(),
            next_ms: dice.below(20_000) as i64,
        }
    }

    pub fn due_ms(&self) -> Option<i64> {
        self.is_alive.then_some(self.next_ms)
    }

    fn wait(&mut self, now: Now, ms: i64) {
        self.next_ms = now.timer_ms + ms;
    }

    fn wait_for_reply(&mut self, world: &mut World) {
        let is_impatient = world.chaos && world.dice.percent(30);
        let patience_ms = if is_impatient { world.dice.below(8_000) as i64 } else { REQUEST_TIMEOUT_MS };
        self.wait(world.now, patience_ms);
    }

    pub fn act(&mut self, world: &mut World, chaos: bool) {
        if chaos && self.misbehave(world) {
            return;
        }
        match self.phase {
            // The reply did not come: ask again.
            Phase::Out | Phase::Joining(_) => self.join(world),
            Phase::Joined | Phase::Syncing(_) => self.sync(world),
            Phase::Member => self.live(world, chaos),
        }
    }

    /// Whether it did something other than what it should.
    fn misbehave(&mut self, world: &mut World) -> bool {
        match world.dice.below(100) {
            // It dies without a word, and perhaps another comes in its place.
            0 | 1 => {
                self.phase = Phase::Out;
                self.member_id = Arc::from("");
                self.generation = -1;
                let pause_ms = world.dice.below(60_000) as i64;
                self.wait(world.now, pause_ms);
            }
            // It pauses for longer than its session.
            2 => {
                let pause_ms = world.dice.below(120_000) as i64;
                self.wait(world.now, pause_ms);
            }
            // Something old or made up arrives.
            3..=6 => {
                let generation = self.generation - 1 + world.dice.below(3) as i32;
                let identity = self.identity(generation);
                if world.dice.percent(50) {
                    world.oracle.heartbeat(&mut world.core, world.now, &identity);
                } else {
                    world.oracle.commit(&mut world.core, world.now, &identity);
                }
                self.wait(world.now, 100);
            }
            7 => self.sync(world),
            8 => self.join(world),
            9 => self.leave(world),
            _ => return false,
        }
        true
    }

    fn identity(&self, generation: i32) -> Identity<'_> {
        Identity {
            group_id: self.group_id,
            member_id: &self.member_id,
            instance_id: self.instance_id.as_deref(),
            generation,
        }
    }

    fn join(&mut self, world: &mut World) {
        let token = world.token();
        let stem = self.instance_id.as_deref().unwrap_or(&self.name).to_owned();
        let metadata = Bytes::from(format!("{} {}", self.name, self.news));
        let protocol = |name: &&str| Protocol { name: Arc::from(*name), metadata: metadata.clone() };
        let join = Join {
            group_id: Arc::from(self.group_id),
            member_id: self.member_id.clone(),
            fresh_member_id: world.fresh_id(&stem),
            instance_id: self.instance_id.clone(),
            client_id: self.name.as_str().into(),
            client_host: Arc::from("/127.0.0.1"),
            session_timeout_ms: self.session_timeout_ms,
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            protocol_type: Arc::from("consumer"),
            protocols: self.protocols.iter().map(protocol).collect(),
            requires_member_id: self.requires_member_id,
            can_skip_assignment: self.can_skip_assignment,
        };
        self.phase = Phase::Joining(token);
        self.wait_for_reply(world);
        world.oracle.join(token, &join, world.now);
        world.core.join(world.now, token, &join);
    }

    fn sync(&mut self, world: &mut World) {
        let token = world.token();
        let part = |id: &Arc<str>| (id.clone(), Bytes::from(format!("{id} in {} by {}", self.generation, token.0)));
        let sync = Sync {
            group_id: Arc::from(self.group_id),
            member_id: self.member_id.clone(),
            instance_id: self.instance_id.clone(),
            generation: self.generation,
            protocol_type: Some(Arc::from("consumer")),
            protocol_name: None,
            assignments: self.assignees.iter().map(part).collect(),
        };
        self.phase = Phase::Syncing(token);
        self.wait_for_reply(world);
        world.oracle.sync(token, &sync, world.now);
        world.core.sync(world.now, token, &sync);
    }

    fn live(&mut self, world: &mut World, chaos: bool) {
        // Often enough to notice a rebalance in time.
        let pause_ms = i64::from(self.session_timeout_ms.min(self.rebalance_timeout_ms)) / 3;
        self.wait(world.now, pause_ms);
        let identity = self.identity(self.generation);
        let error = if world.dice.percent(30) {
            world.oracle.commit(&mut world.core, world.now, &identity)
        } else {
            world.oracle.heartbeat(&mut world.core, world.now, &identity)
        };
        match error {
            ErrorCode::None => {}
            ErrorCode::RebalanceInProgress => return self.wait_out(world.now, 1),
            ErrorCode::FencedInstanceId => return self.is_alive = false,
            _ => return self.start_over(world.now),
        }
        if chaos && world.dice.percent(4) {
            self.news += 1;
            self.wait_out(world.now, 1);
        }
    }

    fn leave(&mut self, world: &mut World) {
        world
            .core
            .leave(world.now, self.group_id, &[(&self.member_id, self.instance_id.as_deref())])
            .expect("a group id");
        self.start_over(world.now);
        let pause_ms = world.dice.below(30_000) as i64;
        self.wait(world.now, pause_ms);
    }

    fn start_over(&mut self, now: Now) {
        self.member_id = Arc::from("");
        self.generation = -1;
        self.wait_out(now, 10);
    }

    fn wait_out(&mut self, now: Now, ms: i64) {
        self.phase = Phase::Out;
        self.wait(now, ms);
    }

    pub fn joined(&mut self, reply: JoinReply, is_lost: bool, now: Now) {
        if is_lost {
            return;
        }
        self.is_turned_away = matches!(reply.error, ErrorCode::GroupMaxSizeReached | ErrorCode::PolicyViolation);
        match reply.error {
            ErrorCode::None => {
                self.member_id = reply.member_id.clone();
                self.generation = reply.generation;
                let is_to_assign = reply.leader == reply.member_id && !reply.skip_assignment;
                self.assignees.clear();
                if is_to_assign {
                    self.assignees.extend(reply.members.iter().map(|member| member.member_id.clone()));
                }
                self.phase = Phase::Joined;
                self.wait(now, 5);
            }
            ErrorCode::MemberIdRequired => {
                self.member_id = reply.member_id;
                self.wait_out(now, 1);
            }
            ErrorCode::FencedInstanceId => self.is_alive = false,
            ErrorCode::UnknownMemberId => self.start_over(now),
            ErrorCode::RebalanceInProgress => self.wait_out(now, 10),
            // It has nothing in common with the others, or there is no room.
            _ => {
                self.start_over(now);
                self.wait(now, 20_000);
            }
        }
    }

    pub fn synced(&mut self, reply: &SyncReply, is_lost: bool, now: Now) {
        if is_lost {
            return;
        }
        match reply.error {
            ErrorCode::None => {
                self.phase = Phase::Member;
                self.wait(now, 1_000);
            }
            // The second one says that the assignment is too large; a client gives up.
            ErrorCode::FencedInstanceId | ErrorCode::UnknownServerError => self.is_alive = false,
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration => self.start_over(now),
            _ => self.wait_out(now, 10),
        }
    }

    pub fn connection_broke(&mut self, now: Now) {
        match self.phase {
            Phase::Joining(_) | Phase::Syncing(_) => self.wait_out(now, 50),
            Phase::Out | Phase::Joined | Phase::Member => {}
        }
    }

    /// From now on it behaves; one that has nothing in common with the others gives up, so that there is a right outcome.
    pub fn calm_down(&mut self) {
        if self.protocols == PROTOCOLS[3] {
            self.is_alive = false;
        }
    }
}
