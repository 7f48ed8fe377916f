//! The processes of the demonstration: this very binary, in other roles.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::Failure;

/// Where the broker listens at first; when it is started again, it has to be found where it was.
const ANY_PORT: &str = "127.0.0.1:0";
/// How the broker's start text names its address.
const ADDRESS_LINE: &str = "clients";
/// The service that takes over from a killed one shall not wait for long.
const BROKER_SETTINGS: &[&str] = &["group.initial.rebalance.delay.ms=0", "group.min.session.timeout.ms=1000"];

/// A process that dies with its handle.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Result<Self, Failure> {
        command.spawn().map(Self).map_err(|error| Failure::failed("a process of the demonstration", &error))
    }

    fn kill(&mut self) {
        // SIGKILL, which nothing can catch. Gone already is gone, too.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// This binary, with what it says about itself in a file.
fn myself(role: &str, folder: &Path) -> Result<Command, Failure> {
    let failed = |error: std::io::Error| Failure::failed(role, &error);
    let program = std::env::current_exe().map_err(failed)?;
    let log = OpenOptions::new().create(true).append(true).open(folder.join(format!("{role}.log"))).map_err(failed)?;
    let mut command = Command::new(program);
    // The pipe of stdin is how it learns that this process is gone.
    command.arg(role).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    Ok(command)
}

/// `baton demo-broker`: `baton serve`, which ends with this process.
pub(super) struct BrokerProcess {
    running: Running,
    address: String,
}

impl BrokerProcess {
    pub(super) fn start(folder: &Path) -> Result<Self, Failure> {
        let (running, address) = Self::begin(folder, ANY_PORT)?;
        Ok(Self { running, address })
    }

    /// Returns when it serves.
    fn begin(folder: &Path, listen: &str) -> Result<(Running, String), Failure> {
        let mut command = myself("demo-broker", folder)?;
        command.arg("--data").arg(folder.join("broker")).args(["--listen", listen]);
        for setting in BROKER_SETTINGS {
            command.args(["--set", setting]);
        }
        let mut running = Running::start(&mut command)?;
        let not_started =
            || Failure::Failed(format!("the broker did not start: see {}", folder.join("demo-broker.log").display()));
        let mut lines = BufReader::new(running.0.stdout.take().ok_or_else(not_started)?).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.trim().strip_prefix(ADDRESS_LINE).map(|rest| rest.trim().to_owned()));
        // Nobody may leave the pipe full.
        std::thread::spawn(move || lines.for_each(drop));
        Ok((running, address.ok_or_else(not_started)?))
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Kills it with -9, and starts it again on what it left.
    pub(super) fn kill_and_start(&mut self, folder: &Path) -> Result<(), Failure> {
        self.running.kill();
        (self.running, _) = Self::begin(folder, &self.address)?;
        Ok(())
    }
}

/// `baton demo-consumer`.
pub(super) struct ConsumerProcess {
    running: Running,
    stdin: Option<ChildStdin>,
    absorbed: Arc<AtomicU64>,
    reading: Option<JoinHandle<()>>,
}

impl ConsumerProcess {
    pub(super) fn start(folder: &Path, engine: &str, database: &Path) -> Result<Self, Failure> {
        let mut command = myself("demo-consumer", folder)?;
        command.args(["--engine", engine, "--database"]).arg(database);
        let mut running = Running::start(&mut command)?;
        let stdin = running.0.stdin.take();
        let absorbed = Arc::new(AtomicU64::new(0));
        let last = Arc::clone(&absorbed);
        let reading = running.0.stdout.take().map(|stdout| {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // A line that a kill cut short says nothing.
                    let said: Option<Value> = serde_json::from_str(&line).ok();
                    if let Some(count) = said.and_then(|said| said["already_done"].as_u64()) {
                        last.store(count, Ordering::Relaxed);
                    }
                }
            })
        });
        Ok(Self { running, stdin, absorbed, reading })
    }

    /// Whether it ended without being told to.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.running.0.try_wait(), Ok(None))
    }

    /// Kills it with -9. Says how many redeliveries it had kept out, as it said last.
    pub(super) fn kill(mut self) -> u64 {
        self.running.kill();
        self.absorbed()
    }

    /// Lets it finish.
    pub(super) fn stop(mut self) -> u64 {
        self.stdin = None;
        let _ = self.running.0.wait();
        self.absorbed()
    }

    fn absorbed(&mut self) -> u64 {
        if let Some(reading) = self.reading.take() {
            let _ = reading.join();
        }
        self.absorbed.load(Ordering::Relaxed)
    }
}
