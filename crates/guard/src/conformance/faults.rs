//! Links that break and servers that are killed.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::{Bench, Cut, Finding, NOT_ATOMIC, REMEMBERS_NOTHING, Subject, Verdict, ensure, pause};
use crate::{Guard, Identity, Open, Outcome, Strength};

/// More ways from the client to the store than any guard needs; a loop that does not come to its end is an error.
const STEPS_MAX: u32 = 60;

const NO_LINK: &str = "there is no link to cut: the store is in the process, see the test that kills the process";
const NO_SERVER: &str = "there is no server to kill: the store is in the process";

/// A consumer whose link to the store is cut at one step, and that dies with it; another takes its messages.
async fn at_every_step<S: Subject>(bench: Bench<'_, S>, messages_in_batch: usize) -> Verdict {
    let direct = bench.subject.guard();
    let strength = direct.strength();
    if strength == Strength::Conditional {
        return Ok(Finding::Skipped(REMEMBERS_NOTHING));
    }
    for delivered in [false, true] {
        for at in 1.. {
            ensure(at <= STEPS_MAX, || format!("still cut at step {at}"))?;
            let Some(cut) = bench.subject.cut(Cut { at, delivered }).await else {
                return Ok(Finding::Skipped(NO_LINK));
            };
            let batch: Vec<Identity> = (0..messages_in_batch).map(|_| bench.message()).collect();
            let runs = AtomicUsize::new(0);
            let outcomes = crate::apply_batch(&cut.guard, &batch, |at, effect| {
                runs.fetch_add(1, Relaxed);
                bench.write(effect, &batch[at])
            });
            // A link of which nothing comes is not always noticed by itself.
            let outcomes = tokio::time::timeout(Duration::from_secs(20), outcomes).await.unwrap_or_default();
            drop(cut.guard);
            for (place, message) in batch.iter().enumerate() {
                let said = outcomes.get(place).is_some_and(|outcome| matches!(outcome, Ok(Outcome::Applied)));
                let step = format!("cut at step {at} (delivered: {delivered}), {} said {said}", message.id);
                // Long enough for the server to notice, if it has to.
                let then = bench.settle(direct, message).await.map_err(|error| format!("{step}: {error}"))?;
                ensure(!said || then == Outcome::AlreadyDone, || format!("{step}, then it was {then:?}"))?;
                let count = bench.subject.count(message.id.as_str()).await;
                // A lease loses nothing, and may repeat what was not marked.
                let fits = if strength == Strength::Leased { (1..=2).contains(&count) } else { count == 1 };
                ensure(fits, || format!("{step}, then {then:?}: {count} effects"))?;
            }
            if !(cut.was_cut)() {
                ensure(at > 2, || "the link was never cut".to_owned())?;
                break;
            }
        }
    }
    Ok(Finding::Passed)
}

pub(super) async fn a_link_cut_at_any_step_loses_and_doubles_nothing<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    at_every_step(bench, 1).await
}

pub(super) async fn a_batch_cut_at_any_step_loses_and_doubles_nothing<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    if bench.subject.guard().strength() == Strength::Leased {
        return Ok(Finding::Skipped(NOT_ATOMIC));
    }
    at_every_step(bench, 3).await
}

pub(super) async fn a_store_killed_under_an_open_effect_forgets_it<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    let guard = bench.subject.guard();
    if guard.strength() != Strength::Atomic {
        return Ok(Finding::Skipped(NOT_ATOMIC));
    }
    let (done, message) = (bench.message(), bench.message());
    bench.settle(guard, &done).await?;
    let open = bench.begin(&message).await?;
    bench.write(open.effect(), &message).await.map_err(|error| error.to_string())?;
    if !bench.subject.restart().await {
        open.abort().await;
        return Ok(Finding::Skipped(NO_SERVER));
    }
    let committed = open.commit().await;
    ensure(committed.is_err(), || "what was open when the store died was committed".to_owned())?;
    let outcome = bench.settle(guard, &message).await?;
    ensure(outcome == Outcome::Applied, || format!("then it is {outcome:?}, the commit said {committed:?}"))?;
    let outcome = bench.settle(guard, &done).await?;
    ensure(outcome == Outcome::AlreadyDone, || format!("what was done before is {outcome:?}"))?;
    bench.expect_count(&message, 1, "in the end").await?;
    bench.expect_count(&done, 1, "in the end").await?;
    Ok(Finding::Passed)
}

pub(super) async fn a_store_killed_under_load_loses_and_doubles_nothing<S: Subject>(bench: Bench<'_, S>) -> Verdict {
    const MESSAGES: u64 = 400;
    let guard = bench.subject.guard();
    if guard.strength() == Strength::Conditional {
        return Ok(Finding::Skipped(REMEMBERS_NOTHING));
    }
    let worker = |from: u64| {
        let bench = &bench;
        async move {
            for at in (from..=MESSAGES).step_by(4) {
                bench.settle(guard, &bench.numbered(at)).await?;
            }
            Ok::<_, String>(())
        }
    };
    let kill = async {
        for _ in 0..2 {
            pause(Duration::from_millis(120)).await;
            if !bench.subject.restart().await {
                return false;
            }
        }
        true
    };
    let (killed, one, two, three, four) = tokio::join!(kill, worker(1), worker(2), worker(3), worker(4));
    one.and(two).and(three).and(four)?;
    for sequence in 1..=MESSAGES {
        let message = bench.numbered(sequence);
        let again = bench.settle(guard, &message).await?;
        ensure(again == Outcome::AlreadyDone, || format!("{} was lost: {again:?}", message.id))?;
        let count = bench.subject.count(message.id.as_str()).await;
        let fits = if guard.strength() == Strength::Leased { count >= 1 } else { count == 1 };
        ensure(fits, || format!("{}: {count} effects", message.id))?;
    }
    Ok(if killed { Finding::Passed } else { Finding::Skipped(NO_SERVER) })
}
