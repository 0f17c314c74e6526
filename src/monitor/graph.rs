//! The most recent values as a row of bars, the newest on the right.

use super::text::Charset;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 8] = ['_', '.', '-', '=', '+', '*', '%', '#'];

/// Draws the last `room` of `values`; a full bar stands for `full` or more, `None` is a gap.
pub fn bars(values: &[Option<u64>], full: u64, room: usize, charset: Charset) -> String {
    let signs = match charset {
        Charset::Utf8 => BLOCKS,
        Charset::Ascii => ASCII,
    };
    let bar = |value: &Option<u64>| {
        let value = value.as_ref()?;
        let level = (u128::from(*value) * 8).checked_div(full.into()).unwrap_or(0);
        signs.get(usize::try_from(level).unwrap_or(usize::MAX)).or(signs.last()).copied()
    };
    let shown = values.get(values.len().saturating_sub(room)..).unwrap_or_default();
    let blanks = " ".repeat(room - shown.len());
    blanks + &shown.iter().map(|value| bar(value).unwrap_or(' ')).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_an_eighth_of_the_full_one_for_each_eighth() {
        let values: Vec<_> = (0..=9).map(|eighths| Some(eighths * 100)).collect();
        assert_eq!(bars(&values, 800, 10, Charset::Utf8), "▁▂▃▄▅▆▇███");
        assert_eq!(bars(&values, 800, 10, Charset::Ascii), "_.-=+*%###");
        assert_eq!(bars(&[Some(99), Some(100), Some(u64::MAX)], 800, 3, Charset::Utf8), "▁▂█");
    }

    #[test]
    fn the_newest_is_at_the_right() {
        let values = [Some(0), None, Some(8)];
        assert_eq!(bars(&values, 8, 5, Charset::Utf8), "  ▁ █");
        assert_eq!(bars(&values, 8, 2, Charset::Utf8), " █");
        assert_eq!(bars(&values, 8, 0, Charset::Utf8), "");
        assert_eq!(bars(&[], 8, 2, Charset::Utf8), "  ");
        assert_eq!(bars(&[Some(5)], 0, 1, Charset::Utf8), "▁");
    }
}
