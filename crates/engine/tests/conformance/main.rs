//! The conformance suite on real servers, which these tests start and end: the embedded broker, Apache Kafka, RabbitMQ.
//!
//! `BATON_CONFORMANCE_CASE=seek` runs only the cases whose names contain that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod embedded;
mod kafka;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
mod servers;

use baton_engine::conformance::{self, Outcome, Subject};

/// One suite at a time: four of them, with seven servers, measure the patience of a small machine.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Runs the suite, prints its table, and wants every case passed or skipped as is expected of this engine.
async fn passes(subject: &dyn Subject, skipped: &[&str]) {
    let _turn = TURN.lock().await;
    // Each case as it ends; what the client library says about an engine that we killed ourselves is not news.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "baton_engine::conformance=info".into());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    let only = std::env::var("BATON_CONFORMANCE_CASE").unwrap_or_default();
    let report = conformance::run(subject, |case| case.contains(&only)).await;
    println!("{report}");
    // The other engines' servers are there, too: what fails is run once more, and named.
    let failed: Vec<&str> =
        report.rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed(_))).map(|row| row.case).collect();
    if !failed.is_empty() {
        let again = conformance::run(subject, |case| failed.contains(&case)).await;
        println!("run again: {again}");
        assert!(again.failures().is_empty(), "{report}\nrun again: {again}");
    }
    assert!(!report.rows.is_empty(), "no case is called {only}");
    if only.is_empty() {
        assert_eq!(report.skipped(), skipped, "what this engine may be skipped in");
    }
}
