//! What ends a command that runs until it is told to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Failure;

/// Ctrl-C, and what service managers send.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, Failure> {
        let caught = |kind| signal(kind).map_err(|error| Failure::failed("signals cannot be caught", &error));
        Ok(Self { interrupt: caught(SignalKind::interrupt())?, terminate: caught(SignalKind::terminate())? })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
