//! [`Show`]: how the demo looks in a terminal of 80 columns, and in a pipe.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};

/// Columns of a line, indent included.
const WIDTH: usize = 80;
/// What stands before everything that belongs to a step.
const INDENT: &str = "   ";

/// The terminal.
pub struct Show {
    color: bool,
    terminal: bool,
}

impl Show {
    /// Colours only for a terminal whose user did not ask for none.
    pub fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { color, terminal }
    }

    /// How reports are to be written inside a step.
    pub const fn reports(&self) -> muster_reports::Style {
        muster_reports::Style { color: self.color, width: WIDTH - INDENT.len() }
    }

    /// Whether somebody watches.
    pub const fn terminal(&self) -> bool {
        self.terminal
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    #[expect(clippy::unused_self, reason = "what is said goes through the show")]
    fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // A closed pipe ends the show at its next step, not in a panic here.
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }

    /// The first line.
    pub fn title(&self, text: &str) {
        self.line(&self.paint(Style::new().bold(), text));
    }

    /// An empty line.
    pub fn blank(&self) {
        self.line("");
    }

    /// The heading of a step.
    pub fn step(&self, number: usize, of: usize, title: &str) {
        self.blank();
        let number = self.paint(AnsiColor::Cyan.on_default().bold(), &format!("{number}/{of}"));
        self.line(&format!("{number} {}", self.paint(Style::new().bold(), title)));
    }

    /// A command as the user would type it.
    pub fn command(&self, words: &[String]) {
        for line in shell_lines("$ ", words, WIDTH - INDENT.len()) {
            self.line(&format!("{INDENT}{}", self.paint(Style::new().dimmed(), &line)));
        }
    }

    /// A command to copy: nothing stands before it.
    pub fn command_to_copy(&self, words: &[String]) {
        for line in shell_lines("", words, WIDTH) {
            self.line(&self.paint(AnsiColor::Cyan.on_default(), &line));
        }
    }

    /// One thing that is true now.
    pub fn good(&self, text: &str) {
        let mark = self.paint(AnsiColor::Green.on_default().bold(), "✓");
        for (number, line) in folded(text, WIDTH - INDENT.len() - 2).iter().enumerate() {
            self.line(&format!("{INDENT}{} {line}", if number == 0 { mark.as_str() } else { " " }));
        }
    }

    /// A report, as it is.
    pub fn report(&self, text: &str) {
        for line in text.trim_end().lines() {
            self.line(format!("{INDENT}{line}").trim_end());
        }
    }

    /// A sentence at the left edge.
    pub fn note(&self, text: &str) {
        self.line(text);
    }

    /// Starts an answer that is written as it comes.
    pub fn speech(&self, speaker: &str) -> Speech<'_> {
        let start = format!("{INDENT}{speaker} ");
        let mut speech = Speech { show: self, indent: start.chars().count(), column: 0, word: String::new() };
        speech.column = speech.indent;
        print_now(&format!("{INDENT}{} ", self.paint(Style::new().bold(), speaker)));
        speech
    }

    /// A bar of bytes.
    pub fn bytes(&self, total: u64) -> ProgressBar {
        let bar = if self.terminal { ProgressBar::new(total) } else { ProgressBar::hidden() };
        let template = "   {bar:30.cyan/black} {binary_bytes:>10} of {binary_total_bytes}  {msg}";
        bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
        bar.set_length(total);
        bar
    }

    /// Which step failed, why, and the end of each log.
    pub fn fail(&self, number: usize, title: &str, error: &anyhow::Error, logs: &[String]) {
        let mark = self.paint(AnsiColor::Red.on_default().bold(), "✗");
        self.line(&format!("{INDENT}{mark} step {number} failed ({title}): {error:#}"));
        for log in logs {
            self.line(log);
        }
    }

    /// The last word of a show that went wrong.
    #[expect(clippy::unused_self, reason = "what is said goes through the show")]
    pub fn error(&self, error: &anyhow::Error) {
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
    }

    /// The last line of a show that went well.
    pub fn finished(&self, took: Duration) {
        self.blank();
        let text = format!("The whole loop took {:.0} s.", took.as_secs_f64());
        self.line(&self.paint(AnsiColor::Green.on_default().bold(), &text));
    }
}

fn print_now(text: &str) {
    let mut out = std::io::stdout().lock();
    // As in `Show::line`.
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// An answer on its way to the terminal, folded between words.
pub struct Speech<'a> {
    show: &'a Show,
    indent: usize,
    column: usize,
    word: String,
}

impl Speech<'_> {
    /// Writes what is new; the last word waits for its end.
    pub fn piece(&mut self, text: &str) {
        for letter in text.chars() {
            if letter.is_whitespace() {
                self.flush();
            }
            self.word.push(letter);
        }
    }

    /// Writes the last word and ends the line.
    pub fn end(mut self) {
        self.flush();
        print_now("\n");
    }

    fn flush(&mut self) {
        let length = self.word.chars().count();
        if self.column + length > WIDTH && self.word.starts_with(char::is_whitespace) {
            print_now(&format!("\n{}", " ".repeat(self.indent)));
            self.column = self.indent;
            self.word = self.word.trim_start().to_owned();
        }
        print_now(&self.show.paint(AnsiColor::Yellow.on_default(), &self.word));
        self.column += self.word.chars().count();
        self.word.clear();
    }
}

/// The words as a shell reads them, broken before options where they do not fit in `width` columns.
fn shell_lines(prompt: &str, words: &[String], width: usize) -> Vec<String> {
    // An option and its value stay together.
    let mut units: Vec<String> = Vec::new();
    for (number, word) in words.iter().enumerate() {
        let value = number > 0 && words[number - 1].starts_with('-') && !word.starts_with('-');
        match units.last_mut() {
            Some(last) if value => last.extend([" ", &quoted(word)]),
            _ => units.push(quoted(word)),
        }
    }
    let mut lines = vec![prompt.to_owned()];
    let mut first = true;
    for unit in units {
        let last = lines.last_mut().expect("starts with one");
        let end = unit.lines().next().unwrap_or_default().chars().count();
        // Two columns stay for the backslash.
        if !first && last.chars().count() + 1 + end + 2 > width {
            last.push_str(" \\");
            lines.push("    ".to_owned());
            first = true;
        }
        let last = lines.last_mut().expect("starts with one");
        if !first {
            last.push(' ');
        }
        first = false;
        // A text of several lines stays one word.
        let mut parts = unit.lines();
        last.push_str(parts.next().unwrap_or_default());
        lines.extend(parts.map(str::to_owned));
    }
    lines
}

/// A word as a shell wants it.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,@+%".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Lines of at most `width` columns, broken between words.
fn folded(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("starts with one");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_break_before_options_and_read_back_the_same() {
        let words =
            ["muster", "--data", "/tmp/x", "serve", "--listen", "127.0.0.1:0", "-d", "{\n  }"].map(str::to_owned);
        let lines = shell_lines("$ ", &words, 36);
        assert_eq!(lines, ["$ muster --data /tmp/x serve \\", "    --listen 127.0.0.1:0 -d '{", "  }'"], "{lines:#?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 36));
    }

    #[test]
    fn words_are_quoted_for_a_shell_and_texts_fold() {
        assert_eq!(quoted("--data=/tmp/a"), "--data=/tmp/a");
        assert_eq!(quoted("it's {1}"), r"'it'\''s {1}'");
        assert_eq!(folded("one two three", 7), ["one two", "three"]);
        assert_eq!(folded("extraordinarily long", 4), ["extraordinarily", "long"]);
    }
}
