//! A real Apache Kafka, started and killed by the project's scripts.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::sync::{Mutex, MutexGuard};

/// Below the range that the system gives to outgoing connections: nobody takes the port of a server that starts.
const PORTS: std::ops::Range<u16> = 23_000..23_400;
const HEAP: &str = "256m";
/// How long it may take to start on a machine that is busy with other tests.
const START_SECONDS_MAX: &str = "240";

/// One at a time: several that start side by side take each other's time, and ports.
static TURN: Mutex<()> = Mutex::const_new(());

/// One node with its own data; killed with this value.
pub struct Kafka {
    pub address: String,
    _turn: MutexGuard<'static, ()>,
    settings: Vec<(&'static str, String)>,
    _data: tempfile::TempDir,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name)
}

/// Two processes that test at the same time begin at different places.
fn free_port(after: u16) -> u16 {
    let first = u16::try_from(std::process::id() % 199).unwrap() * 2 + after;
    let width = PORTS.end - PORTS.start;
    let all = (0..width).map(|at| PORTS.start + (first + at) % width);
    all.into_iter().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

impl Kafka {
    pub async fn start() -> Self {
        let turn = TURN.lock().await;
        let data = tempfile::tempdir().unwrap();
        let port = free_port(0);
        let settings = vec![
            ("KAFKA_DATA", data.path().join("kafka").display().to_string()),
            ("KAFKA_PORT", port.to_string()),
            ("KAFKA_CONTROLLER_PORT", free_port(port - PORTS.start + 1).to_string()),
            ("KAFKA_HEAP", HEAP.to_owned()),
            ("KAFKA_JVM_OPTS", "-XX:TieredStopAtLevel=1".to_owned()),
            ("KAFKA_WAIT", START_SECONDS_MAX.to_owned()),
            // An interrupted test cannot stop it any more.
            ("KAFKA_OWNER", std::process::id().to_string()),
        ];
        let mut up = Command::new(script("kafka-up"));
        up.envs(settings.iter().cloned()).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || up.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "Kafka did not start (scripts/setup-tests installs it):\n{said}");
        let address = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Self { address, _turn: turn, settings, _data: data }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let mut down = Command::new(script("kafka-down"));
        down.env("KAFKA_KILL", "1").envs(self.settings.iter().cloned()).stdout(Stdio::null());
        // What is left of it ends with this process.
        let _ = down.status();
    }
}
