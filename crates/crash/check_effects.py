"""The verdict over a crash run, from the database of the consumers, from what the producers wrote down, and from what the
driver did. Standard library and the databases' own command line clients only: nothing of Baton is used.

    check_effects.py --history DIR --database sqlite:FILE|postgres:URI|mariadb:PORT

Prints the figures and each violation; exit code 1 if there is any, or nothing to judge.

Tables, written by the consumers in one transaction for each message:
    effects(position, message_key, number, amount, member)    a row for each time a message was applied, in order
    totals(message_key, messages, amount)                     what they add up to for each key

DIR/*.jsonl holds one object a line, told apart by `kind`:
    sending   key, number, amount, poison: this is being handed to the library; of each key the numbers rise from 1
    receipt   key, number: its send succeeded
    refused   key, number, stored ("no" or "unknown"): its send failed
    killed    member: a consumer was killed (-9)
    fault     what: anything else that the driver did; `weakens_claims` if it may cut handlers off, or outlast a lease
    dead      key, number: read back from the dead letters at the end
    lag       where, behind: how many messages are left behind at the end, as the engine says
    guard     name ("inbox", "frontier", "claim"), concurrency: what was to make effects happen once, and the handlers of a consumer
A producer that dies in the middle leaves `sending` without `receipt` or `refused`: its fate is unknown. It may have an effect, once.
"""

import argparse
import json
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

SHOWN_MAX = 20
EFFECTS = "SELECT position, message_key, number, amount, member FROM effects ORDER BY position"
TOTALS = "SELECT message_key, messages, amount FROM totals"


def rows_of(database, query):
    """The rows of a query, as texts."""
    kind, _, where = database.partition(":")
    if kind == "sqlite":
        connection = sqlite3.connect(f"file:{where}?mode=ro", uri=True)
        try:
            return [tuple(str(value) for value in row) for row in connection.execute(query)]
        finally:
            connection.close()
    if kind == "postgres":
        command = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator=\t", "--set=ON_ERROR_STOP=1", "--command", query, where]
    elif kind == "mariadb":
        command = ["mariadb", "--no-defaults", "-uroot", "-h127.0.0.1", "-P", where, "--batch", "--skip-column-names", "-e", query, "test"]
    else:
        sys.exit(f"check_effects: no database of the kind {kind!r}")
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        sys.exit(f"check_effects: {command[0]}: {ran.stderr}")
    return [tuple(line.split("\t")) for line in ran.stdout.splitlines() if line]


def lines_of(folder):
    """All objects of all history files. The last line of a process that was killed may be torn: it was not written."""
    for path in sorted(Path(folder).glob("*.jsonl")):
        for line in path.read_text().split("\n")[:-1]:
            yield json.loads(line)


class Run:
    """Everything that is known of a run."""

    def __init__(self, lines, effects, totals):
        self.sent = {}  # (key, number) -> the line
        self.receipts, self.not_stored, self.unknown = set(), set(), set()
        self.killed, self.faults, self.dead, self.lag = set(), [], Counter(), []
        self.guard, self.concurrency = None, 0
        for one in lines:
            self.note(one)
        self.effects = [(int(position), (key, int(number)), int(amount), member) for position, key, number, amount, member in effects]
        self.totals = {key: (int(messages), int(amount)) for key, messages, amount in totals}
        self.by_message = defaultdict(list)
        for position, message, amount, member in self.effects:
            self.by_message[message].append((position, amount, member))

    def note(self, one):
        """Files a line of the histories."""
        kind, message = one["kind"], (one.get("key"), one.get("number"))
        if kind == "sending":
            self.sent[message] = (one["amount"], one["poison"])
        elif kind == "receipt":
            self.receipts.add(message)
        elif kind == "refused":
            (self.not_stored if one["stored"] == "no" else self.unknown).add(message)
        elif kind == "killed":
            self.killed.add(one["member"])
        elif kind == "fault":
            self.faults.append(one)
        elif kind == "dead":
            self.dead[message] += 1
        elif kind == "lag":
            self.lag.append(one)
        elif kind == "guard":
            self.guard, self.concurrency = one["name"], one["concurrency"]
        else:
            sys.exit(f"check_effects: a line of the unknown kind {kind!r}")

    def poison(self, message):
        """Whether the handler refuses this message for good."""
        return message in self.sent and self.sent[message][1]


def text(message):
    """A message in words."""
    return f"message {message[1]} of {message[0]}"


def nothing_to_judge(run):
    """A run without evidence proves nothing."""
    for what, there in (("send", run.sent), ("receipt", run.receipts), ("kill of a consumer", run.killed), ("effect", run.effects), ("lag", run.lag)):
        if not there:
            yield f"there is no {what} in this run"
    if run.guard is None:
        yield "there is no guard in this run"


def lost(run):
    """Whatever has a receipt has its effect, or is poison and a dead letter."""
    for message in sorted(run.receipts):
        if run.poison(message):
            if message not in run.dead:
                yield f"{text(message)} is poison, has a receipt, and is not among the dead letters"
        elif message not in run.by_message:
            yield f"{text(message)} has a receipt and no effect"


def doubled(run):
    """No message has two effects. With claims, each but the last may come from a handler that was cut off before its mark: all that a
    consumer runs at once when it is killed, and when it is cut off from engine or database."""
    by_member = Counter()
    for message, rows in sorted(run.by_message.items()):
        if len(rows) < 2:
            continue
        if run.guard != "claim":
            yield f"{text(message)} has {len(rows)} effects: {[(position, member) for position, _, member in rows]}"
        by_member.update(member for _, _, member in rows[:-1])
    if run.guard != "claim":
        return
    cuts = sum(1 for one in run.faults if one["weakens_claims"])
    for member, count in sorted(by_member.items()):
        allowed = run.concurrency * (cuts + (member in run.killed))
        if count > allowed:
            yield f"{count} effects of {member} were repeated, and at most {allowed} of its handlers were cut off"


def out_of_order(run):
    """The effects of a key come in the order in which its messages were sent. Repeats that the guard allows are judged by their first."""
    highest, seen = {}, set()
    for position, message, _, member in run.effects:
        if message in seen:
            continue
        seen.add(message)
        key, number = message
        if number < highest.get(key, 0):
            yield f"{text(message)} was applied (at {position}, by {member}) after message {highest[key]}"
        highest[key] = max(number, highest.get(key, 0))


def strangers(run):
    """Only what was sent, and not refused for sure, and is not poison, has an effect; and the one that was sent."""
    for message, rows in sorted(run.by_message.items()):
        if message not in run.sent:
            yield f"{text(message)} has an effect and was never sent"
        elif message in run.not_stored:
            yield f"{text(message)} has an effect, and its producer was told that it is certainly not stored"
        elif run.poison(message):
            yield f"{text(message)} is poison and has an effect: what a handler wrote before it failed was kept"
        elif any(amount != run.sent[message][0] for _, amount, _ in rows):
            yield f"{text(message)} was sent with the amount {run.sent[message][0]} and applied with {rows[0][1]}"


def torn(run):
    """The two writes of an effect are both there: totals are what the effects add up to."""
    sums = defaultdict(lambda: [0, 0])
    for _, (key, _), amount, _ in run.effects:
        sums[key][0] += 1
        sums[key][1] += amount
    for key in sorted(set(sums) | set(run.totals)):
        if tuple(sums.get(key, (0, 0))) != run.totals.get(key, (0, 0)):
            yield f"{key}: effects add up to {tuple(sums.get(key, (0, 0)))}, and its total says {run.totals.get(key)}"


def unexplained_dead_letters(run):
    """Only poison becomes a dead letter."""
    for message in sorted(run.dead, key=str):
        if message not in run.sent:
            yield f"{text(message)} is a dead letter and was never sent"
        elif not run.poison(message):
            yield f"{text(message)} is a dead letter, and there was nothing wrong with it"


def left_behind(run):
    """At the end nothing waits."""
    for one in run.lag:
        if one["behind"] != 0:
            yield f"{one['where']}: {one['behind']} left behind"


RULES = [nothing_to_judge, lost, doubled, out_of_order, strangers, torn, unexplained_dead_letters, left_behind]


def check(run):
    """Prints the figures and the violations; true when there are none."""
    open_fates = set(run.sent) - run.receipts - run.not_stored
    applied = sum(1 for message in open_fates if message in run.by_message)
    repeats = sum(len(rows) - 1 for rows in run.by_message.values())
    kinds = Counter(one["what"] for one in run.faults)
    print(f"{len(run.sent)} sent, {len(run.receipts)} receipts, {len(run.not_stored)} certainly not stored, {len(open_fates)} of unknown fate ({applied} of them applied)")
    print(f"{len(run.effects)} effects of {len(run.by_message)} messages in {len(run.totals)} keys, {repeats} repeated, {len(run.dead)} dead letters ({sum(run.dead.values())} copies)")
    print(f"{len(run.killed)} consumers killed, {run.guard}; " + ", ".join(f"{what}: {count}" for what, count in sorted(kinds.items())))
    clean = True
    for rule in RULES:
        violations = list(rule(run))
        print(f"{rule.__name__}: {len(violations)}")
        for violation in violations[:SHOWN_MAX]:
            print(f"  {violation}")
        clean = clean and not violations
    return clean


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description="verdict over a crash run")
    parser.add_argument("--history", required=True)
    parser.add_argument("--database", required=True)
    arguments = parser.parse_args()
    run = Run(lines_of(arguments.history), rows_of(arguments.database, EFFECTS), rows_of(arguments.database, TOTALS))
    sys.exit(0 if check(run) else 1)


main()
