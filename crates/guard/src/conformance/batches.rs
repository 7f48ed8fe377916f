//! Many messages in one transaction.

use super::{Bench, Finding, REMEMBERS_NOTHING, Subject, SubjectError, Verdict, ensure};
use crate::{Guard, Identity, Open, Outcome, State, Strength};

pub(super) async fn a_batch_is_applied_together<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    if bench.subject.guard().strength() == Strength::Conditional {
        return Ok(Finding::Skipped(REMEMBERS_NOTHING));
    }
    let guard = bench.subject.guard();
    let messages: Vec<Identity> = (0..5).map(|_| bench.message()).collect();
    bench.settle(guard, &messages[1]).await?;
    let [a, done, c, d, e] = &messages[..] else { return Err("five messages".to_owned()) };
    let batch = [e, a, done, c, a, d].map(Clone::clone);
    let asked = guard.begin_batch(&batch).await.map_err(|error| error.to_string())?;
    let expected = [State::Fresh, State::Fresh, State::AlreadyDone, State::Fresh, State::Repeated, State::Fresh];
    ensure(asked.states == expected, || format!("{:?}", asked.states))?;
    let open = asked.open.ok_or("nothing was opened")?;
    for message in [e, a, c, d] {
        bench.write(open.effect(), message).await.map_err(|error| error.to_string())?;
    }
    open.commit().await.map_err(|error| error.to_string())?;
    for message in &messages {
        bench.expect_count(message, 1, "after the batch").await?;
        let again = bench.settle(guard, message).await?;
        ensure(again == Outcome::AlreadyDone, || format!("once more it is {again:?}"))?;
    }
    let again = guard.begin_batch(&batch).await.map_err(|error| error.to_string())?;
    ensure(again.open.is_none(), || format!("something was opened: {:?}", again.states))?;
    Ok(Finding::Passed)
}

pub(super) async fn a_batch_with_a_bad_one_applies_the_others<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    let guard = bench.subject.guard();
    let atomic = guard.strength() != Strength::Leased;
    let messages: Vec<Identity> = (0..7).map(|_| bench.message()).collect();
    let outcomes = crate::apply_batch(guard, &messages, |at, effect| {
        let (bench, message) = (&bench, &messages[at]);
        async move {
            // Without a transaction, what was written before the bad one is there already.
            if at == 3 {
                return Err(SubjectError("on purpose".to_owned()));
            }
            if atomic || at < 3 { bench.write(effect, message).await } else { Ok(()) }
        }
    });
    let outcomes = outcomes.await;
    for (at, outcome) in outcomes.iter().enumerate() {
        let expected = at != 3;
        ensure(matches!(outcome, Ok(Outcome::Applied)) == expected, || format!("message {at} is {outcome:?}"))?;
    }
    if atomic {
        for (at, message) in messages.iter().enumerate() {
            bench.expect_count(message, u64::from(at != 3), "after the batch").await?;
        }
    }
    let then = bench.settle(guard, &messages[3]).await?;
    ensure(then == Outcome::Applied, || format!("the bad one, made good, is {then:?}"))?;
    bench.expect_count(&messages[3], 1, "in the end").await?;
    Ok(Finding::Passed)
}

pub(super) async fn two_batches_crosswise_apply_each_once<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    if bench.subject.guard().strength() != Strength::Atomic {
        return Ok(Finding::Skipped("its handlers may run again for what another batch holds"));
    }
    let guard = bench.subject.guard();
    let messages: Vec<Identity> = (0..40).map(|_| bench.message()).collect();
    let backwards: Vec<Identity> = messages.iter().rev().cloned().collect();
    let run = |batch: Vec<Identity>| {
        let bench = &bench;
        async move {
            let of = &batch;
            let outcomes =
                crate::apply_batch(guard, of, |at, effect| async move { bench.write(effect, &of[at]).await });
            outcomes.await.into_iter().filter(|outcome| matches!(outcome, Ok(Outcome::Applied))).count()
        }
    };
    let (forth, back) = tokio::join!(run(messages.clone()), run(backwards));
    let mut more = 0;
    for message in &messages {
        more += usize::from(bench.settle(guard, message).await? == Outcome::Applied);
        bench.expect_count(message, 1, "in the end").await?;
    }
    ensure(forth + back + more == messages.len(), || format!("{forth} and {back} and {more} were applied"))?;
    Ok(Finding::Passed)
}
