//! Benchmarks of Baton beside the engines its users know: one client, one machine, one server at a time, in turn.

// A command line program: what it finds out goes to standard output, what it does goes to standard error.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod dialects;
mod external;
mod figures;
mod frames;
mod librdkafka;
mod machine;
mod peers;
mod profile;
mod report;
mod server;
mod start;
mod waiting;
mod wanted;
mod works;

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use serde::Serialize;

use crate::figures::Figures;
use crate::server::{Kind, Places, Server};
use crate::start::Fact;
use crate::works::{Bench, WORKS, WaitingClient, Work};

/// Any error; it ends as one line on standard error.
pub type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Groups that are run when none is named; `start10g` takes minutes and is asked for by name.
const DEFAULT_WORKS: &str = "a,b,c,d,e,f,g,syncs,size";
/// The group that fills a log and restarts on it.
const START_FULL: &str = "start10g";

/// Baton beside Apache Kafka, RabbitMQ, NATS and RocketMQ: same client, same machine, in turn.
#[derive(Parser, Debug)]
#[command(name = "bench")]
struct Arguments {
    /// Rounds; each runs every server once, in another order.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Works by letter, group or name: a-g as in the table of docs/PERFORMANCE.md, syncs, size, start10g.
    #[arg(long, default_value = DEFAULT_WORKS, value_delimiter = ',')]
    works: Vec<String>,
    /// Servers to run.
    #[arg(long, default_value = "baton,kafka,rabbitmq,nats,rocketmq", value_delimiter = ',')]
    servers: Vec<String>,
    /// Short runs that show that everything works; the figures are not worth keeping.
    #[arg(long)]
    quick: bool,
    /// Client of the works a, b, c and syncs.
    #[arg(long, value_enum, default_value = "raw")]
    client: WaitingClient,
    /// Setting for `baton serve --set`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    baton_settings: Vec<String>,
    /// GiB that start10g fills.
    #[arg(long, default_value_t = 10)]
    fill_gib: u64,
    /// The baton binary.
    #[arg(long, env = "BATON_BIN", default_value = "target/release/baton")]
    baton: PathBuf,
    /// Folder of kafka-up, kafka-down and bench-engines.
    #[arg(long, env = "BENCH_SCRIPTS", default_value = "scripts")]
    scripts: PathBuf,
    /// The compiled client for NATS, RabbitMQ and franz-go.
    #[arg(long, env = "BENCH_GO_CLIENT", default_value = ".cache/bench-tools/bin/waiting")]
    go_client: PathBuf,
    /// Where servers keep their data; on the device that is to be measured.
    #[arg(long, env = "BENCH_SCRATCH", default_value = "target/bench-data")]
    scratch: PathBuf,
    /// Where raw figures and the table go.
    #[arg(long, default_value = "bench-output")]
    output: PathBuf,
    /// Also record each measured run of Baton or Kafka with `perf record`, into this folder.
    #[arg(long, value_name = "FOLDER")]
    profile: Option<PathBuf>,
    /// First port to use; below those that the kernel gives to outgoing connections (32768).
    #[arg(long, default_value_t = 29_092)]
    port: u16,
}

/// How each run goes.
#[derive(Debug)]
pub struct Plan {
    /// Binaries, scripts and scratch space.
    pub places: Places,
    /// Client of the waiting works.
    pub client: WaitingClient,
    /// The compiled Go client.
    pub go_client: PathBuf,
    /// Load before each measured run.
    pub warm: Duration,
    /// Each measured run.
    pub measure: Duration,
    /// Load of each kind after each server's start.
    pub server_warm: Duration,
    /// Rest after each run.
    pub settle: Duration,
    /// Whether the page cache is filled before each run.
    pub fill_page_cache: bool,
    /// Records of the read work.
    pub read_records: u64,
    /// Where `perf record` puts its recordings, when it is wanted.
    pub profile: Option<PathBuf>,
}

/// Raw figures as they come, and where they are kept.
struct Record {
    folder: PathBuf,
    raw: File,
    figures: Vec<Figures>,
    facts: Vec<Fact>,
    failures: Vec<String>,
}

/// Says something on standard error.
pub fn warn(message: &str) {
    eprintln!("bench: {message}");
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            warn(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Fallible<bool> {
    let chosen = chosen_works(&arguments.works)?;
    fs::create_dir_all(&arguments.scratch)?;
    let plan = plan(arguments)?;
    let mut record = Record::create(&arguments.output)?;
    let filled_mib = if plan.fill_page_cache { machine::fill_page_cache(&plan.places.scratch)? } else { 0 };
    record.head(&head(arguments, &plan, filled_mib)?)?;
    for round in 1..=arguments.rounds {
        record.raw_line(&serde_json::json!({
            "round": round, "device": figures::probe_device(&plan.places.scratch)?, "load_average": machine::load_average(),
        }))?;
        run_round(arguments, &plan, &chosen, round, &mut record)?;
    }
    let table = report::table(&record.figures, &record.facts);
    fs::write(record.folder.join("table.txt"), &table)?;
    println!("\n{table}");
    for failure in &record.failures {
        println!("FAILED {failure}");
    }
    println!("raw figures and this table: {}", record.folder.display());
    Ok(record.failures.is_empty())
}

/// The works that `names` choose; a name that chooses nothing is an error.
fn chosen_works(names: &[String]) -> Fallible<Vec<Work>> {
    for name in names {
        let known = WORKS.iter().any(|work| work.group == name || work.name == name);
        if !known && ![peers::WORK, "g", "size", START_FULL].contains(&name.as_str()) {
            let all: Vec<&str> = WORKS.iter().map(|work| work.name).collect();
            return Err(format!(
                "no work is called {name}; there are a-g, syncs, size, {START_FULL}, {}",
                all.join(", ")
            )
            .into());
        }
    }
    Ok(WORKS.iter().filter(|work| names.iter().any(|name| work.group == name || work.name == name)).copied().collect())
}

fn plan(arguments: &Arguments) -> Fallible<Plan> {
    let (warm, measure, server_warm, settle, read_records) = works::durations(arguments.quick);
    Ok(Plan {
        places: Places {
            baton: arguments.baton.clone(),
            scripts: fs::canonicalize(&arguments.scratch).and_then(|_| fs::canonicalize(&arguments.scripts))?,
            scratch: fs::canonicalize(&arguments.scratch)?,
            port: arguments.port,
            baton_settings: arguments.baton_settings.clone(),
        },
        client: arguments.client,
        go_client: arguments.go_client.clone(),
        warm,
        measure,
        server_warm,
        settle,
        fill_page_cache: !arguments.quick,
        read_records,
        profile: arguments.profile.clone(),
    })
}

/// Settings of all sides and the machine, for the top of the report.
fn head(arguments: &Arguments, plan: &Plan, filled_mib: u64) -> Fallible<Vec<String>> {
    let mut lines = machine::describe(&plan.places.scratch);
    let probe = figures::probe_device(&plan.places.scratch)?;
    lines.push(format!(
        "device      append and fdatasync: 4 KiB {:.0} us, 64 KiB {:.0} us, 1 MiB {:.0} us (medians)",
        probe.append_4_kib_us, probe.append_64_kib_us, probe.append_1_mib_us
    ));
    lines.push(format!("load        {:.2} (1 minute)", machine::load_average()));
    lines.push(format!(
        "memory      {filled_mib} MiB of the page cache were filled with something else before each run"
    ));
    lines.extend(server::describe(&plan.places));
    lines.push("rivals      as scripts/bench-engines writes them: RabbitMQ quorum queue, NATS sync_interval always, RocketMQ SYNC_FLUSH".into());
    let settings = |settings: &[(&str, &str)]| {
        settings.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    lines.push(format!(
        "waiting     {:?} client, Produce v{}, acks=-1, {} byte values",
        arguments.client,
        frames::PRODUCE_VERSION,
        works::RECORD_BYTES
    ));
    lines.push(format!(
        "producer    librdkafka {}: {}",
        rdkafka::util::get_rdkafka_version().1,
        settings(librdkafka::PRODUCER_SETTINGS)
    ));
    lines.push(format!("reader      {}", settings(librdkafka::READER_SETTINGS)));
    lines.push(format!(
        "runs        {} rounds, {:?} of warm-up and {:?} measured each; servers in turn, never two under load",
        arguments.rounds, plan.warm, plan.measure
    ));
    lines.push(
        "settings    every setting as the servers tell them: settings-baton.txt, settings-kafka.txt in the output"
            .to_owned(),
    );
    Ok(lines)
}

fn run_round(arguments: &Arguments, plan: &Plan, chosen: &[Work], round: u32, record: &mut Record) -> Fallible<()> {
    let asked = |names: &[&str]| arguments.works.iter().any(|work| names.contains(&work.as_str()));
    let runs = |server: &str| arguments.servers.iter().any(|name| name == server);
    let mut kinds: Vec<Kind> = [Kind::Baton, Kind::Kafka].into_iter().filter(|kind| runs(kind.name())).collect();
    // Who goes first has the emptier page cache and the cooler machine; so they take turns.
    if round.is_multiple_of(2) {
        kinds.reverse();
    }
    for kind in &kinds {
        if !chosen.is_empty() {
            let failed = format!("round {round}, {}", kind.name());
            if let Err(error) = run_server(*kind, plan, chosen, round, record) {
                record.failed(format!("{failed}: {error}"));
            }
        }
        if asked(&["size"]) {
            record.facts_or_failure(round, "size", start::size(*kind, &plan.places, round))?;
        }
    }
    if asked(&["g", peers::WORK]) {
        run_peers(plan, &runs, round, record)?;
    }
    // Recovery of gigabytes takes minutes to set up; once is enough for a figure that has no client in it.
    if asked(&[START_FULL]) && round == 1 {
        for kind in kinds {
            let facts = start::start_full(kind, &plan.places, round, arguments.fill_gib);
            record.facts_or_failure(round, START_FULL, facts)?;
        }
    }
    Ok(())
}

fn run_server(kind: Kind, plan: &Plan, chosen: &[Work], round: u32, record: &mut Record) -> Fallible<()> {
    let mut server = Server::start(kind, &plan.places)?;
    let result = (|| {
        let bench = Bench::connect(&server, plan, round)?;
        if round == 1 {
            let sides = chosen.first().map(|work| works::sides(kind, work)).unwrap_or_default();
            fs::write(record.folder.join(format!("settings-{}.txt", kind.name())), bench.settings(&sides)?)?;
        }
        bench.warm_up()?;
        for work in chosen {
            let mut sides = works::sides(kind, work);
            if round.is_multiple_of(2) {
                sides.reverse();
            }
            for side in sides {
                if plan.fill_page_cache {
                    machine::fill_page_cache(&plan.places.scratch)?;
                }
                match bench.run(work, &side) {
                    Ok(figures) => record.figures(figures)?,
                    Err(error) => record.failed(format!("round {round}, {}, {}: {error}", work.name, side.name)),
                }
            }
        }
        Ok(())
    })();
    server.check_alive()?;
    server.stop()?;
    result
}

fn run_peers(plan: &Plan, runs: &dyn Fn(&str) -> bool, round: u32, record: &mut Record) -> Fallible<()> {
    let baton = |record: &mut Record| -> Fallible<()> {
        if runs(Kind::Baton.name()) {
            match peers::run_baton(plan, round) {
                Ok(figures) => figures.into_iter().try_for_each(|one| record.figures(one))?,
                Err(error) => record.failed(format!("round {round}, {}, baton: {error}", peers::WORK)),
            }
        }
        Ok(())
    };
    if !round.is_multiple_of(2) {
        baton(record)?;
    }
    for peer in peers::PEERS {
        if runs(peer.engine) {
            match peers::run_peer(peer, plan, round) {
                Ok(figures) => record.figures(figures)?,
                Err(error) => record.failed(format!("round {round}, {}, {}: {error}", peers::WORK, peer.side)),
            }
        }
    }
    if round.is_multiple_of(2) {
        baton(record)?;
    }
    Ok(())
}

impl Record {
    fn create(output: &std::path::Path) -> Fallible<Self> {
        let now = Command::new("date").args(["-u", "+%Y-%m-%dT%H%M%SZ"]).output()?;
        let folder = output.join(String::from_utf8(now.stdout)?.trim());
        fs::create_dir_all(&folder)?;
        let raw = File::create(folder.join("figures.jsonl"))?;
        Ok(Self { folder, raw, figures: Vec::new(), facts: Vec::new(), failures: Vec::new() })
    }

    fn head(&self, lines: &[String]) -> Fallible<()> {
        let head = lines.join("\n") + "\n";
        println!("{head}");
        Ok(fs::write(self.folder.join("settings.txt"), head)?)
    }

    fn raw_line(&mut self, line: &impl Serialize) -> Fallible<()> {
        Ok(writeln!(self.raw, "{}", serde_json::to_string(line)?)?)
    }

    fn figures(&mut self, figures: Figures) -> Fallible<()> {
        self.raw_line(&figures)?;
        eprintln!(
            "round {} {:<10} {:<25} {:>9.0} records/s, server {:.2} us/record, cores {:.2}/{:.2}/{:.2}{}",
            figures.round,
            figures.work,
            figures.side,
            figures.records_per_second,
            figures.server_cpu_us_per_record,
            figures.server_cores,
            figures.client_cores,
            figures.other_cores,
            if figures.noisy { " NOISY" } else { "" }
        );
        self.figures.push(figures);
        Ok(())
    }

    fn facts_or_failure(&mut self, round: u32, work: &str, facts: Fallible<Vec<Fact>>) -> Fallible<()> {
        match facts {
            Err(error) => self.failed(format!("round {round}, {work}: {error}")),
            Ok(facts) => {
                for fact in facts {
                    self.raw_line(&fact)?;
                    eprintln!("round {round} {work} {}: {} = {:.1} ({})", fact.side, fact.fact, fact.value, fact.note);
                    self.facts.push(fact);
                }
            }
        }
        Ok(())
    }

    fn failed(&mut self, what: String) {
        warn(&format!("FAILED {what}"));
        self.failures.push(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn works_are_chosen_by_letter_or_name_and_unknown_ones_are_refused() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let chosen = chosen_works(&names(&["a", "pipe6"])).unwrap();
        assert_eq!(chosen.iter().map(|work| work.name).collect::<Vec<_>>(), ["wait64", "pipe6"]);
        assert!(chosen_works(&names(&["h"])).is_err());
        let defaults: Vec<String> = DEFAULT_WORKS.split(',').map(str::to_owned).collect();
        assert_eq!(chosen_works(&defaults).unwrap().len(), WORKS.len());
    }
}
