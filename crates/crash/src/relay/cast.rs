//! The processes and servers of a run with relays, and what is done to them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::plan::{Deed, Round};
use crate::clock::now_ms;
use crate::history::{History, Line};
use crate::places::{CrashError, Places};
use crate::processes::{Process, READY_WAIT, wait_until, wait_until_ready};
use crate::servers::Server;
use crate::watch::Watch;

/// How many relays share the outbox, and how many services write to it.
pub(super) const RELAYS: usize = 2;
pub(super) const SERVICES: usize = 3;
/// How long a relay that died is waited for: shorter than by default, so that each death is one that others take over from.
const LEASE: &str = "1s";
/// How long after a relay stands still its successor is killed: then it has taken over.
const TAKEN_OVER: Duration = Duration::from_millis(1_250);
/// What a relay says when it runs.
const RUNS: &str = "goes to";
/// A service that is told to end finishes its transactions.
const SERVICE_STOP_WAIT: Duration = Duration::from_secs(90);
/// A relay that is told to end has nothing to do any more.
const RELAY_STOP_WAIT: Duration = Duration::from_secs(60);

/// How all processes reach what they need.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    pub(super) engine: String,
    pub(super) database: String,
}

/// Everybody who takes part.
pub(super) struct Cast {
    places: Places,
    folder: PathBuf,
    seed: u64,
    addresses: Addresses,
    engine: Server,
    database: Option<Server>,
    relays: [Option<Process>; RELAYS],
    services: [Option<Process>; SERVICES],
    history: Arc<History>,
    _watch: Watch,
    lives: u32,
    pub(super) kills: u32,
}

impl Cast {
    pub(super) fn new(
        places: &Places,
        folder: &Path,
        seed: u64,
        addresses: Addresses,
        engine: Server,
        database: Option<Server>,
    ) -> Result<Self, CrashError> {
        let history = Arc::new(History::create(folder, "driver")?);
        Ok(Self {
            places: places.clone(),
            folder: folder.to_owned(),
            seed,
            addresses,
            engine,
            database,
            relays: [const { None }; RELAYS],
            services: [const { None }; SERVICES],
            _watch: Watch::start(Arc::clone(&history)),
            history,
            lives: 0,
            kills: 0,
        })
    }

    /// Creates topic and tables, and lets everybody begin.
    pub(super) fn enter(&mut self) -> Result<(), CrashError> {
        self.outbox(&["init", "--name", "crash"])?;
        self.child("prepare", "prepare")?.finish(READY_WAIT)?;
        self.start_all()
    }

    /// A round of the plan.
    pub(super) fn play(&mut self, round: &Round) -> Result<(), CrashError> {
        std::thread::sleep(Duration::from_millis(round.peace_ms));
        self.everybody_lives()?;
        if matches!(round.deed, Deed::Database | Deed::Engine) {
            self.wait_until_relays_run()?;
        }
        let (from_ms, lasts) = (now_ms(), Duration::from_millis(round.lasts_ms));
        let what = match round.deed {
            Deed::RelayStands { place, successor_dies } => self.relay_stands(place, successor_dies, lasts)?,
            Deed::ServiceStands(place) => self.service_stands(place, lasts)?,
            Deed::Database => self.kill_database(lasts)?,
            Deed::Engine => {
                let how = self.engine.fall()?;
                std::thread::sleep(lasts);
                self.engine.up()?;
                if how == "killed" { "engine killed" } else { "engine stopped" }
            }
            Deed::All => {
                self.kill_users()?;
                self.engine.fall()?;
                self.database.as_mut().map(Server::kill).transpose()?;
                std::thread::sleep(lasts);
                self.engine.up()?;
                self.database.as_mut().map(Server::up).transpose()?;
                "everybody killed, with the servers"
            }
            deed => {
                let what = self.kill_some(deed)?;
                std::thread::sleep(lasts);
                what
            }
        };
        self.history.add(&Line::Fault { what, hides_commits: false, from_ms, to_ms: now_ms() })?;
        self.start_all()
    }

    fn kill_some(&mut self, deed: Deed) -> Result<&'static str, CrashError> {
        match deed {
            Deed::Relay(place) => self.kill_relay(place).map(|()| "relay killed"),
            Deed::Relays => (0..RELAYS).try_for_each(|place| self.kill_relay(place)).map(|()| "all relays killed"),
            Deed::Service(place) => self.kill_service(place).map(|()| "service killed"),
            _ => (0..SERVICES).try_for_each(|place| self.kill_service(place)).map(|()| "all services killed"),
        }
    }

    /// A relay stands still for longer than its lease, and goes on; the other one may be killed meanwhile, once it has taken over.
    fn relay_stands(
        &mut self,
        place: usize,
        successor_dies: bool,
        lasts: Duration,
    ) -> Result<&'static str, CrashError> {
        let Some(relay) = self.relays[place].take() else { return Ok("nobody stood still") };
        let from_ms = now_ms();
        relay.pause()?;
        let before = TAKEN_OVER.min(lasts);
        std::thread::sleep(before);
        if successor_dies {
            (0..RELAYS).try_for_each(|other| self.kill_relay(other))?;
        }
        std::thread::sleep(lasts - before);
        relay.go_on()?;
        self.history.add(&Line::Paused { member: relay.name(), from_ms, to_ms: now_ms() })?;
        self.relays[place] = Some(relay);
        Ok(if successor_dies { "relay stood still, its successor killed" } else { "relay stood still" })
    }

    /// A service stands still, with whatever it has begun.
    fn service_stands(&mut self, place: usize, lasts: Duration) -> Result<&'static str, CrashError> {
        let Some(service) = &self.services[place] else { return Ok("nobody stood still") };
        let from_ms = now_ms();
        service.pause()?;
        std::thread::sleep(lasts);
        service.go_on()?;
        self.history.add(&Line::Paused { member: service.name(), from_ms, to_ms: now_ms() })?;
        Ok("service stood still")
    }

    /// A file has no server: then those who have it open are killed.
    fn kill_database(&mut self, death: Duration) -> Result<&'static str, CrashError> {
        let Some(database) = &mut self.database else {
            self.kill_users()?;
            std::thread::sleep(death);
            return Ok("all killed who have the file open");
        };
        database.kill()?;
        std::thread::sleep(death);
        database.up()?;
        Ok("database killed")
    }

    fn kill_users(&mut self) -> Result<(), CrashError> {
        (0..RELAYS).try_for_each(|place| self.kill_relay(place))?;
        (0..SERVICES).try_for_each(|place| self.kill_service(place))
    }

    fn kill_relay(&mut self, place: usize) -> Result<(), CrashError> {
        let relay = self.relays[place].take();
        self.kill(relay)
    }

    fn kill_service(&mut self, place: usize) -> Result<(), CrashError> {
        let service = self.services[place].take();
        self.kill(service)
    }

    fn kill(&mut self, process: Option<Process>) -> Result<(), CrashError> {
        let Some(process) = process else { return Ok(()) };
        self.kills += 1;
        self.history.add(&Line::Killed { member: process.name() })?;
        process.kill()
    }

    /// Starts whoever is not there.
    fn start_all(&mut self) -> Result<(), CrashError> {
        for place in 0..RELAYS {
            if self.relays[place].is_none() {
                self.relays[place] = Some(self.start_relay(place)?);
            }
        }
        for place in 0..SERVICES {
            if self.services[place].is_none() {
                let name = self.name("service");
                self.services[place] = Some(self.child("service", &name)?);
            }
        }
        Ok(())
    }

    /// The first one comes back under its name, as one of a fixed set of machines does; the others have a new one each time.
    fn start_relay(&mut self, place: usize) -> Result<Process, CrashError> {
        let mut command = Command::new(self.places.baton()?);
        command.args(["relay", "--engine", &self.addresses.engine, "--database", &self.addresses.database]);
        command.args(["--lease", LEASE]);
        if place == 0 {
            command.args(["--member", "first"]);
        }
        let name = self.name("relay");
        Process::start(&name, &command, &self.places, &self.folder)
    }

    /// A name that nobody had before.
    fn name(&mut self, of: &str) -> String {
        self.lives += 1;
        format!("{of}-{}", self.lives)
    }

    fn child(&self, subcommand: &str, name: &str) -> Result<Process, CrashError> {
        let mut command = Command::new(&self.places.program);
        command.arg(subcommand).args(["--name", name]).arg("--history").arg(&self.folder);
        command.args(["--engine", &self.addresses.engine, "--database", &self.addresses.database]);
        command.args(["--seed", &(self.seed ^ u64::from(self.lives)).to_string()]);
        Process::start(name, &command, &self.places, &self.folder)
    }

    /// Fails if somebody ended whom nobody killed: a relay that gives up is a fault, however clean it leaves the topic.
    pub(super) fn everybody_lives(&mut self) -> Result<(), CrashError> {
        self.relays.iter_mut().chain(&mut self.services).flatten().try_for_each(Process::check)
    }

    /// A relay that cannot reach its servers when it starts says so and ends, as it is documented; later it waits for them.
    fn wait_until_relays_run(&mut self) -> Result<(), CrashError> {
        for place in 0..RELAYS {
            wait_until("a relay", || {
                self.everybody_lives()?;
                Ok(self.relays[place].as_ref().is_none_or(|relay| relay.has_said(RUNS)))
            })?;
        }
        Ok(())
    }

    /// Nothing more is written; what has begun is finished. One that has only just been started is waited for: it knows nothing of
    /// signals yet.
    pub(super) fn stop_services(&mut self) -> Result<(), CrashError> {
        let folder = self.folder.clone();
        for place in 0..SERVICES {
            if let Some(name) = self.services[place].as_ref().map(|service| service.name().to_owned()) {
                wait_until_ready(&folder, &name, || self.everybody_lives())?;
            }
        }
        self.services.iter_mut().filter_map(Option::take).try_for_each(|service| service.stop(SERVICE_STOP_WAIT))
    }

    /// The relays leave in an orderly way.
    pub(super) fn stop_relays(&mut self) -> Result<(), CrashError> {
        // One that has only just been started knows nothing of signals yet.
        self.wait_until_relays_run()?;
        self.relays.iter_mut().filter_map(Option::take).try_for_each(|relay| relay.stop(RELAY_STOP_WAIT))
    }

    /// How many rows wait in the outbox, and how many are parked.
    pub(super) fn left(&mut self) -> Result<Vec<(String, u64)>, CrashError> {
        self.everybody_lives()?;
        let said = self.outbox(&["status", "--json"])?;
        let status: Value = serde_json::from_str(&said)
            .map_err(|error| CrashError::Process(format!("baton outbox status: {error}: {said}")))?;
        let count = |name: &str| (name.to_owned(), status[name].as_u64().unwrap_or(u64::MAX));
        Ok(vec![count("rows"), count("parked")])
    }

    fn outbox(&self, arguments: &[&str]) -> Result<String, CrashError> {
        let mut command = Command::new(self.places.baton()?);
        command.arg("outbox").args(arguments).args(["--database", &self.addresses.database]);
        let output = command.output().map_err(CrashError::io("baton outbox"))?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok(said(&output.stdout));
        }
        Err(CrashError::Process(format!("baton outbox {arguments:?}: {}", said(&output.stderr))))
    }
}
