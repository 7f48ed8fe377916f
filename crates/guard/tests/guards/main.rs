//! The guards on real servers, which the project's own scripts start: guards × cases, and what is particular to each store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test code outside of test functions"
)]

mod conditions;
mod intake;
mod link;
mod mysql;
mod postgres;
mod redis;
mod segments;
mod side;
mod sqlite;

use std::path::Path;

use baton_guard::conformance::{Report, table};
use baton_guard::{GuardError, Pruned};

/// The n-th block of a language in the guide.
fn guide(language: &str, at: usize) -> String {
    block("GUARDS.md", language, at)
}

/// The n-th block of a language in a document: what users are told to type is what the tests type.
fn block(document: &str, language: &str, at: usize) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(document);
    let text = std::fs::read_to_string(path).unwrap();
    let block = text.split(&format!("\n```{language}\n")).nth(at + 1).expect("a block in the guide");
    block.split("```").next().unwrap().to_owned()
}

/// Prunes until there is nothing more; the rows of each portion.
async fn portions(prune: impl AsyncFn() -> Result<Pruned, GuardError>) -> Vec<u64> {
    let mut rows = Vec::new();
    loop {
        let pruned = prune().await.unwrap();
        rows.push(pruned.rows);
        if !pruned.more {
            return rows;
        }
    }
}

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
