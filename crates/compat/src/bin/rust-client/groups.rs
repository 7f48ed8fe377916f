//! Groups: members that join, leave, return and die; commits.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::member::{Event, Member, wait_for_seen, wait_for_share};
use crate::server::{Send, Server, WAIT_MAX, message, numbered, text, value};
use crate::{Case, Outcome, check, equal, wait_until};

const PARTITIONS: usize = 6;

pub const CASES: &[(&str, Case)] = &[
    ("the_partitions_of_a_killed_member_are_taken_over_and_nothing_is_missed", killed_member),
    ("a_group_of_three_shares_by_range_and_sees_each_message_once", by_range),
    ("a_group_of_three_shares_by_cooperative_sticky_and_sees_each_message_once", by_cooperative_sticky),
    ("a_static_member_returns_without_a_rebalance", static_member),
    ("a_second_member_of_the_same_instance_id_fences_the_first", fencing),
    ("commits_are_where_the_next_member_resumes", commits),
    ("two_groups_read_the_same_messages_and_commit_apart", two_groups),
    ("a_member_that_stops_polling_loses_its_partitions_and_cannot_commit", slow_member),
    ("a_group_reads_several_topics", several_topics),
];

/// Sends numbered messages, round robin over the partitions, until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Vec<String>, String>>>,
}

impl Load {
    fn start(server: &Server, topic: &str) -> Result<Self, String> {
        let sender = server.sender(&[])?;
        let (stop, topic) = (Arc::new(AtomicBool::new(false)), topic.to_owned());
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut sent = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let one = format!("load-{}", sent.len());
                    let partition = i32::try_from(sent.len() % PARTITIONS).map_err(text)?;
                    sender.send(&topic, &[message(&one, partition)])?.map_err(|code| format!("the load: {code}"))?;
                    sent.push(one);
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(sent)
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Stops; returns everything that was sent.
    fn end(mut self) -> Result<Vec<String>, String> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or("ended twice")?;
        thread.join().map_err(|_| "the load panicked")?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Three members join one after the other, one leaves: every message is seen once; what the second one was told.
fn join_and_leave_under_load(server: &Server, strategy: &str) -> Result<Vec<Event>, String> {
    let topic = server.topic(6, &[])?;
    let group = server.unique("group");
    let configs = [("partition.assignment.strategy", strategy), ("session.timeout.ms", "45000")];
    let load = Load::start(server, &topic)?;
    let mut members: Vec<Member> = Vec::new();
    for _ in 0..3 {
        members.push(Member::join(server, &group, std::slice::from_ref(&topic), &configs)?);
        wait_for_share(&members.iter().collect::<Vec<_>>(), PARTITIONS)?;
    }
    std::thread::sleep(Duration::from_millis(300));
    let left = Instant::now();
    members[0].leave()?;
    wait_for_share(&[&members[1], &members[2]], PARTITIONS)?;
    let waited = left.elapsed();
    check(waited < Duration::from_secs(20), || format!("the partitions were handed over after {waited:?}"))?;
    std::thread::sleep(Duration::from_millis(300));
    let sent = load.end()?;
    wait_for_seen(&members.iter().collect::<Vec<_>>(), &sent)?;
    let events = members[1].events();
    for member in &mut members[1..] {
        member.leave()?;
    }
    let seen = wait_for_seen(&members.iter().collect::<Vec<_>>(), &sent)?;
    let doubled = seen.values().filter(|times| **times > 1).count();
    equal(&doubled, &0, "messages seen more than once though no one died")?;
    equal(&seen.len(), &sent.len(), "messages seen")?;
    Ok(events)
}

fn by_range(server: &Server) -> Outcome {
    let events = join_and_leave_under_load(server, "range")?;
    // Everything is given up in each rebalance: when the third member joins, and when the first leaves.
    let expected = vec![Event::Assign(3), Event::Revoke(3), Event::Assign(2), Event::Revoke(2), Event::Assign(3)];
    equal(&events, &expected, "what the second member was told")
}

fn by_cooperative_sticky(server: &Server) -> Outcome {
    let mut events = join_and_leave_under_load(server, "cooperative-sticky")?;
    events.retain(|event| !matches!(event, Event::Assign(0) | Event::Revoke(0)));
    // Only what moves is given up: one partition to the third member, and one comes back from the first.
    equal(&events, &vec![Event::Assign(3), Event::Revoke(1), Event::Assign(1)], "what the second member was told")
}

fn killed_member(server: &Server) -> Outcome {
    ["range", "cooperative-sticky"].into_iter().try_for_each(|strategy| kill_member_of(server, strategy))
}

fn kill_member_of(server: &Server, strategy: &str) -> Outcome {
    let topic = server.topic(6, &[])?;
    let group = server.unique("group");
    let load = Load::start(server, &topic)?;
    let configs = [("partition.assignment.strategy", strategy), ("session.timeout.ms", "45000")];
    let topics = [topic.clone()];
    let mut members =
        [Member::join(server, &group, &topics, &configs)?, Member::join(server, &group, &topics, &configs)?];
    wait_for_share(&[&members[0], &members[1]], PARTITIONS)?;
    let mut victim = Command::new(std::env::current_exe().map_err(text)?)
        .args(["--bootstrap", server.bootstrap(), "--member", &group, &topic, "2000", strategy])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(text)?;
    let output = victim.stdout.take().ok_or("no output")?;
    let seen_by_victim: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let listener = std::thread::spawn({
        let seen = seen_by_victim.clone();
        move || {
            BufReader::new(output).lines().map_while(Result::ok).for_each(|line| {
                if let Ok(mut seen) = seen.lock() {
                    seen.insert(line);
                }
            })
        }
    });
    let shared = wait_for_share(&[&members[0], &members[1]], 4).and_then(|()| {
        wait_until("the third member has seen something", || {
            Ok((!seen_by_victim.lock().map_err(text)?.is_empty()).then_some(()))
        })
    });
    victim.kill().map_err(text)?;
    victim.wait().map_err(text)?;
    shared?;
    listener.join().map_err(|_| "the listener panicked")?;
    let killed = Instant::now();
    wait_for_share(&[&members[0], &members[1]], PARTITIONS)?;
    let waited = killed.elapsed();
    check(waited < Duration::from_secs(15), || format!("partitions were taken over after {waited:?}"))?;
    let mut sent = load.end()?;
    let seen = seen_by_victim.lock().map_err(text)?;
    sent.retain(|one| !seen.contains(one));
    wait_for_seen(&[&members[0], &members[1]], &sent)?;
    members.iter_mut().try_for_each(Member::leave)
}

fn static_member(server: &Server) -> Outcome {
    let topic = server.topic(4, &[])?;
    let group = server.unique("group");
    let join = |instance| {
        let configs = [
            ("group.instance.id", instance),
            ("partition.assignment.strategy", "range"),
            ("session.timeout.ms", "30000"),
        ];
        Member::join(server, &group, std::slice::from_ref(&topic), &configs)
    };
    let (mut first, mut second) = (join("first")?, join("second")?);
    wait_for_share(&[&first, &second], 4)?;
    let (held, events) = (first.assigned(), second.events());
    first.leave()?; // a static member says nothing when it closes
    let messages: Vec<Send> = (0..40).map(|number| message(&number.to_string(), number % 4)).collect();
    server.produce(&topic, &messages, &[])?;
    let mut again = join("first")?;
    wait_until("the returning member has its partitions", || Ok((!again.assigned().is_empty()).then_some(())))?;
    equal(&again.assigned(), &held, "partitions of the returning member")?;
    let expected: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let seen = wait_for_seen(&[&again, &second], &expected)?;
    equal(&seen.values().filter(|times| **times > 1).count(), &0, "messages seen more than once")?;
    equal(&second.events(), &events, "what the other member was told")?;
    again.leave()?;
    second.leave()
}

fn fencing(server: &Server) -> Outcome {
    let topic = server.topic(1, &[])?;
    let group = server.unique("group");
    let configs = [("group.instance.id", "only"), ("session.timeout.ms", "30000"), ("heartbeat.interval.ms", "300")];
    let first = Member::join(server, &group, std::slice::from_ref(&topic), &configs)?;
    wait_for_share(&[&first], 1)?;
    let mut second = Member::join(server, &group, std::slice::from_ref(&topic), &configs)?;
    wait_for_share(&[&second], 1)?;
    let told = wait_until("the first member is told", || Ok(first.error()))?;
    check(told.contains("fatal"), || format!("the first member was told: {told}"))?;
    server.produce(&topic, &numbered("value", 3, 0), &[])?;
    wait_for_seen(&[&second], &["value-0".into(), "value-1".into(), "value-2".into()])?;
    second.leave()
}

fn next(reader: &BaseConsumer, count: usize) -> Result<Vec<String>, String> {
    let mut got = Vec::new();
    wait_until(&format!("{count} messages"), || {
        while let Some(message) = reader.poll(Duration::from_millis(100)) {
            got.push(value(message.map_err(text)?.payload()));
        }
        Ok((got.len() >= count).then_some(()))
    })?;
    Ok(got)
}

fn commits(server: &Server) -> Outcome {
    let topic = server.topic(1, &[])?;
    let group = server.unique("group");
    server.produce(&topic, &numbered("value", 30, 0), &[])?;
    let reader = server.consumer(&group, &[])?;
    reader.subscribe(&[&topic]).map_err(text)?;
    equal(&next(&reader, 30)?[0], &"value-0".to_owned(), "first message of the first member")?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic, 0, Offset::Offset(7)).map_err(text)?;
    if let Some(mut one) = offsets.find_partition(&topic, 0) {
        one.set_metadata("note of the commit");
    }
    reader.commit(&offsets, CommitMode::Sync).map_err(text)?;
    drop(reader);
    let committed = server.committed(&group, &topic, 0)?;
    equal(&committed, &(Offset::Offset(7), "note of the commit".to_owned()), "committed offset and its metadata")?;
    let reader = server.consumer(&group, &[])?;
    reader.subscribe(&[&topic]).map_err(text)?;
    equal(&next(&reader, 23)?[0], &"value-7".to_owned(), "first message of the second member")?;
    drop(reader);
    let reader = server.consumer(&group, &[("enable.auto.commit", "true")])?;
    reader.subscribe(&[&topic]).map_err(text)?;
    equal(&next(&reader, 23)?[0], &"value-7".to_owned(), "first message of the third member")?;
    drop(reader);
    equal(&server.committed(&group, &topic, 0)?.0, &Offset::Offset(30), "offset committed by a close")
}

fn two_groups(server: &Server) -> Outcome {
    let topic = server.topic(1, &[])?;
    server.produce(&topic, &numbered("value", 20, 0), &[])?;
    let expected: Vec<String> = (0..20).map(|number| format!("value-{number}")).collect();
    for _ in 0..2 {
        let group = server.unique("group");
        let mut member = Member::join(server, &group, std::slice::from_ref(&topic), &[])?;
        wait_for_seen(&[&member], &expected)?;
        member.leave()?;
        equal(&member.seen(), &expected, "messages")?;
        equal(&server.committed(&group, &topic, 0)?.0, &Offset::Offset(20), "committed offset")?;
    }
    let nothing = server.committed(&server.unique("group"), &topic, 0)?.0;
    equal(&nothing, &Offset::Invalid, "committed offset of a group that never was")
}

fn slow_member(server: &Server) -> Outcome {
    let topic = server.topic(1, &[])?;
    let group = server.unique("group");
    server.produce(&topic, &numbered("value", 5, 0), &[])?;
    let configs = [("max.poll.interval.ms", "1500"), ("session.timeout.ms", "1500"), ("heartbeat.interval.ms", "300")];
    let slow = server.consumer(&group, &configs)?;
    slow.subscribe(&[&topic]).map_err(text)?;
    let deadline = Instant::now() + WAIT_MAX;
    let got = loop {
        check(Instant::now() < deadline, || "the slow member gets no message".into())?;
        if let Some(message) = slow.poll(Duration::from_millis(200)) {
            break message.map_err(text)?;
        }
    };
    let mut heir = Member::join(server, &group, std::slice::from_ref(&topic), &[])?;
    std::thread::sleep(Duration::from_millis(2500)); // the slow member is over its poll interval now, and leaves
    wait_for_share(&[&heir], 1)?;
    let expected: Vec<String> = (0..5).map(|number| format!("value-{number}")).collect();
    wait_for_seen(&[&heir], &expected)?;
    let late = slow.commit_message(&got, CommitMode::Sync);
    check(late.is_err(), || "the commit of a member that lost its partition was accepted".into())?;
    equal(&server.committed(&group, &topic, 0)?.0, &Offset::Offset(5), "committed offset")?;
    heir.leave()
}

fn several_topics(server: &Server) -> Outcome {
    let topics = [server.topic(3, &[])?, server.topic(3, &[])?];
    let mut expected = Vec::new();
    for topic in &topics {
        let names: Vec<String> = (0..30).map(|number| format!("{topic}/{number}")).collect();
        let messages: Vec<Send> = names.iter().zip((0..3).cycle()).map(|(name, at)| message(name, at)).collect();
        server.produce(topic, &messages, &[])?;
        expected.extend(names);
    }
    let group = server.unique("group");
    let configs = [("partition.assignment.strategy", "roundrobin")];
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(Member::join(server, &group, &topics, &configs)?);
    }
    let all: Vec<&Member> = members.iter().collect();
    wait_for_share(&all, 6)?;
    wait_for_seen(&all, &expected)?;
    members.iter_mut().try_for_each(Member::leave)
}
