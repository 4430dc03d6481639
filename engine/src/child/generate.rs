//! Generating: continuous batching over one context. One loop owns the model; each step computes one batch that mixes the
//! prompts' next parts with one token of every running answer.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use super::answer::Answer;
use super::outbox::Outbox;
use super::{jobs, measure};
use crate::ffi::{self, BatchToken, Chat, ChatRequest, Model};
use crate::wire::{self, ToWorker, from_worker::Reply, to_worker::Request};

/// Answers that may wait for a free sequence; more are told that it is busy.
const MOST_WAITING: usize = 64;

/// Loads the model, says so, and answers until the pipe closes.
pub fn run(load: &wire::Load, id: u64, outbox: &Outbox, requests: &Receiver<ToWorker>) -> io::Result<()> {
    let start = Instant::now();
    let opened = open(load, id, outbox);
    let (model, settings) = match opened {
        Ok(opened) => opened,
        Err(reason) => return outbox.reply(id, Reply::Refused(wire::Refused { reason, internal: false })),
    };
    let facts = model.facts();
    let loaded = wire::Loaded {
        memory: Some(jobs::memory_of(&model)),
        load_us: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
        context_per_sequence: facts.context_per_sequence,
        has_template: facts.has_template,
        resident: resident_memory(),
        gpu_layers: facts.gpu_layers,
    };
    outbox.reply(id, Reply::Loaded(loaded))?;
    let context = settings.context.saturating_mul(settings.parallel);
    let mut scheduler = Scheduler {
        model,
        context: facts.context_per_sequence,
        // llama.cpp caps the batch at the context.
        batch: settings.batch.min(context).max(1) as usize,
        ubatch: settings.ubatch.max(1) as usize,
        slots: (0..settings.parallel).map(|_| None).collect(),
        waiting: VecDeque::new(),
        measures: VecDeque::new(),
        outbox,
    };
    loop {
        // Sleeps when there is nothing to do; else takes what has come and goes on.
        while scheduler.idle() {
            match requests.recv() {
                Ok(request) => scheduler.take(request)?,
                Err(_) => return Ok(()),
            }
        }
        loop {
            match requests.try_recv() {
                Ok(request) => scheduler.take(request)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
        scheduler.step()?;
    }
}

fn open(load: &wire::Load, id: u64, outbox: &Outbox) -> Result<(Model, wire::Settings), String> {
    let path = jobs::path_of(&load.path);
    let header = jobs::check_header(&path)?;
    let mut settings = load.settings.ok_or("a load request without settings")?;
    if header.is_encoder() {
        // It takes a whole text at once or not at all.
        settings.batch = settings.ubatch;
    }
    let mut told = -1.0;
    let progress = |fraction: f32| {
        if fraction - told < 0.01 {
            return true;
        }
        told = fraction;
        outbox.progress(id, fraction, "")
    };
    let layout = jobs::layout_of(load.layout.as_ref());
    let mut model =
        Model::open(&path, &jobs::settings_of(&settings, header.is_encoder(), load.threads, None), &layout, progress)?;
    // First touch of the buffers is slow: here, not in the first answer.
    let token = BatchToken { token: 0, position: 0, sequence: 0, logits: true };
    model.decode(&[token])?;
    model.synchronize();
    model.clear(0);
    Ok((model, settings))
}

/// Resident memory of this process.
fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// One answer, from its prompt to its end.
struct Sequence {
    id: u64,
    chat: Chat,
    prompt: Vec<i32>,
    /// How much of the prompt is computed.
    computed: usize,
    /// The last token that was chosen and is not computed yet.
    next: Option<i32>,
    generated: u32,
    max_tokens: Option<u32>,
    answer: Answer,
    calls_tools: bool,
    told_anything: bool,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

struct Scheduler<'a> {
    /// The index is llama.cpp's sequence.
    slots: Vec<Option<Sequence>>,
    waiting: VecDeque<Sequence>,
    measures: VecDeque<(u64, wire::Measure)>,
    /// After the sequences, whose samplers point into it: fields are dropped in this order.
    model: Model,
    context: u32,
    batch: usize,
    ubatch: usize,
    outbox: &'a Outbox,
}

impl Scheduler<'_> {
    fn idle(&self) -> bool {
        self.waiting.is_empty() && self.measures.is_empty() && self.slots.iter().all(Option::is_none)
    }

    fn take(&mut self, message: ToWorker) -> io::Result<()> {
        let id = message.id;
        match message.request {
            Some(Request::Chat(request)) => self.take_chat(id, &request),
            Some(Request::Cancel(wire::Cancel {})) => {
                self.cancel(id);
                Ok(())
            }
            Some(Request::Measure(request)) => {
                self.measures.push_back((id, request));
                Ok(())
            }
            Some(Request::Abort(wire::Abort {})) => {
                ffi::abort();
                Ok(())
            }
            _ => {
                let reason = "a worker with a loaded model does nothing else".to_owned();
                self.outbox.reply(id, Reply::Refused(wire::Refused { reason, internal: false }))
            }
        }
    }

    fn take_chat(&mut self, id: u64, request: &wire::Chat) -> io::Result<()> {
        if self.waiting.len() >= MOST_WAITING {
            return self.outbox.reply(id, Reply::Busy(wire::Busy {}));
        }
        let given = request.sampling.unwrap_or_default();
        let sampling = ffi::Sampling {
            temperature: given.temperature.unwrap_or(0.8),
            top_p: given.top_p.unwrap_or(0.95),
            min_p: given.min_p.unwrap_or(0.05),
            repeat_penalty: given.repeat_penalty.unwrap_or(1.0),
            presence_penalty: given.presence_penalty.unwrap_or(0.0),
            frequency_penalty: given.frequency_penalty.unwrap_or(0.0),
            top_k: given.top_k.unwrap_or(40),
            seed: given.seed.unwrap_or(0),
            random_seed: given.seed.is_none(),
        };
        // JSON's 1e999 is infinite here: no probability comes of that.
        let numbers = [
            sampling.temperature,
            sampling.top_p,
            sampling.min_p,
            sampling.repeat_penalty,
            sampling.presence_penalty,
            sampling.frequency_penalty,
        ];
        if !numbers.into_iter().all(f32::is_finite) {
            let reason = "a sampling parameter is not a finite number".to_owned();
            return self.outbox.reply(id, Reply::Refused(wire::Refused { reason, internal: false }));
        }
        let chat = ChatRequest {
            messages: &request.messages,
            tools: request.tools.as_deref(),
            json_schema: request.json_schema.as_deref(),
            tool_choice: request.tool_choice,
            parallel_tool_calls: request.parallel_tool_calls,
        };
        let chat = match Chat::new(&mut self.model, chat, &sampling) {
            Ok(chat) => chat,
            Err(reason) => return self.outbox.reply(id, Reply::Refused(wire::Refused { reason, internal: false })),
        };
        let prompt = chat.prompt().to_vec();
        let prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        if prompt.is_empty() {
            let reason = "the prompt is empty".to_owned();
            return self.outbox.reply(id, Reply::Refused(wire::Refused { reason, internal: false }));
        }
        if prompt_tokens >= self.context {
            let overflow = wire::Overflow { prompt_tokens, max_tokens: given.max_tokens, context: self.context };
            return self.outbox.reply(id, Reply::Overflow(overflow));
        }
        self.outbox.reply(id, Reply::Started(wire::Started { prompt_tokens }))?;
        let mut stops = request.stop.clone();
        stops.extend(chat.stops());
        let sequence = Sequence {
            id,
            chat,
            prompt,
            computed: 0,
            next: None,
            generated: 0,
            max_tokens: given.max_tokens,
            answer: Answer::new(stops),
            calls_tools: false,
            told_anything: false,
            started: None,
            first_token: None,
        };
        if given.max_tokens == Some(0) {
            let now = Instant::now();
            return self.outbox.reply(id, finished(&sequence, 1, now));
        }
        self.waiting.push_back(sequence);
        Ok(())
    }

    fn cancel(&mut self, id: u64) {
        self.waiting.retain(|sequence| sequence.id != id);
        self.measures.retain(|(measure, _)| *measure != id);
        for index in 0..self.slots.len() {
            if self.slots[index].as_ref().is_some_and(|sequence| sequence.id == id) {
                self.slots[index] = None;
                self.model.clear(slot_number(index));
            }
        }
    }

    fn step(&mut self) -> io::Result<()> {
        if let Some(free) = self.slots.iter().position(Option::is_none)
            && let Some((id, request)) = self.measures.pop_front()
        {
            let reply = self
                .measure(free, request)
                .unwrap_or_else(|reason| Reply::Refused(wire::Refused { reason, internal: false }));
            self.outbox.reply(id, reply)?;
        }
        for slot in &mut self.slots {
            if slot.is_none() {
                *slot = self.waiting.pop_front().map(|mut sequence| {
                    sequence.started = Some(Instant::now());
                    sequence
                });
            }
        }
        let (tokens, outputs) = self.next_batch();
        if tokens.is_empty() {
            return Ok(());
        }
        if let Err(reason) = self.model.decode(&tokens) {
            return self.fail_all(&reason);
        }
        for (index, entry) in outputs {
            self.advance(index, entry)?;
        }
        // A sign of life in a long prefill, which has nothing else to tell.
        for sequence in self.slots.iter().flatten().filter(|sequence| sequence.computed < sequence.prompt.len()) {
            let fraction = sequence.computed as f32 / sequence.prompt.len() as f32;
            self.outbox.progress(sequence.id, fraction, "prefill");
        }
        Ok(())
    }

    fn measure(&mut self, slot: usize, request: wire::Measure) -> Result<Reply, String> {
        let (prefill, decode) = (request.prefill_tokens.max(1), request.decode_tokens.max(1));
        if prefill.saturating_add(decode) > self.context {
            return Err(format!("{prefill} + {decode} tokens do not fit a context of {}", self.context));
        }
        let rates = measure::run(&mut self.model, slot_number(slot), self.batch, prefill, decode);
        // A failed one leaves something behind, and the next answer gets this sequence.
        self.model.clear(slot_number(slot));
        let rates = rates?;
        Ok(Reply::Measured(wire::Measured { prefill: rates.prefill, decode: rates.decode }))
    }

    /// The next batch, and which slots have logits at which of its entries.
    fn next_batch(&mut self) -> (Vec<BatchToken>, Vec<(usize, i32)>) {
        let mut tokens = Vec::new();
        let mut outputs = Vec::new();
        let entry = |tokens: &[BatchToken]| i32::try_from(tokens.len()).unwrap_or(i32::MAX) - 1;
        for (index, sequence) in self.slots.iter_mut().enumerate() {
            let Some(sequence) = sequence else { continue };
            if let Some(token) = sequence.next.take() {
                let position = sequence.prompt.len() + sequence.generated as usize - 1;
                tokens.push(BatchToken {
                    token,
                    position: small(position),
                    sequence: slot_number(index),
                    logits: true,
                });
                outputs.push((index, entry(&tokens)));
            }
        }
        // While others are being answered, prompts come in smaller parts, so that nobody stutters.
        let most = if tokens.is_empty() { self.batch } else { (tokens.len() + self.ubatch).min(self.batch) };
        for (index, sequence) in self.slots.iter_mut().enumerate() {
            let Some(sequence) = sequence else { continue };
            let rest = sequence.prompt.len() - sequence.computed;
            let part = rest.min(most.saturating_sub(tokens.len()));
            for position in sequence.computed..sequence.computed + part {
                let last = position + 1 == sequence.prompt.len();
                let token = sequence.prompt[position];
                tokens.push(BatchToken {
                    token,
                    position: small(position),
                    sequence: slot_number(index),
                    logits: last,
                });
                if last {
                    outputs.push((index, entry(&tokens)));
                }
            }
            sequence.computed += part;
        }
        (tokens, outputs)
    }

    /// Chooses the next token of a slot, and tells what it means.
    fn advance(&mut self, index: usize, entry: i32) -> io::Result<()> {
        let Some(mut sequence) = self.slots[index].take() else { return Ok(()) };
        let Some(token) = sequence.chat.sample(&mut self.model, entry) else {
            self.model.clear(slot_number(index));
            let reason = "llama.cpp found no next token".to_owned();
            return self.outbox.reply(sequence.id, Reply::Refused(wire::Refused { reason, internal: true }));
        };
        let now = Instant::now();
        sequence.first_token.get_or_insert(now);
        sequence.generated += 1;
        let ends = self.model.ends(token);
        let mut bytes = Vec::new();
        if !ends {
            sequence.chat.piece(&self.model, token, &mut bytes);
        }
        let stopped = ends || sequence.answer.push(&bytes);
        let used = sequence.prompt.len() + sequence.generated as usize;
        let full = sequence.max_tokens.is_some_and(|most| sequence.generated >= most) || used >= self.context as usize;
        self.tell(&mut sequence, stopped || full)?;
        if stopped || full {
            self.model.clear(slot_number(index));
            let reason = match (stopped, sequence.calls_tools) {
                (true, true) => 2,
                (true, false) => 0,
                (false, _) => 1,
            };
            return self.outbox.reply(sequence.id, finished(&sequence, reason, now));
        }
        sequence.next = Some(token);
        self.slots[index] = Some(sequence);
        Ok(())
    }

    /// Sends what is new in the answer, if anything.
    fn tell(&mut self, sequence: &mut Sequence, last: bool) -> io::Result<()> {
        let answer = &sequence.answer;
        let differences = if last {
            let whole = answer.whole();
            // An answer that was cut off need not parse as a whole; one that never parsed is shown as it is.
            sequence.chat.parse(whole, false).or_else(|| sequence.chat.parse(whole, true)).unwrap_or_else(|| {
                let content = if sequence.told_anything { String::new() } else { whole.to_owned() };
                vec![ffi::Difference { content, ..ffi::Difference::default() }]
            })
        } else {
            sequence.chat.parse(answer.visible(), true).unwrap_or_default()
        };
        let mut delta = wire::Delta::default();
        for difference in differences {
            delta.content.push_str(&difference.content);
            delta.reasoning.push_str(&difference.reasoning);
            if let Some(call) = difference.tool_call {
                sequence.calls_tools = true;
                delta.tool_calls.push(wire::ToolCall {
                    index: call.index,
                    id: call.id,
                    name: call.name,
                    arguments: call.arguments,
                });
            }
        }
        if delta == wire::Delta::default() {
            // A sign of life: text that is held back for long, e.g. of a tool call, is no hang.
            self.outbox.progress(sequence.id, 1.0, "decode");
            return Ok(());
        }
        sequence.told_anything = true;
        self.outbox.reply(sequence.id, Reply::Delta(delta))
    }

    /// A batch that llama.cpp does not compute ends every answer in it: nobody knows what the cache holds.
    fn fail_all(&mut self, reason: &str) -> io::Result<()> {
        for index in 0..self.slots.len() {
            if let Some(sequence) = self.slots[index].take() {
                self.model.clear(slot_number(index));
                let refused = wire::Refused { reason: reason.to_owned(), internal: true };
                self.outbox.reply(sequence.id, Reply::Refused(refused))?;
            }
        }
        Ok(())
    }
}

fn small(position: usize) -> i32 {
    i32::try_from(position).expect("a context is shorter than 2^31")
}

fn slot_number(index: usize) -> i32 {
    i32::try_from(index).expect("fewer sequences than 2^31")
}

fn finished(sequence: &Sequence, reason: i32, now: Instant) -> Reply {
    let milliseconds = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
        (Some(from), Some(to)) => to.duration_since(from).as_secs_f64() * 1000.0,
        _ => 0.0,
    };
    Reply::Finished(wire::Finished {
        reason,
        prompt_tokens: u32::try_from(sequence.prompt.len()).unwrap_or(u32::MAX),
        completion_tokens: sequence.generated,
        prefill_ms: milliseconds(sequence.started, sequence.first_token),
        decode_ms: milliseconds(sequence.first_token, Some(now)),
    })
}
