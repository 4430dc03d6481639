//! What goes to standard output and standard error, and how.

use std::io::{IsTerminal as _, Write as _};

use muster_proto::Timestamp;
use muster_reports::Style;

use super::Failure;
use super::args::{ColorChoice, Global};

/// Where a command writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    /// Whether results are JSON.
    pub json: bool,
    /// How pages are written.
    pub style: Style,
    /// Whether messages may have colours.
    color_messages: bool,
}

/// Columns where no terminal says.
const WIDTH: usize = 100;

impl Output {
    pub fn new(global: &Global) -> Self {
        let wants = |terminal: bool| match global.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        let terminal = std::io::stdout().is_terminal();
        let columns = terminal_size::terminal_size_of(std::io::stdout());
        let width = columns.map_or(WIDTH, |(columns, _)| usize::from(columns.0));
        let style = Style { color: wants(terminal), width };
        Self { json: global.json, style, color_messages: wants(std::io::stderr().is_terminal()) }
    }

    /// Prints a result: JSON if asked for, else the page.
    pub fn result<T: serde::Serialize>(&self, value: &T, page: impl FnOnce(&Style) -> String) -> Result<(), Failure> {
        let text = if self.json {
            let json = serde_json::to_string_pretty(value);
            json.map_err(|error| Failure::new(format!("cannot write JSON: {error}")))? + "\n"
        } else {
            page(&self.style)
        };
        Self::print(&text)
    }

    /// Prints to standard output; a reader that has gone is no failure.
    pub fn print(text: &str) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Failure::new(format!("cannot write to standard output: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Says something beside the result.
    pub fn hint(text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Says why a command failed.
    pub fn error(&self, message: &str) {
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let word = if self.color_messages { "\x1b[1;31merror\x1b[0m" } else { "error" };
        let _ = writeln!(std::io::stderr().lock(), "{word}: {message}");
    }
}

/// What time it is here.
pub(super) fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}
