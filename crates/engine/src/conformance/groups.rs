//! What several members see: sharing, handing over, being put out.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use baton_core::Delivery;

use super::bench::{Bench, CaseResult, Failure, Member, TURN, WAIT, ensure, ensure_same, is_refused, numbered, text};
use super::{Case, case};
use crate::Event;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(two_groups_get_everything_each, []),
        case!(members_share_partitions_and_hand_over_without_loss, [Sharing]),
        case!(close_hands_partitions_over_at_once, []),
        case!(what_was_settled_before_release_is_seen_by_the_next_owner, [Sharing, Frontier]),
        case!(who_does_not_release_loses_the_partition_and_cannot_settle_it, [Sharing]),
        case!(a_silent_member_is_put_out_and_fenced, [Patience]),
    ]
}

async fn two_groups_get_everything_each(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(2, &["one", "other"]).await?;
    bench.send_all(numbered(&topic, 0, 0..50)).await?;
    bench.send_all(numbered(&topic, 1, 50..100)).await?;
    for group in ["one", "other"] {
        let mut member = bench.consumer(group, &topic).await?;
        let came = member.take(100).await?;
        let different: BTreeSet<String> = came.iter().map(text).collect();
        ensure_same(&different.len(), &100, "different messages")?;
        member.settle(&came).await?;
        member.close().await?;
    }
    Ok(())
}

/// Takes what comes, settles it and remembers it.
async fn work(member: &mut Member, seen: &mut BTreeSet<String>) -> CaseResult {
    match member.turn(TURN / 4).await? {
        Event::Messages(messages) => {
            let ours: Vec<Delivery> =
                messages.into_iter().filter(|each| member.assigned.contains_key(&each.from)).collect();
            member.settle(&ours).await?;
            seen.extend(ours.iter().map(text));
            Ok(())
        }
        Event::Revoking(partitions) => member.release(&partitions).await,
        _ => Ok(()),
    }
}

async fn members_share_partitions_and_hand_over_without_loss(bench: &Bench<'_>) -> CaseResult {
    const PARTITIONS: u32 = 4;
    let topic = bench.topic(PARTITIONS, &["group"]).await?;
    let mut seen = BTreeSet::new();
    let mut sent = 0;
    let mut first = bench.consumer("group", &topic).await?;
    let round = async |from: u32| -> CaseResult {
        for partition in 0..PARTITIONS {
            bench.send_all(numbered(&topic, partition, from + partition * 50..from + partition * 50 + 50)).await?;
        }
        Ok(())
    };
    round(sent).await?;
    sent += PARTITIONS * 50;
    until(&mut [&mut first], &mut seen, sent, "one member").await?;
    let mut second = bench.consumer("group", &topic).await?;
    let deadline = Instant::now() + WAIT;
    while first.assigned.len() != 2 || second.assigned.len() != 2 {
        round(sent).await?;
        sent += PARTITIONS * 50;
        work(&mut first, &mut seen).await?;
        work(&mut second, &mut seen).await?;
        let (one, two) = (first.assigned.len(), second.assigned.len());
        ensure(Instant::now() < deadline, format_args!("{one} and {two} partitions instead of 2 and 2"))?;
    }
    until(&mut [&mut first, &mut second], &mut seen, sent, "two members").await?;
    first.close().await?;
    round(sent).await?;
    sent += PARTITIONS * 50;
    until(&mut [&mut second], &mut seen, sent, "the member that is left").await?;
    second.close().await
}

async fn until(members: &mut [&mut Member], seen: &mut BTreeSet<String>, count: u32, who: &str) -> CaseResult {
    let deadline = Instant::now() + WAIT;
    while seen.len() < count as usize {
        for member in members.iter_mut() {
            work(member, seen).await?;
        }
        ensure(Instant::now() < deadline, format_args!("{who}: {} of {count} messages came", seen.len()))?;
    }
    Ok(())
}

async fn close_hands_partitions_over_at_once(bench: &Bench<'_>) -> CaseResult {
    /// Less than a session lasts.
    const AT_ONCE: Duration = Duration::from_secs(20);
    let topic = bench.topic(2, &["group"]).await?;
    bench.send_all(numbered(&topic, 0, 0..10)).await?;
    bench.send_all(numbered(&topic, 1, 10..20)).await?;
    let mut first = bench.consumer("group", &topic).await?;
    let came = first.take(20).await?;
    ensure_same(&came.len(), &20, "what came")?;
    first.close().await?;
    let began = Instant::now();
    let mut second = bench.consumer("group", &topic).await?;
    let came = second.take(20).await?;
    ensure(began.elapsed() < AT_ONCE, format_args!("it took {:?}", began.elapsed()))?;
    second.settle(&came).await?;
    second.close().await
}

async fn what_was_settled_before_release_is_seen_by_the_next_owner(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(2, &["group"]).await?;
    bench.send_all(numbered(&topic, 0, 0..10)).await?;
    bench.send_all(numbered(&topic, 1, 0..10)).await?;
    let mut first = bench.consumer("group", &topic).await?;
    let came = first.take(20).await?;
    let mut second = bench.consumer("group", &topic).await?;
    let deadline = Instant::now() + WAIT;
    while second.assigned.is_empty() {
        if let Event::Revoking(partitions) = first.turn(TURN).await? {
            // Settled at the last moment, with what is done beyond.
            let theirs: Vec<Delivery> =
                came.iter().filter(|each| partitions.contains(&each.from) && each.offset < 6).cloned().collect();
            let settlements = first.done(&theirs, "handed over");
            first.consumer.settle(&settlements).await?;
            first.release(&partitions).await?;
        }
        let event = second.turn(TURN).await?;
        ensure(!matches!(event, Event::Messages(_)), "messages before the assignment")?;
        ensure(Instant::now() < deadline, "the second member gets nothing")?;
    }
    let Some(assignment) = second.assigned.values().next() else { return Err(Failure("no assignment".to_owned())) };
    ensure_same(&assignment.frontier, &Some(6), "the frontier")?;
    ensure_same(&assignment.metadata.as_str(), &"handed over", "the metadata")?;
    first.close().await?;
    second.close().await
}

async fn who_does_not_release_loses_the_partition_and_cannot_settle_it(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(2, &["group"]).await?;
    bench.send_all(numbered(&topic, 0, 0..10)).await?;
    bench.send_all(numbered(&topic, 1, 0..10)).await?;
    let mut options = bench.member("group", &topic);
    options.release_wait = Duration::from_secs(1);
    let mut first = bench.consumer_with(options).await?;
    let came = first.take(20).await?;
    let mut second = bench.consumer("group", &topic).await?;
    let (mut redelivered, deadline) = (Vec::new(), Instant::now() + WAIT);
    while first.lost.is_empty() || redelivered.len() < 10 {
        // The first one hears that it shall release, and does not.
        let _ = first.turn(TURN / 4).await?;
        redelivered.extend(second.messages().await?);
        let (lost, count) = (&first.lost, redelivered.len());
        ensure(Instant::now() < deadline, format_args!("lost {lost:?}, {count} of 10 came again"))?;
    }
    ensure(redelivered.iter().all(|each| first.lost.contains(&each.from)), "something came twice that was not lost")?;
    let late: Vec<Delivery> = came.iter().filter(|each| first.lost.contains(&each.from)).cloned().collect();
    let settlements = first.done(&late, "zombie");
    let result = first.consumer.settle(&settlements).await;
    ensure(is_refused(&result), format_args!("settling what was lost: {result:?}"))?;
    second.close().await?;
    first.close().await?;
    // Nothing of the lost partition was settled by anybody.
    let mut third = bench.consumer("group", &topic).await?;
    let again = third.take(20).await?;
    ensure_same(&again.len(), &20, "what is unsettled")?;
    third.close().await
}

async fn a_silent_member_is_put_out_and_fenced(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &["group"]).await?;
    bench.send_all(numbered(&topic, 0, 0..10)).await?;
    let mut options = bench.member("group", &topic);
    options.settings = bench.subject.short_patience().unwrap_or_default();
    let mut silent = bench.consumer_with(options.clone()).await?;
    let came = silent.take(10).await?;
    // From here on it says nothing, as a process that hangs.
    let mut other = bench.consumer_with(options).await?;
    let taken = other.take(10).await?;
    ensure_same(&taken.len(), &10, "what came again")?;
    // It wakes up and goes on where it stopped.
    let settlements = silent.done(&came, "zombie");
    let result = silent.consumer.settle(&settlements).await;
    ensure(is_refused(&result), format_args!("settling what somebody else has by now: {result:?}"))?;
    let deadline = Instant::now() + WAIT;
    while silent.lost.is_empty() {
        let event = silent.turn(TURN).await?;
        ensure(Instant::now() < deadline, format_args!("it never hears that it was put out, last {event:?}"))?;
        // The other one shows that it lives.
        if let Event::Revoking(partitions) = other.turn(TURN / 4).await? {
            other.release(&partitions).await?;
        }
    }
    silent.close().await?;
    other.close().await
}
