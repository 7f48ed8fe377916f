//! Which shards a relay should have, when several share an outbox.

use std::collections::BTreeSet;

/// A shard as the database shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which one.
    pub shard: u16,
    /// Whose it is; nobody's if its lease has ended.
    pub owner: Option<String>,
}

/// What is to change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turnover {
    /// To be taken now.
    pub take: Vec<u16>,
    /// To be given up, as soon as nothing of them is with the engine.
    pub leave: Vec<u16>,
}

/// Shares out shards evenly, each relay by itself: with the same view all come to the same sizes. A shard is taken only when nobody has it,
/// so that relays that see different things disturb each other in nothing but the speed.
#[derive(Debug, Clone)]
pub struct Shares {
    member: String,
}

impl Shares {
    /// For this relay.
    pub fn new(member: impl Into<String>) -> Self {
        Self { member: member.into() }
    }

    /// What is to change. `members` are the names of all relays that live, in any order; `ours` the shards that this one works on,
    /// without those that it is leaving.
    pub fn turnover(&self, members: &[String], seen: &[Seen], ours: &BTreeSet<u16>) -> Turnover {
        let mut live: Vec<&str> = members.iter().map(String::as_str).collect();
        live.push(&self.member);
        live.sort_unstable();
        live.dedup();
        let place = live.iter().position(|name| *name == self.member).unwrap_or(0);
        // The first ones by name have one more where it does not come out even.
        let fair = seen.len() / live.len() + usize::from(place < seen.len() % live.len());
        let leave: Vec<u16> = ours.iter().rev().take(ours.len().saturating_sub(fair)).copied().collect();
        let free = seen.iter().filter(|seen| seen.owner.is_none() && !ours.contains(&seen.shard));
        // Each begins at another place, so that two that start together do not run after the same shards.
        let mut free: Vec<u16> = free.map(|seen| seen.shard).collect();
        if !free.is_empty() {
            let first = place * free.len() / live.len();
            free.rotate_left(first);
        }
        free.truncate(fair.saturating_sub(ours.len()));
        Turnover { take: free, leave }
    }
}
