//! Random numbers of the operating system, fetched many at a time.

/// Bytes fetched at once: the numbers of a hundred messages, for the price of one call.
const POOL_BYTES: usize = 4_096;

/// A store of random bytes; each is used once.
pub(super) struct Random {
    pool: Box<[u8; POOL_BYTES]>,
    used: usize,
}

/// The operating system gives none.
pub(super) type NoRandom = getrandom::Error;

impl Random {
    pub(super) fn new() -> Self {
        Self { pool: Box::new([0; POOL_BYTES]), used: POOL_BYTES }
    }

    pub(super) fn bytes<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], NoRandom> {
        const { assert!(COUNT <= POOL_BYTES) };
        if POOL_BYTES - self.used < COUNT {
            getrandom::fill(self.pool.as_mut_slice())?;
            self.used = 0;
        }
        let mut bytes = [0; COUNT];
        bytes.copy_from_slice(&self.pool[self.used..self.used + COUNT]);
        self.used += COUNT;
        Ok(bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, NoRandom> {
        self.bytes().map(u128::from_ne_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, NoRandom> {
        self.bytes().map(u64::from_ne_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, NoRandom> {
        self.bytes().map(u32::from_ne_bytes)
    }
}
