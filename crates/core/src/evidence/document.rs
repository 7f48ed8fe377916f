//! A report as JSON.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::group::{
    ConsumedSequence, Consumption, Counts, GroupEvidence, REPORTED_GROUP_BYTES_MAX, SequenceName, Unstamped,
};
use super::{
    BadReport, EVIDENCE_VERSION, REPORT_BYTES_MAX, Report, ReportedSequence, SequenceEvidence, TOPIC_BYTES_MAX,
};
use crate::stamp::{Instance, SEQUENCE_MAX};
use crate::{Ranges, TopicPartition};

type Intervals = Vec<(u64, u64)>;

impl Report {
    /// The report as JSON.
    pub fn encode(&self) -> Bytes {
        let mut document = Document {
            version: EVIDENCE_VERSION,
            instance: self.instance.as_str().into(),
            at_ms: self.at_ms,
            sequences: self.sequences.iter().map(SequenceDocument::of).collect(),
            group: None,
            consumed: Vec::new(),
            unstamped: Vec::new(),
            untold: 0,
        };
        if let Some(Consumption { group, sequences, unstamped, untold }) = &self.consumption {
            (document.group, document.untold) = (Some(Cow::Borrowed(&**group)), *untold);
            document.consumed = sequences.iter().map(ConsumedDocument::of).collect();
            document.unstamped = unstamped.iter().map(UnstampedDocument::of).collect();
        }
        // Numbers, strings and arrays: there is nothing in it that JSON could not say.
        serde_json::to_vec(&document).map(Bytes::from).unwrap_or_default()
    }

    /// Reads a report. Fields that are not known are passed over: within a version they may be added.
    pub fn decode(json: &[u8]) -> Result<Self, BadReport> {
        if json.len() > REPORT_BYTES_MAX {
            return Err(BadReport::TooLong(json.len()));
        }
        let Version { version } = serde_json::from_slice(json)?;
        if version > EVIDENCE_VERSION {
            return Err(BadReport::Newer(version));
        }
        let Document { instance, at_ms, sequences, group, consumed, unstamped, untold, .. } =
            serde_json::from_slice(json)?;
        let instance = Instance::new(&*instance)?;
        let sequences = all(sequences, SequenceDocument::check, |index, what| BadReport::Sequence { index, what })?;
        let bad = |index, what| BadReport::Consumed { index, what };
        let consumption = match group {
            None if consumed.is_empty() && unstamped.is_empty() => None,
            None => return Err(BadReport::Group),
            Some(group) if group.is_empty() || group.len() > REPORTED_GROUP_BYTES_MAX => return Err(BadReport::Group),
            Some(group) => Some(Consumption {
                group: (&*group).into(),
                sequences: all(consumed, ConsumedDocument::check, bad)?,
                unstamped: all(unstamped, UnstampedDocument::check, bad)?,
                untold,
            }),
        };
        Ok(Self { instance, at_ms, sequences, consumption })
    }
}

/// Checks each of a list, and says which one is wrong.
fn all<D, T>(
    documents: Vec<D>,
    check: impl Fn(D) -> Result<T, &'static str>,
    bad: impl Fn(usize, &'static str) -> BadReport,
) -> Result<Vec<T>, BadReport> {
    documents.into_iter().enumerate().map(|(index, one)| check(one).map_err(|what| bad(index, what))).collect()
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Document<'a> {
    version: u32,
    instance: Cow<'a, str>,
    at_ms: u64,
    /// Also of who has produced nothing: whoever knows of producers only misses no field.
    sequences: Vec<SequenceDocument<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_default")]
    consumed: Vec<ConsumedDocument<'a>>,
    #[serde(default, skip_serializing_if = "is_default")]
    unstamped: Vec<UnstampedDocument<'a>>,
    #[serde(default, skip_serializing_if = "is_default")]
    untold: u64,
}

#[derive(Serialize, Deserialize)]
struct SequenceDocument<'a> {
    topic: Cow<'a, str>,
    partition: u32,
    epoch: u32,
    highest: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    acknowledged: Intervals,
    #[serde(default, skip_serializing_if = "is_default")]
    not_stored: Intervals,
    #[serde(default, skip_serializing_if = "is_default")]
    unknown: Intervals,
    #[serde(default, skip_serializing_if = "is_default")]
    closed: bool,
}

/// In the order of [`super::Seen::ALL`].
#[derive(Serialize, Deserialize, PartialEq)]
#[serde(bound(serialize = "T: Serialize + Default + PartialEq", deserialize = "T: Deserialize<'de> + Default"))]
struct SeenDocument<T> {
    #[serde(default, skip_serializing_if = "is_default")]
    delivered: T,
    #[serde(default, skip_serializing_if = "is_default")]
    applied: T,
    #[serde(default, skip_serializing_if = "is_default")]
    already_applied: T,
    #[serde(default, skip_serializing_if = "is_default")]
    filtered: T,
    #[serde(default, skip_serializing_if = "is_default")]
    dead_lettered: T,
    #[serde(default, skip_serializing_if = "is_default")]
    parked: T,
    #[serde(default, skip_serializing_if = "is_default")]
    done_before: T,
}

#[derive(Serialize, Deserialize, PartialEq)]
struct ConsumedDocument<'a> {
    topic: Cow<'a, str>,
    partition: u32,
    instance: Cow<'a, str>,
    epoch: u32,
    #[serde(flatten)]
    seen: SeenDocument<Intervals>,
}

#[derive(Serialize, Deserialize, PartialEq)]
struct UnstampedDocument<'a> {
    topic: Cow<'a, str>,
    partition: u32,
    #[serde(flatten)]
    seen: SeenDocument<u64>,
}

impl<T> SeenDocument<T> {
    fn of(
        [delivered, applied, already_applied, filtered, dead_lettered, parked, done_before]: [T; super::Seen::ALL
            .len()],
    ) -> Self {
        Self { delivered, applied, already_applied, filtered, dead_lettered, parked, done_before }
    }

    fn into_array(self) -> [T; super::Seen::ALL.len()] {
        let Self { delivered, applied, already_applied, filtered, dead_lettered, parked, done_before } = self;
        [delivered, applied, already_applied, filtered, dead_lettered, parked, done_before]
    }
}

impl<'a> SequenceDocument<'a> {
    fn of(sequence: &'a ReportedSequence) -> Self {
        let ReportedSequence { epoch, partition, evidence } = sequence;
        let [acknowledged, not_stored, unknown] = evidence.sets().map(intervals);
        Self {
            topic: Cow::Borrowed(&*partition.topic),
            partition: partition.partition,
            epoch: *epoch,
            highest: evidence.highest,
            acknowledged,
            not_stored,
            unknown,
            closed: evidence.closed,
        }
    }

    fn check(self) -> Result<ReportedSequence, &'static str> {
        let Self { topic, partition, epoch, highest, acknowledged, not_stored, unknown, closed } = self;
        let partition = partition_of(&topic, partition)?;
        let [acknowledged, not_stored, unknown] = [ranges(acknowledged)?, ranges(not_stored)?, ranges(unknown)?];
        let evidence = SequenceEvidence { highest, acknowledged, not_stored, unknown, closed };
        evidence.check()?;
        Ok(ReportedSequence { epoch, partition, evidence })
    }
}

impl<'a> ConsumedDocument<'a> {
    fn of(ConsumedSequence { name, evidence }: &'a ConsumedSequence) -> Self {
        let SequenceName { partition, instance, epoch } = name;
        Self {
            topic: Cow::Borrowed(&*partition.topic),
            partition: partition.partition,
            instance: instance.as_str().into(),
            epoch: *epoch,
            seen: SeenDocument::of(evidence.0.each_ref().map(intervals)),
        }
    }

    fn check(self) -> Result<ConsumedSequence, &'static str> {
        let Self { topic, partition, instance, epoch, seen } = self;
        let partition = partition_of(&topic, partition)?;
        let instance = Instance::new(&*instance).map_err(|_| "the producer instance cannot have this name")?;
        let mut evidence = GroupEvidence::default();
        for (set, seen) in evidence.0.iter_mut().zip(seen.into_array()) {
            *set = ranges(seen)?;
            if set.first() == Some(0) || set.last() > Some(SEQUENCE_MAX) {
                return Err("a range is not between 1 and 2^53 - 1");
            }
        }
        Ok(ConsumedSequence { name: SequenceName { partition, instance, epoch }, evidence })
    }
}

impl<'a> UnstampedDocument<'a> {
    fn of(Unstamped { partition, counts }: &'a Unstamped) -> Self {
        let (topic, partition) = (Cow::Borrowed(&*partition.topic), partition.partition);
        Self { topic, partition, seen: SeenDocument::of(counts.0) }
    }

    fn check(self) -> Result<Unstamped, &'static str> {
        let Self { topic, partition, seen } = self;
        Ok(Unstamped { partition: partition_of(&topic, partition)?, counts: Counts(seen.into_array()) })
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn intervals(set: &Ranges) -> Intervals {
    set.iter().map(RangeInclusive::into_inner).collect()
}

fn ranges(intervals: Intervals) -> Result<Ranges, &'static str> {
    match intervals.iter().any(|(first, last)| first > last) {
        true => Err("a range ends before it begins"),
        false => Ok(intervals.into_iter().map(|(first, last)| first..=last).collect()),
    }
}

fn partition_of(topic: &str, partition: u32) -> Result<TopicPartition, &'static str> {
    match topic.is_empty() || topic.len() > TOPIC_BYTES_MAX {
        true => Err("the name of a topic has 1 to 255 bytes"),
        false => Ok(TopicPartition::new(topic, partition)),
    }
}
