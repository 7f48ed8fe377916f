//! Runs a client's suite against a server.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::CompatError;
use crate::cases::Client;
use crate::places::Places;
use crate::server::{Kind, Server};
use crate::verdict::{Outcome, Results, parse};

/// A suite that takes longer hangs.
const SUITE_WAIT: Duration = Duration::from_secs(300);
const RESTART_ASKED: &str = "restart.asked";
const RESTART_DONE: &str = "restart.done";

/// What a suite reported, and how long it took with the start of its server.
pub struct SuiteRun {
    /// By case.
    pub results: Results,
    /// Wall clock.
    pub took: Duration,
}

/// Starts a server of its own and runs the suite of one client against it; `only` names single cases, none means all.
pub fn run_suite(client: Client, kind: Kind, places: &Places, only: &[String]) -> Result<SuiteRun, CompatError> {
    let started = Instant::now();
    let mut server = Server::start(kind, places, &settings(client, kind))?;
    let output_path = server.folder().join("suite.out");
    let errors_path = server.folder().join("suite.err");
    let create = |path: &Path| File::create(path).map_err(CompatError::io(path.display().to_string()));
    let mut command = suite_command(client, places);
    command.args(["--bootstrap", &server.address(), "--restart-hook", &restart_hook(server.folder())]);
    for case in only {
        command.args(["--case", case]);
    }
    let mut suite = command
        .stdin(Stdio::null())
        .stdout(create(&output_path)?)
        .stderr(create(&errors_path)?)
        .spawn()
        .map_err(CompatError::io(format!("the suite of {}", client.name())))?;
    let in_time = follow(&mut suite, &mut server)?;
    let output = std::fs::read_to_string(&output_path).map_err(CompatError::io("the suite's output"))?;
    let mut results = parse(&output);
    if results.is_empty() {
        let said = std::fs::read_to_string(&errors_path).unwrap_or_default();
        return Err(CompatError::Server(format!("the suite of {} ran nothing:\n{said}", client.name())));
    }
    if !in_time {
        let seconds = SUITE_WAIT.as_secs();
        results.insert("the_suite_ends".into(), Outcome::Failed(format!("it ran on after {seconds} s")));
    }
    Ok(SuiteRun { results, took: started.elapsed() })
}

/// Runs the suite against Apache Kafka, the reference, and once more, on a fresh server, what failed there: a real Kafka on
/// a loaded machine now and then lets a send expire, which says nothing of Baton. What passes only then is named, and
/// Baton's own cases never get a second run.
pub fn run_reference(client: Client, places: &Places, only: &[String]) -> Result<(SuiteRun, Vec<String>), CompatError> {
    let mut run = run_suite(client, Kind::Kafka, places, only)?;
    let failed: Vec<String> = run
        .results
        .iter()
        .filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
        .map(|(case, _)| case.clone())
        .collect();
    if failed.is_empty() {
        return Ok((run, Vec::new()));
    }
    let again = run_suite(client, Kind::Kafka, places, &failed)?;
    run.took += again.took;
    run.results.extend(again.results);
    Ok((run, failed))
}

/// Waits for the suite and restarts the server when it asks; false when the suite had to be killed.
fn follow(suite: &mut Child, server: &mut Server) -> Result<bool, CompatError> {
    let deadline = Instant::now() + SUITE_WAIT;
    let (asked, done) = (server.folder().join(RESTART_ASKED), server.folder().join(RESTART_DONE));
    loop {
        if suite.try_wait().map_err(CompatError::io("waiting for the suite"))?.is_some() {
            return Ok(true);
        }
        if Instant::now() > deadline {
            suite.kill().map_err(CompatError::io("killing the suite"))?;
            suite.wait().map_err(CompatError::io("waiting for the suite"))?;
            return Ok(false);
        }
        if asked.exists() {
            let restarted = server.kill().and_then(|()| server.start_again());
            std::fs::remove_file(&asked).map_err(CompatError::io(RESTART_ASKED))?;
            std::fs::write(&done, if restarted.is_ok() { "0" } else { "1" }).map_err(CompatError::io(RESTART_DONE))?;
            if let Err(error) = restarted {
                suite.kill().map_err(CompatError::io("killing the suite"))?;
                suite.wait().map_err(CompatError::io("waiting for the suite"))?;
                return Err(error);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The server belongs to this process, so the suite's hook leaves a file and waits for the answer.
fn restart_hook(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "rm -f '{folder}/{RESTART_DONE}'; touch '{folder}/{RESTART_ASKED}'; \
         until [ -s '{folder}/{RESTART_DONE}' ]; do sleep 0.05; done; exit \"$(cat '{folder}/{RESTART_DONE}')\""
    )
}

/// Both servers get the same settings, and Kafka some that make it start sooner on a small machine.
fn settings(client: Client, kind: Kind) -> Vec<String> {
    // kcat cannot create topics; for the others an unknown topic must stay unknown.
    let create = client == Client::Kcat;
    let mut settings = vec![
        "group.min.session.timeout.ms=1000".to_owned(),
        "group.initial.rebalance.delay.ms=0".to_owned(),
        format!("auto.create.topics.enable={create}"),
    ];
    if kind == Kind::Kafka {
        settings.push("offsets.topic.num.partitions=3".into());
        // A moved log start is written down once a minute by default, which a killed broker would not survive.
        settings.push("log.flush.start.offset.checkpoint.interval.ms=500".into());
        settings.push("log.initial.task.delay.ms=500".into());
    }
    settings
}

fn suite_command(client: Client, places: &Places) -> Command {
    let suites = places.root.join("compat");
    let python = || Command::new(places.cache.join("python/bin/python"));
    match client {
        Client::Kcat => {
            let mut command = python();
            command.arg(suites.join("kcat/suite.py"));
            command
        }
        Client::Python => {
            let mut command = python();
            command.arg(suites.join("python/suite.py"));
            command
        }
        Client::Java => {
            let mut command = Command::new("java");
            let (classes, jars) = (places.cache.join("java-suite"), places.cache.join("kafka-4.3.1"));
            command
                .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
                .arg(format!("{}:{}/*", classes.display(), jars.display()))
                .arg(format!("-Dlog4j2.configurationFile={}", suites.join("java/log4j2.properties").display()))
                .arg("Suite");
            command
        }
        Client::Rust => Command::new(&places.rust_client),
    }
}
