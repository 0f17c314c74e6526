//! Sources of choices for tests: a deterministic generator, or the bytes of a fuzz input.
#![allow(clippy::unwrap_used, reason = "only tests and fuzz targets roll dice")]

/// A source of numbers.
pub trait Dice {
    /// The next number below `sides`, which must be at least 1.
    fn roll(&mut self, sides: u64) -> u64;

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// An index into `count` items; `count` must be at least 1.
    fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.roll(u64::try_from(count).unwrap())).unwrap()
    }
}

/// xorshift64: good enough for choosing rules, and reproducible.
#[derive(Debug)]
pub struct Xorshift(pub u64);

impl Dice for Xorshift {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// The bytes of a fuzz input, so that changing one byte changes one choice. After the last byte, all numbers
/// are 0.
#[derive(Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    pub fn is_used_up(&self) -> bool {
        self.0.is_empty()
    }
}

impl Dice for Bytes<'_> {
    fn roll(&mut self, sides: u64) -> u64 {
        let mut number = 0;
        let mut reach = 1_u64;
        while reach < sides {
            let Some((first, rest)) = self.0.split_first() else { break };
            self.0 = rest;
            number = number << 8 | u64::from(*first);
            reach = reach.saturating_mul(256);
        }
        number % sides
    }
}
