//! Sending: what a resolved send means, order, edges, back-pressure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_core::{Delivery, Headers, TopicPartition};
use bytes::Bytes;

use super::bench::{Bench, CaseResult, Failure, WAIT, ensure, ensure_same, numbered, numbers, record, send, text};
use super::{Case, case};
use crate::{Fate, Record};

/// As large as Kafka's default limit of a batch allows, with room for headers.
const LARGE_BYTES: usize = 900_000;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(what_was_sent_comes_back_as_it_was, []),
        case!(a_large_message_is_carried, []),
        case!(sends_to_a_partition_are_stored_in_their_order, []),
        case!(a_resolved_send_can_be_read_at_once, [Reading]),
        case!(an_offset_in_a_receipt_is_where_the_message_is, [Reading]),
        case!(a_full_buffer_gives_the_record_back, []),
        case!(flush_waits_for_every_record, []),
        case!(a_dropped_send_future_does_not_take_the_record_back, []),
        case!(a_partition_that_is_not_there_is_refused_as_not_stored, []),
    ]
}

fn headers(pairs: &[(&str, Option<&'static [u8]>)]) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in pairs {
        headers.push(*name, value.map(Bytes::from_static));
    }
    headers
}

/// Every edge of a message.
fn edges(topic: &Arc<str>) -> Vec<Record> {
    let plain = |number: u32| record(topic, 0, number.to_string());
    let mut records = vec![plain(0)];
    records.push(Record { key: Some(Bytes::new()), ..plain(1) });
    records.push(Record { key: Some(Bytes::from_static(b"\0\xff key")), ..plain(2) });
    records.push(Record { payload: Some(Bytes::new()), key: Some(Bytes::from_static(b"empty")), ..plain(3) });
    records.push(Record { payload: None, key: Some(Bytes::from_static(b"absent")), ..plain(4) });
    records.push(Record {
        headers: headers(&[("none", None), ("empty", Some(b"")), ("bytes", Some(b"\0\xff\x80"))]),
        ..plain(5)
    });
    let twice = [("twice", Some(b"1".as_slice())), ("between", Some(b"x")), ("twice", Some(b"2")), ("twice", None)];
    records.push(Record { headers: headers(&twice), ..plain(6) });
    records.push(Record { headers: headers(&[("", Some(b"no name")), ("Grüße", Some(b"utf-8"))]), ..plain(7) });
    records.push(Record { timestamp_ms: Some(1_700_000_000_123), ..plain(8) });
    records.push(Record { id: Some("order-17".into()), ..plain(9) });
    records
}

async fn what_was_sent_comes_back_as_it_was(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &["group"]).await?;
    let sent = edges(&topic);
    bench.send_all(sent.clone()).await?;
    let mut member = bench.consumer("group", &topic).await?;
    let came = member.take(sent.len()).await?;
    for (sent, came) in sent.iter().zip(&came) {
        ensure_same(&came.from, &sent.to, "where from")?;
        ensure_same(&came.key, &sent.key, "the key")?;
        ensure_same(&came.payload, &sent.payload, "the content")?;
        ensure_same(&came.headers, &sent.headers, "the headers")?;
        match sent.timestamp_ms {
            Some(_) => ensure_same(&came.timestamp_ms, &sent.timestamp_ms, "the time")?,
            None => {
                ensure(came.timestamp_ms.is_some_and(|time| time > 1_700_000_000_000), "the time of sending is there")?
            }
        }
    }
    member.close().await
}

async fn a_large_message_is_carried(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &["group"]).await?;
    let payload: Vec<u8> = (0..LARGE_BYTES).map(|index| (index % 251) as u8).collect();
    bench.send_all(vec![record(&topic, 0, payload.clone())]).await?;
    let mut member = bench.consumer("group", &topic).await?;
    let came = member.take(1).await?;
    ensure(came.iter().all(|each| each.payload.as_deref() == Some(payload.as_slice())), "the content is another")?;
    member.close().await
}

async fn sends_to_a_partition_are_stored_in_their_order(bench: &Bench<'_>) -> CaseResult {
    const EACH: u32 = 1_500;
    let topic = bench.topic(3, &["group"]).await?;
    let mut records = Vec::new();
    for number in 0..EACH {
        records.extend((0..3).map(|partition| record(&topic, partition, number.to_string())));
    }
    // Nothing is waited for between the sends.
    bench.send_all(records).await?;
    let mut member = bench.consumer("group", &topic).await?;
    let (mut came, deadline) = (Vec::new(), Instant::now() + WAIT);
    while came.len() < 3 * EACH as usize {
        let batch = member.messages().await?;
        // Some engines deliver no more while so many are not settled.
        member.settle(&batch).await?;
        ensure(Instant::now() < deadline, format_args!("{} messages came", came.len()))?;
        came.extend(batch);
    }
    for partition in 0..3 {
        let of = |each: &&Delivery| each.from.partition == partition;
        let texts: Vec<String> = came.iter().filter(of).map(text).collect();
        ensure_same(&texts, &numbers(0..EACH), "order of a partition")?;
    }
    member.close().await
}

async fn a_resolved_send_can_be_read_at_once(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &[]).await?;
    let producer = bench.producer().await?;
    let mut reader = bench.engine.reader(&TopicPartition::new(topic.clone(), 0), 0).await?;
    for number in 0..20 {
        send(&*producer, record(&topic, 0, number.to_string())).await?.await?;
        let read: Vec<String> = reader.next().await?.iter().map(text).collect();
        ensure_same(&read, &vec![number.to_string()], "what can be read after the send resolved")?;
    }
    Ok(())
}

async fn an_offset_in_a_receipt_is_where_the_message_is(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &[]).await?;
    let producer = bench.producer().await?;
    bench.send_all(numbered(&topic, 0, 0..7)).await?;
    let stored = send(&*producer, record(&topic, 0, "here")).await?.await?;
    let Some(offset) = stored.offset else {
        return Err(Failure("an engine with lasting offsets tells none".to_owned()));
    };
    let mut reader = bench.engine.reader(&TopicPartition::new(topic, 0), offset).await?;
    let read: Vec<String> = reader.next().await?.iter().map(text).collect();
    ensure_same(&read, &vec!["here".to_owned()], "what is at the offset")
}

async fn a_full_buffer_gives_the_record_back(bench: &Bench<'_>) -> CaseResult {
    const LINGER_MS: u64 = 1_000;
    let topic = bench.topic(1, &["group"]).await?;
    let mut options = bench.sender();
    options.settings = bench.subject.small_buffer();
    options.linger_ms = LINGER_MS;
    let producer = bench.engine.producer(options).await?;
    let (mut waiting, mut returned) = (Vec::new(), None);
    for number in 0..10_000_u32 {
        let wanted = record(&topic, 0, number.to_string());
        match producer.send(wanted.clone()) {
            Ok(sent) => waiting.push(sent),
            Err(full) => {
                ensure_same(&*full.0, &wanted, "the record that came back")?;
                returned = Some(*full.0);
                break;
            }
        }
    }
    let Some(mut record) = returned else { return Err(Failure("the buffer has no limit".to_owned())) };
    let count = waiting.len();
    // It gets in once there is room, and nobody overtakes it.
    let deadline = Instant::now() + WAIT;
    let last = loop {
        let room = tokio::time::timeout(WAIT, producer.room()).await;
        ensure(room.is_ok() && Instant::now() < deadline, "no room")?;
        match producer.send(record) {
            Ok(sent) => break sent,
            Err(full) => record = *full.0,
        }
    };
    for sent in waiting {
        sent.await?;
    }
    last.await?;
    let mut member = bench.consumer("group", &topic).await?;
    let came: Vec<String> = member.take(count + 1).await?.iter().map(text).collect();
    ensure_same(&came, &numbers(0..u32::try_from(count + 1).unwrap_or(0)), "what was stored")?;
    member.close().await
}

async fn flush_waits_for_every_record(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(2, &["group"]).await?;
    let producer = bench.producer().await?;
    let mut waiting = Vec::new();
    for record in numbered(&topic, 0, 0..200).into_iter().chain(numbered(&topic, 1, 0..200)) {
        waiting.push(send(&*producer, record).await?);
    }
    ensure_same(&producer.flush(WAIT).await, &0, "records left by flush")?;
    for sent in waiting {
        let now = tokio::time::timeout(Duration::from_secs(1), sent).await;
        ensure(matches!(now, Ok(Ok(_))), format_args!("a send is not resolved after flush: {now:?}"))?;
    }
    ensure_same(&producer.flush(Duration::ZERO).await, &0, "records left when nothing is to be flushed")
}

async fn a_dropped_send_future_does_not_take_the_record_back(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &["group"]).await?;
    let producer = bench.producer().await?;
    for record in numbered(&topic, 0, 0..100) {
        drop(send(&*producer, record).await?);
    }
    ensure_same(&producer.flush(WAIT).await, &0, "records left by flush")?;
    let mut member = bench.consumer("group", &topic).await?;
    let came: Vec<String> = member.take(100).await?.iter().map(text).collect();
    ensure_same(&came, &numbers(0..100), "what was stored")?;
    member.close().await
}

async fn a_partition_that_is_not_there_is_refused_as_not_stored(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(2, &["group"]).await?;
    let producer = bench.producer().await?;
    let sent = send(&*producer, record(&topic, 2, "nowhere")).await?.await;
    ensure(matches!(&sent, Err(error) if error.fate == Fate::NotStored), format_args!("send: {sent:?}"))?;
    // The producer is as good as before.
    send(&*producer, record(&topic, 1, "somewhere")).await?.await?;
    Ok(())
}
