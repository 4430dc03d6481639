//! What goes to the terminal: style, JSON, log, errors.

use std::io::{self, IsTerminal as _, Write as _};

use muster_reports::Style;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use super::args::{Args, Color, Command};

/// How a command writes.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// JSON instead of text.
    pub json: bool,
    /// What the terminal takes.
    pub style: Style,
}

impl Output {
    /// What stdout takes.
    pub fn new(json: bool, color: Color) -> Self {
        let terminal = io::stdout().is_terminal();
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        let width = terminal_size::terminal_size().map_or(Style::default().width, |(width, _)| usize::from(width.0));
        Self { json, style: Style { color, width } }
    }

    /// Writes a value as JSON, or the text that `page` makes of it.
    ///
    /// # Errors
    /// Stdout is closed.
    pub fn show<T: Serialize>(&self, value: &T, page: impl FnOnce(&Style) -> String) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut stdout, value)?;
            stdout.write_all(b"\n")?;
        } else {
            stdout.write_all(page(&self.style).as_bytes())?;
        }
        stdout.flush()
    }
}

/// The error and its causes in one line.
pub fn chain(error: &anyhow::Error) -> String {
    crate::error_chain(error.as_ref())
}

/// Sends the log to stderr. A plain level is that of Muster's own crates: nobody else's log may show what passes by.
pub fn log_to_stderr(args: &Args) {
    let default = if matches!(args.command, Command::Run(_)) { "info" } else { "warn" };
    let wanted = args.log.as_deref().unwrap_or(default);
    let filter = match wanted.parse::<tracing::level_filters::LevelFilter>() {
        Ok(level) => format!("warn,muster_agent={level},muster_engine={level}"),
        Err(_) => wanted.to_owned(),
    };
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|error| {
        eprintln!("warning: the log filter {wanted:?} is wrong ({error}): using {default}");
        EnvFilter::new(default)
    });
    let colors = match args.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    // Set twice only in a test that runs two commands; the first one stays then.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colors)
        .with_target(false)
        .try_init();
}
