//! What is done to the processes, and when: made of a seed alone, so that a seed replays it.

use baton_testkit::Random;

/// Places for consumers. The last one is taken and left in an orderly way.
pub(crate) const CONSUMERS: usize = 3;

/// A round begins with a while of peace. The shortest kills while the group still shares out its partitions after the last
/// kill; the longest lets a killed member's session end.
const PEACE_MS: (u64, u64) = (100, 1_200);
const PEACE_LONG_MS: (u64, u64) = (1_200, 4_000);
const PEACE_LONG_PERCENT: u64 = 50;
/// How long a consumer stands still: just longer than its session, so that it goes on while others are catching up with what it has
/// begun; or longer than a claim's lease as well.
const PAUSE_MS: (u64, u64) = (2_000, 3_500);
const PAUSE_LONG_MS: (u64, u64) = (5_000, 9_000);
const PAUSE_LONG_PERCENT: u64 = 40;
/// How long the killed stay dead.
const DEATH_MS: (u64, u64) = (0, 1_500);
/// How long the network is disturbed, mostly; and so long that sessions end and clients give up waiting.
const DISTURBED_MS: (u64, u64) = (300, 4_000);
const DISTURBED_LONG_MS: (u64, u64) = (10_000, 25_000);
const DISTURBED_LONG_PERCENT: u64 = 12;
/// How long the engine stays dead.
const ENGINE_DEATH_MS: (u64, u64) = (0, 2_000);

/// What else may be done in a round, and how often, in percent.
const ALL_PERCENT: u64 = 20;
const PRODUCER_PERCENT: u64 = 25;
const RESIZE_PERCENT: u64 = 20;
const NETWORK_PERCENT: u64 = 40;
const PAUSE_PERCENT: u64 = 25;

/// A round: what happens, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Round {
    /// A consumer that stands still, before anything else happens.
    pub pause: Option<Pause>,
    pub peace_ms: u64,
    /// A disturbance of the network that ends before the kill.
    pub network: Option<Disturbance>,
    /// The consumer in the last place leaves or comes.
    pub resize: bool,
    /// Who is killed: a place, or all of them. There is somebody in each of these places.
    pub kill: Kill,
    pub kill_producer: bool,
    /// How long the engine is dead, if it is killed or stopped.
    pub engine_death_ms: Option<u64>,
    /// How long the consumers are dead.
    pub death_ms: u64,
}

/// Who stands still, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pause {
    pub place: usize,
    pub lasts_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kill {
    One(usize),
    All,
}

/// Which way is disturbed, how, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disturbance {
    pub way: Way,
    pub how: How,
    pub lasts_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToEngine,
    ToDatabase,
}

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Everything arrives late.
    Delay,
    /// Nothing passes, and nothing is lost.
    Stall,
    /// All connections end, and new ones too.
    Cut,
    /// Requests arrive; answers are lost, and the connections end in the end.
    LostAnswers,
    /// Connections look open, and what is sent is lost.
    HalfOpen,
}

const ALL_HOWS: [How; 5] = [How::Delay, How::Stall, How::Cut, How::LostAnswers, How::HalfOpen];

/// What a plan may do beside kills of consumers and producers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope {
    /// In how many of a hundred rounds the engine is killed or stopped.
    pub engine_percent: u64,
    pub network: bool,
    /// Whether the database is reached over the network.
    pub remote_database: bool,
}

/// The rounds that a seed means; they have no end.
pub(crate) struct Plan {
    random: Random,
    scope: Scope,
    last_place_taken: bool,
}

impl Plan {
    pub(crate) fn new(seed: u64, scope: Scope) -> Self {
        // The last place is empty at first.
        Self { random: Random::new(seed), scope, last_place_taken: false }
    }

    fn places(&self) -> usize {
        if self.last_place_taken { CONSUMERS } else { CONSUMERS - 1 }
    }

    pub(crate) fn next_round(&mut self) -> Round {
        let places_before = self.places();
        // All numbers are drawn in every round, so that a narrower scope leaves the others as they are.
        let random = &mut self.random;
        let (short_ms, long_ms) =
            (random.between(PEACE_MS.0, PEACE_MS.1), random.between(PEACE_LONG_MS.0, PEACE_LONG_MS.1));
        let peace_ms = if random.percent(PEACE_LONG_PERCENT) { long_ms } else { short_ms };
        let death_ms = random.between(DEATH_MS.0, DEATH_MS.1);
        let (paused, paused_long) = (random.percent(PAUSE_PERCENT), random.percent(PAUSE_LONG_PERCENT));
        let (from_ms, to_ms) = if paused_long { PAUSE_LONG_MS } else { PAUSE_MS };
        let (pause_ms, whom_paused) = (random.between(from_ms, to_ms), random.next_u64());
        let (all, resize) = (random.percent(ALL_PERCENT), random.percent(RESIZE_PERCENT));
        let kill_producer = random.percent(PRODUCER_PERCENT);
        let (engine, engine_ms) =
            (random.percent(self.scope.engine_percent), random.between(ENGINE_DEATH_MS.0, ENGINE_DEATH_MS.1));
        let (network, to_engine) = (random.percent(NETWORK_PERCENT), random.percent(70));
        let how = ALL_HOWS[random.index(ALL_HOWS.len())];
        let (short_ms, long_ms) =
            (random.between(DISTURBED_MS.0, DISTURBED_MS.1), random.between(DISTURBED_LONG_MS.0, DISTURBED_LONG_MS.1));
        let lasts_ms = if random.percent(DISTURBED_LONG_PERCENT) { long_ms } else { short_ms };
        let whom = random.next_u64();
        self.last_place_taken ^= resize;
        let places = self.places();
        let way = if to_engine || !self.scope.remote_database { Way::ToEngine } else { Way::ToDatabase };
        Round {
            pause: paused.then_some(Pause { place: (whom_paused % places_before as u64) as usize, lasts_ms: pause_ms }),
            peace_ms,
            network: (network && self.scope.network).then_some(Disturbance { way, how, lasts_ms }),
            resize,
            kill: if all { Kill::All } else { Kill::One((whom % places as u64) as usize) },
            kill_producer,
            engine_death_ms: engine.then_some(engine_ms),
            death_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Scope = Scope { engine_percent: 12, network: true, remote_database: true };

    fn rounds(seed: u64, scope: Scope) -> Vec<Round> {
        let mut plan = Plan::new(seed, scope);
        (0..300).map(|_| plan.next_round()).collect()
    }

    #[test]
    fn a_seed_replays_its_rounds() {
        assert_eq!(rounds(7, ALL), rounds(7, ALL));
        assert_ne!(rounds(7, ALL), rounds(8, ALL));
    }

    #[test]
    fn a_narrower_scope_changes_nothing_else() {
        let narrow = Scope { engine_percent: 0, network: false, remote_database: false };
        let bare = |round: &Round| Round { network: None, engine_death_ms: None, ..round.clone() };
        assert_eq!(rounds(7, narrow), rounds(7, ALL).iter().map(bare).collect::<Vec<_>>());
    }

    #[test]
    fn every_kind_of_fault_comes_and_only_who_is_there_is_killed() {
        let (rounds, mut taken) = (rounds(3, ALL), false);
        for round in &rounds {
            let places = |taken: bool| if taken { CONSUMERS } else { CONSUMERS - 1 };
            assert!(round.pause.is_none_or(|pause| pause.place < places(taken)), "{round:?}");
            taken ^= round.resize;
            if let Kill::One(place) = round.kill {
                assert!(place < places(taken), "{round:?}");
            }
        }
        for how in ALL_HOWS {
            for way in [Way::ToEngine, Way::ToDatabase] {
                let there = |round: &Round| round.network.is_some_and(|found| found.how == how && found.way == way);
                assert!(rounds.iter().any(there), "{how:?} {way:?}");
            }
        }
        assert!(rounds.iter().any(|round| round.kill == Kill::All));
        assert!(rounds.iter().any(|round| round.pause.is_some()));
        assert!(rounds.iter().any(|round| round.kill_producer) && rounds.iter().any(|round| !round.kill_producer));
        assert!(rounds.iter().any(|round| round.engine_death_ms.is_some()));
    }
}
