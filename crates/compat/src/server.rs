//! Starts, kills and stops the servers under test.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::CompatError;
use crate::places::{Places, baton_binary};

/// Ports are taken from below the range that the system gives to outgoing connections, so that a client that dials
/// while a server is down cannot take the server's port.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const START_WAIT: Duration = Duration::from_secs(60);
const KAFKA_HEAP: &str = "384m";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Kind {
    /// Real Apache Kafka.
    Kafka,
    /// Baton.
    Baton,
}

impl Kind {
    /// The name in tables and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Baton => "baton",
        }
    }
}

/// A running server with its own data directory; ends with this value.
pub struct Server {
    kind: Kind,
    places: Places,
    folder: tempfile::TempDir,
    port: u16,
    controller_port: u16,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts a server on an empty data directory and free ports of the loopback address; `settings` are `key=value`
    /// with Kafka's names. Returns when it serves.
    pub fn start(kind: Kind, places: &Places, settings: &[String]) -> Result<Self, CompatError> {
        let folder = tempfile::tempdir().map_err(CompatError::io("a directory for the server"))?;
        let (port, controller_port) = (free_port()?, free_port()?);
        let settings = settings.to_vec();
        let mut server = Self { kind, places: places.clone(), folder, port, controller_port, settings, child: None };
        server.up()?;
        Ok(server)
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A directory that lives as long as the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the server as a crash would (kill -9). The data stay.
    pub fn kill(&mut self) -> Result<(), CompatError> {
        match self.child.take() {
            Some(mut child) => {
                child.kill().map_err(CompatError::io("killing baton"))?;
                child.wait().map_err(CompatError::io("waiting for baton"))?;
                Ok(())
            }
            None => self.kafka_down("KAFKA_KILL"),
        }
    }

    /// Starts the server again on its data, after `kill`.
    pub fn start_again(&mut self) -> Result<(), CompatError> {
        self.up()
    }

    /// What the server printed last, for a message about its failure.
    pub fn last_words(&self) -> String {
        let file = match self.kind {
            Kind::Kafka => self.data().join("node-1/server.out"),
            Kind::Baton => self.output(),
        };
        let said = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("server.out")
    }

    fn up(&mut self) -> Result<(), CompatError> {
        match self.kind {
            Kind::Kafka => self.kafka_up(),
            Kind::Baton => self.baton_up(),
        }
    }

    fn kafka_up(&self) -> Result<(), CompatError> {
        let script = self.places.root.join("scripts/kafka-up");
        let output = self.kafka_script(&script).args(&self.settings).output().map_err(CompatError::io("kafka-up"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(CompatError::Server(format!("Apache Kafka did not start:\n{}", String::from_utf8_lossy(&output.stderr))))
    }

    fn kafka_down(&self, how: &str) -> Result<(), CompatError> {
        let script = self.places.root.join("scripts/kafka-down");
        let status = self.kafka_script(&script).env(how, "1").status().map_err(CompatError::io("kafka-down"))?;
        if status.success() { Ok(()) } else { Err(CompatError::Server("scripts/kafka-down failed".into())) }
    }

    fn kafka_script(&self, script: &Path) -> Command {
        let mut command = Command::new(script);
        command
            .env("KAFKA_LIB", self.places.cache.join("kafka-4.3.1"))
            .env("KAFKA_DATA", self.data())
            .env("KAFKA_PORT", self.port.to_string())
            .env("KAFKA_CONTROLLER_PORT", self.controller_port.to_string())
            .env("KAFKA_HEAP", KAFKA_HEAP)
            .env("KAFKA_JVM_OPTS", "-XX:TieredStopAtLevel=1")
            // An interrupted test cannot stop it any more.
            .env("KAFKA_OWNER", std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn baton_up(&mut self) -> Result<(), CompatError> {
        let binary = baton_binary(&self.places.root)?;
        let output = File::options()
            .create(true)
            .append(true)
            .open(self.output())
            .map_err(CompatError::io("the output of baton"))?;
        let errors = output.try_clone().map_err(CompatError::io("the output of baton"))?;
        let mut command = Command::new(&binary);
        command.arg("serve").arg("--data").arg(self.data()).args(["--listen", &self.address()]);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        let spawned = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        self.child = Some(spawned.map_err(CompatError::io(binary.display().to_string()))?);
        self.wait_until_it_listens()
    }

    fn wait_until_it_listens(&mut self) -> Result<(), CompatError> {
        let deadline = Instant::now() + START_WAIT;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(CompatError::Server(format!("baton ended with {status}:\n{}", self.last_words())));
            }
            if Instant::now() > deadline {
                let waited = START_WAIT.as_secs();
                return Err(CompatError::Server(format!(
                    "baton does not serve after {waited} s:\n{}",
                    self.last_words()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    /// A server never outlives its test; its data go with it, so there is nothing to end gracefully.
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn free_port() -> Result<u16, CompatError> {
    let span = u128::from(PORTS.end - PORTS.start);
    for _ in 0..100 {
        // The remainder is below the width of the range, which fits.
        let step = u16::try_from(uuid::Uuid::new_v4().as_u128() % span).unwrap_or(0);
        let port = PORTS.start + step;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(CompatError::Server(format!("no free port in {PORTS:?}")))
}
