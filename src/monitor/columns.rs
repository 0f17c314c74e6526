//! Tables that fit into the width of a terminal.

use super::text::{Charset, cut, width};

/// The gap between two columns.
const GAP: &str = "  ";
/// The separator between the parts of a cell.
const BETWEEN: &str = " / ";

/// A column of a table.
#[derive(Debug)]
pub struct Column {
    pub title: &'static str,
    pub kind: ColumnKind,
    /// When there is not enough room, the column with the highest rank is left out first; one with rank 0
    /// never is.
    pub rank: u8,
    /// For each row, the parts of the cell.
    pub cells: Vec<Vec<String>>,
}

/// How the cells of a column are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Left-aligned text, cut to no less than this width.
    Words { at_least: usize },
    /// Right-aligned parts, each at least this wide.
    Numbers { at_least: usize },
}

/// The layout of a column.
struct Cell<'a> {
    column: &'a Column,
    /// The widths of the parts.
    parts: Vec<usize>,
    width: usize,
}

impl<'a> Cell<'a> {
    /// The full width of the column.
    fn natural(column: &'a Column) -> Self {
        let count = column.cells.iter().map(Vec::len).max().unwrap_or(0);
        let least = match column.kind {
            ColumnKind::Words { .. } => 0,
            ColumnKind::Numbers { at_least } => at_least,
        };
        let widest = |part: usize| {
            column.cells.iter().filter_map(|cell| cell.get(part)).map(|text| width(text)).max().unwrap_or(0)
        };
        let parts: Vec<_> = (0..count).map(|part| widest(part).max(least)).collect();
        let between = BETWEEN.len() * count.saturating_sub(1);
        let width = (parts.iter().sum::<usize>() + between).max(width(column.title));
        Self { column, parts, width }
    }

    fn least(&self) -> usize {
        match self.column.kind {
            ColumnKind::Words { at_least } => self.width.min(at_least.max(width(self.column.title))),
            ColumnKind::Numbers { .. } => self.width,
        }
    }

    fn cell(&self, row: Option<usize>, charset: Charset) -> String {
        let text = match row.map(|row| self.column.cells.get(row).map(Vec::as_slice).unwrap_or_default()) {
            None => self.column.title.to_owned(),
            Some(parts) => {
                let numbers = matches!(self.column.kind, ColumnKind::Numbers { .. });
                let parts: Vec<_> = parts
                    .iter()
                    .zip(&self.parts)
                    .map(|(text, room)| if numbers { from_right(text, *room) } else { text.clone() })
                    .collect();
                parts.join(BETWEEN)
            }
        };
        match self.column.kind {
            ColumnKind::Words { .. } => {
                let text = cut(&text, self.width, charset);
                let blanks = self.width.saturating_sub(width(&text));
                text + &" ".repeat(blanks)
            }
            ColumnKind::Numbers { .. } => from_right(&text, self.width),
        }
    }
}

fn from_right(text: &str, room: usize) -> String {
    " ".repeat(room.saturating_sub(width(text))) + text
}

/// Formats the table, header first. No line is wider than `room`; with `None`, the width is unlimited.
pub fn lines(columns: &[Column], room: Option<usize>, charset: Charset) -> Vec<String> {
    let mut places: Vec<_> = columns.iter().map(Cell::natural).collect();
    if let Some(room) = room {
        fit(&mut places, room);
    }
    let rows = columns.first().map_or(0, |column| column.cells.len());
    let line = |row| {
        let cells: Vec<_> = places.iter().map(|place| place.cell(row, charset)).collect();
        let line = cells.join(GAP).trim_end().to_owned();
        room.map_or(line.clone(), |room| cut(&line, room, charset))
    };
    [None].into_iter().chain((0..rows).map(Some)).map(line).collect()
}

/// Leaves out columns until the rest fits, then distributes the remaining room among text columns.
fn fit(places: &mut Vec<Cell<'_>>, room: usize) {
    let taken = |places: &[Cell<'_>]| {
        places.iter().map(Cell::least).sum::<usize>() + GAP.len() * places.len().saturating_sub(1)
    };
    while taken(places) > room {
        let ranks = places.iter().map(|place| place.column.rank).enumerate();
        match ranks.filter(|(_, rank)| *rank > 0).max_by_key(|(_, rank)| *rank) {
            Some((index, _)) => drop(places.remove(index)),
            None => break,
        }
    }
    let mut spare = room.saturating_sub(taken(places));
    for place in places {
        let least = place.least();
        let more = spare.min(place.width - least);
        place.width = least + more;
        spare -= more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(title: &'static str, kind: ColumnKind, rank: u8, cells: &[&[&str]]) -> Column {
        let cells = cells.iter().map(|cell| cell.iter().map(|text| (*text).to_owned()).collect()).collect();
        Column { title, kind, rank, cells }
    }

    fn table() -> Vec<Column> {
        let numbers = |at_least| ColumnKind::Numbers { at_least };
        vec![
            column("ID", ColumnKind::Words { at_least: 4 }, 0, &[&["a"], &["container-of-mine"]]),
            column("CPU %", numbers(6), 0, &[&["1.00"], &["100.00"]]),
            column("PIDS / LIMIT", numbers(1), 1, &[&["1", "max"], &["22", "7"]]),
            column("IO", numbers(1), 2, &[&["5"], &["-"]]),
        ]
    }

    #[test]
    fn numbers_stand_below_each_other() {
        assert_eq!(
            lines(&table(), None, Charset::Utf8),
            [
                "ID                  CPU %  PIDS / LIMIT  IO",
                "a                    1.00       1 / max   5",
                "container-of-mine  100.00      22 /   7   -",
            ]
        );
    }

    #[test]
    fn words_are_cut_and_columns_left_out_for_want_of_room() {
        assert_eq!(
            lines(&table(), Some(40), Charset::Utf8),
            [
                "ID               CPU %  PIDS / LIMIT  IO",
                "a                 1.00       1 / max   5",
                "container-of-…  100.00      22 /   7   -"
            ]
        );
        assert_eq!(
            lines(&table(), Some(27), Charset::Ascii),
            ["ID      CPU %  PIDS / LIMIT", "a        1.00       1 / max", "cont~  100.00      22 /   7"]
        );
        assert_eq!(
            lines(&table(), Some(12), Charset::Utf8),
            ["ID     CPU %", "a       1.00", "con…  100.00"]
        );
    }

    #[test]
    fn no_line_is_wider_than_there_is_room() {
        for room in 0..60 {
            for line in lines(&table(), Some(room), Charset::Utf8) {
                assert!(width(&line) <= room, "{room} {line:?}");
            }
        }
    }

    #[test]
    fn a_table_without_rows_has_its_titles() {
        let empty: Vec<_> =
            table().into_iter().map(|column| Column { cells: Vec::new(), ..column }).collect();
        assert_eq!(lines(&empty, None, Charset::Utf8), ["ID  CPU %  PIDS / LIMIT  IO"]);
    }
}
