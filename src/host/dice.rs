//! What picks one of several: a generator that gives the same every time, or the bytes of an input.
#![allow(clippy::unwrap_used, reason = "only tests and fuzz targets roll dice")]

/// A row of numbers.
pub trait Dice {
    /// The next, below `sides`, of which there is at least one.
    fn roll(&mut self, sides: u64) -> u64;

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// The place of one of `count` things, of which there is at least one.
    fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.roll(u64::try_from(count).unwrap())).unwrap()
    }
}

/// xorshift64: enough for picking rules, and the same every time.
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

/// The bytes of an input, so that a fuzzer that changes one of them changes one choice. Behind the last all
/// are zeros.
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
        while reach < sides
            && let Some((first, rest)) = self.0.split_first()
        {
            self.0 = rest;
            number = number << 8 | u64::from(*first);
            reach = reach.saturating_mul(256);
        }
        number % sides
    }
}
