//! The few shapes that every report is made of: grids, facts, headings and sentences, all within the style's width.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle};

use crate::style::{Style, Tone};

/// What stands where nothing is known.
pub(crate) const UNKNOWN: &str = "–";

/// Text from elsewhere without what could harm a terminal or a reader: control characters and those that turn the
/// direction of writing become `�`. Line breaks stay, tabs become spaces.
pub(crate) fn clean(text: &str) -> String {
    text.trim_end()
        .chars()
        .map(|letter| match letter {
            '\n' => '\n',
            '\t' => ' ',
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => '\u{fffd}',
            letter if letter.is_control() => '\u{fffd}',
            letter => letter,
        })
        .collect()
}

pub(crate) fn toned(text: impl AsRef<str>, tone: Tone) -> Cell {
    tone.apply(Cell::new(clean(text.as_ref())))
}

pub(crate) fn plain(text: impl AsRef<str>) -> Cell {
    toned(text, Tone::Plain)
}

/// The value, or that it is not known.
pub(crate) fn known(value: Option<impl ToString>) -> Cell {
    match value {
        Some(value) => plain(value.to_string()),
        None => toned(UNKNOWN, Tone::Quiet),
    }
}

fn table(style: Style) -> Table {
    let mut table = Table::new();
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(style.columns());
    if style.color {
        table.enforce_styling().style_text_only();
    } else {
        table.force_no_tty();
    }
    table
}

fn rendered(table: &Table) -> String {
    table.trim_fmt() + "\n"
}

/// Rows under a header and a rule.
const RULED: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Rows under a header.
pub(crate) struct Grid {
    table: Table,
    whole: Vec<usize>,
}

impl Grid {
    pub(crate) fn new(style: &Style, header: &[&str]) -> Self {
        let mut table = table(*style);
        table.load_style(RULED);
        table.set_header(header.iter().map(|title| toned(title, Tone::Strong)).collect::<Vec<_>>());
        for column in table.column_iter_mut() {
            column.set_padding((1, 0));
        }
        Self { table, whole: Vec::new() }
    }

    /// Columns of figures.
    pub(crate) fn right(mut self, columns: &[usize]) -> Self {
        for column in columns {
            if let Some(column) = self.table.column_mut(*column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self
    }

    /// Columns that are not broken as long as the others keep a readable width: figures, names and states.
    pub(crate) fn whole(mut self, columns: &[usize]) -> Self {
        self.whole = columns.to_vec();
        self
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.table.add_row(cells);
    }

    pub(crate) fn render(&mut self) -> String {
        /// A column that words still fit in, with what is between two columns.
        const READABLE: usize = 14;
        let widths = self.table.column_max_content_widths();
        let padded = |column: usize| widths.get(column).map_or(0, |width| usize::from(*width) + 2);
        let broken = (0..widths.len()).filter(|column| !self.whole.contains(column));
        let wanted = self.whole.iter().map(|column| padded(*column)).sum::<usize>()
            + broken.map(|column| padded(column).min(READABLE)).sum::<usize>();
        if wanted <= usize::from(self.table.width().unwrap_or_default()) {
            for column in &self.whole {
                if let Some(column) = self.table.column_mut(*column) {
                    column.set_constraint(ColumnConstraint::ContentWidth);
                }
            }
        }
        rendered(&self.table)
    }
}

/// Names and values, one pair a line.
pub(crate) struct Facts {
    table: Table,
}

impl Facts {
    pub(crate) fn new(style: &Style) -> Self {
        let mut table = table(*style);
        table.load_style(NOTHING);
        Self { table }
    }

    pub(crate) fn add(&mut self, name: &str, value: Cell) -> &mut Self {
        self.table.add_row(vec![toned(name, Tone::Quiet), value]);
        self
    }

    pub(crate) fn render(&mut self) -> String {
        if let Some(names) = self.table.column_mut(0) {
            names.set_constraint(ColumnConstraint::ContentWidth);
        }
        rendered(&self.table)
    }
}

/// One text over the whole width, broken between words.
pub(crate) fn sentence(text: impl AsRef<str>, tone: Tone, style: &Style) -> String {
    let mut table = table(*style);
    table.load_style(NOTHING);
    table.add_row(vec![toned(text, tone)]);
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 0));
    }
    rendered(&table)
}

/// The title of a page or of a part of it.
pub(crate) fn heading(text: impl AsRef<str>, style: &Style) -> String {
    sentence(text, Tone::Strong, style)
}

/// `1 machine`, `2 machines`.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_cannot_move_the_cursor() {
        assert_eq!(clean("desk\u{1b}[2J\r\u{202e}7\u{7}\t!"), "desk\u{fffd}[2J\u{fffd}\u{fffd}7\u{fffd} !");
        assert_eq!(clean("two\nlines\n"), "two\nlines");
    }

    #[test]
    fn sentences_break_between_words() {
        let text = sentence("no machine has enrolled yet and so on", Tone::Plain, &Style { color: false, width: 40 });
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
    }
}
