//! The processes of a run, and what is done to them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::now_ms;
use crate::history::{History, Line};
use crate::kinds::{CLAIM_LEASE, EngineKind, GuardKind, name};
use crate::network::Network;
use crate::places::{CrashError, Places};
use crate::plan::{CONSUMERS, Disturbance, Kill, Pause, Round, Way};
use crate::processes::{Process, READY_WAIT, wait_until_ready};
use crate::servers::{Server, wait_until_listening};
use crate::watch::Watch;

/// Handlers that each consumer runs at once.
const CONCURRENCY: u32 = 16;
/// A producer that is told to end waits for its last sends, which have a deadline of their own.
const PRODUCER_STOP_WAIT: Duration = Duration::from_secs(90);
/// A consumer that is told to end lets its handlers finish, and leaves the group.
const CONSUMER_STOP_WAIT: Duration = Duration::from_secs(60);

/// How all processes reach what they need.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    pub engine: String,
    pub database: String,
    pub redis: Option<String>,
}

/// What carries the messages.
pub(crate) enum Broker {
    Server(Server),
    /// In a service's own process: where it listens, and the process while it lives.
    Service {
        port: u16,
        process: Option<Process>,
    },
}

/// Everybody who takes part.
pub(crate) struct Cast {
    places: Places,
    folder: PathBuf,
    guard: GuardKind,
    seed: u64,
    addresses: Addresses,
    pub broker: Broker,
    network: Network,
    consumers: [Option<Process>; CONSUMERS],
    producer: Option<Process>,
    undertaker: Option<Process>,
    history: Arc<History>,
    _watch: Watch,
    lives: u32,
    pub kills: u32,
}

impl Cast {
    pub(crate) fn new(
        places: &Places,
        folder: &Path,
        guard: GuardKind,
        seed: u64,
        addresses: Addresses,
        (broker, network): (Broker, Network),
    ) -> Result<Self, CrashError> {
        let history = Arc::new(History::create(folder, "driver")?);
        let lease_ms = u64::try_from(CLAIM_LEASE.as_millis()).unwrap_or(u64::MAX);
        history.add(&Line::Guard { name: &name(guard), lease_ms })?;
        Ok(Self {
            places: places.clone(),
            folder: folder.to_owned(),
            guard,
            seed,
            addresses,
            broker,
            network,
            consumers: [const { None }; CONSUMERS],
            producer: None,
            undertaker: None,
            _watch: Watch::start(Arc::clone(&history)),
            history,
            lives: 0,
            kills: 0,
        })
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// Creates topics and tables, and lets everybody begin.
    pub(crate) fn enter(&mut self) -> Result<(), CrashError> {
        if matches!(self.broker, Broker::Service { .. }) {
            // It makes its topics and tables itself.
            self.start_service()?;
        } else {
            let process = self.child("prepare", "prepare")?;
            process.finish(READY_WAIT)?;
        }
        self.undertaker = Some(self.child("undertaker", "undertaker")?);
        for place in 0..CONSUMERS - 1 {
            self.start_consumer(place)?;
        }
        // Where a topic has no history, what is sent before anybody consumes would reach nobody.
        self.wait_until_ready("undertaker")?;
        if let Some(first) = self.consumers[0].as_ref().map(|consumer| consumer.name().to_owned()) {
            self.wait_until_ready(&first)?;
        }
        self.start_producer()
    }

    /// A round of the plan.
    pub(crate) fn play(&mut self, round: &Round) -> Result<(), CrashError> {
        let Round { pause, peace_ms, network, resize, kill, kill_producer, engine_death_ms, death_ms } = round;
        if let Some(pause) = pause {
            self.pause(*pause)?;
        }
        std::thread::sleep(Duration::from_millis(*peace_ms));
        self.everybody_lives()?;
        if let Some(disturbance) = network {
            self.disturb(*disturbance)?;
        }
        if *resize {
            self.resize()?;
        }
        let killed = self.kill(*kill)?;
        let producer_dies = *kill_producer && self.producer.is_some();
        if let Some(producer) = self.producer.take_if(|_| producer_dies) {
            producer.kill()?;
            self.fault("producer killed", now_ms(), false)?;
        }
        // With the broker in its process, the death of all includes the service.
        let service_dies = *kill == Kill::All && matches!(self.broker, Broker::Service { .. });
        if let Some(engine_death_ms) = engine_death_ms.or(service_dies.then_some(*death_ms)) {
            self.kill_engine(Duration::from_millis(engine_death_ms))?;
        }
        std::thread::sleep(Duration::from_millis(*death_ms));
        if producer_dies {
            self.start_producer()?;
        }
        killed.into_iter().try_for_each(|place| self.start_consumer(place))
    }

    /// No more is sent; returns when the last send has ended.
    pub(crate) fn stop_producers(&mut self) -> Result<(), CrashError> {
        self.everybody_lives()?;
        if let Some(name) = self.producer.as_ref().map(|producer| producer.name().to_owned()) {
            self.wait_until_ready(&name)?;
        }
        if let Some(producer) = self.producer.take() {
            producer.stop(PRODUCER_STOP_WAIT)?;
        }
        match &self.broker {
            // Its producer ends when this is there; its broker goes on.
            Broker::Service { .. } => self.write_marker("stop-sending"),
            Broker::Server(_) => Ok(()),
        }
    }

    /// Everybody leaves in an orderly way. A service stays: the broker is in it.
    pub(crate) fn leave(&mut self) -> Result<(), CrashError> {
        self.everybody_lives()?;
        (0..CONSUMERS).try_for_each(|place| self.stop_consumer(place).map(drop))?;
        match self.undertaker.take() {
            Some(undertaker) => undertaker.stop(CONSUMER_STOP_WAIT),
            None => Ok(()),
        }
    }

    /// Fails if somebody ended whom nobody killed: a consumer that gives up is a fault, however clean it leaves the database.
    pub(crate) fn everybody_lives(&mut self) -> Result<(), CrashError> {
        let service = match &mut self.broker {
            Broker::Service { process, .. } => process.as_mut(),
            Broker::Server(_) => None,
        };
        let others = [self.producer.as_mut(), self.undertaker.as_mut(), service];
        self.consumers.iter_mut().map(Option::as_mut).chain(others).flatten().try_for_each(Process::check)
    }

    /// Notes what was done since `from_ms`, and whether it may have hidden from a handler that its effect was committed.
    fn fault(&self, what: &str, from_ms: u64, hides_commits: bool) -> Result<(), CrashError> {
        self.history.add(&Line::Fault { what, hides_commits, from_ms, to_ms: now_ms() })
    }

    /// A consumer stands still, and then goes on.
    fn pause(&mut self, pause: Pause) -> Result<(), CrashError> {
        let Some(consumer) = &self.consumers[pause.place] else { return Ok(()) };
        let from_ms = now_ms();
        consumer.pause()?;
        std::thread::sleep(Duration::from_millis(pause.lasts_ms));
        consumer.go_on()?;
        self.history.add(&Line::Paused { member: consumer.name(), from_ms, to_ms: now_ms() })?;
        self.everybody_lives()
    }

    fn kill(&mut self, kill: Kill) -> Result<Vec<usize>, CrashError> {
        let mut killed = Vec::new();
        for place in 0..CONSUMERS {
            let chosen = matches!(kill, Kill::All) || kill == Kill::One(place);
            if let Some(consumer) = self.consumers[place].take_if(|_| chosen) {
                self.note_kill(consumer.name())?;
                consumer.kill()?;
                killed.push(place);
            }
        }
        Ok(killed)
    }

    fn note_kill(&mut self, member: &str) -> Result<(), CrashError> {
        self.kills += 1;
        self.history.add(&Line::Killed { member })
    }

    /// The one in the last place leaves, or comes.
    fn resize(&mut self) -> Result<(), CrashError> {
        let from_ms = now_ms();
        if self.stop_consumer(CONSUMERS - 1)? {
            return self.fault("consumer left", from_ms, false);
        }
        self.start_consumer(CONSUMERS - 1)?;
        self.fault("consumer came", from_ms, false)
    }

    /// Says whether there was one. One that has only just been started is waited for: it knows nothing of signals yet.
    fn stop_consumer(&mut self, place: usize) -> Result<bool, CrashError> {
        let Some(name) = self.consumers[place].as_ref().map(|consumer| consumer.name().to_owned()) else {
            return Ok(false);
        };
        self.wait_until_ready(&name)?;
        if let Some(consumer) = self.consumers[place].take() {
            consumer.stop(CONSUMER_STOP_WAIT)?;
        }
        Ok(true)
    }

    fn kill_engine(&mut self, death: Duration) -> Result<(), CrashError> {
        match &mut self.broker {
            Broker::Server(server) => {
                let from_ms = now_ms();
                let how = server.fall()?;
                std::thread::sleep(death);
                server.up()?;
                self.fault(&format!("engine {how}"), from_ms, false)
            }
            Broker::Service { process, .. } => {
                let from_ms = now_ms();
                if let Some(service) = process.take() {
                    self.note_kill(service.name())?;
                    service.kill()?;
                }
                std::thread::sleep(death);
                self.start_service()?;
                self.fault("service killed with its broker", from_ms, false)
            }
        }
    }

    fn disturb(&self, disturbance: Disturbance) -> Result<(), CrashError> {
        let from_ms = now_ms();
        match self.network.disturb(disturbance) {
            Some(what) => self.fault(&what, from_ms, disturbance.way == Way::ToDatabase),
            None => Ok(()),
        }
    }

    fn start_consumer(&mut self, place: usize) -> Result<(), CrashError> {
        let name = self.name(&format!("consumer-{place}"));
        self.consumers[place] = Some(self.child("consumer", &name)?);
        Ok(())
    }

    fn start_producer(&mut self) -> Result<(), CrashError> {
        let name = self.name("producer");
        self.producer = Some(self.child("producer", &name)?);
        Ok(())
    }

    fn start_service(&mut self) -> Result<(), CrashError> {
        let name = self.name("service");
        let data = self.folder.join("service-data");
        let Broker::Service { port, .. } = self.broker else { return Ok(()) };
        let mut command = self.command("service", &name);
        command.arg("--data").arg(data).args(["--listen", &format!("127.0.0.1:{port}")]);
        let mut started = Process::start(&name, &command, &self.places, &self.folder)?;
        wait_until_listening(&mut started, port)?;
        self.broker = Broker::Service { port, process: Some(started) };
        // Topics and tables are there when it says so.
        self.wait_until_ready(&name)
    }

    /// A name that nobody had before.
    fn name(&mut self, of: &str) -> String {
        self.lives += 1;
        format!("{of}-{}", self.lives)
    }

    fn child(&self, subcommand: &str, name: &str) -> Result<Process, CrashError> {
        Process::start(name, &self.command(subcommand, name), &self.places, &self.folder)
    }

    fn command(&self, subcommand: &str, process: &str) -> Command {
        let mut command = Command::new(&self.places.program);
        command.arg(subcommand).args(["--name", process]).arg("--history").arg(&self.folder);
        command.args(["--engine", &self.addresses.engine, "--database", &self.addresses.database]);
        command.args(["--guard", &name(self.guard), "--seed", &(self.seed ^ u64::from(self.lives)).to_string()]);
        command.args(["--concurrency", &CONCURRENCY.to_string()]);
        if let Some(redis) = &self.addresses.redis {
            command.args(["--redis", redis]);
        }
        command
    }

    /// Waits until a process says that it has begun.
    fn wait_until_ready(&mut self, process: &str) -> Result<(), CrashError> {
        let folder = self.folder.clone();
        wait_until_ready(&folder, process, || self.everybody_lives())
    }

    fn write_marker(&self, name: &str) -> Result<(), CrashError> {
        std::fs::write(self.folder.join(name), "").map_err(CrashError::io(name))
    }
}

impl Broker {
    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Server(server) => server.port(),
            Self::Service { port, .. } => *port,
        }
    }
}

/// The engine's address.
pub(crate) fn address(engine: EngineKind, port: u16) -> String {
    match engine {
        // As quick to miss somebody as the others.
        EngineKind::Rabbitmq => format!("amqp://guest:guest@127.0.0.1:{port}/%2f?heartbeat=2"),
        EngineKind::Embedded | EngineKind::Service | EngineKind::Kafka => format!("kafka://127.0.0.1:{port}"),
    }
}
