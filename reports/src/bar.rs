//! Bars of parts of a whole, one line each.

use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::layout::clean;
use crate::style::Style;

/// What a part of a bar is drawn with; the letter alone tells parts apart, the colour only helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    pub letter: char,
    /// Number of a colour in an escape sequence.
    pub color: u8,
}

/// One bar: its name, its parts in order, and what is said behind it.
pub(crate) struct Bar {
    pub name: String,
    pub parts: Vec<(Fill, u64)>,
    /// What is not filled, drawn with points.
    pub free: u64,
    /// Where a limit is crossed, from the left, in the unit of the parts.
    pub limit: Option<u64>,
    pub caption: String,
}

/// The letter of what is not filled.
pub(crate) const FREE: Fill = Fill { letter: '·', color: 90 };

/// Where the limit is.
const LIMIT: Fill = Fill { letter: '┃', color: 31 };

/// Longest name before it is cut.
const LONGEST_NAME: usize = 20;

/// Longest bar: longer ones tell no more.
const LONGEST: usize = 64;

/// Bars below each other, as wide as the style allows.
pub(crate) fn bars(bars: &[Bar], style: &Style) -> String {
    let columns = usize::from(style.columns());
    let names: Vec<String> = bars.iter().map(|bar| shortened(&bar.name, LONGEST_NAME)).collect();
    let name_width = names.iter().map(|name| name.width()).max().unwrap_or(0);
    let caption_width = bars.iter().map(|bar| bar.caption.width()).max().unwrap_or(0);
    // A space before the name, two behind it, one before the caption.
    let width = columns.saturating_sub(name_width + caption_width + 5).min(LONGEST);
    let mut text = String::new();
    for (bar, name) in bars.iter().zip(&names) {
        let padding = " ".repeat(name_width.saturating_sub(name.width()));
        let line = if width < 8 {
            format!(" {name}{padding}  {}", shortened(&bar.caption, columns.saturating_sub(name_width + 3)))
        } else {
            format!(" {name}{padding}  {}  {}", drawn(bar, width, style), bar.caption)
        };
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// What the letters mean, in the order given.
pub(crate) fn legend(meanings: &[(Fill, &str)], style: &Style) -> String {
    let columns = usize::from(style.columns());
    let mut lines = vec![String::new()];
    let mut used = 0;
    for (fill, meaning) in meanings {
        let width = meaning.width() + 4;
        if used > 0 && used + width > columns {
            lines.push(String::new());
            used = 0;
        }
        let line = lines.last_mut().expect("one line at least");
        let _ = write!(line, "  {} {meaning}", painted(&fill.letter.to_string(), *fill, style));
        used += width;
    }
    lines.join("\n") + "\n"
}

fn painted(text: &str, fill: Fill, style: &Style) -> String {
    if style.color && !text.is_empty() { format!("\u{1b}[{}m{text}\u{1b}[0m", fill.color) } else { text.to_owned() }
}

fn drawn(bar: &Bar, width: usize, style: &Style) -> String {
    let mut parts = bar.parts.clone();
    parts.push((FREE, bar.free));
    let total: u64 = parts.iter().map(|(_, part)| *part).fold(0, u64::saturating_add);
    let limit = bar.limit.map(|limit| scaled(limit, total, width - 1));
    let width = if limit.is_some() { width - 1 } else { width };
    let mut letters: Vec<Fill> = cells(&parts.iter().map(|(_, part)| *part).collect::<Vec<_>>(), width)
        .into_iter()
        .zip(&parts)
        .flat_map(|(cells, (fill, _))| std::iter::repeat_n(*fill, cells))
        .collect();
    if let Some(limit) = limit {
        letters.insert(limit.min(letters.len()), LIMIT);
    }
    letters
        .chunk_by(|one, other| one == other)
        .map(|run| painted(&run.iter().map(|fill| fill.letter).collect::<String>(), run[0], style))
        .collect()
}

/// `part` of `total` as columns of `width`.
fn scaled(part: u64, total: u64, width: usize) -> usize {
    if total == 0 {
        return 0;
    }
    let columns = (u128::from(part) * width as u128 + u128::from(total) / 2) / u128::from(total);
    usize::try_from(columns).unwrap_or(width).min(width)
}

/// Columns for each part: all together exactly `width`, none that is something without a column.
fn cells(parts: &[u64], width: usize) -> Vec<usize> {
    let total = parts.iter().copied().fold(0, u64::saturating_add);
    let mut cells: Vec<usize> =
        parts.iter().map(|part| scaled(*part, total, width).max(usize::from(*part > 0))).collect();
    loop {
        let sum: usize = cells.iter().sum();
        let Some(largest) = (0..cells.len()).max_by_key(|index| cells[*index]) else { return cells };
        match sum.cmp(&width) {
            std::cmp::Ordering::Less if total > 0 => cells[largest] += width - sum,
            std::cmp::Ordering::Greater if cells[largest] > 1 => cells[largest] -= 1,
            _ => return cells,
        }
    }
}

/// At most so many columns of a text on one line.
fn shortened(text: &str, columns: usize) -> String {
    let text = clean(text).replace('\n', " ");
    if text.width() <= columns {
        return text;
    }
    let mut short = String::new();
    for letter in text.chars() {
        if short.width() + letter.width().unwrap_or(0) + 1 > columns {
            break;
        }
        short.push(letter);
    }
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_add_up_and_no_part_is_lost() {
        for parts in [[70, 20, 5, 5], [1, 1, 1, 1_000_000], [0, 0, 0, 7], [1, 1, 1, 1], [u64::MAX, 1, 0, 0]] {
            for width in [8, 20, 64] {
                let cells = cells(&parts, width);
                assert_eq!(cells.iter().sum::<usize>(), width, "{parts:?}");
                for (cell, part) in cells.iter().zip(parts) {
                    assert_eq!(*cell > 0, part > 0, "{parts:?} {cells:?}");
                }
            }
        }
        assert_eq!(cells(&[0, 0], 10), [0, 0]);
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(shortened("gpu0", 20), "gpu0");
        assert_eq!(shortened("a-very-long-name", 6), "a-ver…");
        assert_eq!(shortened("机器人工作站", 6), "机器…");
    }
}
