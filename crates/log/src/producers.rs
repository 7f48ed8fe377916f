//! Idempotent producers of one partition: a pure state machine that says of each batch whether it is new, was stored
//! before, or does not follow what was stored before.

use std::collections::{HashMap, VecDeque};

use baton_wire::records::BatchHeader;

use crate::codec::{Decoder, Encoder, Malformed};

/// Batches remembered per producer, and so the number that may be in flight at once: Kafka's number.
const BATCHES_REMEMBERED: usize = 5;

/// Why a batch of an idempotent producer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProducerFault {
    /// Batches before this one are missing, or it was stored too long ago to be recognised.
    OutOfOrderSequence,
    /// A newer incarnation of the producer has written already.
    StaleEpoch,
}

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is not from an idempotent producer, or the next one of it.
    Append,
    /// It is stored already, from this offset on.
    Duplicate { base_offset: i64 },
    /// It must not be stored.
    Refuse(ProducerFault),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    last_append_ms: i64,
    /// Oldest first.
    seen: VecDeque<Seen>,
}

/// The producers of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    by_id: HashMap<i64, Producer>,
}

/// The sequence number `count` after `sequence`; they wrap from 2^31-1 to 0.
fn advance(sequence: i32, count: i32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) & i64::from(i32::MAX)) as i32
}

impl Producers {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn knows(&self, producer_id: i64) -> bool {
        self.by_id.contains_key(&producer_id)
    }

    /// Judges a batch; changes nothing.
    pub fn check(&self, batch: &BatchHeader) -> Verdict {
        if batch.producer_id < 0 {
            return Verdict::Append;
        }
        // An unknown producer may start anywhere: its state may have expired.
        let Some(producer) = self.by_id.get(&batch.producer_id) else { return Verdict::Append };
        if batch.producer_epoch < producer.epoch {
            return Verdict::Refuse(ProducerFault::StaleEpoch);
        }
        if batch.producer_epoch > producer.epoch {
            return if batch.base_sequence == 0 {
                Verdict::Append
            } else {
                Verdict::Refuse(ProducerFault::OutOfOrderSequence)
            };
        }
        let last_sequence = advance(batch.base_sequence, batch.last_offset_delta);
        let same = |seen: &&Seen| seen.first_sequence == batch.base_sequence && seen.last_sequence == last_sequence;
        if let Some(seen) = producer.seen.iter().find(same) {
            return Verdict::Duplicate { base_offset: seen.base_offset };
        }
        match producer.seen.back() {
            Some(newest) if advance(newest.last_sequence, 1) != batch.base_sequence => {
                Verdict::Refuse(ProducerFault::OutOfOrderSequence)
            }
            _ => Verdict::Append,
        }
    }

    /// Remembers a batch that is being stored.
    pub fn record(&mut self, batch: &BatchHeader, base_offset: i64, now_ms: i64) {
        if batch.producer_id < 0 {
            return;
        }
        let producer = self.by_id.entry(batch.producer_id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch,
            last_append_ms: now_ms,
            seen: VecDeque::with_capacity(BATCHES_REMEMBERED),
        });
        if producer.epoch != batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.seen.clear();
        }
        if producer.seen.len() == BATCHES_REMEMBERED {
            producer.seen.pop_front();
        }
        let last_sequence = advance(batch.base_sequence, batch.last_offset_delta);
        producer.seen.push_back(Seen { first_sequence: batch.base_sequence, last_sequence, base_offset });
        producer.last_append_ms = now_ms;
    }

    /// Forgets who has not written since `before_ms`; returns how many.
    pub fn expire(&mut self, before_ms: i64) -> usize {
        let known = self.by_id.len();
        self.by_id.retain(|_, producer| producer.last_append_ms >= before_ms);
        known - self.by_id.len()
    }

    pub fn encode(&self, out: &mut Encoder) {
        out.count(self.by_id.len());
        for (id, producer) in &self.by_id {
            out.i64(*id);
            out.i16(producer.epoch);
            out.i64(producer.last_append_ms);
            out.count(producer.seen.len());
            for seen in &producer.seen {
                out.i32(seen.first_sequence);
                out.i32(seen.last_sequence);
                out.i64(seen.base_offset);
            }
        }
    }

    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let count = from.count()?;
        let mut by_id = HashMap::with_capacity(count.min(1024));
        for _ in 0..count {
            let (id, epoch, last_append_ms) = (from.i64()?, from.i16()?, from.i64()?);
            let batches = from.count()?;
            let seen = (0..batches).map(|_| {
                Ok(Seen { first_sequence: from.i32()?, last_sequence: from.i32()?, base_offset: from.i64()? })
            });
            by_id.insert(id, Producer { epoch, last_append_ms, seen: seen.collect::<Result<_, Malformed>>()? });
        }
        Ok(Self { by_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(epoch: i16, base_sequence: i32, count: i32) -> BatchHeader {
        BatchHeader {
            base_offset: 0,
            batch_length: 100,
            partition_leader_epoch: 0,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: 5,
            producer_epoch: epoch,
            base_sequence,
            record_count: count,
        }
    }

    fn stored(batches: &[(i16, i32, i32)]) -> Producers {
        let mut producers = Producers::default();
        let mut offset = 100;
        for (epoch, sequence, count) in batches {
            let batch = batch(*epoch, *sequence, *count);
            assert_eq!(producers.check(&batch), Verdict::Append);
            producers.record(&batch, offset, 1);
            offset += i64::from(*count);
        }
        producers
    }

    #[test]
    fn the_same_batch_again_is_answered_with_its_first_offset() {
        let producers = stored(&[(0, 0, 3), (0, 3, 2)]);
        assert_eq!(producers.check(&batch(0, 0, 3)), Verdict::Duplicate { base_offset: 100 });
        assert_eq!(producers.check(&batch(0, 3, 2)), Verdict::Duplicate { base_offset: 103 });
    }

    #[test]
    fn a_gap_is_refused() {
        let producers = stored(&[(0, 0, 3)]);
        assert_eq!(producers.check(&batch(0, 4, 1)), Verdict::Refuse(ProducerFault::OutOfOrderSequence));
    }

    #[test]
    fn a_batch_older_than_the_remembered_ones_is_refused() {
        let producers = stored(&[(0, 0, 1), (0, 1, 1), (0, 2, 1), (0, 3, 1), (0, 4, 1), (0, 5, 1)]);
        assert_eq!(producers.check(&batch(0, 0, 1)), Verdict::Refuse(ProducerFault::OutOfOrderSequence));
        assert_eq!(producers.check(&batch(0, 1, 1)), Verdict::Duplicate { base_offset: 101 });
    }

    #[test]
    fn an_older_epoch_is_fenced_and_a_newer_one_starts_at_zero() {
        let producers = stored(&[(3, 0, 1)]);
        assert_eq!(producers.check(&batch(2, 1, 1)), Verdict::Refuse(ProducerFault::StaleEpoch));
        assert_eq!(producers.check(&batch(4, 1, 1)), Verdict::Refuse(ProducerFault::OutOfOrderSequence));
        assert_eq!(producers.check(&batch(4, 0, 1)), Verdict::Append);
    }

    #[test]
    fn an_unknown_producer_may_start_anywhere() {
        assert_eq!(Producers::default().check(&batch(7, 1234, 1)), Verdict::Append);
    }

    #[test]
    fn sequence_numbers_wrap_to_zero() {
        let producers = stored(&[(0, i32::MAX - 1, 2)]);
        assert_eq!(producers.check(&batch(0, 0, 1)), Verdict::Append);
        let across = stored(&[(0, i32::MAX, 3)]);
        assert_eq!(across.check(&batch(0, 2, 1)), Verdict::Append);
        assert_eq!(across.check(&batch(0, i32::MAX, 3)), Verdict::Duplicate { base_offset: 100 });
    }

    #[test]
    fn who_has_not_written_for_long_is_forgotten() {
        let mut producers = stored(&[(0, 0, 1)]);
        assert_eq!(producers.expire(1), 0);
        assert_eq!(producers.expire(2), 1);
        assert!(!producers.knows(5));
    }

    #[test]
    fn state_comes_back_from_its_encoding() {
        let producers = stored(&[(0, 0, 3), (0, 3, 2), (1, 0, 4)]);
        let mut out = Encoder::default();
        producers.encode(&mut out);
        assert_eq!(Producers::decode(&mut Decoder(&out.0)), Ok(producers));
    }
}
