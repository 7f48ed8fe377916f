//! Random content that is the same in every run.

use bytes::Bytes;

/// A generator of random numbers (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn string(&mut self) -> String {
        const LETTERS: [&str; 6] = ["a", "Z", ".", "ü", "語", "0"];
        // Now and then longer than one byte of a compact length can say.
        let length = if self.below(20) == 0 { 200 } else { self.below(6) };
        (0..length).map(|_| LETTERS[self.below(6) as usize]).collect()
    }

    pub fn bytes(&mut self) -> Vec<u8> {
        // Now and then long enough to be spliced.
        let length = if self.below(8) == 0 { 3000 } else { self.below(6) };
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// A random value with nothing set that the version lacks.
pub trait Sample {
    fn sample(random: &mut Random, version: i16) -> Self;
}

macro_rules! sample_integers {
    ($($integer:ty),*) => {$(
        impl Sample for $integer {
            fn sample(random: &mut Random, _version: i16) -> Self {
                if random.below(4) == 0 { 0 } else { random.next() as $integer }
            }
        }
    )*};
}

sample_integers!(i8, i16, i32, i64);

impl Sample for bool {
    fn sample(random: &mut Random, _version: i16) -> Self {
        random.below(2) == 0
    }
}

impl Sample for [u8; 16] {
    fn sample(random: &mut Random, _version: i16) -> Self {
        if random.below(4) == 0 { [0; 16] } else { std::array::from_fn(|_| random.next() as u8) }
    }
}

impl Sample for String {
    fn sample(random: &mut Random, _version: i16) -> Self {
        random.string()
    }
}

impl Sample for Bytes {
    fn sample(random: &mut Random, _version: i16) -> Self {
        random.bytes().into()
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(random: &mut Random, version: i16) -> Self {
        (random.below(3) > 0).then(|| T::sample(random, version))
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(random: &mut Random, version: i16) -> Self {
        (0..random.below(4)).map(|_| T::sample(random, version)).collect()
    }
}
