//! kill -9 of the broker under load, again and again, and a verdict over what its clients were told.

mod consumers;
mod history;
mod producers;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;

use self::consumers::{Member, Observer};
use self::history::Moments;
use self::producers::{PLANS, Producer, topics};
use crate::CompatError;
use crate::places::Places;
use crate::server::{Kind, Server};

/// A life of the broker ends after a random time within these bounds. The shortest end while its clients come back.
const LIFE_MS: std::ops::Range<u64> = 20..1200;
/// How long it stays dead, at random; the shortest is at once.
const DEATH_MS: std::ops::Range<u64> = 0..150;
const MEMBERS: [&str; 2] = ["member-0", "member-1"];
/// After the last round the group must have read everything within this time.
const DRAIN_WAIT: Duration = Duration::from_secs(90);

/// What a run found.
pub struct CrashReport {
    /// What the checker printed.
    pub said: String,
    /// Whether it found nothing wrong.
    pub clean: bool,
    /// Wall clock of the whole run.
    pub took: Duration,
    /// Longest time from the start of the process until it listened.
    pub slowest_start: Duration,
}

/// Kills the broker `rounds` times under load. `seed` fixes the times of life and death; `folder` gets the histories.
pub fn run(kind: Kind, places: &Places, rounds: u32, seed: u64, folder: &Path) -> Result<CrashReport, CompatError> {
    let started = Instant::now();
    std::fs::create_dir_all(folder).map_err(CompatError::io(folder.display().to_string()))?;
    let settings = ["group.initial.rebalance.delay.ms=0", "group.min.session.timeout.ms=1000"].map(str::to_owned);
    let mut server = Server::start(kind, places, &settings)?;
    let address = server.address();
    create_topics(&address)?;
    let moments = Moments::default();
    let (stop_producers, stop_members) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let observer = Observer::start(&address, folder, moments.clone())?;
    let producers = PLANS.iter().map(|plan| Producer::start(plan, &address, folder, stop_producers.clone()));
    let producers = producers.collect::<Result<Vec<_>, _>>()?;
    let members =
        MEMBERS.iter().map(|name| Member::start(name, &address, folder, moments.clone(), stop_members.clone()));
    let members = members.collect::<Result<Vec<_>, _>>()?;

    let crashed = crash(&mut server, rounds, seed, &observer);

    stop_producers.store(true, Ordering::Relaxed);
    let sent = producers.into_iter().try_for_each(Producer::join);
    let drained = if crashed.is_ok() && sent.is_ok() { observer.wait_for_the_group(DRAIN_WAIT) } else { Ok(()) };
    stop_members.store(true, Ordering::Relaxed);
    let joined = members.into_iter().try_for_each(Member::join);
    let slowest_start = crashed?;
    sent.and(joined)?;

    let read = checker(places, "read").args(["--bootstrap", &address, "--history"]).arg(folder).output();
    let read = read.map_err(CompatError::io("compat/check_history.py read"))?;
    if !read.status.success() {
        return Err(CompatError::Server(String::from_utf8_lossy(&read.stderr).into_owned()));
    }
    let (clean, mut said) = check(places, folder)?;
    let group_is_through = drained.is_ok();
    if let Err(error) = drained {
        said.push_str(&format!("{error}\n"));
    }
    Ok(CrashReport { said, clean: clean && group_is_through, took: started.elapsed(), slowest_start })
}

/// The checker's verdict over the histories in a folder: whether it found nothing wrong, and what it printed.
pub fn check(places: &Places, folder: &Path) -> Result<(bool, String), CompatError> {
    let verdict = checker(places, "check").arg("--history").arg(folder).output();
    let verdict = verdict.map_err(CompatError::io("compat/check_history.py check"))?;
    let said = String::from_utf8_lossy(&verdict.stdout).into_owned() + &String::from_utf8_lossy(&verdict.stderr);
    Ok((verdict.status.success(), said))
}

fn checker(places: &Places, action: &str) -> Command {
    let mut command = Command::new(places.cache.join("python/bin/python"));
    command.arg(places.root.join("compat/check_history.py")).arg(action);
    command
}

fn crash(server: &mut Server, rounds: u32, seed: u64, observer: &Observer) -> Result<Duration, CompatError> {
    let mut random = Random(seed);
    let mut slowest = Duration::ZERO;
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(random.within(LIFE_MS)));
        server.kill()?;
        std::thread::sleep(Duration::from_millis(random.within(DEATH_MS)));
        let started = Instant::now();
        server.start_again()?;
        slowest = slowest.max(started.elapsed());
        observer.look()?;
    }
    Ok(slowest)
}

fn create_topics(address: &str) -> Result<(), CompatError> {
    let admin: AdminClient<DefaultClientContext> =
        client_config(address).create().map_err(failed("an admin client"))?;
    let all = topics();
    let new: Vec<NewTopic<'_>> =
        all.iter().map(|(name, partitions)| NewTopic::new(name, *partitions, TopicReplication::Fixed(1))).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(CompatError::io("a runtime"))?;
    let answers = runtime.block_on(admin.create_topics(&new, &AdminOptions::new())).map_err(failed("topics"))?;
    match answers.into_iter().find_map(Result::err) {
        None => Ok(()),
        Some((topic, code)) => Err(CompatError::Server(format!("creating {topic}: {code}"))),
    }
}

/// Settings of every client: it comes back soon after a crash, and says nothing about it.
fn client_config(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "100")
        .set("log_level", "0");
    config
}

fn failed(what: &'static str) -> impl FnOnce(KafkaError) -> CompatError {
    move |error| CompatError::Server(format!("{what}: {error}"))
}

/// SplitMix64: the same seed gives the same times on every machine.
struct Random(u64);

impl Random {
    fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        range.start + (mixed ^ (mixed >> 31)) % (range.end - range.start)
    }
}
