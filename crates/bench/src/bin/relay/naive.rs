//! The loop that everybody writes first: read one row, publish it, wait, delete it.

use std::time::Duration;

use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::Fallible;
use crate::table::connect;
use crate::topic::client;

/// How long it sleeps when there is nothing.
const IDLE: Duration = Duration::from_millis(10);

/// Runs until it is killed.
pub async fn run(database: &str, kafka: &str) -> Fallible<()> {
    let client_of_table = connect(database).await?;
    let first = "SELECT position, topic, key, payload FROM naive_outbox ORDER BY position LIMIT 1";
    let first = client_of_table.prepare(first).await?;
    let delete = client_of_table.prepare("DELETE FROM naive_outbox WHERE position = $1").await?;
    let producer: FutureProducer = client(kafka).set("acks", "all").set("linger.ms", "0").create()?;
    loop {
        let Some(row) = client_of_table.query_opt(&first, &[]).await? else {
            tokio::time::sleep(IDLE).await;
            continue;
        };
        let (position, topic): (i64, &str) = (row.try_get(0)?, row.try_get(1)?);
        let (key, payload): (&[u8], &[u8]) = (row.try_get(2)?, row.try_get(3)?);
        let record = FutureRecord::to(topic).key(key).payload(payload);
        producer.send(record, Duration::from_secs(60)).await.map_err(|(error, _)| error)?;
        client_of_table.execute(&delete, &[&position]).await?;
    }
}
