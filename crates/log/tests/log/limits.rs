//! Everything is bounded, and says so when the bound is reached.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use baton_log::{AppendError, LogOptions};
use baton_testkit::SimDisk;

use super::support::*;

#[derive(Default)]
struct Flag(AtomicBool);
impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn appends_beyond_the_pending_bytes_wait_for_room() {
    let options = LogOptions { pending_bytes_max: 10_000, ..small() };
    let (log, _) = Place::Simulated(SimDisk::new(1)).open(options);
    let partition = create_topic(&log, "orders", 1)[0];
    let value = batch(&"s".repeat(1000));
    let refused = (0..20).find_map(|_| try_append(&log, partition, &value).err());
    assert_eq!(refused, Some(AppendError::Backlogged));
    assert!(log.stats().pending_bytes <= 10_000);
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(flag.clone());
    let mut room = pin!(log.room());
    assert_eq!(room.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
    log.commit_once();
    assert!(flag.0.load(Ordering::Relaxed), "who waits for room is woken");
    assert_eq!(room.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(()));
    append(&log, partition, &value);
    let huge = batch(&"s".repeat(11_000));
    assert_eq!(try_append(&log, partition, &huge).err(), Some(AppendError::TooLarge(10_000)));
}

#[test]
fn producers_beyond_the_limit_are_refused_and_known_ones_go_on() {
    let options = LogOptions { producers_max: 3, ..small() };
    let mut place = Place::Simulated(SimDisk::new(1));
    let (log, _) = place.open(options.clone());
    let partition = create_topic(&log, "orders", 1)[0];
    write_all(&log, partition, &[1, 2, 3].map(|id| batch_of((id, 0, 0), 1, 10)));
    let refused = |log: &baton_log::Log| {
        assert_eq!(try_append(log, partition, &batch_of((4, 0, 0), 1, 10)).err(), Some(AppendError::TooManyProducers));
    };
    refused(&log);
    write(&log, partition, &batch_of((2, 0, 1), 1, 10));
    drop(log);
    place.crash();
    let (log, _) = place.open(options);
    refused(&log);
    write(&log, partition, &batch("without a producer"));
}
