//! What is left after the broker was killed (kill -9) and started again.

use rdkafka::Offset;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{TopicPartitionList, message::Message};

use crate::member::{Member, wait_for_seen, wait_for_share};
use crate::server::{Send, Server, message, numbered, text, values};
use crate::{Rest, RestartCase, equal, wait_until};

pub const CASES: &[(&str, RestartCase)] = &[
    ("messages_commits_and_topics_survive_a_killed_broker", everything_survives),
    ("a_group_goes_on_through_a_killed_broker", group_goes_on),
    ("an_idempotent_producer_goes_on_through_a_killed_broker", producer_goes_on),
];

fn everything_survives(server: &Server) -> Result<Rest, String> {
    let topic = server.topic(2, &[])?;
    let group = server.unique("group");
    for codec in ["none", "zstd"] {
        server.produce(&topic, &numbered(codec, 50, 0), &[("compression.type", codec), ("linger.ms", "20")])?;
    }
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic, 0, Offset::Offset(42)).map_err(text)?;
    server.consumer(&group, &[])?.commit(&offsets, CommitMode::Sync).map_err(text)?;
    Ok(Box::new(move |server| {
        wait_until("the topic after the restart", || Ok((server.partitions(&topic)? == 2).then_some(())))?;
        let everything: Vec<String> =
            ["none", "zstd"].iter().flat_map(|codec| (0..50).map(move |n| format!("{codec}-{n}"))).collect();
        equal(&values(&server.read(&topic, 2, Offset::Beginning)?), &everything, "messages")?;
        let committed = wait_until("the committed offset", || Ok(server.committed(&group, &topic, 0).ok()))?;
        equal(&committed.0, &Offset::Offset(42), "committed offset")?;
        let mut member = Member::join(server, &group, std::slice::from_ref(&topic), &[])?;
        wait_for_seen(&[&member], &everything[42..])?;
        equal(&member.seen(), &everything[42..].to_vec(), "messages from the commit on")?;
        member.leave()?;
        equal(&server.produce(&topic, &[message("next", 0)], &[])?, &vec![100], "offset of the next message")
    }))
}

fn spread(prefix: &str, partitions: i32) -> Vec<Send> {
    (0..60).map(|number| message(&format!("{prefix}-{number}"), number % partitions)).collect()
}

fn names(prefix: &str) -> Vec<String> {
    (0..60).map(|number| format!("{prefix}-{number}")).collect()
}

fn group_goes_on(server: &Server) -> Result<Rest, String> {
    let topic = server.topic(6, &[])?;
    let group = server.unique("group");
    let mut members = Vec::new();
    for _ in 0..3 {
        let configs = [("session.timeout.ms", "20000")];
        members.push(Member::join(server, &group, std::slice::from_ref(&topic), &configs)?);
    }
    wait_for_share(&members.iter().collect::<Vec<_>>(), 6)?;
    let sender = server.sender(&[])?;
    sender.send(&topic, &spread("before", 6))?.map_err(text)?;
    wait_for_seen(&members.iter().collect::<Vec<_>>(), &names("before"))?;
    Ok(Box::new(move |_| {
        sender.send(&topic, &spread("after", 6))?.map_err(text)?;
        wait_for_seen(&members.iter().collect::<Vec<_>>(), &names("after"))?;
        members.iter_mut().try_for_each(Member::leave)
    }))
}

fn producer_goes_on(server: &Server) -> Result<Rest, String> {
    let topic = server.topic(2, &[])?;
    let sender = server.sender(&[("enable.idempotence", "true")])?;
    sender.send(&topic, &spread("before", 2))?.map_err(text)?;
    Ok(Box::new(move |server| {
        sender.send(&topic, &spread("after", 2))?.map_err(text)?;
        let got = server.read(&topic, 2, Offset::Beginning)?;
        for partition in 0..2 {
            let stored: Vec<_> = got.iter().filter(|one| one.partition() == partition).cloned().collect();
            let all = names("before").into_iter().chain(names("after")).enumerate();
            let expected = all.filter(|(at, _)| at % 2 == usize::from(partition == 1)).map(|(_, name)| name).collect();
            equal(&values(&stored), &expected, &format!("partition {partition}"))?;
        }
        Ok(())
    }))
}
