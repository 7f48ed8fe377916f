//! Reads the dead letters back, below the library's consumers: with the engine alone.

use std::time::Duration;

use baton::Baton;
use baton_crash::{CrashError, DEAD_LETTERS, History, Line, Order, UNDERTAKER};
use baton_engine::{ConsumerOptions, EngineConsumer, Event, Settlement, Settling, Start};

use crate::{Common, failed, told_to_end};

const PREFETCH: u32 = 100;
const RELEASE_WAIT: Duration = Duration::from_secs(5);
const NEXT_WAIT: Duration = Duration::from_secs(1);
/// After the engine failed, until it is called again.
const FAILED_WAIT: Duration = Duration::from_millis(200);

pub(crate) async fn read_back(baton: &Baton, common: &Common) -> Result<(), CrashError> {
    let settings = common.member_settings().iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let options = ConsumerOptions {
        group: UNDERTAKER.to_owned(),
        topics: vec![DEAD_LETTERS.into()],
        start: Start::Earliest,
        prefetch: Some(PREFETCH),
        release_wait: RELEASE_WAIT,
        settings: settings.collect(),
    };
    let mut member = baton.engine().consumer(options).await.map_err(failed("reading dead letters"))?;
    let settling = baton.engine().capabilities().settling;
    let history = History::create(&common.history, &common.name)?;
    let end = told_to_end()?;
    tokio::pin!(end);
    loop {
        let event = tokio::select! {
            () = &mut end => break,
            event = member.next(NEXT_WAIT) => event,
        };
        match event {
            Ok(event) => heard(event, &mut *member, settling, &history, common).await?,
            Err(error) => {
                tracing::info!(%error, "reading dead letters");
                tokio::time::sleep(FAILED_WAIT).await;
            }
        }
    }
    // It leaves when the engine is there; if it is not, nothing is lost by that.
    let left = member.close().await;
    tracing::info!(?left, "ended");
    Ok(())
}

async fn heard(
    event: Event,
    member: &mut dyn EngineConsumer,
    settling: Settling,
    history: &History,
    common: &Common,
) -> Result<(), CrashError> {
    let done = match event {
        // An engine that shares nothing out says whose a partition is with its first message only.
        Event::Assigned(_) | Event::Idle => {
            common.ready()?;
            Ok(())
        }
        Event::Revoking(partitions) => member.release(&partitions).await,
        Event::Messages(letters) => {
            let mut settlements = Vec::new();
            for letter in letters {
                let order: Order = serde_json::from_slice(letter.payload.as_deref().unwrap_or_default())
                    .map_err(failed("a dead letter is not what was sent"))?;
                history.add(&Line::Dead { key: &order.key, number: order.number })?;
                let (partition, offset) = (letter.from, letter.offset);
                settlements.push(match settling {
                    Settling::Frontier => Settlement::Frontier { partition, next: offset + 1, metadata: String::new() },
                    Settling::Each => Settlement::Done { partition, offset },
                });
            }
            member.settle(&settlements).await
        }
        Event::Lost(_) | Event::Gap { .. } => Ok(()),
    };
    if let Err(error) = done {
        // What is not settled comes again, and is written down again.
        tracing::info!(%error, "dead letters");
    }
    Ok(())
}
