//! An example as a process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What never takes so long, unless it never happens.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The program that cargo has built of an example, beside this test.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).expect("the test lies in target/<profile>/deps");
    let program = folder.join("examples").join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(format!("{name}.rs"));
    let age = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    assert!(
        age(&program) >= age(&source),
        "{} is not there or older than its source: `cargo test -p baton` builds examples, `--test examples` alone does not",
        program.display()
    );
    program
}

/// A process that is killed when this is dropped.
pub struct Program {
    name: String,
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(built(name)).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("it was piped"));
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { name: name.to_owned(), child, lines }
    }

    /// Waits for the first line that holds this, and gives it.
    pub fn said(&self, what: &str) -> String {
        let ended = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(ended.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(what) => return line,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("{} did not say {what:?} within {PATIENCE:?}", self.name),
                Err(RecvTimeoutError::Disconnected) => panic!("{} ended without saying {what:?}", self.name),
            }
        }
    }

    /// -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As ctrl-c does; the last thing that it says.
    pub fn interrupt(mut self, last: &str) -> String {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let said = self.said(last);
        self.ends_well();
        said
    }

    pub fn ends_well(&mut self) {
        let began = Instant::now();
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "{} did not end within {PATIENCE:?}", self.name);
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{}: {status}", self.name);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for something that a database says.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
