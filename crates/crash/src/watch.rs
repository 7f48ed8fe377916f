//! Notices that everything stood still: the machine slept, or somebody froze it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::now_ms;
use crate::history::{EVERYBODY, History, Line};

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A busy machine lets a thread wait for a while; from here on leases and sessions may have ended.
const STOOD_STILL_MS: u64 = 2_000;

/// Writes down when this process, and so all of them, stood still; until it is dropped.
pub(crate) struct Watch {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(history: Arc<History>) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut last_ms = now_ms();
            while !until.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK_EVERY);
                let at_ms = now_ms();
                if at_ms - last_ms > STOOD_STILL_MS {
                    // Without this line the verdict is stricter, not laxer.
                    let _ = history.add(&Line::Paused { member: EVERYBODY, from_ms: last_ms, to_ms: at_ms });
                }
                last_ms = at_ms;
            }
        });
        Self { ends, thread: Some(thread) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
