//! Durations in Go's syntax: `5s`, `250ms`, `1h2m3.5s`.

use std::str::FromStr;
use std::time::Duration as Length;
use std::{error, fmt};

/// A non-negative duration with nanosecond resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration(pub Length);

/// Go's units in nanoseconds.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),  // the micro sign
    ("\u{3bc}s", 1_000), // the Greek letter
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The text is not a duration.
#[derive(Debug)]
pub struct InvalidDuration(String);

impl fmt::Display for InvalidDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid duration {:?} (expected e.g. \"5s\", \"250ms\" or \"1h2m3.5s\")", self.0)
    }
}

impl error::Error for InvalidDuration {}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        nanoseconds(text)
            .map(|nanos| Self(Length::from_nanos(nanos)))
            .ok_or_else(|| InvalidDuration(text.to_owned()))
    }
}

/// Sums up numbers with units; `None` on overflow. 0 needs no unit.
fn nanoseconds(text: &str) -> Option<u64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let unit =
            behind.split_at(behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len()));
        let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit.0)?;
        sum = sum.checked_add(times(number, *nanos)?)?;
        rest = unit.1;
    }
    Some(sum)
}

/// Multiplies a decimal number by `unit`, rounded down.
fn times(number: &str, unit: u64) -> Option<u64> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && decimals.is_empty() {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.checked_mul(unit)? };
    // Further decimals are less than a nanosecond.
    let decimals = decimals.get(..decimals.len().min(15))?;
    let fraction = if decimals.is_empty() {
        0
    } else {
        let scale = 10_u128.checked_pow(u32::try_from(decimals.len()).ok()?)?;
        u64::try_from(u128::from(decimals.parse::<u64>().ok()?) * u128::from(unit) / scale).ok()?
    };
    whole.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_a_sum_of_numbers_with_units() {
        for (text, nanos) in [
            ("5s", 5_000_000_000),
            ("250ms", 250_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("1m0.001s", 60_001_000_000),
            ("+1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("10us", 10_000),
            ("10\u{b5}s", 10_000),
            ("10\u{3bc}s", 10_000),
            ("7ns", 7),
            ("0.1234567890123456789s", 123_456_789),
            ("0", 0),
            ("0s", 0),
            ("1s1s", 2_000_000_000),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap(), Duration(Length::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused_by_its_text() {
        for text in [
            "",
            "5",
            "s",
            ".s",
            "-1s",
            "1 s",
            "1d",
            "1s2",
            "1e3s",
            "1..5s",
            "+",
            "++1s",
            "99999999999999h",
            "\u{661}s",
        ] {
            let error = text.parse::<Duration>().unwrap_err().to_string();
            assert_eq!(
                error,
                format!("invalid duration {text:?} (expected e.g. \"5s\", \"250ms\" or \"1h2m3.5s\")")
            );
        }
    }
}
