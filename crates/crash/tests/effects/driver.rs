//! The driver itself.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::places;

const READY_WAIT: Duration = Duration::from_secs(120);
/// Longer than the watchers of the scripts need to see that their owner is gone.
const END_WAIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// Processes that were started with this folder among their arguments, beside the driver.
fn with_folder(folder: &Path, driver: u32) -> Vec<(i32, String)> {
    let folder = folder.to_str().unwrap();
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let arguments = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let found = pids.filter(|pid| i64::from(*pid) != i64::from(driver)).map(|pid| (pid, arguments(pid)));
    found.filter(|(_, arguments)| arguments.contains(folder)).collect()
}

fn wait_until(what: &str, wait: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + wait;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {wait:?}: {what}");
        std::thread::sleep(POLL);
    }
}

#[test]
fn nobody_outlives_a_driver_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = Command::new(&places().program)
        .args([
            "run",
            "--engine",
            "embedded",
            "--guard",
            "inbox",
            "--database",
            "sqlite",
            "--kills",
            "1000",
            "--folder",
        ])
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let running = |what: &'static str| {
        let of = with_folder(folder.path(), driver.id());
        of.into_iter().find(|(_, arguments)| arguments.contains(what)).map(|(pid, _)| pid)
    };
    wait_until("the producer runs", READY_WAIT, || running("--name\0producer").is_some());
    assert!(running("serve\0--data").is_some(), "the broker runs");
    // Who stands still ends too.
    if let Some(undertaker) = running("--name\0undertaker").and_then(Pid::from_raw) {
        kill_process(undertaker, Signal::STOP).unwrap();
    }
    driver.kill().unwrap();
    driver.wait().unwrap();
    wait_until("everybody ends", END_WAIT, || with_folder(folder.path(), driver.id()).is_empty());
}
