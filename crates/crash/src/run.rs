//! The driver: starts everything, plays the rounds, waits for the end, and has the verdict given.

use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use crate::faults::{Addresses, Broker, Cast, address};
use crate::history::Line;
use crate::kinds::{DatabaseKind, EngineKind, GuardKind, name};
use crate::network::Network;
use crate::order::{DEAD_LETTERS, GROUP, PARTITIONS, TOPIC, UNDERTAKER};
use crate::places::{CrashError, Places, verdict};
use crate::plan::{Plan, Scope};
use crate::report::CrashReport;
use crate::servers::{Program, Server, database_address, free_port, start_database};

/// In how many of a hundred rounds the engine is killed, or stopped where that takes longer than everything else.
const ENGINE_PERCENT: u64 = 6;
const ENGINE_IN_ORDER_PERCENT: u64 = 3;
/// After the last send what is behind must become less within this time, again and again, until nothing is.
const DRAIN_WAIT: Duration = Duration::from_secs(90);
const DRAIN_POLL: Duration = Duration::from_millis(200);
/// How long the engine may take to answer a question.
const ASK_WAIT: Duration = Duration::from_secs(10);
/// Members that die are missed after two seconds instead of 45, or most rounds would pass without anybody taking over.
const KAFKA_SETTINGS: &[&str] = &["group.min.session.timeout.ms=1000", "group.initial.rebalance.delay.ms=0"];

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Options {
    /// What carries the messages.
    pub engine: EngineKind,
    /// What makes their effects happen once.
    pub guard: GuardKind,
    /// Where the effects are.
    pub database: DatabaseKind,
    /// Goes on until so many consumers were killed.
    pub kills: u32,
    /// Goes on for so long, however many kills that takes, and kills the engine and disturbs the network as well.
    pub lasts: Option<Duration>,
    /// Fixes what is done, and when.
    pub seed: u64,
    /// Whether the engine is killed too, and started again on its data.
    pub kill_engine: bool,
}

impl Options {
    /// The command that does the same again.
    pub fn replay(&self) -> String {
        let length = match self.lasts {
            Some(lasts) => format!("--minutes {}", lasts.as_secs() / 60),
            None => format!("--kills {}", self.kills),
        };
        let spared = if self.kill_engine { "" } else { " --spare-engine" };
        format!(
            "cargo run -p baton-crash --bin effects -- run {length} --engine {} --guard {} --database {} --seed {}{spared}",
            name(self.engine),
            name(self.guard),
            name(self.database),
            self.seed
        )
    }
}

/// Plays the rounds and has the database judged; `folder` gets histories, databases and outputs.
///
/// # Errors
/// When the run could not be done, or somebody ended who was not killed.
pub fn run(options: &Options, places: &Places, folder: &Path) -> Result<CrashReport, CrashError> {
    std::fs::create_dir_all(folder).map_err(CrashError::io(folder.display().to_string()))?;
    let mut network = Network::new()?;
    let (broker, engine_port) = start_engine(options, places, folder, &mut network)?;
    let engine = address(options.engine, engine_port);
    let database_server = start_database(options.database, places, folder)?;
    let database_port = database_server.as_ref().map(Server::port);
    let way = database_port.filter(|_| options.lasts.is_some()).map(|to| network.lead_to_database(to)).transpose()?;
    let redis = (options.guard == GuardKind::Claim).then(|| Server::start(Program::Redis, places, folder, None, &[]));
    let redis = redis.transpose()?;
    let addresses = Addresses {
        engine,
        database: database_address(options.database, folder, way.or(database_port)),
        redis: redis.as_ref().map(|server| format!("redis://127.0.0.1:{}", server.port())),
    };
    let mut cast = Cast::new(places, folder, options.guard, options.seed, addresses, (broker, network))?;
    cast.enter()?;
    let began = Instant::now();
    let rounds = play(options, &mut cast)?;
    cast.stop_producers()?;
    let drained = drain(|| {
        cast.everybody_lives()?;
        lag(&cast.broker)
    });
    cast.leave()?;
    for (place, behind) in lag(&cast.broker)? {
        cast.history().add(&Line::Lag { r#where: &place, behind })?;
    }
    let database = database_address(options.database, folder, database_port);
    let (clean, mut said) = check(places, folder, &database)?;
    let drained_in_time = drained.is_ok();
    if let Err(error) = drained {
        said.push_str(&format!("{error}\n"));
    }
    let took = began.elapsed();
    Ok(CrashReport { said, clean: clean && drained_in_time, rounds, kills: cast.kills, took })
}

/// The verdict of `check_effects.py` over the histories in a folder and a database: whether it found nothing wrong, and what it printed.
///
/// # Errors
/// When it cannot be started.
pub fn check(places: &Places, folder: &Path, database: &str) -> Result<(bool, String), CrashError> {
    verdict("check_effects.py", places, folder, database)
}

fn play(options: &Options, cast: &mut Cast) -> Result<u32, CrashError> {
    let network = options.lasts.is_some();
    let remote_database = options.database != DatabaseKind::Sqlite;
    let engine_percent = match options.engine {
        _ if !options.kill_engine => 0,
        EngineKind::Rabbitmq => ENGINE_IN_ORDER_PERCENT,
        EngineKind::Embedded | EngineKind::Service | EngineKind::Kafka => ENGINE_PERCENT,
    };
    let mut plan = Plan::new(options.seed, Scope { engine_percent, network, remote_database });
    let (began, mut rounds) = (Instant::now(), 0);
    while options.lasts.map_or(cast.kills < options.kills, |lasts| began.elapsed() < lasts) {
        cast.play(&plan.next_round())?;
        rounds += 1;
    }
    Ok(rounds)
}

/// Starts it, and says at which port the services reach it.
fn start_engine(
    options: &Options,
    places: &Places,
    folder: &Path,
    network: &mut Network,
) -> Result<(Broker, u16), CrashError> {
    let Some(program) = Program::of_engine(options.engine) else {
        // Clients of a broker in the same process reach it without a network.
        let port = free_port()?;
        return Ok((Broker::Service { port, process: None }, port));
    };
    let settings = if program == Program::Rabbitmq { &[] } else { KAFKA_SETTINGS };
    let way = options.lasts.map(|_| free_port()).transpose()?;
    let server = Server::start(program, places, folder, way, settings)?;
    let port = server.port();
    if let Some(way) = way {
        network.lead_to_engine(way, port)?;
    }
    Ok((Broker::Server(server), way.unwrap_or(port)))
}

/// Waits until nothing is behind any more; `behind` says how much is, and where.
pub(crate) fn drain(mut behind: impl FnMut() -> Result<Vec<(String, u64)>, CrashError>) -> Result<(), CrashError> {
    let (mut deadline, mut least) = (Instant::now() + DRAIN_WAIT, u64::MAX);
    loop {
        let behind: Vec<_> = behind()?.into_iter().filter(|(_, behind)| *behind > 0).collect();
        if behind.is_empty() {
            return Ok(());
        }
        let sum = behind.iter().map(|(_, behind)| behind).sum();
        if sum < least {
            (deadline, least) = (Instant::now() + DRAIN_WAIT, sum);
        }
        if Instant::now() > deadline {
            return Err(CrashError::Process(format!("not less within {DRAIN_WAIT:?}: {behind:?}")));
        }
        std::thread::sleep(DRAIN_POLL);
    }
}

/// How much is behind, and where, as the engine says.
fn lag(broker: &Broker) -> Result<Vec<(String, u64)>, CrashError> {
    match broker {
        Broker::Server(server) if server.is_rabbitmq() => server.queues(),
        _ => {
            let address = format!("127.0.0.1:{}", broker.port());
            let mut all = lag_of(&address, GROUP, TOPIC, PARTITIONS)?;
            all.extend(lag_of(&address, UNDERTAKER, DEAD_LETTERS, 1)?);
            Ok(all)
        }
    }
}

fn lag_of(address: &str, group: &str, topic: &str, partitions: u32) -> Result<Vec<(String, u64)>, CrashError> {
    let failed = |error: KafkaError| CrashError::Process(format!("asking how far {group} is in {topic}: {error}"));
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("group.id", group);
    let reader: BaseConsumer = config.create().map_err(failed)?;
    let mut asked = TopicPartitionList::new();
    // A few partitions; their numbers fit.
    asked.add_partition_range(topic, 0, i32::try_from(partitions).unwrap_or(i32::MAX) - 1);
    let committed = reader.committed_offsets(asked, ASK_WAIT).map_err(failed)?;
    let mut found = Vec::new();
    for one in committed.elements() {
        let (_, end) = reader.fetch_watermarks(topic, one.partition(), ASK_WAIT).map_err(failed)?;
        let done = if let Offset::Offset(offset) = one.offset() { offset } else { 0 };
        // A position behind the end would be as wrong as one before it.
        found.push((format!("{group} in {topic}-{}", one.partition()), end.abs_diff(done)));
    }
    Ok(found)
}
