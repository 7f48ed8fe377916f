//! Runs client suites by hand: chosen clients, servers and cases; prints every line and the table.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal")]

use std::process::ExitCode;

use baton_compat::CompatError;
use baton_compat::cases::{Cases, Client};
use baton_compat::places::Places;
use baton_compat::run::run_suite;
use baton_compat::server::Kind;
use baton_compat::table::{AllResults, render};
use baton_compat::verdict::Outcome;
use clap::Parser;

#[derive(Parser)]
#[command(about = "Real Kafka clients against Apache Kafka and Baton")]
struct Arguments {
    /// Which clients (default: all).
    #[arg(long = "client")]
    clients: Vec<Client>,
    /// Which servers (default: both).
    #[arg(long = "server")]
    servers: Vec<Kind>,
    /// Which cases (default: all).
    #[arg(long = "case")]
    cases: Vec<String>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compat: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: Arguments) -> Result<bool, CompatError> {
    if arguments.clients.is_empty() {
        arguments.clients = Client::ALL.to_vec();
    }
    if arguments.servers.is_empty() {
        arguments.servers = vec![Kind::Kafka, Kind::Baton];
    }
    let own = std::env::current_exe().map_err(CompatError::io("this program"))?;
    let places = Places::find(own.with_file_name("rust-client"))?;
    let mut all = AllResults::new();
    for client in arguments.clients {
        for kind in &arguments.servers {
            let suite = run_suite(client, *kind, &places, &arguments.cases)?;
            for (case, outcome) in &suite.results {
                match outcome {
                    Outcome::Passed(seconds) => println!("{} {} PASS {case} {seconds:.1}", client.name(), kind.name()),
                    Outcome::Failed(reason) => println!("{} {} FAIL {case}: {reason}", client.name(), kind.name()),
                }
            }
            println!("{} {} took {:.1} s", client.name(), kind.name(), suite.took.as_secs_f64());
            all.insert((client, *kind), suite.results);
        }
    }
    println!("\n{}", render(&Cases::read(&places.root)?, &all));
    Ok(all.values().flat_map(|results| results.values()).all(|outcome| matches!(outcome, Outcome::Passed(_))))
}
