//! Aligned columns of text.

use std::fmt::Write as _;

use crate::error::printable::is_harmful;

/// Formats rows with three blanks between columns. Each column but the last is at least `at_least` wide,
/// including the blanks. Control characters become question marks.
pub fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]], at_least: usize) -> String {
    let longest = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let width = |column: usize| (longest(column) + 3).max(at_least);
    let widths: Vec<usize> = (0..COLUMNS.saturating_sub(1)).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let cell: String = cell.chars().map(|c| if is_harmful(c) { '?' } else { c }).collect();
            match widths.get(column) {
                Some(width) => drop(write!(text, "{cell:<width$}")),
                None => text.push_str(&cell),
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_no_cell_breaks_a_line() {
        let rows = [["A", "B"], ["long\u{1b}[2J", "x\n\u{202e}y"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows, 0), "A          B\nlong?[2J   x??y\n");
        assert_eq!(table(&rows[..1], 4), "A   B\n");
    }
}
