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
    /// Those of [`Topic::drains`].
    draining: Vec<Arc<str>>,
    backoff: Retry,
}

struct Topic<T> {
    name: Arc<str>,
    partitions: Option<Partitions>,
    /// How many there were when an earlier process looked last. Gone with the engine's first word.
    recalled: Option<NonZeroU32>,
    /// A message was placed by its key.
    keys_placed: bool,
    /// Nothing is placed before what was placed by the recalled number is with the engine, or its keys would be in two partitions at a time.
    drains: bool,
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
        Self { topics: HashMap::new(), ordered, draining: Vec::new(), backoff }
    }

    /// Where a message goes. `draw` is asked for a random number where one is needed.
    pub(super) fn place(&mut self, message: &Message, draw: impl FnOnce() -> u32) -> Place {
        let Some(topic) = self.topics.get_mut(&message.topic) else { return Place::Unknown };
        let Some(Partitions { there, keyed }) = topic.partitions.filter(|_| !topic.drains) else {
            return Place::Unknown;
        };
        let partition = match (message.partition, &message.key) {
            // There may be more by now.
            (Some(partition), _) if partition >= there.get() && topic.recalled.is_some() => return Place::Unknown,
            (Some(partition), _) if partition >= there.get() => {
                return Place::Nowhere(Reason::NoPartition { partition, there: there.get() });
            }
            (Some(partition), _) => partition,
            (None, Some(key)) => match self.ordered.get(&message.topic) {
                Some(expected) if *expected != there => {
                    let (expected, there) = (expected.get(), there.get());
                    return Place::Nowhere(Reason::PartitionsChanged { expected, there });
                }
                _ => {
                    topic.keys_placed = true;
                    partition_of_key(key, keyed)
                }
            },
            (None, None) => topic.sticky.next(message.bytes(), there, draw),
        };
        Place::To(TopicPartition { topic: Arc::clone(&topic.name), partition })
    }

    /// Keeps a message until its topic's partitions are known.
    pub(super) fn wait(&mut self, name: &Arc<str>, now_ms: u64, item: T) {
        self.topic(name, now_ms).waiting.push_back(item);
    }

    /// The topic had so many partitions when an earlier process looked last. The engine is asked now, and what it says counts; only if it is
    /// not there to say anything does this: see [`Topics::trust_recalled`].
    pub(super) fn recall(&mut self, name: &Arc<str>, partitions: u32, now_ms: u64) {
        self.topic(name, now_ms).recalled = NonZeroU32::new(partitions);
    }

    /// Whether nothing but an earlier process's word is known of the topic.
    pub(super) fn is_recalled(&self, name: &str) -> bool {
        self.topics.get(name).is_some_and(|topic| topic.recalled.is_some())
    }

    /// The engine is away: what was recalled counts until it is back. Gives back what can be placed by that. Not of ordered topics that were
    /// recalled with another number than they are to have: one of the two is out of date, and the engine knows which.
    pub(super) fn trust_recalled(&mut self) -> VecDeque<T> {
        let mut placeable = VecDeque::new();
        for topic in self.topics.values_mut().filter(|topic| topic.partitions.is_none()) {
            let Some(there) = topic.recalled else { continue };
            if let Some(expected) = self.ordered.get(&topic.name).filter(|expected| **expected != there) {
                topic.cause = format!(
                    "the engine is away; the spool knows the topic with {there} partitions, not with {expected}"
                );
                continue;
            }
            topic.partitions = Some(Partitions { there, keyed: there });
            placeable.append(&mut topic.waiting);
        }
        placeable
    }

    /// The next of the topics that waited for what an earlier process had left, of which `is_left` says that nothing is left: how many
    /// partitions it has, and what can be placed now.
    pub(super) fn drained(&mut self, is_left: impl Fn(&str) -> bool) -> Option<(Arc<str>, u32, VecDeque<T>)> {
        let at = self.draining.iter().position(|name| !is_left(name))?;
        let name = self.draining.swap_remove(at);
        let topic = self.topics.get_mut(&name)?;
        topic.drains = false;
        let there = topic.partitions.map_or(0, |partitions| partitions.there.get());
        Some((name, there, std::mem::take(&mut topic.waiting)))
    }

    /// Whether the topic waits for that.
    pub(super) fn is_draining(&self, name: &str) -> bool {
        self.draining.iter().any(|draining| **draining == *name)
    }

    fn topic(&mut self, name: &Arc<str>, now_ms: u64) -> &mut Topic<T> {
        self.topics.entry(Arc::clone(name)).or_insert_with(|| Topic {
            name: Arc::clone(name),
            partitions: None,
            recalled: None,
            keys_placed: false,
            drains: false,
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
                let recalled = topic.recalled.take();
                // No key has to stay where none was put.
                let before = topic.partitions.filter(|_| recalled.is_none() || topic.keys_placed);
                topic.partitions = Some(Partitions { there, keyed: keyed(name, before, there) });
                let expected = self.ordered.get(name);
                if recalled.is_some_and(|recalled| recalled != there) && expected == Some(&there) {
                    topic.drains = true;
                    topic.cause =
                        "the topic has another number of partitions than when messages of it were put into the \
                                   spool; those go first"
                            .to_owned();
                    self.draining.push(Arc::clone(&topic.name));
                }
                if topic.drains {
                    return Learned::Later;
                }
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
                self.draining.retain(|draining| **draining != *name);
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

    fn away() -> Result<u32, EngineError> {
        Err(EngineError::Unavailable("away".to_owned()))
    }

    fn recalled(ordered: &[(&str, u32)], partitions: u32) -> Topics<u32> {
        let ordered = ordered.iter().filter_map(|(name, count)| Some((Arc::from(*name), NonZeroU32::new(*count)?)));
        let mut topics = Topics::new(ordered.collect());
        topics.recall(&"orders".into(), partitions, 0);
        assert_eq!(topics.ask(0).as_deref(), Some("orders"), "the engine is asked at once");
        assert!(partition(&mut topics, &message("a")).is_none(), "it may be there, and know better");
        topics.wait(&"orders".into(), 0, 1);
        topics
    }

    #[test]
    fn the_engines_word_wins_over_a_recalled_number_of_partitions() {
        let mut topics = recalled(&[], 3);
        assert!(matches!(topics.learned("orders", 1, 0, Ok(12)), Learned::Place(waiting) if waiting == [1]));
        let keys = (0..100).map(|key| Message::to("orders").key(format!("k{key}")));
        let highest = keys.filter_map(|message| partition(&mut topics, &message)).max();
        assert!(highest > Some(2), "keys are spread over all that there are: {highest:?}");
        assert!(!topics.is_recalled("orders"));
    }

    #[test]
    fn a_recalled_number_of_partitions_counts_while_the_engine_is_away() {
        let mut topics = recalled(&[], 3);
        assert!(matches!(topics.learned("orders", 1, 0, away()), Learned::Later), "once is not yet away");
        assert_eq!(topics.trust_recalled(), [1]);
        let keys = ["a", "b", "c", "d", "e", "f"].map(message);
        let before: Vec<_> = keys.iter().map(|message| partition(&mut topics, message)).collect();
        assert!(before.iter().all(Option::is_some));
        assert!(
            matches!(topics.place(&Message::to("orders").partition(3), || 0), Place::Unknown),
            "there may be more now"
        );
        assert!(topics.trust_recalled().is_empty());
        topics.learned("orders", 2, 0, Ok(12));
        let after: Vec<_> = keys.iter().map(|message| partition(&mut topics, message)).collect();
        assert_eq!(before, after, "what has been placed by its key stays where it is");
        assert_eq!(partition(&mut topics, &Message::to("orders").partition(11)), Some(11));
    }

    #[test]
    fn an_ordered_topic_that_was_raised_waits_for_the_engine_and_for_what_the_spool_holds_of_it() {
        let mut topics = recalled(&[("orders", 12)], 3);
        assert!(topics.trust_recalled().is_empty(), "its keys were somewhere else");
        assert!(matches!(topics.learned("orders", 1, 0, Ok(12)), Learned::Later));
        assert!(topics.is_draining("orders") && partition(&mut topics, &message("a")).is_none());
        assert!(topics.drained(|_| true).is_none());
        topics.wait(&"orders".into(), 0, 2);
        let (name, there, waiting) = topics.drained(|_| false).unwrap();
        assert_eq!((&*name, there, waiting), ("orders", 12, VecDeque::from([1, 2])));
        assert!(partition(&mut topics, &message("a")).is_some() && !topics.is_draining("orders"));
    }

    #[test]
    fn an_ordered_topic_that_is_as_it_was_waits_for_nothing() {
        let mut topics = recalled(&[("orders", 3)], 3);
        assert_eq!(topics.trust_recalled(), [1]);
        assert!(matches!(topics.learned("orders", 1, 0, Ok(3)), Learned::Place(waiting) if waiting.is_empty()));
        assert!(partition(&mut topics, &message("a")).is_some());
        topics.learned("orders", 2, 0, Ok(4));
        assert!(matches!(topics.place(&message("a"), || 0), Place::Nowhere(_)));
    }
}
