//! Administration, as far as the crate offers it.

use std::time::Duration;

use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{
    AlterConfig, ConfigResource, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;

use crate::member::{Member, wait_for_seen, wait_for_share};
use crate::server::{Send, Server, WAIT_MAX, message, numbered, one, refused, text, values};
use crate::{Case, Outcome, check, equal, wait_until};

pub const CASES: &[(&str, Case)] = &[
    ("topics_are_created_described_and_deleted", topics),
    ("a_topic_that_is_only_validated_is_not_created", validate_only),
    ("a_topic_without_counts_gets_the_defaults_of_the_broker", defaults),
    ("partitions_are_added_and_never_removed", partitions),
    ("topic_settings_are_described_and_altered", topic_settings),
    ("unknown_settings_and_bad_values_are_refused_by_name", bad_settings),
    ("broker_settings_are_described", broker_settings),
    ("invalid_topic_names_and_counts_are_refused", invalid_topics),
    ("records_are_deleted_up_to_an_offset", delete_records),
    ("groups_are_listed_described_and_deleted", groups),
    ("the_cluster_is_described", cluster),
    ("an_unknown_topic_is_refused_when_topics_are_not_made_by_themselves", unknown_topic),
];

fn new(name: &str, partitions: i32) -> NewTopic<'_> {
    NewTopic::new(name, partitions, TopicReplication::Fixed(1))
}

fn delete(server: &Server, topic: &str) -> Result<Result<(), RDKafkaErrorCode>, String> {
    let admin = server.admin()?;
    one(server.wait(admin.delete_topics(&[topic], &server.admin_options()))?.map_err(text)?)
}

fn topics(server: &Server) -> Outcome {
    let topic = server.topic(3, &[])?;
    let metadata = server.admin()?.inner().fetch_metadata(Some(&topic), WAIT_MAX).map_err(text)?;
    let found = metadata.topics().first().ok_or("the topic is not described")?;
    equal(&found.partitions().iter().map(|one| one.id()).collect::<Vec<_>>(), &vec![0, 1, 2], "partitions")?;
    let one_each = found.partitions().iter().all(|one| one.replicas().len() == 1 && one.isr().len() == 1);
    check(one_each, || "each partition has one replica, in sync".into())?;
    refused(server.create(&new(&topic, 1))?, RDKafkaErrorCode::TopicAlreadyExists, "a topic that exists")?;
    server.produce(&topic, &numbered("value", 3, 0), &[])?;
    delete(server, &topic)?.map_err(text)?;
    wait_until("the topic is gone", || Ok((server.partitions(&topic)? == 0).then_some(())))?;
    refused(delete(server, &topic)?, RDKafkaErrorCode::UnknownTopicOrPartition, "deleting a topic that is gone")?;
    server.create(&new(&topic, 1))?.map_err(text)?;
    wait_until("the topic appears again", || Ok((server.partitions(&topic)? == 1).then_some(())))?;
    equal(&values(&server.read(&topic, 1, Offset::Beginning)?), &Vec::new(), "messages of a topic made again")
}

fn validate_only(server: &Server) -> Outcome {
    let name = server.unique("validated");
    let (admin, options) = (server.admin()?, server.admin_options().validate_only(true));
    one(server.wait(admin.create_topics([&new(&name, 2)], &options))?.map_err(text)?)?.map_err(text)?;
    std::thread::sleep(Duration::from_millis(300));
    equal(&server.partitions(&name)?, &0, "partitions of a topic that was only validated")
}

fn node(server: &Server) -> Result<i32, String> {
    let metadata = server.admin()?.inner().fetch_metadata(None, WAIT_MAX).map_err(text)?;
    metadata.brokers().first().map(|broker| broker.id()).ok_or_else(|| "no broker".into())
}

fn describe(server: &Server, what: ResourceSpecifier<'_>) -> Result<Result<ConfigResource, RDKafkaErrorCode>, String> {
    let admin = server.admin()?;
    let mut answers = server.wait(admin.describe_configs([&what], &server.admin_options()))?.map_err(text)?;
    answers.pop().ok_or_else(|| "no answer".into())
}

fn setting(server: &Server, what: ResourceSpecifier<'_>, name: &str) -> Result<(Option<String>, &'static str), String> {
    let found = describe(server, what)?.map_err(text)?;
    let entry = found.get(name).ok_or_else(|| format!("no setting {name}"))?;
    Ok((entry.value.clone(), source_name(&entry.source)))
}

/// The source of a setting; the crate's own type cannot be compared in a pair.
fn source_name(source: &ConfigSource) -> &'static str {
    match source {
        ConfigSource::DynamicTopic => "topic",
        ConfigSource::StaticBroker => "broker",
        ConfigSource::Default => "default",
        _ => "other",
    }
}

fn defaults(server: &Server) -> Outcome {
    let name = server.unique("defaults");
    server.create(&NewTopic::new(&name, -1, TopicReplication::Fixed(-1)))?.map_err(text)?;
    wait_until("the topic appears", || Ok((server.partitions(&name)? > 0).then_some(())))?;
    let (expected, _) = setting(server, ResourceSpecifier::Broker(node(server)?), "num.partitions")?;
    equal(&Some(server.partitions(&name)?.to_string()), &expected, "partitions")
}

fn partitions(server: &Server) -> Outcome {
    let topic = server.topic(2, &[])?;
    let admin = server.admin()?;
    let grow = |name: &str, total| {
        let wanted = NewPartitions::new(name, total);
        one(server.wait(admin.create_partitions([&wanted], &server.admin_options()))?.map_err(text)?)
    };
    grow(&topic, 5)?.map_err(text)?;
    wait_until("five partitions", || Ok((server.partitions(&topic)? == 5).then_some(())))?;
    server.produce(&topic, &numbered("value", 5, 4), &[])?;
    equal(&server.read(&topic, 5, Offset::Beginning)?.len(), &5, "messages")?;
    for total in [3, 5] {
        refused(grow(&topic, total)?, RDKafkaErrorCode::InvalidPartitions, &format!("{total} partitions in all"))?;
    }
    let missing = server.unique("missing");
    refused(grow(&missing, 5)?, RDKafkaErrorCode::UnknownTopicOrPartition, "partitions of a topic that is not")
}

fn alter(server: &Server, topic: &str, name: &str, value: &str) -> Result<Result<(), RDKafkaErrorCode>, String> {
    let admin = server.admin()?;
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
    let mut answers = server.wait(admin.alter_configs([&change], &server.admin_options()))?.map_err(text)?;
    Ok(answers.pop().ok_or("no answer")?.map(|_| ()).map_err(|(_, code)| code))
}

fn topic_settings(server: &Server) -> Outcome {
    let topic = server.topic(1, &[("message.timestamp.type", "LogAppendTime")])?;
    let of = |name| setting(server, ResourceSpecifier::Topic(&topic), name);
    let expected = (Some("LogAppendTime".to_owned()), "topic");
    equal(&of("message.timestamp.type")?, &expected, "a setting given at creation")?;
    for (name, value) in
        [("max.message.bytes", "1048588"), ("cleanup.policy", "delete"), ("compression.type", "producer")]
    {
        equal(&of(name)?, &(Some(value.to_owned()), "default"), name)?;
    }
    // This call replaces all settings of the topic.
    alter(server, &topic, "max.message.bytes", "2000")?.map_err(text)?;
    wait_until("the altered settings", || {
        let now = (of("max.message.bytes")?.0, of("message.timestamp.type")?.0);
        Ok((now == (Some("2000".into()), Some("CreateTime".into()))).then_some(()))
    })?;
    let large = [Send { value: Some(vec![0; 5000]), ..Send::default() }];
    let answer = server.sender(&[("compression.type", "none")])?.send(&topic, &large)?;
    refused(answer, RDKafkaErrorCode::MessageSizeTooLarge, "a message above the altered limit")
}

fn bad_settings(server: &Server) -> Outcome {
    // Only when a topic is created: the crate drops the broker's answer for each resource of the calls for settings.
    for (name, value) in [("no.such.setting", "1"), ("max.message.bytes", "many"), ("cleanup.policy", "maybe")] {
        let refused_name = server.unique("refused");
        let created = server.create(&new(&refused_name, 1).set(name, value))?;
        refused(created, RDKafkaErrorCode::InvalidConfig, &format!("{name}={value}"))?;
        equal(&server.partitions(&refused_name)?, &0, "partitions of a refused topic")?;
    }
    Ok(())
}

fn broker_settings(server: &Server) -> Outcome {
    let node = node(server)?;
    let of = |name| setting(server, ResourceSpecifier::Broker(node), name);
    let given = of("group.min.session.timeout.ms")?;
    equal(&given, &(Some("1000".to_owned()), "broker"), "a setting given at the start")?;
    for (name, value) in [("message.max.bytes", "1048588"), ("offsets.retention.minutes", "10080")] {
        equal(&of(name)?, &(Some(value.to_owned()), "default"), name)?;
    }
    Ok(())
}

fn invalid_topics(server: &Server) -> Outcome {
    let long = "x".repeat(250);
    for name in [".", "..", "with space", "with/slash", "with:colon", "\u{fc}mlaut", &long] {
        let answer = server.create(&new(name, 1))?;
        refused(answer, RDKafkaErrorCode::InvalidTopic, &format!("topic name {name:?}"))?;
    }
    let name = server.unique("counts");
    let answer = server.create(&NewTopic::new(&name, 1, TopicReplication::Fixed(3)))?;
    refused(answer, RDKafkaErrorCode::InvalidReplicationFactor, "three replicas on one node")?;
    equal(&server.partitions(&name)?, &0, "partitions of a refused topic")
}

fn delete_records(server: &Server) -> Outcome {
    let topic = server.topic(1, &[])?;
    server.produce(&topic, &numbered("value", 20, 0), &[])?;
    let admin = server.admin()?;
    let up_to = |offset| -> Result<Result<Offset, RDKafkaErrorCode>, String> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(&topic, 0, offset).map_err(text)?;
        let answered = server.wait(admin.delete_records(&asked, &server.admin_options()))?.map_err(text)?;
        let found = answered.find_partition(&topic, 0).ok_or("no answer for the partition")?;
        Ok(found
            .error()
            .map(|()| found.offset())
            .map_err(|error| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)))
    };
    let left: Vec<String> = (8..20).map(|number| format!("value-{number}")).collect();
    equal(&up_to(Offset::Offset(8))?, &Ok(Offset::Offset(8)), "new start")?;
    equal(&values(&server.read(&topic, 1, Offset::Beginning)?), &left, "messages left")?;
    equal(&values(&server.read(&topic, 1, Offset::Offset(3))?), &left, "from a deleted offset")?;
    refused(up_to(Offset::Offset(21))?, RDKafkaErrorCode::OffsetOutOfRange, "deleting beyond the end")?;
    equal(&up_to(Offset::Offset(5))?, &Ok(Offset::Offset(8)), "start after deleting less")?;
    equal(&up_to(Offset::End)?, &Ok(Offset::Offset(20)), "start after deleting all")?;
    equal(&server.produce(&topic, &[message("next", 0)], &[])?, &vec![20], "offset of the next message")
}

fn groups(server: &Server) -> Outcome {
    let topic = server.topic(2, &[])?;
    let group = server.unique("group");
    server.produce(&topic, &numbered("value", 2, 0), &[])?;
    let configs = [("client.id", "the-client"), ("partition.assignment.strategy", "range")];
    let mut member = Member::join(server, &group, std::slice::from_ref(&topic), &configs)?;
    wait_for_share(&[&member], 2)?;
    wait_for_seen(&[&member], &["value-0".into(), "value-1".into()])?;
    let reader = server.consumer(&server.unique("other"), &[])?;
    let listed = reader.fetch_group_list(Some(&group), WAIT_MAX).map_err(text)?;
    let found = listed.groups().first().ok_or("the group is not listed")?;
    let told = (found.name(), found.state(), found.protocol_type(), found.protocol());
    equal(&told, &(group.as_str(), "Stable", "consumer", "range"), "group")?;
    equal(&found.members().iter().map(|one| one.client_id()).collect::<Vec<_>>(), &vec!["the-client"], "clients")?;
    let admin = server.admin()?;
    let delete = || -> Result<Result<(), RDKafkaErrorCode>, String> {
        one(server.wait(admin.delete_groups(&[&group], &server.admin_options()))?.map_err(text)?)
    };
    refused(delete()?, RDKafkaErrorCode::NonEmptyGroup, "deleting a group with members")?;
    member.leave()?;
    delete()?.map_err(text)?;
    let listed = reader.fetch_group_list(None, WAIT_MAX).map_err(text)?;
    check(listed.groups().iter().all(|one| one.name() != group), || "a deleted group is listed".into())?;
    refused(delete()?, RDKafkaErrorCode::GroupIdNotFound, "deleting a group that is not")
}

fn cluster(server: &Server) -> Outcome {
    let admin = server.admin()?;
    let metadata = admin.inner().fetch_metadata(None, WAIT_MAX).map_err(text)?;
    let nodes: Vec<String> = metadata.brokers().iter().map(|one| format!("{}:{}", one.host(), one.port())).collect();
    equal(&nodes, &vec![server.bootstrap().to_owned()], "nodes")?;
    let id = admin.inner().fetch_cluster_id(WAIT_MAX).ok_or("no cluster id")?;
    equal(&id.len(), &22, "length of the cluster id")
}

fn unknown_topic(server: &Server) -> Outcome {
    let missing = server.unique("missing");
    let sender = server.sender(&[("topic.metadata.propagation.max.ms", "500"), ("message.timeout.ms", "5000")])?;
    let answer = sender.send(&missing, &[message("x", 0)])?;
    refused(answer, RDKafkaErrorCode::UnknownTopicOrPartition, "a message to a topic that is not")?;
    equal(&server.partitions(&missing)?, &0, "partitions of a topic that is not")?;
    let topic = server.topic(1, &[])?;
    let answer = server.sender(&[])?.send(&topic, &[message("x", 7)]);
    let told = answer.and_then(|sent| sent.map_err(text));
    check(told.as_ref().is_err_and(|error| error.contains("partition")), || {
        format!("a partition that is not: {told:?}")
    })
}
