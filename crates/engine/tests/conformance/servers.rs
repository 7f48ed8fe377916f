//! Where the servers' files are, and which ports they get.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Below the range that the system gives to outgoing connections, so that a client that dials while a server is down cannot take
/// the server's port.
const PORTS: std::ops::Range<u16> = 21_000..22_000;

/// How long a server may take to start on a machine that is busy with other tests.
pub(crate) const START_SECONDS_MAX: u32 = 240;

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// What `scripts/setup-tests` fills.
pub(crate) fn cache() -> PathBuf {
    std::env::var_os("BATON_CACHE").map_or_else(|| root().join(".cache"), PathBuf::from)
}

/// A port that nobody listens on, and that this process gives out once.
pub(crate) fn free_port() -> u16 {
    free_ports(1)
}

/// The first of so many ports in a row.
pub(crate) fn free_ports(count: u16) -> u16 {
    baton_testkit::servers::free_ports(&PORTS, count)
}

/// Runs one of the project's scripts. They wait for readiness themselves, and say why if it does not come.
pub(crate) async fn script(name: &str, settings: &[(&str, String)], arguments: &[String]) -> Result<String, String> {
    let mut command = Command::new(root().join("scripts").join(name));
    command.args(arguments).stdin(Stdio::null());
    for (key, value) in settings {
        command.env(key, value);
    }
    let ran = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let output = ran.map_err(|error| format!("scripts/{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("scripts/{name} failed: {}", String::from_utf8_lossy(&output.stderr)))
}
