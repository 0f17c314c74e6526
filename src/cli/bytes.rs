//! Memory sizes in the syntax of Docker and runc: `67108864`, `64M`, `1.5g`, `64 MiB`.

/// Parses a size in bytes: a decimal number, an optional blank, an optional k, m, g, t or p for powers of
/// 1024, and an optional `b` or `ib`, in any case. Fractions of a byte are cut off. `-1` (unlimited) stays
/// -1.
pub fn parse(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    // Further decimals are less than a byte.
    let decimals = decimals.get(..decimals.len().min(15))?;
    let scale = 10_u128.checked_pow(u32::try_from(decimals.len()).ok()?)?;
    let digits: u128 = format!("{whole}{decimals}").parse().ok()?;
    let bytes = digits.checked_mul(multiplier(unit.strip_prefix(' ').unwrap_or(unit))?)? / scale;
    i64::try_from(bytes).ok()
}

fn multiplier(unit: &str) -> Option<u128> {
    let unit = unit.to_ascii_lowercase();
    let (power, rest) = match unit.chars().next() {
        Some('k') => (1, unit.get(1..)?),
        Some('m') => (2, unit.get(1..)?),
        Some('g') => (3, unit.get(1..)?),
        Some('t') => (4, unit.get(1..)?),
        Some('p') => (5, unit.get(1..)?),
        _ => (0, unit.as_str()),
    };
    let is_known = matches!((power, rest), (_, "" | "b") | (1.., "ib"));
    if is_known { 1024_u128.checked_pow(power) } else { None }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_amount_is_a_number_with_a_power_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("67108864", 67_108_864),
            ("50M", 52_428_800),
            ("50m", 52_428_800),
            ("1k", 1024),
            ("1kb", 1024),
            ("1KiB", 1024),
            ("1 MB", 1_048_576),
            ("1.5g", 1_610_612_736),
            (".5k", 512),
            ("1.k", 1024),
            ("1.0001", 1),
            ("7b", 7),
            ("1T", 1_099_511_627_776),
            ("2p", 2_251_799_813_685_248),
            ("0.3000000000000000000000001k", 307),
            ("-1", -1),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "", "k", ".", "-2", "-1k", "1x", "1kk", "1ib", "1  k", " 1", "1e3", "1.2.3k", "+1", "9999p",
            "1mbit",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
