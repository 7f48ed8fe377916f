//! Waiting until another connection has committed.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

use super::link::Link;
use super::sql;
use crate::OutboxError;

/// How soon the counter is looked at again while somebody writes, or where files cannot be watched: from here, doubled, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// See [`PAUSE_MIN`].
const PAUSE_MAX: Duration = Duration::from_millis(16);
/// How long after the log was written to a commit may become visible without anything more being written to it: the time of a sync. One that
/// takes longer is found at the end of the wait.
const SYNC_WAIT: Duration = Duration::from_millis(500);

/// A commit is written to the write-ahead log, which the kernel tells, and becomes visible after the log was synced, which it does not. So
/// from the first on `data_version` is looked at, which changes with the second: a counter in shared memory.
pub(super) struct Sleep {
    link: Link,
    /// The write-ahead log.
    log: PathBuf,
    seen: Option<i64>,
    watch: Option<AsyncFd<OwnedFd>>,
    /// Somebody may be writing until then.
    busy_until: Option<Instant>,
}

impl Sleep {
    pub(super) fn new(link: Link, database: &Path) -> Self {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        Self { link, log: log.into(), seen: None, watch: None, busy_until: None }
    }

    /// Returns when something was committed since it returned last. So what was looked for in between need not be seen twice: whatever was
    /// committed before it was looked for was found, and what was committed since ends the next wait at once.
    pub(super) async fn wait(&mut self, at_most: Duration) -> Result<(), OutboxError> {
        let end = Instant::now() + at_most;
        let mut pause = PAUSE_MIN;
        loop {
            if self.has_changed().await? {
                return Ok(());
            }
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            match self.watch.as_ref().filter(|_| self.busy_until.is_none_or(|until| now >= until)) {
                Some(watch) => {
                    if timeout_at(end, written(watch)).await.is_ok() {
                        self.busy_until = Some(Instant::now() + SYNC_WAIT);
                        pause = PAUSE_MIN;
                    }
                }
                None => {
                    sleep(pause.min(end - now)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn has_changed(&mut self) -> Result<bool, OutboxError> {
        let version = |connection: &mut Connection| connection.query_row(sql::DATA_VERSION, [], |row| row.get(0));
        let version: Result<i64, OutboxError> = self.link.run("waiting for rows", version).await;
        let Ok(version) = version else {
            // The next connection counts anew, and the log may be another file by then.
            (self.seen, self.watch) = (None, None);
            return version.map(|_| true);
        };
        // The log is there while a connection to the database is.
        if self.watch.is_none() {
            self.watch = watch(&self.log);
        }
        let changed = self.seen != Some(version);
        self.seen = Some(version);
        Ok(changed)
    }
}

/// Nothing where there is no room for one more.
#[allow(
    deprecated,
    reason = "its successor is unsafe for types that may change their descriptor, which an `OwnedFd` does not"
)]
fn watch(file: &Path) -> Option<AsyncFd<OwnedFd>> {
    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
    inotify::add_watch(&watch, file, WatchFlags::MODIFY).ok()?;
    AsyncFd::new(watch).ok()
}

/// What was written is told once for all that came together.
async fn written(watch: &AsyncFd<OwnedFd>) {
    // It does not fail while the runtime lives.
    let Ok(mut ready) = watch.readable().await else { return };
    let mut events = [MaybeUninit::<u8>::uninit(); 4096];
    while matches!(rustix::io::read(watch.get_ref(), &mut events), Ok((read, _)) if !read.is_empty()) {}
    ready.clear_ready();
}
