//! [`Answer`]: the text of one answer as it grows: whole characters only, and nothing that may become a stop text.

/// Collects token bytes. What may be shown is [`visible`](Self::visible).
#[derive(Debug, Default)]
pub struct Answer {
    text: String,
    /// The start of a character whose other bytes have not come.
    partial: Vec<u8>,
    stops: Vec<String>,
    stopped: bool,
}

impl Answer {
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(), ..Self::default() }
    }

    /// Adds a token's bytes. Returns whether a stop text is complete: the answer then ends before it.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        if self.stopped {
            return true;
        }
        let before = self.text.len();
        self.partial.extend_from_slice(bytes);
        self.take_whole_characters();
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let mut from = before.saturating_sub(longest);
        while !self.text.is_char_boundary(from) {
            from -= 1;
        }
        let found = self.stops.iter().filter_map(|stop| self.text[from..].find(stop.as_str())).min();
        if let Some(position) = found {
            self.text.truncate(from + position);
            self.partial.clear();
            self.stopped = true;
        }
        self.stopped
    }

    fn take_whole_characters(&mut self) {
        loop {
            match std::str::from_utf8(&self.partial) {
                Ok(text) => {
                    self.text.push_str(text);
                    self.partial.clear();
                    return;
                }
                Err(error) => {
                    let valid = error.valid_up_to();
                    self.text.push_str(&String::from_utf8_lossy(&self.partial[..valid]));
                    let Some(wrong) = error.error_len() else {
                        self.partial.drain(..valid);
                        return;
                    };
                    // Bytes that no character has: shown as such, then on.
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    self.partial.drain(..valid + wrong);
                }
            }
        }
    }

    /// Everything that can no longer be taken back.
    pub fn visible(&self) -> &str {
        if self.stopped {
            return &self.text;
        }
        let held = self.stops.iter().map(|stop| overlap(&self.text, stop)).max().unwrap_or(0);
        &self.text[..self.text.len() - held]
    }

    /// Everything, once no more comes: half characters stay away, a begun stop text is text.
    pub fn whole(&self) -> &str {
        &self.text
    }
}

/// Length of the longest end of `text` that starts `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    // A start of `stop` that ends within a character cannot end `text`, which has whole ones.
    let most = stop.len().min(text.len());
    (1..=most).rev().find(|length| text.as_bytes().ends_with(&stop.as_bytes()[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(stops: &[&str]) -> Answer {
        Answer::new(stops.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn half_characters_wait() {
        let mut answer = answer(&[]);
        let euro = "€".as_bytes();
        answer.push(&euro[..1]);
        assert_eq!(answer.visible(), "");
        answer.push(&euro[1..]);
        assert_eq!(answer.visible(), "€");
        answer.push(&[b'a', 0xff, b'b']);
        assert_eq!(answer.visible(), "€a\u{fffd}b");
        answer.push(&[0xe2]);
        assert_eq!(answer.whole(), "€a\u{fffd}b");
    }

    #[test]
    fn a_stop_over_several_tokens_is_never_shown() {
        let mut answer = answer(&["\n\nUser:", "END"]);
        assert!(!answer.push(b"one\n"));
        assert_eq!(answer.visible(), "one");
        assert!(!answer.push(b"\nUs"));
        assert_eq!(answer.visible(), "one");
        assert!(answer.push(b"er: two"));
        assert_eq!(answer.visible(), "one");
    }

    #[test]
    fn what_only_looked_like_a_stop_is_shown() {
        let mut answer = answer(&["END"]);
        answer.push(b"the EN");
        assert_eq!(answer.visible(), "the ");
        answer.push(b"GINE");
        assert_eq!(answer.visible(), "the ENGIN");
        answer.push(b"E");
        assert_eq!(answer.visible(), "the ENGINE"[..9].to_owned() + "E");
        answer.push(b"N");
        assert_eq!(answer.whole(), "the ENGINEEN");
    }

    #[test]
    fn the_earliest_of_several_stops_counts() {
        let mut answer = answer(&["zwei", "eins"]);
        assert!(answer.push("null eins zwei".as_bytes()));
        assert_eq!(answer.visible(), "null ");
    }
}
