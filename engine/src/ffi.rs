//! The only unsafe code of Muster's engine: safe types over the C++ shim (`shim/shim.h`).
//!
//! Owns: lifetimes and the conversion of texts and slices. It does not know what a worker does with a model. The shim
//! catches every C++ exception; an assertion of llama.cpp still aborts the process, which is why only a worker calls this.

#![allow(unsafe_code, reason = "the border to C++; each block says why it is sound")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::NonNull;

// Its build script is what links llama.cpp.
use llama_cpp_sys_2 as _;

use crate::gguf::TensorType;
mod quantize;
mod scoring;
pub mod vulkan;
#[cfg(windows)]
pub mod windows;

pub use quantize::{PlannedTensor, Quantize};
pub use scoring::{Scorer, ScorerSettings};

/// Mirrors of the shim's plain structs, field by field.
mod raw {
    use super::{c_char, c_void};

    #[repr(C)]
    pub struct Error {
        pub text: [c_char; 1024],
    }

    #[repr(C)]
    pub struct Device {
        pub name: [c_char; 128],
        pub description: [c_char; 256],
        pub backend: [c_char; 64],
        pub bus_id: [c_char; 64],
        pub kind: i32,
        pub memory_total: u64,
        pub memory_free: u64,
    }

    #[repr(C)]
    pub struct Phantom {
        pub name: *const c_char,
        pub backend: i32,
        pub total: u64,
        pub free: u64,
        pub capability: u32,
        pub integrated: bool,
    }

    #[repr(C)]
    pub struct Memory {
        pub name: [c_char; 128],
        pub model: u64,
        pub context: u64,
        pub compute: u64,
    }

    #[repr(C)]
    pub struct Override {
        pub pattern: *const c_char,
        pub device: *const c_char,
    }

    #[repr(C)]
    pub struct Layout {
        pub split: *const f32,
        pub split_count: usize,
        pub overrides: *const Override,
        pub override_count: usize,
    }

    #[repr(C)]
    pub struct ChatRequest {
        pub messages: *const c_char,
        pub tools: *const c_char,
        pub json_schema: *const c_char,
        pub tool_choice: i32,
        pub parallel_tool_calls: bool,
    }

    #[repr(C)]
    #[derive(Clone, Copy)]
    pub struct Tensor {
        pub name: [c_char; 64],
        pub shape: [i64; 4],
        pub kind: i32,
    }

    pub enum Model {}
    pub enum Chat {}
    pub enum Maker {}

    pub type Progress = extern "C" fn(fraction: f32, user: *mut c_void) -> bool;
    pub type OnTensor = extern "C" fn(user: *mut c_void, place: i32, name: *const c_char, bytes: u64);
    pub type OnTrace = extern "C" fn(*mut c_void, i32, u32, u32, u64, *const c_char);
    pub type Difference = extern "C" fn(
        user: *mut c_void,
        content: *const c_char,
        content_length: usize,
        reasoning: *const c_char,
        reasoning_length: usize,
        index: i32,
        id: *const c_char,
        name: *const c_char,
        arguments: *const c_char,
        arguments_length: usize,
    );

    #[link(name = "muster_shim", kind = "static")]
    unsafe extern "C" {
        pub fn ms_start(backends: *const c_char, error: *mut Error) -> bool;
        pub fn ms_abort();
        pub fn ms_device_count() -> usize;
        pub fn ms_device_get(index: usize, out: *mut Device) -> bool;
        pub fn ms_phantoms_register(
            phantoms: *const Phantom,
            count: usize,
            earlier: *const super::Earlier,
            error: *mut Error,
        ) -> bool;
        pub fn ms_model_open(
            path: *const c_char,
            settings: *const super::Settings,
            layout: *const Layout,
            progress: Progress,
            user: *mut c_void,
            error: *mut Error,
        ) -> *mut Model;
        pub fn ms_model_close(model: *mut Model);
        pub fn ms_model_facts_get(model: *const Model, out: *mut super::ModelFacts);
        pub fn ms_model_override_get(model: *const Model, index: usize, out: *mut Override) -> bool;
        pub fn ms_model_memory(model: *const Model, out: *mut Memory, capacity: usize) -> usize;
        pub fn ms_model_reserve(
            model: *mut Model,
            settings: *const super::Settings,
            shape: *const super::Shape,
            out: *mut super::Reserved,
            capacity: usize,
            error: *mut Error,
        ) -> bool;
        pub fn ms_model_sizing_facts(model: *const Model, out: *mut super::SizingFacts);
        pub fn ms_model_try(
            model: *mut Model,
            settings: *const super::Settings,
            flash_attention: *mut bool,
            error: *mut Error,
        ) -> bool;
        pub fn ms_model_tensors(model: *mut Model, on_tensor: OnTensor, user: *mut c_void, error: *mut Error) -> bool;
        pub fn ms_model_trace(model: *mut Model, on_trace: OnTrace, user: *mut c_void, error: *mut Error) -> bool;
        pub fn ms_decode(model: *mut Model, tokens: *const super::BatchToken, count: usize) -> i32;
        pub fn ms_synchronize(model: *mut Model);
        pub fn ms_sequence_clear(model: *mut Model, sequence: i32);
        pub fn ms_sequence_trim(model: *mut Model, sequence: i32, position: i32);
        pub fn ms_token_ends(model: *const Model, token: i32) -> bool;
        pub fn ms_chat_new(
            model: *mut Model,
            request: *const ChatRequest,
            sampling: *const super::Sampling,
            error: *mut Error,
        ) -> *mut Chat;
        pub fn ms_chat_free(chat: *mut Chat);
        pub fn ms_chat_prompt_length(chat: *const Chat) -> usize;
        pub fn ms_chat_prompt(chat: *const Chat) -> *const i32;
        pub fn ms_chat_stop(chat: *const Chat, index: usize) -> *const c_char;
        pub fn ms_chat_sample(chat: *mut Chat, model: *mut Model, index: i32) -> i32;
        pub fn ms_chat_piece(
            chat: *const Chat,
            model: *const Model,
            token: i32,
            out: *mut c_char,
            capacity: i32,
        ) -> i32;
        pub fn ms_chat_parse(
            chat: *mut Chat,
            text: *const c_char,
            length: usize,
            partial: bool,
            difference: Difference,
            user: *mut c_void,
        ) -> bool;
        pub fn ms_maker_new(metadata: *const c_void, length: usize, error: *mut Error) -> *mut Maker;
        pub fn ms_maker_free(maker: *mut Maker);
        pub fn ms_maker_tensors(maker: *const Maker, out: *mut Tensor, capacity: usize) -> usize;
        pub fn ms_maker_types(
            maker: *const Maker,
            file_type: i32,
            tensors: *mut Tensor,
            count: usize,
            error: *mut Error,
        ) -> bool;
        pub fn ms_plan_with_importance(
            source: *const c_char,
            file_type: i32,
            tensors: *mut Tensor,
            count: usize,
            error: *mut Error,
        ) -> bool;
        pub fn ms_encode(
            kind: i32,
            values: *const f32,
            columns: i64,
            rows: i64,
            out: *mut c_void,
            capacity: usize,
            error: *mut Error,
        ) -> bool;
    }
}

/// How a model is opened; `shim.h` says what each field means.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub context: u32,
    pub parallel: u32,
    pub batch: u32,
    pub ubatch: u32,
    pub kv_type: i32,
    pub gpu_layers: i32,
    pub threads: u32,
    pub cpu_only: bool,
    pub phantoms: bool,
    pub no_alloc: bool,
    pub kv_unified: bool,
    pub flash_attention: i32,
    pub expert_layers_on_host: u32,
    pub total_context: u32,
    pub all_outputs: bool,
    pub fit: bool,
    pub fit_min_context: u32,
    pub fit_margin: u64,
    pub fit_unmodified: bool,
    pub encoder: bool,
}

/// What is known of an open model.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ModelFacts {
    pub layers: u32,
    pub context_train: u32,
    pub experts: u32,
    pub context_per_sequence: u32,
    pub vocabulary: u32,
    pub gpu_layers: u32,
    pub threads: u32,
    pub total_layers: u32,
    pub context: u32,
    pub expert_layers_on_host: u32,
    pub has_template: bool,
    pub split: [f32; 16],
    pub fit: u32,
    pub override_count: u32,
}

/// What goes where beyond the number of layers; empty where llama.cpp decides.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    pub split: Vec<f32>,
    /// Pattern and device.
    pub overrides: Vec<(String, String)>,
}

/// One token of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BatchToken {
    pub token: i32,
    pub position: i32,
    pub sequence: i32,
    pub logits: bool,
}

/// How tokens are chosen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    pub temperature: f32,
    pub top_p: f32,
    pub min_p: f32,
    pub repeat_penalty: f32,
    pub presence_penalty: f32,
    pub frequency_penalty: f32,
    pub top_k: i32,
    pub seed: u32,
    pub random_seed: bool,
}

/// A device, as ggml describes it.
#[derive(Clone, Debug)]
pub struct Device {
    pub name: String,
    pub description: String,
    pub backend: String,
    pub bus_id: String,
    pub kind: i32,
    pub memory_total: u64,
    pub memory_free: u64,
}

/// A device to imagine.
#[derive(Clone, Debug)]
pub struct Phantom {
    pub name: String,
    pub backend: i32,
    pub total: u64,
    pub free: u64,
    pub capability: u32,
    pub integrated: bool,
}

/// Whose compute buffers phantoms imitate; `shim.h` says what each field means.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Earlier {
    pub graphs: bool,
    pub f32_masks: bool,
    pub copied_rows: bool,
}

/// Memory on one device; the host has no name.
#[derive(Clone, Debug)]
pub struct Memory {
    pub name: String,
    pub model: u64,
    pub context: u64,
    pub compute: u64,
}

/// A context and a micro-batch, as llama.cpp rounds them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub tokens: u32,
    pub outputs: u32,
    pub cells: u32,
    pub streams: u32,
}

/// What a context takes in one place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    pub context: u64,
    pub compute: u64,
}

/// What of a model decides the sizes of a context; `shim.h` says what each field means.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SizingFacts {
    pub blocks: u32,
    pub window: u32,
    pub causal: bool,
    pub all_outputs: bool,
    pub cache: bool,
}

/// A tensor in a model or its context, where it lies and what it takes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlace {
    /// 0 for the host, else 1 + the device.
    pub place: usize,
    pub name: String,
    pub bytes: u64,
}

/// One thing that the allocator of compute buffers is asked for; `shim.h` says what the fields mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    pub kind: i32,
    pub allocator: u32,
    pub id: u32,
    pub bytes: u64,
    pub name: String,
}

/// What a chat asks for, all JSON.
#[derive(Clone, Copy, Debug)]
pub struct ChatRequest<'a> {
    pub messages: &'a str,
    pub tools: Option<&'a str>,
    pub json_schema: Option<&'a str>,
    pub tool_choice: i32,
    pub parallel_tool_calls: bool,
}

/// One step of a parsed answer.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    pub content: String,
    pub reasoning: String,
    pub tool_call: Option<ToolCall>,
}

/// More of one tool call; what did not change is empty.
#[derive(Clone, Debug)]
pub struct ToolCall {
    pub index: u32,
    pub id: String,
    pub name: String,
    pub arguments: String,
}

impl raw::Error {
    fn new() -> Self {
        Self { text: [0; 1024] }
    }

    fn into_text(self) -> String {
        let text = text_of(&self.text);
        if text.is_empty() { "llama.cpp failed and said no reason".into() } else { text }
    }
}

/// The text in a fixed field that the shim always ends with a zero. Control characters become spaces: an error may quote
/// a model file, and ends in somebody's terminal.
fn text_of(field: &[c_char]) -> String {
    // A C char is signed or not, as the platform says; its one byte is the same.
    let bytes: Vec<u8> = field.iter().take_while(|c| **c != 0).flat_map(|c| c.to_ne_bytes()).collect();
    String::from_utf8_lossy(&bytes).replace(char::is_control, " ").trim().to_owned()
}

fn c_string(text: impl Into<Vec<u8>>) -> Result<CString, String> {
    CString::new(text).map_err(|_| "a text holds a zero byte".into())
}

fn c_path(path: &std::path::Path) -> Result<CString, String> {
    #[cfg(unix)]
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec();
    #[cfg(not(unix))]
    let bytes = path.to_str().ok_or("a path is not valid Unicode")?.as_bytes().to_vec();
    c_string(bytes)
}

/// Starts llama.cpp in this process; once. With `backends`, ggml's backends come from that folder and nowhere else.
pub fn start(backends: Option<&std::path::Path>) -> Result<(), String> {
    let path = backends.map(c_path).transpose()?;
    let mut error = raw::Error::new();
    // SAFETY: null or a string that lives through the call.
    let started =
        unsafe { raw::ms_start(path.as_ref().map_or(std::ptr::null(), |path| path.as_ptr()), &raw mut error) };
    if started { Ok(()) } else { Err(error.into_text()) }
}

/// Ends the process as a failed assertion in llama.cpp does.
pub fn abort() {
    // SAFETY: takes nothing, and does not return.
    unsafe { raw::ms_abort() };
}

/// Every device that ggml sees.
pub fn devices() -> Vec<Device> {
    // SAFETY: takes nothing.
    let count = unsafe { raw::ms_device_count() };
    (0..count)
        .filter_map(|index| {
            // SAFETY: all fields are numbers, for which zero is a value.
            let mut device: raw::Device = unsafe { std::mem::zeroed() };
            // SAFETY: `device` is ours and is as large as the shim thinks (the structs are alike).
            let known = unsafe { raw::ms_device_get(index, &raw mut device) };
            known.then(|| Device {
                name: text_of(&device.name),
                description: text_of(&device.description),
                backend: text_of(&device.backend),
                bus_id: text_of(&device.bus_id),
                kind: device.kind,
                memory_total: device.memory_total,
                memory_free: device.memory_free,
            })
        })
        .collect()
}

/// Registers devices that compute nothing, for this whole process; once.
pub fn register_phantoms(phantoms: &[Phantom], earlier: &Earlier) -> Result<(), String> {
    let names: Vec<CString> = phantoms.iter().map(|p| c_string(p.name.as_str())).collect::<Result<_, _>>()?;
    let wanted: Vec<raw::Phantom> = phantoms
        .iter()
        .zip(&names)
        .map(|(p, name)| raw::Phantom {
            name: name.as_ptr(),
            backend: p.backend,
            total: p.total,
            free: p.free,
            capability: p.capability,
            integrated: p.integrated,
        })
        .collect();
    let mut error = raw::Error::new();
    // SAFETY: the slice and the names live through the call; the shim copies them.
    let done = unsafe { raw::ms_phantoms_register(wanted.as_ptr(), wanted.len(), earlier, &raw mut error) };
    if done { Ok(()) } else { Err(error.into_text()) }
}

/// Calls the closure behind `user`.
extern "C" fn on_progress<F: FnMut(f32) -> bool>(fraction: f32, user: *mut c_void) -> bool {
    // SAFETY: `user` is the `&mut F` that the same call below passed, and llama.cpp calls back only during that call and
    // on its thread.
    let progress = unsafe { &mut *user.cast::<F>() };
    progress(fraction)
}

fn progress_of<F: FnMut(f32) -> bool>(_: &F) -> raw::Progress {
    on_progress::<F>
}

/// An open model with its context. Not `Sync`, and used by one thread.
pub struct Model(NonNull<raw::Model>);

// SAFETY: llama.cpp's models and contexts are not tied to the thread that made them; `Model` is not Sync, so that only one
// thread at a time uses it.
unsafe impl Send for Model {}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: made by ms_model_open, closed once.
        unsafe { raw::ms_model_close(self.0.as_ptr()) };
    }
}

impl Model {
    /// Loads a model, or only counts where the settings say so. `progress` returns false to stop.
    pub fn open(
        path: &std::path::Path,
        settings: &Settings,
        layout: &Layout,
        mut progress: impl FnMut(f32) -> bool,
    ) -> Result<Self, String> {
        let path = c_path(path)?;
        let mut error = raw::Error::new();
        let callback = progress_of(&progress);
        let texts = layout
            .overrides
            .iter()
            .map(|(pattern, device)| Ok((c_string(pattern.as_str())?, c_string(device.as_str())?)))
            .collect::<Result<Vec<_>, String>>()?;
        let overrides: Vec<raw::Override> = texts
            .iter()
            .map(|(pattern, device)| raw::Override { pattern: pattern.as_ptr(), device: device.as_ptr() })
            .collect();
        let layout = raw::Layout {
            split: layout.split.as_ptr(),
            split_count: layout.split.len(),
            overrides: overrides.as_ptr(),
            override_count: overrides.len(),
        };
        // SAFETY: path, settings, layout with its texts, and closure live through the call; the shim copies what it keeps;
        // `callback` is instantiated for the closure's type.
        let model = unsafe {
            let user = (&raw mut progress).cast();
            raw::ms_model_open(path.as_ptr(), settings, &raw const layout, callback, user, &raw mut error)
        };
        NonNull::new(model).map(Self).ok_or_else(|| error.into_text())
    }

    /// What is known of it.
    pub fn facts(&self) -> ModelFacts {
        let mut facts = ModelFacts::default();
        // SAFETY: the model is open, `facts` is ours.
        unsafe { raw::ms_model_facts_get(self.0.as_ptr(), &raw mut facts) };
        facts
    }

    /// Tensors that do not go where their layer goes: pattern and device.
    pub fn overrides(&self) -> Vec<(String, String)> {
        (0..)
            .map_while(|index| {
                let mut found = raw::Override { pattern: std::ptr::null(), device: std::ptr::null() };
                // SAFETY: the model is open, `found` is ours.
                let known = unsafe { raw::ms_model_override_get(self.0.as_ptr(), index, &raw mut found) };
                // SAFETY: strings of the model's, ended by a zero, which live as long as it.
                let word = |start: *const c_char| unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned();
                known.then(|| (word(found.pattern), word(found.device)))
            })
            .collect()
    }

    /// What it takes, the host first.
    pub fn memory(&self) -> Vec<Memory> {
        // More devices than llama.cpp takes (GGML_SCHED_MAX_BACKENDS is 16).
        const MOST: usize = 64;
        let mut entries: Vec<raw::Memory> =
            (0..MOST).map(|_| raw::Memory { name: [0; 128], model: 0, context: 0, compute: 0 }).collect();
        // SAFETY: the model is open; at most MOST entries are written.
        let count = unsafe { raw::ms_model_memory(self.0.as_ptr(), entries.as_mut_ptr(), MOST) };
        entries.truncate(count);
        entries
            .iter()
            .map(|entry| Memory {
                name: text_of(&entry.name),
                model: entry.model,
                context: entry.context,
                compute: entry.compute,
            })
            .collect()
    }

    /// Whether llama.cpp makes a context of these settings; then, whether with flash attention. Only for a model that was
    /// opened without allocating.
    pub fn try_context(&mut self, settings: &Settings) -> Result<bool, String> {
        let (mut flash_attention, mut error) = (false, raw::Error::new());
        // SAFETY: the model is open, the settings live through the call, the truth value is ours.
        let done = unsafe { raw::ms_model_try(self.0.as_ptr(), settings, &raw mut flash_attention, &raw mut error) };
        if done { Ok(flash_attention) } else { Err(error.into_text()) }
    }

    /// What KV cache and compute buffers another context would take: on the host, then on each device. Only for a model
    /// that was opened without allocating.
    pub fn reserve(&mut self, settings: &Settings, shape: &Shape, devices: usize) -> Result<Vec<Reserved>, String> {
        let mut reserved = vec![Reserved::default(); devices + 1];
        let mut error = raw::Error::new();
        // SAFETY: the model is open, settings and shape live through the call; at most `capacity` entries are written.
        let done = unsafe {
            let (out, capacity) = (reserved.as_mut_ptr(), reserved.len());
            raw::ms_model_reserve(self.0.as_ptr(), settings, shape, out, capacity, &raw mut error)
        };
        if done { Ok(reserved) } else { Err(error.into_text()) }
    }

    /// What of it decides the sizes of a context.
    pub fn sizing_facts(&self) -> SizingFacts {
        let mut facts = SizingFacts::default();
        // SAFETY: the model is open, `facts` is ours.
        unsafe { raw::ms_model_sizing_facts(self.0.as_ptr(), &raw mut facts) };
        facts
    }

    /// Every tensor of weights and context with what it takes where it lies.
    pub fn tensors(&mut self) -> Result<Vec<TensorPlace>, String> {
        extern "C" fn on_tensor(user: *mut c_void, place: i32, name: *const c_char, bytes: u64) {
            // SAFETY: `user` is the `&mut Vec` of the call below, and the shim calls back only during that call and on its
            // thread; `name` is a tensor's, which ends with a zero.
            let (all, name) = unsafe { (&mut *user.cast::<Vec<TensorPlace>>(), CStr::from_ptr(name)) };
            let place = usize::try_from(place).unwrap_or(0);
            all.push(TensorPlace { place, name: name.to_string_lossy().into_owned(), bytes });
        }
        let mut all: Vec<TensorPlace> = Vec::new();
        let mut error = raw::Error::new();
        // SAFETY: the model is open; `all` lives through the call and is of the type that `on_tensor` expects.
        let done = unsafe { raw::ms_model_tensors(self.0.as_ptr(), on_tensor, (&raw mut all).cast(), &raw mut error) };
        if done { Ok(all) } else { Err(error.into_text()) }
    }

    /// What the allocator of compute buffers was asked for by the graph of the last [`reserve`](Self::reserve).
    pub fn trace(&mut self) -> Result<Vec<TraceEvent>, String> {
        extern "C" fn on_trace(user: *mut c_void, kind: i32, allocator: u32, id: u32, bytes: u64, name: *const c_char) {
            // SAFETY: `user` is the `&mut Vec` of the call below, and the shim calls back only during that call and on its
            // thread; `name` ends with a zero.
            let (all, name) = unsafe { (&mut *user.cast::<Vec<TraceEvent>>(), CStr::from_ptr(name)) };
            all.push(TraceEvent { kind, allocator, id, bytes, name: name.to_string_lossy().into_owned() });
        }
        let mut all: Vec<TraceEvent> = Vec::new();
        let mut error = raw::Error::new();
        // SAFETY: the model is open; `all` lives through the call and is of the type that `on_trace` expects.
        let done = unsafe { raw::ms_model_trace(self.0.as_ptr(), on_trace, (&raw mut all).cast(), &raw mut error) };
        if done { Ok(all) } else { Err(error.into_text()) }
    }

    /// Computes a batch: at most `batch` tokens, at most one with logits for each sequence, positions without gaps.
    pub fn decode(&mut self, tokens: &[BatchToken]) -> Result<(), String> {
        // SAFETY: the model is open, the slice lives through the call.
        match unsafe { raw::ms_decode(self.0.as_ptr(), tokens.as_ptr(), tokens.len()) } {
            0 => Ok(()),
            1 => Err("no room in the KV cache".into()),
            other => Err(format!("llama_decode failed with {other}")),
        }
    }

    /// Waits until all that was decoded is computed.
    pub fn synchronize(&mut self) {
        // SAFETY: the model is open.
        unsafe { raw::ms_synchronize(self.0.as_ptr()) };
    }

    /// Forgets a sequence.
    pub fn clear(&mut self, sequence: i32) {
        // SAFETY: the model is open; llama.cpp ignores sequences that it does not have.
        unsafe { raw::ms_sequence_clear(self.0.as_ptr(), sequence) };
    }

    /// Forgets what a sequence has from a position on. Recurrent models cannot, and keep all.
    pub fn trim(&mut self, sequence: i32, position: i32) {
        // SAFETY: the model is open; llama.cpp ignores sequences that it does not have.
        unsafe { raw::ms_sequence_trim(self.0.as_ptr(), sequence, position) };
    }

    /// Whether the token ends an answer. `token` must come from this model.
    pub fn ends(&self, token: i32) -> bool {
        // SAFETY: the model is open.
        unsafe { raw::ms_token_ends(self.0.as_ptr(), token) }
    }
}

/// One answer in the making: template, sampler, parser. Must be used with the model that it was made for.
pub struct Chat(NonNull<raw::Chat>);

// SAFETY: plain C++ data that is tied to no thread; not Sync.
unsafe impl Send for Chat {}

impl Drop for Chat {
    fn drop(&mut self) {
        // SAFETY: made by ms_chat_new, freed once.
        unsafe { raw::ms_chat_free(self.0.as_ptr()) };
    }
}

impl Chat {
    /// Applies the template and makes the sampler.
    pub fn new(model: &mut Model, request: ChatRequest<'_>, sampling: &Sampling) -> Result<Self, String> {
        let messages = c_string(request.messages)?;
        let tools = request.tools.map(c_string).transpose()?;
        let schema = request.json_schema.map(c_string).transpose()?;
        let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        let request = raw::ChatRequest {
            messages: messages.as_ptr(),
            tools: pointer(&tools),
            json_schema: pointer(&schema),
            tool_choice: request.tool_choice,
            parallel_tool_calls: request.parallel_tool_calls,
        };
        let mut error = raw::Error::new();
        // SAFETY: the model is open; all texts live through the call.
        let chat = unsafe { raw::ms_chat_new(model.0.as_ptr(), &raw const request, sampling, &raw mut error) };
        NonNull::new(chat).map(Self).ok_or_else(|| error.into_text())
    }

    /// The prompt's tokens.
    pub fn prompt(&self) -> &[i32] {
        // SAFETY: pointer and length are of one vector that lives and stays as long as the chat.
        unsafe {
            let length = raw::ms_chat_prompt_length(self.0.as_ptr());
            if length == 0 { &[] } else { std::slice::from_raw_parts(raw::ms_chat_prompt(self.0.as_ptr()), length) }
        }
    }

    /// Texts that end an answer, by the template.
    pub fn stops(&self) -> Vec<String> {
        (0..)
            .map_while(|index| {
                // SAFETY: null past the end, else a string that lives as long as the chat.
                let text = unsafe { raw::ms_chat_stop(self.0.as_ptr(), index) };
                // SAFETY: as above, and ended by a zero.
                (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
            })
            .collect()
    }

    /// Chooses the next token from the logits of entry `index` of the last batch. `None` where llama.cpp cannot: it has
    /// words for why, but they quote the answer.
    pub fn sample(&mut self, model: &mut Model, index: i32) -> Option<i32> {
        // SAFETY: chat and model are alive and belong together.
        let token = unsafe { raw::ms_chat_sample(self.0.as_ptr(), model.0.as_ptr(), index) };
        (token >= 0).then_some(token)
    }

    /// Appends a token's bytes, which need not be whole characters.
    pub fn piece(&self, model: &Model, token: i32, out: &mut Vec<u8>) {
        let mut buffer = vec![0_u8; 64];
        loop {
            let capacity = i32::try_from(buffer.len()).expect("tokens are short");
            // SAFETY: the buffer is ours and has that capacity.
            let written = unsafe {
                raw::ms_chat_piece(self.0.as_ptr(), model.0.as_ptr(), token, buffer.as_mut_ptr().cast(), capacity)
            };
            match usize::try_from(written) {
                Ok(written) => return out.extend_from_slice(&buffer[..written]),
                Err(_) => buffer.resize(written.unsigned_abs() as usize, 0),
            }
        }
    }

    /// Parses all of the answer until now; returns what is new since the last parse, or `None` where the text does not
    /// parse.
    pub fn parse(&mut self, text: &str, partial: bool) -> Option<Vec<Difference>> {
        let mut differences: Vec<Difference> = Vec::new();
        // SAFETY: text and vector live through the call; the callback casts back to that vector's type.
        let parsed = unsafe {
            let user = (&raw mut differences).cast();
            raw::ms_chat_parse(self.0.as_ptr(), text.as_ptr().cast(), text.len(), partial, on_difference, user)
        };
        parsed.then_some(differences)
    }
}

extern "C" fn on_difference(
    user: *mut c_void,
    content: *const c_char,
    content_length: usize,
    reasoning: *const c_char,
    reasoning_length: usize,
    index: i32,
    id: *const c_char,
    name: *const c_char,
    arguments: *const c_char,
    arguments_length: usize,
) {
    let text = |start: *const c_char, length: usize| {
        // SAFETY: the shim passes the pointer and length of a std::string that lives through this call.
        let bytes = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) };
        String::from_utf8_lossy(bytes).into_owned()
    };
    // SAFETY: the shim passes the c_str of a std::string that lives through this call.
    let word = |start: *const c_char| unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned();
    let difference = Difference {
        content: text(content, content_length),
        reasoning: text(reasoning, reasoning_length),
        tool_call: u32::try_from(index).ok().map(|index| ToolCall {
            index,
            id: word(id),
            name: word(name),
            arguments: text(arguments, arguments_length),
        }),
    };
    // SAFETY: `user` is the vector that Chat::parse passed, borrowed by nobody else during the call.
    unsafe { &mut *user.cast::<Vec<Difference>>() }.push(difference);
}

/// A tensor of a model to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MakerTensor {
    /// Its name.
    pub name: String,
    /// Its dimensions, row length first, ones behind.
    pub shape: [u64; 4],
    /// Its type.
    pub kind: TensorType,
}

/// A model of metadata alone, which llama.cpp says the tensors of. Used by one thread.
pub struct Maker(NonNull<raw::Maker>);

impl Drop for Maker {
    fn drop(&mut self) {
        // SAFETY: made by ms_maker_new, freed once.
        unsafe { raw::ms_maker_free(self.0.as_ptr()) };
    }
}

impl Maker {
    /// Reads metadata: a GGUF without tensors.
    pub fn new(metadata: &[u8]) -> Result<Self, String> {
        let mut error = raw::Error::new();
        // SAFETY: the slice lives through the call, which copies what it keeps.
        let maker = unsafe { raw::ms_maker_new(metadata.as_ptr().cast(), metadata.len(), &raw mut error) };
        NonNull::new(maker).map(Self).ok_or_else(|| error.into_text())
    }

    /// All tensors that llama.cpp would take for this metadata, optional ones too.
    pub fn tensors(&self) -> Result<Vec<MakerTensor>, String> {
        // SAFETY: the model lives; with no room nothing is written.
        let count = unsafe { raw::ms_maker_tensors(self.0.as_ptr(), std::ptr::null_mut(), 0) };
        let mut raw = vec![raw::Tensor { name: [0; 64], shape: [0; 4], kind: 0 }; count];
        // SAFETY: the model lives; at most `count` entries are written.
        unsafe { raw::ms_maker_tensors(self.0.as_ptr(), raw.as_mut_ptr(), count) };
        raw.iter()
            .map(|tensor| {
                let name = text_of(&tensor.name);
                let mut shape = [1; 4];
                for (size, given) in shape.iter_mut().zip(tensor.shape) {
                    *size = u64::try_from(given).map_err(|_| format!("tensor {name} has a dimension of {given}"))?;
                }
                Ok(MakerTensor { kind: kind_of(tensor.kind)?, name, shape })
            })
            .collect()
    }

    /// Gives each tensor the type that llama.cpp's quantizer makes of it for this `llama_ftype`.
    pub fn quantize(&self, file_type: u32, tensors: &mut [MakerTensor]) -> Result<(), String> {
        let mut raw = raw_tensors(tensors)?;
        let file_type = signed(file_type)?;
        let mut error = raw::Error::new();
        // SAFETY: the model lives; exactly `raw.len()` entries, each with a name that ends with a zero, are read and their
        // types written.
        let done =
            unsafe { raw::ms_maker_types(self.0.as_ptr(), file_type, raw.as_mut_ptr(), raw.len(), &raw mut error) };
        if done { take_types(tensors, &raw) } else { Err(error.into_text()) }
    }
}

/// Gives each tensor of a file, whose header is enough, the type that llama.cpp's quantizer makes of it for this
/// `llama_ftype` where it has an importance matrix.
pub fn plan_with_importance(
    source: &std::path::Path,
    file_type: u32,
    tensors: &mut [MakerTensor],
) -> Result<(), String> {
    let source = c_path(source)?;
    let mut raw = raw_tensors(tensors)?;
    let file_type = signed(file_type)?;
    let mut error = raw::Error::new();
    // SAFETY: the path lives through the call; exactly `raw.len()` entries, each with a name that ends with a zero, are read
    // and their types written.
    let done = unsafe {
        raw::ms_plan_with_importance(source.as_ptr(), file_type, raw.as_mut_ptr(), raw.len(), &raw mut error)
    };
    if done { take_types(tensors, &raw) } else { Err(error.into_text()) }
}

fn signed(number: u32) -> Result<i32, String> {
    i32::try_from(number).map_err(|_| format!("no type has the number {number}"))
}

fn raw_tensors(tensors: &[MakerTensor]) -> Result<Vec<raw::Tensor>, String> {
    let raw = |tensor: &MakerTensor| {
        let mut one = raw::Tensor { name: [0; 64], shape: [1; 4], kind: signed(tensor.kind.number)? };
        let text = c_string(tensor.name.as_str())?;
        if text.as_bytes().len() >= one.name.len() {
            return Err(format!("the name {} is too long for a tensor", tensor.name));
        }
        for (to, from) in one.name.iter_mut().zip(text.as_bytes()) {
            *to = c_char::from_ne_bytes([*from]);
        }
        for (to, from) in one.shape.iter_mut().zip(tensor.shape) {
            *to = i64::try_from(from).map_err(|_| format!("tensor {} is too large", tensor.name))?;
        }
        Ok(one)
    };
    tensors.iter().map(raw).collect()
}

fn take_types(tensors: &mut [MakerTensor], raw: &[raw::Tensor]) -> Result<(), String> {
    for (tensor, raw) in tensors.iter_mut().zip(raw) {
        tensor.kind = kind_of(raw.kind)?;
    }
    Ok(())
}

fn kind_of(number: i32) -> Result<TensorType, String> {
    let known = u32::try_from(number).ok().and_then(TensorType::from_number);
    known.ok_or_else(|| format!("llama.cpp names a tensor type {number} that is unknown here"))
}

/// Rows of values as `bytes` of a tensor type; `columns` is a multiple of its block.
pub fn encode(kind: u32, values: &[f32], columns: usize, bytes: usize) -> Result<Vec<u8>, String> {
    let number = |size: usize| i64::try_from(size).map_err(|_| "too many values".to_owned());
    let kind = i32::try_from(kind).map_err(|_| format!("no type has the number {kind}"))?;
    let (columns, rows) = (number(columns)?, number(values.len() / columns.max(1))?);
    let mut out = vec![0; bytes];
    let mut error = raw::Error::new();
    // SAFETY: `values` holds rows of columns, and the shim writes only where the encoded size is what `out` holds.
    let done = unsafe {
        raw::ms_encode(kind, values.as_ptr(), columns, rows, out.as_mut_ptr().cast(), out.len(), &raw mut error)
    };
    if done { Ok(out) } else { Err(error.into_text()) }
}
