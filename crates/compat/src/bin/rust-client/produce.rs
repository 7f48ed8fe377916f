//! Producing: codecs, keys, headers, nulls, acknowledgements, idempotence, sizes, times.

use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::{Offset, Timestamp};

use crate::server::{CODECS, Send, Server, message, numbered, refused, values};
use crate::{Case, Outcome, check, equal, wait_until};

pub const CASES: &[(&str, Case)] = &[
    ("every_codec_reads_back_as_sent", every_codec),
    ("keys_headers_and_nulls_read_back_as_sent", keys_headers_and_nulls),
    ("every_level_of_acknowledgement_stores_the_messages", acknowledgements),
    ("idempotent_produce_stores_each_message_once_in_order", idempotent),
    ("times_are_those_of_the_producer_or_of_the_broker_as_the_topic_says", times),
    ("messages_up_to_the_limit_are_stored_and_larger_ones_refused", sizes),
    ("the_limit_of_a_topic_goes_before_that_of_the_broker", limit_of_topic),
];

fn every_codec(server: &Server) -> Outcome {
    let topic = server.topic(1, &[])?;
    let mut expected: Vec<String> = Vec::new();
    for codec in CODECS {
        let messages = numbered(&format!("{codec}-{}", "abc".repeat(100)), 200, 0);
        let offsets = server.produce(&topic, &messages, &[("compression.type", codec), ("linger.ms", "20")])?;
        let first = i64::try_from(expected.len()).unwrap_or(i64::MAX);
        equal(&offsets, &(first..first + 200).collect(), &format!("offsets of {codec}"))?;
        expected.extend((0..200).map(|number| format!("{codec}-{}-{number}", "abc".repeat(100))));
    }
    equal(&values(&server.read(&topic, 1, Offset::Beginning)?), &expected, "messages")
}

type Parts = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

fn parts(message: &OwnedMessage) -> Parts {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    (message.key().map(<[u8]>::to_vec), message.payload().map(<[u8]>::to_vec), headers.unwrap_or_default())
}

fn keys_headers_and_nulls(server: &Server) -> Outcome {
    let topic = server.topic(1, &[])?;
    let all: Vec<u8> = (0..=255).collect();
    let names: [(&str, Option<&[u8]>); 6] = [
        ("trace", Some(b"1")),
        ("trace", Some(b"2")),
        ("empty", Some(b"")),
        ("null", None),
        ("\u{fc}", Some(&all)),
        ("trace", Some(b"1")),
    ];
    let headers =
        names.iter().fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: *value }));
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let plain = [(None, bytes("no key")), (bytes(""), bytes("empty key")), (bytes("tombstone"), None)];
    let more = [(bytes("empty value"), bytes("")), (None, None)];
    let mut sent: Vec<Send> =
        plain.into_iter().chain(more).map(|(key, value)| Send { key, value, ..Send::default() }).collect();
    sent.push(Send { key: bytes("\u{2713}"), value: Some(all.clone()), headers: Some(headers), ..Send::default() });
    for codec in CODECS {
        server.produce(&topic, &sent, &[("compression.type", codec), ("linger.ms", "20")])?;
    }
    let owned = |(key, value): &(&str, Option<&[u8]>)| ((*key).to_owned(), value.map(<[u8]>::to_vec));
    let once: Vec<Parts> = sent
        .iter()
        .map(|one| {
            let headers = if one.headers.is_some() { names.iter().map(owned).collect() } else { Vec::new() };
            (one.key.clone(), one.value.clone(), headers)
        })
        .collect();
    let got: Vec<Parts> = server.read(&topic, 1, Offset::Beginning)?.iter().map(parts).collect();
    equal(&got, &CODECS.iter().flat_map(|_| once.clone()).collect(), "messages")
}

fn acknowledgements(server: &Server) -> Outcome {
    let topic = server.topic(1, &[])?;
    let mut expected = Vec::new();
    for level in ["0", "1", "all"] {
        let prefix = format!("acks-{level}");
        server.produce(&topic, &numbered(&prefix, 50, 0), &[("acks", level)])?;
        expected.extend((0..50).map(|number| format!("{prefix}-{number}")));
        // Without acknowledgement the next producer could overtake the messages on their way.
        wait_until("the messages arrive", || {
            Ok((server.read(&topic, 1, Offset::Beginning)?.len() == expected.len()).then_some(()))
        })?;
    }
    equal(&values(&server.read(&topic, 1, Offset::Beginning)?), &expected, "messages")
}

fn idempotent(server: &Server) -> Outcome {
    let topic = server.topic(3, &[])?;
    let sender = server.sender(&[("enable.idempotence", "true"), ("batch.num.messages", "7"), ("linger.ms", "1")])?;
    let sent: Vec<Send> = (0..2000).map(|number| message(&number.to_string(), number % 3)).collect();
    sender.send(&topic, &sent)?.map_err(|code| format!("sending: {code}"))?;
    let got = server.read(&topic, 3, Offset::Beginning)?;
    for partition in 0..3 {
        let stored: Vec<OwnedMessage> = got.iter().filter(|one| one.partition() == partition).cloned().collect();
        let expected: Vec<String> = (0..2000).filter(|n| n % 3 == partition).map(|n: i32| n.to_string()).collect();
        equal(&values(&stored), &expected, &format!("partition {partition}"))?;
    }
    Ok(())
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn times(server: &Server) -> Outcome {
    let topic = server.topic(1, &[])?;
    let at = |number: i64| 1_600_000_000_000 + number * 1000;
    let sent: Vec<Send> = (0..5).map(|n| Send { timestamp: Some(at(n)), ..message("x", 0) }).collect();
    server.produce(&topic, &sent, &[])?;
    let got: Vec<Timestamp> = server.read(&topic, 1, Offset::Beginning)?.iter().map(Message::timestamp).collect();
    equal(&got, &(0..5).map(|n| Timestamp::CreateTime(at(n))).collect(), "times of the producer")?;
    let topic = server.topic(1, &[("message.timestamp.type", "LogAppendTime")])?;
    let before = now_ms();
    server.produce(&topic, &sent, &[("compression.type", "zstd"), ("linger.ms", "20")])?;
    let after = now_ms();
    for message in server.read(&topic, 1, Offset::Beginning)? {
        let Timestamp::LogAppendTime(at) = message.timestamp() else {
            return Err(format!("the time of a message is {:?}", message.timestamp()));
        };
        check((before..=after).contains(&at), || format!("append time {at} is not within {before}..{after}"))?;
    }
    Ok(())
}

fn noise(size: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    })
    .take(size)
    .collect()
}

fn sizes(server: &Server) -> Outcome {
    let topic = server.topic(1, &[])?;
    let sender = server.sender(&[("message.max.bytes", "10000000"), ("compression.type", "none")])?;
    let sized = |size| Send { value: Some(noise(size)), ..Send::default() };
    equal(&sender.send(&topic, &[sized(1_000_000)])?, &Ok(vec![0]), "a message below the limit")?;
    let answer = sender.send(&topic, &[sized(1_100_000)])?;
    refused(answer, RDKafkaErrorCode::MessageSizeTooLarge, "a message above message.max.bytes")?;
    equal(&sender.send(&topic, &[message("next", 0)])?, &Ok(vec![1]), "the message after the refused one")?;
    let got: Vec<Option<Vec<u8>>> =
        server.read(&topic, 1, Offset::Beginning)?.iter().map(|one| one.payload().map(<[u8]>::to_vec)).collect();
    equal(&got, &vec![Some(noise(1_000_000)), Some(b"next".to_vec())], "messages")
}

fn limit_of_topic(server: &Server) -> Outcome {
    let topic = server.topic(1, &[("max.message.bytes", "2000")])?;
    let sender = server.sender(&[("compression.type", "none")])?;
    let sized = |size| Send { value: Some(vec![0; size]), ..Send::default() };
    equal(&sender.send(&topic, &[sized(1500)])?, &Ok(vec![0]), "a message below the limit")?;
    let answer = sender.send(&topic, &[sized(2500)])?;
    refused(answer, RDKafkaErrorCode::MessageSizeTooLarge, "a message above max.message.bytes")
}
