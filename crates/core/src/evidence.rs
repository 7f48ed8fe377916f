//! What a producer says about its sequences, so that an auditor can tell a loss from what was never sent. Written down in
//! `docs/EVIDENCE.md`.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::stamp::{BadInstance, Instance, SEQUENCE_MAX};
use crate::{Ranges, TopicPartition};

/// The topic that reports go to, under the instance's name as key.
pub const EVIDENCE_TOPIC: &str = "baton.evidence";
/// The version that is written, and the only one that is read.
pub const EVIDENCE_VERSION: u32 = 1;
/// Longest report, in bytes: well below the 1 MB that Kafka takes unless it is told otherwise. What is longer becomes several reports.
pub const REPORT_BYTES_MAX: usize = 256 * 1024;
/// Longest name of a topic, in bytes: RabbitMQ's limit for queues; Kafka's and RocketMQ's are lower.
pub const TOPIC_BYTES_MAX: usize = 255;

/// `[9007199254740991,9007199254740991],`
const INTERVAL_BYTES: usize = 36;
/// A sequence without its topic's name and its intervals, and a report without its sequences; both take less.
const FIXED_BYTES: usize = 256;

/// What is known of one sequence. Joining what several reports say is a union, so it does not matter in which order they come or how
/// often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SequenceEvidence {
    /// The highest number that was allotted. Numbers up to it that are in none of the sets are in flight.
    pub highest: u64,
    /// Numbers of messages that the engine acknowledged.
    pub acknowledged: Ranges,
    /// Numbers of messages that were given up and are certainly not stored.
    pub not_stored: Ranges,
    /// Numbers of messages that were given up and may be stored, then or later.
    pub unknown: Ranges,
    /// Whether no number above `highest` will ever be allotted.
    pub closed: bool,
}

/// What a report says of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedSequence {
    /// The epoch of the producer instance.
    pub epoch: u32,
    /// To which partition the messages went.
    pub partition: TopicPartition,
    /// What ended since the report before.
    pub evidence: SequenceEvidence,
}

/// What a producer instance reports at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Who reports.
    pub instance: Instance,
    /// When, in milliseconds since 1970, by the producer's clock; for people.
    pub at_ms: u64,
    /// About what.
    pub sequences: Vec<ReportedSequence>,
}

/// Not a report.
#[derive(Debug, Error)]
pub enum BadReport {
    /// It is too long.
    #[error("a report has at most {REPORT_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// Written by a newer Baton.
    #[error(
        "the report is of version {0}, newer than the {EVIDENCE_VERSION} known here: update auditors before producers"
    )]
    Newer(u32),
    /// It is not JSON, or not of this shape.
    #[error("not a report: {0}")]
    Json(#[from] serde_json::Error),
    /// The instance has no proper name.
    #[error(transparent)]
    Instance(#[from] BadInstance),
    /// It says what cannot be.
    #[error("sequence {index} of the report: {what}")]
    Sequence {
        /// Which of its sequences, from 0.
        index: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl SequenceEvidence {
    /// Adds what another report says of the same sequence.
    pub fn merge(&mut self, other: &Self) {
        self.highest = self.highest.max(other.highest);
        self.acknowledged.union(&other.acknowledged);
        self.not_stored.union(&other.not_stored);
        self.unknown.union(&other.unknown);
        self.closed |= other.closed;
    }

    /// What was allotted and has not ended yet, as far as is known.
    pub fn in_flight(&self) -> Ranges {
        let mut open: Ranges = (self.highest > 0).then_some(1..=self.highest).into_iter().collect();
        for ended in self.sets() {
            open.subtract(ended);
        }
        open
    }

    /// How many intervals it takes.
    pub fn intervals(&self) -> usize {
        self.sets().map(Ranges::intervals).iter().sum()
    }

    fn sets(&self) -> [&Ranges; 3] {
        [&self.acknowledged, &self.not_stored, &self.unknown]
    }

    fn check(&self) -> Result<(), &'static str> {
        let [acknowledged, not_stored, unknown] = self.sets();
        let within = |set: &Ranges| set.first().is_none_or(|first| first >= 1) && set.last() <= Some(self.highest);
        if self.highest > SEQUENCE_MAX {
            return Err("the highest number is above 2^53 - 1");
        }
        if ![acknowledged, not_stored, unknown].into_iter().all(within) {
            return Err("a range is not between 1 and the highest number");
        }
        if acknowledged.intersects(not_stored) || acknowledged.intersects(unknown) || not_stored.intersects(unknown) {
            return Err("a number ended in two ways");
        }
        Ok(())
    }

    /// The first `intervals` of it, and the rest if there is any.
    fn cut(self, intervals: usize) -> (Self, Option<Self>) {
        if self.intervals() <= intervals {
            return (self, None);
        }
        let (mut head, mut rest) = (Self { highest: self.highest, ..Self::default() }, Self::default());
        let mut room = intervals;
        let targets = [
            (&mut head.acknowledged, &mut rest.acknowledged),
            (&mut head.not_stored, &mut rest.not_stored),
            (&mut head.unknown, &mut rest.unknown),
        ];
        for (set, (near, far)) in self.sets().into_iter().zip(targets) {
            near.extend(set.iter().take(room));
            far.extend(set.iter().skip(room));
            room = room.saturating_sub(set.intervals());
        }
        (rest.highest, rest.closed) = (self.highest, self.closed);
        (head, Some(rest))
    }
}

impl Report {
    /// As many reports as it takes, each short enough to be encoded. A sequence that is cut says that it is closed in its last piece.
    pub fn split(instance: &Instance, at_ms: u64, sequences: impl IntoIterator<Item = ReportedSequence>) -> Vec<Self> {
        let mut reports = Vec::new();
        let mut current = Vec::new();
        let mut room = REPORT_BYTES_MAX - FIXED_BYTES;
        let mut finish = |sequences| reports.push(Self { instance: instance.clone(), at_ms, sequences });
        for ReportedSequence { epoch, partition, evidence } in sequences {
            let fixed = FIXED_BYTES + json_length(&partition.topic);
            let mut rest = Some(evidence);
            while let Some(evidence) = rest.take() {
                if room < fixed + INTERVAL_BYTES {
                    finish(std::mem::take(&mut current));
                    room = REPORT_BYTES_MAX - FIXED_BYTES;
                }
                let (piece, more) = evidence.cut((room.saturating_sub(fixed) / INTERVAL_BYTES).max(1));
                room = room.saturating_sub(fixed + piece.intervals() * INTERVAL_BYTES);
                current.push(ReportedSequence { epoch, partition: partition.clone(), evidence: piece });
                rest = more;
            }
        }
        if !current.is_empty() {
            finish(current);
        }
        reports
    }

    /// The report as JSON.
    pub fn encode(&self) -> Bytes {
        let sequences = self.sequences.iter().map(SequenceDocument::of).collect();
        let document = Document {
            version: EVIDENCE_VERSION,
            instance: self.instance.as_str().into(),
            at_ms: self.at_ms,
            sequences,
        };
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
        let document: Document<'_> = serde_json::from_slice(json)?;
        let instance = Instance::new(&*document.instance)?;
        let sequences = document
            .sequences
            .into_iter()
            .enumerate()
            .map(|(index, sequence)| sequence.check().map_err(|what| BadReport::Sequence { index, what }));
        Ok(Self { instance, at_ms: document.at_ms, sequences: sequences.collect::<Result<_, _>>()? })
    }
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
    sequences: Vec<SequenceDocument<'a>>,
}

#[derive(Serialize, Deserialize)]
struct SequenceDocument<'a> {
    topic: Cow<'a, str>,
    partition: u32,
    epoch: u32,
    highest: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    acknowledged: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    not_stored: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    closed: bool,
}

impl<'a> SequenceDocument<'a> {
    fn of(sequence: &'a ReportedSequence) -> Self {
        let ReportedSequence { epoch, partition, evidence } = sequence;
        let [acknowledged, not_stored, unknown] =
            evidence.sets().map(|set| set.iter().map(RangeInclusive::into_inner).collect());
        let (topic, partition) = (Cow::Borrowed(&*partition.topic), partition.partition);
        Self {
            topic,
            partition,
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
        if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX {
            return Err("the name of a topic has 1 to 255 bytes");
        }
        if [&acknowledged, &not_stored, &unknown].into_iter().flatten().any(|(first, last)| first > last) {
            return Err("a range ends before it begins");
        }
        let [acknowledged, not_stored, unknown] = [acknowledged, not_stored, unknown]
            .map(|ranges| ranges.into_iter().map(|(first, last)| first..=last).collect());
        let evidence = SequenceEvidence { highest, acknowledged, not_stored, unknown, closed };
        evidence.check()?;
        Ok(ReportedSequence { epoch, partition: TopicPartition::new(&*topic, partition), evidence })
    }
}

/// Longest that JSON makes of a text: what needs an escape takes up to 6 bytes.
fn json_length(text: &str) -> usize {
    text.bytes().map(|byte| if byte < b' ' || byte == b'"' || byte == b'\\' { 6 } else { 1 }).sum()
}
