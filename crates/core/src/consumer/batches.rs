//! Batches: several messages to one handler. In this order each partition is one lane.

use smallvec::smallvec;

use super::core::Core;
use super::lanes::{Fate, LaneId, LaneState, TenureId};
use super::runs::{Part, Parts};
use super::settings::Batches;

/// What a lane could give to a batch.
struct Offer {
    lane: LaneId,
    tenure: TenureId,
    messages: usize,
    bytes: usize,
    oldest_ms: u64,
    /// After a batch failed, its messages go one by one.
    single: bool,
}

impl Core {
    /// Starts batches. Partitions are few, so that looking at each of them costs little for each batch.
    pub(super) fn start_batches(&mut self, batches: Batches, now_ms: u64) {
        while self.may_start(now_ms) {
            let offers = self.offers(batches);
            let probing = self.dependency.down_since_ms().is_some();
            let is_full =
                |messages: usize, bytes: usize| messages >= batches.messages_max || bytes >= batches.bytes_max;
            let is_due = |offer: &Offer| offer.oldest_ms.saturating_add(batches.wait_ms) <= now_ms;
            let chosen: Parts = if let Some(offer) = offers.iter().find(|offer| offer.single || probing) {
                smallvec![Part { tenure: offer.tenure, lane: offer.lane, count: 1 }]
            } else if batches.across_partitions {
                let (messages, bytes) = offers
                    .iter()
                    .fold((0, 0), |(messages, bytes), offer| (messages + offer.messages, bytes + offer.bytes));
                if !is_full(messages, bytes) && !offers.iter().any(is_due) {
                    return;
                }
                self.gather(&offers, batches)
            } else {
                let ripe = offers.iter().find(|offer| is_full(offer.messages, offer.bytes) || is_due(offer));
                ripe.map(|offer| Part { tenure: offer.tenure, lane: offer.lane, count: offer.messages })
                    .into_iter()
                    .collect()
            };
            if chosen.is_empty() {
                return;
            }
            for part in &chosen {
                self.take_turn(part.tenure);
            }
            self.start(chosen, now_ms);
        }
    }

    /// What each partition whose turn comes could give.
    fn offers(&self, batches: Batches) -> Vec<Offer> {
        let lanes = self.turn.iter().filter_map(|tenure| Some((*tenure, *self.tenures.get(tenure)?.ready.front()?)));
        let offers = lanes.filter_map(|(tenure, lane_id)| {
            let lane = self.lanes.get(&lane_id).filter(|lane| lane.state == LaneState::Ready)?;
            let (mut messages, mut bytes) = (0, 0);
            for entry in lane.iter().take(batches.messages_max).take_while(|entry| entry.fate == Fate::Handle) {
                // A message larger than a batch goes alone.
                if messages > 0 && bytes + entry.bytes > batches.bytes_max {
                    bytes = batches.bytes_max;
                    break;
                }
                messages += 1;
                bytes += entry.bytes;
            }
            let oldest_ms = lane.front()?.arrived_ms;
            Some(Offer { lane: lane_id, tenure, messages, bytes, oldest_ms, single: lane.singles_left > 0 })
        });
        offers.collect()
    }

    /// One batch of several partitions, oldest turn first.
    fn gather(&self, offers: &[Offer], batches: Batches) -> Parts {
        let (mut parts, mut messages, mut bytes) = (Parts::new(), 0, 0);
        for offer in offers {
            let Some(lane) = self.lanes.get(&offer.lane) else {
                continue;
            };
            let mut count = 0;
            for entry in lane.iter().take(offer.messages) {
                if messages == batches.messages_max || (messages > 0 && bytes + entry.bytes > batches.bytes_max) {
                    break;
                }
                messages += 1;
                bytes += entry.bytes;
                count += 1;
            }
            if count == 0 {
                break;
            }
            parts.push(Part { tenure: offer.tenure, lane: offer.lane, count });
        }
        parts
    }

    /// The partition's lane goes to a handler: it has no turn until the lane is ready again.
    fn take_turn(&mut self, tenure_id: TenureId) {
        if let Some(tenure) = self.tenures.get_mut(&tenure_id) {
            tenure.ready.pop_front();
            tenure.in_turn = false;
        }
        self.turn.retain(|other| *other != tenure_id);
    }

    /// When the first batch that is not full may wait no longer.
    pub(super) fn batch_at_ms(&self, batches: Batches) -> Option<u64> {
        let offers = self.offers(batches);
        offers.iter().map(|offer| offer.oldest_ms.saturating_add(batches.wait_ms)).min()
    }
}
