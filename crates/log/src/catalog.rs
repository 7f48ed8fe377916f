//! The topics of a log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::PartitionId;

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Its id: another one for each topic that ever had the name.
    pub id: [u8; 16],
    /// Its partitions, in the order of their index.
    pub partitions: Vec<PartitionId>,
    /// What was set for it; names and values mean nothing to the log.
    pub configs: BTreeMap<String, String>,
}

/// All the topics at one moment; durable ones only.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    topics: BTreeMap<Arc<str>, Arc<Topic>>,
    names: HashMap<[u8; 16], Arc<str>>,
}

impl Catalog {
    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// The topic of this id.
    pub fn topic_by_id(&self, id: &[u8; 16]) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(id)?)
    }

    /// All topics, sorted by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// Number of topics.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Number of partitions of all topics.
    pub fn partition_count(&self) -> usize {
        self.topics.values().map(|topic| topic.partitions.len()).sum()
    }

    /// Topic and index of a partition; walks all topics, so not for hot paths.
    pub fn locate(&self, partition: PartitionId) -> Option<(Arc<str>, u32)> {
        self.topics.values().find_map(|topic| {
            let index = topic.partitions.iter().position(|id| *id == partition)?;
            Some((topic.name.clone(), index as u32))
        })
    }

    pub(crate) fn insert(&mut self, topic: Topic) {
        self.names.insert(topic.id, topic.name.clone());
        self.topics.insert(topic.name.clone(), Arc::new(topic));
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Arc<Topic>> {
        let topic = self.topics.remove(name)?;
        self.names.remove(&topic.id);
        Some(topic)
    }
}
