//! The suite of the Rust client (rdkafka): runs its cases against one server and prints PASS and FAIL lines.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its lines are its result")]

mod admin;
mod consume;
mod groups;
mod member;
mod produce;
mod restart;
mod server;

use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;

use crate::server::Server;

const PARALLEL_CASES: usize = 6;

/// How a case ends: nothing to say, or the reason why it failed.
type Outcome = Result<(), String>;
/// A case.
type Case = fn(&Server) -> Outcome;
/// What is left to do of a case after the broker was killed and started again.
type Rest = Box<dyn FnOnce(&Server) -> Outcome + Send>;
/// A case around such a restart.
type RestartCase = fn(&Server) -> Result<Rest, String>;

#[derive(Parser)]
struct Arguments {
    /// HOST:PORT of the server under test.
    #[arg(long)]
    bootstrap: String,
    /// Shell command: kill -9 the broker, start it again, return when it serves.
    #[arg(long)]
    restart_hook: Option<String>,
    /// Run only this case (repeatable).
    #[arg(long = "case")]
    cases: Vec<String>,
    /// Be a group member that is there to be killed: GROUP TOPIC SESSION_MS STRATEGY.
    #[arg(long, num_args = 4, hide = true)]
    member: Option<Vec<String>>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let server = Server::new(&arguments.bootstrap);
    if let Some([group, topic, session_ms, strategy]) = arguments.member.as_deref() {
        return match member::run_to_be_killed(&server, group, topic, session_ms, strategy) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let chosen = |name: &str| arguments.cases.is_empty() || arguments.cases.iter().any(|case| case == name);
    let plain: Vec<(&str, Case)> = [produce::CASES, consume::CASES, groups::CASES, admin::CASES].concat();
    let plain: Vec<(&str, Case)> = plain.into_iter().filter(|(name, _)| chosen(name)).collect();
    let restarts: Vec<(&str, RestartCase)> = restart::CASES.iter().copied().filter(|(name, _)| chosen(name)).collect();
    if plain.len() + restarts.len() == 0 {
        eprintln!("no such case");
        return ExitCode::FAILURE;
    }
    let passed = AtomicBool::new(true);
    run_all(plain, |name, case| report(&passed, name, "", || case(&server)));
    if !restarts.is_empty() {
        run_restarts(&server, restarts, arguments.restart_hook.as_deref(), &passed);
    }
    if passed.load(Ordering::Relaxed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs all jobs, some side by side.
fn run_all<J: Send>(jobs: Vec<(&'static str, J)>, run: impl Fn(&'static str, J) + Sync) {
    let queue = Mutex::new(jobs.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL_CASES {
            scope.spawn(|| {
                // The guard must be gone before the job runs, or the jobs would wait for each other.
                let next = || queue.lock().ok()?.next();
                while let Some((name, job)) = next() {
                    run(name, job);
                }
            });
        }
    });
}

fn report(passed: &AtomicBool, name: &str, when: &str, case: impl FnOnce() -> Outcome) {
    let started = Instant::now();
    match case() {
        Ok(()) => println!("PASS {name} {:.1}", started.elapsed().as_secs_f64()),
        Err(reason) => fail(passed, name, when, &reason),
    }
}

fn fail(passed: &AtomicBool, name: &str, when: &str, reason: &str) {
    passed.store(false, Ordering::Relaxed);
    println!("FAIL {name}: {when}{}", reason.split_whitespace().collect::<Vec<_>>().join(" "));
}

fn run_restarts(server: &Server, cases: Vec<(&'static str, RestartCase)>, hook: Option<&str>, passed: &AtomicBool) {
    let rests: Mutex<Vec<(&'static str, Rest)>> = Mutex::default();
    run_all(cases, |name, case| match (case(server), rests.lock()) {
        (Ok(rest), Ok(mut rests)) => rests.push((name, rest)),
        (Ok(_), Err(_)) => fail(passed, name, "before the restart: ", "another case panicked"),
        (Err(reason), _) => fail(passed, name, "before the restart: ", &reason),
    });
    let restarted = hook.ok_or("needs --restart-hook".to_owned()).and_then(|hook| {
        let status = Command::new("sh").args(["-c", hook]).stdout(Stdio::null()).status().map_err(|e| e.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("the restart hook ended with {status}")) }
    });
    run_all(rests.into_inner().unwrap_or_default(), |name, rest| {
        report(passed, name, "after the restart: ", || restarted.clone().and_then(|()| rest(server)));
    });
}

/// Fails the case with a message unless the condition holds.
fn check(condition: bool, message: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(message()) }
}

/// Fails the case unless both are equal, and says both.
fn equal<T: PartialEq + std::fmt::Debug>(actual: &T, expected: &T, what: &str) -> Outcome {
    const SHOWN_CHARACTERS_MAX: usize = 300;
    let shown = |value: &T| format!("{value:?}").chars().take(SHOWN_CHARACTERS_MAX).collect::<String>();
    check(actual == expected, || format!("{what}: expected {}, got {}", shown(expected), shown(actual)))
}

/// Waits until the condition gives a value.
fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Result<Option<T>, String>) -> Result<T, String> {
    let deadline = Instant::now() + server::WAIT_MAX;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        check(Instant::now() < deadline, || format!("not within {} s: {what}", server::WAIT_MAX.as_secs()))?;
        std::thread::sleep(Duration::from_millis(50));
    }
}
