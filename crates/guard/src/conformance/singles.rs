//! One message.

use std::time::Duration;

use baton_core::MESSAGE_ID_BYTES_MAX;

use super::{Bench, Finding, NOT_ATOMIC, REMEMBERS_NOTHING, Subject, SubjectError, Verdict, admission, ensure, pause};
use crate::{Admission, ApplyError, Group, Guard, Identity, Open, Outcome, Strength};

pub(super) async fn the_first_is_fresh_and_the_second_done<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    let message = bench.message();
    let first = bench.settle(bench.subject.guard(), &message).await?;
    ensure(first == Outcome::Applied, || format!("the first is {first:?}"))?;
    bench.expect_count(&message, 1, "after the first").await?;
    if bench.subject.guard().strength() == Strength::Conditional {
        return Ok(Finding::Skipped(REMEMBERS_NOTHING));
    }
    for _ in 0..3 {
        let again = bench.settle(bench.subject.guard(), &message).await?;
        ensure(again == Outcome::AlreadyDone, || format!("once more it is {again:?}"))?;
    }
    bench.expect_count(&message, 1, "after more").await?;
    Ok(Finding::Passed)
}

pub(super) async fn two_at_once_are_applied_once<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    if bench.subject.guard().strength() == Strength::Conditional {
        return Ok(Finding::Skipped(REMEMBERS_NOTHING));
    }
    let message = bench.message();
    let open = bench.begin(&message).await?;
    let first = async {
        bench.write(open.effect(), &message).await.map_err(|error| error.to_string())?;
        pause(Duration::from_millis(100)).await;
        open.commit().await.map_err(|error| error.to_string())
    };
    let (first, second) = tokio::join!(first, bench.settle(bench.subject.guard(), &message));
    let outcomes = (first.is_ok(), second?);
    let once = matches!(outcomes, (true, Outcome::AlreadyDone) | (false, Outcome::Applied));
    ensure(once, || format!("{outcomes:?}, the first said {first:?}"))?;
    bench.expect_count(&message, 1, "in the end").await?;
    Ok(Finding::Passed)
}

pub(super) async fn a_crowd_is_applied_once<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    if bench.subject.guard().strength() == Strength::Conditional {
        return Ok(Finding::Skipped(REMEMBERS_NOTHING));
    }
    let message = bench.message();
    let guard = bench.subject.guard();
    let one = || bench.settle(guard, &message);
    let all = tokio::join!(one(), one(), one(), one(), one(), one());
    let all = [all.0?, all.1?, all.2?, all.3?, all.4?, all.5?];
    let applied = all.iter().filter(|outcome| **outcome == Outcome::Applied).count();
    ensure(applied == 1, || format!("applied {applied} times: {all:?}"))?;
    bench.expect_count(&message, 1, "in the end").await?;
    Ok(Finding::Passed)
}

pub(super) async fn aborted_is_fresh_again<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    let message = bench.message();
    let atomic = bench.subject.guard().strength() != Strength::Leased;
    let open = bench.begin(&message).await?;
    if atomic {
        bench.write(open.effect(), &message).await.map_err(|error| error.to_string())?;
    }
    open.abort().await;
    bench.expect_count(&message, 0, "after the abort").await?;
    // At once: what was given back waits for nobody.
    match bench.subject.guard().begin(&message).await {
        Ok(Admission::Fresh(open)) => open.abort().await,
        Ok(other) => return Err(format!("after the abort it is {}", admission(&other))),
        Err(error) => return Err(error.to_string()),
    }
    let outcome = bench.settle(bench.subject.guard(), &message).await?;
    ensure(outcome == Outcome::Applied, || format!("then it is {outcome:?}"))?;
    bench.expect_count(&message, 1, "in the end").await?;
    Ok(Finding::Passed)
}

pub(super) async fn dropped_is_fresh_again<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    let message = bench.message();
    let open = bench.begin(&message).await?;
    if bench.subject.guard().strength() != Strength::Leased {
        bench.write(open.effect(), &message).await.map_err(|error| error.to_string())?;
    }
    drop(open);
    let outcome = bench.settle(bench.subject.guard(), &message).await?;
    ensure(outcome == Outcome::Applied, || format!("then it is {outcome:?}"))?;
    bench.expect_count(&message, 1, "in the end").await?;
    Ok(Finding::Passed)
}

pub(super) async fn a_failed_handler_leaves_nothing<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    if bench.subject.guard().strength() == Strength::Leased {
        return Ok(Finding::Skipped(NOT_ATOMIC));
    }
    let message = bench.message();
    let failed = crate::apply(bench.subject.guard(), &message, |effect| async {
        bench.write(effect, &message).await?;
        Err(SubjectError("on purpose".to_owned()))
    });
    let failed = failed.await;
    ensure(matches!(failed, Err(ApplyError::Handler(_))), || format!("{failed:?}"))?;
    bench.expect_count(&message, 0, "after the failure").await?;
    let outcome = bench.settle(bench.subject.guard(), &message).await?;
    ensure(outcome == Outcome::Applied, || format!("then it is {outcome:?}"))?;
    Ok(Finding::Passed)
}

/// Postgres fails the whole transaction for one bad statement, MariaDB ends it for a deadlock: what is committed then must not be
/// a mark without its effect, nor an effect without its mark.
pub(super) async fn an_error_that_the_handler_passes_over_is_no_half_effect<S: Subject>(
    bench: Bench<'_, S>,
) -> Verdict {
    if bench.subject.guard().strength() != Strength::Atomic {
        return Ok(Finding::Skipped(NOT_ATOMIC));
    }
    let message = bench.message();
    let outcome = crate::apply(bench.subject.guard(), &message, |effect| async {
        bench.write(effect.clone(), &message).await?;
        let refused = bench.subject.blunder(effect).await;
        if refused.is_ok() { Err(SubjectError("the bad statement was not refused".to_owned())) } else { Ok(()) }
    });
    match outcome.await {
        Ok(Outcome::Applied) => bench.expect_count(&message, 1, "applied").await?,
        Err(ApplyError::Commit(_)) => {
            bench.expect_count(&message, 0, "not committed").await?;
            let outcome = bench.settle(bench.subject.guard(), &message).await?;
            ensure(outcome == Outcome::Applied, || format!("then it is {outcome:?}"))?;
            bench.expect_count(&message, 1, "in the end").await?;
        }
        other => return Err(format!("{other:?}")),
    }
    Ok(Finding::Passed)
}

pub(super) async fn handles_are_dead_after_the_end<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    if bench.subject.guard().strength() == Strength::Leased {
        return Ok(Finding::Skipped(NOT_ATOMIC));
    }
    let (committed, aborted) = (bench.message(), bench.message());
    let open = bench.begin(&committed).await?;
    let kept = open.effect();
    open.commit().await.map_err(|error| error.to_string())?;
    ensure(bench.write(kept, &committed).await.is_err(), || "a handle lived on after the commit".to_owned())?;
    let open = bench.begin(&aborted).await?;
    let kept = open.effect();
    open.abort().await;
    // The next transaction may run on the same connection, and must not be written to through the old handle.
    let open = bench.begin(&aborted).await?;
    ensure(bench.write(kept, &aborted).await.is_err(), || "a handle lived on after the abort".to_owned())?;
    open.commit().await.map_err(|error| error.to_string())?;
    bench.expect_count(&committed, 0, "after the commit").await?;
    bench.expect_count(&aborted, 0, "after the abort").await?;
    Ok(Finding::Passed)
}

pub(super) async fn the_same_id_in_two_groups_is_two_messages<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    let here = bench.message();
    let there = Identity { group: bench.named_group("another group"), ..here.clone() };
    for message in [&here, &there] {
        let outcome = bench.settle(bench.subject.guard(), message).await?;
        ensure(outcome == Outcome::Applied, || format!("for {} it is {outcome:?}", message.group))?;
    }
    bench.expect_count(&here, 2, "once for each group").await?;
    Ok(Finding::Passed)
}

/// A store that folds case, cuts what is long, or does not see a last character, takes two messages for one, and loses one.
pub(super) async fn ids_are_as_long_and_as_exact_as_they_may_be<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    let longest = "x".repeat(MESSAGE_ID_BYTES_MAX - 1);
    let group = Group::new("g".repeat(crate::GROUP_BYTES_MAX)).map_err(|error| error.to_string())?;
    let near = Group::new(format!("{}h", "g".repeat(crate::GROUP_BYTES_MAX - 1))).map_err(|error| error.to_string())?;
    let ids = [format!("{longest}a"), format!("{longest}b"), format!("{longest}A"), longest, "x".to_owned()];
    for (at, id) in ids.iter().enumerate() {
        for group in [&group, &near] {
            let mut message = bench.numbered(at as u64 + 1);
            message.group = group.clone();
            message.id = id.as_str().try_into().map_err(|_| format!("{id} is no id"))?;
            let outcome = bench.settle(bench.subject.guard(), &message).await?;
            ensure(outcome == Outcome::Applied, || format!("the new id {id} is {outcome:?}"))?;
        }
    }
    Ok(Finding::Passed)
}
