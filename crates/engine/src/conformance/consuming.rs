//! What one member sees: cancellation, settling, giving back, pausing, seeking, where a group starts.

use std::sync::Arc;
use std::time::Instant;

use baton_core::TopicPartition;

use super::bench::{Bench, CaseResult, Member, TURN, WAIT, ensure, ensure_same, is_refused, numbered, numbers, text};
use super::{Case, case};
use crate::{Backlog, ConsumerOptions, Event, Question, Settlement, Start, Waiting};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(dropping_next_loses_nothing, []),
        case!(next_is_idle_after_its_wait, []),
        case!(what_is_settled_does_not_come_again, []),
        case!(what_is_not_settled_comes_again, []),
        case!(frontier_and_metadata_come_back_at_the_next_assignment, [Frontier]),
        case!(what_is_given_back_is_delivered_again, [Each]),
        case!(settling_the_wrong_way_is_refused, []),
        case!(settling_what_is_not_ours_is_refused, []),
        case!(a_paused_partition_is_silent_and_goes_on_where_it_stopped, []),
        case!(no_more_than_the_prefetch_is_delivered_unsettled, [Each]),
        case!(a_backlog_says_what_is_still_to_come, []),
        case!(nothing_is_said_of_a_backlog_that_is_not_ours, []),
        case!(seek_delivers_from_there, [Frontier]),
        case!(a_new_group_starts_at_the_earliest_if_told_so, [History]),
        case!(a_new_group_starts_at_the_latest_for_good, [History]),
        case!(removed_messages_are_reported_and_not_skipped_in_silence, [Frontier, Removal]),
    ]
}

async fn dropping_next_loses_nothing(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &["group"]).await?;
    bench.send_all(numbered(&topic, 0, 0..300)).await?;
    let mut member = bench.consumer("group", &topic).await?;
    let (mut came, deadline) = (Vec::new(), Instant::now() + WAIT);
    while came.len() < 300 {
        // Polled at most once, or for a moment: dropped in every state that it has.
        let quick = tokio::time::timeout(std::time::Duration::from_millis(1), member.turn(TURN)).await;
        if let Ok(event) = quick
            && let Event::Messages(messages) = event?
        {
            came.extend(messages);
        }
        ensure(Instant::now() < deadline, format_args!("{} of 300 came", came.len()))?;
    }
    ensure_same(&came.iter().map(text).collect::<Vec<_>>(), &numbers(0..300), "what came")?;
    member.close().await
}

async fn next_is_idle_after_its_wait(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &["group"]).await?;
    let mut member = bench.consumer("group", &topic).await?;
    // Assignments come first; then there is nothing.
    let deadline = Instant::now() + WAIT;
    while !matches!(member.turn(TURN).await?, Event::Idle) {
        ensure(Instant::now() < deadline, "events without end from an empty topic")?;
    }
    let began = Instant::now();
    let _ = member.turn(TURN).await?;
    ensure(began.elapsed() < WAIT / 2, "next does not keep to its wait")?;
    member.close().await
}

async fn what_is_settled_does_not_come_again(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &["group"]).await?;
    bench.send_all(numbered(&topic, 0, 0..10)).await?;
    let mut member = bench.consumer("group", &topic).await?;
    let came = member.take(10).await?;
    member.settle(came.get(..6).unwrap_or_default()).await?;
    member.close().await?;
    let mut next = bench.consumer("group", &topic).await?;
    let mut again: Vec<String> = next.take(4).await?.iter().map(text).collect();
    again.sort();
    ensure_same(&again, &numbers(6..10), "what came again")?;
    ensure(next.silence().await?.is_empty(), "something settled came again")?;
    next.close().await
}

async fn what_is_not_settled_comes_again(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(2, &["group"]).await?;
    bench.send_all(numbered(&topic, 0, 0..20)).await?;
    bench.send_all(numbered(&topic, 1, 20..40)).await?;
    for _ in 0..2 {
        let mut member = bench.consumer("group", &topic).await?;
        let mut came: Vec<u32> = member.take(40).await?.iter().filter_map(|each| text(each).parse().ok()).collect();
        came.sort_unstable();
        ensure_same(&came, &(0..40).collect(), "what came")?;
        // Dropped without a word, as in a panic.
        drop(member);
    }
    Ok(())
}

async fn frontier_and_metadata_come_back_at_the_next_assignment(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(2, &["group"]).await?;
    bench.send_all(numbered(&topic, 0, 0..10)).await?;
    let (first, second) = (TopicPartition::new(topic.clone(), 0), TopicPartition::new(topic.clone(), 1));
    let longest = "m".repeat(bench.engine.capabilities().metadata_bytes_max);
    let mut epoch = 0;
    for metadata in ["1;5-7,9", "", longest.as_str()] {
        let mut member = bench.consumer("group", &topic).await?;
        member.until_assigned(2).await?;
        let settlement = Settlement::Frontier { partition: first.clone(), next: 4, metadata: metadata.to_owned() };
        member.consumer.settle(&[settlement]).await?;
        member.close().await?;
        let mut next = bench.consumer("group", &topic).await?;
        next.until_assigned(2).await?;
        let (first, second) = (next.assigned.get(&first), next.assigned.get(&second));
        ensure_same(&first.and_then(|each| each.frontier), &Some(4), "the frontier")?;
        ensure_same(&first.map(|each| each.metadata.as_str()), &Some(metadata), "the metadata")?;
        ensure_same(
            &second.and_then(|each| each.frontier),
            &None,
            "the frontier of a partition where none was settled",
        )?;
        epoch = epoch.max(first.map_or(0, |each| each.epoch));
        let came: Vec<String> = next.take(6).await?.iter().map(text).collect();
        ensure_same(&came, &numbers(4..10), "what comes from the frontier on")?;
        next.close().await?;
    }
    ensure(epoch > 0, "epochs start at 1")
}

async fn what_is_given_back_is_delivered_again(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &["group"]).await?;
    bench.send_all(numbered(&topic, 0, 0..3)).await?;
    let mut member = bench.consumer("group", &topic).await?;
    let came = member.take(3).await?;
    let settlements: Vec<Settlement> = came
        .iter()
        .map(|each| match text(each).as_str() {
            "1" => Settlement::GiveBack { partition: each.from.clone(), offset: each.offset },
            _ => Settlement::Done { partition: each.from.clone(), offset: each.offset },
        })
        .collect();
    member.consumer.settle(&settlements).await?;
    let again = member.take(1).await?;
    ensure_same(&again.iter().map(text).collect::<Vec<_>>(), &numbers(1..2), "what came again")?;
    ensure(again.iter().all(|each| each.delivered_before != Some(0)), "it was delivered before")?;
    member.settle(&again).await?;
    ensure(member.silence().await?.is_empty(), "something done came again")?;
    member.close().await
}

async fn settling_the_wrong_way_is_refused(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &["group"]).await?;
    bench.send_all(numbered(&topic, 0, 0..1)).await?;
    let mut member = bench.consumer("group", &topic).await?;
    let came = member.take(1).await?;
    let Some((partition, offset)) = came.first().map(|each| (each.from.clone(), each.offset)) else {
        return ensure(false, "nothing came");
    };
    let wrong = match bench.engine.capabilities().settling {
        crate::Settling::Frontier => Settlement::Done { partition, offset },
        crate::Settling::Each => Settlement::Frontier { partition, next: offset + 1, metadata: String::new() },
    };
    let result = member.consumer.settle(&[wrong]).await;
    ensure(result.is_err(), "it was accepted")?;
    member.close().await
}

async fn settling_what_is_not_ours_is_refused(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &["group"]).await?;
    bench.send_all(numbered(&topic, 0, 0..2)).await?;
    let mut member = bench.consumer("group", &topic).await?;
    let came = member.take(2).await?;
    let mut settlements = member.done(&came, "");
    for settlement in member.done(&came, "") {
        let elsewhere = TopicPartition::new(topic.clone(), 7);
        settlements.push(match settlement {
            Settlement::Frontier { next, metadata, .. } => {
                Settlement::Frontier { partition: elsewhere, next, metadata }
            }
            Settlement::Done { offset, .. } => Settlement::Done { partition: elsewhere, offset },
            other => other,
        });
    }
    let result = member.consumer.settle(&settlements).await;
    ensure(is_refused(&result), format_args!("partition 7: {result:?}"))?;
    // Who was refused settles once more, and must not be refused for ever for what went through.
    member.consumer.settle(&member.done(&came, "")).await?;
    member.close().await?;
    // What was ours of the same call is settled.
    let mut next = bench.consumer("group", &topic).await?;
    ensure(next.silence().await?.is_empty(), "what was ours was not settled")?;
    next.close().await
}

async fn a_paused_partition_is_silent_and_goes_on_where_it_stopped(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(2, &["group"]).await?;
    bench.send_all(numbered(&topic, 0, 0..5)).await?;
    bench.send_all(numbered(&topic, 1, 0..5)).await?;
    let mut member = bench.consumer("group", &topic).await?;
    let came = member.take(10).await?;
    member.settle(&came).await?;
    let paused = [TopicPartition::new(topic.clone(), 0)];
    member.consumer.pause(&paused)?;
    // What was on its way when it was paused would come within this.
    ensure(member.silence().await?.is_empty(), "nothing was sent, and something came")?;
    bench.send_all(numbered(&topic, 0, 5..10)).await?;
    bench.send_all(numbered(&topic, 1, 5..10)).await?;
    let came = member.take(5).await?;
    ensure(came.iter().all(|each| each.from.partition == 1), "a paused partition delivers")?;
    member.settle(&came).await?;
    ensure(member.silence().await?.is_empty(), "a paused partition delivers")?;
    member.consumer.resume(&paused)?;
    let came = member.take(5).await?;
    ensure_same(&came.iter().map(text).collect::<Vec<_>>(), &numbers(5..10), "where it goes on")?;
    member.settle(&came).await?;
    member.close().await
}

async fn no_more_than_the_prefetch_is_delivered_unsettled(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &["group"]).await?;
    bench.send_all(numbered(&topic, 0, 0..30)).await?;
    let options = ConsumerOptions { prefetch: Some(10), ..bench.member("group", &topic) };
    let mut member = bench.consumer_with(options).await?;
    let came = member.take(10).await?;
    ensure(member.silence().await?.is_empty(), "more came than may wait unsettled")?;
    member.settle(came.get(..4).unwrap_or_default()).await?;
    let _ = member.take(4).await?;
    ensure(member.silence().await?.is_empty(), "more came than was settled")?;
    member.close().await
}

/// What is said to be still to come of partition 0, once it is what it should be.
async fn until_backlog(member: &mut Member, topic: &Arc<str>, next: i64, expected: u64) -> CaseResult {
    let partition = TopicPartition::new(topic.clone(), 0);
    let (mut last, deadline) = (None, Instant::now() + WAIT);
    while last != Some(expected) {
        let question = Question { partition: partition.clone(), next: Some(next), exact: true };
        let asking = member.consumer.backlog(vec![question]);
        // Whoever asks goes on meanwhile.
        let unexpected = member.messages().await?;
        ensure(unexpected.is_empty(), format_args!("{} messages came", unexpected.len()))?;
        if let Ok(answers) = asking.await {
            for Backlog { partition: of, waiting, exact } in answers {
                ensure_same(&of, &partition, "the partition")?;
                last = exact.then(|| match waiting {
                    Waiting::Offsets { end, .. } => u64::try_from(end - next).unwrap_or(u64::MAX),
                    Waiting::Undelivered(messages) => messages,
                });
            }
        }
        ensure(Instant::now() < deadline, format_args!("{last:?} messages are to come, and not {expected}"))?;
    }
    Ok(())
}

async fn a_backlog_says_what_is_still_to_come(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &["group"]).await?;
    let partition = [TopicPartition::new(topic.clone(), 0)];
    // Where the engine counts what waits with us, it gives no more than this.
    let options = ConsumerOptions { prefetch: Some(10), ..bench.member("group", &topic) };
    bench.send_all(numbered(&topic, 0, 0..10)).await?;
    let mut member = bench.consumer_with(options).await?;
    let came = member.take(10).await?;
    until_backlog(&mut member, &topic, 10, 0).await?;
    member.consumer.pause(&partition)?;
    bench.send_all(numbered(&topic, 0, 10..15)).await?;
    until_backlog(&mut member, &topic, 10, 5).await?;
    member.consumer.resume(&partition)?;
    member.settle(&came).await?;
    let came = member.take(5).await?;
    until_backlog(&mut member, &topic, 15, 0).await?;
    member.settle(&came).await?;
    member.close().await
}

async fn nothing_is_said_of_a_backlog_that_is_not_ours(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &["group"]).await?;
    let other = bench.topic(1, &["group"]).await?;
    bench.send_all(numbered(&topic, 0, 0..1)).await?;
    let mut member = bench.consumer("group", &topic).await?;
    let _ = member.take(1).await?;
    let question = |topic: &Arc<str>| {
        let partition = TopicPartition::new(topic.clone(), 0);
        Question { partition, next: None, exact: false }
    };
    let deadline = Instant::now() + WAIT;
    loop {
        let answers = member.consumer.backlog(vec![question(&other), question(&topic)]).await;
        if let Ok(answers) = &answers {
            let of: Vec<_> = answers.iter().map(|each| each.partition.topic.clone()).collect();
            ensure(!of.contains(&other), "something is said of a partition that is not ours")?;
            if of.contains(&topic) {
                return member.close().await;
            }
        }
        ensure(Instant::now() < deadline, format_args!("nothing is said of what is ours: {answers:?}"))?;
    }
}

async fn seek_delivers_from_there(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(2, &["group"]).await?;
    // So many that a client holds some when it is told to go elsewhere.
    bench.send_all(numbered(&topic, 0, 0..20_000)).await?;
    let partition = TopicPartition::new(topic.clone(), 0);
    let mut member = bench.consumer("group", &topic).await?;
    member.until_assigned(2).await?;
    // Right after the assignment, in the middle of deliveries, and after the end.
    for (offset, taken) in [(19_950, 50), (100, 17), (5_000, 2_000), (0, 3_000), (19_000, 500), (19_999, 1)] {
        member.consumer.seek(&partition, offset)?;
        let (mut came, deadline) = (Vec::new(), Instant::now() + WAIT);
        while came.len() < taken {
            came.extend(member.messages().await?);
            ensure(Instant::now() < deadline, format_args!("{} of {taken} came after a seek", came.len()))?;
        }
        let offsets: Vec<i64> = came.iter().map(|each| each.offset).collect();
        let count = i64::try_from(came.len()).unwrap_or(i64::MAX);
        ensure_same(&offsets, &(offset..offset + count).collect(), "what came after a seek")?;
    }
    let elsewhere = member.consumer.seek(&TopicPartition::new(topic, 9), 0);
    ensure(is_refused(&elsewhere), format_args!("a seek of what is not ours: {elsewhere:?}"))?;
    member.close().await
}

async fn a_new_group_starts_at_the_earliest_if_told_so(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &[]).await?;
    bench.send_all(numbered(&topic, 0, 0..10)).await?;
    let mut member = bench.consumer("new", &topic).await?;
    let came: Vec<String> = member.take(10).await?.iter().map(text).collect();
    ensure_same(&came, &numbers(0..10), "what came")?;
    member.close().await
}

async fn a_new_group_starts_at_the_latest_for_good(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(1, &[]).await?;
    bench.send_all(numbered(&topic, 0, 0..10)).await?;
    let mut options = bench.member("new", &topic);
    options.start = Start::Latest;
    let mut member = bench.consumer_with(options.clone()).await?;
    member.until_assigned(1).await?;
    // It ends before it settles anything. What is sent then is sent to a group that exists.
    member.close().await?;
    bench.send_all(numbered(&topic, 0, 10..15)).await?;
    let mut next = bench.consumer_with(options).await?;
    let came: Vec<String> = next.take(5).await?.iter().map(text).collect();
    ensure_same(&came, &numbers(10..15), "what came")?;
    next.close().await
}

async fn removed_messages_are_reported_and_not_skipped_in_silence(bench: &Bench<'_>) -> CaseResult {
    let topic = bench.topic(2, &["group"]).await?;
    bench.send_all(numbered(&topic, 0, 0..100)).await?;
    let partition = TopicPartition::new(topic.clone(), 0);
    let mut member = bench.consumer("group", &topic).await?;
    let came = member.take(100).await?;
    member.settle(came.get(..10).unwrap_or_default()).await?;
    member.close().await?;
    if let Some(removing) = bench.subject.remove(&partition, 40) {
        removing.await?;
    }
    let mut next = bench.consumer("group", &topic).await?;
    let (mut gap, mut came, deadline) = (None, Vec::new(), Instant::now() + WAIT);
    while came.len() < 60 {
        match next.turn(TURN).await? {
            Event::Messages(messages) => {
                ensure(gap.is_some(), "messages were skipped without a word")?;
                came.extend(messages);
            }
            Event::Gap { partition, expected, next } => gap = Some((partition, expected, next)),
            _ => {}
        }
        ensure(Instant::now() < deadline, format_args!("{} of 60 came, gap {gap:?}", came.len()))?;
    }
    ensure_same(&gap, &Some((partition, 10, 40)), "the gap")?;
    ensure_same(&came.iter().map(text).collect::<Vec<_>>(), &numbers(40..100), "what came")?;
    next.close().await
}
