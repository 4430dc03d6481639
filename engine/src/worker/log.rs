//! [`Log`]: what is kept of a worker's standard error.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Lines kept: a failed load says why in its last few.
const LINES: usize = 40;
/// Bytes kept of a line.
const LINE_LENGTH: usize = 500;

/// The last lines before the first prompt, and the place of a failed assertion. Lines of a later time can hold prompts:
/// they are read, so that the worker never waits, and forgotten.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    assertion: Option<String>,
    closed: bool,
}

impl Log {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on no line is kept. Called before the first prompt leaves this process.
    pub fn close(&self) {
        self.kept().closed = true;
    }

    /// The place of a failed assertion and the lines.
    pub fn take(&self) -> (Option<String>, Vec<String>) {
        let kept = self.kept();
        (kept.assertion.clone(), kept.lines.iter().cloned().collect())
    }

    /// Reads until the pipe ends.
    pub async fn follow(self, mut pipe: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 8192];
        let mut line = Vec::new();
        while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
            for byte in &buffer[..length] {
                if *byte == b'\n' {
                    self.line(&String::from_utf8_lossy(&line));
                    line.clear();
                } else if line.len() < LINE_LENGTH {
                    line.push(*byte);
                }
            }
        }
        self.line(&String::from_utf8_lossy(&line));
    }

    fn line(&self, line: &str) {
        // It may quote a model file, and ends in somebody's terminal.
        let line = line.replace(char::is_control, " ");
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        let mut kept = self.kept();
        if let Some(place) = assertion_place(line) {
            kept.assertion.get_or_insert(place);
        } else if !kept.closed {
            kept.lines.push_back(line.to_owned());
            if kept.lines.len() > LINES {
                kept.lines.pop_front();
            }
        }
    }
}

/// `file.cpp:123` of a line that says where the process gave up: the shim's for llama.cpp's assertions, or Rust's panic.
fn assertion_place(line: &str) -> Option<String> {
    let place = match line.strip_prefix("MUSTER-ABORT ") {
        Some(place) => place,
        None => line.strip_prefix("thread '")?.split_once(" panicked at ")?.1.trim_end_matches(':'),
    };
    let name = place.rsplit(['/', '\\']).next()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:+".contains(c);
    let (_, line_number) = name.split_once(':')?;
    (name.len() <= 80 && name.chars().all(plain) && line_number.starts_with(|c: char| c.is_ascii_digit()))
        .then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_place_is_kept_of_an_assertion() {
        assert_eq!(assertion_place("MUSTER-ABORT ggml-cpu.c:1234"), Some("ggml-cpu.c:1234".into()));
        let panic = "thread 'main' panicked at engine/src/child/mod.rs:12:5:";
        assert_eq!(assertion_place(panic), Some("mod.rs:12:5".into()));
        assert_eq!(assertion_place("MUSTER-ABORT secret words of a prompt:1"), None);
        assert_eq!(assertion_place("ordinary line"), None);
        assert_eq!(assertion_place("user: why has it panicked at secret:1"), None);
    }

    #[tokio::test]
    async fn lines_are_few_and_end_with_the_first_prompt() {
        let log = Log::default();
        let many = (0..100).map(|n| format!("line\x1b{n}")).collect::<Vec<_>>().join("\n");
        log.clone().follow(many.as_bytes()).await;
        let (_, lines) = log.take();
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[LINES - 1], "line 99");
        log.close();
        log.clone().follow("a canary\nMUSTER-ABORT ggml.c:7\n".as_bytes()).await;
        let (place, after) = log.take();
        assert_eq!(place.as_deref(), Some("ggml.c:7"));
        assert_eq!(after, lines);
    }
}
