//! Durable publishing by 64 waiting clients: RabbitMQ, NATS, RocketMQ and Baton, each with the harness's own client and with
//! a client library of its own.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::dialects::{amqp, kafka, nats, rocketmq};
use crate::external::{External, Shape};
use crate::figures::{Figures, Outcome, Subject, measure};
use crate::librdkafka::Admin;
use crate::server::{Kind, Places, Server};
use crate::waiting::Clients;
use crate::works::{RECORD_BYTES, waiting_requests};
use crate::{Fallible, Plan};

/// The name of this work.
pub const WORK: &str = "peers";
/// Waiting clients.
const CLIENTS: usize = 64;

/// One way to publish durably.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The side's name.
    pub side: &'static str,
    /// What `bench-engines` calls the server.
    pub engine: &'static str,
    client: Client,
}

#[derive(Clone, Copy, Debug)]
enum Client {
    /// The harness's own loop, which takes the least processor time.
    Raw,
    /// The engine's usual Go library, used in the way that this names.
    Go(&'static str),
    /// RocketMQ's Java library.
    Java,
}

/// Rivals, each with the harness's own client and with a library of its own.
pub const PEERS: &[Peer] = &[
    Peer { side: "rabbitmq", engine: "rabbitmq", client: Client::Raw },
    Peer { side: "rabbitmq, amqp091-go", engine: "rabbitmq", client: Client::Go("rabbitmq") },
    Peer { side: "rabbitmq, one connection", engine: "rabbitmq", client: Client::Go("rabbitmq-channels") },
    Peer { side: "nats", engine: "nats", client: Client::Raw },
    Peer { side: "nats, nats.go", engine: "nats", client: Client::Go("nats") },
    Peer { side: "rocketmq", engine: "rocketmq", client: Client::Raw },
    Peer { side: "rocketmq, Java", engine: "rocketmq", client: Client::Java },
];
/// Baton with the harness's own client.
pub const BATON: &str = "baton";
/// Baton with a library in wide use.
pub const BATON_GO: &str = "baton, franz-go";

/// A rival's server that is up; stopped when dropped.
struct Engine {
    name: &'static str,
    places: Places,
    /// Where library clients connect.
    address: String,
    /// Where messages go, when that is another place.
    broker: Option<String>,
    pids: Vec<u32>,
    data: PathBuf,
}

impl Engine {
    fn start(name: &'static str, places: &Places) -> Fallible<Self> {
        let mut engine = Self {
            name,
            places: places.clone(),
            address: String::new(),
            broker: None,
            pids: Vec::new(),
            data: places.scratch.join(name),
        };
        let output = engine.script("up").stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("scripts/bench-engines up {name} failed (see above)").into());
        }
        for line in String::from_utf8(output.stdout)?.lines() {
            match line.split_once('=') {
                Some(("address", value)) => engine.address = value.to_owned(),
                Some(("broker", value)) => engine.broker = Some(value.to_owned()),
                Some(("pids", value)) => {
                    engine.pids = value.split(' ').map(str::parse).collect::<Result<_, _>>()?;
                }
                _ => {}
            }
        }
        if engine.address.is_empty() || engine.pids.is_empty() {
            return Err(format!("scripts/bench-engines up {name} named no address or process").into());
        }
        Ok(engine)
    }

    /// The harness's own waiting clients for this engine.
    fn raw_clients(&self) -> Fallible<Clients> {
        let broker = self.broker.as_ref().unwrap_or(&self.address);
        match self.name {
            "rabbitmq" => amqp::connect(broker, WORK, CLIENTS, RECORD_BYTES),
            "nats" => nats::connect(broker, WORK, CLIENTS, RECORD_BYTES),
            "rocketmq" => rocketmq::connect(broker, WORK, CLIENTS, RECORD_BYTES),
            other => Err(format!("no client speaks with {other}").into()),
        }
    }

    fn script(&self, verb: &str) -> Command {
        let mut command = Command::new(self.places.scripts.join("bench-engines"));
        command.args([verb, self.name]).env("BENCH_DATA", &self.data).stdin(Stdio::null());
        command.env("BENCH_PORT", (self.places.port + 20).to_string());
        command
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let stopped = self.script("down").stdout(Stdio::null()).status();
        if !stopped.is_ok_and(|status| status.success()) {
            crate::warn(&format!("scripts/bench-engines down {} failed", self.name));
        }
    }
}

/// One run of one rival.
pub fn run_peer(peer: &Peer, plan: &Plan, round: u32) -> Fallible<Figures> {
    let engine = Engine::start(peer.engine, &plan.places)?;
    let subject = Subject { side: peer.side, pids: &engine.pids, data: &engine.data, syncs: &|| None };
    let (mut command, name) = match peer.client {
        Client::Raw => {
            let mut clients = engine.raw_clients()?;
            return measure_raw(&subject, &mut clients, plan, round);
        }
        Client::Go(way) => (Command::new(&plan.go_client), way),
        Client::Java => {
            let mut command = Command::new(plan.places.scripts.join("bench-engines"));
            command.arg("rocketmq-client");
            (command, "rocketmq")
        }
    };
    command.args(shape(name, &engine.address, WORK, plan).arguments());
    let mut client = External::start(&mut command)?;
    measure(&subject, WORK, round, RECORD_BYTES, || client.run())
}

/// Warms up as long as the library clients do, then measures.
fn measure_raw(subject: &Subject<'_>, clients: &mut Clients, plan: &Plan, round: u32) -> Fallible<Figures> {
    clients.run(plan.warm + plan.server_warm)?;
    measure(subject, WORK, round, RECORD_BYTES, || {
        let waited = clients.run(plan.measure)?;
        let p50_p99_us = Some(waited.p50_p99_us());
        Ok(Outcome { records: waited.records, seconds: waited.seconds, p50_p99_us })
    })
}

/// One run of Baton with each of its two clients, on a server of its own like the rivals.
pub fn run_baton(plan: &Plan, round: u32) -> Fallible<Vec<Figures>> {
    let mut all = Vec::new();
    for side in [BATON, BATON_GO] {
        let server = Server::start(Kind::Baton, &plan.places)?;
        let syncs = || server.syncs();
        let subject = Subject { side, pids: &server.pids, data: server.data(), syncs: &syncs };
        Admin::connect(&server.address)?.create(WORK, 1, &[])?;
        if side == BATON {
            let mut clients = kafka::connect(&server.address, waiting_requests(WORK, CLIENTS, 1)?)?;
            all.push(measure_raw(&subject, &mut clients, plan, round)?);
        } else {
            let shape = shape("kafka", &server.address, WORK, plan);
            let mut client = External::start(Command::new(&plan.go_client).args(shape.arguments()))?;
            all.push(measure(&subject, WORK, round, RECORD_BYTES, || client.run())?);
        }
        server.stop()?;
    }
    Ok(all)
}

fn shape<'a>(engine: &'a str, address: &'a str, topic: &'a str, plan: &Plan) -> Shape<'a> {
    Shape {
        engine,
        address,
        topic,
        clients: CLIENTS,
        partitions: 1,
        bytes: RECORD_BYTES,
        // A fresh server is warmed by this client alone.
        warm: plan.warm + plan.server_warm,
        measure: plan.measure,
    }
}
