//! The rules of the classic group protocol, one by one.

mod joining;
mod limits;
mod rebalancing;
mod restart;
mod static_members;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;

const GROUP: &str = "orders";
const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 60_000;
const INITIAL_DELAY_MS: i32 = 3_000;

/// A core, a clock, and the answers that came.
pub(super) struct Bench {
    pub core: Core,
    pub now: Now,
    tokens: u64,
    ids: u64,
    pub joined: BTreeMap<Token, JoinReply>,
    pub synced: BTreeMap<Token, SyncReply>,
    /// Writes not answered yet, when they are held back.
    pub stores: Vec<(StoreId, Arc<str>, Bytes)>,
    pub hold_stores: bool,
}

pub(super) fn options() -> CoreOptions {
    CoreOptions { initial_rebalance_delay_ms: INITIAL_DELAY_MS, ..CoreOptions::default() }
}

fn text(value: &str) -> Arc<str> {
    Arc::from(value)
}

/// A consumer's subscription to these topics.
fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 1];
    bytes.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        bytes.extend((topic.len() as i16).to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.into()
}

fn protocols(names: &[&str]) -> Vec<Protocol> {
    names.iter().map(|name| Protocol { name: text(name), metadata: subscription(&["orders"]) }).collect()
}

impl Bench {
    pub fn new(options: CoreOptions) -> Self {
        Self {
            core: Core::new(options),
            now: Now { timer_ms: 0, wall_ms: 1_700_000_000_000 },
            tokens: 0,
            ids: 0,
            joined: BTreeMap::new(),
            synced: BTreeMap::new(),
            stores: Vec::new(),
            hold_stores: false,
        }
    }

    pub fn request(&mut self) -> Join {
        self.ids += 1;
        Join {
            group_id: text(GROUP),
            member_id: text(""),
            fresh_member_id: format!("client-{}", self.ids).into(),
            instance_id: None,
            client_id: text("client"),
            client_host: text("/127.0.0.1"),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            protocol_type: text("consumer"),
            protocols: protocols(&["range"]),
            requires_member_id: false,
            can_skip_assignment: true,
        }
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    pub fn settle(&mut self) {
        loop {
            let effects = self.core.take_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                match effect {
                    Effect::Joined(token, reply) => {
                        assert!(self.joined.insert(token, reply).is_none(), "answered twice")
                    }
                    Effect::Synced(token, reply) => {
                        assert!(self.synced.insert(token, reply).is_none(), "answered twice")
                    }
                    Effect::Store { id, group_id, value } if self.hold_stores => {
                        self.stores.push((id, group_id, value))
                    }
                    Effect::Store { id, group_id, .. } => self.core.stored(self.now, &group_id, id, ErrorCode::None),
                }
            }
        }
    }

    pub fn finish_store(&mut self, error: ErrorCode) {
        let (id, group_id, _) = self.stores.remove(0);
        self.core.stored(self.now, &group_id, id, error);
        self.settle();
    }

    pub fn join(&mut self, join: &Join) -> Token {
        let token = self.token();
        self.core.join(self.now, token, join);
        self.settle();
        token
    }

    pub fn sync(&mut self, sync: &Sync) -> Token {
        let token = self.token();
        self.core.sync(self.now, token, sync);
        self.settle();
        token
    }

    /// Lets time pass, doing what is due exactly when it is.
    pub fn pass(&mut self, ms: i64) {
        let end_ms = self.now.timer_ms + ms;
        while let Some(due_ms) = self.core.next_deadline_ms().filter(|due_ms| *due_ms <= end_ms) {
            let step_ms = due_ms.max(self.now.timer_ms) - self.now.timer_ms;
            self.now = Now { timer_ms: self.now.timer_ms + step_ms, wall_ms: self.now.wall_ms + step_ms };
            self.core.tick(self.now);
            self.settle();
        }
        let step_ms = end_ms - self.now.timer_ms;
        self.now = Now { timer_ms: end_ms, wall_ms: self.now.wall_ms + step_ms };
    }

    /// Lets time pass from deadline to deadline until the join is answered.
    pub fn pass_until_joined(&mut self, token: Token) {
        while !self.joined.contains_key(&token) {
            let due_ms = self.core.next_deadline_ms().expect("what waits has a deadline");
            self.pass(due_ms - self.now.timer_ms);
        }
    }

    pub fn joined(&self, token: Token) -> &JoinReply {
        self.joined.get(&token).expect("the join was answered")
    }

    pub fn synced(&self, token: Token) -> &SyncReply {
        self.synced.get(&token).expect("the sync was answered")
    }

    pub fn state(&self) -> GroupState {
        self.core.describe(GROUP).map_or(GroupState::Dead, |group| group.state)
    }

    pub fn identity<'a>(&self, member_id: &'a str, generation: i32) -> Identity<'a> {
        Identity { group_id: GROUP, member_id, instance_id: None, generation }
    }

    pub fn heartbeat(&mut self, member_id: &str, generation: i32) -> ErrorCode {
        let error = self.core.heartbeat(self.now, &self.identity(member_id, generation));
        self.settle();
        error
    }

    pub fn leave(&mut self, member_id: &str, instance_id: Option<&str>) -> ErrorCode {
        let errors = self.core.leave(self.now, GROUP, &[(member_id, instance_id)]).expect("a group id");
        self.settle();
        errors[0]
    }

    pub fn sync_request(&self, member_id: &str, generation: i32, assignments: &[(&str, &str)]) -> Sync {
        Sync {
            group_id: text(GROUP),
            member_id: text(member_id),
            instance_id: None,
            generation,
            protocol_type: None,
            protocol_name: None,
            assignments: assignments
                .iter()
                .map(|(id, part)| (text(id), Bytes::copy_from_slice(part.as_bytes())))
                .collect(),
        }
    }

    /// A stable group of these many dynamic members; the first one leads. Answers their ids and the generation.
    pub fn stable(&mut self, count: usize) -> (Vec<Arc<str>>, i32) {
        let joins: Vec<Join> = (0..count).map(|_| self.request()).collect();
        self.stable_of(&joins)
    }

    pub fn stable_of(&mut self, joins: &[Join]) -> (Vec<Arc<str>>, i32) {
        let tokens: Vec<Token> = joins.iter().map(|join| self.join(join)).collect();
        self.pass_until_joined(tokens[0]);
        let ids: Vec<_> = tokens.iter().map(|token| self.joined(*token).member_id.clone()).collect();
        let generation = self.joined(tokens[0]).generation;
        let leader = self.joined(tokens[0]).leader.clone();
        self.sync_all(&ids, &leader, generation);
        assert_eq!(self.state(), GroupState::Stable);
        (ids, generation)
    }

    /// Every member syncs; the leader assigns to each its own id.
    pub fn sync_all(&mut self, ids: &[Arc<str>], leader: &str, generation: i32) -> Vec<Token> {
        let parts: Vec<(&str, &str)> = ids.iter().map(|id| (&**id, &**id)).collect();
        let mut tokens = Vec::new();
        for id in ids {
            let assignments: &[_] = if **id == *leader { &parts } else { &[] };
            let mut request = self.sync_request(id, generation, assignments);
            request.instance_id = self.instance_of(id);
            tokens.push(self.sync(&request));
        }
        tokens
    }

    fn instance_of(&self, member_id: &str) -> Option<Arc<str>> {
        let group = self.core.describe(GROUP)?;
        group.members.into_iter().find(|member| *member.member_id == *member_id)?.instance_id
    }
}
