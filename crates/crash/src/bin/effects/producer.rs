//! The service that sends, and writes down what it sends before, and what it was told after.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use baton::{Baton, Message};
use baton_crash::{CrashError, History, Line, Order, TOPIC};
use baton_testkit::Random;
use tokio::task::JoinSet;

use crate::{Common, failed};

/// Customers of a life of a producer.
const KEYS: u64 = 24;
/// How many of a hundred orders the first customer has: his key is always busy.
const FIRST_KEY_PERCENT: u64 = 25;
/// Between two bursts.
const PAUSE: Duration = Duration::from_millis(50);
/// The most orders in a burst, and what SQLite carries, which syncs for one message after the other.
const BURST_MAX: u64 = 16;
const BURST_SQLITE_MAX: u64 = 2;
/// Sends that may be under way: as many as wait during an outage of some seconds.
const IN_FLIGHT_MAX: usize = 1_000;
/// How long the last sends are waited for.
const CLOSE_WAIT: Duration = Duration::from_secs(60);

/// Sends until `end`, then waits for what is under way.
pub(crate) async fn produce(baton: &Baton, common: &Common, end: impl Future<Output = ()>) -> Result<(), CrashError> {
    let producer = baton.producer(common.name.as_str()).await.map_err(failed("the producer"))?;
    let history = Arc::new(History::create(&common.history, &format!("{}-sends", common.name))?);
    let mut random = Random::new(common.seed);
    let mut numbers = [0_u64; KEYS as usize];
    let mut sends: JoinSet<Result<(), CrashError>> = JoinSet::new();
    let burst_max = if common.database.starts_with("sqlite") { BURST_SQLITE_MAX } else { BURST_MAX };
    tokio::pin!(end);
    common.ready()?;
    loop {
        tokio::select! {
            () = &mut end => break,
            () = tokio::time::sleep(PAUSE) => {}
        }
        for _ in 0..random.between(1, burst_max) {
            while sends.len() >= IN_FLIGHT_MAX {
                written(sends.join_next().await)?;
            }
            let customer = if random.percent(FIRST_KEY_PERCENT) { 0 } else { random.index(numbers.len()) };
            numbers[customer] += 1;
            let order = Order::new(format!("{}/{customer}", common.name), numbers[customer], &mut random);
            let Order { key, number, amount, poison } = order.clone();
            let payload = serde_json::to_vec(&order).map_err(failed("an order"))?;
            history.add(&Line::Sending { key: &key, number, amount, poison })?;
            // Handed over here, in the order of these calls; awaited elsewhere.
            let sending = producer.send(Message::to(TOPIC).key(key.clone()).payload(payload));
            let history = history.clone();
            sends.spawn(async move {
                match sending.await {
                    Ok(_) => history.add(&Line::Receipt { key: &key, number }),
                    Err(error) => {
                        let stored = if error.could_be_stored() { "unknown" } else { "no" };
                        history.add(&Line::Refused { key: &key, number, stored, error: error.to_string() })
                    }
                }
            });
        }
        while let Some(sent) = sends.try_join_next() {
            written(Some(sent))?;
        }
    }
    while let Some(sent) = sends.join_next().await {
        written(Some(sent))?;
    }
    let closed = producer.close(CLOSE_WAIT).await;
    tracing::info!(?closed, "ended");
    Ok(())
}

/// Whether the end of a send was written down.
fn written(sent: Option<Result<Result<(), CrashError>, tokio::task::JoinError>>) -> Result<(), CrashError> {
    sent.unwrap_or(Ok(Ok(()))).map_err(failed("the end of a send"))?
}
