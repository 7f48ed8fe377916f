//! Topics, and reading them without a group.

use std::sync::Arc;

use baton_core::{Delivery, TopicPartition};

use super::bench::{
    Bench, CaseResult, Failure, ensure, ensure_same, is_refused, numbered, numbers, record, send, text,
};
use super::{Case, case};
use crate::{EngineReader, Fate, OLDEST, Retry, TopicSpec};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(create_topic_finds_the_topic_that_is_there, []),
        case!(a_topic_with_another_number_of_partitions_is_refused, []),
        case!(an_unknown_topic_is_the_callers_error, []),
        case!(a_send_without_any_group_is_refused_as_not_stored, [NoHistory]),
        case!(what_nobody_takes_is_told_from_what_is_sent_beside_it, [NoHistory]),
        case!(a_reader_gives_all_from_an_offset_and_ends, [Reading]),
        case!(a_reader_refuses_what_is_not_there, [Reading]),
        case!(a_reader_finds_the_oldest_that_is_kept, [Reading, Removal]),
    ]
}

async fn create_topic_finds_the_topic_that_is_there(bench: &Bench<'_>) -> CaseResult {
    let name: Arc<str> = bench.name("topic").into();
    let spec = TopicSpec { name: name.clone(), partitions: 3, copies: None, settings: Vec::new() };
    bench.engine.create_topic(&spec).await?;
    bench.engine.create_topic(&spec).await?;
    ensure_same(&bench.engine.partitions(&name).await?, &3, "partitions")
}

async fn a_topic_with_another_number_of_partitions_is_refused(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(3, &[]).await?;
    for partitions in [1, 2, 4] {
        let spec = TopicSpec { name: topic.clone(), partitions, copies: None, settings: Vec::new() };
        let result = bench.engine.create_topic(&spec).await;
        ensure(is_refused(&result), format_args!("{partitions} partitions instead of 3: {result:?}"))?;
    }
    ensure_same(&bench.engine.partitions(&topic).await?, &3, "partitions")
}

async fn an_unknown_topic_is_the_callers_error(bench: &Bench<'_>) -> CaseResult {
    let name: Arc<str> = bench.name("absent").into();
    let asked = bench.engine.partitions(&name).await;
    ensure(is_refused(&asked), format_args!("partitions: {asked:?}"))?;
    let consumed = bench.engine.consumer(bench.member("group", &name)).await.map(|_| "a consumer");
    ensure(is_refused(&consumed), format_args!("consumer: {consumed:?}"))?;
    if bench.engine.capabilities().reading {
        let read = bench.engine.reader(&TopicPartition::new(name.clone(), 0), 0).await.map(|_| "a reader");
        ensure(is_refused(&read), format_args!("reader: {read:?}"))?;
    }
    let producer = bench.producer().await?;
    let Ok(sent) = producer.send(record(&name, 0, "lost")) else {
        return Err(Failure("the buffer is full".to_owned()));
    };
    let sent = sent.await;
    ensure(matches!(&sent, Err(error) if error.fate == Fate::NotStored), format_args!("send: {sent:?}"))?;
    let asked = bench.engine.partitions(&name).await;
    ensure(is_refused(&asked), format_args!("nothing of this may create the topic: {asked:?}"))
}

async fn a_send_without_any_group_is_refused_as_not_stored(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &[]).await?;
    let producer = bench.producer().await?;
    let Ok(sent) = producer.send(record(&topic, 0, "nobody")) else {
        return Err(Failure("the buffer is full".to_owned()));
    };
    let sent = sent.await;
    let right = matches!(&sent, Err(error) if error.fate == Fate::NotStored && error.retry == Retry::Subscribed);
    ensure(right, format_args!("send: {sent:?}"))
}

async fn what_nobody_takes_is_told_from_what_is_sent_beside_it(bench: &Bench<'_>) -> CaseResult {
    let (taken, alone) = (bench.topic(1, &["group"]).await?, bench.topic(1, &[]).await?);
    let producer = bench.producer().await?;
    let mut waiting = Vec::new();
    for number in 0..500 {
        waiting.push((true, send(&*producer, record(&taken, 0, number.to_string())).await?));
        waiting.push((false, send(&*producer, record(&alone, 0, number.to_string())).await?));
    }
    for (number, (is_taken, sent)) in waiting.into_iter().enumerate() {
        let sent = sent.await;
        let right = match &sent {
            Ok(_) => is_taken,
            Err(error) => !is_taken && error.fate == Fate::NotStored,
        };
        ensure(right, format_args!("send {number}: {sent:?}"))?;
    }
    let mut member = bench.consumer("group", &taken).await?;
    let came = member.take(500).await?;
    ensure_same(&came.iter().map(text).collect::<Vec<_>>(), &numbers(0..500), "what came")?;
    member.close().await
}

async fn a_reader_gives_all_from_an_offset_and_ends(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(2, &[]).await?;
    bench.send_all(numbered(&topic, 1, 0..500)).await?;
    let partition = TopicPartition::new(topic.clone(), 1);
    let mut reader = bench.engine.reader(&partition, 100).await?;
    let read = read_on(&mut *reader).await?;
    ensure_same(&read.iter().map(text).collect::<Vec<_>>(), &numbers(100..500), "what was read")?;
    ensure(read.iter().all(|each| each.from == partition), "a reader gives only its partition")?;
    bench.send_all(numbered(&topic, 1, 500..600)).await?;
    let read = read_on(&mut *reader).await?;
    ensure_same(&read.iter().map(text).collect::<Vec<_>>(), &numbers(500..600), "what was read afterwards")?;
    let mut other = bench.engine.reader(&TopicPartition::new(topic, 0), 0).await?;
    ensure(read_on(&mut *other).await?.is_empty(), "an empty partition ends at once")
}

async fn read_on(reader: &mut dyn EngineReader) -> Result<Vec<Delivery>, Failure> {
    let mut read = Vec::new();
    loop {
        let batch = reader.next().await?;
        if batch.is_empty() {
            return Ok(read);
        }
        read.extend(batch);
    }
}

async fn a_reader_refuses_what_is_not_there(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &[]).await?;
    bench.send_all(numbered(&topic, 0, 0..10)).await?;
    let beyond = bench.engine.reader(&TopicPartition::new(topic.clone(), 0), 11).await.map(|_| "a reader");
    ensure(is_refused(&beyond), format_args!("an offset beyond the end: {beyond:?}"))?;
    let absent = bench.engine.reader(&TopicPartition::new(topic, 1), 0).await.map(|_| "a reader");
    ensure(is_refused(&absent), format_args!("a partition that is not there: {absent:?}"))
}

async fn a_reader_finds_the_oldest_that_is_kept(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &[]).await?;
    let partition = TopicPartition::new(topic.clone(), 0);
    let mut nothing = bench.engine.reader(&partition, OLDEST).await?;
    ensure(read_on(&mut *nothing).await?.is_empty(), "nothing was sent yet")?;
    bench.send_all(numbered(&topic, 0, 0..100)).await?;
    let mut all = bench.engine.reader(&partition, OLDEST).await?;
    ensure_same(&read_on(&mut *all).await?.iter().map(text).collect::<Vec<_>>(), &numbers(0..100), "all")?;
    if let Some(removing) = bench.subject.remove(&partition, 40) {
        removing.await?;
    }
    let gone = bench.engine.reader(&partition, 0).await.map(|_| "a reader");
    ensure(is_refused(&gone), format_args!("an offset that was removed: {gone:?}"))?;
    let mut kept = bench.engine.reader(&partition, OLDEST).await?;
    ensure_same(&read_on(&mut *kept).await?.iter().map(text).collect::<Vec<_>>(), &numbers(40..100), "what is kept")
}
