//! `perf record` of a server during exactly the measured run.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Fallible;

/// Samples per second; off the beat of timers that fire a hundred or a thousand times.
const SAMPLES_PER_SECOND: &str = "499";

/// A recording that runs; killed when dropped before [`Recording::stop`].
pub struct Recording {
    perf: Child,
}

impl Recording {
    /// Starts to record `pids` into `folder/name.data`. perf itself takes a little processor time.
    pub fn start(pids: &[u32], folder: &Path, name: &str) -> Fallible<Self> {
        std::fs::create_dir_all(folder)?;
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let perf = Command::new("perf")
            .args(["record", "-q", "-F", SAMPLES_PER_SECOND, "--call-graph", "fp", "-p", &pids.join(","), "-o"])
            .arg(folder.join(format!("{name}.data")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("perf: {error} (Debian: linux-perf)"))?;
        Ok(Self { perf })
    }

    /// Ends the recording; perf then writes the rest of its file.
    pub fn stop(mut self) -> Fallible<()> {
        let pid = i32::try_from(self.perf.id()).ok().and_then(rustix::process::Pid::from_raw).ok_or("process id 0")?;
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        // perf ends by the signal that it was sent, so its status says nothing; the report tells whether it recorded.
        self.perf.wait()?;
        Ok(())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // After a stop it has ended already, and there is nothing to kill.
        let _ = self.perf.kill();
        let _ = self.perf.wait();
    }
}
