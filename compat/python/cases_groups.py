"""Groups: members that join, leave, return and die; commits."""

import contextlib
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from clients import (
    SECONDS_MAX,
    Member,
    bodies,
    consumer,
    make_topic,
    produce,
    producer,
    values,
    wait_for_seen,
    wait_for_share,
)
from harness import case, check, equal, wait_until

PARTITIONS = 6


class Load:
    """Sends numbered messages, round robin over the partitions, until it is stopped."""

    def __init__(self, server, topic, partitions=PARTITIONS):
        self.sent = []
        self._stop = threading.Event()
        self._sender = producer(server)
        self._topic, self._partitions = topic, partitions
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.wait(0.005):
            value = f"load-{len(self.sent)}"
            self._sender.produce(self._topic, value.encode(), partition=len(self.sent) % self._partitions)
            self.sent.append(value)

    def stop(self):
        """Stops; returns everything that was sent."""
        self._stop.set()
        self._thread.join()
        check(self._sender.flush(SECONDS_MAX) == 0, "the load was not delivered in time")
        return self.sent


def members_join_and_leave_under_load(server, strategy):
    """Three members join one after the other, one leaves: every message is seen exactly once."""
    topic = make_topic(server, partitions=PARTITIONS)
    group = server.unique("group")
    settings = {"partition.assignment.strategy": strategy, "session.timeout.ms": 45_000}
    load = Load(server, topic)
    members = [Member(server, group, [topic], **settings)]
    wait_for_share(members, PARTITIONS)
    for _ in range(2):
        members.append(Member(server, group, [topic], **settings))
        wait_for_share(members, PARTITIONS)
    time.sleep(0.3)
    members[0].leave()
    left = time.monotonic()
    wait_for_share(members[1:], PARTITIONS)
    check(time.monotonic() - left < 20, "the partitions of a member that left were handed over too late")
    time.sleep(0.3)
    sent = load.stop()
    seen = wait_for_seen(members, sent)
    events = list(members[1].events)
    for member in members[1:]:
        member.leave()
    doubled = [value for value, times in seen.items() if times > 1]
    equal(doubled, [], "messages seen more than once though no one died")
    equal(sum(seen.values()), len(sent), "messages seen")
    return [(kind, len(partitions)) for kind, partitions in events]


@case
def a_group_of_three_shares_by_range_and_sees_each_message_once(server):
    events = members_join_and_leave_under_load(server, "range")
    # Everything is given up in each rebalance: when the third member joins, and when the first leaves.
    expected = [("assign", 3), ("revoke", 3), ("assign", 2), ("revoke", 2), ("assign", 3)]
    equal(events, expected, "what the second member was told")


@case
def a_group_of_three_shares_by_cooperative_sticky_and_sees_each_message_once(server):
    events = members_join_and_leave_under_load(server, "cooperative-sticky")
    # Only what moves is given up: one partition to the third member, and one comes back from the first.
    changes = [event for event in events if event[1] > 0]
    equal(changes, [("assign", 3), ("revoke", 1), ("assign", 1)], "what the second member was told")


@case
def the_partitions_of_a_killed_member_are_taken_over_and_nothing_is_missed(server):
    for strategy in ["range", "cooperative-sticky"]:
        topic = make_topic(server, partitions=PARTITIONS)
        group = server.unique("group")
        load = Load(server, topic)
        settings = {"partition.assignment.strategy": strategy, "session.timeout.ms": 45_000}
        members = [Member(server, group, [topic], **settings) for _ in range(2)]
        wait_for_share(members, PARTITIONS)
        command = [sys.executable, str(Path(__file__).with_name("member.py")), server.bootstrap, group, topic, "2000", strategy]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
            lines = []
            listener = threading.Thread(target=lambda: [lines.append(line) for line in victim.stdout], daemon=True)
            listener.start()
            try:
                wait_until(lambda: sum(map(len, (m.assigned for m in members))) == 4, SECONDS_MAX, "the third member has a share")
                wait_for_share(members, 4)
                wait_until(lambda: any(line.startswith("SEEN ") for line in lines), SECONDS_MAX, "the third member has seen something")
            finally:
                victim.kill()
            listener.join(SECONDS_MAX)
        killed = time.monotonic()
        wait_for_share(members, PARTITIONS)
        check(time.monotonic() - killed < 15, "the partitions of a killed member with a session of 2 s were taken over too late")
        sent = load.stop()
        seen_by_victim = {line.split()[1] for line in lines if line.startswith("SEEN ")}
        wait_for_seen(members, set(sent) - seen_by_victim)
        for member in members:
            member.leave()


@case
def a_static_member_returns_without_a_rebalance(server):
    topic = make_topic(server, partitions=4)
    group = server.unique("group")

    def join(instance):
        settings = {"partition.assignment.strategy": "range", "session.timeout.ms": 30_000, "heartbeat.interval.ms": 500}
        return Member(server, group, [topic], **{"group.instance.id": instance, **settings})

    first, second = join("first"), join("second")
    wait_for_share([first, second], 4)
    held, others = frozenset(first.assigned), list(second.events)
    first.leave()  # a static member says nothing when it closes
    produce(server, topic, [{"value": f"{n}".encode(), "partition": n % 4} for n in range(40)])
    again = join("first")
    wait_until(lambda: again.assigned, 10, "the returning member has its partitions")
    equal(frozenset(again.assigned), held, "partitions of the returning member")
    seen = wait_for_seen([again, second], [f"{n}" for n in range(40)])
    equal(max(seen.values()), 1, "times a message was seen")
    equal(second.events, others, "events of the other member")
    for member in (again, second):
        member.leave()


@case
def a_second_member_of_the_same_instance_id_fences_the_first(server):
    topic = make_topic(server)
    group = server.unique("group")
    settings = {"group.instance.id": "only", "session.timeout.ms": 30_000, "heartbeat.interval.ms": 300}
    first = Member(server, group, [topic], **settings)
    wait_for_share([first], 1)
    second = Member(server, group, [topic], **settings)
    wait_for_share([second], 1)
    first.join(SECONDS_MAX)
    check(isinstance(first.error, KafkaException), "the first member was not told")
    error = first.error.args[0]
    check(
        error.code() == KafkaError._FATAL and "fenced" in error.str(),
        f"the first member was told: {error}",
    )
    produce(server, topic, values(3))
    wait_for_seen([second], ["value-0", "value-1", "value-2"])
    second.leave()


@case
def commits_are_where_the_next_member_resumes(server):
    topic = make_topic(server)
    group = server.unique("group")
    produce(server, topic, values(30))

    def next_of_group(count, **configs):
        reader = consumer(server, group, **configs)
        reader.subscribe([topic])
        got, deadline = [], time.monotonic() + SECONDS_MAX
        while len(got) < count:
            check(time.monotonic() < deadline, f"{len(got)} of {count} messages")
            got += [m for m in reader.consume(count - len(got), timeout=0.2) if m.error() is None]
        return reader, bodies(got)

    reader, got = next_of_group(10)
    equal(got, [f"value-{n}" for n in range(10)], "first member")
    reader.commit(offsets=[TopicPartition(topic, 0, 7, "note of the commit")], asynchronous=False)
    reader.close()
    reader, got = next_of_group(5)
    equal(got, [f"value-{n}" for n in range(7, 12)], "second member")
    stored = reader.committed([TopicPartition(topic, 0)], timeout=SECONDS_MAX)[0]
    equal((stored.offset, stored.metadata), (7, "note of the commit"), "committed offset and its metadata")
    reader.close()
    reader, got = next_of_group(23, **{"enable.auto.commit": True})
    equal(got[0], "value-7", "third member starts at the commit, the second one made none")
    reader.close()  # commits by itself
    stored = reader_of(server, group, topic)
    equal(stored, 30, "offset committed by the close of a member that commits by itself")


def reader_of(server, group, topic):
    """The committed offset of partition 0."""
    reader = consumer(server, group)
    try:
        return reader.committed([TopicPartition(topic, 0)], timeout=SECONDS_MAX)[0].offset
    finally:
        reader.close()


@case
def two_groups_read_the_same_messages_and_commit_apart(server):
    topic = make_topic(server, partitions=2)
    messages = [{"value": f"{n}".encode(), "partition": n % 2} for n in range(20)]
    produce(server, topic, messages)
    groups = [server.unique("group") for _ in range(2)]
    members = [Member(server, group, [topic]) for group in groups]
    for member in members:
        equal(max(wait_for_seen([member], [f"{n}" for n in range(20)]).values()), 1, "times a message was seen")
    for member in members:
        member.leave()
    reader = consumer(server, server.unique("group"))
    nothing = reader.committed([TopicPartition(topic, 0)], timeout=SECONDS_MAX)[0].offset
    equal(nothing, OFFSET_INVALID, "committed offset of a group that never was")
    reader.close()
    for group in groups:
        equal(reader_of(server, group, topic), 10, "committed offset")


@case
def a_member_that_stops_polling_loses_its_partitions_and_cannot_commit(server):
    topic = make_topic(server)
    group = server.unique("group")
    produce(server, topic, values(5))
    slow = consumer(server, group, **{"max.poll.interval.ms": 1500, "session.timeout.ms": 1500, "heartbeat.interval.ms": 300})
    slow.subscribe([topic])
    message = wait_until(lambda: slow.poll(0.2), SECONDS_MAX, "a message for the slow member")
    heir = Member(server, group, [topic])
    time.sleep(2.5)  # the slow member is over its poll interval now, and leaves
    wait_for_share([heir], 1)
    wait_for_seen([heir], [f"value-{n}" for n in range(5)])
    with contextlib.suppress(KafkaException):
        slow.commit(message=message, asynchronous=False)
        raise AssertionError("the commit of a member that lost its partition was accepted")
    equal(reader_of(server, group, topic), 5, "committed offset")
    heir.leave()
    slow.close()


@case
def a_group_reads_several_topics(server):
    topics = [make_topic(server, partitions=3) for _ in range(2)]
    for topic in topics:
        produce(server, topic, [{"value": f"{topic}/{n}".encode(), "partition": n % 3} for n in range(30)])
    group = server.unique("group")
    members = [Member(server, group, topics, **{"partition.assignment.strategy": "roundrobin"}) for _ in range(3)]
    wait_for_share(members, 6)
    seen = wait_for_seen(members, [f"{topic}/{n}" for topic in topics for n in range(30)])
    equal(Counter(seen.values()).keys() - {1, 2, 3}, set(), "times a message was seen while members joined")
    for member in members:
        member.leave()
