//! The guards on real servers, which the project's own scripts start: guards × cases, and what is particular to each store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test code outside of test functions"
)]

mod link;
mod mysql;
mod postgres;
mod redis;
mod servers;
mod sqlite;

use std::path::Path;

use baton_guard::conformance::{Report, table};

/// Shows a table, keeps it in `target/`, and fails if a case does.
fn judge(name: &str, reports: &[Report]) {
    let text = table(reports);
    println!("\n{text}\n");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guards");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{name}.md")), text).unwrap();
    let failures: Vec<String> = reports.iter().flat_map(|report| report.failures().collect::<Vec<_>>()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
