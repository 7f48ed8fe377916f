//! Consuming without a group: positions, times, limits.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::server::{Send, Server, WAIT_MAX, message, numbered, text, value, values};
use crate::{Case, Outcome, check, equal, wait_until};

pub const CASES: &[(&str, Case)] = &[
    ("consume_from_the_start_from_an_offset_and_from_the_end", positions),
    ("consume_from_a_time", from_a_time),
    ("an_offset_out_of_range_follows_auto_offset_reset", out_of_range),
    ("a_waiting_fetch_returns_as_soon_as_a_message_arrives", long_poll),
    ("fetch_limits_below_one_message_still_make_progress", small_limits),
    ("many_partitions_of_several_topics_are_read_together", many_partitions),
    ("a_pattern_finds_topics_that_come_later", pattern),
];

fn everything(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| format!("value-{number}")).collect()
}

fn positions(server: &Server) -> Outcome {
    let topic = server.topic(1, &[])?;
    server.produce(&topic, &numbered("value", 100, 0), &[("linger.ms", "20")])?;
    for (start, from) in [
        (Offset::Beginning, 0),
        (Offset::Offset(37), 37),
        (Offset::Offset(99), 99),
        (Offset::Offset(100), 100),
        (Offset::End, 100),
        (Offset::OffsetTail(5), 95),
    ] {
        equal(&values(&server.read(&topic, 1, start)?), &everything(from, 100), &format!("from {start:?}"))?;
    }
    let reader = server.consumer(&server.unique("group"), &[])?;
    equal(&reader.fetch_watermarks(&topic, 0, WAIT_MAX).map_err(text)?, &(0, 100), "watermarks")
}

fn from_a_time(server: &Server) -> Outcome {
    let topic = server.topic(1, &[])?;
    let start = 1_700_000_000_000_i64;
    for batch in 0..5 {
        let at = |number: i64| Some(start + batch * 10_000 + number * 100);
        let messages: Vec<Send> =
            (0..10).map(|n| Send { timestamp: at(n), ..message(&format!("{batch}-{n}"), 0) }).collect();
        server.produce(&topic, &messages, &[("linger.ms", "20"), ("compression.type", "lz4")])?;
    }
    let reader = server.consumer(&server.unique("group"), &[])?;
    let found = |at: i64| -> Result<Offset, String> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(&topic, 0, Offset::Offset(at)).map_err(text)?;
        let answered = reader.offsets_for_times(asked, WAIT_MAX).map_err(text)?;
        answered.find_partition(&topic, 0).map(|one| one.offset()).ok_or_else(|| "no answer".into())
    };
    for (at, offset) in
        [(0, 0), (start, 0), (start + 20_000, 20), (start + 20_250, 23), (start + 15_000, 20), (start + 40_900, 49)]
    {
        equal(&found(at)?, &Offset::Offset(offset), &format!("offset for time {at}"))?;
    }
    equal(&found(start + 50_000)?, &Offset::End, "offset for a time after the last message")?;
    equal(
        &values(&server.read(&topic, 1, Offset::Offset(23))?)[0],
        &"2-3".to_owned(),
        "first message from that time on",
    )
}

fn out_of_range(server: &Server) -> Outcome {
    let topic = server.topic(1, &[])?;
    server.produce(&topic, &numbered("value", 10, 0), &[])?;
    let read = |reset| server.try_read(&topic, 1, Offset::Offset(5000), &[("auto.offset.reset", reset)]);
    equal(&values(&read("earliest")?.map_err(text)?), &everything(0, 10), "reset to the start")?;
    equal(&values(&read("latest")?.map_err(text)?), &everything(0, 0), "reset to the end")?;
    match read("error")? {
        Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset)) => Ok(()),
        other => Err(format!("an offset out of range gave {:?}", other.map(|messages| messages.len()))),
    }
}

fn long_poll(server: &Server) -> Outcome {
    let topic = server.topic(1, &[])?;
    let reader = server.consumer(&server.unique("group"), &[("fetch.wait.max.ms", "8000")])?;
    let mut assigned = TopicPartitionList::new();
    assigned.add_partition_offset(&topic, 0, Offset::Offset(0)).map_err(text)?;
    reader.assign(&assigned).map_err(text)?;
    check(reader.poll(Duration::from_millis(800)).is_none(), || "an empty topic gave something".into())?;
    let sent = Instant::now();
    server.produce(&topic, &[message("value", 0)], &[])?;
    let got = reader.poll(Duration::from_secs(20)).ok_or("no message")?.map_err(text)?;
    let waited = sent.elapsed();
    equal(&value(got.payload()), &"value".to_owned(), "message")?;
    check(waited < Duration::from_secs(4), || format!("the message came after {waited:?}, the fetch waited on"))
}

fn small_limits(server: &Server) -> Outcome {
    let topic = server.topic(1, &[])?;
    let messages: Vec<Send> =
        (0..20).map(|number| Send { value: Some(vec![number; 50_000]), ..Send::default() }).collect();
    server.produce(&topic, &messages, &[("compression.type", "none")])?;
    let limits = [("fetch.message.max.bytes", "1000"), ("fetch.max.bytes", "2000"), ("message.max.bytes", "1500")];
    let got = server.try_read(&topic, 1, Offset::Beginning, &limits)?.map_err(text)?;
    let first: Vec<u8> = got.iter().filter_map(|one| one.payload()?.first().copied()).collect();
    equal(&first, &(0..20).collect(), "messages")
}

fn many_partitions(server: &Server) -> Outcome {
    let topics = [server.topic(8, &[])?, server.topic(8, &[])?, server.topic(8, &[])?];
    let mut assigned = TopicPartitionList::new();
    for topic in &topics {
        let messages: Vec<Send> = (0..160).map(|number| message(&number.to_string(), number % 8)).collect();
        server.produce(topic, &messages, &[("linger.ms", "5")])?;
        for partition in 0..8 {
            assigned.add_partition_offset(topic, partition, Offset::Beginning).map_err(text)?;
        }
    }
    let reader = server.consumer(&server.unique("group"), &[])?;
    reader.assign(&assigned).map_err(text)?;
    let mut got: std::collections::BTreeMap<(String, i32), Vec<String>> = std::collections::BTreeMap::new();
    let deadline = Instant::now() + WAIT_MAX;
    while got.values().map(Vec::len).sum::<usize>() < 480 {
        check(Instant::now() < deadline, || format!("{} of 480 messages", got.values().map(Vec::len).sum::<usize>()))?;
        if let Some(message) = reader.poll(Duration::from_millis(200)) {
            let message = message.map_err(text)?;
            got.entry((message.topic().to_owned(), message.partition())).or_default().push(value(message.payload()));
        }
    }
    for ((topic, partition), stored) in got {
        let expected = (0..20).map(|number| (number * 8 + partition).to_string()).collect();
        equal(&stored, &expected, &format!("{topic} {partition}"))?;
    }
    Ok(())
}

fn pattern(server: &Server) -> Outcome {
    let stem = server.unique("pattern");
    let reader = server.consumer(&server.unique("group"), &[("topic.metadata.refresh.interval.ms", "500")])?;
    reader.subscribe(&[&format!("^{stem}-.*")]).map_err(text)?;
    for number in 0..2 {
        let topic = format!("{stem}-{number}");
        let new = rdkafka::admin::NewTopic::new(&topic, 1, rdkafka::admin::TopicReplication::Fixed(1));
        server.create(&new)?.map_err(text)?;
        wait_until("the topic appears", || Ok((server.partitions(&topic)? > 0).then_some(())))?;
        server.produce(&topic, &[message(&topic, 0)], &[])?;
        wait_until("the message of the new topic", || match reader.poll(Duration::from_millis(200)) {
            Some(Ok(got)) if value(got.payload()) == topic => Ok(Some(())),
            _ => Ok(None),
        })?;
    }
    Ok(())
}
