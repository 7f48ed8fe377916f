"""Administration: topics, partitions, settings, records, groups, offsets, the cluster."""

import time

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from clients import (
    SECONDS_MAX,
    Member,
    admin,
    bodies,
    consumer,
    create,
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


def one(futures):
    """The result of the only future of an answer."""
    (future,) = futures.values()
    return future.result(SECONDS_MAX)


def refused_as(code, action, what):
    """Fails unless the action is refused with this error code; returns the error's text."""
    try:
        action()
    except KafkaException as refused:
        equal(refused.args[0].name(), KafkaError(code).name(), f"error code of {what}")
        return refused.args[0].str()
    raise AssertionError(f"{what} was accepted")


def configs_of(server, kind, name):
    """All settings of a topic or broker by name."""
    return one(admin(server).describe_configs([ConfigResource(kind, name)]))


@case
def topics_are_created_described_and_deleted(server):
    client = admin(server)
    topic = make_topic(server, partitions=3)
    described = one(client.describe_topics(TopicCollection([topic])))
    equal([p.id for p in described.partitions], [0, 1, 2], "partitions")
    equal({(p.leader.id, len(p.replicas), len(p.isr)) for p in described.partitions}, {(described.partitions[0].leader.id, 1, 1)}, "leaders and replicas")
    equal(described.is_internal, False, "internal")
    check(str(described.topic_id) != "AAAAAAAAAAAAAAAAAAAAAA", "a topic has an id of its own")
    check(topic in client.list_topics(timeout=SECONDS_MAX).topics, "the topic is listed")
    refused_as(KafkaError.TOPIC_ALREADY_EXISTS, lambda: one(client.create_topics([NewTopic(topic, 1, 1)])), "a topic that exists")
    produce(server, topic, values(3, partition=0))
    one(client.delete_topics([topic]))
    wait_until(lambda: topic not in client.list_topics(timeout=SECONDS_MAX).topics, 10, "the topic is gone")
    refused_as(KafkaError.UNKNOWN_TOPIC_OR_PART, lambda: one(client.delete_topics([topic])), "deleting a topic that is gone")
    create(server, NewTopic(topic, 1, 1))
    equal(read_to_end(server, topic), [], "messages of a topic made again under its old name")
    again = one(client.describe_topics(TopicCollection([topic])))
    check(str(again.topic_id) != str(described.topic_id), "a topic made again has a new id")


@case
def a_topic_that_is_only_validated_is_not_created(server):
    client = admin(server)
    topic = server.unique("validated")
    one(client.create_topics([NewTopic(topic, 2, 1)], validate_only=True))
    time.sleep(0.3)
    check(topic not in client.list_topics(timeout=SECONDS_MAX).topics, "the topic was created")


@case
def a_topic_without_counts_gets_the_defaults_of_the_broker(server):
    client = admin(server)
    topic = server.unique("defaults")
    create(server, NewTopic(topic, -1, -1))
    described = one(client.describe_topics(TopicCollection([topic])))
    broker = configs_of(server, ResourceType.BROKER, str(described.partitions[0].leader.id))
    equal(len(described.partitions), int(broker["num.partitions"].value), "partitions")


@case
def partitions_are_added_and_never_removed(server):
    client = admin(server)
    topic = make_topic(server, partitions=2)
    produce(server, topic, values(5, partition=1))
    one(client.create_partitions([NewPartitions(topic, 5)]))
    wait_until(lambda: len(client.list_topics(topic, timeout=SECONDS_MAX).topics[topic].partitions) == 5, 10, "five partitions")
    produce(server, topic, values(5, partition=4))
    equal(len(read_to_end(server, topic, partitions=5)), 10, "messages of old and new partitions")
    for total in (3, 5):
        refused_as(KafkaError.INVALID_PARTITIONS, lambda t=total: one(client.create_partitions([NewPartitions(topic, t)])), f"{total} partitions in all")
    missing = server.unique("missing")
    refused_as(KafkaError.UNKNOWN_TOPIC_OR_PART, lambda: one(client.create_partitions([NewPartitions(missing, 5)])), "partitions of a topic that is not")


@case
def topic_settings_are_described_and_altered(server):
    client = admin(server)
    topic = make_topic(server, **{"message.timestamp.type": "LogAppendTime"})
    resource = ResourceType.TOPIC
    found = configs_of(server, resource, topic)
    expected = {
        "message.timestamp.type": ("LogAppendTime", ConfigSource.DYNAMIC_TOPIC_CONFIG.value),
        "max.message.bytes": ("1048588", ConfigSource.DEFAULT_CONFIG.value),
        "cleanup.policy": ("delete", ConfigSource.DEFAULT_CONFIG.value),
        "compression.type": ("producer", ConfigSource.DEFAULT_CONFIG.value),
    }
    equal({name: (found[name].value, found[name].source) for name in expected}, expected, "settings")
    defaults = {name: name != "message.timestamp.type" for name in expected}
    equal({name: found[name].is_default for name in expected}, defaults, "defaults")

    def alter(*entries):
        changes = [ConfigEntry(name, value, incremental_operation=operation) for name, value, operation in entries]
        one(client.incremental_alter_configs([ConfigResource(resource, topic, incremental_configs=changes)]))

    def wait_for_settings(limit, kind_of_time):
        wanted = {"max.message.bytes": limit, "message.timestamp.type": kind_of_time}
        wait_until(
            lambda: (found := configs_of(server, resource, topic)) and {n: found[n].value for n in wanted} == wanted,
            10,
            f"settings {wanted}",
        )

    alter(("max.message.bytes", "2000", AlterConfigOpType.SET), ("message.timestamp.type", None, AlterConfigOpType.DELETE))
    wait_for_settings("2000", "CreateTime")
    sender = producer(server, **{"compression.type": "none"})
    refused_as(KafkaError.MSG_SIZE_TOO_LARGE, lambda: send(sender, topic, [{"value": bytes(5000)}]), "a message above the altered limit")
    alter(("max.message.bytes", None, AlterConfigOpType.DELETE))
    wait_for_settings("1048588", "CreateTime")
    send(sender, topic, [{"value": bytes(5000)}])
    # The older call replaces all settings of the topic.
    one(client.alter_configs([ConfigResource(resource, topic, set_config={"message.timestamp.type": "LogAppendTime"})]))
    wait_for_settings("1048588", "LogAppendTime")
    one(client.alter_configs([ConfigResource(resource, topic, set_config={"max.message.bytes": "3000"})]))
    wait_for_settings("3000", "CreateTime")


@case
def unknown_settings_and_bad_values_are_refused_by_name(server):
    client = admin(server)
    topic = make_topic(server)

    def create(configs):
        one(client.create_topics([NewTopic(server.unique("refused"), 1, 1, config=configs)]))

    def alter(name, value):
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        one(client.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])]))

    for name, value in [("no.such.setting", "1"), ("max.message.bytes", "many"), ("max.message.bytes", "-5"), ("cleanup.policy", "maybe")]:
        for way, action in [("created", lambda n=name, v=value: create({n: v})), ("altered", lambda n=name, v=value: alter(n, v))]:
            text = refused_as(KafkaError.INVALID_CONFIG, action, f"{name}={value}, {way}")
            check(name in text, f"the error does not name {name}: {text}")
    missing = server.unique("missing")
    refused_as(KafkaError.UNKNOWN_TOPIC_OR_PART, lambda: configs_of(server, ResourceType.TOPIC, missing), "settings of a topic that is not")


@case
def broker_settings_are_described(server):
    node = next(iter(admin(server).list_topics(timeout=SECONDS_MAX).brokers))
    found = configs_of(server, ResourceType.BROKER, str(node))
    equal(found["group.min.session.timeout.ms"].value, "1000", "a setting given at the start")
    equal(found["group.min.session.timeout.ms"].source, ConfigSource.STATIC_BROKER_CONFIG.value, "its source")
    expected = {
        "message.max.bytes": "1048588",
        "num.partitions": "1",
        "group.max.session.timeout.ms": "1800000",
        "offsets.retention.minutes": "10080",
        "group.initial.rebalance.delay.ms": "0",
    }
    equal({name: found[name].value for name in expected}, expected, "settings")
    equal(found["offsets.retention.minutes"].source, ConfigSource.DEFAULT_CONFIG.value, "source of a default")


@case
def invalid_topic_names_and_counts_are_refused(server):
    client = admin(server)
    for name in [".", "..", "with space", "with/slash", "with:colon", "\u00fcmlaut", "x" * 250]:
        refused_as(KafkaError.TOPIC_EXCEPTION, lambda n=name: one(client.create_topics([NewTopic(n, 1, 1)])), f"topic name {name[:20]!r}")
    longest = (server.unique("longest") + "x" * 249)[:249]
    one(client.create_topics([NewTopic(longest, 1, 1)]))
    stem = server.unique("dot").replace("-", "")
    create(server, NewTopic(f"{stem}.a", 1, 1))
    refused_as(KafkaError.TOPIC_EXCEPTION, lambda: one(client.create_topics([NewTopic(f"{stem}_a", 1, 1)])), "a name that differs by dot and underscore only")
    name = server.unique("counts")
    refused_as(KafkaError.INVALID_REPLICATION_FACTOR, lambda: one(client.create_topics([NewTopic(name, 1, 3)])), "three replicas on one node")
    check(name not in client.list_topics(timeout=SECONDS_MAX).topics, "a refused topic exists")


@case
def records_are_deleted_up_to_an_offset(server):
    client = admin(server)
    topic = make_topic(server)
    produce(server, topic, values(20))
    deleted = one(client.delete_records([TopicPartition(topic, 0, 8)]))
    equal(deleted.low_watermark, 8, "new start")
    equal(bodies(read_to_end(server, topic)), [f"value-{n}" for n in range(8, 20)], "messages left")
    equal(bodies(read_to_end(server, topic, start=3, **{"auto.offset.reset": "earliest"})), [f"value-{n}" for n in range(8, 20)], "from a deleted offset")
    refused_as(KafkaError.OFFSET_OUT_OF_RANGE, lambda: one(client.delete_records([TopicPartition(topic, 0, 21)])), "deleting beyond the end")
    equal(one(client.delete_records([TopicPartition(topic, 0, 5)])).low_watermark, 8, "start after deleting less")
    equal(one(client.delete_records([TopicPartition(topic, 0, -1)])).low_watermark, 20, "start after deleting all")
    equal(bodies(read_to_end(server, topic)), [], "messages left")
    equal(produce(server, topic, values(1)), [(0, 20)], "place of the next message")


@case
def offsets_are_listed_from_either_end_by_time_and_by_the_newest_time(server):
    client = admin(server)
    topic = make_topic(server)
    times = [1000, 5000, 3000, 4000]
    for number, at in enumerate(times):
        produce(server, topic, [{"value": f"{number}".encode(), "timestamp": 1_700_000_000_000 + at}])
    one(client.delete_records([TopicPartition(topic, 0, 1)]))

    def listed(spec):
        found = one(client.list_offsets({TopicPartition(topic, 0): spec}))
        return found.offset, found.timestamp

    equal(listed(OffsetSpec.earliest())[0], 1, "earliest")
    equal(listed(OffsetSpec.latest())[0], 4, "latest")
    equal(listed(OffsetSpec.max_timestamp()), (1, 1_700_000_005_000), "newest time")
    equal(listed(OffsetSpec.for_timestamp(1_700_000_003_500)), (1, 1_700_000_005_000), "by time")
    equal(listed(OffsetSpec.for_timestamp(1_700_000_009_000))[0], -1, "by a time after the last")
    empty = make_topic(server)
    found = one(client.list_offsets({TopicPartition(empty, 0): OffsetSpec.max_timestamp()}))
    equal(found.offset, -1, "newest time of an empty topic")
    missing = server.unique("missing")
    refused_as(KafkaError._NOENT, lambda: one(client.list_offsets({TopicPartition(missing, 0): OffsetSpec.latest()})), "offsets of a topic that is not")


@case
def groups_are_listed_described_and_deleted(server):
    client = admin(server)
    topic = make_topic(server, partitions=4)
    group = server.unique("group")
    produce(server, topic, values(4, partition=0))
    members = [Member(server, group, [topic], **{"client.id": f"client-{n}", "partition.assignment.strategy": "range"}) for n in range(2)]
    wait_for_share(members, 4)
    wait_for_seen(members, [f"value-{n}" for n in range(4)])
    described = one(client.describe_consumer_groups([group]))
    equal((described.state.name, described.partition_assignor, described.is_simple_consumer_group), ("STABLE", "range", False), "group")
    equal(sorted(m.client_id for m in described.members), ["client-0", "client-1"], "clients")
    held = sorted((p.topic, p.partition) for m in described.members for p in m.assignment.topic_partitions)
    equal(held, [(topic, n) for n in range(4)], "partitions of the members")
    listed = client.list_consumer_groups().result(SECONDS_MAX).valid
    equal([g.state.name for g in listed if g.group_id == group], ["STABLE"], "listed state")
    refused_as(KafkaError.NON_EMPTY_GROUP, lambda: one(client.delete_consumer_groups([group])), "deleting a group with members")
    for member in members:
        member.leave()
    equal(one(client.describe_consumer_groups([group])).state.name, "EMPTY", "state without members")
    one(client.delete_consumer_groups([group]))
    listed = client.list_consumer_groups().result(SECONDS_MAX).valid
    check(group not in [g.group_id for g in listed], "a deleted group is listed")
    refused_as(KafkaError.GROUP_ID_NOT_FOUND, lambda: one(client.delete_consumer_groups([group])), "deleting a group that is not")


@case
def group_offsets_are_listed_and_altered(server):
    client = admin(server)
    topic = make_topic(server, partitions=2)
    group = server.unique("group")
    produce(server, topic, [{"value": f"{n}".encode(), "partition": n % 2} for n in range(20)])
    wanted = [TopicPartition(topic, 0, 4), TopicPartition(topic, 1, 6)]
    one(client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, wanted)]))
    listed = one(client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))
    equal(sorted((p.topic, p.partition, p.offset) for p in listed.topic_partitions), [(topic, 0, 4), (topic, 1, 6)], "offsets")
    only = one(client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 1)])]))
    equal([(p.partition, p.offset) for p in only.topic_partitions], [(1, 6)], "offsets of one partition")
    member = Member(server, group, [topic])
    expected = [f"{n}" for n in range(20) if n // 2 >= (4 if n % 2 == 0 else 6)]
    equal(sorted(wait_for_seen([member], expected)), sorted(expected), "messages from the altered offsets")
    try:
        answer = one(client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, wanted)]))
        errors = {p.error.code() for p in answer.topic_partitions if p.error is not None}
        check(errors and errors <= {KafkaError.UNKNOWN_MEMBER_ID}, f"altering the offsets of a group with members answered {errors}")
    except KafkaException as refused:
        equal(refused.args[0].code(), KafkaError.UNKNOWN_MEMBER_ID, "error code")
    member.leave()


@case
def the_cluster_is_described(server):
    described = admin(server).describe_cluster().result(SECONDS_MAX)
    equal([f"{n.host}:{n.port}" for n in described.nodes], [server.bootstrap], "nodes")
    equal(described.controller.id, described.nodes[0].id, "controller")
    check(len(described.cluster_id) == 22, f"cluster id {described.cluster_id!r} is not a UUID in base64")
    equal(admin(server).list_topics(timeout=SECONDS_MAX).cluster_id, described.cluster_id, "cluster id in the metadata")


@case
def an_unknown_topic_is_refused_when_topics_are_not_made_by_themselves(server):
    missing = server.unique("missing")
    sender = producer(server, **{"topic.metadata.propagation.max.ms": 500, "message.timeout.ms": 5000})
    refused_as(KafkaError.UNKNOWN_TOPIC_OR_PART, lambda: send(sender, missing, values(1)), "a message to a topic that is not")
    reader = consumer(server)
    reader.subscribe([missing])
    event = wait_until(lambda: reader.poll(0.5), SECONDS_MAX, "what the consumer of a topic that is not is told")
    equal(event.error().name(), "UNKNOWN_TOPIC_OR_PART", "its error code")
    reader.close()
    check(missing not in admin(server).list_topics(timeout=SECONDS_MAX).topics, "the topic was made")
    topic = make_topic(server)
    refused_as(KafkaError._UNKNOWN_PARTITION, lambda: produce(server, topic, values(1, partition=7)), "a message to a partition that is not")
