//! The service over a real log on a simulated disk, committed step by step or by the pump, with time that waits for nobody.

mod durability;
mod offsets;
mod power_loss;
mod waiting;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;

use baton_log::{LogOptions, NoObserver};
use baton_testkit::{SimClock, SimDisk};

use super::*;
use crate::groups::core::Protocol;

const GROUP: &str = "billing";
const START_WALL_MS: i64 = 1_700_000_000_000;

pub(super) struct Node {
    pub disk: SimDisk,
    pub log: Log,
    pub clock: Arc<SimClock>,
    pub groups: GroupService,
}

fn options() -> GroupOptions {
    let core = CoreOptions { initial_rebalance_delay_ms: 100, ..CoreOptions::default() };
    GroupOptions { core, ..GroupOptions::default() }
}

fn log_options() -> LogOptions {
    LogOptions { free_bytes_min: 0, reserve_step_bytes: 64 << 10, ..LogOptions::default() }
}

impl Node {
    pub fn new() -> Self {
        Self::on(SimDisk::new(7), START_WALL_MS, options(), log_options())
    }

    pub fn on(disk: SimDisk, wall_ms: i64, options: GroupOptions, log_options: LogOptions) -> Self {
        let clock = Arc::new(SimClock::new(wall_ms));
        let opened = Log::open(Arc::new(disk.clone()), clock.clone(), log_options, Arc::new(NoObserver));
        let (log, _) = opened.expect("the log opens");
        let groups =
            GroupService::open(log.clone(), clock.clone(), options, Handle::current()).expect("groups are readable");
        Self { disk, log, clock, groups }
    }

    /// The machine loses power and starts again; time goes on.
    pub fn after_power_loss(self) -> Self {
        let wall_ms = self.clock.now_ms();
        Self::on(self.disk.lose_power(), wall_ms + 1, options(), log_options())
    }

    /// The process dies, the machine goes on.
    pub fn after_kill(self) -> Self {
        let wall_ms = self.clock.now_ms();
        Self::on(self.disk.kill(), wall_ms + 1, options(), log_options())
    }

    pub async fn with_topic(self, name: &str, partitions: u32) -> Self {
        self.create_topic(name, partitions).await;
        self
    }

    pub async fn create_topic(&self, name: &str, partitions: u32) {
        let id = *uuid::Uuid::new_v4().as_bytes();
        self.log.create_topic(name, id, partitions, BTreeMap::new()).expect("room");
        while self.log.commit_once() {}
    }

    /// Waits for an answer while the log commits whatever comes.
    pub async fn pump<T>(&self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                () = tokio::time::sleep(Duration::from_millis(1)) => while self.log.commit_once() {},
            }
        }
    }

    /// Lets other tasks do what they can without time passing.
    pub async fn let_others_work(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// Lets time pass on both clocks; the log commits whatever comes.
    pub async fn pass(&self, time: Duration) {
        // Whoever has just begun to wait does so from now on.
        self.let_others_work().await;
        self.clock.advance(time.as_millis() as i64);
        tokio::time::advance(time).await;
        for _ in 0..3 {
            self.let_others_work().await;
            while self.log.commit_once() {}
        }
    }

    pub async fn commit(&self, identity: Identity<'_>, offset: CommitOffset<'_>) -> Result<ErrorCode, ErrorCode> {
        self.pump(self.groups.commit(&identity, 9, None, &[offset])).await.map(|answers| answers[0])
    }

    pub fn offset(&self, topic: &'static str, partition: i32, offset: i64) -> CommitOffset<'static> {
        let topic_id = self.log.catalog().topic(topic).map_or([0; 16], |topic| topic.id);
        CommitOffset { topic, topic_id, partition, offset, leader_epoch: 3, metadata: Some("note") }
    }

    pub fn fetched(&self, group_id: &str, topic: &str, partition: i32) -> Option<i64> {
        self.groups.fetch(group_id, topic, std::iter::once(partition))[0].as_ref().map(|found| found.offset)
    }

    /// A member, alone in a stable group that reads `topics`; its id and generation.
    pub async fn member(&self, topics: &[&str]) -> (Arc<str>, i32) {
        let joined = self.pump(self.groups.join(&join(topics))).await;
        assert_eq!(joined.error, ErrorCode::None);
        let synced = self.pump(self.groups.sync(&sync(&joined))).await;
        assert_eq!((synced.error, &synced.assignment[..]), (ErrorCode::None, &b"all of it"[..]));
        (joined.member_id, joined.generation)
    }
}

fn simple(group_id: &str) -> Identity<'_> {
    Identity { group_id, member_id: "", instance_id: None, generation: -1 }
}

fn join(topics: &[&str]) -> Join {
    let mut metadata = vec![0, 0];
    metadata.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        metadata.extend((topic.len() as i16).to_be_bytes());
        metadata.extend(topic.as_bytes());
    }
    Join {
        group_id: GROUP.into(),
        member_id: "".into(),
        fresh_member_id: format!("member-{}", uuid::Uuid::new_v4()).into(),
        instance_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol { name: "range".into(), metadata: metadata.into() }],
        requires_member_id: false,
        can_skip_assignment: true,
    }
}

fn sync(joined: &JoinReply) -> Sync {
    Sync {
        group_id: GROUP.into(),
        member_id: joined.member_id.clone(),
        instance_id: None,
        generation: joined.generation,
        protocol_type: None,
        protocol_name: None,
        assignments: vec![(joined.member_id.clone(), Bytes::from_static(b"all of it"))],
    }
}
