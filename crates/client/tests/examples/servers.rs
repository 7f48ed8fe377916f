//! Real servers, started and stopped by the project's scripts.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Below the range that the system gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 23_000..24_000;
/// Kafka wants one for its controller.
const PORTS_OF_A_SERVER: u16 = 2;

/// A server with its own data; ends with this value.
pub struct Server {
    name: &'static str,
    port: u16,
    data: tempfile::TempDir,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name)
}

/// The first of [`PORTS_OF_A_SERVER`] that are free now, and never given out by this process before.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two processes that test at the same time begin at different places.
    let width = (PORTS.end - PORTS.start) / PORTS_OF_A_SERVER;
    let first = u16::try_from(std::process::id() % u32::from(width)).unwrap();
    (0..width)
        .map(|_| PORTS.start + (first + NEXT.fetch_add(1, Relaxed)) % width * PORTS_OF_A_SERVER)
        .find(|port| (*port..port + PORTS_OF_A_SERVER).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()))
        .expect("free ports")
}

impl Server {
    /// Starts `postgres` or `kafka`.
    pub fn start(name: &'static str) -> Self {
        // Not below the repository: Postgres runs as a user of its own, who may not be able to reach it.
        let server = Self { name, port: free_ports(), data: tempfile::tempdir().unwrap() };
        let mut open = std::fs::metadata(server.data.path()).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o755);
        std::fs::set_permissions(server.data.path(), open).unwrap();
        let output = server.command("up").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name} did not start (scripts/setup-tests installs it):\n{said}");
        server
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn command(&self, what: &str) -> Command {
        let mut command = Command::new(script(&format!("{}-{what}", self.name)));
        let variable = |what: &str| format!("{}_{what}", self.name.to_uppercase());
        command
            .env(variable("DATA"), self.data.path().join("data"))
            .env(variable("PORT"), self.port.to_string())
            // An interrupted test cannot stop it any more.
            .env(variable("OWNER"), std::process::id().to_string())
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let kill = format!("{}_KILL", self.name.to_uppercase());
        let output = self.command("down").env(kill, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
