//! The suite that every side store passes, whoever wrote it. Each sentence of [`SideStore`]'s contract has a case.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use baton_core::consumer::{Failure, KeyInStore, Loaded, Parked};
use baton_core::{Delivery, Headers, TopicPartition};
use bytes::Bytes;

use super::{LOAD_BYTES_MAX, Offsets, Opened, Place, SideStore, StoreError};
use crate::conformance::{Finding, Report};

/// Bytes that do not fit into what Kafka keeps with a position.
const DONE_BYTES: usize = 500_000;
/// As large as a message may be where nobody chose another limit, less what its producer adds.
const LARGE_BYTES: usize = 1_048_000;
/// Many of these are more than is read at once.
const LOADED_BYTES: usize = 900_000;
/// Why a case about positions is not for a store that has only offsets.
const NEEDS_LASTING: &str = "the store is for engines whose offsets last";

/// A store under test.
pub trait SideSubject: Send + Sync + 'static {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// A store on the same data, as a process has it that has just started.
    fn store(&self) -> impl Future<Output = Arc<dyn SideStore>> + Send;
}

type Verdict = Result<Finding, String>;
type Test<S> = for<'a> fn(Bench<'a, S>) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// What a case works with.
struct Bench<'a, S> {
    subject: &'a S,
    place: Place,
}

/// Runs all cases, one after the other.
pub async fn run<S: SideSubject>(subject: &S) -> Report {
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
        fn cases<S: SideSubject>() -> Vec<(&'static str, Test<S>)> {
            vec![$((stringify!($case), |bench| Box::pin($case(bench)))),*]
        }
    };
}

cases!(
    nothing_is_kept_at_first,
    parked_messages_come_back_as_they_came,
    parked_order_survives_a_restart,
    what_is_stored_twice_is_there_once,
    removal_survives_a_restart_and_is_idempotent,
    two_places_do_not_mix,
    keys_of_a_place_do_not_mix,
    a_load_is_bounded_in_messages_and_bytes,
    a_message_at_the_limit_is_parked_whatever_its_failure_says,
    done_marks_larger_than_four_kilobytes_come_back,
    offsets_that_do_not_last_stay_in_order_over_assignments,
    what_a_replaced_owner_parks_late_takes_no_other_messages_place,
    many_keys_are_counted_each,
);

fn wrong(error: StoreError) -> String {
    error.to_string()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, expected: &T) -> Result<(), String> {
    if is == expected { Ok(()) } else { Err(format!("{what}: {is:?} instead of {expected:?}")) }
}

fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

impl<S: SideSubject> Bench<'_, S> {
    /// A store that has just started, with the place open.
    async fn fresh(&self) -> Result<(Arc<dyn SideStore>, Opened), String> {
        let store = self.subject.store().await;
        let opened = store.open(&self.place, Offsets::Lasting).await.map_err(wrong)?;
        Ok((store, opened))
    }

    fn message(&self, key: &str, offset: i64) -> Parked {
        self.sized(key, offset, format!("{key}/{offset}").into())
    }

    fn sized(&self, key: &str, offset: i64, payload: Bytes) -> Parked {
        let delivery = Delivery {
            from: self.place.partition.clone(),
            offset,
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            payload: Some(payload),
            headers: Headers::default(),
            timestamp_ms: Some(1_700_000_000_000 + offset),
            delivered_before: None,
        };
        Parked { delivery: Arc::new(delivery), attempts: 1, failure: None }
    }

    fn messages(&self, key: &str, offsets: impl IntoIterator<Item = i64>) -> Vec<Parked> {
        offsets.into_iter().map(|offset| self.message(key, offset)).collect()
    }
}

async fn offsets(store: &dyn SideStore, place: &Place, of: &str) -> Result<Vec<i64>, String> {
    let loaded = store.load(place, &key(of), usize::MAX).await.map_err(wrong)?;
    let grows = loaded.windows(2).all(|two| two[0].position < two[1].position);
    if !grows {
        return Err(format!("positions do not grow: {loaded:?}"));
    }
    Ok(loaded.iter().map(|loaded| loaded.delivery.offset).collect())
}

fn counted(opened: &Opened) -> Vec<(Bytes, usize)> {
    let mut all: Vec<_> = opened.parked.iter().map(|KeyInStore { key, messages }| (key.clone(), *messages)).collect();
    all.sort();
    all
}

async fn nothing_is_kept_at_first<S: SideSubject>(bench: Bench<'_, S>) -> Verdict {
    let (store, opened) = bench.fresh().await?;
    same("opened", &opened, &Opened::default())?;
    same("loaded", &offsets(&*store, &bench.place, "a").await?, &Vec::new())?;
    store.remove(&bench.place, &key("a"), 7).await.map_err(wrong)?;
    Ok(Finding::Passed)
}

async fn parked_messages_come_back_as_they_came<S: SideSubject>(bench: Bench<'_, S>) -> Verdict {
    let (store, _) = bench.fresh().await?;
    let mut all = bench.messages("a", 0..4);
    let with = |parked: &mut Parked, change: &dyn Fn(&mut Delivery)| {
        let mut delivery = (*parked.delivery).clone();
        change(&mut delivery);
        parked.delivery = Arc::new(delivery);
    };
    with(&mut all[0], &|delivery| {
        for (name, value) in [("b", Some("1")), ("a", None), ("b", Some("")), ("ä", Some("\u{1}ü"))] {
            delivery.headers.push(name, value.map(|value| Bytes::copy_from_slice(value.as_bytes())));
        }
    });
    with(&mut all[1], &|delivery| delivery.payload = None);
    with(&mut all[2], &|delivery| delivery.payload = Some(Bytes::new()));
    with(&mut all[3], &|delivery| {
        delivery.payload = Some(Bytes::from_static(&[0, 0xff, b'\'', b'\\', 0]));
        delivery.timestamp_ms = None;
    });
    all[0].failure = Some(Failure::new("rule\0", "it says \0 and 'quotes' and \u{10348}"));
    store.park(&bench.place, &key("a"), &all).await.map_err(wrong)?;
    let (store, _) = bench.fresh().await?;
    let loaded = store.load(&bench.place, &key("a"), 100).await.map_err(wrong)?;
    let came: Vec<Delivery> = loaded.into_iter().map(|loaded: Loaded| loaded.delivery).collect();
    let expected: Vec<Delivery> = all.iter().map(|parked| (*parked.delivery).clone()).collect();
    same("messages", &came, &expected)?;
    Ok(Finding::Passed)
}

async fn parked_order_survives_a_restart<S: SideSubject>(bench: Bench<'_, S>) -> Verdict {
    let (store, _) = bench.fresh().await?;
    store.park(&bench.place, &key("a"), &bench.messages("a", [3, 5])).await.map_err(wrong)?;
    store.park(&bench.place, &key("a"), &bench.messages("a", [8])).await.map_err(wrong)?;
    let (store, opened) = bench.fresh().await?;
    same("keys", &counted(&opened), &vec![(key("a"), 3)])?;
    store.park(&bench.place, &key("a"), &bench.messages("a", [9, 20])).await.map_err(wrong)?;
    same("before a restart", &offsets(&*store, &bench.place, "a").await?, &vec![3, 5, 8, 9, 20])?;
    let (store, _) = bench.fresh().await?;
    same("after it", &offsets(&*store, &bench.place, "a").await?, &vec![3, 5, 8, 9, 20])?;
    Ok(Finding::Passed)
}

async fn what_is_stored_twice_is_there_once<S: SideSubject>(bench: Bench<'_, S>) -> Verdict {
    let (store, _) = bench.fresh().await?;
    let all = bench.messages("a", [3, 5, 8]);
    store.park(&bench.place, &key("a"), &all[..2]).await.map_err(wrong)?;
    store.park(&bench.place, &key("a"), &all).await.map_err(wrong)?;
    same("at once", &offsets(&*store, &bench.place, "a").await?, &vec![3, 5, 8])?;
    // As after a crash between parking and settling.
    let (store, _) = bench.fresh().await?;
    store.park(&bench.place, &key("a"), &all[..1]).await.map_err(wrong)?;
    let (store, opened) = bench.fresh().await?;
    same("counted", &counted(&opened), &vec![(key("a"), 3)])?;
    same("after a restart", &offsets(&*store, &bench.place, "a").await?, &vec![3, 5, 8])?;
    Ok(Finding::Passed)
}

async fn removal_survives_a_restart_and_is_idempotent<S: SideSubject>(bench: Bench<'_, S>) -> Verdict {
    let (store, _) = bench.fresh().await?;
    store.park(&bench.place, &key("a"), &bench.messages("a", [3, 5, 8])).await.map_err(wrong)?;
    let loaded = store.load(&bench.place, &key("a"), 2).await.map_err(wrong)?;
    let up_to = loaded.last().ok_or("nothing was loaded")?.position;
    for _ in 0..2 {
        store.remove(&bench.place, &key("a"), up_to).await.map_err(wrong)?;
        same("left", &offsets(&*store, &bench.place, "a").await?, &vec![8])?;
    }
    let (store, opened) = bench.fresh().await?;
    same("counted", &counted(&opened), &vec![(key("a"), 1)])?;
    store.remove(&bench.place, &key("a"), up_to).await.map_err(wrong)?;
    same("left after a restart", &offsets(&*store, &bench.place, "a").await?, &vec![8])?;
    store.remove(&bench.place, &key("a"), u64::MAX).await.map_err(wrong)?;
    let (_, opened) = bench.fresh().await?;
    same("in the end", &counted(&opened), &Vec::new())?;
    Ok(Finding::Passed)
}

async fn two_places_do_not_mix<S: SideSubject>(bench: Bench<'_, S>) -> Verdict {
    let store = bench.subject.store().await;
    let place = |group: &str, topic: &str, partition| Place {
        group: group.into(),
        partition: TopicPartition::new(topic, partition),
    };
    let places = [
        bench.place.clone(),
        place(&bench.place.group, "orders", 4),
        place(&bench.place.group, "orders", 33),
        place(&bench.place.group, "Orders", 3),
        place(&format!("{}/x", bench.place.group), "orders", 3),
    ];
    for (number, place) in (0..).zip(&places) {
        store.open(place, Offsets::Lasting).await.map_err(wrong)?;
        store.park(place, &key("a"), &bench.messages("a", [number, 100])).await.map_err(wrong)?;
        store.store_done(place, key(&format!("done {number}"))).await.map_err(wrong)?;
    }
    store.remove(&places[0], &key("a"), u64::MAX).await.map_err(wrong)?;
    let store = bench.subject.store().await;
    for (number, place) in (0..).zip(&places) {
        let opened = store.open(place, Offsets::Lasting).await.map_err(wrong)?;
        same("done", &opened.done, &key(&format!("done {number}")))?;
        let expected = if number == 0 { Vec::new() } else { vec![number, 100] };
        same("parked", &offsets(&*store, place, "a").await?, &expected)?;
    }
    Ok(Finding::Passed)
}

async fn keys_of_a_place_do_not_mix<S: SideSubject>(bench: Bench<'_, S>) -> Verdict {
    let (store, _) = bench.fresh().await?;
    let long = "k".repeat(5_000);
    let keys = ["a", "A", "a ", "", long.as_str()];
    for (number, of) in (0..).zip(keys) {
        store.park(&bench.place, &key(of), &bench.messages(of, [number, 10 + number])).await.map_err(wrong)?;
    }
    store.remove(&bench.place, &key("a"), u64::MAX).await.map_err(wrong)?;
    let (store, opened) = bench.fresh().await?;
    let mut expected: Vec<_> = keys[1..].iter().map(|of| (key(of), 2)).collect();
    expected.sort();
    same("keys", &counted(&opened), &expected)?;
    for (number, of) in (0..).zip(keys).skip(1) {
        same(of, &offsets(&*store, &bench.place, of).await?, &vec![number, 10 + number])?;
    }
    Ok(Finding::Passed)
}

async fn a_load_is_bounded_in_messages_and_bytes<S: SideSubject>(bench: Bench<'_, S>) -> Verdict {
    let (store, _) = bench.fresh().await?;
    let count = i64::try_from(LOAD_BYTES_MAX / LOADED_BYTES + 3).map_err(|error| error.to_string())?;
    let payload = Bytes::from(vec![7; LOADED_BYTES]);
    let all: Vec<Parked> = (0..count).map(|offset| bench.sized("a", offset, payload.clone())).collect();
    store.park(&bench.place, &key("a"), &all).await.map_err(wrong)?;
    let (store, _) = bench.fresh().await?;
    let two = store.load(&bench.place, &key("a"), 2).await.map_err(wrong)?;
    same("messages", &two.len(), &2)?;
    let first = store.load(&bench.place, &key("a"), 500).await.map_err(wrong)?;
    let bytes: usize = first.iter().map(|loaded| loaded.delivery.bytes()).sum();
    if bytes > LOAD_BYTES_MAX || first.len() < 10 {
        return Err(format!("{} messages of {bytes} bytes", first.len()));
    }
    let up_to = first.last().map_or(0, |loaded| loaded.position);
    store.remove(&bench.place, &key("a"), up_to).await.map_err(wrong)?;
    let rest = offsets(&*store, &bench.place, "a").await?;
    same("the rest", &rest, &(i64::try_from(first.len()).unwrap_or(0)..count).collect())?;
    Ok(Finding::Passed)
}

async fn a_message_at_the_limit_is_parked_whatever_its_failure_says<S: SideSubject>(bench: Bench<'_, S>) -> Verdict {
    let (store, _) = bench.fresh().await?;
    let mut parked = bench.sized("a", 4, Bytes::from(vec![1; LARGE_BYTES]));
    parked.failure = Some(Failure::new("s".repeat(5_000), "r".repeat(2_000_000)));
    store.park(&bench.place, &key("a"), std::slice::from_ref(&parked)).await.map_err(wrong)?;
    let (store, _) = bench.fresh().await?;
    let loaded = store.load(&bench.place, &key("a"), 1).await.map_err(wrong)?;
    let came = loaded.first().map(|loaded| loaded.delivery == *parked.delivery);
    same("it came back as it was", &came, &Some(true))?;
    Ok(Finding::Passed)
}

async fn done_marks_larger_than_four_kilobytes_come_back<S: SideSubject>(bench: Bench<'_, S>) -> Verdict {
    let (store, _) = bench.fresh().await?;
    let large = Bytes::from_iter((0_u8..251).cycle().take(DONE_BYTES));
    for bytes in [key("first"), large.clone()] {
        store.store_done(&bench.place, bytes.clone()).await.map_err(wrong)?;
        let (_, opened) = bench.fresh().await?;
        if opened.done != bytes {
            return Err(format!("{} bytes came back instead of {}", opened.done.len(), bytes.len()));
        }
    }
    store.store_done(&bench.place, Bytes::new()).await.map_err(wrong)?;
    let (_, opened) = bench.fresh().await?;
    same("taken back", &opened.done, &Bytes::new())?;
    Ok(Finding::Passed)
}

async fn offsets_that_do_not_last_stay_in_order_over_assignments<S: SideSubject>(bench: Bench<'_, S>) -> Verdict {
    let mut expected = Vec::new();
    for assignment in 0..3 {
        let store = bench.subject.store().await;
        if store.needs_lasting_offsets() {
            return match store.open(&bench.place, Offsets::OfAssignment).await {
                Err(_) => Ok(Finding::Skipped(NEEDS_LASTING)),
                Ok(_) => Err("it needs offsets that last, and does not say so when it is opened".to_owned()),
            };
        }
        store.open(&bench.place, Offsets::OfAssignment).await.map_err(wrong)?;
        let payload = |number: i64| Bytes::from(format!("{assignment}/{number}"));
        let all: Vec<Parked> = (0..3).map(|offset| bench.sized("a", offset, payload(offset))).collect();
        expected.extend((0..3).map(payload));
        for _ in 0..2 {
            store.park(&bench.place, &key("a"), &all).await.map_err(wrong)?;
        }
    }
    let store = bench.subject.store().await;
    store.open(&bench.place, Offsets::OfAssignment).await.map_err(wrong)?;
    let loaded = store.load(&bench.place, &key("a"), 100).await.map_err(wrong)?;
    let payloads: Vec<Bytes> = loaded.into_iter().filter_map(|loaded| loaded.delivery.payload).collect();
    same("in order, and each once", &payloads, &expected)?;
    Ok(Finding::Passed)
}

async fn what_a_replaced_owner_parks_late_takes_no_other_messages_place<S: SideSubject>(
    bench: Bench<'_, S>,
) -> Verdict {
    let replaced = bench.subject.store().await;
    if replaced.needs_lasting_offsets() {
        return Ok(Finding::Skipped(NEEDS_LASTING));
    }
    replaced.open(&bench.place, Offsets::OfAssignment).await.map_err(wrong)?;
    let owner = bench.subject.store().await;
    owner.open(&bench.place, Offsets::OfAssignment).await.map_err(wrong)?;
    // Nothing was parked when it took over, and both count their offsets from 0.
    replaced.park(&bench.place, &key("a"), &[bench.sized("a", 0, key("late"))]).await.map_err(wrong)?;
    owner.park(&bench.place, &key("a"), &[bench.sized("a", 0, key("owner's"))]).await.map_err(wrong)?;
    let loaded = owner.load(&bench.place, &key("a"), 100).await.map_err(wrong)?;
    let payloads: Vec<Bytes> = loaded.into_iter().filter_map(|loaded| loaded.delivery.payload).collect();
    same("both are there", &payloads, &vec![key("late"), key("owner's")])?;
    Ok(Finding::Passed)
}

async fn many_keys_are_counted_each<S: SideSubject>(bench: Bench<'_, S>) -> Verdict {
    let (store, _) = bench.fresh().await?;
    let mut expected = Vec::new();
    for number in 0..60_i64 {
        let of = format!("key-{number:02}");
        let count = usize::try_from(number % 3 + 1).unwrap_or(1);
        let messages = bench.messages(&of, (0..).map(|at| number + 100 * at).take(count));
        store.park(&bench.place, &key(&of), &messages).await.map_err(wrong)?;
        expected.push((key(&of), count));
    }
    let (_, opened) = bench.fresh().await?;
    same("keys", &counted(&opened), &expected)?;
    Ok(Finding::Passed)
}
