//! Histories of several relays over one outbox: transactions commit late, relays are killed and stand still, engines lose answers. What
//! reaches the engine is judged at the end. Each history comes from a seed, which is printed when something is wrong.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use baton_core::relay::{Change, Claims, Limits, Outgoing, Placed, Row};
use baton_core::stamp::{Instance, Stamp};
use baton_core::{Fate, MessageId, TopicPartition};
use bytes::Bytes;

const SHARDS: u16 = 4;
const KEYS: u64 = 9;
const PARTITIONS: u32 = 3;
const RELAYS: usize = 3;
const ROWS: i64 = 120;
const POISON: i64 = 37;
const ROW_BYTES: usize = 10;
const LIMITS: Limits = Limits { rows_max: 24, bytes_max: 1_000, window_rows_max: 6 };

/// A small generator, the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % end
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone)]
struct Stored {
    position: i64,
    key: u64,
    parked: bool,
}

#[derive(Default)]
struct Lease {
    owner: Option<usize>,
    epoch: u32,
    window: Vec<u8>,
}

/// The database: rows whose transactions have committed, and leases.
#[derive(Default)]
struct Table {
    rows: BTreeMap<i64, Stored>,
    leases: Vec<Lease>,
    /// Positions that were drawn, of transactions that are open: at most one for each key, which waits for the business's own row.
    open: Vec<Stored>,
    drawn: i64,
    committed: BTreeSet<i64>,
}

impl Table {
    fn write(&mut self, change: &Change) -> Result<(), Vec<(u16, u32)>> {
        let fenced = |(shard, epoch, _): &&(u16, u32, Bytes)| self.leases[usize::from(*shard)].epoch != *epoch;
        let fenced: Vec<_> = change.windows.iter().filter(fenced).map(|(shard, epoch, _)| (*shard, *epoch)).collect();
        if !fenced.is_empty() {
            return Err(fenced);
        }
        for (shard, _, window) in &change.windows {
            self.leases[usize::from(*shard)].window = window.to_vec();
        }
        for position in &change.done {
            self.rows.remove(position);
        }
        for parked in &change.parked {
            if let Some(row) = self.rows.get_mut(&parked.position) {
                row.parked = true;
            }
        }
        Ok(())
    }
}

impl Table {
    fn parked(&self) -> ParkedRows {
        let parked = self.rows.values().filter(|row| row.parked).map(row);
        parked.map(|row| (row.position, row.key.map(|key| (row.topic, key)))).collect()
    }
}

type ParkedRows = Vec<(i64, Option<(std::sync::Arc<str>, Bytes)>)>;

fn shard_of(key: u64) -> u16 {
    u16::try_from(key % u64::from(SHARDS)).unwrap()
}

fn row(stored: &Stored) -> Row<i64> {
    Row {
        position: stored.position,
        shard: shard_of(stored.key),
        topic: "orders".into(),
        key: Some(Bytes::from(stored.key.to_string())),
        id: MessageId::new(format!("m{}", stored.position)).unwrap(),
        item: stored.position,
    }
}

/// A key's rows go to one partition; which one has nothing to do with its shard.
fn place(row: &Row<i64>) -> Placed {
    let key = row.key.as_ref().map_or(0, |key| u32::from(key[0]));
    Placed::To(key / 2 % PARTITIONS)
}

/// What is on its way to the engine from one relay, in order, for each partition; a killed relay's goes on for a while.
#[derive(Default)]
struct Wire(HashMap<u32, VecDeque<Outgoing<i64>>>);

struct Relay {
    claims: Claims<i64>,
    wire: Wire,
    /// A query that has been answered by the database, and not been looked at.
    query: Option<(u64, Vec<Stored>)>,
    cursor: i64,
    /// What was visible at the last query: what was not may come late.
    seen: BTreeSet<i64>,
    change: Option<Change>,
    /// What was parked when it was read, and has not been looked at.
    parked: Option<(Option<u64>, ParkedRows)>,
    still: u64,
}

impl Wire {
    fn send(&mut self, outgoing: Vec<Outgoing<i64>>) {
        for one in outgoing {
            self.0.entry(one.to.partition).or_default().push_back(one);
        }
    }
}

impl Relay {
    fn new() -> Self {
        let (claims, wire) = (Claims::new(LIMITS, |_| ROW_BYTES), Wire::default());
        Self { claims, wire, query: None, cursor: 0, seen: BTreeSet::new(), change: None, parked: None, still: 0 }
    }
}

struct World {
    random: Random,
    table: Table,
    relays: Vec<Relay>,
    ghosts: Vec<Wire>,
    /// What the engine holds: for each partition, in order.
    log: HashMap<u32, Vec<(i64, Stamp)>>,
    /// The key of each row that was ever written.
    keys: HashMap<i64, u64>,
    /// Takes nothing for a time.
    dead: Option<u32>,
    now_ms: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut table = Table::default();
        table.leases.resize_with(usize::from(SHARDS), Lease::default);
        let relays = (0..RELAYS).map(|_| Relay::new()).collect();
        Self {
            random: Random(seed),
            table,
            relays,
            ghosts: Vec::new(),
            log: HashMap::new(),
            keys: HashMap::new(),
            dead: None,
            now_ms: 0,
        }
    }

    fn write_rows(&mut self) {
        if self.table.drawn < ROWS && self.random.percent(60) {
            let key = self.random.below(KEYS);
            if self.table.open.iter().all(|open| open.key != key) {
                self.table.drawn += 1;
                self.keys.insert(self.table.drawn, key);
                self.table.open.push(Stored { position: self.table.drawn, key, parked: false });
            }
        }
        if !self.table.open.is_empty() && self.random.percent(50) {
            let at = usize::try_from(self.random.below(self.table.open.len() as u64)).unwrap();
            let stored = self.table.open.swap_remove(at);
            if !self.random.percent(10) {
                self.table.committed.insert(stored.position);
                self.table.rows.insert(stored.position, stored);
            }
        }
    }

    fn turn_over(&mut self, of: usize) {
        let shard = u16::try_from(self.random.below(u64::from(SHARDS))).unwrap();
        let lease = &mut self.table.leases[usize::from(shard)];
        // A lease is taken whoever has it: his has ended, whether he knows it or not.
        if lease.owner == Some(of) && self.relays[of].claims.shards().contains(&shard) {
            return;
        }
        lease.owner = Some(of);
        lease.epoch += 1;
        let (epoch, window) = (lease.epoch, lease.window.clone());
        let relay = &mut self.relays[of];
        let instance = Instance::new(format!("outbox.{shard}")).unwrap();
        let positions = relay.claims.gained(shard, epoch, instance, &window).unwrap();
        let rows = positions.iter().filter_map(|position| self.table.rows.get(position)).map(row).collect();
        let mark = relay.claims.parked_mark();
        relay.claims.set_parked(mark, self.table.parked());
        let outgoing = relay.claims.resumed(shard, rows, self.now_ms);
        relay.wire.send(outgoing);
    }

    fn query(&mut self, of: usize) {
        let limit = 1 + self.random.below(8);
        let relay = &mut self.relays[of];
        if let Some((look, rows)) = relay.query.take() {
            return relay.claims.found(look, rows.iter().map(row).collect());
        }
        let limit = usize::try_from(limit).unwrap().min(relay.claims.room());
        if limit == 0 {
            return;
        }
        let (look, restart) = relay.claims.look();
        if restart {
            (relay.cursor, relay.seen) = (0, BTreeSet::new());
        }
        let visible = self.table.rows.values().filter(|row| !row.parked);
        let late: Vec<Stored> = visible
            .clone()
            .filter(|row| row.position <= relay.cursor && !relay.seen.contains(&row.position))
            .cloned()
            .collect();
        let page: Vec<Stored> = visible.filter(|row| row.position > relay.cursor).take(limit).cloned().collect();
        relay.cursor = page.last().map_or(relay.cursor, |row| row.position);
        relay.seen = self.table.rows.keys().copied().collect();
        relay.query = Some((look, late.into_iter().chain(page).collect()));
    }

    fn change(&mut self, of: usize) {
        let relay = &mut self.relays[of];
        let Some(change) = relay.change.take() else {
            relay.change = relay.claims.change(self.now_ms, place);
            return;
        };
        match self.table.write(&change) {
            // It is written, and nobody hears of it: it is written again.
            Ok(()) if self.random.percent(20) => relay.change = Some(change),
            Ok(()) => {
                let outgoing = relay.claims.written();
                relay.wire.send(outgoing);
            }
            Err(shards) => _ = relay.claims.fenced(&shards),
        }
    }

    /// Reads what is parked, or looks at what was read; and now and then somebody lets a row go.
    fn read_parked(&mut self, of: usize) {
        let relay = &mut self.relays[of];
        match relay.parked.take() {
            Some((mark, parked)) => relay.claims.set_parked(mark, parked),
            None => relay.parked = Some((relay.claims.parked_mark(), self.table.parked())),
        }
        if self.random.percent(10) {
            self.table.rows.values_mut().for_each(|row| row.parked = false);
        }
    }

    /// The engine takes the first of a wire, and may keep quiet about it.
    fn store(&mut self, of: usize) {
        let (random, relay) = (&mut self.random, &mut self.relays[of]);
        let partition = u32::try_from(random.below(PARTITIONS.into())).unwrap();
        if self.dead == Some(partition) {
            return;
        }
        let Some(line) = relay.wire.0.get_mut(&partition) else { return };
        let Some(first) = line.front().cloned() else { return };
        if first.item == POISON {
            line.pop_front();
            return relay.claims.refused(first.position, Fate::NotStored, "too large".to_owned(), self.now_ms);
        }
        self.log.entry(partition).or_default().push((first.position, first.stamp));
        if !random.percent(25) {
            line.pop_front();
            relay.claims.acknowledged(first.position, self.now_ms);
        }
    }

    fn haunt(&mut self) {
        let Some(ghost) = self.ghosts.last_mut() else { return };
        for (partition, line) in &mut ghost.0 {
            if let Some(first) = line.pop_front().filter(|first| first.item != POISON) {
                self.log.entry(*partition).or_default().push((first.position, first.stamp));
            }
        }
        if self.random.percent(30) {
            self.ghosts.pop();
        }
    }

    fn step(&mut self, calm: bool) {
        self.now_ms += self.random.below(400);
        self.write_rows();
        self.haunt();
        match self.dead {
            None if !calm && self.random.percent(1) => {
                self.dead = u32::try_from(self.random.below(PARTITIONS.into())).ok();
            }
            Some(_) if calm || self.random.percent(1) => self.dead = None,
            _ => {}
        }
        let of = if calm { 0 } else { usize::try_from(self.random.below(RELAYS as u64)).unwrap() };
        if self.relays[of].still > 0 && !calm {
            self.relays[of].still -= 1;
            return;
        }
        match self.random.below(100) {
            0 if !calm => {
                let dead = std::mem::replace(&mut self.relays[of], Relay::new());
                self.ghosts.push(dead.wire);
            }
            1 if !calm => self.relays[of].still = 5 + self.random.below(60),
            2 if !calm => {
                let shard = u16::try_from(self.random.below(u64::from(SHARDS))).unwrap();
                self.relays[of].claims.leave(shard, self.now_ms);
                let now_ms = self.now_ms;
                for (shard, epoch) in self.relays[of].claims.left(now_ms) {
                    let lease = &mut self.table.leases[usize::from(shard)];
                    if lease.epoch == epoch {
                        lease.owner = None;
                    }
                }
            }
            0..8 => self.turn_over(of),
            8..12 => self.read_parked(of),
            12..30 => self.query(of),
            30..60 => self.change(of),
            _ => self.store(of),
        }
    }

    fn judge(&self, seed: u64) {
        let mut first: BTreeMap<i64, (u32, usize)> = BTreeMap::new();
        let mut stamps: HashMap<i64, &Stamp> = HashMap::new();
        let mut numbers: HashMap<(TopicPartition, Instance, u32, u64), i64> = HashMap::new();
        for (partition, log) in &self.log {
            for (at, (position, stamp)) in log.iter().enumerate() {
                assert!(
                    self.table.committed.contains(position),
                    "seed {seed}: row {position} was rolled back, and sent"
                );
                let known = stamps.entry(*position).or_insert(stamp);
                assert_eq!(*known, stamp, "seed {seed}: row {position} was sent under two stamps");
                let to = TopicPartition::new("orders", *partition);
                let number = (to, stamp.instance.clone(), stamp.epoch, stamp.sequence);
                let of = numbers.entry(number).or_insert(*position);
                assert_eq!(of, position, "seed {seed}: a number was used twice");
                first.entry(*position).or_insert((*partition, at));
            }
        }
        let poisoned = (self.table.committed.contains(&POISON)).then(|| self.keys[&POISON]);
        for position in &self.table.committed {
            let key = self.keys[position];
            let may_stay = poisoned == Some(key) && *position >= POISON;
            assert!(may_stay || first.contains_key(position), "seed {seed}: row {position} never came");
        }
        let mut last: HashMap<u64, (i64, (u32, usize))> = HashMap::new();
        for (position, place) in &first {
            if let Some((before, earlier)) = last.insert(self.keys[position], (*position, *place)) {
                assert_eq!(earlier.0, place.0);
                assert!(earlier.1 < place.1, "seed {seed}: row {position} came before row {before} of its key");
            }
        }
    }
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..3_000 {
        world.step(false);
    }
    world.relays.truncate(1);
    for _ in 0..60_000 {
        world.step(true);
        let waiting = |row: &Stored| !row.parked && row.position < POISON;
        if world.table.drawn == ROWS && world.table.open.is_empty() && !world.table.rows.values().any(waiting) {
            break;
        }
    }
    // The last rows of the poisoned key stay; everything else needs some more steps at most.
    for _ in 0..4_000 {
        world.step(true);
    }
    world
}

#[test]
fn every_committed_row_comes_in_the_order_of_its_key_under_one_stamp() {
    let (mut repeated, mut parked) = (0, 0);
    for seed in 0..400 {
        let world = run(seed);
        world.judge(seed);
        let sent: usize = world.log.values().map(Vec::len).sum();
        repeated += sent - world.log.values().flatten().map(|(position, _)| position).collect::<BTreeSet<_>>().len();
        parked += world.table.rows.values().filter(|row| row.parked).count();
    }
    // The histories are worth something.
    assert!(repeated > 1_000 && parked > 100, "{repeated} rows came again, {parked} were parked");
}
