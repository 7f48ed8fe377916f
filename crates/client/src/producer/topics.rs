//! How many partitions each topic has, and to which one a message goes. Without I/O: who asks the engine is told when to.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use baton_core::partitioner::{Sticky, partition_of_key};
use baton_core::{Message, Retry, TopicPartition};
use baton_engine::EngineError;

use super::receipt::Reason;

/// After so long the number of partitions is asked for again, in milliseconds. Kafka's clients do so every five minutes; it costs one small
/// request per topic.
pub(super) const REFRESH_MS: u64 = 60_000;
/// How long until an engine that was away is asked again: from 50 ms up to 2 s.
const ASK_FIRST: Duration = Duration::from_millis(50);
const ASK_MAX: Duration = Duration::from_secs(2);

/// All topics that were sent to. `T` is a message that waits, with what belongs to it.
pub(super) struct Topics<T> {
    topics: HashMap<Arc<str>, Topic<T>>,
    /// Ordered topics, and over how many partitions.
    ordered: HashMap<Arc<str>, NonZeroU32>,
    backoff: Retry,
}

struct Topic<T> {
    name: Arc<str>,
    partitions: Option<Partitions>,
    sticky: Sticky,
    /// Waiting until the number of partitions is known, and only until then; oldest first.
    waiting: VecDeque<T>,
    asked: bool,
    failures: u32,
    ask_ms: u64,
    /// What the engine said when it was asked last without success.
    cause: String,
}

#[derive(Clone, Copy)]
struct Partitions {
    there: NonZeroU32,
    /// Among how many of them keys are spread: those that there were first, so that no key moves while this producer lives.
    keyed: NonZeroU32,
}

/// Where a message goes.
pub(super) enum Place {
    To(TopicPartition),
    /// Not known yet: to be handed to [`Topics::wait`].
    Unknown,
    Nowhere(Reason),
}

/// What an answer of the engine brought.
pub(super) enum Learned<T> {
    /// These can be placed now.
    Place(VecDeque<T>),
    /// These cannot be sent.
    Fail(VecDeque<T>, Reason),
    /// Nothing yet.
    Later,
}

impl<T> Topics<T> {
    pub(super) fn new(ordered: HashMap<Arc<str>, NonZeroU32>) -> Self {
        let backoff = Retry::exponential(ASK_FIRST, 2, ASK_MAX).max_attempts(u32::MAX);
        Self { topics: HashMap::new(), ordered, backoff }
    }

    /// Where a message goes. `draw` is asked for a random number where one is needed.
    pub(super) fn place(&mut self, message: &Message, draw: impl FnOnce() -> u32) -> Place {
        let Some(topic) = self.topics.get_mut(&message.topic) else { return Place::Unknown };
        let Some(Partitions { there, keyed }) = topic.partitions else { return Place::Unknown };
        let partition = match (message.partition, &message.key) {
            (Some(partition), _) if partition >= there.get() => {
                return Place::Nowhere(Reason::NoPartition { partition, there: there.get() });
            }
            (Some(partition), _) => partition,
            (None, Some(key)) => match self.ordered.get(&message.topic) {
                Some(expected) if *expected != there => {
                    let (expected, there) = (expected.get(), there.get());
                    return Place::Nowhere(Reason::PartitionsChanged { expected, there });
                }
                _ => partition_of_key(key, keyed),
            },
            (None, None) => topic.sticky.next(message.bytes(), there, draw),
        };
        Place::To(TopicPartition { topic: Arc::clone(&topic.name), partition })
    }

    /// Keeps a message until its topic's partitions are known.
    pub(super) fn wait(&mut self, name: &Arc<str>, now_ms: u64, item: T) {
        self.topic(name, now_ms).waiting.push_back(item);
    }

    /// The topic had so many partitions when somebody looked last. It counts until the engine says something else, which it is asked for now.
    pub(super) fn recall(&mut self, name: &Arc<str>, partitions: u32, now_ms: u64) {
        let partitions = NonZeroU32::new(partitions).map(|there| Partitions { there, keyed: there });
        self.topic(name, now_ms).partitions = partitions;
    }

    fn topic(&mut self, name: &Arc<str>, now_ms: u64) -> &mut Topic<T> {
        self.topics.entry(Arc::clone(name)).or_insert_with(|| Topic {
            name: Arc::clone(name),
            partitions: None,
            sticky: Sticky::default(),
            waiting: VecDeque::new(),
            asked: false,
            failures: 0,
            ask_ms: now_ms,
            cause: "the engine has not said yet how many partitions the topic has".to_owned(),
        })
    }

    /// The next topic that the engine is to be asked about now. Of those that nobody sends to any more, too: there are few topics.
    pub(super) fn ask(&mut self, now_ms: u64) -> Option<Arc<str>> {
        let topic = self.topics.values_mut().find(|topic| !topic.asked && topic.ask_ms <= now_ms)?;
        topic.asked = true;
        Some(Arc::clone(&topic.name))
    }

    /// When [`Topics::ask`] has something to say next.
    pub(super) fn ask_ms(&self) -> Option<u64> {
        self.topics.values().filter(|topic| !topic.asked).map(|topic| topic.ask_ms).min()
    }

    /// The engine found that the topic is not as it was: it is asked about again.
    pub(super) fn doubt(&mut self, name: &str, now_ms: u64) {
        if let Some(topic) = self.topics.get_mut(name) {
            topic.ask_ms = topic.ask_ms.min(now_ms);
        }
    }

    /// What the engine answered. `random` is any number, all of them equally likely.
    pub(super) fn learned(
        &mut self,
        name: &str,
        now_ms: u64,
        random: u64,
        answer: Result<u32, EngineError>,
    ) -> Learned<T> {
        let Some(topic) = self.topics.get_mut(name) else { return Learned::Later };
        topic.asked = false;
        let there = answer.and_then(|count| {
            NonZeroU32::new(count).ok_or_else(|| EngineError::Unavailable(format!("{name} has no partitions yet")))
        });
        match there {
            Ok(there) => {
                (topic.failures, topic.ask_ms) = (0, now_ms.saturating_add(REFRESH_MS));
                topic.partitions = Some(Partitions { there, keyed: keyed(name, topic.partitions, there) });
                Learned::Place(std::mem::take(&mut topic.waiting))
            }
            Err(EngineError::Unavailable(cause)) => {
                topic.failures = topic.failures.saturating_add(1);
                topic.cause = cause;
                let delay = self.backoff.delay(topic.failures, random, None).unwrap_or(ASK_MAX);
                topic.ask_ms = now_ms.saturating_add(super::clock::whole_ms(delay)).saturating_add(1);
                Learned::Later
            }
            Err(error) => {
                // Forgotten, so that the next message asks again: somebody may have created the topic.
                let waiting = self.topics.remove(name).map(|topic| topic.waiting).unwrap_or_default();
                Learned::Fail(waiting, Reason::NoTopic(error.to_string()))
            }
        }
    }

    /// When the oldest message that waits was sent.
    pub(super) fn waiting_since_ms(&self, sent_ms: impl Fn(&T) -> u64) -> Option<u64> {
        self.topics.values().filter_map(|topic| topic.waiting.front()).map(sent_ms).min()
    }

    /// Takes those out for which `late` holds, oldest first; says why they waited.
    pub(super) fn take_late(&mut self, late: impl Fn(&T) -> bool) -> Option<(T, String)> {
        let topic = self.topics.values_mut().find(|topic| topic.waiting.front().is_some_and(&late))?;
        topic.waiting.pop_front().map(|item| (item, topic.cause.clone()))
    }
}

/// Among how many partitions the keys of a topic are spread.
fn keyed(name: &str, before: Option<Partitions>, there: NonZeroU32) -> NonZeroU32 {
    let Some(before) = before else { return there };
    if there > before.there {
        tracing::warn!(
            topic = name, before = %before.there, there = %there, keyed = %before.keyed,
            "the topic has more partitions; keys stay where they are until this producer starts again: drain the topic before that, \
             if the order of its keys matters"
        );
    } else if there < before.there {
        tracing::warn!(topic = name, before = %before.there, there = %there, "the topic has fewer partitions: it was made anew");
    }
    before.keyed.min(there)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(key: &'static str) -> Message {
        Message::to("orders").key(key)
    }

    fn partition(topics: &mut Topics<u32>, message: &Message) -> Option<u32> {
        match topics.place(message, || 0) {
            Place::To(partition) => Some(partition.partition),
            Place::Unknown | Place::Nowhere(_) => None,
        }
    }

    fn known(ordered: &[(&str, u32)], partitions: u32) -> Topics<u32> {
        let ordered = ordered.iter().filter_map(|(name, count)| Some((Arc::from(*name), NonZeroU32::new(*count)?)));
        let mut topics = Topics::new(ordered.collect());
        topics.wait(&"orders".into(), 0, 1);
        assert_eq!(topics.ask(0).as_deref(), Some("orders"));
        assert!(matches!(topics.learned("orders", 0, 0, Ok(partitions)), Learned::Place(waiting) if waiting == [1]));
        topics
    }

    #[test]
    fn keys_stay_where_they_are_when_a_topic_gets_more_partitions() {
        let mut topics = known(&[], 3);
        let keys = ["a", "b", "c", "d", "e", "f"].map(message);
        let before: Vec<_> = keys.iter().map(|message| partition(&mut topics, message)).collect();
        topics.learned("orders", 1, 0, Ok(12));
        let after: Vec<_> = keys.iter().map(|message| partition(&mut topics, message)).collect();
        assert_eq!(before, after);
        assert_eq!(partition(&mut topics, &Message::to("orders").partition(11)), Some(11), "the new ones can be used");
    }

    #[test]
    fn an_ordered_topic_with_another_number_of_partitions_is_refused() {
        let mut topics = known(&[("orders", 3)], 3);
        assert!(partition(&mut topics, &message("a")).is_some());
        topics.learned("orders", 1, 0, Ok(4));
        let expected = Reason::PartitionsChanged { expected: 3, there: 4 };
        assert!(matches!(topics.place(&message("a"), || 0), Place::Nowhere(reason) if reason == expected));
        assert!(partition(&mut topics, &Message::to("orders")).is_some(), "what has no key has no order to lose");
    }

    #[test]
    fn messages_wait_while_the_engine_is_away_and_none_overtakes_them() {
        let mut topics = Topics::new(HashMap::new());
        topics.wait(&"orders".into(), 0, 1);
        assert!(topics.ask(0).is_some() && topics.ask(0).is_none(), "it is asked once at a time");
        let away = || Err(EngineError::Unavailable("away".to_owned()));
        assert!(matches!(topics.learned("orders", 10, u64::MAX, away()), Learned::Later));
        assert!(topics.ask(10).is_none() && topics.ask_ms().is_some_and(|ask_ms| ask_ms > 10));
        assert!(matches!(topics.place(&message("a"), || 0), Place::Unknown));
        topics.wait(&"orders".into(), 20, 2);
        assert!(matches!(topics.learned("orders", 90, 0, Ok(1)), Learned::Place(waiting) if waiting == [1, 2]));
    }

    #[test]
    fn an_unknown_topic_fails_what_waits_and_is_asked_about_again() {
        let mut topics = Topics::new(HashMap::new());
        topics.wait(&"orders".into(), 0, 1);
        let unknown = Err(EngineError::Caller("there is no topic orders".to_owned()));
        let learned = topics.learned("orders", 0, 0, unknown);
        assert!(matches!(learned, Learned::Fail(waiting, Reason::NoTopic(_)) if waiting == [1]));
        topics.wait(&"orders".into(), 1, 2);
        assert!(topics.ask(1).is_some());
    }

    #[test]
    fn the_number_of_partitions_is_asked_for_again_after_a_while() {
        let mut topics = known(&[], 3);
        assert_eq!((topics.ask(REFRESH_MS - 1), topics.ask_ms()), (None, Some(REFRESH_MS)));
        assert!(topics.ask(REFRESH_MS).is_some());
        assert!(partition(&mut topics, &message("a")).is_some(), "nobody waits for the answer");
    }
}
