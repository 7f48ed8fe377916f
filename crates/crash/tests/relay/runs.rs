//! A few rounds of some combinations. They run one after the other: together they would measure the machine's patience.

use std::sync::{Mutex, PoisonError};

use baton_crash::{DatabaseKind, EngineKind, RelayOptions, run_relays};

use crate::places;

/// One of each deed.
const ROUNDS: u32 = 9;

static TURN: Mutex<()> = Mutex::new(());

fn every_committed_row_arrives_in_order(database: DatabaseKind, engine: EngineKind) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let options = RelayOptions { engine, database, rounds: ROUNDS, seed };
    let folder = tempfile::tempdir().unwrap();
    let replay = options.replay();
    match run_relays(&options, &places(), folder.path()) {
        Ok(report) if report.clean => println!("{replay}\n{}", report.said),
        Ok(report) => panic!("{}histories in {}\nreplay: {replay}", report.said, folder.keep().display()),
        Err(error) => panic!("{error}\nhistories in {}\nreplay: {replay}", folder.keep().display()),
    }
}

#[test]
fn every_row_committed_on_postgres_arrives_on_the_embedded_broker_in_order() {
    every_committed_row_arrives_in_order(DatabaseKind::Postgres, EngineKind::Embedded);
}

#[test]
fn every_row_committed_on_sqlite_arrives_on_the_embedded_broker_in_order() {
    every_committed_row_arrives_in_order(DatabaseKind::Sqlite, EngineKind::Embedded);
}

#[test]
fn every_row_committed_on_mariadb_arrives_on_kafka_in_order() {
    every_committed_row_arrives_in_order(DatabaseKind::Mariadb, EngineKind::Kafka);
}
