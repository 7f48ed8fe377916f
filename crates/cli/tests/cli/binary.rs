//! Runs the binary.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn baton(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.args(arguments).env_remove("BATON_LOG").stdin(Stdio::null());
    command
}

/// Runs it to its end; code, stdout and stderr.
pub fn ran(arguments: &[&str]) -> (Option<i32>, String, String) {
    told(&baton(arguments).output().unwrap())
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A broker that is ready; killed when dropped.
pub struct Serving {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// What it has said, to the end of the start text at least.
    pub said: String,
}

impl Serving {
    /// On a free port.
    pub fn start(data: &Path, more: &[&str]) -> Self {
        let data = data.to_str().unwrap();
        let arguments = [&["serve", "--data", data, "--listen", "127.0.0.1:0"], more].concat();
        let mut child = baton(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut serving = Self { child, stdout, said: String::new() };
        serving.wait_until_it_says("Ctrl-C stops it.");
        serving
    }

    /// Reads what it says; ends with the process at the latest.
    pub fn wait_until_it_says(&mut self, words: &str) {
        while !self.said.contains(words) && self.stdout.read_line(&mut self.said).unwrap() > 0 {}
    }

    /// Where clients connect.
    pub fn address(&self) -> String {
        let line = self.said.lines().find_map(|line| line.trim().strip_prefix("clients"));
        line.expect("the start text names the address").trim().to_owned()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end; the exit code, and what was said after the start.
    pub fn ended(mut self) -> (Option<i32>, String) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "still running");
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (status.code(), rest)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Gone already where the test got so far.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
