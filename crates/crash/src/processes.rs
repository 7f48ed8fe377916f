//! Processes that are started to be killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::places::{CrashError, Places};
use crate::servers::output_of;

/// Lines of its output that the message about a failure quotes.
const LAST_WORDS: usize = 15;
const POLL: Duration = Duration::from_millis(20);
/// Until a process has begun, or a consumer is a member of the group.
pub(crate) const READY_WAIT: Duration = Duration::from_secs(120);

/// A process whose output goes to a file; killed when this value ends.
pub(crate) struct Process {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts it, to end with this process; what it prints goes to `name.log` in the folder.
    pub(crate) fn start(name: &str, command: &Command, places: &Places, folder: &Path) -> Result<Self, CrashError> {
        let mut held = Command::new(&places.program);
        held.args(["held", "--driver", &std::process::id().to_string(), "--"]);
        held.arg(command.get_program()).args(command.get_args());
        let output = output_of(name, folder)?;
        let errors = output.try_clone().map_err(CrashError::io("the output of a process"))?;
        let spawned = held.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let child = spawned.map_err(CrashError::io(format!("starting {name}")))?;
        Ok(Self { name: name.to_owned(), child, output: folder.join(format!("{name}.log")) })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is in what it has printed so far.
    pub(crate) fn has_said(&self, text: &str) -> bool {
        std::fs::read_to_string(&self.output).is_ok_and(|said| said.contains(text))
    }

    /// Fails if it has ended although nobody told it to.
    pub(crate) fn check(&mut self) -> Result<(), CrashError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(&format!("ended with {status}"))),
            Err(error) => Err(self.failed(&error.to_string())),
        }
    }

    /// kill -9; fails if it had ended before.
    pub(crate) fn kill(mut self) -> Result<(), CrashError> {
        self.check()?;
        self.child.kill().map_err(CrashError::io(format!("killing {}", self.name)))?;
        self.child.wait().map(drop).map_err(CrashError::io(format!("waiting for {}", self.name)))
    }

    /// Asks it to end, and fails if it does not in this time, or says that it failed.
    pub(crate) fn stop(mut self, wait: Duration) -> Result<(), CrashError> {
        self.check()?;
        self.signal(Signal::TERM)?;
        self.finish(wait)
    }

    /// Makes it stand still: it keeps its connections, and says nothing any more.
    pub(crate) fn pause(&self) -> Result<(), CrashError> {
        self.signal(Signal::STOP)
    }

    /// Makes it go on as if no time had passed.
    pub(crate) fn go_on(&self) -> Result<(), CrashError> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), CrashError> {
        // A process id is positive and fits.
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return Ok(()) };
        kill_process(pid, signal).map_err(|error| self.failed(&error.to_string()))
    }

    /// Waits until it ends by itself.
    pub(crate) fn finish(mut self, wait: Duration) -> Result<(), CrashError> {
        let deadline = Instant::now() + wait;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(self.failed(&format!("ended with {status}"))),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
                Ok(None) => return Err(self.failed(&format!("has not ended after {wait:?}"))),
                Err(error) => return Err(self.failed(&error.to_string())),
            }
        }
    }

    fn failed(&self, what: &str) -> CrashError {
        let said = std::fs::read_to_string(&self.output).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n");
        CrashError::Process(format!("{} {what}:\n{last}", self.name))
    }
}

/// Waits until the process of this name says that it has begun; `lives` fails when somebody ended whom nobody killed.
pub(crate) fn wait_until_ready(
    folder: &Path,
    name: &str,
    mut lives: impl FnMut() -> Result<(), CrashError>,
) -> Result<(), CrashError> {
    let marker = folder.join(format!("{name}.ready"));
    wait_until(name, || lives().map(|()| marker.exists()))
}

/// Waits until this process is ready; `is_ready` fails when somebody ended whom nobody killed.
pub(crate) fn wait_until(name: &str, mut is_ready: impl FnMut() -> Result<bool, CrashError>) -> Result<(), CrashError> {
    let deadline = Instant::now() + READY_WAIT;
    while !is_ready()? {
        if Instant::now() > deadline {
            return Err(CrashError::Process(format!("{name} is not ready after {READY_WAIT:?}")));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
