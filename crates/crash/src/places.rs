//! Where scripts and binaries are, and what can go wrong with a run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use thiserror::Error;

/// A run could not be done. What a run found is no error.
#[derive(Debug, Error)]
pub enum CrashError {
    /// The operating system.
    #[error("{what}: {error}")]
    Io {
        /// What was being done.
        what: String,
        /// What it said.
        error: std::io::Error,
    },
    /// A process did not do what it was started for.
    #[error("{0}")]
    Process(String),
}

impl CrashError {
    /// For `map_err`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}

/// Paths of everything that a run needs.
#[derive(Debug, Clone)]
pub struct Places {
    /// The repository.
    pub root: PathBuf,
    /// What `scripts/setup-tests` fills.
    pub cache: PathBuf,
    /// The program whose subcommands are the driver and those that it starts.
    pub program: PathBuf,
}

impl Places {
    /// Finds the repository.
    ///
    /// # Errors
    /// When it is not where it was when this was compiled.
    pub fn find(program: PathBuf) -> Result<Self, CrashError> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = root.canonicalize().map_err(CrashError::io("the repository"))?;
        let cache = std::env::var_os("BATON_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from);
        Ok(Self { root, cache, program })
    }

    /// The `baton` binary: the one that `BATON_BIN` names, or else built by cargo, once in a process.
    pub(crate) fn baton(&self) -> Result<PathBuf, CrashError> {
        static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let built = BUILT.get_or_init(|| match std::env::var_os("BATON_BIN") {
            Some(path) => Ok(PathBuf::from(path)),
            None => build_baton(&self.root),
        });
        built.clone().map_err(CrashError::Process)
    }
}

/// What a checker says of the histories in a folder and a database: whether it found nothing wrong, and what it printed.
pub(crate) fn verdict(
    checker: &str,
    places: &Places,
    folder: &Path,
    database: &str,
) -> Result<(bool, String), CrashError> {
    let output = Command::new("python3")
        .arg(places.root.join("crates/crash").join(checker))
        .arg("--history")
        .arg(folder)
        .args(["--database", database])
        .output()
        .map_err(CrashError::io(checker))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), said))
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
