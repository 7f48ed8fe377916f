//! How small it is when idle, and how soon it acknowledges after a start.

use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::dialects::kafka;
use crate::librdkafka::{Admin, Pipelined, Until};
use crate::server::{Kind, Places, Server};
use crate::works::RECORD_BYTES;
use crate::{Fallible, frames, machine};

/// A server that has not acknowledged by then has failed.
const FIRST_WAIT: Duration = Duration::from_secs(120);
/// How long a server is left alone before its memory counts as idle.
const IDLE: Duration = Duration::from_secs(5);
const TOPIC: &str = "start";
const FILL_PARTITIONS: i32 = 6;

/// A single figure that is not a load; one JSON line each.
#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    /// From 1.
    pub round: u32,
    /// Whose.
    pub side: String,
    /// What, with its unit last.
    pub fact: &'static str,
    /// How much.
    pub value: f64,
    /// What has to be known about it.
    pub note: String,
}

/// Start on an empty directory and memory when idle.
pub fn size(kind: Kind, places: &Places, round: u32) -> Fallible<Vec<Fact>> {
    let fact = |fact, value, note: &str| Fact { round, side: kind.name().into(), fact, value, note: note.into() };
    let mut facts = Vec::new();
    let server = match kind {
        Kind::Baton => {
            let data = places.scratch.join("start-empty");
            remove(&data)?;
            let started = Instant::now();
            let mut server = Server::spawn_baton(places, data)?;
            let waited = first_acknowledgement(&mut server, started, true)?;
            let note = "process start, CreateTopics, Produce, acknowledgement";
            facts.push(fact("start_empty_ms", waited.as_secs_f64() * 1e3, note));
            server
        }
        Kind::Kafka => Server::start(kind, places)?,
    };
    std::thread::sleep(IDLE);
    facts.push(fact("idle_resident_mib", machine::resident_mib(&server.pids).0, "5 s after the start, no clients"));
    server.stop()?;
    Ok(facts)
}

/// Fills `gib` GiB, kills the server, drops the page cache, and times the start to the first acknowledgement.
pub fn start_full(kind: Kind, places: &Places, round: u32, gib: u64) -> Fallible<Vec<Fact>> {
    let server = Server::start(kind, places)?;
    let data = server.data().to_owned();
    let admin = Admin::connect(&server.address)?;
    admin.create(TOPIC, FILL_PARTITIONS, &[])?;
    let value = frames::noise(RECORD_BYTES);
    let mut writer = Pipelined::connect(&server.address, TOPIC, FILL_PARTITIONS, &value)?;
    let (written, _) = writer.run(&Until::Records((gib << 30) / RECORD_BYTES as u64))?;
    drop((writer, admin));
    server.kill()?;

    let cache = drop_page_cache();
    let started = Instant::now();
    let mut server = match kind {
        Kind::Baton => Server::spawn_baton(places, data)?,
        Kind::Kafka => Server::start_on(kind, places, data)?,
    };
    let waited = first_acknowledgement(&mut server, started, false)?;
    let stored = Admin::connect(&server.address)?.stored(TOPIC, FILL_PARTITIONS)?;
    if stored != written + 1 {
        return Err(format!("{written} + 1 records acknowledged, {stored} stored after kill -9").into());
    }
    let (now, peak) = machine::resident_mib(&server.pids);
    server.stop()?;
    let fact = |fact, value, note: &str| Fact { round, side: kind.name().into(), fact, value, note: note.into() };
    let note = format!("{gib} GiB in {FILL_PARTITIONS} partitions, after kill -9, {cache}");
    Ok(vec![
        fact("start_full_ms", waited.as_secs_f64() * 1e3, &note),
        fact("start_full_resident_mib", now, &format!("peak {peak:.0} MiB")),
    ])
}

/// Time from `started` until one record is acknowledged, by a client that tries every millisecond.
fn first_acknowledgement(server: &mut Server, started: Instant, create: bool) -> Fallible<Duration> {
    let produce = frames::produce(TOPIC, &[0], &frames::batch(1, &frames::noise(RECORD_BYTES))?)?;
    let create_topic = frames::create_topic(TOPIC, 1)?;
    loop {
        let error = match attempt(&server.address, create.then_some(&create_topic), &produce) {
            Ok(()) => return Ok(started.elapsed()),
            Err(error) => error,
        };
        server.check_alive()?;
        if started.elapsed() > FIRST_WAIT {
            return Err(format!("no acknowledgement within {} s: {error}", FIRST_WAIT.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn attempt(address: &str, create_topic: Option<&Vec<u8>>, produce: &[u8]) -> Fallible<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(FIRST_WAIT))?;
    if let Some(create_topic) = create_topic {
        frames::check_created(&kafka::ask(&mut stream, create_topic)?)?;
    }
    frames::check_produced(&kafka::ask(&mut stream, produce)?)
}

fn drop_page_cache() -> &'static str {
    rustix::fs::sync();
    match std::fs::write("/proc/sys/vm/drop_caches", "3") {
        Ok(()) => "page cache dropped",
        Err(_) => "page cache kept (dropping it needs root)",
    }
}

fn remove(data: &Path) -> Fallible<()> {
    if data.exists() {
        std::fs::remove_dir_all(data)?;
    }
    Ok(())
}
