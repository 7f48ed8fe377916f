//! The relays that are measured, as processes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::Fallible;
use crate::table::Table;

/// Debezium's own default for a batch (its queue holds four times as many).
const DEBEZIUM_BATCH: u32 = 2_048;
/// How long a slot may be held by a process that was killed.
const SLOT_WAIT: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// `baton relay` to `baton serve`.
    Embedded,
    /// `baton relay` to Kafka.
    Kafka,
    /// Debezium to the same Kafka, with so many milliseconds between polls.
    Debezium(u32),
    /// The naive loop to the same Kafka.
    Naive,
}

impl Side {
    /// From the command line.
    pub fn parse(name: &str) -> Fallible<Self> {
        match name {
            "embedded" => Ok(Self::Embedded),
            "kafka" => Ok(Self::Kafka),
            "naive" => Ok(Self::Naive),
            other => match other.strip_prefix("debezium-").and_then(|poll| poll.parse().ok()) {
                Some(poll) => Ok(Self::Debezium(poll)),
                None => Err(format!("no side is called {other}").into()),
            },
        }
    }

    /// As on the command line.
    pub fn name(self) -> String {
        match self {
            Self::Embedded => "embedded".to_owned(),
            Self::Kafka => "kafka".to_owned(),
            Self::Debezium(poll) => format!("debezium-{poll}"),
            Self::Naive => "naive".to_owned(),
        }
    }

    /// What its writers write into.
    pub fn table(self) -> Table {
        match self {
            Self::Embedded | Self::Kafka => Table::Baton,
            Self::Debezium(_) => Table::Debezium,
            Self::Naive => Table::Naive,
        }
    }
}

/// Where everything is.
#[derive(Clone)]
pub struct Places {
    /// Host and port of PostgreSQL.
    pub postgres: String,
    /// Host and port of Kafka.
    pub kafka: String,
    /// The `baton` binary.
    pub baton: PathBuf,
    /// The class path of Debezium's side, and options of its virtual machine.
    pub java: (String, Vec<String>),
    /// A folder for data and logs.
    pub data: PathBuf,
    /// More arguments for `baton relay`.
    pub relay: Vec<String>,
}

impl Places {
    /// As a client of PostgreSQL has it.
    pub fn database(&self) -> String {
        format!("postgres://postgres@{}/postgres?sslmode=disable", self.postgres)
    }
}

/// A process that is killed with this value.
pub struct Process {
    child: Child,
    /// Kept so that it can go on writing.
    _output: Option<BufReader<ChildStdout>>,
}

impl Process {
    fn start(command: &mut Command, log: &Path) -> Fallible<Self> {
        let child = command.stdin(Stdio::null()).stderr(File::create(log)?).spawn();
        let child = child.map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        Ok(Self { child, _output: None })
    }

    /// Starts it, and returns with the line in which it says `words`.
    fn ready(command: &mut Command, log: &Path, words: &str) -> Fallible<(Self, String)> {
        let mut process = Self::start(command.stdout(Stdio::piped()), log)?;
        let mut output = BufReader::new(process.child.stdout.take().ok_or("no output")?);
        let (mut said, mut line) = (String::new(), String::new());
        while !line.contains(words) {
            line.clear();
            if output.read_line(&mut line)? == 0 {
                return Err(format!("{} ended: {said}", command.get_program().display()).into());
            }
            said.push_str(&line);
        }
        process._output = Some(output);
        Ok((process, said))
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error if it has ended by itself.
    pub fn lives(&mut self) -> Fallible<()> {
        match self.child.try_wait()? {
            Some(status) => Err(format!("a process ended by itself: {status}").into()),
            None => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The engine of a side: Kafka, which runs already, or a broker of ours.
pub struct Engine {
    /// Host and port.
    pub address: String,
    /// Ours.
    pub broker: Option<Process>,
}

impl Engine {
    /// Starts it on an empty folder, if it is ours.
    pub fn start(side: Side, places: &Places) -> Fallible<Self> {
        if side != Side::Embedded {
            return Ok(Self { address: places.kafka.clone(), broker: None });
        }
        let data = places.data.join("broker");
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        let mut command = Command::new(&places.baton);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
        let (process, said) = Process::ready(&mut command, &places.data.join("serve.log"), "Ctrl-C stops it.")?;
        let address = said.lines().find_map(|line| line.trim().strip_prefix("clients"));
        Ok(Self { address: address.ok_or("baton serve names no address")?.trim().to_owned(), broker: Some(process) })
    }
}

/// Starts the relay of a side. For Debezium `prepare` must have been called before the rows were written.
pub fn start(side: Side, places: &Places, engine: &Engine) -> Fallible<Process> {
    let log = places.data.join(format!("{}.log", side.name()));
    match side {
        Side::Embedded | Side::Kafka => {
            let mut command = Command::new(&places.baton);
            command.args(["relay", "--database", &places.database()]);
            command.args(["--engine", &format!("kafka://{}", engine.address)]).args(&places.relay);
            Ok(Process::ready(&mut command, &log, "Ctrl-C stops.")?.0)
        }
        Side::Debezium(poll) => {
            let folder = places.data.join("debezium");
            if folder.exists() {
                fs::remove_dir_all(&folder)?;
            }
            fs::create_dir_all(&folder)?;
            let port = places.postgres.rsplit(':').next().unwrap_or_default();
            let mut command = Command::new("java");
            command.args(&places.java.1).args(["-cp", &places.java.0, "Debezium", port, &engine.address]);
            command.args([poll.to_string(), DEBEZIUM_BATCH.to_string()]).arg(&folder);
            Process::start(command.stdout(Stdio::null()), &log)
        }
        Side::Naive => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["naive", "--database", &places.database(), "--kafka", &engine.address]);
            Process::start(command.stdout(Stdio::null()), &log)
        }
    }
}

/// Debezium's slot and publication, as of now, where it is Debezium's turn; nothing of them otherwise, since a slot that nobody reads
/// would keep the log of the database.
pub async fn prepare(side: Side, client: &Client) -> Fallible<()> {
    let drop =
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'bench_debezium'";
    let began = Instant::now();
    while let Err(error) = client.batch_execute(drop).await {
        if began.elapsed() > SLOT_WAIT {
            return Err(error.into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    client.batch_execute("DROP PUBLICATION IF EXISTS bench_debezium").await?;
    if matches!(side, Side::Debezium(_)) {
        client.batch_execute("CREATE PUBLICATION bench_debezium FOR TABLE outbox").await?;
        client.batch_execute("SELECT pg_create_logical_replication_slot('bench_debezium', 'pgoutput')").await?;
    }
    Ok(())
}
