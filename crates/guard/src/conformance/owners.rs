//! Owners, sequences, pruning, settings.

use std::time::Duration;

use super::{Bench, Finding, REMEMBERS_NOTHING, Subject, Verdict, admission, ensure, pause};
use crate::{
    Admission, CommitError, Fence, Group, Guard, GuardError, Identity, Open, Outcome, PRUNE_MARGIN, Redelivery,
    Strength,
};

const DAY: Duration = Duration::from_secs(86_400);

/// Asks until the owner before has let go.
async fn take_over<S: Subject>(bench: &Bench<'_, S>, group: &Group) -> Result<Fence, String> {
    for _ in 0..100 {
        match bench.subject.guard().take_over(group, &bench.partition()).await {
            Ok(fence) => return Ok(fence),
            Err(error) if error.is_transient() => pause(Duration::from_millis(50)).await,
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("the owner before does not let go".to_owned())
}

pub(super) async fn zombies_are_fenced<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    let guard = bench.subject.guard();
    let old = take_over(&bench, &bench.group()).await?;
    let message = bench.message().fenced(old.clone());
    ensure(bench.settle(guard, &message).await? == Outcome::Applied, || "the owner was refused".to_owned())?;
    let new = take_over(&bench, &bench.group()).await?;
    ensure(new.epoch > old.epoch, || format!("epoch {} came after {}", new.epoch, old.epoch))?;
    let (late, next) = (bench.message().fenced(old.clone()), bench.message().fenced(old.clone()));
    for zombie in [&late, &next] {
        let outcome = bench.settle(guard, zombie).await?;
        ensure(outcome == Outcome::Fenced, || format!("the zombie is {outcome:?}"))?;
        bench.expect_count(zombie, 0, "after the zombie").await?;
    }
    let asked = guard.begin_batch(&[late.clone(), next]).await.map_err(|error| error.to_string())?;
    ensure(asked.open.is_none(), || format!("the zombie's batch is {:?}", asked.states))?;
    let outcome = bench.settle(guard, &late.fenced(new)).await?;
    ensure(outcome == Outcome::Applied, || format!("the new owner is {outcome:?}"))?;
    // Of another group the partition has had no owner: nobody's fence is good there.
    let mut stranger = bench.message().fenced(old);
    stranger.group = bench.named_group("group without an owner");
    let outcome = bench.settle(guard, &stranger).await?;
    ensure(outcome == Outcome::Fenced, || format!("a fence of another group is {outcome:?}"))?;
    Ok(Finding::Passed)
}

pub(super) async fn an_open_effect_of_the_owner_before_is_over_after_a_take_over<S: Subject>(
    bench: Bench<'_, S>,
) -> Verdict {
    let old = take_over(&bench, &bench.group()).await?;
    let message = bench.message().fenced(old.clone());
    let open = bench.begin(&message).await?;
    if bench.subject.guard().strength() == Strength::Leased {
        let new = take_over(&bench, &bench.group()).await?;
        bench.write(open.effect(), &message).await.map_err(|error| error.to_string())?;
        let committed = open.commit().await;
        ensure(matches!(committed, Err(CommitError::Fenced)), || format!("the zombie's commit: {committed:?}"))?;
        // Its effect is there and cannot be undone, so it is not repeated.
        let outcome = bench.settle(bench.subject.guard(), &message.clone().fenced(new)).await?;
        ensure(outcome == Outcome::AlreadyDone, || format!("the new owner is {outcome:?}"))?;
        bench.expect_count(&message, 1, "in the end").await?;
        return Ok(Finding::Passed);
    }
    bench.write(open.effect(), &message).await.map_err(|error| error.to_string())?;
    let taken = async {
        let new = take_over(&bench, &bench.group()).await?;
        // What the new owner sees now is all that the old one will ever have done.
        Ok::<_, String>((new, bench.subject.count(message.id.as_str()).await))
    };
    let ended = async {
        pause(Duration::from_millis(150)).await;
        open.commit().await
    };
    let (taken, committed) = tokio::join!(taken, ended);
    let (new, seen) = taken?;
    ensure((seen == 1) == committed.is_ok(), || format!("{seen} effects seen, the zombie's commit: {committed:?}"))?;
    bench.expect_count(&message, seen, "after the take-over").await?;
    let expected = if committed.is_ok() { Outcome::AlreadyDone } else { Outcome::Applied };
    let outcome = bench.settle(bench.subject.guard(), &message.fenced(new)).await?;
    let conditional = bench.subject.guard().strength() == Strength::Conditional;
    ensure(conditional || outcome == expected, || format!("the new owner is {outcome:?} instead of {expected:?}"))?;
    Ok(Finding::Passed)
}

pub(super) async fn any_order_side_by_side_is_applied_once<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    if bench.subject.guard().strength() == Strength::Conditional {
        return Ok(Finding::Skipped(REMEMBERS_NOTHING));
    }
    const MESSAGES: u64 = 48;
    let guard = bench.subject.guard();
    // Four workers; each goes through all messages in an order of its own, all of them coprime to the number of messages.
    let worker = |step: u64| {
        let bench = &bench;
        async move {
            let mut applied = 0;
            for at in 0..MESSAGES {
                let message = bench.numbered((at * step + step) % MESSAGES + 1);
                applied += u64::from(bench.settle(guard, &message).await? == Outcome::Applied);
            }
            Ok::<_, String>(applied)
        }
    };
    let (one, two, three, four) = tokio::join!(worker(1), worker(5), worker(7), worker(11));
    let applied = one? + two? + three? + four?;
    ensure(applied == MESSAGES, || format!("{MESSAGES} messages were applied {applied} times"))?;
    for sequence in 1..=MESSAGES {
        bench.expect_count(&bench.numbered(sequence), 1, "in the end").await?;
    }
    Ok(Finding::Passed)
}

pub(super) async fn a_new_epoch_begins_anew<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    let guard = bench.subject.guard();
    if !guard.needs_place() {
        return Ok(Finding::Skipped("the guard goes by ids, not by sequences"));
    }
    let of = |epoch: u32, sequence: u64| -> Result<Identity, String> {
        let mut message = bench.numbered(sequence);
        message.id = format!("{epoch}-{sequence}").as_str().try_into().map_err(|_| "an id".to_owned())?;
        message.place = message.place.map(|place| crate::Place { epoch, ..place });
        Ok(message)
    };
    let steps = [
        (1, 1, Outcome::Applied),
        (2, 1, Outcome::Applied),
        (1, 2, Outcome::Applied),
        (1, 1, Outcome::AlreadyDone),
        (2, 1, Outcome::AlreadyDone),
        (2, 3, Outcome::Applied),
        (2, 2, Outcome::Applied),
        (2, 3, Outcome::AlreadyDone),
    ];
    for (epoch, sequence, expected) in steps {
        let outcome = bench.settle(guard, &of(epoch, sequence)?).await?;
        ensure(outcome == expected, || format!("{sequence} of epoch {epoch} is {outcome:?}"))?;
    }
    let unstamped = Identity { place: None, ..bench.message() };
    let refused = guard.begin(&unstamped).await;
    ensure(matches!(refused, Err(GuardError::Unstamped(_))), || "a message without a stamp was let in".to_owned())?;
    Ok(Finding::Passed)
}

pub(super) async fn pruning_keeps_what_can_come_again<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    let (guard, subject) = (bench.subject.guard(), bench.subject);
    if guard.strength() != Strength::Atomic {
        return Ok(Finding::Skipped("there is no table to prune"));
    }
    let prune = |kept, redelivery| {
        let group = bench.group();
        async move { subject.prune(&group, kept, redelivery).await.ok_or("there is nothing to prune") }
    };
    let week = Redelivery::from_topic(7 * DAY);
    let message = bench.message();
    bench.settle(guard, &message).await?;
    let refused = prune(6 * DAY, week).await?;
    ensure(matches!(refused, Err(GuardError::WindowTooShort { .. })), || format!("six days of seven: {refused:?}"))?;
    let refused = prune(7 * DAY, Redelivery::endless()).await?;
    ensure(matches!(refused, Err(GuardError::WindowWithoutEnd)), || format!("for ever: {refused:?}"))?;
    subject.age(&bench.group(), 7 * DAY).await;
    let pruned = prune(7 * DAY, week).await?.map_err(|error| error.to_string())?;
    ensure(pruned.rows == 0, || format!("{pruned:?} within the margin"))?;
    let again = bench.settle(guard, &message).await?;
    ensure(again == Outcome::AlreadyDone, || format!("a message that can come again is {again:?}"))?;
    subject.age(&bench.group(), PRUNE_MARGIN + Duration::from_secs(60)).await;
    let mut other = bench.message();
    other.place = other.place.map(|place| crate::Place { instance: "another".into(), ..place });
    bench.settle(guard, &other).await?;
    let pruned = prune(7 * DAY, week).await?.map_err(|error| error.to_string())?;
    ensure(pruned.rows == 1 && !pruned.more, || format!("{pruned:?}, of one that is old and one that is not"))?;
    let kept = bench.settle(guard, &other).await?;
    ensure(kept == Outcome::AlreadyDone, || format!("the one that is not old is {kept:?}"))?;
    match guard.begin(&message).await {
        Ok(Admission::Fresh(open)) => open.abort().await,
        Ok(other) => return Err(format!("the one that was pruned is {}", admission(&other))),
        Err(error) => return Err(error.to_string()),
    }
    Ok(Finding::Passed)
}

pub(super) async fn the_store_is_set_up_to_keep_what_it_commits<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    let found = bench.subject.guard().weaknesses().await.map_err(|error| error.to_string())?;
    ensure(found.is_empty(), || format!("{found:?}"))?;
    Ok(Finding::Passed)
}
