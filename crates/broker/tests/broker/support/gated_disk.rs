//! A gate for a disk whose syncs can be held up, and can fail.

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use baton_log::FileDisk;
use baton_testkit::ProbedDisk;

/// Held syncs wait here.
#[derive(Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_closed: bool,
    waiting: usize,
    is_broken: bool,
}

/// The gate is closed as long as this lives.
pub struct Held<'a>(&'a Gate);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.state.lock().expect("nobody panics with it").is_closed = false;
        self.0.changed.notify_all();
    }
}

impl Gate {
    /// Holds up every sync that begins from now on.
    pub fn hold(&self) -> Held<'_> {
        self.state.lock().expect("nobody panics with it").is_closed = true;
        Held(self)
    }

    /// Syncs being held up.
    pub fn waiting(&self) -> usize {
        self.state.lock().expect("nobody panics with it").waiting
    }

    /// Lets every sync fail from now on, also those that are held up.
    pub fn break_disk(&self) {
        self.state.lock().expect("nobody panics with it").is_broken = true;
    }

    fn pass(&self) -> io::Result<()> {
        let mut state = self.state.lock().expect("nobody panics with it");
        state.waiting += 1;
        state = self.changed.wait_while(state, |state| state.is_closed).expect("nobody panics with it");
        state.waiting -= 1;
        if state.is_broken { Err(io::Error::other("the disk is broken")) } else { Ok(()) }
    }
}

/// A real disk behind a [`Gate`].
pub fn gated_disk(disk: FileDisk, gate: Arc<Gate>) -> ProbedDisk<FileDisk> {
    ProbedDisk::new(disk, move || gate.pass())
}
