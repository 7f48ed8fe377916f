"""What the cases of the Python suite share: topics, producing, reading back, group members."""

import threading
import time
from collections import Counter

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from harness import check, wait_until

SECONDS_MAX = 30


def quiet(*_):
    """Swallows connection errors that a restart causes; the cases judge results, not log lines."""


# After the restart the clients should be back soon; log level 0 is for emergencies only.
_COMMON = {"error_cb": quiet, "log_level": 0, "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 500}

_admin_lock = threading.Lock()


def admin(server):
    """The admin client that all cases share: one that goes out of scope takes its open answers with it."""
    with _admin_lock:
        if server.admin is None:
            server.admin = AdminClient({"bootstrap.servers": server.bootstrap, **_COMMON})
        return server.admin


def make_topic(server, stem="topic", partitions=1, **configs):
    """Creates a topic with a unique name; returns the name."""
    name = server.unique(stem)
    create(server, NewTopic(name, num_partitions=partitions, replication_factor=1, config=configs))
    return name


def create(server, topic):
    """Creates a topic and waits until the broker tells of it."""
    admin(server).create_topics([topic])[topic.topic].result(SECONDS_MAX)
    wait_until(
        lambda: topic.topic in (topics := admin(server).list_topics(timeout=SECONDS_MAX).topics) and topics[topic.topic].partitions,
        SECONDS_MAX,
        f"topic {topic.topic} appears",
    )


def producer(server, **configs):
    """A producer that lingers as little as possible unless told otherwise."""
    base = {"bootstrap.servers": server.bootstrap, "linger.ms": 0, **_COMMON}
    return Producer({**base, **configs})


def send(sender, topic, messages):
    """Sends messages (dicts of produce() arguments) and returns (partition, offset) of each, in order."""
    results = [None] * len(messages)

    def reported(position):
        def callback(error, message):
            results[position] = error if error is not None else (message.partition(), message.offset())

        return callback

    for position, message in enumerate(messages):
        sender.produce(topic, on_delivery=reported(position), **message)
        sender.poll(0)
    left = sender.flush(SECONDS_MAX)
    check(left == 0, f"{left} of {len(messages)} messages were not delivered within {SECONDS_MAX} s")
    errors = [r for r in results if isinstance(r, KafkaError)]
    if errors:
        raise KafkaException(errors[0])
    return results


def produce(server, topic, messages, **configs):
    """Sends messages by a producer of their own."""
    return send(producer(server, **configs), topic, messages)


def values(count, prefix="value", partition=None):
    """Plain numbered messages."""
    where = {} if partition is None else {"partition": partition}
    return [{"value": f"{prefix}-{number}".encode(), **where} for number in range(count)]


def consumer(server, group=None, **configs):
    """A consumer that commits nothing by itself."""
    base = {
        "bootstrap.servers": server.bootstrap,
        "group.id": group or server.unique("group"),
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 100,
        **_COMMON,
    }
    return Consumer({**base, **configs})


def read_to_end(server, topic, partitions=1, start=OFFSET_BEGINNING, **configs):
    """Everything from `start` (an offset, or one per partition) to the end of each partition."""
    reader = consumer(server, **{"enable.partition.eof": True, **configs})
    starts = start if isinstance(start, list) else [start] * partitions
    reader.assign([TopicPartition(topic, number, begin) for number, begin in enumerate(starts)])
    messages, ended, deadline = [], set(), time.monotonic() + SECONDS_MAX
    try:
        while len(ended) < partitions:
            check(time.monotonic() < deadline, f"{len(messages)} messages and no end after {SECONDS_MAX} s")
            message = reader.poll(0.5)
            if message is None:
                continue
            if message.error() is None:
                messages.append(message)
            elif message.error().code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
            else:
                raise KafkaException(message.error())
    finally:
        reader.close()
    return messages


def bodies(messages):
    """The values as text."""
    return [m.value().decode() for m in messages]


# While a group rebalances or its broker starts, a commit is answered with one of these and made again after it.
COMMIT_LATER = (
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._WAIT_COORD,
)


class Member(threading.Thread):
    """A group member that commits each message before it asks for the next."""

    def __init__(self, server, group, topics, **configs):
        super().__init__(daemon=True)
        self.reader = consumer(server, group, **{"heartbeat.interval.ms": 500, **configs})
        self.topics = topics
        self.seen = []
        self.assigned = set()
        self.events = []  # ("assign" or "revoke" or "lost", frozenset of partitions), as the client told them
        self.error = None
        self._stop_asked = threading.Event()
        self._dirty = {}
        self.start()

    def run(self):
        def on_assign(_, partitions):
            self.events.append(("assign", frozenset((p.topic, p.partition) for p in partitions)))
            self.assigned |= {(p.topic, p.partition) for p in partitions}

        def on_revoke(_, partitions):
            self._commit()
            self._forget("revoke", partitions)

        def on_lost(_, partitions):
            self._forget("lost", partitions)

        try:
            self.reader.subscribe(self.topics, on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost)
            while not self._stop_asked.is_set():
                message = self.reader.poll(0.1)
                if message is not None and message.error() is None:
                    self.seen.append(message.value().decode())
                    self._dirty[(message.topic(), message.partition())] = message.offset() + 1
                elif message is not None and message.error().code() == KafkaError._FATAL:
                    raise KafkaException(message.error())
                self._commit()
        except Exception as error:  # told to the case through join_all
            self.error = error
        finally:
            self.reader.close()

    def _forget(self, kind, partitions):
        gone = {(p.topic, p.partition) for p in partitions}
        self.events.append((kind, frozenset(gone)))
        self.assigned -= gone
        for partition in gone:
            self._dirty.pop(partition, None)

    def _commit(self):
        if not self._dirty:
            return
        offsets = [TopicPartition(topic, number, offset) for (topic, number), offset in self._dirty.items()]
        try:
            self.reader.commit(offsets=offsets, asynchronous=False)
            self._dirty.clear()
        except KafkaException as error:
            if error.args[0].code() not in COMMIT_LATER:
                raise

    def leave(self):
        """Leaves the group cleanly."""
        self._stop_asked.set()
        self.join(SECONDS_MAX)
        check(not self.is_alive(), "a member did not close in time")
        if self.error is not None:
            raise self.error


def wait_for_share(members, partitions, seconds=SECONDS_MAX):
    """Waits until the members hold all partitions between them, evenly, and none of them twice."""

    def shared():
        for member in members:
            if member.error is not None:
                raise member.error
        held = [len(m.assigned) for m in members]
        every = Counter(p for m in list(members) for p in list(m.assigned))
        return len(every) == partitions and max(every.values()) == 1 and max(held) - min(held) <= 1

    wait_until(shared, seconds, lambda: f"{partitions} partitions shared evenly; held: {[len(m.assigned) for m in members]}")


def wait_for_seen(members, expected, seconds=SECONDS_MAX):
    """Waits until the members have seen all expected values between them; returns how often each was seen."""

    def counted():
        return Counter(v for m in members for v in list(m.seen))

    wait_until(
        lambda: not (set(expected) - counted().keys()),
        seconds,
        lambda: f"{len(set(expected) - counted().keys())} of {len(expected)} messages not seen",
    )
    return counted()
