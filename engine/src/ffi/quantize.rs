//! Quantizing: `shim/quantize.cpp`.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;

use super::raw::Error;

mod raw {
    use super::{Error, c_char, c_void};

    #[repr(C)]
    pub struct ImatrixEntry {
        pub name: *const c_char,
        pub values: *const f32,
        pub count: usize,
    }

    #[repr(C)]
    pub struct Request {
        pub source: *const c_char,
        pub target: *const c_char,
        pub file_type: i32,
        pub threads: u32,
        pub requantize: bool,
        pub pure: bool,
        pub plan: bool,
        pub buffer: usize,
        pub imatrix: *const ImatrixEntry,
        pub imatrix_count: usize,
        pub imatrix_chunks: i64,
    }

    pub type Step = extern "C" fn(user: *mut c_void, tensor: *const c_char, kind: *const c_char);

    unsafe extern "C" {
        pub fn ms_quantize(request: *const Request, step: Step, user: *mut c_void, error: *mut Error) -> bool;
    }
}

/// What to quantize, and how.
#[derive(Clone, Copy, Debug)]
pub struct Quantize<'a> {
    pub source: &'a Path,
    pub target: &'a Path,
    /// A `llama_ftype`.
    pub file_type: i32,
    pub threads: u32,
    pub requantize: bool,
    pub pure: bool,
    /// Names with average squared activations.
    pub imatrix: &'a [(String, Vec<f32>)],
    /// What the importance matrix was made from; 0 where not known.
    pub imatrix_chunks: u32,
}

/// What llama.cpp would make of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedTensor {
    pub name: String,
    /// ggml's name of the type; `None` where the tensor stays as it is.
    pub kind: Option<String>,
}

/// Rows of a tensor in memory at once: enough for all threads, little enough for any machine.
const BUFFER: usize = 64 << 20;

impl Quantize<'_> {
    /// What each tensor would become. Writes nothing.
    pub fn plan(&self) -> Result<Vec<PlannedTensor>, String> {
        let mut planned = Vec::new();
        self.run(true, &mut |name, kind| {
            let kind = kind.filter(|kind| !kind.is_empty()).map(str::to_owned);
            planned.push(PlannedTensor { name: name.to_owned(), kind });
        })?;
        Ok(planned)
    }

    /// Does it; `on_tensor` hears the name of each tensor as it begins.
    pub fn perform(&self, mut on_tensor: impl FnMut(&str)) -> Result<(), String> {
        self.run(false, &mut |name, _| on_tensor(name))
    }

    fn run(&self, plan: bool, mut on_step: &mut dyn FnMut(&str, Option<&str>)) -> Result<(), String> {
        let (source, target) = (super::c_path(self.source)?, super::c_path(self.target)?);
        let names: Vec<CString> =
            self.imatrix.iter().map(|(name, _)| super::c_string(name.as_str())).collect::<Result<_, _>>()?;
        let entries: Vec<raw::ImatrixEntry> = self
            .imatrix
            .iter()
            .zip(&names)
            .map(|((_, values), name)| raw::ImatrixEntry {
                name: name.as_ptr(),
                values: values.as_ptr(),
                count: values.len(),
            })
            .collect();
        let request = raw::Request {
            source: source.as_ptr(),
            target: target.as_ptr(),
            file_type: self.file_type,
            threads: self.threads,
            requantize: self.requantize,
            pure: self.pure,
            plan,
            buffer: BUFFER,
            imatrix: entries.as_ptr(),
            imatrix_count: entries.len(),
            imatrix_chunks: self.imatrix_chunks.into(),
        };
        let mut error = Error::new();
        // SAFETY: request, strings, values and closure live through the call; `on_step` below casts back to their type.
        let done = unsafe {
            let user = (&raw mut on_step).cast();
            raw::ms_quantize(&raw const request, on_tensor_step, user, &raw mut error)
        };
        if done { Ok(()) } else { Err(error.into_text()) }
    }
}

extern "C" fn on_tensor_step(user: *mut c_void, tensor: *const c_char, kind: *const c_char) {
    // SAFETY: the shim passes strings that live through this call; `kind` may be null.
    let word = |start: *const c_char| unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned();
    // SAFETY: `user` is the closure that Quantize::run passed, used by nobody else during the call.
    let step = unsafe { &mut *user.cast::<&mut dyn FnMut(&str, Option<&str>)>() };
    step(&word(tensor), (!kind.is_null()).then(|| word(kind)).as_deref());
}
