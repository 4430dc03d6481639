//! [`Style`]: what the reader's terminal takes. [`Tone`]: how a word is meant.

use comfy_table::{Attribute, Cell, Color};

/// How to write for one terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether escape sequences for colours and bold may be written.
    pub color: bool,
    /// Columns that fit in a line. Below [`Style::NARROWEST`] lines are as wide as that.
    pub width: usize,
}

impl Style {
    /// The width that everything can be read at; narrower is taken for this.
    pub const NARROWEST: usize = 40;

    /// The columns that are used.
    pub(crate) fn columns(self) -> u16 {
        u16::try_from(self.width.max(Self::NARROWEST)).unwrap_or(u16::MAX)
    }
}

impl Default for Style {
    /// 80 columns without colour: right for a pipe and for every terminal.
    fn default() -> Self {
        Self { color: false, width: 80 }
    }
}

/// How a word is meant, which is all that colour says; no meaning is in the colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Strong,
    Good,
    Bad,
    Waiting,
    Quiet,
}

impl Tone {
    pub(crate) fn apply(self, cell: Cell) -> Cell {
        match self {
            Self::Plain => cell,
            Self::Strong => cell.add_attribute(Attribute::Bold),
            Self::Good => cell.fg(Color::DarkGreen),
            Self::Bad => cell.fg(Color::DarkRed),
            Self::Waiting => cell.fg(Color::DarkYellow),
            Self::Quiet => cell.add_attribute(Attribute::Dim),
        }
    }
}
