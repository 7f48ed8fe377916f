//! What is done in a round, and when: made of a seed alone, so that a seed replays it.

use baton_testkit::Random;

use super::cast::{RELAYS, SERVICES};

/// Peace before a deed: the shortest leaves the relays in the middle of taking over, the longest lets them come to rest.
const PEACE_MS: (u64, u64) = (100, 900);
const PEACE_LONG_MS: (u64, u64) = (900, 2_500);
const PEACE_LONG_PERCENT: u64 = 40;
/// How long the killed stay dead: shorter and longer than a lease.
const DEATH_MS: (u64, u64) = (0, 1_600);
/// How long a relay stands still: longer than its lease.
const PAUSE_MS: (u64, u64) = (1_300, 3_000);
/// Of relays that stand still, so many see their successor killed meanwhile.
const SUCCESSOR_DIES_PERCENT: u64 = 35;

/// What is done in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// A relay is killed.
    Relay(usize),
    /// All of them are.
    Relays,
    Service(usize),
    Services,
    /// A relay stands still for longer than its lease; the other one may be killed when it has taken over.
    RelayStands {
        place: usize,
        successor_dies: bool,
    },
    /// A service stands still with its transactions open.
    ServiceStands(usize),
    /// The database is killed; if it is a file, all who have it open.
    Database,
    Engine,
    /// Everybody at once, as when the power fails.
    All,
}

/// Of so many rounds each deed has its share; in each such deck the first rounds are one of each.
const DECK: [(Kind, usize); 9] = [
    (Kind::Relay, 6),
    (Kind::Relays, 2),
    (Kind::Service, 3),
    (Kind::Services, 2),
    (Kind::RelayStands, 4),
    (Kind::ServiceStands, 2),
    (Kind::Database, 3),
    (Kind::Engine, 2),
    (Kind::All, 1),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Relay,
    Relays,
    Service,
    Services,
    RelayStands,
    ServiceStands,
    Database,
    Engine,
    All,
}

/// A round: peace, and a deed that lasts for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) peace_ms: u64,
    pub(super) deed: Deed,
    pub(super) lasts_ms: u64,
}

/// The rounds that a seed means; they have no end.
pub(super) struct Plan {
    random: Random,
    deck: Vec<Kind>,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), deck: Vec::new() }
    }

    pub(super) fn next_round(&mut self) -> Round {
        let kind = self.draw();
        let random = &mut self.random;
        let (from_ms, to_ms) = if random.percent(PEACE_LONG_PERCENT) { PEACE_LONG_MS } else { PEACE_MS };
        let peace_ms = random.between(from_ms, to_ms);
        let (relay, service) = (random.index(RELAYS), random.index(SERVICES));
        let successor_dies = random.percent(SUCCESSOR_DIES_PERCENT);
        let (death_ms, pause_ms) = (random.between(DEATH_MS.0, DEATH_MS.1), random.between(PAUSE_MS.0, PAUSE_MS.1));
        let (deed, lasts_ms) = match kind {
            Kind::Relay => (Deed::Relay(relay), death_ms),
            Kind::Relays => (Deed::Relays, death_ms),
            Kind::Service => (Deed::Service(service), death_ms),
            Kind::Services => (Deed::Services, death_ms),
            Kind::RelayStands => (Deed::RelayStands { place: relay, successor_dies }, pause_ms),
            Kind::ServiceStands => (Deed::ServiceStands(service), pause_ms),
            Kind::Database => (Deed::Database, death_ms),
            Kind::Engine => (Deed::Engine, death_ms),
            Kind::All => (Deed::All, death_ms),
        };
        Round { peace_ms, deed, lasts_ms }
    }

    fn draw(&mut self) -> Kind {
        loop {
            if let Some(kind) = self.deck.pop() {
                return kind;
            }
            let rest = DECK.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, count - 1));
            self.deck = rest.collect();
            self.random.shuffle(&mut self.deck);
            let mut first = DECK.map(|(kind, _)| kind);
            self.random.shuffle(&mut first);
            self.deck.extend(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(seed: u64, count: usize) -> Vec<Round> {
        let mut plan = Plan::new(seed);
        (0..count).map(|_| plan.next_round()).collect()
    }

    #[test]
    fn a_seed_replays_its_rounds() {
        assert_eq!(rounds(7, 300), rounds(7, 300));
        assert_ne!(rounds(7, 300), rounds(8, 300));
    }

    #[test]
    fn a_short_run_does_everything_once_and_a_long_one_kills_database_and_engine_twenty_times() {
        let short: std::collections::HashSet<_> =
            rounds(3, DECK.len()).iter().map(|round| std::mem::discriminant(&round.deed)).collect();
        assert_eq!(short.len(), DECK.len());
        let long = rounds(3, 300);
        for deed in [Deed::Database, Deed::Engine, Deed::Relays, Deed::Services] {
            assert!(long.iter().filter(|round| round.deed == deed).count() >= 20, "{deed:?}");
        }
        assert!(long.iter().any(|round| matches!(round.deed, Deed::RelayStands { successor_dies: true, .. })));
    }
}
