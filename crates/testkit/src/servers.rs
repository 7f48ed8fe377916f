//! Real servers, started and killed by the project's scripts, each with its own data and port.

#![allow(clippy::expect_used, reason = "test code: what cannot be had fails the test")]

use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range that the system gives to outgoing connections: nobody takes the port of a server that is being restarted.
const PORTS: Range<u16> = 22_000..24_000;
/// A server's own port is the first of so many; some want more for themselves (Kafka's controller, RabbitMQ's nodes and names).
const PORTS_OF_A_SERVER: u16 = 4;

/// The first of so many ports in a row that nobody listens on now, and that this process gives out once.
pub fn free_ports(range: &Range<u16>, count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let width = range.end - range.start - count;
    // Two processes that test at the same time begin at different places.
    let first = u16::try_from(std::process::id() % u32::from(width)).expect("it is smaller than a port");
    for _ in 0..width {
        let port = range.start + (first + NEXT.fetch_add(count, Ordering::Relaxed)) % width;
        if (port..port + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return port;
        }
    }
    panic!("no {count} free ports in {range:?}");
}

/// The path of one of the project's scripts.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name)
}

/// A running server with its own data; killed with this value.
pub struct Server {
    name: &'static str,
    settings: Vec<(String, String)>,
    port: u16,
    data: tempfile::TempDir,
}

impl Server {
    /// Starts `postgres`, `mariadb`, `redis`, `kafka` or `rabbitmq`.
    pub fn start(name: &'static str) -> Self {
        Self::start_with(name, &[])
    }

    /// The same, with more variables of its script, without the server's name before them: `("HEAP", "256m")`.
    pub fn start_with(name: &'static str, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(what, value)| (variable(name, what), (*value).to_owned())).collect();
        // Not below the repository: some servers run as users of their own, who may not be able to reach it.
        let data = tempfile::tempdir().expect("a folder for temporary files");
        let mut open = std::fs::metadata(data.path()).expect("it was just made").permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o755);
        std::fs::set_permissions(data.path(), open).expect("it is ours");
        let server = Self { name, settings, port: free_ports(&PORTS, PORTS_OF_A_SERVER), data };
        must(server.up());
        server
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// On the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// kill -9, and again on its data.
    pub fn restart(&self) {
        must(self.down());
        must(self.up());
    }

    fn run(&self, what: &str, more: Option<(String, String)>) -> Result<(), String> {
        let mut command = Command::new(script(&format!("{}-{what}", self.name)));
        command
            .env(variable(self.name, "DATA"), self.data.path().join("data"))
            .env(variable(self.name, "PORT"), self.port.to_string())
            // An interrupted test cannot stop it any more.
            .env(variable(self.name, "OWNER"), std::process::id().to_string())
            .envs(self.settings.iter().cloned())
            .envs(more)
            .stdin(Stdio::null());
        let output = command.output().map_err(|error| format!("{}-{what}: {error}", self.name))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{}-{what} failed (scripts/setup-tests installs it):\n{said}", self.name))
    }

    fn up(&self) -> Result<(), String> {
        self.run("up", None)
    }

    fn down(&self) -> Result<(), String> {
        self.run("down", Some((variable(self.name, "KILL"), "1".to_owned())))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let down = self.down();
        // A test that failed has something else to say.
        if !std::thread::panicking() {
            must(down);
        }
    }
}

fn must(done: Result<(), String>) {
    if let Err(error) = done {
        panic!("{error}");
    }
}

/// A variable of a server's scripts.
fn variable(server: &str, what: &str) -> String {
    let server = if server == "rabbitmq" { "rabbit" } else { server };
    format!("{}_{what}", server.to_uppercase())
}
