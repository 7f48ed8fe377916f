//! The engine goes away and comes back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::bench::{Bench, CaseResult, Failure, WAIT, ensure, ensure_same, numbered, numbers, record, send, text};
use super::{Case, case};
use crate::{Fate, Retry};

/// How long members and producers may take to find an engine that came back.
const RETURN_WAIT: Duration = Duration::from_secs(240);

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(what_was_acknowledged_survives_the_engines_death, [Interruption]),
        case!(a_send_while_the_engine_is_away_fails_within_its_deadline_and_says_its_fate, [Interruption]),
        case!(flush_says_how_many_are_not_stored, [Interruption]),
        case!(sends_that_span_an_outage_are_stored_once_it_is_over, [Interruption]),
        case!(a_consumer_goes_on_by_itself_after_an_outage, [Interruption]),
    ]
}

async fn away(bench: &Bench<'_>) -> CaseResult {
    match bench.subject.interrupt() {
        Some(interrupting) => Ok(interrupting.await?),
        None => Err(Failure("the engine cannot be taken away".to_owned())),
    }
}

async fn back(bench: &Bench<'_>) -> CaseResult {
    Ok(bench.subject.restore().await?)
}

async fn what_was_acknowledged_survives_the_engines_death(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(2, &["group"]).await?;
    bench.send_all(numbered(&topic, 0, 0..200)).await?;
    bench.send_all(numbered(&topic, 1, 200..400)).await?;
    away(bench).await?;
    back(bench).await?;
    let mut member = bench.consumer("group", &topic).await?;
    let came = member.take(400).await?;
    let mut numbered: Vec<u32> = came.iter().filter_map(|each| text(each).parse().ok()).collect();
    numbered.sort_unstable();
    ensure_same(&numbered, &(0..400).collect(), "what was acknowledged")?;
    member.settle(&came).await?;
    member.close().await
}

async fn a_send_while_the_engine_is_away_fails_within_its_deadline_and_says_its_fate(bench: &Bench<'_>) -> CaseResult {
    const DEADLINE: Duration = Duration::from_secs(3);
    let topic = bench.topic(1, &["group"]).await?;
    let mut options = bench.sender();
    options.delivery_timeout = DEADLINE;
    let producer = bench.engine.producer(options).await?;
    send(&*producer, record(&topic, 0, "before")).await?.await?;
    away(bench).await?;
    let began = Instant::now();
    let sent = send(&*producer, record(&topic, 0, "away")).await?.await;
    let took = began.elapsed();
    back(bench).await?;
    let Err(error) = sent else { return Err(Failure("it succeeded without an engine".to_owned())) };
    ensure_same(&error.retry, &Retry::Later, "whether trying again may help")?;
    ensure(took < DEADLINE + Duration::from_secs(20), format_args!("it took {took:?}"))?;
    // Whether it was stored is for the log to say: a fate of "not stored" must be the truth.
    let mut member = bench.consumer("group", &topic).await?;
    let came = member.take(1).await?;
    let mut texts: BTreeSet<String> = came.iter().map(text).collect();
    texts.extend(member.silence().await?.iter().map(text));
    ensure(texts.contains("before"), "what was acknowledged is gone")?;
    ensure(error.fate == Fate::Unknown || !texts.contains("away"), "it was said not to be stored, and is")?;
    // The producer goes on by itself.
    let deadline = Instant::now() + RETURN_WAIT;
    while let Err(error) = send(&*producer, record(&topic, 0, "after")).await?.await {
        ensure(Instant::now() < deadline, format_args!("the producer does not recover: {error:?}"))?;
    }
    member.close().await
}

async fn flush_says_how_many_are_not_stored(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &["group"]).await?;
    let producer = bench.producer().await?;
    send(&*producer, record(&topic, 0, "before")).await?.await?;
    away(bench).await?;
    let mut waiting = Vec::new();
    for record in numbered(&topic, 0, 0..5) {
        waiting.push(send(&*producer, record).await?);
    }
    let left = producer.flush(Duration::from_millis(500)).await;
    back(bench).await?;
    ensure_same(&left, &5, "what flush says is left")?;
    for sent in waiting {
        // Its deadline may have passed on a slow machine; then it says so.
        let _ =
            tokio::time::timeout(RETURN_WAIT, sent).await.map_err(|_| Failure("a send never resolved".to_owned()))?;
    }
    Ok(())
}

async fn sends_that_span_an_outage_are_stored_once_it_is_over(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &["group"]).await?;
    let mut options = bench.sender();
    options.delivery_timeout = RETURN_WAIT;
    let producer = bench.engine.producer(options).await?;
    let mut waiting = Vec::new();
    for record in numbered(&topic, 0, 0..100) {
        waiting.push(send(&*producer, record).await?);
    }
    // Some of these are on their way when the engine goes.
    away(bench).await?;
    for record in numbered(&topic, 0, 100..200) {
        waiting.push(send(&*producer, record).await?);
    }
    back(bench).await?;
    for sent in waiting {
        sent.await?;
    }
    let mut member = bench.consumer("group", &topic).await?;
    let (mut first_seen, deadline) = (Vec::new(), Instant::now() + WAIT);
    while first_seen.len() < 200 {
        for each in member.messages().await? {
            let text = text(&each);
            match first_seen.contains(&text) {
                // Sent again under the same stamp: somebody behind us drops it.
                true => {
                    ensure(!bench.engine.capabilities().idempotent_retries, format_args!("{text} was stored twice"))?
                }
                false => first_seen.push(text),
            }
        }
        ensure(Instant::now() < deadline, format_args!("{} of 200 were stored", first_seen.len()))?;
    }
    ensure_same(&first_seen, &numbers(0..200), "the order in which they were first stored")?;
    member.close().await
}

async fn a_consumer_goes_on_by_itself_after_an_outage(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(2, &["group"]).await?;
    let mut member = bench.consumer("group", &topic).await?;
    bench.send_all(numbered(&topic, 0, 0..20)).await?;
    let came = member.take(20).await?;
    member.settle(came.get(..10).unwrap_or_default()).await?;
    away(bench).await?;
    let _ = member.silence().await?;
    back(bench).await?;
    bench.send_all(numbered(&topic, 0, 20..40)).await?;
    bench.send_all(numbered(&topic, 1, 40..60)).await?;
    let (mut seen, deadline) = (BTreeSet::new(), Instant::now() + RETURN_WAIT);
    // Whether what was delivered and not settled comes again is for the engine: it does where the assignment was lost.
    seen.extend(came.iter().map(text));
    while seen.len() < 60 {
        let batch = member.messages().await?;
        let ours: Vec<_> = batch.into_iter().filter(|each| member.assigned.contains_key(&each.from)).collect();
        seen.extend(ours.iter().map(text));
        // One that was lost meanwhile is refused, and comes again.
        let settlements = member.done(&ours, "");
        let _ = member.consumer.settle(&settlements).await;
        ensure(Instant::now() < deadline, format_args!("{} of 60 came", seen.len()))?;
    }
    member.close().await
}
