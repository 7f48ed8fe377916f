//! What the processes of a run write down, one JSON object a line; `check_effects.py` and `check_relay.py` say what each means.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;

use serde::Serialize;

use crate::CrashError;

/// In place of a member, in [`Line::Paused`].
pub(crate) const EVERYBODY: &str = "everybody";

/// An object of the history.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[allow(missing_docs, reason = "the checkers say what each field means, they are the ones that read them")]
pub enum Line<'a> {
    Sending { key: &'a str, number: u64, amount: u64, poison: bool },
    Receipt { key: &'a str, number: u64 },
    Refused { key: &'a str, number: u64, stored: &'static str, error: String },
    Killed { member: &'a str },
    Paused { member: &'a str, from_ms: u64, to_ms: u64 },
    Fault { what: &'a str, hides_commits: bool, from_ms: u64, to_ms: u64 },
    Owner { member: &'a str, partition: &'a str, epoch: u64, at_ms: u64 },
    Ended { call: &'a str, how: &'static str, asked_ms: u64, at_ms: u64 },
    Dead { key: &'a str, number: u64 },
    Lag { r#where: &'a str, behind: u64 },
    Guard { name: &'a str, lease_ms: u64 },
    Attempt { name: &'a str, how: &'static str },
    Arrival { partition: u32, place: u64, key: Option<String>, stamp: Option<String>, head: String, bytes: usize },
}

/// A file of the history. Each line is one write of the operating system, so what was added outlives a kill of the process.
pub struct History(Mutex<File>);

impl History {
    /// Creates `name.jsonl` in the folder.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(folder: &Path, name: &str) -> Result<Self, CrashError> {
        let path = folder.join(format!("{name}.jsonl"));
        let file = File::options().create(true).append(true).open(&path);
        Ok(Self(Mutex::new(file.map_err(CrashError::io(path.display().to_string()))?)))
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When it was not written: whoever goes on then does things that nobody knows of.
    pub fn add(&self, line: &Line<'_>) -> Result<(), CrashError> {
        let mut text = serde_json::to_vec(line).map_err(|error| CrashError::Process(format!("a line: {error}")))?;
        text.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&text).map_err(CrashError::io("writing the history"))
    }
}
