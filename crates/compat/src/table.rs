//! The table of clients, cases and servers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::cases::{Cases, Client};
use crate::server::Kind;
use crate::verdict::{Outcome, Results};

/// All results so far.
pub type AllResults = BTreeMap<(Client, Kind), Results>;

/// A Markdown table with a row for each case and a column for each client: seconds on Kafka / on Baton, `FAIL`, or
/// `-` where a client does not run the case (`compat/cases.toml` says why).
pub fn render(cases: &Cases, all: &AllResults) -> String {
    let mut table = String::from("| case (seconds on kafka / baton) |");
    for client in Client::ALL {
        let _ = write!(table, " {} |", client.name());
    }
    table.push_str("\n|---|---|---|---|---|\n");
    for case in cases.names() {
        let _ = write!(table, "| {case} |");
        for client in Client::ALL {
            let _ = write!(table, " {} |", cell(case, client, all));
        }
        table.push('\n');
    }
    table.push_str("| passed |");
    for client in Client::ALL {
        let _ = write!(table, " {} / {} |", passed(client, Kind::Kafka, all), passed(client, Kind::Baton, all));
    }
    table.push('\n');
    table
}

fn cell(case: &str, client: Client, all: &AllResults) -> String {
    let of = |kind| match all.get(&(client, kind)).and_then(|results| results.get(case)) {
        Some(Outcome::Passed(seconds)) => format!("{seconds:.1}"),
        Some(Outcome::Failed(_)) => "FAIL".to_owned(),
        None => "-".to_owned(),
    };
    let (kafka, baton) = (of(Kind::Kafka), of(Kind::Baton));
    if kafka == "-" && baton == "-" { kafka } else { format!("{kafka} / {baton}") }
}

fn passed(client: Client, kind: Kind, all: &AllResults) -> String {
    let Some(results) = all.get(&(client, kind)) else { return "-".to_owned() };
    let passed = results.values().filter(|outcome| matches!(outcome, Outcome::Passed(_))).count();
    format!("{passed} of {}", results.len())
}
