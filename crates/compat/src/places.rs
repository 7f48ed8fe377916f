//! Where the tools, the suites and the binaries are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::CompatError;

/// Paths of everything that a run needs.
#[derive(Clone, Debug)]
pub struct Places {
    /// The repository.
    pub root: PathBuf,
    /// What `scripts/setup-tests` fills.
    pub cache: PathBuf,
    /// The suite of the Rust client.
    pub rust_client: PathBuf,
}

impl Places {
    /// Finds the repository, and checks that the tests' tools are there: a run without them fails, it skips nothing.
    pub fn find(rust_client: PathBuf) -> Result<Self, CompatError> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = root.canonicalize().map_err(CompatError::io("the repository"))?;
        let cache = std::env::var_os("BATON_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from);
        let check = Command::new(root.join("scripts/setup-tests"))
            .arg("--check")
            .output()
            .map_err(CompatError::io("scripts/setup-tests --check"))?;
        if check.status.success() {
            Ok(Self { root, cache, rust_client })
        } else {
            Err(CompatError::NotSetUp(String::from_utf8_lossy(&check.stderr).into_owned()))
        }
    }
}

/// The `baton` binary: the one that `BATON_BIN` names, or else built by cargo, once in a process.
pub fn baton_binary(root: &Path) -> Result<PathBuf, CompatError> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| match std::env::var_os("BATON_BIN") {
        Some(path) => Ok(PathBuf::from(path)),
        None => build_baton(root),
    });
    built.clone().map_err(CompatError::Server)
}

fn build_baton(root: &Path) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--package", "baton-cli", "--bin", "baton", "--message-format", "json"])
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo build: {error}"))?;
    if !output.status.success() {
        return Err("baton does not build".into());
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .next_back()
        .ok_or_else(|| "cargo build named no executable".into())
}
