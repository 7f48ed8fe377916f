//! Which partition a row goes to.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use baton_core::partitioner::{Sticky, partition_of_key};
use baton_core::relay::{Placed, Row};
use baton_engine::EngineError;

use super::sending::Content;

/// After so long the number of partitions is asked for again, in milliseconds.
const REFRESH_MS: u64 = 60_000;
/// How long until an engine that was away is asked again, in milliseconds.
const AGAIN_MS: u64 = 500;
/// For so long nobody asks again for a topic that is not there: rows for it are parked meanwhile, in milliseconds.
const ABSENT_MS: u64 = 100;
/// So many rows are parked for a topic that is not there. They say what is wrong; what comes after them stays in the table until it is there,
/// so that nobody has to let a million rows go.
const ABSENT_PARKED_MAX: usize = 1_000;
/// How often a topic is asked for that has so many parked rows, in milliseconds.
const ABSENT_AGAIN_MS: u64 = 5_000;
/// Topics that are remembered; with more, those for which no row waits are asked for anew.
const TOPICS_MAX: usize = 10_000;

/// The topics that rows go to.
#[derive(Default)]
pub(super) struct Topics(HashMap<Arc<str>, Topic>);

struct Topic {
    known: Known,
    /// Asked, and not answered yet.
    asked: bool,
    ask_ms: u64,
    /// Rows that were parked since it is not there.
    parked: usize,
    sticky: Sticky,
}

enum Known {
    Nothing,
    Partitions(NonZeroU32),
    Absent(String),
}

impl Topic {
    fn new(ask_ms: u64) -> Self {
        Self { known: Known::Nothing, asked: false, ask_ms, parked: 0, sticky: Sticky::default() }
    }

    /// It is not there, and enough rows say so.
    fn is_held(&self) -> bool {
        self.parked >= ABSENT_PARKED_MAX
    }

    /// Whether the engine is to be asked when its time comes: for one that is not there only if nobody waits for a row to ask.
    fn asks(&self) -> bool {
        !self.asked && (!matches!(self.known, Known::Absent(_)) || self.is_held())
    }
}

impl Topics {
    /// Where a row goes. `draw` is asked for a random number where one is needed.
    pub(super) fn place(&mut self, row: &Row<Content>, now_ms: u64, draw: impl FnOnce() -> u32) -> Placed {
        if let Err(reason) = &row.item.headers {
            return Placed::Never(reason.clone());
        }
        let Some(topic) = self.0.get_mut(&row.topic) else {
            if self.0.len() >= TOPICS_MAX {
                // Rows wait for those that are not known, or are held.
                self.0.retain(|_, topic| topic.is_held() || matches!(topic.known, Known::Nothing));
            }
            self.0.insert(Arc::clone(&row.topic), Topic::new(now_ms));
            return Placed::Later;
        };
        let there = match &topic.known {
            Known::Nothing => return Placed::Later,
            Known::Absent(_) if topic.parked >= ABSENT_PARKED_MAX => return Placed::Later,
            Known::Absent(_) if topic.ask_ms <= now_ms => {
                topic.known = Known::Nothing;
                return Placed::Later;
            }
            Known::Absent(reason) => {
                topic.parked += 1;
                return Placed::Never(reason.clone());
            }
            Known::Partitions(there) => *there,
        };
        Placed::To(match (row.item.partition, &row.key) {
            (Some(partition), _) if partition >= there.get() => {
                return Placed::Never(format!("{} has no partition {partition}, it has {there}", row.topic));
            }
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of_key(key, there),
            (None, None) => topic.sticky.next(row.item.bytes(), there, draw),
        })
    }

    /// The next topic that the engine is to be asked about now.
    pub(super) fn ask(&mut self, now_ms: u64) -> Option<Arc<str>> {
        let due = |topic: &Topic| topic.asks() && topic.ask_ms <= now_ms;
        let (name, topic) = self.0.iter_mut().find(|(_, topic)| due(topic))?;
        topic.asked = true;
        Some(Arc::clone(name))
    }

    /// When a topic is to be asked for next.
    pub(super) fn ask_ms(&self) -> Option<u64> {
        self.0.values().filter(|topic| topic.asks()).map(|topic| topic.ask_ms).min()
    }

    /// What the engine says. `true`: rows for it can be placed now.
    pub(super) fn learned(&mut self, name: &str, answer: Result<u32, EngineError>, now_ms: u64) -> bool {
        let Some(topic) = self.0.get_mut(name) else { return false };
        topic.asked = false;
        match answer.map(NonZeroU32::new) {
            Ok(Some(there)) => {
                (topic.known, topic.parked) = (Known::Partitions(there), 0);
                topic.ask_ms = now_ms.saturating_add(REFRESH_MS);
            }
            Err(EngineError::Caller(reason)) => {
                topic.known = Known::Absent(reason);
                topic.ask_ms = now_ms.saturating_add(if topic.is_held() { ABSENT_AGAIN_MS } else { ABSENT_MS });
                return !topic.is_held();
            }
            Ok(None) | Err(_) => {
                // What was known counts until the engine says something else.
                topic.ask_ms = now_ms.saturating_add(AGAIN_MS);
                return false;
            }
        }
        true
    }
}
