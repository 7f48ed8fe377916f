//! The servers under test: started on an empty directory, measured by process id, stopped and cleaned up.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Fallible;

/// A server that is not ready by then has failed.
const READY_WAIT: Duration = Duration::from_secs(90);
/// Time for a clean stop before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(20);
/// Heap of Apache Kafka: what its own start script gives a broker.
const KAFKA_HEAP: &str = "1g";

/// Which Kafka-speaking server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `baton serve`.
    Baton,
    /// Apache Kafka, one node that is broker and controller.
    Kafka,
}

/// Where programs and scratch data are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The `baton` binary.
    pub baton: PathBuf,
    /// Folder with `kafka-up`, `kafka-down` and `bench-engines`.
    pub scripts: PathBuf,
    /// Scratch folder; emptied as the run goes.
    pub scratch: PathBuf,
    /// First port; a few above it are used too.
    pub port: u16,
    /// `--set KEY=VALUE` for Baton.
    pub baton_settings: Vec<String>,
}

/// A running server.
pub struct Server {
    kind: Kind,
    places: Places,
    data: PathBuf,
    child: Option<Child>,
    /// Process ids whose CPU, memory and writes are the server's.
    pub pids: Vec<u32>,
    /// Address of the Kafka protocol.
    pub address: String,
}

impl Kind {
    /// The name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baton => "baton",
            Self::Kafka => "kafka",
        }
    }
}

impl Server {
    /// Starts `kind` on an empty directory and waits until it accepts connections.
    pub fn start(kind: Kind, places: &Places) -> Fallible<Self> {
        let data = places.scratch.join(kind.name());
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        fs::create_dir_all(&data)?;
        Self::start_on(kind, places, data)
    }

    /// Starts `kind` on the directory as it is.
    pub fn start_on(kind: Kind, places: &Places, data: PathBuf) -> Fallible<Self> {
        match kind {
            Kind::Baton => Self::start_baton(places, data),
            Kind::Kafka => Self::start_kafka(places, data),
        }
    }

    fn start_baton(places: &Places, data: PathBuf) -> Fallible<Self> {
        let mut server = Self::spawn_baton(places, data)?;
        let deadline = Instant::now() + READY_WAIT;
        while TcpStream::connect(&server.address).is_err() {
            server.check_alive()?;
            if Instant::now() > deadline {
                return Err("baton does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Starts Baton and returns at once, so that its start can be timed.
    pub fn spawn_baton(places: &Places, data: PathBuf) -> Fallible<Self> {
        let address = format!("127.0.0.1:{}", places.port);
        if TcpStream::connect(&address).is_ok() {
            return Err(format!("port {} is already in use", places.port).into());
        }
        let output = File::create(places.scratch.join("baton.out"))?;
        let child = Command::new(&places.baton)
            .args(baton_arguments(places, &data))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| format!("{}: {error}", places.baton.display()))?;
        let pids = vec![child.id()];
        Ok(Self { kind: Kind::Baton, places: places.clone(), data, child: Some(child), pids, address })
    }

    fn start_kafka(places: &Places, data: PathBuf) -> Fallible<Self> {
        let output = Command::new(places.scripts.join("kafka-up"))
            .envs(kafka_environment(places, &data))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("scripts/kafka-up: {error}"))?;
        let address = String::from_utf8(output.stdout)?.trim().to_owned();
        if !output.status.success() || address.is_empty() {
            return Err("Apache Kafka did not start (see above)".into());
        }
        let pid = fs::read_to_string(data.join("node-1/pid"))?.trim().parse()?;
        Ok(Self { kind: Kind::Kafka, places: places.clone(), data, child: None, pids: vec![pid], address })
    }

    /// An error with the server's last words when it has exited.
    pub fn check_alive(&mut self) -> Fallible<()> {
        let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() else { return Ok(()) };
        let said = fs::read_to_string(self.places.scratch.join("baton.out")).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(10).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Err(format!("baton exited with {status}:\n{}", last.join("\n")).into())
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Syncs so far by the server's own count; `None` where it does not tell.
    pub fn syncs(&self) -> Option<f64> {
        match self.kind {
            Kind::Baton => syncs_metric(&scrape(&metrics_address(&self.places)).ok()?),
            Kind::Kafka => None,
        }
    }

    /// Kills the server with SIGKILL and waits for its end; the data stay.
    pub fn kill(mut self) -> Fallible<()> {
        match self.child.take() {
            Some(mut child) => {
                child.kill()?;
                child.wait()?;
                Ok(())
            }
            None => self.kafka_down(&[("KAFKA_KILL", "1")]),
        }
    }

    /// Stops the server and deletes its data.
    pub fn stop(mut self) -> Fallible<()> {
        match self.child.take() {
            Some(child) => stop_child(child)?,
            None => self.kafka_down(&[])?,
        }
        // An unlink of gigabytes should not run into the next server's figures.
        fs::remove_dir_all(&self.data)?;
        rustix::fs::sync();
        Ok(())
    }

    fn kafka_down(&self, extra: &[(&str, &str)]) -> Fallible<()> {
        let status = Command::new(self.places.scripts.join("kafka-down"))
            .envs(kafka_environment(&self.places, &self.data))
            .envs(extra.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        if status.success() { Ok(()) } else { Err("scripts/kafka-down failed".into()) }
    }
}

impl Drop for Server {
    /// An error on the way must not leave a server running.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        } else if self.kind == Kind::Kafka && self.data.exists() {
            let _ = self.kafka_down(&[("KAFKA_STOP_WAIT", "5")]);
        }
    }
}

fn stop_child(mut child: Child) -> Fallible<()> {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    let deadline = Instant::now() + STOP_WAIT;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(format!("baton did not stop within {} s", STOP_WAIT.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn metrics_address(places: &Places) -> String {
    format!("127.0.0.1:{}", places.port + 1)
}

fn baton_arguments(places: &Places, data: &Path) -> Vec<String> {
    let mut arguments = vec![
        "serve".to_owned(),
        "--data".to_owned(),
        data.display().to_string(),
        "--listen".to_owned(),
        format!("127.0.0.1:{}", places.port),
        "--metrics".to_owned(),
        metrics_address(places),
    ];
    for setting in &places.baton_settings {
        arguments.extend(["--set".to_owned(), setting.clone()]);
    }
    arguments
}

fn kafka_environment(places: &Places, data: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("KAFKA_DATA", data.display().to_string()),
        ("KAFKA_PORT", (places.port + 10).to_string()),
        ("KAFKA_HEAP", KAFKA_HEAP.to_owned()),
    ]
}

/// How each server is run, for the head of the report.
pub fn describe(places: &Places) -> Vec<String> {
    let baton = baton_arguments(places, Path::new("DIR")).join(" ");
    vec![
        format!("baton       {} {baton}", places.baton.display()),
        format!(
            "kafka       one node, broker and controller, heap {KAFKA_HEAP}, G1, all else as scripts/kafka-up writes it"
        ),
        "kafka-sync  the same server, topics with flush.messages=1".to_owned(),
    ]
}

/// One GET of the metrics page.
fn scrape(address: &str) -> Fallible<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

fn syncs_metric(page: &str) -> Option<f64> {
    let is_syncs = |name: &str| matches!(name, "baton_log_syncs_total" | "baton_log_syncs");
    page.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let name = name.split('{').next()?;
        if is_syncs(name) { value.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_syncs_is_read_with_and_without_labels() {
        let page = "# TYPE baton_log_syncs counter\nbaton_log_syncs_created 5\nbaton_log_syncs_total{log=\"a\"} 17\n";
        assert_eq!(syncs_metric(page), Some(17.0));
        assert_eq!(syncs_metric("baton_log_syncs_total 3\r\n".trim_end()), Some(3.0));
        assert_eq!(syncs_metric("baton_log_other_total 3\n"), None);
    }
}
