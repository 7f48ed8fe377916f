"""The verdict over a crash run, from the database of the consumers, from what the producers wrote down, and from what the
driver did. Standard library and the databases' own command line clients only: nothing of Baton is used.

    check_effects.py --history DIR --database sqlite:FILE|postgres:URI|mariadb:PORT

Prints the figures and each violation; exit code 1 if there is any, or nothing to judge.

Tables, written by the consumers in one transaction for each message:
    effects(position, message_key, number, amount, member,    a row for each time a message was applied, in order; `call_name` is the
            call_name, place, epoch)                          call of the handler that wrote it, under the fence `epoch` of the
                                                              partition `place`
    totals(message_key, messages, amount)                     what they add up to for each key

DIR/*.jsonl holds one object a line, told apart by `kind`:
    sending   key, number, amount, poison: this is being handed to the library; of each key the numbers rise from 1
    receipt   key, number: its send succeeded
    refused   key, number, stored ("no" or "unknown"): its send failed
    killed    member: a consumer was killed (-9)
    paused    member, from_ms, to_ms: a consumer stood still (SIGSTOP), and went on; the member "everybody" stands for the whole machine
    fault     what, from_ms, to_ms: anything else that the driver did; `hides_commits` if a handler may have been told that its effect
              failed although it was committed
    owner     member, partition, epoch, at_ms: a consumer has taken the partition over, and holds its fence of this epoch
    ended     call, how, asked_ms, at_ms: a call of a handler has ended; how: "marked", or else why not. With claims that is written of
              every call that ended, and with the other guards of those that were not marked. Also calls that were refused at once
    dead      key, number: read back from the dead letters at the end
    lag       where, behind: how many messages are left behind at the end, as the engine says
    guard     name ("inbox", "frontier", "claim"), lease_ms: what was to make effects happen once, and how long a claim lasts unrenewed
All times are of one clock. A producer that dies in the middle leaves `sending` without `receipt` or `refused`: its fate is unknown. It may have an effect, once.
"""

import sys
from collections import Counter, defaultdict
from typing import NamedTuple

from checking import judged, lines_of, listed, read_arguments, rows_of

EVERYBODY = "everybody"
# How a call ended that left its mark. A claim is marked also when its owner is fenced, since the effect is there.
MARKED = ("marked", "fenced")
EFFECTS = "SELECT position, message_key, number, amount, member, call_name, place, epoch FROM effects ORDER BY position"
TOTALS = "SELECT message_key, messages, amount FROM totals"


class Effect(NamedTuple):
    """A row."""

    position: int
    message: tuple
    amount: int
    member: str
    call: str
    place: str
    epoch: int


class Run:
    """Everything that is known of a run."""

    def __init__(self, lines, effects, totals):
        self.sent = {}  # (key, number) -> amount, poison
        self.receipts, self.not_stored, self.unknown = set(), set(), set()
        self.killed, self.paused, self.faults, self.dead, self.lag = set(), defaultdict(list), [], Counter(), []
        self.owners = defaultdict(dict)  # partition -> epoch -> the lines of those who got it
        self.ended = {}  # call -> the line
        self.guard, self.lease_ms = None, 0
        for one in lines:
            self.note(one)
        self.effects = [Effect(int(position), (key, int(number)), int(amount), member, call, place, int(epoch)) for position, key, number, amount, member, call, place, epoch in effects]
        self.totals = {key: (int(messages), int(amount)) for key, messages, amount in totals}
        self.by_message = defaultdict(list)
        for row in self.effects:
            self.by_message[row.message].append(row)

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
        elif kind == "paused":
            self.paused[one["member"]].append((one["from_ms"], one["to_ms"]))
        elif kind == "fault":
            self.faults.append(one)
        elif kind == "owner":
            self.owners[one["partition"]].setdefault(one["epoch"], []).append(one)
        elif kind == "ended":
            self.ended[one["call"]] = (one["how"], one["asked_ms"], one["at_ms"])
        elif kind == "dead":
            self.dead[message] += 1
        elif kind == "lag":
            self.lag.append(one)
        elif kind == "guard":
            self.guard, self.lease_ms = one["name"], one["lease_ms"]
        else:
            sys.exit(f"check_effects: a line of the unknown kind {kind!r}")

    def poison(self, message):
        """Whether the handler refuses this message for good."""
        return message in self.sent and self.sent[message][1]

    def taken_over_ms(self, row):
        """When the partition was taken over from the one who wrote this row; None if it never was."""
        later = [epoch for epoch in self.owners[row.place] if epoch > row.epoch]
        return self.owners[row.place][min(later)][0]["at_ms"] if later else None


def text(message):
    """A message in words."""
    return f"message {message[1]} of {message[0]}"


def nothing_to_judge(run):
    """A run without evidence proves nothing."""
    for what, there in (("send", run.sent), ("receipt", run.receipts), ("kill of a consumer", run.killed), ("effect", run.effects), ("owner of a partition", run.owners), ("lag", run.lag)):
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


def why_not_marked(run, row):
    """Nothing, if it is in the window of a claim that this effect has no mark; else what is wrong. In the window is a call that was under
    way when its process was killed, when its process stood still for longer than the lease, or when its partition was lost; and one
    that was told that its effect failed although it was committed, while the way to the database was disturbed."""
    how, asked_ms, at_ms = run.ended.get(row.call, (None, None, None))
    if how is None:
        return None if row.member in run.killed else "its call did not end, and nobody killed it"
    if how == "cut off":
        taken_ms = run.taken_over_ms(row)
        if taken_ms is None:
            return "its handler was cut off, and nobody took the partition over"
        return None if asked_ms <= taken_ms else "its handler was cut off, and had begun when the partition was another's already"
    if how == "failed":
        hidden = any(one["hides_commits"] and one["from_ms"] <= at_ms and asked_ms <= one["to_ms"] for one in run.faults)
        return None if hidden else "its handler failed, and nothing can have hidden from it that its effect was committed"
    stood_still = any(to_ms - from_ms >= run.lease_ms and from_ms <= at_ms and asked_ms <= to_ms for member in (row.member, EVERYBODY) for from_ms, to_ms in run.paused[member])
    return None if stood_still else f"its mark was not made ({how}), and its process did not stand still"


def doubled(run):
    """No message has two effects. With claims, all but one may be without a mark, if each of these calls was in the window."""
    for message, rows in sorted(run.by_message.items()):
        if len(rows) < 2:
            continue
        calls = [(row.position, row.call) for row in rows]
        if run.guard != "claim":
            yield f"{text(message)} has {len(rows)} effects: {calls}"
            continue
        unmarked = [row for row in rows if run.ended.get(row.call, (None,))[0] not in MARKED]
        if len(rows) - len(unmarked) > 1:
            yield f"{text(message)} was applied again after its mark: {calls}"
        faults = [f"{row.call}: {why}" for row in unmarked if (why := why_not_marked(run, row))]
        # If none has a mark, the last one needs no excuse: it is the one effect.
        if len(faults) > (len(unmarked) == len(rows)):
            yield f"{text(message)} has effects {calls}: {faults}"


def out_of_order(run):
    """The effects of a key come in the order in which its messages were sent. Repeats that the guard allows are judged by their first."""
    highest, seen = {}, set()
    for row in run.effects:
        if row.message in seen:
            continue
        seen.add(row.message)
        key, number = row.message
        if number < highest.get(key, 0):
            yield f"{text(row.message)} was applied (at {row.position}, by {row.call}) after message {highest[key]}"
        highest[key] = max(number, highest.get(key, 0))


def zombies(run):
    """Whoever writes holds the fence of the partition, and nothing is written under a fence after its successor wrote: of those who were
    declared dead none goes on. With claims a call that was under way when the partition was taken over may still write."""
    for place, epochs in sorted(run.owners.items()):
        for epoch, lines in sorted(epochs.items()):
            if len(lines) > 1:
                yield f"the fence {epoch} of {place} was handed out {len(lines)} times"
    newest = {}
    for row in run.effects:
        if [one["member"] for one in run.owners[row.place].get(row.epoch, [])][:1] != [row.member]:
            yield f"{text(row.message)} was applied (at {row.position}, by {row.call}) under the fence {row.epoch} of {row.place}, which its writer does not hold"
        if row.epoch < newest.get(row.place, 0):
            _, asked_ms, _ = run.ended.get(row.call, (None, None, None))
            under_way = row.member in run.killed if asked_ms is None else asked_ms <= (run.taken_over_ms(row) or 0)
            if run.guard != "claim" or not under_way:
                yield f"{text(row.message)} was applied (at {row.position}, by {row.call}) under the fence {row.epoch} of {row.place} after {newest[row.place]} was used"
        newest[row.place] = max(row.epoch, newest.get(row.place, 0))


def strangers(run):
    """Only what was sent, and not refused for sure, and is not poison, has an effect; and the one that was sent."""
    for message, rows in sorted(run.by_message.items()):
        if message not in run.sent:
            yield f"{text(message)} has an effect and was never sent"
        elif message in run.not_stored:
            yield f"{text(message)} has an effect, and its producer was told that it is certainly not stored"
        elif run.poison(message):
            yield f"{text(message)} is poison and has an effect: what a handler wrote before it failed was kept"
        elif any(row.amount != run.sent[message][0] for row in rows):
            yield f"{text(message)} was sent with the amount {run.sent[message][0]} and applied with {rows[0].amount}"


def torn(run):
    """The two writes of an effect are both there: totals are what the effects add up to."""
    sums = defaultdict(lambda: [0, 0])
    for row in run.effects:
        sums[row.message[0]][0] += 1
        sums[row.message[0]][1] += row.amount
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


RULES = [nothing_to_judge, lost, doubled, out_of_order, zombies, strangers, torn, unexplained_dead_letters, left_behind]


def check(run):
    """Prints the figures and the violations; true when there are none."""
    open_fates = set(run.sent) - run.receipts - run.not_stored
    applied = sum(1 for message in open_fates if message in run.by_message)
    repeats = sum(len(rows) - 1 for rows in run.by_message.values())
    kinds = Counter(one["what"] for one in run.faults)
    print(f"{len(run.sent)} sent, {len(run.receipts)} receipts, {len(run.not_stored)} certainly not stored, {len(open_fates)} of unknown fate ({applied} of them applied)")
    print(f"{len(run.effects)} effects of {len(run.by_message)} messages in {len(run.totals)} keys, {repeats} repeated, {len(run.dead)} dead letters ({sum(run.dead.values())} copies)")
    worked = run.killed & {row.member for row in run.effects}
    pauses = sum(len(times) for member, times in run.paused.items() if member != EVERYBODY)
    print(f"{run.guard}; {len(run.killed)} consumers killed, {len(worked)} of them after they had applied something; {pauses} stood still for a while; " + listed(kinds))
    print(f"{sum(len(epochs) for epochs in run.owners.values())} partitions taken over; calls that ended: " + listed(Counter(how for how, _, _ in run.ended.values())))
    return judged(RULES, run)


def main():
    """Command line."""
    arguments = read_arguments()
    run = Run(lines_of(arguments.history), rows_of(arguments.database, EFFECTS), rows_of(arguments.database, TOTALS))
    sys.exit(0 if check(run) else 1)


main()
