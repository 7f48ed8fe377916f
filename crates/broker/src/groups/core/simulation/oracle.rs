//! What must hold whatever happens, told from the requests and replies alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::groups::core::join::NEW_MEMBER_JOIN_TIMEOUT_MS;
use crate::groups::core::*;

/// Who someone is: a static member stays the same under a new id.
type Who = Arc<str>;

/// What is known of one generation of one group.
#[derive(Debug, Default)]
struct Generation {
    leader: Option<Who>,
    /// Whether the leader has been told that it leads.
    is_led: bool,
    /// Who has joined it.
    members: BTreeSet<Who>,
    protocol: Option<Arc<str>>,
    /// What leaders sent, one for each sync.
    sent: Vec<BTreeMap<Who, Bytes>>,
    /// Which of them was handed out.
    given: Option<usize>,
}

#[derive(Debug)]
struct Waiting {
    group_id: Arc<str>,
    member_id: Arc<str>,
    generation: i32,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    seen_ms: i64,
    session_timeout_ms: i32,
}

#[derive(Debug, Default)]
pub(super) struct Oracle {
    joins: BTreeMap<Token, (Waiting, i32)>,
    syncs: BTreeMap<Token, Waiting>,
    answered: BTreeSet<Token>,
    generations: BTreeMap<Arc<str>, BTreeMap<i32, Generation>>,
    /// The newest generation seen of each group.
    newest: BTreeMap<Arc<str>, i32>,
    /// The generation with which each group's sessions were last started.
    renewed: BTreeMap<Arc<str>, i32>,
    instances: BTreeMap<Arc<str>, Who>,
    lives: BTreeMap<Arc<str>, Life>,
}

impl Oracle {
    pub fn someone_waits(&self) -> bool {
        !self.joins.is_empty() || !self.syncs.is_empty()
    }

    fn who(&self, member_id: &Arc<str>) -> Who {
        self.instances.get(member_id).unwrap_or(member_id).clone()
    }

    fn generation(&mut self, group_id: &Arc<str>, generation: i32) -> &mut Generation {
        self.generations.entry(group_id.clone()).or_default().entry(generation).or_default()
    }

    fn sign_of_life(&mut self, member_id: &str, session_timeout_ms: Option<i32>, now: Now) {
        if let Some(session_timeout_ms) = session_timeout_ms {
            self.lives.insert(Arc::from(member_id), Life { seen_ms: now.timer_ms, session_timeout_ms });
        } else if let Some(life) = self.lives.get_mut(member_id) {
            life.seen_ms = now.timer_ms;
        }
    }

    pub fn join(&mut self, token: Token, join: &Join, now: Now) {
        if let Some(instance_id) = &join.instance_id {
            self.instances.insert(join.fresh_member_id.clone(), instance_id.clone());
        }
        let id = if join.member_id.is_empty() { &join.fresh_member_id } else { &join.member_id };
        // The time a new member has for its join is longer than its session.
        let limit_ms = join.session_timeout_ms.max(NEW_MEMBER_JOIN_TIMEOUT_MS as i32);
        self.sign_of_life(id, Some(if join.member_id.is_empty() { limit_ms } else { join.session_timeout_ms }), now);
        let waiting = Waiting { group_id: join.group_id.clone(), member_id: id.clone(), generation: -1 };
        self.joins.insert(token, (waiting, join.session_timeout_ms));
    }

    pub fn joined(&mut self, token: Token, reply: &JoinReply, now: Now) {
        let (waiting, session_timeout_ms) =
            self.joins.remove(&token).expect("a reply nobody asked for, or a second one");
        assert!(self.answered.insert(token));
        if reply.error != ErrorCode::None {
            assert!(reply.members.is_empty());
            return;
        }
        assert_eq!(reply.member_id, waiting.member_id, "someone else's reply");
        self.sign_of_life(&reply.member_id, Some(session_timeout_ms), now);
        let newest = self.newest.entry(waiting.group_id.clone()).or_default();
        assert!(reply.generation >= *newest, "generation {} after {newest}", reply.generation);
        *newest = reply.generation;
        let leader = self.who(&reply.leader);
        let is_leader = reply.leader == reply.member_id;
        assert!(is_leader || reply.members.is_empty(), "a follower sees no members");
        assert!(!is_leader || reply.members.iter().any(|member| member.member_id == reply.member_id));
        let who = self.who(&reply.member_id);
        let generation = self.generation(&waiting.group_id, reply.generation);
        generation.members.insert(who);
        generation.is_led |= is_leader;
        let known = generation.leader.get_or_insert_with(|| leader.clone());
        assert_eq!(*known, leader, "two leaders of generation {}", reply.generation);
        let protocol = reply.protocol_name.clone().expect("a protocol");
        let known = generation.protocol.get_or_insert_with(|| protocol.clone());
        assert_eq!(*known, protocol, "two protocols in generation {}", reply.generation);
    }

    pub fn sync(&mut self, token: Token, sync: &Sync, _now: Now) {
        let waiting =
            Waiting { group_id: sync.group_id.clone(), member_id: sync.member_id.clone(), generation: sync.generation };
        self.syncs.insert(token, waiting);
        if !sync.assignments.is_empty() {
            let parts = sync.assignments.iter().map(|(id, part)| (self.who(id), part.clone())).collect();
            self.generation(&sync.group_id, sync.generation).sent.push(parts);
        }
    }

    pub fn synced(&mut self, token: Token, reply: &SyncReply, now: Now) {
        let waiting = self.syncs.remove(&token).expect("a reply nobody asked for, or a second one");
        assert!(self.answered.insert(token));
        // Whoever gets a reply has a session from then on to answer with its next request.
        self.sign_of_life(&waiting.member_id, None, now);
        if reply.error != ErrorCode::None {
            assert!(reply.assignment.is_empty());
            return;
        }
        let who = self.who(&waiting.member_id);
        let generation = self.generation(&waiting.group_id, waiting.generation);
        assert!(reply.protocol_name.is_some() && reply.protocol_name == generation.protocol);
        if reply.assignment.is_empty() {
            // Left out by the leader; nothing that was sent for it may be lost, though.
            let kept = |parts: &BTreeMap<Who, Bytes>| parts.contains_key(&who);
            assert!(!generation.given.is_some_and(|at| kept(&generation.sent[at])), "{who} was given nothing");
            return;
        }
        let sent = generation.sent.iter().position(|parts| parts.get(&who) == Some(&reply.assignment));
        let sent = sent.unwrap_or_else(|| panic!("no leader sent {:?} to {who}", reply.assignment));
        assert_eq!(*generation.given.get_or_insert(sent), sent, "parts of two assignments");
    }

    pub fn heartbeat(&mut self, core: &mut Core, now: Now, identity: &Identity<'_>) -> ErrorCode {
        let before = core.describe(identity.group_id);
        let is_member = Self::is_current(before.as_ref(), identity);
        let error = core.heartbeat(now, identity);
        let is_alive = matches!(error, ErrorCode::None | ErrorCode::RebalanceInProgress);
        assert_eq!(is_alive, is_member, "heartbeat of {identity:?}: {error:?} with {before:?}");
        let is_preparing = before.is_some_and(|group| group.state == GroupState::PreparingRebalance);
        assert_eq!(error == ErrorCode::RebalanceInProgress, is_member && is_preparing);
        if is_alive {
            self.sign_of_life(identity.member_id, None, now);
        }
        error
    }

    /// No commit of someone who has no say (any more) may get through, and no other may be refused.
    pub fn commit(&mut self, core: &mut Core, now: Now, identity: &Identity<'_>) -> ErrorCode {
        let before = core.describe(identity.group_id);
        let state = before.as_ref().map_or(GroupState::Dead, |group| group.state);
        let is_simple = identity.generation < 0 && matches!(state, GroupState::Empty | GroupState::Dead);
        let is_member = Self::is_current(before.as_ref(), identity);
        let error = core.check_commit(now, identity, 9).err().unwrap_or(ErrorCode::None);
        let may = is_simple || (is_member && state != GroupState::CompletingRebalance);
        let has_no_room = state == GroupState::Dead && error == ErrorCode::PolicyViolation;
        assert_eq!(error == ErrorCode::None || has_no_room, may, "commit of {identity:?}: {error:?} with {before:?}");
        if error == ErrorCode::None {
            self.sign_of_life(identity.member_id, None, now);
        }
        error
    }

    fn is_current(group: Option<&GroupDescription>, identity: &Identity<'_>) -> bool {
        group.is_some_and(|group| {
            let is_it = |member: &MemberDescription| {
                *member.member_id == *identity.member_id && member.instance_id.as_deref() == identity.instance_id
            };
            group.generation == identity.generation && group.members.iter().any(is_it)
        })
    }

    /// No member is kept that has been silent for longer than its session, unless it waits for a reply.
    pub fn check_members(&mut self, core: &Core, now: Now, slack_ms: i64) {
        let waiting: BTreeSet<Arc<str>> = self
            .joins
            .values()
            .map(|(waiting, _)| waiting)
            .chain(self.syncs.values())
            .map(|waiting| waiting.member_id.clone())
            .collect();
        for listing in core.list() {
            let group = core.describe(&listing.group_id).expect("it is listed");
            let newest = self.newest.entry(listing.group_id.clone()).or_default();
            assert!(group.generation >= *newest, "the generation of {} went back", listing.group_id);
            *newest = group.generation;
            if self.renewed.insert(listing.group_id.clone(), group.generation) != Some(group.generation) {
                // A new generation starts everyone's session anew, that of late static members too.
                for member in &group.members {
                    self.sign_of_life(&member.member_id, None, now);
                }
            }
            self.check_generation(&listing.group_id, &group);
            for member in group.members.iter().filter(|member| !waiting.contains(&member.member_id)) {
                let life = self.lives.get(&member.member_id).expect("it joined");
                let silent_ms = now.timer_ms - life.seen_ms;
                let limit_ms = i64::from(life.session_timeout_ms) + slack_ms;
                assert!(silent_ms <= limit_ms, "{} is silent for {silent_ms} ms", member.member_id);
            }
        }
    }

    /// A generation has a leader that knows it, and no dynamic members that did not join it.
    fn check_generation(&mut self, group_id: &Arc<str>, group: &GroupDescription) {
        if !matches!(group.state, GroupState::CompletingRebalance | GroupState::Stable) {
            return;
        }
        let generation = self.generation(group_id, group.generation);
        assert!(generation.is_led, "nobody leads generation {} of {group_id}", group.generation);
        let stray = group
            .members
            .iter()
            .find(|member| member.instance_id.is_none() && !generation.members.contains(&member.member_id));
        assert!(stray.is_none(), "{stray:?} did not join generation {} of {group_id}", group.generation);
    }

    pub fn restarted(&mut self, group_id: &Arc<str>, stored: &StoredGroup, now: Now) {
        self.newest.insert(group_id.clone(), stored.generation);
        // What was not durable has not happened: these numbers will be given again.
        self.generations.entry(group_id.clone()).or_default().retain(|generation, _| *generation <= stored.generation);
        for member in &stored.members {
            self.sign_of_life(&member.id, Some(member.session_timeout_ms), now);
        }
    }

    pub fn connections_broke(&mut self, is_durable: impl Fn(&str) -> bool) {
        self.joins.clear();
        self.syncs.clear();
        self.newest.retain(|group_id, _| is_durable(group_id));
        self.generations.retain(|group_id, _| is_durable(group_id));
    }
}
