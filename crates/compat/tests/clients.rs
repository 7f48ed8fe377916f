//! Each client's suite against real Apache Kafka and against Baton, same assertions.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use baton_compat::cases::{Cases, Client, KnownDifferences};
use baton_compat::places::{Places, baton_binary};
use baton_compat::run::{run_reference, run_suite};
use baton_compat::server::Kind;
use baton_compat::table::{AllResults, render};
use baton_compat::verdict::judge;

/// One client at a time: the machine has to carry two servers and a suite for each as it is.
static RESULTS: Mutex<AllResults> = Mutex::new(AllResults::new());

fn behaves_alike(client: Client) {
    let mut all = RESULTS.lock().unwrap_or_else(PoisonError::into_inner);
    let places = Places::find(PathBuf::from(env!("CARGO_BIN_EXE_rust-client"))).unwrap();
    let cases = Cases::read(&places.root).unwrap();
    let known = KnownDifferences::read(&places.root).unwrap();
    baton_binary(&places.root).unwrap();
    let ((kafka, run_again), baton) = std::thread::scope(|scope| {
        let kafka = scope.spawn(|| run_reference(client, &places, &[]));
        let baton = run_suite(client, Kind::Baton, &places, &[]).unwrap();
        (kafka.join().unwrap().unwrap(), baton)
    });
    for case in run_again {
        println!("{}: {case} failed on kafka and was run there again", client.name());
    }
    println!(
        "{}: {:.1} s on kafka, {:.1} s on baton",
        client.name(),
        kafka.took.as_secs_f64(),
        baton.took.as_secs_f64()
    );
    let problems = judge(client, &cases, &known, &kafka.results, &baton.results);
    all.insert((client, Kind::Kafka), kafka.results);
    all.insert((client, Kind::Baton), baton.results);
    let table = render(&cases, &all);
    println!("{table}");
    std::fs::write(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compat.md"), table).unwrap();
    assert!(problems.is_empty(), "{} does not behave alike:\n  {}", client.name(), problems.join("\n  "));
}

#[test]
fn kcat_behaves_alike_on_apache_kafka_and_baton() {
    behaves_alike(Client::Kcat);
}

#[test]
fn python_client_behaves_alike_on_apache_kafka_and_baton() {
    behaves_alike(Client::Python);
}

#[test]
fn java_client_behaves_alike_on_apache_kafka_and_baton() {
    behaves_alike(Client::Java);
}

#[test]
fn rust_client_behaves_alike_on_apache_kafka_and_baton() {
    behaves_alike(Client::Rust);
}
