//! What the clients were told, one JSON object a line; `compat/check_history.py` says what each means.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::CompatError;

/// An object of the history.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[allow(missing_docs, reason = "compat/check_history.py says what each field means, it is the one that reads them")]
pub enum Line<'a> {
    Sent { producer: &'a str, idempotent: bool, topic: &'a str, partition: i32, count: u64 },
    Acknowledged { producer: &'a str, topic: &'a str, partition: i32, number: u64, offset: i64, value: &'a str },
    Failed { producer: &'a str, error: String },
    Read { topic: &'a str, partition: i32, offset: i64, value: &'a str },
    Committed { topic: &'a str, partition: i32, offset: i64, at: u64 },
    Found { topic: &'a str, partition: i32, offset: i64, asked_at: u64 },
}

/// Counts moments, so that what was told can be put before or after what was asked.
#[derive(Clone, Default)]
pub struct Moments(Arc<AtomicU64>);

impl Moments {
    /// The next moment.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// A file of the history.
#[derive(Clone)]
pub struct History(Arc<Mutex<State>>);

struct State {
    file: BufWriter<File>,
    error: Option<std::io::Error>,
}

impl History {
    /// Creates `name.jsonl` in the folder.
    pub fn create(folder: &Path, name: &str) -> Result<Self, CompatError> {
        let path = folder.join(format!("{name}.jsonl"));
        let file = File::create(&path).map_err(CompatError::io(path.display().to_string()))?;
        Ok(Self(Arc::new(Mutex::new(State { file: BufWriter::new(file), error: None }))))
    }

    /// Appends a line; a failure is told by `finish`.
    pub fn add(&self, line: &Line<'_>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = serde_json::to_writer(&mut state.file, line)
            .map_err(std::io::Error::from)
            .and_then(|()| state.file.write_all(b"\n"));
        if let Err(error) = written {
            state.error.get_or_insert(error);
        }
    }

    /// Writes everything out.
    ///
    /// # Errors
    /// When a line could not be written.
    pub fn finish(&self) -> Result<(), CompatError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let flushed = state.file.flush();
        state.error.take().map_or(flushed, Err).map_err(CompatError::io("writing the history"))
    }
}
