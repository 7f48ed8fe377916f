"""The verdict over a crash run, from what its clients were told and what the broker holds at the end. Standard library
and confluent-kafka only: nothing of Baton is used.

    check_history.py read --bootstrap HOST:PORT --history DIR    reads every topic back into DIR/stored.jsonl
    check_history.py check --history DIR                         prints the figures and each violation; exit code 1 if any

DIR/*.jsonl holds one object a line, told apart by `kind`:
    sent          producer, idempotent, topic, partition, count: numbers 0..count-1 were handed to the client
    acknowledged  producer, topic, partition, number, offset, value: the client reported it stored there
    failed        producer, error: the client gave a message up
    read          topic, partition, offset, value: a member of the group was given it
    committed     topic, partition, offset, at: the commit of the group was acknowledged before moment `at`
    found         topic, partition, offset, asked_at: what the broker answered as committed, asked after moment `asked_at`
    stored        topic, partition, offset, key, value: read back at the end
A value is `producer:partition:number:padding`, its key `producer-partition`.
"""

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

READ_SECONDS_MAX = 120
SHOWN_MAX = 20


def lines_of(folder):
    """All objects of all history files."""
    for path in sorted(Path(folder).glob("*.jsonl")):
        with path.open() as lines:
            for line in lines:
                yield json.loads(line)


def read_back(bootstrap, folder):
    """Reads all partitions named in the history from their start to their end."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

    partitions = sorted({(o["topic"], o["partition"]) for o in lines_of(folder) if o["kind"] == "sent"})
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "check", "enable.auto.commit": False, "enable.partition.eof": True, "check.crcs": True})
    reader.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for topic, number in partitions])
    open_partitions, deadline = set(partitions), time.monotonic() + READ_SECONDS_MAX
    with (Path(folder) / "stored.jsonl").open("w") as out:
        while open_partitions:
            if time.monotonic() > deadline:
                sys.exit(f"check_history: {len(open_partitions)} partitions have no end after {READ_SECONDS_MAX} s")
            for message in reader.consume(1000, timeout=0.5):
                where = (message.topic(), message.partition())
                if message.error() is None:
                    open_partitions.add(where)
                    key = None if message.key() is None else message.key().decode()
                    line = {"kind": "stored", "topic": where[0], "partition": where[1], "offset": message.offset(), "key": key, "value": message.value().decode()}
                    out.write(json.dumps(line) + "\n")
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    open_partitions.discard(where)
                else:
                    raise KafkaException(message.error())
    reader.close()


class History:
    """The objects of a run, by kind."""

    def __init__(self, objects):
        self.by_kind = defaultdict(list)
        for one in objects:
            self.by_kind[one["kind"]].append(one)
        self.idempotent = {o["producer"]: o["idempotent"] for o in self.by_kind["sent"]}
        self.stored = {}  # (topic, partition) -> [(offset, key, value)] in the order of the log
        for one in self.by_kind["stored"]:
            self.stored.setdefault((one["topic"], one["partition"]), []).append((one["offset"], one["key"], one["value"]))


def place(one):
    """Topic, partition and offset as text."""
    return f"{one['topic']}-{one['partition']}@{one['offset']}"


def nothing_to_judge(history):
    """A run without evidence proves nothing."""
    for kind in ("sent", "acknowledged", "read", "committed", "found", "stored"):
        if not history.by_kind[kind]:
            yield f"there is no '{kind}' in the history"
    for one in history.by_kind["failed"]:
        yield f"{one['producer']} gave a message up: {one['error']}"


def lost(history):
    """Every acknowledged message is stored."""
    stored = {(*where, offset): value for where, rows in history.stored.items() for offset, _, value in rows}
    for one in history.by_kind["acknowledged"]:
        found = stored.get((one["topic"], one["partition"], one["offset"]))
        if found is None:
            yield f"{place(one)} was acknowledged to {one['producer']} and is not there: {one['value'][:40]}"


def two_values(history):
    """An offset has one value: in acknowledgements, in what the group was given, in the log at the end."""
    values = defaultdict(set)
    for kind in ("acknowledged", "read", "stored"):
        for one in history.by_kind[kind]:
            values[(one["topic"], one["partition"], one["offset"])].add(one["value"])
    for (topic, partition, offset), found in values.items():
        if len(found) > 1:
            yield f"{topic}-{partition}@{offset} has had {len(found)} values: {sorted(v[:30] for v in found)}"


def strangers(history):
    """Only what was sent is stored, under its own key, each offset once and without a gap."""
    counts = {(o["producer"], o["topic"], o["partition"]): o["count"] for o in history.by_kind["sent"]}
    for (topic, partition), rows in history.stored.items():
        for position, (offset, key, value) in enumerate(rows):
            if offset != position:
                yield f"{topic}-{partition}: offset {offset} stands where {position} should"
                break
        for offset, key, value in rows:
            producer, of, number, _ = value.split(":", 3)
            known = counts.get((producer, topic, partition), 0)
            if int(of) != partition or int(number) >= known or key != f"{producer}-{partition}":
                yield f"{topic}-{partition}@{offset} was never sent: key {key!r}, value {value[:40]}"


def duplicates(history):
    """What an idempotent producer sent is stored once."""
    for (topic, partition), rows in history.stored.items():
        times = Counter(tuple(value.split(":", 3)[:3]) for _, _, value in rows)
        for (producer, _, number), count in times.items():
            if count > 1 and history.idempotent.get(producer):
                yield f"{topic}-{partition}: message {number} of the idempotent {producer} is stored {count} times"


def out_of_order(history):
    """Messages of a producer are stored in the order they were sent (first appearances, where repeats are allowed)."""
    for (topic, partition), rows in history.stored.items():
        highest, seen = {}, set()
        for offset, _, value in rows:
            producer, _, number, _ = value.split(":", 3)
            if (producer, number) in seen:
                continue
            seen.add((producer, number))
            if int(number) < highest.get(producer, -1):
                yield f"{topic}-{partition}@{offset}: message {number} of {producer} stands after {highest[producer]}"
            highest[producer] = max(int(number), highest.get(producer, -1))


def commits_back(history):
    """What the broker holds as committed is never below what it had acknowledged, nor below what it had told before."""
    told = defaultdict(list)
    for one in history.by_kind["committed"]:
        told[(one["topic"], one["partition"])].append((one["at"], one["offset"]))
    last = {}
    for one in sorted(history.by_kind["found"], key=lambda o: o["asked_at"]):
        where = (one["topic"], one["partition"])
        acknowledged = max((offset for at, offset in told[where] if at < one["asked_at"]), default=-1)
        floor = max(acknowledged, last.get(where, -1))
        if one["offset"] < floor:
            yield f"{where[0]}-{where[1]}: committed offset {one['offset']} found where {floor} had been acknowledged or told"
        last[where] = max(one["offset"], floor)


def not_delivered(history):
    """Every acknowledged message was given to the group."""
    given = {(o["topic"], o["partition"], o["offset"]) for o in history.by_kind["read"]}
    for one in history.by_kind["acknowledged"]:
        if (one["topic"], one["partition"], one["offset"]) not in given:
            yield f"{place(one)} was acknowledged and never given to the group"


RULES = [nothing_to_judge, lost, two_values, strangers, duplicates, out_of_order, commits_back, not_delivered]


def check(folder):
    """Prints the figures and the violations; true when there are none."""
    history = History(lines_of(folder))
    stored = sum(len(rows) for rows in history.stored.values())
    acknowledged, commits = len(history.by_kind["acknowledged"]), len(history.by_kind["committed"])
    idempotent = sum(1 for o in history.by_kind["acknowledged"] if history.idempotent.get(o["producer"]))
    print(f"{acknowledged} acknowledged ({idempotent} of them to idempotent producers), {stored} stored in {len(history.stored)} partitions")
    print(f"{len(history.by_kind['read'])} given to the group, {commits} commits acknowledged, committed offsets looked up {len(history.by_kind['found'])} times")
    clean = True
    for rule in RULES:
        violations = list(rule(history))
        print(f"{rule.__name__}: {len(violations)}")
        for violation in violations[:SHOWN_MAX]:
            print(f"  {violation}")
        clean = clean and not violations
    return clean


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description="verdict over a crash run")
    parser.add_argument("action", choices=["read", "check"])
    parser.add_argument("--history", required=True)
    parser.add_argument("--bootstrap")
    arguments = parser.parse_args()
    if arguments.action == "check":
        sys.exit(0 if check(arguments.history) else 1)
    if arguments.bootstrap is None:
        parser.error("read needs --bootstrap")
    read_back(arguments.bootstrap, arguments.history)


main()
