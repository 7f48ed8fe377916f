//! Topics and tables.

use baton::Baton;
use baton_crash::{CrashError, DEAD_LETTERS, GuardKind, PARTITIONS, Store, TOPIC};
use baton_engine::TopicSpec;
use baton_guard::{Frontier, Inbox};

use crate::{Common, failed};

pub(crate) async fn prepare(baton: &Baton, common: &Common) -> Result<(), CrashError> {
    for (topic, partitions) in [(TOPIC, PARTITIONS), (DEAD_LETTERS, 1)] {
        let topic = TopicSpec { name: topic.into(), partitions, copies: None, settings: Vec::new() };
        baton.engine().create_topic(&topic).await.map_err(failed("creating a topic"))?;
    }
    let store = Store::open(&common.database)?;
    store.create_tables().await?;
    // Fences and marks of all guards are created together; a claim needs none.
    let prepared = match (&store, common.guard) {
        (_, GuardKind::Claim) => Ok(()),
        (Store::Sqlite(sqlite), GuardKind::Inbox) => Inbox::sqlite(sqlite).prepare().await,
        (Store::Sqlite(sqlite), GuardKind::Frontier) => Frontier::sqlite(sqlite).prepare().await,
        (Store::Postgres(pool), GuardKind::Inbox) => Inbox::postgres(pool.clone()).prepare().await,
        (Store::Postgres(pool), GuardKind::Frontier) => Frontier::postgres(pool.clone()).prepare().await,
        (Store::Mariadb(pool), GuardKind::Inbox) => Inbox::mysql(pool.clone()).prepare().await,
        (Store::Mariadb(pool), GuardKind::Frontier) => Frontier::mysql(pool.clone()).prepare().await,
    };
    prepared.map_err(failed("the guard's tables"))
}
