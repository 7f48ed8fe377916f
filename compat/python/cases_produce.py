"""Producing: codecs, keys, headers, nulls, acknowledgements, idempotence, sizes, times."""

import random
import time

from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    KafkaError,
    KafkaException,
)

from clients import bodies, make_topic, produce, producer, read_to_end, send, values
from harness import case, check, equal

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


@case
def every_codec_reads_back_as_sent(server):
    topic = make_topic(server)
    expected = []
    for codec in CODECS:
        messages = [{"value": f"{codec}-{n}-{'abc' * 100}".encode(), "key": str(n).encode()} for n in range(200)]
        places = produce(server, topic, messages, **{"compression.type": codec, "linger.ms": 20})
        equal([offset for _, offset in places], list(range(len(expected), len(expected) + 200)), f"offsets of {codec}")
        expected += [(m["key"], m["value"]) for m in messages]
    equal([(m.key(), m.value()) for m in read_to_end(server, topic)], expected, "messages")


@case
def keys_headers_and_nulls_read_back_as_sent(server):
    topic = make_topic(server)
    headers = [("trace", b"1"), ("trace", b"2"), ("empty", b""), ("null", None), ("bytes", bytes(range(256))), ("trace", b"1")]
    sent = [
        {"key": None, "value": b"no key"},
        {"key": b"", "value": b"empty key"},
        {"key": b"tombstone", "value": None},
        {"key": b"empty value", "value": b""},
        {"key": None, "value": None},
        {"key": "schl\u00fcssel\u2713".encode(), "value": "wert\u2713".encode(), "headers": headers},
        {"key": bytes(range(256)), "value": bytes(range(255, -1, -1)), "headers": [("\u00fc", b"name beyond ASCII")]},
    ]
    for codec in CODECS:
        produce(server, topic, sent, **{"compression.type": codec, "linger.ms": 20})
    got = [(m.key(), m.value(), m.headers()) for m in read_to_end(server, topic)]
    equal(got, [(m["key"], m["value"], m.get("headers")) for m in sent] * len(CODECS), "messages")


@case
def every_level_of_acknowledgement_stores_the_messages(server):
    topic = make_topic(server)
    expected = []
    for level in ["0", "1", "all"]:
        messages = values(50, f"acks-{level}")
        produce(server, topic, messages, acks=level)
        expected += [m["value"].decode() for m in messages]
        # Without acknowledgement the next producer could overtake the messages on their way.
        deadline = time.monotonic() + 10
        while len(read_to_end(server, topic)) < len(expected):
            check(time.monotonic() < deadline, f"messages sent with acks={level} do not arrive")
    equal(bodies(read_to_end(server, topic)), expected, "messages")


@case
def idempotent_produce_stores_each_message_once_in_order(server):
    topic = make_topic(server, partitions=3)
    sender = producer(server, **{"enable.idempotence": True, "linger.ms": 1, "batch.num.messages": 7})
    sent = [{"value": f"{n}".encode(), "partition": n % 3} for n in range(2000)]
    places = send(sender, topic, sent)
    for partition in range(3):
        offsets = [offset for p, offset in places if p == partition]
        equal(offsets, list(range(len(offsets))), f"offsets of partition {partition}")
    got = read_to_end(server, topic, partitions=3)
    for partition in range(3):
        stored = [int(m.value()) for m in got if m.partition() == partition]
        equal(stored, [n for n in range(2000) if n % 3 == partition], f"partition {partition}")


@case
def times_are_those_of_the_producer_or_of_the_broker_as_the_topic_says(server):
    by_producer = make_topic(server)
    sent = [{"value": b"x", "timestamp": 1_600_000_000_000 + n * 1000} for n in range(5)]
    produce(server, by_producer, sent)
    expected = [(TIMESTAMP_CREATE_TIME, m["timestamp"]) for m in sent]
    equal([m.timestamp() for m in read_to_end(server, by_producer)], expected, "times of the producer")
    by_broker = make_topic(server, **{"message.timestamp.type": "LogAppendTime"})
    before = int(time.time() * 1000)
    produce(server, by_broker, sent, **{"compression.type": "gzip", "linger.ms": 20})
    after = int(time.time() * 1000)
    for message in read_to_end(server, by_broker):
        kind, at = message.timestamp()
        equal(kind, TIMESTAMP_LOG_APPEND_TIME, "kind of time")
        check(before <= at <= after, f"append time {at} is not within {before}..{after}")


@case
def messages_up_to_the_limit_are_stored_and_larger_ones_refused(server):
    topic = make_topic(server)
    noise = random.Random(1)
    large = noise.randbytes(1_000_000)
    sender = producer(server, **{"message.max.bytes": 10_000_000, "compression.type": "none"})
    equal(send(sender, topic, [{"value": large}]), [(0, 0)], "place of a message below the limit")
    try:
        send(sender, topic, [{"value": noise.randbytes(1_100_000)}])
        raise AssertionError("a message above message.max.bytes was accepted")
    except KafkaException as refused:
        equal(refused.args[0].code(), KafkaError.MSG_SIZE_TOO_LARGE, "error code")
    equal(send(sender, topic, [{"value": b"next"}]), [(0, 1)], "place of the message after the refused one")
    equal([m.value() for m in read_to_end(server, topic)], [large, b"next"], "messages")


@case
def the_limit_of_a_topic_goes_before_that_of_the_broker(server):
    topic = make_topic(server, **{"max.message.bytes": "2000"})
    sender = producer(server, **{"compression.type": "none"})
    send(sender, topic, [{"value": bytes(1500)}])
    try:
        send(sender, topic, [{"value": bytes(2500)}])
        raise AssertionError("a message above max.message.bytes was accepted")
    except KafkaException as refused:
        equal(refused.args[0].code(), KafkaError.MSG_SIZE_TOO_LARGE, "error code")
