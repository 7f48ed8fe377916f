//! The works: what is asked of each server, and how one run of it goes.

use std::process::Command;
use std::time::Duration;

use crate::dialects::kafka::{self, Produce};
use crate::external::{External, Shape};
use crate::figures::{Figures, Outcome, Subject, measure};
use crate::librdkafka::{self, Admin, Pipelined, Until};
use crate::profile::Recording;
use crate::server::{Kind, Server};
use crate::{Fallible, Plan, frames};

/// Bytes of each record's value.
pub const RECORD_BYTES: usize = 1024;
/// Records in each request of the spread works, and connections that send them.
const SPREAD_RECORDS: i32 = 250;
const SPREAD_CLIENTS: i32 = 4;
/// The group that counts syncs.
const SYNCS: &str = "syncs";
/// What the paced works offer.
const OFFERED_PER_SECOND: u32 = 60_000;
/// Partitions of the general warm-up.
const WARM_PARTITIONS: i32 = 6;
/// Deleted topics leave the disk at once instead of a minute later, in the middle of the next work.
const DELETE_AT_ONCE: (&str, &str) = ("file.delete.delay.ms", "1000");

/// The shape of a load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Load {
    /// Clients with a connection each, one record in flight on each.
    Waiting {
        /// How many.
        clients: usize,
        /// Client i writes to partition i modulo this.
        partitions: i32,
    },
    /// One librdkafka producer that never waits, its records spread evenly.
    Pipelined {
        /// Over so many partitions.
        partitions: i32,
        /// Most records per second; without, as fast as it can.
        rate: Option<u32>,
    },
    /// Four connections, each with one request of 250 records in flight, spread over its share of the partitions.
    Spread {
        /// All four together.
        partitions: i32,
    },
    /// One librdkafka consumer from the start, 6 partitions.
    Read,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Its name on the command line.
    pub name: &'static str,
    /// The works it is chosen with: a letter of the table, or a group.
    pub group: &'static str,
    /// What it is, for the table.
    pub title: &'static str,
    /// What is sent.
    pub load: Load,
}

const fn waiting(
    name: &'static str,
    group: &'static str,
    title: &'static str,
    clients: usize,
    partitions: i32,
) -> Work {
    Work { name, group, title, load: Load::Waiting { clients, partitions } }
}

/// Everything that is run against Kafka-speaking servers, in this order.
pub const WORKS: &[Work] = &[
    waiting("wait64", "a", "64 clients, own connections, each waiting for its acknowledgement, 1 partition", 64, 1),
    waiting("wait64x64", "b", "the same on 64 partitions", 64, 64),
    waiting("wait1", "c", "1 client waiting for each acknowledgement", 1, 1),
    Work {
        name: "pipe6",
        group: "d",
        title: "1 pipelined client (librdkafka, linger 5 ms), 6 partitions",
        load: Load::Pipelined { partitions: 6, rate: None },
    },
    Work {
        name: "pipe1000",
        group: "e",
        title: "1 pipelined client (librdkafka, linger 5 ms), 1,000 partitions",
        load: Load::Pipelined { partitions: 1000, rate: None },
    },
    Work {
        name: "pipe1",
        group: "e",
        title: "1 pipelined client (librdkafka, linger 5 ms), 1 partition",
        load: Load::Pipelined { partitions: 1, rate: None },
    },
    Work {
        name: "rate1000",
        group: "e",
        title: "1 librdkafka client that offers 60,000 records/s, linger 5 ms, 1,000 partitions",
        load: Load::Pipelined { partitions: 1000, rate: Some(OFFERED_PER_SECOND) },
    },
    Work {
        name: "rate1",
        group: "e",
        title: "1 librdkafka client that offers 60,000 records/s, linger 5 ms, 1 partition",
        load: Load::Pipelined { partitions: 1, rate: Some(OFFERED_PER_SECOND) },
    },
    Work {
        name: "spread1000",
        group: "e",
        title: "4 connections, requests of 250 records, one record to each of 1,000 partitions",
        load: Load::Spread { partitions: 1000 },
    },
    Work {
        name: "spread1",
        group: "e",
        title: "4 connections, requests of 250 records in one batch, 1 partition",
        load: Load::Spread { partitions: 1 },
    },
    Work {
        name: "read",
        group: "f",
        title: "read 1 M records from the start (librdkafka), 6 partitions",
        load: Load::Read,
    },
    waiting("syncs1", SYNCS, "syncs per record, 1 waiting client", 1, 1),
    waiting("syncs4", SYNCS, "syncs per record, 4 waiting clients", 4, 1),
    waiting("syncs16", SYNCS, "syncs per record, 16 waiting clients", 16, 1),
    waiting("syncs64", SYNCS, "syncs per record, 64 waiting clients", 64, 1),
];

/// A way to use a server: its name in the tables, and the topic settings that make it.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// The name in the tables.
    pub name: &'static str,
    /// Settings of every topic.
    pub topic_settings: &'static [(&'static str, &'static str)],
}

/// The sides of a server for a work.
pub fn sides(kind: Kind, work: &Work) -> Vec<Side> {
    let kafka = Side { name: "kafka", topic_settings: &[DELETE_AT_ONCE] };
    let kafka_sync = Side { name: "kafka-sync", topic_settings: &[("flush.messages", "1"), DELETE_AT_ONCE] };
    match kind {
        Kind::Baton => vec![Side { name: "baton", topic_settings: &[] }],
        // Reading does not depend on how it was written.
        Kind::Kafka if work.load == Load::Read => vec![kafka],
        // Without syncs there is nothing to count.
        Kind::Kafka if work.group == SYNCS => vec![kafka_sync],
        Kind::Kafka => vec![kafka, kafka_sync],
    }
}

/// Which client the waiting works use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum WaitingClient {
    /// This harness's own: one thread, pre-encoded requests, the least processor time.
    Raw,
    /// franz-go, a client library in wide use.
    FranzGo,
}

/// One started server and what is needed to put load on it.
pub struct Bench<'a> {
    server: &'a Server,
    admin: Admin,
    plan: &'a Plan,
    round: u32,
}

impl<'a> Bench<'a> {
    /// Connects to `server`.
    pub fn connect(server: &'a Server, plan: &'a Plan, round: u32) -> Fallible<Self> {
        Ok(Self { server, admin: Admin::connect(&server.address)?, plan, round })
    }

    /// A bit of every kind of load, so that a just-in-time compiler and the caches have seen it.
    pub fn warm_up(&self) -> Fallible<()> {
        self.admin.create("warm-up", WARM_PARTITIONS, &[])?;
        let address = &self.server.address;
        let mut pipelined = Pipelined::connect(address, "warm-up", WARM_PARTITIONS, &frames::noise(RECORD_BYTES))?;
        let (records, _) = pipelined.run(&Until::Elapsed(self.plan.server_warm))?;
        librdkafka::read(address, "warm-up", WARM_PARTITIONS, records, RECORD_BYTES)?;
        kafka::connect(address, waiting_requests("warm-up", 64, WARM_PARTITIONS)?)?.run(self.plan.server_warm)?;
        self.admin.delete("warm-up")
    }

    /// Every setting of the server, and of a topic of each of its sides, as the server tells them.
    pub fn settings(&self, sides: &[Side]) -> Fallible<String> {
        let mut text = String::new();
        for side in sides {
            let topic = format!("settings-{}", side.name);
            self.admin.create(&topic, 1, side.topic_settings)?;
            text.push_str(&self.admin.settings(&topic)?);
            self.admin.delete(&topic)?;
        }
        Ok(text)
    }

    /// One run of `work` on `side`, on a topic of its own. All that was acknowledged must be stored afterwards.
    pub fn run(&self, work: &Work, side: &Side) -> Fallible<Figures> {
        let topic = format!("{}-{}-{}", work.name, side.name, self.round);
        let partitions = work.load.partitions();
        self.admin.create(&topic, partitions, side.topic_settings)?;
        let (figures, acknowledged) = match work.load {
            Load::Waiting { clients, partitions } if self.plan.client == WaitingClient::FranzGo => {
                self.waiting_go(work, side, &topic, clients, partitions)?
            }
            Load::Waiting { clients, partitions } => {
                self.raw(work, side, waiting_requests(&topic, clients, partitions)?)?
            }
            Load::Spread { partitions } => self.raw(work, side, spread_requests(&topic, partitions)?)?,
            Load::Pipelined { partitions, rate } => self.pipelined(work, side, &topic, partitions, rate)?,
            Load::Read => self.read(work, side, &topic)?,
        };
        let stored = self.admin.stored(&topic, partitions)?;
        if acknowledged.is_some_and(|acknowledged| acknowledged != stored) {
            return Err(format!("{topic}: {acknowledged:?} records acknowledged, {stored} stored").into());
        }
        self.admin.delete(&topic)?;
        std::thread::sleep(self.plan.settle);
        Ok(figures)
    }

    fn measure(&self, work: &Work, side: &Side, client: impl FnOnce() -> Fallible<Outcome>) -> Fallible<Figures> {
        let syncs = || self.server.syncs();
        let subject = Subject { side: side.name, pids: &self.server.pids, data: self.server.data(), syncs: &syncs };
        measure(&subject, work.name, self.round, RECORD_BYTES, || {
            let folder = self.plan.profile.as_deref();
            let name = format!("{}-{}-{}", work.name, side.name, self.round);
            let recording = folder.map(|folder| Recording::start(&self.server.pids, folder, &name)).transpose()?;
            let outcome = client()?;
            recording.map(Recording::stop).transpose()?;
            Ok(outcome)
        })
    }

    fn raw(&self, work: &Work, side: &Side, requests: Vec<Produce>) -> Fallible<(Figures, Option<u64>)> {
        let mut clients = kafka::connect(&self.server.address, requests)?;
        let warm = clients.run(self.plan.warm)?.records;
        let figures = self.measure(work, side, || {
            let waited = clients.run(self.plan.measure)?;
            let p50_p99_us = Some(waited.p50_p99_us());
            Ok(Outcome { records: waited.records, seconds: waited.seconds, p50_p99_us })
        })?;
        let acknowledged = warm + figures.records;
        Ok((figures, Some(acknowledged)))
    }

    fn waiting_go(
        &self,
        work: &Work,
        side: &Side,
        topic: &str,
        clients: usize,
        partitions: i32,
    ) -> Fallible<(Figures, Option<u64>)> {
        let shape = Shape {
            engine: "kafka",
            address: &self.server.address,
            topic,
            clients,
            partitions,
            bytes: RECORD_BYTES,
            warm: self.plan.warm,
            measure: self.plan.measure,
        };
        let mut client = External::start(Command::new(&self.plan.go_client).args(shape.arguments()))?;
        // The other program counts its warm-up for itself, so what is stored cannot be compared here.
        Ok((self.measure(work, side, || client.run())?, None))
    }

    fn pipelined(
        &self,
        work: &Work,
        side: &Side,
        topic: &str,
        partitions: i32,
        rate: Option<u32>,
    ) -> Fallible<(Figures, Option<u64>)> {
        let mut client = Pipelined::connect(&self.server.address, topic, partitions, &frames::noise(RECORD_BYTES))?;
        let until = |duration| rate.map_or(Until::Elapsed(duration), |rate| Until::Paced(duration, rate));
        let (warm, _) = client.run(&until(self.plan.warm))?;
        let figures = self.measure(work, side, || {
            let (records, seconds) = client.run(&until(self.plan.measure))?;
            Ok(Outcome { records, seconds, p50_p99_us: None })
        })?;
        let acknowledged = warm + figures.records;
        Ok((figures, Some(acknowledged)))
    }

    fn read(&self, work: &Work, side: &Side, topic: &str) -> Fallible<(Figures, Option<u64>)> {
        let (address, partitions) = (&self.server.address, work.load.partitions());
        let mut writer = Pipelined::connect(address, topic, partitions, &frames::noise(RECORD_BYTES))?;
        let (written, _) = writer.run(&Until::Records(self.plan.read_records))?;
        drop(writer);
        let figures = self.measure(work, side, || {
            let seconds = librdkafka::read(address, topic, partitions, written, RECORD_BYTES)?;
            Ok(Outcome { records: written, seconds, p50_p99_us: None })
        })?;
        Ok((figures, Some(written)))
    }
}

impl Load {
    fn partitions(self) -> i32 {
        match self {
            Self::Waiting { partitions, .. } | Self::Pipelined { partitions, .. } | Self::Spread { partitions } => {
                partitions
            }
            Self::Read => 6,
        }
    }
}

/// One record each; client i to partition i modulo `partitions`.
pub fn waiting_requests(topic: &str, clients: usize, partitions: i32) -> Fallible<Vec<Produce>> {
    let batch = frames::batch(1, &frames::noise(RECORD_BYTES))?;
    (0..i32::try_from(clients)?).map(|client| Produce::to_one(topic, client % partitions, &batch)).collect()
}

fn spread_requests(topic: &str, partitions: i32) -> Fallible<Vec<Produce>> {
    let value = frames::noise(RECORD_BYTES);
    let all = frames::batch(usize::try_from(SPREAD_RECORDS)?, &value)?;
    let one = frames::batch(1, &value)?;
    let records = u64::try_from(SPREAD_RECORDS)?;
    (0..SPREAD_CLIENTS)
        .map(|client| {
            if partitions == 1 {
                return Produce::to_many(topic, &[0], &all, records);
            }
            let own: Vec<i32> =
                (0..SPREAD_RECORDS).map(|index| (client * SPREAD_RECORDS + index) % partitions).collect();
            Produce::to_many(topic, &own, &one, records)
        })
        .collect()
}

/// Durations for the plan: `(warm, measure, server warm, settle, records to read)`.
pub fn durations(quick: bool) -> (Duration, Duration, Duration, Duration, u64) {
    let milliseconds = Duration::from_millis;
    if quick {
        (milliseconds(500), milliseconds(1500), milliseconds(1000), milliseconds(500), 200_000)
    } else {
        (milliseconds(1500), milliseconds(5000), milliseconds(4000), milliseconds(1500), 1_000_000)
    }
}
