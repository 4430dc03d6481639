//! Scoring: `shim/quality.cpp`.

use std::ffi::{c_char, c_void};
use std::path::Path;
use std::ptr::NonNull;

use super::raw::{Error, Progress};

mod raw {
    use super::{Error, Progress, c_char, c_void};

    pub enum Scorer {}

    unsafe extern "C" {
        pub fn ms_scorer_open(
            path: *const c_char,
            settings: *const super::ScorerSettings,
            progress: Progress,
            user: *mut c_void,
            error: *mut Error,
        ) -> *mut Scorer;
        pub fn ms_scorer_close(scorer: *mut Scorer);
        pub fn ms_scorer_vocabulary(scorer: *const Scorer, out: *mut super::Vocabulary);
        pub fn ms_scorer_tokenize(
            scorer: *const Scorer,
            text: *const c_char,
            length: usize,
            special: bool,
            out: *mut i32,
            capacity: usize,
            error: *mut Error,
        ) -> i64;
        pub fn ms_scorer_clear(scorer: *mut Scorer);
        pub fn ms_scorer_decode(
            scorer: *mut Scorer,
            tokens: *const i32,
            count: usize,
            position: i32,
            first_scored: usize,
            error: *mut Error,
        ) -> bool;
        pub fn ms_scorer_logits(scorer: *mut Scorer) -> *const f32;
    }
}

/// How a model is opened for scoring; `shim.h` says what each field means.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ScorerSettings {
    pub context: u32,
    pub batch: u32,
    pub outputs: u32,
    pub threads: u32,
    pub gpu_layers: i32,
}

/// A model's vocabulary.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vocabulary {
    pub tokens: u32,
    pub bos: i32,
    pub add_bos: bool,
    pub add_eos: bool,
}

/// An open model that gives the logits of many tokens at once. Not `Sync`, and used by one thread.
pub struct Scorer {
    handle: NonNull<raw::Scorer>,
    vocabulary: Vocabulary,
    /// Rows of logits that the last batch left.
    rows: usize,
}

impl Drop for Scorer {
    fn drop(&mut self) {
        // SAFETY: made by ms_scorer_open, closed once.
        unsafe { raw::ms_scorer_close(self.handle.as_ptr()) };
    }
}

impl Scorer {
    /// Loads a model. `progress` returns false to stop.
    pub fn open(path: &Path, settings: &ScorerSettings, mut progress: impl FnMut(f32) -> bool) -> Result<Self, String> {
        let path = super::c_path(path)?;
        let mut error = Error::new();
        let callback = super::progress_of(&progress);
        // SAFETY: path, settings and closure live through the call; `callback` is instantiated for the closure's type.
        let handle = unsafe {
            let user = (&raw mut progress).cast();
            raw::ms_scorer_open(path.as_ptr(), settings, callback, user, &raw mut error)
        };
        let handle = NonNull::new(handle).ok_or_else(|| error.into_text())?;
        let mut vocabulary = Vocabulary::default();
        // SAFETY: the scorer is open, `vocabulary` is ours.
        unsafe { raw::ms_scorer_vocabulary(handle.as_ptr(), &raw mut vocabulary) };
        Ok(Self { handle, vocabulary, rows: 0 })
    }

    /// Its vocabulary.
    pub fn vocabulary(&self) -> Vocabulary {
        self.vocabulary
    }

    /// The tokens of a text, with those that the model wants at its start.
    pub fn tokenize(&self, text: &str, special: bool) -> Result<Vec<i32>, String> {
        let mut tokens = vec![0; text.len() + 2];
        loop {
            let mut error = Error::new();
            // SAFETY: text and vector live through the call; at most `tokens.len()` are written.
            let count = unsafe {
                raw::ms_scorer_tokenize(
                    self.handle.as_ptr(),
                    text.as_ptr().cast(),
                    text.len(),
                    special,
                    tokens.as_mut_ptr(),
                    tokens.len(),
                    &raw mut error,
                )
            };
            let count = usize::try_from(count).map_err(|_| error.into_text())?;
            if count <= tokens.len() {
                tokens.truncate(count);
                return Ok(tokens);
            }
            tokens.resize(count, 0);
        }
    }

    /// Forgets what was computed.
    pub fn clear(&mut self) {
        self.rows = 0;
        // SAFETY: the scorer is open.
        unsafe { raw::ms_scorer_clear(self.handle.as_ptr()) };
    }

    /// Computes tokens at `position` and after; at most as many as the batch, and all of this vocabulary. The logits of
    /// those from `first_scored` on are kept until the next call.
    pub fn decode(&mut self, tokens: &[i32], position: i32, first_scored: usize) -> Result<(), String> {
        self.rows = 0;
        let mut error = Error::new();
        // SAFETY: the scorer is open, the slice lives through the call.
        let done = unsafe {
            raw::ms_scorer_decode(
                self.handle.as_ptr(),
                tokens.as_ptr(),
                tokens.len(),
                position,
                first_scored,
                &raw mut error,
            )
        };
        if !done {
            return Err(error.into_text());
        }
        self.rows = tokens.len().saturating_sub(first_scored);
        Ok(())
    }

    /// The logits that the last batch left, a row as long as the vocabulary for each scored token; `None` where the model
    /// gives none.
    pub fn logits(&mut self) -> Option<&[f32]> {
        if self.rows == 0 {
            return Some(&[]);
        }
        // SAFETY: the scorer is open.
        let start = unsafe { raw::ms_scorer_logits(self.handle.as_ptr()) };
        if start.is_null() {
            return None;
        }
        // SAFETY: llama.cpp keeps the rows of the last batch's outputs one after the other, and `rows` is their number since
        // that batch succeeded; they stay until the next call, which the borrow of `self` keeps away.
        Some(unsafe { std::slice::from_raw_parts(start, self.rows * self.vocabulary.tokens as usize) })
    }
}
