"""The verdict over a crash run of an outbox: what the topic holds, against what the services' transactions committed. Standard library
and the databases' own command line clients only: nothing of Baton is used.

    check_relay.py --history DIR --database sqlite:FILE|postgres:URI|mariadb:PORT

Prints the figures and each violation; exit code 1 if there is any, or nothing to judge.

Tables, written by the services in the transactions that write to the outbox too. They say what was committed:
    accounts(name, version)                                   the version of each account
    changes(name, version, attempt, message_id, bytes)        a row for each change of an account. Its message's content begins with a line of
                                                              JSON (name, version, attempt) and has so many bytes. `attempt` is the try at a
                                                              transaction that made it, and a try that was rolled back made none
    baton_outbox                                              what was not sent yet; it has to be empty at the end

DIR/*.jsonl holds one object a line, told apart by `kind`:
    attempt   name, how: a try at a transaction ended "committed", "rolled back", "failed" (before its commit), "unknown" (in its commit).
              Of those that were under way when their process was killed there is no line
    killed    member: a service or a relay was killed (-9)
    paused    member, from_ms, to_ms: it stood still (SIGSTOP), and went on; "everybody" stands for the whole machine
    fault     what, from_ms, to_ms: what the driver did in a round
    arrival   partition, place, key, stamp, head, bytes: a message in the topic, as the engine's own client reads it, in the order of the
              places within a partition. `stamp` is the header "baton", `head` the first line of the content

The stamp reads `1;<id>;<instance>;<epoch>;<sequence>`. Accounts called loose-.. have messages without a key, which are in no order.
"""

import json
import sys
from collections import Counter, defaultdict
from typing import NamedTuple

from checking import judged, lines_of, listed, read_arguments, rows_of

LOOSE = "loose-"
EVERYBODY = "everybody"
ACCOUNTS = "SELECT name, version FROM accounts"
CHANGES = "SELECT name, version, attempt, message_id, bytes FROM changes"
LEFT = "SELECT position, topic, id, coalesce(parked, 'not parked') FROM baton_outbox ORDER BY position"


class Change(NamedTuple):
    """A row of `changes`."""

    attempt: str
    message_id: str
    size: int


class Arrival(NamedTuple):
    """A message in the topic."""

    partition: int
    place: int
    key: str
    stamp: str
    message: tuple
    attempt: str
    size: int

    def where(self):
        """In words."""
        return f"{self.message[0]} {self.message[1]} of {self.attempt} (at {self.partition}:{self.place}, {self.stamp})"


def arrival_of(one):
    """A line as an arrival; without a message if its content is none of the services'."""
    try:
        head = json.loads(one["head"])
        message, attempt = (head["name"], int(head["version"])), head["attempt"]
    except (ValueError, KeyError, TypeError):
        message, attempt = (one["head"], None), None
    return Arrival(one["partition"], one["place"], one["key"], one["stamp"], message, attempt, one["bytes"])


def fields_of(stamp):
    """Id, instance, epoch and sequence; nothing if it is no stamp."""
    fields = (stamp or "").split(";")
    if len(fields) != 5 or fields[0] != "1" or not (fields[3].isdigit() and fields[4].isdigit()):
        return None
    return fields[1], fields[2], int(fields[3]), int(fields[4])


class Run:
    """Everything that is known of a run."""

    def __init__(self, lines, accounts, changes, left):
        self.accounts = {name: int(version) for name, version in accounts}
        self.changes = {(name, int(version)): Change(attempt, message_id, int(size)) for name, version, attempt, message_id, size in changes}
        self.left = left
        self.attempts, self.killed, self.paused, self.faults, self.arrivals = {}, set(), [], [], []
        for one in lines:
            self.note(one)
        self.arrivals.sort(key=lambda arrival: (arrival.partition, arrival.place))
        self.first, self.repeats = [], []
        seen = set()
        for arrival in self.arrivals:
            (self.repeats if arrival.message in seen else self.first).append(arrival)
            seen.add(arrival.message)

    def note(self, one):
        """Files a line of the histories."""
        kind = one["kind"]
        if kind == "attempt":
            self.attempts[one["name"]] = one["how"]
        elif kind == "killed":
            self.killed.add(one["member"])
        elif kind == "paused":
            self.paused.append(one["member"])
        elif kind == "fault":
            self.faults.append(one)
        elif kind == "arrival":
            self.arrivals.append(arrival_of(one))
        else:
            sys.exit(f"check_relay: a line of the unknown kind {kind!r}")


def nothing_to_judge(run):
    """A run without evidence proves nothing."""
    ends = Counter(run.attempts.values())
    evidence = (("change", run.changes), ("arrival", run.arrivals), ("round", run.faults), ("transaction that was rolled back", ends["rolled back"]))
    killed = [(f"kill of a {who}", any(member.startswith(who) for member in run.killed)) for who in ("relay", "service")]
    for what, there in (*evidence, *killed):
        if not there:
            yield f"there is no {what} in this run"


def lost(run):
    """Whatever was committed has arrived."""
    arrived = {arrival.message for arrival in run.arrivals}
    for message in sorted(run.changes):
        if message not in arrived:
            yield f"{message[0]} {message[1]} of {run.changes[message].attempt} was committed and has not arrived"


def strangers(run):
    """Whatever has arrived was committed, by that very transaction, and arrived as it was written."""
    for arrival in run.arrivals:
        change = run.changes.get(arrival.message)
        key = None if arrival.message[0].startswith(LOOSE) else arrival.message[0]
        if change is None or change.attempt != arrival.attempt:
            yield f"{arrival.where()} has arrived and was not committed: that attempt was {run.attempts.get(arrival.attempt, 'under way at a kill')}"
        elif (change.size, key) != (arrival.size, arrival.key):
            yield f"{arrival.where()} has arrived with {arrival.size} bytes and the key {arrival.key}; it was written with {change.size} and {key}"


def out_of_order(run):
    """The messages of a key are in one partition, and arrive there for the first time in the order of their commits."""
    last = {}
    for arrival in run.first:
        name, version = arrival.message
        if arrival.key is None or version is None:
            continue
        partition, before = last.get(name, (arrival.partition, 0))
        if partition != arrival.partition:
            yield f"{arrival.where()} is in another partition than {name} {before}, which is in {partition}"
        elif version < before:
            yield f"{arrival.where()} arrived after {name} {before}"
        last[name] = (arrival.partition, max(before, version))


def restamped(run):
    """A message that arrives again does so under the same stamp, in the same partition; its id is the one that it was written with, and no
    two messages have the same."""
    stamps, owners = {}, {}
    for arrival in run.arrivals:
        fields = fields_of(arrival.stamp)
        if fields is None:
            yield f"{arrival.where()} has no stamp"
            continue
        change = run.changes.get(arrival.message)
        if change is not None and change.message_id != fields[0]:
            yield f"{arrival.where()} was written with the id {change.message_id}"
        before = stamps.setdefault(arrival.message, arrival)
        if (before.stamp, before.partition) != (arrival.stamp, arrival.partition):
            yield f"{arrival.where()} arrived at {before.partition}:{before.place} as {before.stamp}"
        for what in (("id", fields[0]), ("number", (arrival.partition, *fields[1:]))):
            other = owners.setdefault(what, arrival)
            if other.message != arrival.message:
                yield f"{arrival.where()} has the {what[0]} of {other.where()}"


def sequences_of(run):
    """The numbers of each (partition, instance, epoch), in the order of their first arrival."""
    sequences = defaultdict(dict)
    for arrival in run.arrivals:
        fields = fields_of(arrival.stamp)
        if fields is not None:
            sequences[(arrival.partition, *fields[1:3])].setdefault(fields[3], arrival)
    return sequences


def gaps(run):
    """Each sequence begins with 1 and has no gap: nothing was refused in this run."""
    for sequence, numbers in sorted(sequences_of(run).items()):
        missing = [number for number in range(1, max(numbers) + 1) if number not in numbers]
        if missing:
            yield f"{sequence} lacks {len(missing)} of {max(numbers)}: {missing[:SHOWN_NUMBERS]}"


SHOWN_NUMBERS = 10


def dropped(run):
    """Who remembers nothing but the highest number of each sequence, as a frontier does, still lets each message through once."""
    for sequence, numbers in sorted(sequences_of(run).items()):
        highest = 0
        for number, arrival in numbers.items():
            if number < highest:
                yield f"{arrival.where()} arrived for the first time after {highest} of {sequence}"
            highest = max(highest, number)


def broken_word(run):
    """The database has what it said was committed, and nothing else; and each account's version counts its changes."""
    kept = {change.attempt for change in run.changes.values()}
    for attempt, how in sorted(run.attempts.items()):
        if how == "committed" and attempt not in kept:
            yield f"{attempt} was committed, and the database has nothing of it"
        elif how in ("rolled back", "failed") and attempt in kept:
            yield f"{attempt} ended {how}, and the database has it"
    counts = Counter(name for name, _ in run.changes)
    for name, version in sorted(run.accounts.items()):
        if counts[name] != version or any((name, number) not in run.changes for number in range(1, version + 1)):
            yield f"{name} has the version {version} and {counts[name]} changes"


def left_behind(run):
    """At the end the outbox is empty."""
    for row in run.left:
        yield f"row {row[0]} for {row[1]}, id {row[2]}: {row[3]}"


RULES = [nothing_to_judge, lost, strangers, out_of_order, restamped, gaps, dropped, broken_word, left_behind]


def check(run):
    """Prints the figures and the violations; true when there are none."""
    ends = Counter(run.attempts.values())
    kept = {change.attempt for change in run.changes.values()}
    unknown = [attempt for attempt, how in run.attempts.items() if how == "unknown"]
    print(f"{len(run.changes)} rows committed by {len(kept)} transactions in {len(run.accounts)} accounts; transactions that ended: " + listed(ends))
    print(f"{sum(attempt in kept for attempt in unknown)} of the unknown were committed, and {len(kept - set(run.attempts))} that were under way at a kill")
    print(f"{len(run.arrivals)} messages in the topic, {len(run.repeats)} of them repeats, in {len(sequences_of(run))} sequences")
    killed = Counter(member.split("-")[0] for member in run.killed)
    print(f"{killed['relay']} relays and {killed['service']} services killed, {sum(member != EVERYBODY for member in run.paused)} stood still; rounds: " + listed(Counter(one["what"] for one in run.faults)))
    return judged(RULES, run)


def main():
    """Command line."""
    arguments = read_arguments()
    database = arguments.database
    run = Run(lines_of(arguments.history), rows_of(database, ACCOUNTS), rows_of(database, CHANGES), rows_of(database, LEFT))
    sys.exit(0 if check(run) else 1)


main()
