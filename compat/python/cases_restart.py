"""What is left after the broker was killed (kill -9) and started again. The restart happens at each `yield`."""

import time

from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import ResourceType

from cases_admin import configs_of, one
from clients import (
    SECONDS_MAX,
    Member,
    admin,
    bodies,
    consumer,
    make_topic,
    produce,
    producer,
    read_to_end,
    send,
    values,
    wait_for_seen,
    wait_for_share,
)
from harness import case, check, equal, wait_until


def patiently(action):
    """What the action returns, once the broker is through with its start."""

    def attempt():
        try:
            return action()
        except KafkaException:
            return None

    return wait_until(attempt, SECONDS_MAX, "an answer after the restart")


@case
def messages_commits_and_topics_survive_a_killed_broker(server):
    topic = make_topic(server, partitions=2, **{"max.message.bytes": "54321"})
    group = server.unique("group")
    for codec in ["none", "zstd"]:
        produce(server, topic, values(50, codec, partition=0), **{"compression.type": codec, "linger.ms": 20})
    one(admin(server).delete_records([TopicPartition(topic, 0, 5)]))
    reader = consumer(server, group)
    reader.commit(offsets=[TopicPartition(topic, 0, 42, "kept")], asynchronous=False)
    reader.close()
    described = one(admin(server).describe_topics(TopicCollection([topic])))
    time.sleep(1)  # Apache Kafka writes the new start down at intervals, here of half a second
    yield
    again = patiently(lambda: one(admin(server).describe_topics(TopicCollection([topic]))))
    equal((again.name, str(again.topic_id), len(again.partitions)), (topic, str(described.topic_id), 2), "topic")
    equal(configs_of(server, ResourceType.TOPIC, topic)["max.message.bytes"].value, "54321", "setting of the topic")
    everything = [f"none-{n}" for n in range(50)] + [f"zstd-{n}" for n in range(50)]
    equal(bodies(read_to_end(server, topic, partitions=2)), everything[5:], "messages")
    reader = consumer(server, group)
    stored = patiently(lambda: reader.committed([TopicPartition(topic, 0)], timeout=SECONDS_MAX)[0])
    equal((stored.offset, stored.metadata), (42, "kept"), "committed offset")
    reader.close()
    member = Member(server, group, [topic])
    equal(sorted(wait_for_seen([member], everything[42:])), sorted(everything[42:]), "messages from the commit on")
    member.leave()
    equal(produce(server, topic, values(1, partition=0)), [(0, 100)], "place of the next message")


@case
def a_group_goes_on_through_a_killed_broker(server):
    topic = make_topic(server, partitions=6)
    group = server.unique("group")
    members = [Member(server, group, [topic], **{"session.timeout.ms": 20_000}) for _ in range(3)]
    wait_for_share(members, 6)
    sender = producer(server)
    first = [{"value": f"before-{n}".encode(), "partition": n % 6} for n in range(60)]
    send(sender, topic, first)
    wait_for_seen(members, [m["value"].decode() for m in first])
    yield
    second = [{"value": f"after-{n}".encode(), "partition": n % 6} for n in range(60)]
    send(sender, topic, second)
    wait_for_seen(members, [m["value"].decode() for m in second])
    for member in members:
        try:
            member.leave()
        except KafkaException as error:
            check(False, f"a member did not outlive the restart: {error}")


@case
def an_idempotent_producer_goes_on_through_a_killed_broker(server):
    topic = make_topic(server, partitions=2)
    sender = producer(server, **{"enable.idempotence": True})
    send(sender, topic, [{"value": f"{n}".encode(), "partition": n % 2} for n in range(100)])
    yield
    send(sender, topic, [{"value": f"{n}".encode(), "partition": n % 2} for n in range(100, 200)])
    got = read_to_end(server, topic, partitions=2)
    for partition in range(2):
        stored = [int(m.value()) for m in got if m.partition() == partition]
        equal(stored, list(range(partition, 200, 2)), f"partition {partition}")
