//! What Kafka's acknowledgement means, topic by topic.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::{Copies, Durability, Medium};

/// Kafka acknowledges from memory, unless a topic has `flush.messages=1`; how many copies that were is for the topic to say.
pub(super) const UNKNOWN: Durability = Durability { medium: Medium::PageCache, copies: Copies::Unknown };

/// What is known of each topic.
#[derive(Debug)]
pub(super) struct Durabilities {
    otherwise: Durability,
    fixed: bool,
    topics: RwLock<HashMap<Arc<str>, Durability>>,
}

impl Durabilities {
    /// Learned topic by topic.
    pub(super) fn learned() -> Self {
        Self { otherwise: UNKNOWN, fixed: false, topics: RwLock::default() }
    }

    /// The same everywhere.
    #[cfg(feature = "embedded")]
    pub(super) fn fixed(durability: Durability) -> Self {
        Self { otherwise: durability, fixed: true, topics: RwLock::default() }
    }

    /// What an acknowledgement of this topic means, or of topics of which nothing is known.
    pub(super) fn of(&self, topic: &str) -> Durability {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).get(topic).copied().unwrap_or(self.otherwise)
    }

    pub(super) fn otherwise(&self) -> Durability {
        self.otherwise
    }

    pub(super) fn knows(&self, topic: &str) -> bool {
        self.fixed || self.topics.read().unwrap_or_else(PoisonError::into_inner).contains_key(topic)
    }

    pub(super) fn learn(&self, topic: &str, durability: Durability) {
        self.topics.write().unwrap_or_else(PoisonError::into_inner).insert(topic.into(), durability);
    }
}

/// What a topic's settings make of an acknowledgement. With `min.insync.replicas` of 1, one copy may be all there was.
pub(super) fn from_settings(replicas: usize, min_insync: Option<&str>, flush_messages: Option<&str>) -> Durability {
    let min_insync = min_insync.and_then(|text| text.parse::<usize>().ok());
    let copies = match min_insync {
        Some(min) if min.min(replicas) >= 2 => Copies::Quorum,
        Some(_) => Copies::One,
        None => Copies::Unknown,
    };
    let medium = if flush_messages == Some("1") { Medium::Disk } else { Medium::PageCache };
    Durability { medium, copies }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_never_claims_more_copies_than_the_topic_insists_on() {
        let copies = |replicas, min| from_settings(replicas, min, None).copies;
        assert_eq!(copies(3, Some("2")), Copies::Quorum);
        assert_eq!(copies(3, Some("1")), Copies::One, "the two others may have been away");
        assert_eq!(copies(1, Some("2")), Copies::One);
        assert_eq!(copies(3, None), Copies::Unknown);
        assert_eq!(from_settings(1, None, Some("1")).medium, Medium::Disk);
        assert_eq!(from_settings(1, None, Some("9223372036854775807")).medium, Medium::PageCache);
    }
}
