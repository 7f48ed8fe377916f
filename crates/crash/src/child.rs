//! What every process of a run does that the driver started.

use std::future::Future;
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::places::CrashError;

/// For `map_err`: what was being done when it failed.
pub fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> CrashError {
    move |error| CrashError::Process(format!("{what}: {error}"))
}

/// Runs a process of the driver's: its log goes to stderr.
///
/// # Errors
/// What it fails with, or that there are no threads for it.
pub fn run_child(work: impl Future<Output = Result<(), CrashError>>) -> Result<bool, CrashError> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BATON_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Runtime::new().map_err(CrashError::io("threads"))?;
    runtime.block_on(work).map(|()| true)
}

/// What the process ends with: whether nothing was wrong.
#[allow(clippy::print_stderr, reason = "the last words of a tool for the terminal")]
pub fn exit_code(program: &str, done: Result<bool, CrashError>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Resolves when the driver asks this process to end. From this call on a signal does not end it by itself.
///
/// # Errors
/// When signals cannot be caught.
pub fn told_to_end() -> Result<impl Future<Output = ()>, CrashError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(CrashError::io("catching signals"))?;
    Ok(async move {
        terminate.recv().await;
    })
}

/// Tells the driver that the process of this name has begun.
///
/// # Errors
/// When its marker cannot be written.
pub fn ready(history: &Path, name: &str) -> Result<(), CrashError> {
    let marker = history.join(format!("{name}.ready"));
    std::fs::write(&marker, "").map_err(CrashError::io(marker.display().to_string()))
}
