//! The suite that every intake passes, whoever wrote it. Each sentence of [`Intake`]'s contract has a case.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use baton_core::{Delivery, Headers, TopicPartition};
use bytes::Bytes;

use super::{Intake, IntakeError, Ownership, Place, Progress, Taken};
use crate::conformance::{Finding, Report};
use crate::side::LOAD_BYTES_MAX;

/// As large as a message may be where nobody chose another limit, less what its producer adds.
const LARGE_BYTES: usize = 1_048_000;

/// An intake under test.
pub trait IntakeSubject: Send + Sync + 'static {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// An intake on the same data, as a process has it that has just started.
    fn intake(&self) -> impl Future<Output = Arc<dyn Intake>> + Send;
}

type Verdict = Result<Finding, String>;
type Test<S> = for<'a> fn(Bench<'a, S>) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// What a case works with.
struct Bench<'a, S> {
    subject: &'a S,
    place: Place,
}

/// Runs all cases, one after the other.
pub async fn run<S: IntakeSubject>(subject: &S) -> Report {
    let mut report = Report { guard: subject.name(), rows: Vec::new() };
    for (case, test) in cases::<S>() {
        let began = Instant::now();
        let place = Place { group: case.into(), partition: TopicPartition::new("orders", 3) };
        let finding = test(Bench { subject, place }).await;
        report.rows.push((case, finding.unwrap_or_else(Finding::Failed), began.elapsed()));
    }
    report
}

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        fn cases<S: IntakeSubject>() -> Vec<(&'static str, Test<S>)> {
            vec![$((stringify!($case), |bench| Box::pin($case(bench)))),*]
        }
    };
}

cases!(
    a_place_begins_where_the_engine_stood_and_later_where_it_stood_itself,
    a_place_of_which_nothing_is_known_begins_with_its_first_message,
    messages_come_back_as_they_came,
    what_is_appended_twice_is_there_once,
    handled_rows_leave_the_table_with_the_frontier,
    what_comes_late_takes_nothing_back,
    a_replaced_owner_writes_nothing,
    a_read_is_bounded_in_messages_and_bytes,
    two_places_do_not_mix,
    a_restart_forgets_all_that_was_stored,
    of_two_who_take_a_place_at_once_one_is_its_owner,
);

fn wrong(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, expected: &T) -> Result<(), String> {
    if is == expected { Ok(()) } else { Err(format!("{what}: {is:?} instead of {expected:?}")) }
}

impl<S: IntakeSubject> Bench<'_, S> {
    /// An intake that has just started, with the place taken.
    async fn fresh(&self) -> Result<(Arc<dyn Intake>, Taken), String> {
        let intake = self.subject.intake().await;
        let taken = intake.take(&self.place, None).await.map_err(wrong)?;
        Ok((intake, taken))
    }

    fn message(&self, offset: i64, payload: Bytes) -> Delivery {
        Delivery {
            from: self.place.partition.clone(),
            offset,
            key: Some(Bytes::from_static(b"key")),
            payload: Some(payload),
            headers: Headers::default(),
            timestamp_ms: Some(1_700_000_000_000 + offset),
            delivered_before: None,
        }
    }

    fn messages(&self, offsets: impl IntoIterator<Item = i64>) -> Vec<Delivery> {
        offsets.into_iter().map(|offset| self.message(offset, format!("m{offset}").into())).collect()
    }
}

async fn offsets(intake: &dyn Intake, place: &Place, from: i64) -> Result<Vec<i64>, String> {
    let messages = intake.read(place, from, usize::MAX).await.map_err(wrong)?;
    Ok(messages.iter().map(|message| message.offset).collect())
}

fn done(frontier: i64, metadata: &str, acknowledged: Option<i64>) -> Progress {
    Progress { frontier, metadata: metadata.to_owned(), acknowledged }
}

fn whole(taken: &Taken) -> (Option<i64>, &str, Option<i64>, Option<i64>) {
    (taken.frontier, &taken.metadata, taken.next, taken.acknowledged)
}

async fn a_place_begins_where_the_engine_stood_and_later_where_it_stood_itself<S: IntakeSubject>(
    bench: Bench<'_, S>,
) -> Verdict {
    let intake = bench.subject.intake().await;
    let first = intake.take(&bench.place, Some((7, "done"))).await.map_err(wrong)?;
    same("at first", &whole(&first), &(Some(7), "done", Some(7), Some(7)))?;
    intake.append(&first.ownership, &bench.messages([7, 8, 9]), Some(7)).await.map_err(wrong)?;
    intake.advance(&first.ownership, &done(8, "beyond", Some(10))).await.map_err(wrong)?;
    let second = intake.take(&bench.place, Some((10, "engine's"))).await.map_err(wrong)?;
    same("later", &whole(&second), &(Some(8), "beyond", Some(10), Some(10)))?;
    same("the epoch", &second.ownership.epoch, &(first.ownership.epoch + 1))?;
    Ok(Finding::Passed)
}

async fn a_place_of_which_nothing_is_known_begins_with_its_first_message<S: IntakeSubject>(
    bench: Bench<'_, S>,
) -> Verdict {
    let (intake, taken) = bench.fresh().await?;
    same("at first", &whole(&taken), &(None, "", None, None))?;
    same("rows", &offsets(&*intake, &bench.place, 0).await?, &Vec::new())?;
    intake.append(&taken.ownership, &bench.messages([40, 41]), None).await.map_err(wrong)?;
    // The engine was acknowledged, and nothing was noted of it: a crash between the two.
    let after = intake.take(&bench.place, Some((42, ""))).await.map_err(wrong)?;
    same("after the crash", &whole(&after), &(Some(40), "", Some(42), Some(42)))?;
    Ok(Finding::Passed)
}

async fn messages_come_back_as_they_came<S: IntakeSubject>(bench: Bench<'_, S>) -> Verdict {
    let (intake, taken) = bench.fresh().await?;
    let mut all = bench.messages(0..5);
    for (name, value) in [("b", Some("1")), ("a", None), ("b", Some("")), ("ä", Some("\u{1}ü"))] {
        all[0].headers.push(name, value.map(|value| Bytes::copy_from_slice(value.as_bytes())));
    }
    (all[1].payload, all[1].key) = (None, None);
    (all[2].payload, all[2].key) = (Some(Bytes::new()), Some(Bytes::new()));
    all[3].payload = Some(Bytes::from_static(&[0, 0xff, b'\'', b'\\', 0]));
    (all[3].key, all[3].timestamp_ms) = (Some(Bytes::from_static(&[0xff, 0, b'\\'])), None);
    all[4].payload = Some(vec![0xc3; LARGE_BYTES].into());
    intake.append(&taken.ownership, &all, None).await.map_err(wrong)?;
    let (intake, _) = bench.fresh().await?;
    let came = intake.read(&bench.place, 0, 100).await.map_err(wrong)?;
    if came == all { Ok(Finding::Passed) } else { Err("they came back changed".to_owned()) }
}

async fn what_is_appended_twice_is_there_once<S: IntakeSubject>(bench: Bench<'_, S>) -> Verdict {
    let (intake, taken) = bench.fresh().await?;
    let all = bench.messages([3, 5, 8]);
    intake.append(&taken.ownership, &all[..2], None).await.map_err(wrong)?;
    intake.append(&taken.ownership, &all, None).await.map_err(wrong)?;
    same("at once", &offsets(&*intake, &bench.place, 0).await?, &vec![3, 5, 8])?;
    let (intake, taken) = bench.fresh().await?;
    intake.append(&taken.ownership, &all, None).await.map_err(wrong)?;
    same("by the next owner", &offsets(&*intake, &bench.place, 0).await?, &vec![3, 5, 8])?;
    Ok(Finding::Passed)
}

async fn handled_rows_leave_the_table_with_the_frontier<S: IntakeSubject>(bench: Bench<'_, S>) -> Verdict {
    let (intake, taken) = bench.fresh().await?;
    intake.append(&taken.ownership, &bench.messages(0..6), None).await.map_err(wrong)?;
    intake.advance(&taken.ownership, &done(4, "", Some(6))).await.map_err(wrong)?;
    same("rows", &offsets(&*intake, &bench.place, 0).await?, &vec![4, 5])?;
    intake.advance(&taken.ownership, &done(6, "", None)).await.map_err(wrong)?;
    same("rows", &offsets(&*intake, &bench.place, 0).await?, &Vec::new())?;
    let (_, taken) = bench.fresh().await?;
    same("the place", &whole(&taken), &(Some(6), "", Some(6), Some(6)))?;
    Ok(Finding::Passed)
}

async fn what_comes_late_takes_nothing_back<S: IntakeSubject>(bench: Bench<'_, S>) -> Verdict {
    let (intake, taken) = bench.fresh().await?;
    let all = bench.messages(0..6);
    intake.append(&taken.ownership, &all, None).await.map_err(wrong)?;
    intake.advance(&taken.ownership, &done(4, "later", None)).await.map_err(wrong)?;
    // As calls do whose answer was given up while the server still had them.
    intake.advance(&taken.ownership, &done(2, "earlier", None)).await.map_err(wrong)?;
    intake.append(&taken.ownership, &all[..3], None).await.map_err(wrong)?;
    let (intake, taken) = bench.fresh().await?;
    same("the place", &whole(&taken), &(Some(4), "later", Some(6), None))?;
    intake.advance(&taken.ownership, &done(4, "later", None)).await.map_err(wrong)?;
    same("rows", &offsets(&*intake, &bench.place, 0).await?, &vec![4, 5])?;
    Ok(Finding::Passed)
}

async fn a_replaced_owner_writes_nothing<S: IntakeSubject>(bench: Bench<'_, S>) -> Verdict {
    let (replaced, before) = bench.fresh().await?;
    replaced.append(&before.ownership, &bench.messages(0..3), None).await.map_err(wrong)?;
    let (owner, after) = bench.fresh().await?;
    let refused = [
        replaced.append(&before.ownership, &bench.messages([3]), Some(3)).await,
        replaced.advance(&before.ownership, &done(2, "replaced", Some(3))).await,
        replaced.restart(&before.ownership, 0).await.map(drop),
        // Nor does anybody who never took it.
        owner.append(&Ownership { epoch: 99, ..after.ownership.clone() }, &bench.messages([4]), None).await,
    ];
    same("refused", &refused.map(|refused| refused.err()), &[const { Some(IntakeError::Fenced) }; 4])?;
    same("rows", &offsets(&*owner, &bench.place, 0).await?, &vec![0, 1, 2])?;
    let (_, now) = bench.fresh().await?;
    same("the place", &whole(&now), &(Some(0), "", Some(3), None))?;
    Ok(Finding::Passed)
}

async fn a_read_is_bounded_in_messages_and_bytes<S: IntakeSubject>(bench: Bench<'_, S>) -> Verdict {
    let (intake, taken) = bench.fresh().await?;
    let large = |offset| bench.message(offset, vec![7; LARGE_BYTES].into());
    for first in [0, 3, 6, 9, 12, 15] {
        let all: Vec<Delivery> = (first..first + 3).map(large).collect();
        intake.append(&taken.ownership, &all, None).await.map_err(wrong)?;
    }
    let few = intake.read(&bench.place, 2, 2).await.map_err(wrong)?;
    same("two", &few.iter().map(|message| message.offset).collect::<Vec<_>>(), &vec![2, 3])?;
    let many = intake.read(&bench.place, 0, usize::MAX).await.map_err(wrong)?;
    let bytes: usize = many.iter().map(Delivery::bytes).sum();
    if many.is_empty() || many.len() == 18 || bytes > LOAD_BYTES_MAX {
        return Err(format!("{} messages of {bytes} bytes", many.len()));
    }
    Ok(Finding::Passed)
}

async fn two_places_do_not_mix<S: IntakeSubject>(bench: Bench<'_, S>) -> Verdict {
    let Bench { subject, place } = &bench;
    let (intake, taken) = bench.fresh().await?;
    let others = [
        Place { partition: TopicPartition::new("orders", 4), ..place.clone() },
        Place { partition: TopicPartition::new("Orders", 3), ..place.clone() },
        Place { group: place.group.to_uppercase().into(), ..place.clone() },
    ];
    for other in others {
        let bench = Bench { subject: *subject, place: other };
        let (_, taken) = bench.fresh().await?;
        intake.append(&taken.ownership, &bench.messages([1]), None).await.map_err(wrong)?;
        intake.advance(&taken.ownership, &done(2, "", None)).await.map_err(wrong)?;
    }
    intake.append(&taken.ownership, &bench.messages([1, 2]), None).await.map_err(wrong)?;
    same("rows", &offsets(&*intake, place, 0).await?, &vec![1, 2])?;
    Ok(Finding::Passed)
}

async fn a_restart_forgets_all_that_was_stored<S: IntakeSubject>(bench: Bench<'_, S>) -> Verdict {
    let (intake, taken) = bench.fresh().await?;
    intake.append(&taken.ownership, &bench.messages([50, 51]), Some(50)).await.map_err(wrong)?;
    let anew = intake.restart(&taken.ownership, 2).await.map_err(wrong)?;
    same("rows", &offsets(&*intake, &bench.place, 0).await?, &Vec::new())?;
    intake.append(&anew, &bench.messages([2, 50]), None).await.map_err(wrong)?;
    // What was given up before, and comes now.
    let late = [
        intake.restart(&taken.ownership, 2).await.map(drop),
        intake.advance(&taken.ownership, &done(52, "", None)).await,
        intake.append(&taken.ownership, &bench.messages([51]), None).await,
    ];
    same("late writes", &late.map(|late| late.err()), &[const { Some(IntakeError::Fenced) }; 3])?;
    let (intake, taken) = bench.fresh().await?;
    same("the place", &whole(&taken), &(Some(2), "", Some(51), None))?;
    same("rows", &offsets(&*intake, &bench.place, 0).await?, &vec![2, 50])?;
    Ok(Finding::Passed)
}

async fn of_two_who_take_a_place_at_once_one_is_its_owner<S: IntakeSubject>(bench: Bench<'_, S>) -> Verdict {
    let bench = &bench;
    for round in 0..20 {
        let (one, other) = (bench.subject.intake().await, bench.subject.intake().await);
        let take = |intake: Arc<dyn Intake>| async move {
            let taken = intake.take(&bench.place, None).await.map_err(wrong)?;
            Ok::<_, String>((intake.append(&taken.ownership, &bench.messages([round]), None).await, taken))
        };
        let (one, other) = tokio::join!(take(one), take(other));
        let ((one, by_one), (other, by_other)) = (one?, other?);
        let last = if by_one.ownership.epoch > by_other.ownership.epoch { one } else { other };
        same("two epochs", &(by_one.ownership.epoch == by_other.ownership.epoch), &false)?;
        last.map_err(|error| format!("whoever took it last is refused: {error}"))?;
    }
    Ok(Finding::Passed)
}
