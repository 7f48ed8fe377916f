//! `baton dead replay`.
//!
//! A letter is sent as it lies: key, payload and all headers, the stamp and `baton-dead-*` among them. The consumer knows the message by
//! `baton-dead-id`, also where the id was its place in the topic, so a guard that let it through once keeps it out ever after; and if it
//! dies again, its letter still says where it first came from. Its time is the time of the replay: with its own, a topic that keeps
//! messages for a week would drop one that died longer ago.
//!
//! First it is sent, then it is marked; where it lies in a queue, it is taken out of that instead. After a crash in between it is sent
//! once more, and the guard keeps it out.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton::{Baton, Engine, TopicPartition};
use baton_core::partitioner::partition_of_key;
use baton_engine::{EngineProducer, ProducerOptions, Record, Stored};
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::ReplayArguments;
use super::letter::Letter;
use super::marks::Marks;
use super::queue::BROWSED_MAX;
use super::read::Letters;
use crate::{Failure, say};

/// After how long the engine's client gives a send up.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Letters go one by one, so waiting for others would only cost time.
const LINGER_MS: u64 = 0;
/// How often a terminal is told how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

pub(super) async fn run(baton: &Baton, arguments: &ReplayArguments) -> Result<(), Failure> {
    let marks = Marks::read(baton, &arguments.from.topic).await?;
    let plan = Plan::make(baton, arguments, &marks).await?;
    if !arguments.dry_run && plan.meant > 0 && plan.queued.is_none() {
        marks.prepare(&**baton.engine()).await?;
    }
    let mut replay = Replay::new(baton, arguments, &marks, plan).await?;
    let outcome = replay.run().await;
    // What was sent is said also when it went wrong in the end.
    say(&replay.figures());
    outcome?;
    match replay.refused {
        0 => Ok(()),
        refused => Err(Failure::Failed(format!("{refused} letters could not be sent"))),
    }
}

/// How far the letters go: what dies while this runs, perhaps because of it, is for another run.
#[derive(Default)]
struct Plan {
    /// The last offset of each partition.
    ends: HashMap<u32, i64>,
    /// Letters to be sent.
    meant: usize,
    /// Letters that were sent before.
    skipped: usize,
    /// Where letters are in queues: these, and what they are settled with. They cannot be read a second time before they are given back.
    queued: Option<(Letters, Vec<Letter>)>,
}

impl Plan {
    async fn make(baton: &Baton, arguments: &ReplayArguments, marks: &Marks) -> Result<Self, Failure> {
        let mut plan = Self::default();
        let limit = arguments.which.limit.map_or(usize::MAX, usize::from);
        let mut letters = Letters::open(baton, &arguments.from).await?;
        let mut queued = letters.are_queued().then(Vec::new);
        while plan.meant < limit
            && let Some(letter) = letters.next().await?
        {
            plan.ends.insert(letter.delivery.from.partition, letter.delivery.offset);
            match wanted(arguments, marks, &letter) {
                Wanted::Yes => {
                    plan.meant += 1;
                    queued.iter_mut().for_each(|queued| queued.push(letter.clone()));
                }
                Wanted::Done => plan.skipped += 1,
                Wanted::No => {}
            }
        }
        plan.queued = queued.map(|queued| (letters, queued));
        Ok(plan)
    }

    fn covers(&self, letter: &Letter) -> bool {
        let at = &letter.delivery;
        self.ends.get(&at.from.partition).is_some_and(|end| at.offset <= *end)
    }
}

enum Wanted {
    Yes,
    /// It was sent before.
    Done,
    No,
}

fn wanted(arguments: &ReplayArguments, marks: &Marks, letter: &Letter) -> Wanted {
    if !arguments.which.is_meant(letter) {
        Wanted::No
    } else if !arguments.again && marks.has(letter, target(arguments, letter)) {
        Wanted::Done
    } else {
        Wanted::Yes
    }
}

fn target<'a>(arguments: &'a ReplayArguments, letter: &'a Letter) -> &'a str {
    arguments.to.as_deref().unwrap_or(&letter.origin.topic)
}

struct Replay<'a> {
    baton: &'a Baton,
    arguments: &'a ReplayArguments,
    marks: &'a Marks,
    plan: Plan,
    producer: Arc<dyn EngineProducer>,
    partitions: HashMap<String, NonZeroU32>,
    sent: usize,
    refused: usize,
    /// Whether there may be more letters than were looked at.
    more: bool,
    shown: Instant,
}

impl<'a> Replay<'a> {
    async fn new(
        baton: &'a Baton,
        arguments: &'a ReplayArguments,
        marks: &'a Marks,
        plan: Plan,
    ) -> Result<Self, Failure> {
        let options = ProducerOptions {
            client_id: "baton-dead-replay".to_owned(),
            linger_ms: LINGER_MS,
            delivery_timeout: DELIVERY_TIMEOUT,
            settings: Vec::new(),
        };
        let producer = baton.engine().producer(options).await;
        let producer = producer.map_err(|error| Failure::failed("sending cannot start", &error))?;
        let (partitions, shown) = (HashMap::new(), Instant::now());
        Ok(Self { baton, arguments, marks, plan, producer, partitions, sent: 0, refused: 0, more: false, shown })
    }

    async fn run(&mut self) -> Result<(), Failure> {
        let mut pace = interval(Duration::from_secs(1) / self.arguments.rate.get());
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if let Some((mut letters, queued)) = self.plan.queued.take() {
            for letter in &queued {
                if self.sent_to(letter, &mut pace).await?.is_some() {
                    letters.take(letter).await?;
                }
            }
            self.more = letters.may_be_more();
            return letters.close().await;
        }
        let mut letters = Letters::open(self.baton, &self.arguments.from).await?;
        while self.sent + self.refused < self.plan.meant
            && let Some(letter) = letters.next().await?
        {
            if !self.plan.covers(&letter) || !matches!(wanted(self.arguments, self.marks, &letter), Wanted::Yes) {
                continue;
            }
            if let Some((to, stored)) = self.sent_to(&letter, &mut pace).await? {
                self.marks.add(&*self.producer, &letter, &to, stored).await?;
            }
        }
        Ok(())
    }

    /// Sends a letter when it is its turn, or says that it would. Where to, if it was sent.
    async fn sent_to(
        &mut self,
        letter: &Letter,
        pace: &mut Interval,
    ) -> Result<Option<(TopicPartition, Stored)>, Failure> {
        if self.arguments.dry_run {
            say(&format!("would send {letter} to {}\n", target(self.arguments, letter)));
            self.sent += 1;
            return Ok(None);
        }
        pace.tick().await;
        let sent = self.one(letter).await?;
        self.progress();
        Ok(sent)
    }

    /// A letter that is refused for good does not hold up the others. When sending fails for now, all of it ends, so that letters stay in
    /// their order.
    async fn one(&mut self, letter: &Letter) -> Result<Option<(TopicPartition, Stored)>, Failure> {
        let to = match self.place(letter).await {
            Ok(to) => to,
            Err(failure) => {
                self.refuse(letter, &failure.to_string());
                return Ok(None);
            }
        };
        let delivery = &letter.delivery;
        let record = Record {
            to: to.clone(),
            key: delivery.key.clone(),
            payload: delivery.payload.clone(),
            headers: delivery.headers.clone(),
            timestamp_ms: None,
            id: letter.id.as_deref().map(Arc::from),
        };
        match self.producer.send_when_room(record).await.await {
            Ok(stored) => {
                self.sent += 1;
                Ok(Some((to, stored)))
            }
            Err(error) if !error.retry.may_help() => {
                self.refuse(letter, &error.to_string());
                Ok(None)
            }
            Err(error) => Err(Failure::failed(&letter.to_string(), &error)),
        }
    }

    fn refuse(&mut self, letter: &Letter, why: &str) {
        self.refused += 1;
        // Nobody to tell if stderr is gone; the exit code still does.
        let _ = writeln!(std::io::stderr(), "baton: {letter}: {why}");
    }

    /// The partition that it came from, if it is there; in another topic, that of its key.
    async fn place(&mut self, letter: &Letter) -> Result<TopicPartition, Failure> {
        let topic = target(self.arguments, letter);
        let there = match self.partitions.get(topic) {
            Some(there) => *there,
            None => {
                let there = partitions(&**self.baton.engine(), topic).await?;
                self.partitions.insert(topic.to_owned(), there);
                there
            }
        };
        Ok(TopicPartition::new(topic, partition(letter, topic, there)))
    }

    /// For people who watch; a file wants no such lines.
    fn progress(&mut self) {
        let mut stderr = std::io::stderr().lock();
        let done = self.sent + self.refused;
        if stderr.is_terminal() && (self.shown.elapsed() >= PROGRESS_INTERVAL || done == self.plan.meant) {
            self.shown = Instant::now();
            let end = if done == self.plan.meant { "\n" } else { "" };
            // Nobody to tell if stderr is gone.
            let _ = write!(stderr, "\r{done} of {}{end}", self.plan.meant).and_then(|()| stderr.flush());
        }
    }

    fn figures(&self) -> String {
        let (sent, refused, skipped) = (self.sent, self.refused, self.plan.skipped);
        if self.arguments.json {
            let dry_run = self.arguments.dry_run;
            return format!(
                "{}\n",
                json!({ "sent": sent, "refused": refused, "skipped": skipped, "dry_run": dry_run, "more": self.more })
            );
        }
        let done = if self.arguments.dry_run { "would be sent" } else { "sent" };
        let mut text = format!("{sent} {done}");
        if refused > 0 {
            text.push_str(&format!(", {refused} refused"));
        }
        if skipped > 0 {
            text.push_str(&format!(", {skipped} skipped: sent before (--again sends them once more)"));
        }
        if self.more {
            text.push_str(&format!("; only {BROWSED_MAX} are looked at in one go, run it again for more"));
        }
        format!("{text}.\n")
    }
}

fn partition(letter: &Letter, topic: &str, there: NonZeroU32) -> u32 {
    let origin = &letter.origin;
    match &letter.delivery.key {
        _ if *origin.topic == *topic && origin.partition < there.get() => origin.partition,
        Some(key) => partition_of_key(key, there),
        None => origin.partition % there,
    }
}

async fn partitions(engine: &dyn Engine, topic: &str) -> Result<NonZeroU32, Failure> {
    let there = engine.partitions(topic).await.map_err(|error| Failure::Failed(error.to_string()))?;
    NonZeroU32::new(there).ok_or_else(|| Failure::Failed(format!("the topic {topic} has no partitions")))
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::letter;
    use super::*;

    #[test]
    fn a_letter_goes_back_to_the_partition_that_it_came_from() {
        let letter = letter(0, &[]);
        let of = |topic, there| partition(&letter, topic, NonZeroU32::new(there).expect("not zero"));
        assert_eq!(of("orders", 6), 1);
        assert_eq!(of("orders", 1), 0, "the topic was made anew with fewer");
        let by_key = partition_of_key(b"key-1", NonZeroU32::new(6).expect("not zero"));
        assert_eq!(of("other", 6), by_key);
    }
}
