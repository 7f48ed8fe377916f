//! Real servers, started and killed by the project's scripts.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Below the range that the system gives to outgoing connections: nobody takes the port of a server that is being restarted.
const PORTS: std::ops::Range<u16> = 22_000..23_000;

/// A running server with its own data; ends with this value.
pub struct Server {
    name: &'static str,
    port: u16,
    data: tempfile::TempDir,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name)
}

/// Free now, and never given out by this process before.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two processes that test at the same time begin at different places.
    let (first, size) = (u16::try_from(std::process::id() % 997).unwrap(), PORTS.end - PORTS.start);
    (0..size)
        .map(|_| PORTS.start + (first + NEXT.fetch_add(1, Relaxed)) % size)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

impl Server {
    /// Starts `postgres`, `mariadb` or `redis`.
    pub fn start(name: &'static str) -> Self {
        // Not below the repository: the servers run as users of their own, who may not be able to reach it.
        let server = Self { name, port: free_port(), data: tempfile::tempdir().unwrap() };
        let mut open = std::fs::metadata(server.data.path()).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o755);
        std::fs::set_permissions(server.data.path(), open).unwrap();
        server.up();
        server
    }

    pub fn port(&self) -> u16 {
        self.port
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

    fn up(&self) {
        let output = self.command("up").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{} did not start (scripts/setup-tests installs it):\n{said}", self.name);
    }

    fn down(&self, how: &str) {
        let how = format!("{}_{how}", self.name.to_uppercase());
        let output = self.command("down").env(how, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// kill -9, and again on its data.
    pub fn restart(&self) {
        self.down("KILL");
        self.up();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.down("KILL");
    }
}
