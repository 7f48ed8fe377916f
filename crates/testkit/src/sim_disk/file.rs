//! One simulated file: what its users see, what a crash is sure to leave, and what lies between.

use crate::random::Random;

/// What a device writes whole or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// A change that is not durable yet.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// The file's length.
    Length(usize),
    /// One sector, as the page cache had it after a write.
    Sector { index: usize, bytes: Box<[u8]> },
}

/// Which of the changes that are not durable survive a crash.
#[derive(Debug, Clone, Copy)]
pub(super) enum Survivors {
    None,
    All,
    /// Each on its own, so many times out of a hundred.
    Each(u64),
    /// Those before some moment.
    Prefix,
    /// Those after some moment, as when a device reorders.
    Suffix,
}

impl Survivors {
    pub fn choose(random: &mut Random) -> Self {
        match random.below(8) {
            0 => Self::None,
            1 => Self::All,
            2 | 3 => Self::Each(50),
            4 => Self::Each(15),
            5 => Self::Each(85),
            6 => Self::Prefix,
            _ => Self::Suffix,
        }
    }

    /// For each of `count` changes whether it survives.
    pub fn of(self, count: usize, random: &mut Random) -> Vec<bool> {
        let cut = random.index(count + 1);
        (0..count)
            .map(|at| match self {
                Self::None => false,
                Self::All => true,
                Self::Each(percent) => random.percent(percent),
                Self::Prefix => at < cut,
                Self::Suffix => at >= cut,
            })
            .collect()
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct File {
    /// What a process reads: the page cache over the disk.
    pub view: Vec<u8>,
    /// What is there after the power failed, whatever else survives.
    pub durable: Vec<u8>,
    /// On top of `durable`, oldest first.
    pub pending: Vec<Change>,
    /// By sector, whether it has space on the disk; and the same as it was at the last sync.
    allocated: Vec<bool>,
    allocated_durable: Vec<bool>,
}

fn apply(change: &Change, content: &mut Vec<u8>) {
    match change {
        Change::Length(length) => content.resize(*length, 0),
        Change::Sector { index, bytes } => {
            let from = (index * SECTOR_BYTES).min(content.len());
            let to = (from + bytes.len()).min(content.len());
            content[from..to].copy_from_slice(&bytes[..to - from]);
        }
    }
}

impl File {
    pub fn allocated_bytes(&self) -> u64 {
        (self.allocated.iter().filter(|allocated| **allocated).count() * SECTOR_BYTES) as u64
    }

    /// The sectors that `length` bytes at `at` touch.
    pub fn sectors(at: usize, length: usize) -> std::ops::Range<usize> {
        if length == 0 { 0..0 } else { at / SECTOR_BYTES..(at + length).div_ceil(SECTOR_BYTES) }
    }

    /// Bytes of space that must be found before all of these sectors have some.
    pub fn missing_bytes(&self, sectors: std::ops::Range<usize>) -> u64 {
        let missing = sectors.filter(|sector| !self.allocated.get(*sector).copied().unwrap_or(false)).count();
        (missing * SECTOR_BYTES) as u64
    }

    pub fn allocate(&mut self, sectors: std::ops::Range<usize>) {
        if self.allocated.len() < sectors.end {
            self.allocated.resize(sectors.end, false);
        }
        self.allocated[sectors].fill(true);
    }

    pub fn set_len(&mut self, length: usize) {
        if length == self.view.len() {
            return;
        }
        self.allocated.truncate(length.div_ceil(SECTOR_BYTES));
        self.view.resize(length, 0);
        self.pending.push(Change::Length(length));
    }

    /// Writes `bytes` at `at`, which must be allocated; only the sectors for which `reached` says so.
    pub fn write(&mut self, at: usize, bytes: &[u8], mut reached: impl FnMut(usize) -> bool) {
        let end = at + bytes.len();
        if end > self.view.len() {
            self.view.resize(end, 0);
            self.pending.push(Change::Length(end));
        }
        for sector in Self::sectors(at, bytes.len()) {
            if !reached(sector) {
                continue;
            }
            let from = at.max(sector * SECTOR_BYTES);
            let to = end.min((sector + 1) * SECTOR_BYTES);
            self.view[from..to].copy_from_slice(&bytes[from - at..to - at]);
            let whole = &self.view[sector * SECTOR_BYTES..((sector + 1) * SECTOR_BYTES).min(self.view.len())];
            self.pending.push(Change::Sector { index: sector, bytes: whole.into() });
        }
    }

    pub fn sync(&mut self) {
        for change in self.pending.drain(..) {
            apply(&change, &mut self.durable);
        }
        self.allocated_durable.clone_from(&self.allocated);
    }

    /// A sync that failed: some of the changes reached the disk, the others never will, although they can still be read
    /// and later syncs succeed. Only the length is not forgotten by the file system.
    pub fn fail_sync(&mut self, random: &mut Random) {
        let survivors = Survivors::choose(random);
        self.keep(survivors, random);
        if self.durable.len() != self.view.len() {
            self.pending.push(Change::Length(self.view.len()));
        }
    }

    /// Makes some of the pending changes durable and forgets the others. Lengths survive in their order, as a file
    /// system's journal has them.
    fn keep(&mut self, survivors: Survivors, random: &mut Random) {
        let pending = std::mem::take(&mut self.pending);
        let kept = survivors.of(pending.len(), random);
        let lengths = pending.iter().filter(|change| matches!(change, Change::Length(_))).count();
        let mut lengths_kept = match survivors {
            Survivors::None => 0,
            Survivors::All => lengths,
            _ => random.index(lengths + 1),
        };
        let mut allocated_kept = lengths_kept == lengths;
        for (change, kept) in pending.iter().zip(kept) {
            if matches!(change, Change::Length(_)) {
                if lengths_kept > 0 {
                    lengths_kept -= 1;
                    apply(change, &mut self.durable);
                }
            } else if kept {
                apply(change, &mut self.durable);
            }
        }
        allocated_kept &= !matches!(survivors, Survivors::None);
        if allocated_kept {
            self.allocated_durable.clone_from(&self.allocated);
        }
    }

    /// The power fails: what survives is durable from now on, and all there is.
    pub fn lose_power(&mut self, random: &mut Random) {
        let survivors = Survivors::choose(random);
        self.keep(survivors, random);
        self.view.clone_from(&self.durable);
        let sectors = self.view.len().div_ceil(SECTOR_BYTES);
        self.allocated.clone_from(&self.allocated_durable);
        self.allocated.resize(sectors, false);
        for (sector, allocated) in self.allocated.iter_mut().enumerate() {
            let from = sector * SECTOR_BYTES;
            let to = (from + SECTOR_BYTES).min(self.view.len());
            *allocated |= self.view[from..to].iter().any(|byte| *byte != 0);
        }
        self.allocated_durable.clone_from(&self.allocated);
    }

    /// Whether the byte is on the disk as it is read.
    fn is_clean(&self, at: usize) -> bool {
        let touches = |change: &Change| matches!(change, Change::Sector { index, .. } if *index == at / SECTOR_BYTES);
        at < self.durable.len() && at < self.view.len() && !self.pending.iter().any(touches)
    }

    /// Flips a bit that is durable; `false` where there is none.
    pub fn flip_bit(&mut self, bit: u64) -> bool {
        let (at, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        if !self.is_clean(at) {
            return false;
        }
        self.view[at] ^= mask;
        self.durable[at] ^= mask;
        true
    }
}
