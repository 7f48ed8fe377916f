//! Starts, kills and stops the servers of a run.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::kinds::{DatabaseKind, EngineKind};
use crate::places::{CrashError, Places};
use crate::processes::Process;

/// Below the range that the system gives to outgoing connections, so that a client that dials while a server is down cannot take
/// the server's port.
const PORTS: std::ops::Range<u16> = 25_000..26_000;
/// RabbitMQ takes three in a row, Kafka two.
const PORTS_OF_A_SERVER: u16 = 3;
/// Engine, database, Redis, and a way to each of the first two.
const SERVERS_OF_A_RUN: u16 = 5;
/// Until a server serves; the heavier ones need minutes on a machine that has much else to do.
const START_WAIT: Duration = Duration::from_secs(300);
/// Until a broker has ended that was asked to.
const STOP_WAIT: Duration = Duration::from_secs(120);
const START_POLL: Duration = Duration::from_millis(5);
const KAFKA_HEAP: &str = "384m";

/// What kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Baton,
    Kafka,
    Rabbitmq,
    Postgres,
    Mariadb,
    Redis,
}

impl Program {
    /// The one that carries messages; none if that is in a service's own process.
    pub(crate) fn of_engine(kind: EngineKind) -> Option<Self> {
        match kind {
            EngineKind::Embedded => Some(Self::Baton),
            EngineKind::Kafka => Some(Self::Kafka),
            EngineKind::Rabbitmq => Some(Self::Rabbitmq),
            EngineKind::Service => None,
        }
    }

    /// What the names of its scripts begin with, and those of their settings. Baton has none.
    fn script(self) -> (&'static str, &'static str) {
        match self {
            Self::Baton => ("serve", "BATON"),
            Self::Kafka => ("kafka", "KAFKA"),
            Self::Rabbitmq => ("rabbitmq", "RABBIT"),
            Self::Postgres => ("postgres", "POSTGRES"),
            Self::Mariadb => ("mariadb", "MARIADB"),
            Self::Redis => ("redis", "REDIS"),
        }
    }
}

/// A running server with its own data; killed when this value ends.
pub(crate) struct Server {
    program: Program,
    places: Places,
    folder: PathBuf,
    port: u16,
    /// Where clients are told to go.
    advertised: Option<u16>,
    settings: Vec<String>,
    process: Option<Process>,
}

impl Server {
    /// Starts one on a new folder below `parent`; returns when it serves. Clients are told to come to the port `advertised`.
    pub(crate) fn start(
        program: Program,
        places: &Places,
        parent: &Path,
        advertised: Option<u16>,
        settings: &[&str],
    ) -> Result<Self, CrashError> {
        let folder = parent.join(program.script().0);
        std::fs::create_dir_all(&folder).map_err(CrashError::io(folder.display().to_string()))?;
        // The databases run as users of their own, who must be able to reach it.
        for open in [parent, &folder] {
            let permissions = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(open, permissions).map_err(CrashError::io(open.display().to_string()))?;
        }
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let (places, port) = (places.clone(), free_port()?);
        let mut server = Self { program, places, folder, port, advertised, settings, process: None };
        server.up()?;
        Ok(server)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn is_rabbitmq(&self) -> bool {
        self.program == Program::Rabbitmq
    }

    /// Ends it in an orderly way.
    pub(crate) fn stop(&mut self) -> Result<(), CrashError> {
        match (self.program, self.process.take()) {
            (Program::Baton, Some(process)) => process.stop(STOP_WAIT),
            (Program::Baton, None) => Ok(()),
            _ => self.script("down", &[("STOP_WAIT", STOP_WAIT.as_secs().to_string())], &[]).map(drop),
        }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) -> Result<(), CrashError> {
        match (self.program, self.process.take()) {
            (Program::Baton, Some(process)) => process.kill(),
            (Program::Baton, None) => Ok(()),
            _ => self.script("down", &[("KILL", "1".to_owned())], &[]).map(drop),
        }
    }

    /// kill -9, or what comes next to it: a node of RabbitMQ 3.10 that was killed does not always bring each of its quorum queues back, so
    /// that one is stopped in order. Says in words which.
    pub(crate) fn fall(&mut self) -> Result<&'static str, CrashError> {
        if self.is_rabbitmq() {
            return self.stop().map(|()| "stopped");
        }
        self.kill().map(|()| "killed")
    }

    /// Starts it again on its data.
    pub(crate) fn up(&mut self) -> Result<(), CrashError> {
        let port = self.port.to_string();
        match self.program {
            Program::Baton => return self.baton_up(),
            Program::Kafka => {
                let mut settings = self.settings.clone();
                if let Some(advertised) = self.advertised {
                    settings.push(format!("advertised.listeners=PLAINTEXT://127.0.0.1:{advertised}"));
                }
                let library = self.places.cache.join("kafka-4.3.1").display().to_string();
                let more = [
                    ("PORT", port),
                    ("LIB", library),
                    ("HEAP", KAFKA_HEAP.to_owned()),
                    ("JVM_OPTS", "-XX:TieredStopAtLevel=1".to_owned()),
                ];
                self.script("up", &more, &settings)?;
            }
            _ => self.script("up", &[("PORT", port)], &self.settings).map(drop)?,
        }
        Ok(())
    }

    fn script(&self, what: &str, variables: &[(&str, String)], settings: &[String]) -> Result<String, CrashError> {
        let (script, prefix) = self.program.script();
        let name = format!("{script}-{what}");
        let mut command = Command::new(self.places.root.join("scripts").join(&name));
        // An interrupted run cannot stop it any more.
        command
            .env(format!("{prefix}_OWNER"), std::process::id().to_string())
            .env(format!("{prefix}_DATA"), self.folder.join("data"))
            .env(format!("{prefix}_WAIT"), START_WAIT.as_secs().to_string())
            .args(settings)
            .stdin(Stdio::null());
        for (key, value) in variables {
            command.env(format!("{prefix}_{key}"), value);
        }
        let output = command.output().map_err(CrashError::io(format!("scripts/{name}")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(CrashError::Process(format!("scripts/{name} failed (scripts/setup-tests installs what it needs):\n{said}")))
    }

    fn baton_up(&mut self) -> Result<(), CrashError> {
        let mut command = Command::new(self.places.baton()?);
        command.arg("serve").arg("--data").arg(self.folder.join("data"));
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        if let Some(advertised) = self.advertised {
            command.args(["--advertised-listener", &format!("127.0.0.1:{advertised}")]);
        }
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        let mut process = Process::start("baton-serve", &command, &self.places, &self.folder)?;
        wait_until_listening(&mut process, self.port)?;
        self.process = Some(process);
        Ok(())
    }

    /// What RabbitMQ's queues hold, by name: messages that wait, and those that somebody has not acknowledged.
    pub(crate) fn queues(&self) -> Result<Vec<(String, u64)>, CrashError> {
        let list = "rabbitmqctl --quiet list_queues name messages";
        let environment = self.folder.join("data/environment");
        let output = Command::new("bash")
            .args(["-c", &format!(". '{}' && {list}", environment.display())])
            .stdin(Stdio::null())
            .output()
            .map_err(CrashError::io(list))?;
        if !output.status.success() {
            return Err(CrashError::Process(format!("{list}: {}", String::from_utf8_lossy(&output.stderr))));
        }
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // The first line is a head.
        let row =
            |line: &str| line.rsplit_once('\t').and_then(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
        // A stream that says how many partitions a topic has keeps its one message for good.
        Ok(said.lines().filter_map(row).filter(|(name, _)| !name.ends_with(".partitions")).collect())
    }
}

impl Drop for Server {
    /// A server never outlives its run; its data go with it, so there is nothing to end gracefully.
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Waits until somebody listens there; fails when the process ends before.
pub(crate) fn wait_until_listening(process: &mut Process, port: u16) -> Result<(), CrashError> {
    let deadline = Instant::now() + START_WAIT;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        process.check()?;
        if Instant::now() > deadline {
            return Err(CrashError::Process(format!("{} does not listen after {START_WAIT:?}", process.name())));
        }
        std::thread::sleep(START_POLL);
    }
    Ok(())
}

/// The first of [`PORTS_OF_A_SERVER`] free ports that this process has not given out before.
pub(crate) fn free_port() -> Result<u16, CrashError> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let places = (PORTS.end - PORTS.start) / PORTS_OF_A_SERVER;
    // Runs at the same time, whose process ids are neighbours, begin a run's width apart. The remainder is small, which fits.
    let runs = places / SERVERS_OF_A_RUN;
    let first = u16::try_from(std::process::id() % u32::from(runs)).unwrap_or(0) * SERVERS_OF_A_RUN;
    for _ in 0..places {
        let place = (first + NEXT.fetch_add(1, Ordering::Relaxed)) % places;
        let port = PORTS.start + place * PORTS_OF_A_SERVER;
        if (port..port + PORTS_OF_A_SERVER).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return Ok(port);
        }
    }
    Err(CrashError::Process(format!("no free port in {PORTS:?}")))
}

/// The server of a database, with a folder of its own below `folder`; none for one that is a file.
pub(crate) fn start_database(kind: DatabaseKind, places: &Places, folder: &Path) -> Result<Option<Server>, CrashError> {
    let program = match kind {
        DatabaseKind::Sqlite => return Ok(None),
        DatabaseKind::Postgres => Program::Postgres,
        DatabaseKind::Mariadb => Program::Mariadb,
    };
    Server::start(program, places, folder, None, &[]).map(Some)
}

/// As both the processes and the checkers read it.
pub(crate) fn database_address(kind: DatabaseKind, folder: &Path, port: Option<u16>) -> String {
    let port = port.unwrap_or_default();
    match kind {
        DatabaseKind::Sqlite => format!("sqlite:{}", folder.join("effects.db").display()),
        DatabaseKind::Postgres => format!("postgres:postgresql://postgres@127.0.0.1:{port}/postgres"),
        DatabaseKind::Mariadb => format!("mariadb:{port}"),
    }
}

/// For runs that end with a question to a server.
pub(crate) fn output_of(name: &str, folder: &Path) -> Result<File, CrashError> {
    let path = folder.join(format!("{name}.log"));
    let file = File::options().create(true).append(true).open(&path);
    file.map_err(CrashError::io(path.display().to_string()))
}
