"""The suite of kcat (Debian's build on librdkafka 2.0.2): all its cases against one server.

kcat has no administration beyond listing: topics come to be by their first use, which the server allows here.
"""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

import harness  # noqa: E402
from harness import case, check, equal, wait_until  # noqa: E402

SECONDS_MAX = 30
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
RECONNECT = ["-X", "reconnect.backoff.ms=50", "-X", "reconnect.backoff.max.ms=500"]


def kcat(server, *arguments, given="", may_fail=False):
    """Runs kcat to its end; returns what it printed."""
    command = ["kcat", "-b", server.bootstrap, *RECONNECT, *arguments]
    done = subprocess.run(command, input=given.encode(), capture_output=True, timeout=SECONDS_MAX, check=False)
    if may_fail:
        return done
    check(done.returncode == 0, f"kcat {' '.join(arguments)}: {done.stderr.decode(errors='replace')[-300:]}")
    return done.stdout.decode()


def produce(server, topic, lines, *arguments):
    """Sends each line as a message."""
    kcat(server, "-P", "-t", topic, *arguments, given="".join(f"{line}\n" for line in lines))


def read(server, topic, *arguments):
    """Reads to the end of all partitions; returns kcat's JSON objects."""
    output = kcat(server, "-C", "-e", "-q", "-J", "-t", topic, *arguments)
    return [json.loads(line) for line in output.splitlines()]


def payloads(messages):
    """The values."""
    return [m["payload"] for m in messages]


def new_topic(server, stem="topic"):
    """A topic that exists, with the number of partitions the broker gives by itself (1), and no messages."""
    topic = server.unique(stem)
    wait_until(lambda: partitions_of(server, topic) > 0, SECONDS_MAX, f"topic {topic} is made by its first use")
    return topic


def partitions_of(server, topic):
    """How many partitions the metadata tells of; asking makes the topic."""
    listed = json.loads(kcat(server, "-L", "-J", "-t", topic))
    (found,) = listed["topics"]
    return 0 if "error" in found else len(found["partitions"])


class Member:
    """A group member: `kcat -G` in a process of its own."""

    def __init__(self, server, group, topics, *arguments):
        settings = {
            "auto.offset.reset": "earliest",
            "auto.commit.interval.ms": "50",
            "session.timeout.ms": "45000",
            "heartbeat.interval.ms": "500",
            "fetch.wait.max.ms": "100",
        }
        given = [word for name, value in settings.items() for word in ("-X", f"{name}={value}")]
        self.process = subprocess.Popen(
            ["kcat", "-b", server.bootstrap, *RECONNECT, *given, *arguments, "-u", "-f", "%t %p %o %s\\n", "-G", group, *topics],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.seen, self.told = [], []
        self._readers = [
            threading.Thread(target=self._collect, args=(self.process.stdout, self.seen), daemon=True),
            threading.Thread(target=self._collect, args=(self.process.stderr, self.told), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _collect(stream, lines):
        for line in stream:
            lines.append(line.rstrip("\n"))

    def values(self):
        """The values seen so far."""
        return [line.split(" ", 3)[3] for line in list(self.seen)]

    def assigned(self):
        """The partitions held by what kcat told of the rebalances, such as `topic [0]`."""
        held = set()
        for line in list(self.told):
            if " rebalanced" not in line:
                continue
            named = set(filter(None, line.rsplit(": ", 1)[1].strip().split(", ")))
            if "incremental assignment" in line:
                held |= named
            elif "incremental revoke" in line:
                held -= named
            else:
                held = named if "assigned:" in line else set()
        return held

    def end(self, how=signal.SIGTERM):
        """Ends the process and waits for it: SIGTERM leaves the group, SIGKILL does not."""
        self.process.send_signal(how)
        self.process.wait(SECONDS_MAX)
        for reader in self._readers:
            reader.join(SECONDS_MAX)


@contextlib.contextmanager
def group_of(*members):
    """Members (more may be appended) that are ended in any case."""
    members = list(members)
    try:
        yield members
    finally:
        for member in members:
            if member.process.poll() is None:
                member.end(signal.SIGKILL)


def wait_for_share(members, topics, seconds=SECONDS_MAX):
    """Waits until each of the topics' only partitions is with exactly one member, and they are shared evenly."""
    wanted = sorted(f"{topic} [0]" for topic in topics)

    def shared():
        held = [m.assigned() for m in members]
        sizes = [len(h) for h in held]
        return sorted(p for h in held for p in h) == wanted and max(sizes) - min(sizes) <= 1

    wait_until(shared, seconds, lambda: f"partitions shared; held: {[sorted(m.assigned()) for m in members]}")


def wait_for_values(members, expected, seconds=SECONDS_MAX):
    """Waits until all values have been seen; returns every value as often as it was seen."""

    def everything():
        return [v for m in members for v in m.values()]

    wait_until(
        lambda: not set(expected) - set(everything()),
        seconds,
        lambda: f"{len(set(expected) - set(everything()))} of {len(expected)} messages not seen",
    )
    return everything()


@case
def a_topic_is_made_by_its_first_use(server):
    topic = server.unique("first-use")
    produce(server, topic, ["hello"])
    equal(payloads(read(server, topic)), ["hello"], "messages")
    listed = json.loads(kcat(server, "-L", "-J"))
    equal([len(t["partitions"]) for t in listed["topics"] if t["topic"] == topic], [1], "partitions")
    equal([b["name"] for b in listed["brokers"]], [server.bootstrap], "brokers")


@case
def every_codec_reads_back_as_sent(server):
    topic = new_topic(server)
    expected = []
    for codec in CODECS:
        lines = [f"{codec}-{n}-{'abc' * 100}" for n in range(200)]
        produce(server, topic, lines, "-z", codec)
        expected += lines
    got = read(server, topic)
    equal(payloads(got), expected, "messages")
    equal([m["offset"] for m in got], list(range(len(expected))), "offsets")


@case
def keys_headers_and_nulls_read_back_as_sent(server):
    topic = new_topic(server)
    headers = ["-H", "trace=1", "-H", "trace=2", "-H", "empty=", "-H", "none", "-H", "trace=1"]
    produce(server, topic, ["k1\tv1", "k2\tv2"], "-K", "\t", *headers)
    produce(server, topic, ["tombstone\t", "key\tvalue", "\tno key"], "-K", "\t", "-Z")
    produce(server, topic, ["empty\t", "\t"], "-K", "\t")
    got = [(m["key"], m["payload"], m.get("headers", [])) for m in read(server, topic)]
    pairs = ["trace", "1", "trace", "2", "empty", "", "none", None, "trace", "1"]
    expected = [
        ("k1", "v1", pairs),
        ("k2", "v2", pairs),
        ("tombstone", None, []),
        ("key", "value", []),
        (None, "no key", []),
        ("empty", "", []),
        ("", "", []),
    ]
    equal(got, expected, "messages")


@case
def every_level_of_acknowledgement_stores_the_messages(server):
    topic = new_topic(server)
    expected = []
    for level in ["0", "1", "all"]:
        lines = [f"acks-{level}-{n}" for n in range(50)]
        produce(server, topic, lines, "-X", f"acks={level}")
        expected += lines
        wait_until(lambda: len(read(server, topic)) == len(expected), 10, f"messages sent with acks={level} arrive")
    equal(payloads(read(server, topic)), expected, "messages")


@case
def idempotent_produce_stores_each_message_once_in_order(server):
    topic = new_topic(server)
    lines = [str(n) for n in range(3000)]
    produce(server, topic, lines, "-X", "enable.idempotence=true", "-X", "batch.num.messages=7", "-X", "linger.ms=1")
    equal(payloads(read(server, topic)), lines, "messages")


@case
def messages_up_to_the_limit_are_stored_and_larger_ones_refused(server):
    topic = new_topic(server)
    with tempfile.TemporaryDirectory() as folder:

        def send(size, may_fail):
            file = Path(folder, str(size))
            file.write_bytes(b"x" * size)
            return kcat(server, "-P", "-t", topic, "-X", "message.max.bytes=10000000", str(file), may_fail=may_fail)

        send(1_000_000, False)
        refused = send(1_100_000, True)
        check(b"Message size too large" in refused.stderr, f"kcat said: {refused.stderr.decode()[-300:]}")
        send(10, False)
    equal([len(m["payload"]) for m in read(server, topic)], [1_000_000, 10], "sizes")


@case
def consume_from_the_start_from_an_offset_and_from_the_end(server):
    topic = new_topic(server)
    everything = [f"value-{n}" for n in range(100)]
    produce(server, topic, everything)
    equal(payloads(read(server, topic, "-o", "beginning")), everything, "from the start")
    equal(payloads(read(server, topic, "-o", "37")), everything[37:], "from offset 37, within a batch")
    equal(payloads(read(server, topic, "-o", "-5")), everything[95:], "the last five")
    equal(payloads(read(server, topic, "-o", "end")), [], "from the end")
    equal(payloads(read(server, topic, "-o", "10", "-c", "3")), everything[10:13], "three from offset 10")


@case
def consume_from_a_time(server):
    topic = new_topic(server)
    times = []
    for batch in range(3):
        produce(server, topic, [f"{batch}-{n}" for n in range(10)])
        times.append(read(server, topic, "-o", "-10")[0]["ts"])
        time.sleep(0.05)
    equal(payloads(read(server, topic, "-o", f"s@{times[1]}"))[0], "1-0", "first message from the time of the second batch")
    until = payloads(read(server, topic, "-o", f"s@{times[1]}", "-o", f"e@{times[2]}"))
    equal(until, [f"1-{n}" for n in range(10)], "messages between two times")
    found = kcat(server, "-Q", "-t", f"{topic}:0:{times[2]}")
    equal(found.split(), [topic, "[0]", "offset", "20"], "offset for a time")
    found = kcat(server, "-Q", "-t", f"{topic}:0:-1", "-t", f"{topic}:0:-2")
    check("offset" in found, "the ends are listed")
    later = int(time.time() * 1000) + 3_600_000
    equal(kcat(server, "-Q", "-t", f"{topic}:0:{later}").split(), [topic, "[0]", "offset", "-1"], "offset for a time after the last")


@case
def an_offset_out_of_range_follows_auto_offset_reset(server):
    topic = new_topic(server)
    produce(server, topic, ["a", "b", "c"])
    equal(payloads(read(server, topic, "-o", "5000", "-X", "topic.auto.offset.reset=earliest")), ["a", "b", "c"], "reset to the start")
    equal(payloads(read(server, topic, "-o", "5000", "-X", "topic.auto.offset.reset=latest")), [], "reset to the end")
    arguments = ("-C", "-e", "-q", "-t", topic, "-o", "5000", "-X", "topic.auto.offset.reset=error")
    refused = kcat(server, *arguments, may_fail=True)
    check(refused.returncode != 0, "an offset out of range was read without an error")
    check(b"out of range" in refused.stderr.lower(), f"kcat said: {refused.stderr.decode()[-300:]}")


@case
def fetch_limits_below_one_message_still_make_progress(server):
    topic = new_topic(server)
    produce(server, topic, [str(n % 10) * 50_000 for n in range(20)])
    limits = ["-X", "fetch.message.max.bytes=1000", "-X", "fetch.max.bytes=2000", "-X", "message.max.bytes=1500"]
    equal([m["payload"][:1] for m in read(server, topic, *limits)], [str(n % 10) for n in range(20)], "messages")


@case
def an_invalid_topic_name_is_refused(server):
    refused = kcat(server, "-P", "-t", "with space", given="x\n", may_fail=True)
    check(refused.returncode != 0, "a message to an invalid topic name was accepted")
    check(b"nvalid topic" in refused.stderr or b"nknown topic" in refused.stderr, f"kcat said: {refused.stderr.decode()[-300:]}")


def members_join_and_leave(server, strategy):
    """Three members share six topics of one partition; one leaves; every message is seen exactly once."""
    topics = [new_topic(server) for _ in range(6)]
    group = server.unique("group")
    sent = []

    def send(stage):
        for topic in topics:
            lines = [f"{stage}/{topic}/{n}" for n in range(20)]
            produce(server, topic, lines)
            sent.extend(lines)

    with group_of() as members:
        for count in (1, 2, 3):
            members.append(Member(server, group, topics, "-X", f"partition.assignment.strategy={strategy}"))
            wait_for_share(members, topics)
            send(f"of-{count}")
            wait_for_values(members, sent)
        time.sleep(0.3)
        members[0].end()
        wait_for_share(members[1:], topics)
        send("after-one-left")
        wait_for_values(members, sent)
        for member in members[1:]:
            member.end()
        seen = [v for m in members for v in m.values()]
        equal(sorted(seen), sorted(sent), "messages, each once")


@case
def a_group_of_three_shares_by_roundrobin_and_sees_each_message_once(server):
    members_join_and_leave(server, "roundrobin")


@case
def a_group_of_three_shares_by_cooperative_sticky_and_sees_each_message_once(server):
    members_join_and_leave(server, "cooperative-sticky")


@case
def the_partitions_of_a_killed_member_are_taken_over_and_nothing_is_missed(server):
    topics = [new_topic(server) for _ in range(6)]
    group = server.unique("group")
    short = ["-X", "session.timeout.ms=2000", "-X", "partition.assignment.strategy=roundrobin"]
    with group_of() as members:
        members += [Member(server, group, topics, *short) for _ in range(3)]
        wait_for_share(members, topics)
        sent = [f"{topic}/{n}" for topic in topics for n in range(20)]
        for topic in topics:
            produce(server, topic, [f"{topic}/{n}" for n in range(10)])
        wait_for_values(members, [f"{topic}/{n}" for topic in topics for n in range(10)])
        members[0].end(signal.SIGKILL)
        killed = time.monotonic()
        for topic in topics:
            produce(server, topic, [f"{topic}/{n}" for n in range(10, 20)])
        wait_for_share(members[1:], topics)
        check(time.monotonic() - killed < 20, "the partitions of a killed member with a session of 2 s were taken over too late")
        wait_for_values(members, sent)
        for member in members[1:]:
            member.end()


@case
def a_static_member_returns_without_a_rebalance(server):
    topics = [new_topic(server) for _ in range(4)]
    group = server.unique("group")

    def join(instance):
        return Member(server, group, topics, "-X", f"group.instance.id={instance}", "-X", "partition.assignment.strategy=roundrobin")

    with group_of() as members:
        members += [join("first"), join("second")]
        wait_for_share(members, topics)
        held, told = members[0].assigned(), list(members[1].told)
        members[0].end()
        for topic in topics:
            produce(server, topic, [topic])
        again = join("first")
        members.append(again)
        wait_until(again.assigned, SECONDS_MAX, "the returning member has its partitions")
        equal(again.assigned(), held, "partitions of the returning member")
        seen = wait_for_values(members[1:], topics)
        equal(sorted(seen), sorted(topics), "messages, each once")
        equal([line for line in members[1].told if "rebalanced" in line], [line for line in told if "rebalanced" in line], "what the other member was told")
        for member in members[1:]:
            member.end()


@case
def commits_are_where_the_next_member_resumes(server):
    topic = new_topic(server)
    group = server.unique("group")
    for stage in range(3):
        lines = [f"{stage}-{n}" for n in range(10)]
        produce(server, topic, lines)
        with group_of(Member(server, group, [topic])) as members:
            equal(wait_for_values(members, lines), lines, f"messages of stage {stage}")
            time.sleep(0.2)
            members[0].end()


@case
def messages_commits_and_topics_survive_a_killed_broker(server):
    topic = new_topic(server)
    group = server.unique("group")
    first = [f"{codec}-{n}" for codec in CODECS for n in range(20)]
    for codec in CODECS:
        produce(server, topic, [f"{codec}-{n}" for n in range(20)], "-z", codec)
    with group_of(Member(server, group, [topic])) as members:
        wait_for_values(members, first)
        time.sleep(0.5)
        members[0].end()
    yield
    equal(payloads(read(server, topic)), first, "messages")
    second = [f"after-{n}" for n in range(20)]
    produce(server, topic, second)
    got = read(server, topic)
    equal([(m["offset"], m["payload"]) for m in got], list(enumerate(first + second)), "messages and offsets")
    with group_of(Member(server, group, [topic])) as members:
        equal(wait_for_values(members, second), second, "messages from the commit on")
        members[0].end()


harness.main()
