//! Random numbers: a fast generator that the operating system seeds. They tell messages and traces apart and spread retries; nobody has to be
//! unable to guess them.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// The operating system gives none.
pub(crate) type NoRandom = getrandom::Error;

/// A generator with 256 bits of state: no two that are seeded well ever meet.
pub(crate) struct Random(SmallRng);

impl Random {
    /// Seeded by the operating system.
    pub(crate) fn new() -> Result<Self, NoRandom> {
        let mut seed = <SmallRng as SeedableRng>::Seed::default();
        getrandom::fill(&mut seed)?;
        Ok(Self(SmallRng::from_seed(seed)))
    }

    pub(crate) fn u128(&mut self) -> u128 {
        u128::from(self.u64()) << 64 | u128::from(self.u64())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub(crate) fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }
}
