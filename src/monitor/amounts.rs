//! Formats numbers for humans.

/// Formats an amount in bytes with three digits, or four just below the next unit: `0B`, `1.25KiB`,
/// `31.9MiB`, `1023GiB`. Truncated, not rounded.
pub fn bytes(amount: u64) -> String {
    let mut hundredths = u128::from(amount) * 100;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        if hundredths < 102_400 {
            break;
        }
        hundredths /= 1024;
        unit = larger;
    }
    match (hundredths / 100, hundredths % 100) {
        (whole, _) if unit == "B" => format!("{whole}{unit}"),
        (whole @ 0..10, decimals) => format!("{whole}.{decimals:02}{unit}"),
        (whole @ 10..100, decimals) => format!("{whole}.{}{unit}", decimals / 10),
        (whole, _) => format!("{whole}{unit}"),
    }
}

/// Formats hundredths as a number with two decimals, or none from 1000 on.
pub fn hundredths(number: u64) -> String {
    match (number / 100, number % 100) {
        (whole @ 1000.., _) => whole.to_string(),
        (whole, decimals) => format!("{whole}.{decimals:02}"),
    }
}

/// The share of `part` in `whole` in hundredths of a percent; `None` if `whole` is 0.
pub fn share(part: u64, whole: u64) -> Option<u64> {
    let share = (u128::from(part) * 10_000).checked_div(whole.into())?;
    Some(u64::try_from(share).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_has_three_digits_and_a_unit_of_1024() {
        for (amount, text) in [
            (0, "0B"),
            (999, "999B"),
            (1023, "1023B"),
            (1024, "1.00KiB"),
            (1535, "1.49KiB"),
            (10_239, "9.99KiB"),
            (10_240, "10.0KiB"),
            (102_399, "99.9KiB"),
            (1_048_575, "1023KiB"),
            (1_048_576, "1.00MiB"),
            (33_554_432, "32.0MiB"),
            (1_073_741_824, "1.00GiB"),
            (u64::MAX, "15.9EiB"),
        ] {
            assert_eq!(bytes(amount), text, "{amount}");
            assert!(text.len() <= 7);
        }
    }

    #[test]
    fn hundredths_are_two_decimals_where_they_matter() {
        for (number, text) in
            [(0, "0.00"), (5, "0.05"), (2_500, "25.00"), (99_999, "999.99"), (1_234_567, "12345")]
        {
            assert_eq!(hundredths(number), text);
        }
    }

    #[test]
    fn a_share_is_told_in_hundredths_of_a_percent() {
        assert_eq!(share(1, 4), Some(2_500));
        assert_eq!(share(3, 2), Some(15_000));
        assert_eq!(share(1, 0), None);
        assert_eq!(share(u64::MAX, 1), Some(u64::MAX));
    }
}
