"""Consuming without a group: positions, times, ends, limits."""

import threading
import time

from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition

from clients import (
    SECONDS_MAX,
    bodies,
    consumer,
    make_topic,
    produce,
    producer,
    read_to_end,
    send,
    values,
)
from harness import case, check, equal, wait_until


@case
def consume_from_the_start_from_an_offset_and_from_the_end(server):
    topic = make_topic(server)
    produce(server, topic, values(100), **{"linger.ms": 20})
    everything = [f"value-{n}" for n in range(100)]
    equal(bodies(read_to_end(server, topic)), everything, "from the start")
    equal(bodies(read_to_end(server, topic, start=37)), everything[37:], "from offset 37, within a batch")
    equal(bodies(read_to_end(server, topic, start=99)), everything[99:], "from the last offset")
    equal(bodies(read_to_end(server, topic, start=100)), [], "from the end by its offset")
    equal(bodies(read_to_end(server, topic, start=OFFSET_END)), [], "from the end by its name")
    reader = consumer(server)
    equal(reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=SECONDS_MAX), (0, 100), "watermarks")
    reader.close()


@case
def consume_from_a_time(server):
    topic = make_topic(server)
    start = 1_700_000_000_000
    for batch in range(5):
        messages = [{"value": f"{batch}-{n}".encode(), "timestamp": start + batch * 10_000 + n * 100} for n in range(10)]
        produce(server, topic, messages, **{"linger.ms": 20, "compression.type": "lz4"})
    reader = consumer(server)
    for wanted, offset in [(0, 0), (start, 0), (start + 20_000, 20), (start + 20_250, 23), (start + 15_000, 20), (start + 40_900, 49)]:
        found = reader.offsets_for_times([TopicPartition(topic, 0, wanted)], timeout=SECONDS_MAX)[0]
        equal((found.offset, found.error), (offset, None), f"offset for time {wanted}")
    found = reader.offsets_for_times([TopicPartition(topic, 0, start + 50_000)], timeout=SECONDS_MAX)[0]
    equal(found.offset, OFFSET_END, "offset for a time after the last message")
    reader.close()
    equal(bodies(read_to_end(server, topic, start=23))[:2], ["2-3", "2-4"], "messages from that time on")


@case
def an_offset_out_of_range_follows_auto_offset_reset(server):
    topic = make_topic(server)
    produce(server, topic, values(10))
    everything = [f"value-{n}" for n in range(10)]
    equal(bodies(read_to_end(server, topic, start=5000, **{"auto.offset.reset": "earliest"})), everything, "reset to the start")
    equal(bodies(read_to_end(server, topic, start=5000, **{"auto.offset.reset": "latest"})), [], "reset to the end")
    try:
        read_to_end(server, topic, start=5000, **{"auto.offset.reset": "error"})
        raise AssertionError("an offset out of range was read without an error")
    except KafkaException as refused:
        equal(refused.args[0].code(), KafkaError._AUTO_OFFSET_RESET, "error code")


@case
def a_waiting_fetch_returns_as_soon_as_a_message_arrives(server):
    topic = make_topic(server)
    reader = consumer(server, **{"fetch.wait.max.ms": 8_000, "auto.offset.reset": "latest", "enable.partition.eof": True})
    reader.assign([TopicPartition(topic, 0, 0)])
    ended = wait_until(lambda: reader.poll(0.5), SECONDS_MAX, "the end of the partition")
    equal(ended.error().code(), KafkaError._PARTITION_EOF, "first event")
    time.sleep(0.5)  # the next fetch waits at the broker by now
    sent = time.monotonic()
    produce(server, topic, values(1))
    message = wait_until(lambda: reader.poll(0.5), SECONDS_MAX, "the message")
    waited = time.monotonic() - sent
    equal(message.value(), b"value-0", "message")
    check(waited < 4, f"the message came after {waited:.1f} s, the fetch waited on")
    reader.close()


@case
def fetch_limits_below_one_message_still_make_progress(server):
    topic = make_topic(server)
    produce(server, topic, [{"value": bytes([n]) * 50_000} for n in range(20)], **{"compression.type": "none"})
    limits = {"fetch.message.max.bytes": 1000, "fetch.max.bytes": 2000, "message.max.bytes": 1500}
    got = read_to_end(server, topic, **limits)
    equal([m.value()[:1] for m in got], [bytes([n]) for n in range(20)], "messages")


@case
def many_partitions_of_several_topics_are_read_together(server):
    topics = [make_topic(server, partitions=8) for _ in range(3)]
    sender = producer(server, **{"linger.ms": 5})
    for topic in topics:
        send(sender, topic, [{"value": f"{n}".encode(), "partition": n % 8} for n in range(160)])
    reader = consumer(server)
    reader.assign([TopicPartition(topic, partition, 0) for topic in topics for partition in range(8)])
    got = {}
    deadline = time.monotonic() + SECONDS_MAX
    while sum(len(v) for v in got.values()) < 480:
        check(time.monotonic() < deadline, f"{sum(len(v) for v in got.values())} of 480 messages")
        for message in reader.consume(100, timeout=0.2):
            check(message.error() is None, message.error())
            got.setdefault((message.topic(), message.partition()), []).append(int(message.value()))
    reader.close()
    for topic in topics:
        for partition in range(8):
            equal(got[(topic, partition)], list(range(partition, 160, 8)), f"partition {partition}")


@case
def a_pattern_finds_topics_that_come_later(server):
    stem = server.unique("pattern")
    reader = consumer(server, **{"topic.metadata.refresh.interval.ms": 500})
    reader.subscribe([f"^{stem}-.*"])
    polling, seen = threading.Event(), []

    def poll():
        while not polling.is_set():
            message = reader.poll(0.1)
            if message is not None and message.error() is None:
                seen.append(message.value())

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        for number in range(2):
            topic = make_topic(server, f"{stem}-{number}")
            produce(server, topic, [{"value": topic.encode()}])
            wait_until(lambda t=topic: t.encode() in seen, SECONDS_MAX, f"the message of topic number {number}")
    finally:
        polling.set()
        thread.join(SECONDS_MAX)
        reader.close()
