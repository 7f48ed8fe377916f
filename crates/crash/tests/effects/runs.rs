//! A few rounds of each combination. They run one after the other: together they would measure the machine's patience.

use std::sync::{Mutex, PoisonError};

use baton_crash::{DatabaseKind, EngineKind, GuardKind, Options, run};

use crate::places;

/// Enough for kills of one and of all, and for a rebalance after each.
const KILLS: u32 = 6;

static TURN: Mutex<()> = Mutex::new(());

fn every_effect_happens_once(engine: EngineKind, guard: GuardKind, database: DatabaseKind) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let options = Options { engine, guard, database, kills: KILLS, lasts: None, seed, kill_engine: true };
    let folder = tempfile::tempdir().unwrap();
    let replay = options.replay();
    match run(&options, &places(), folder.path()) {
        Ok(report) if report.clean => println!("{replay}\n{}", report.said),
        Ok(report) => panic!("{}histories in {}\nreplay: {replay}", report.said, folder.keep().display()),
        Err(error) => panic!("{error}\nhistories in {}\nreplay: {replay}", folder.keep().display()),
    }
}

#[test]
fn killed_consumers_on_the_embedded_broker_with_an_inbox_on_sqlite() {
    every_effect_happens_once(EngineKind::Embedded, GuardKind::Inbox, DatabaseKind::Sqlite);
}

#[test]
fn killed_services_that_embed_the_broker_with_a_frontier_on_sqlite() {
    every_effect_happens_once(EngineKind::Service, GuardKind::Frontier, DatabaseKind::Sqlite);
}

#[test]
fn killed_consumers_on_kafka_with_a_frontier_on_postgres() {
    every_effect_happens_once(EngineKind::Kafka, GuardKind::Frontier, DatabaseKind::Postgres);
}

#[test]
fn killed_consumers_on_rabbitmq_with_an_inbox_on_postgres() {
    every_effect_happens_once(EngineKind::Rabbitmq, GuardKind::Inbox, DatabaseKind::Postgres);
}

#[test]
fn killed_consumers_on_the_embedded_broker_with_claims_on_redis() {
    every_effect_happens_once(EngineKind::Embedded, GuardKind::Claim, DatabaseKind::Mariadb);
}
