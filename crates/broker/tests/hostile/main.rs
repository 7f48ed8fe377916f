//! What a hostile client can do to a broker: it is answered or its connection ends, with a counted reason; the memory of the process
//! stays within its bound, and others are served.
//!
//! A target of its own, because it measures its process: one test at a time.

// What a test helper cannot do is a failure of the test; what a run measured is printed.
#![allow(clippy::expect_used, clippy::print_stdout)]

mod amplification;
mod batches;
mod crowd;
mod frames;
mod noise;
#[path = "../broker/support/mod.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use support::batches::batch;
use support::server::Server;

/// By how much this process may grow in one test: broker, test, and 2,000 connections with both of their ends. A broker that believed
/// one of the lengths it is told here would need 2 GiB at once. What tests before have left to the allocator is not counted again.
const GROWTH_BYTES_MAX: u64 = 256 << 20;

/// How long records of others may take: what two busy cores and a debug build need, and far less than any limit on time that the
/// tests set, so that waiting for one of these shows.
const P99_MAX: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(10);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of memory that the process holds.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the process's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the resident size");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

/// Looks at the memory all the time, until it is asked for the most that it saw.
struct MemoryWatch {
    before: u64,
    stop: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<u64>,
}

impl MemoryWatch {
    fn start() -> Self {
        let before = resident_bytes();
        let (stop, stopped) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut most = before;
            while stopped.recv_timeout(Duration::from_millis(5)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                most = most.max(resident_bytes());
            }
            most.max(resident_bytes())
        });
        Self { before, stop, thread }
    }

    /// Fails when there was more than there may be.
    fn finish(self, what: &str) {
        self.stop.send(()).expect("it still watches");
        let most = self.thread.join().expect("it watches to the end");
        let growth = most - self.before;
        println!("{what}: at most {} MiB resident, {} MiB more than before", most >> 20, growth >> 20);
        assert!(growth <= GROWTH_BYTES_MAX, "{what}: grew by {} MiB", growth >> 20);
    }
}

/// Records that a bystander produces at least.
const RECORDS_MIN: usize = 20;

/// Produces one record after the other, and remembers how long each took.
struct Bystander {
    stop: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<Vec<Duration>>,
}

impl Bystander {
    /// Needs a topic `bystander`.
    fn start(server: &Server) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel();
        let mut client = server.client();
        let thread = std::thread::spawn(move || {
            let mut took = Vec::new();
            // What it stands beside may be over in a blink; fewer records would say nothing of a percentile.
            let mut stop = false;
            while !stop || took.len() < RECORDS_MIN {
                stop |= stopped.try_recv().is_ok();
                let begun = Instant::now();
                client.produce("bystander", batch(&["still served"]));
                took.push(begun.elapsed());
            }
            took
        });
        Self { stop, thread }
    }

    /// Fails when they took longer than a machine that is busy with other things explains.
    fn finish(self, what: &str) {
        self.stop.send(()).expect("it still produces");
        let mut took = self.thread.join().expect("it produces to the end");
        took.sort();
        let at = |percent: usize| took[(took.len() - 1) * percent / 100];
        println!("{what}: {} records beside it, p50 {:?}, p99 {:?}, longest {:?}", took.len(), at(50), at(99), at(100));
        assert!(at(99) <= P99_MAX, "{what}: p99 is {:?}", at(99));
        assert!(at(100) <= LONGEST, "{what}: a record took {:?}", at(100));
    }
}

/// All ends of connections that were counted.
fn closed_in_all(server: &Server) -> u64 {
    let metrics = server.metrics();
    let closed = metrics.iter().filter(|(name, _)| name.starts_with("baton_connections_closed_total"));
    closed.map(|(_, count)| *count as u64).sum()
}
