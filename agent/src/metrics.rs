//! [`Metrics`]: figures of this desk for Prometheus, on the loopback endpoint alone.
//!
//! Requests and tokens are counted here as they are answered; everything else is read from its owner when somebody asks.
//! Labels are names of assigned models, devices and states: never a word of a prompt, an answer, or a name that a client
//! made up.

use std::sync::Arc;

use muster_proto::{Benchmark, Inventory, Observed};
use muster_reports::MetricsPage;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use tokio::sync::watch;

use crate::cpu_time::CpuTime;
use crate::serving::{ServedState, Serving};
use crate::typical::Sample;
use crate::uplink::LinkStatus;

/// Tokens a second, from a slow laptop's to a large card's.
const SPEEDS: [f64; 12] = [1.0, 2.0, 5.0, 10.0, 20.0, 35.0, 50.0, 75.0, 100.0, 200.0, 500.0, 1000.0];

/// What stands for a model that this desk does not have.
const NO_MODEL: &str = "none";

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered to the end.
    Answered,
    /// The client asked for what cannot be had, or too early.
    Refused,
    /// The model failed.
    Failed,
    /// The client went away.
    Cancelled,
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Where the figures of the moment come from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What the desk is.
    pub inventory: watch::Receiver<Option<Arc<Inventory>>>,
    /// How fast it is.
    pub benchmark: watch::Receiver<Option<Arc<Benchmark>>>,
    /// What it runs.
    pub observed: watch::Receiver<Observed>,
    /// Whether the controller is there.
    pub link: watch::Receiver<LinkStatus>,
    /// The newest sample of memory.
    pub memory: watch::Receiver<Option<Arc<Sample>>>,
    /// What sampling and watching cost.
    pub watching: CpuTime,
}

/// The counts, and where the rest comes from.
#[derive(Debug)]
pub struct Metrics {
    sources: Sources,
    counted: Registry,
    requests: IntCounterVec,
    prompt_tokens: IntCounterVec,
    generated_tokens: IntCounterVec,
    decode: HistogramVec,
    prefill: HistogramVec,
}

impl Metrics {
    /// Counts from zero.
    ///
    /// # Panics
    /// Never: the names are constants and valid.
    pub fn new(sources: Sources) -> Self {
        let registry = Registry::new();
        let count = |name: &str, help: &str, labels: &[&str]| {
            let made = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name");
            registry.register(Box::new(made.clone())).expect("once");
            made
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let options = HistogramOpts::new(name, help).buckets(buckets);
            let histogram = HistogramVec::new(options, &["model"]).expect("a valid name");
            registry.register(Box::new(histogram.clone())).expect("once");
            histogram
        };
        let fast = SPEEDS.map(|speed| speed * 10.0).to_vec();
        Self {
            requests: count(
                "muster_agent_requests_total",
                "Chat completions by how they ended.",
                &["model", "outcome"],
            ),
            prompt_tokens: count("muster_agent_prompt_tokens_total", "Tokens of answered prompts.", &["model"]),
            generated_tokens: count("muster_agent_generated_tokens_total", "Tokens of whole answers.", &["model"]),
            decode: histogram(
                "muster_agent_decode_tokens_per_second",
                "Decode speed of each whole answer.",
                SPEEDS.to_vec(),
            ),
            prefill: histogram(
                "muster_agent_prefill_tokens_per_second",
                "Prefill speed of each answered prompt.",
                fast,
            ),
            sources,
            counted: registry,
        }
    }

    /// A request begins; unless it is told how it ended, its client went away.
    pub fn begin(self: &Arc<Self>) -> Answering {
        Answering { metrics: Arc::clone(self), model: None, outcome: Outcome::Cancelled }
    }

    /// The page, with what answers at the moment.
    pub fn page(&self, serving: &Serving) -> String {
        let page = MetricsPage::default();
        let version = [env!("CARGO_PKG_VERSION").to_owned(), muster_engine::BUILD.to_owned()];
        page.each("muster_agent_build_info", "Versions; always 1.", &["version", "engine"], [(version, 1.0)]);
        self.memory(&page, serving);
        self.link(&page);
        let observed = self.sources.observed.borrow().clone();
        page.one("muster_agent_generation", "Generation of the desired state.", observed.generation as f64);
        page.one("muster_agent_store_used_bytes", "What model files take.", observed.store_used.get() as f64);
        let loaded = serving
            .models
            .iter()
            .map(|(name, served)| ([name.clone()], f64::from(u8::from(matches!(served.state, ServedState::Ready(_))))));
        page.each("muster_agent_model_loaded", "Whether an assigned model answers.", &["model"], loaded);
        if let Some(benchmark) = self.sources.benchmark.borrow().as_deref() {
            speeds(&page, benchmark);
        }
        page.one(
            "muster_agent_watching_cpu_seconds",
            "Processor time of sampling memory and watching for changes since the start.",
            self.sources.watching.total().as_secs_f64(),
        );
        page.render(&self.counted)
    }

    fn memory(&self, page: &MetricsPage, serving: &Serving) {
        let memory = crate::probe::memory::read(serving);
        page.one("muster_agent_memory_total_bytes", "Main memory.", memory.total.get() as f64);
        page.one(
            "muster_agent_memory_available_bytes",
            "Main memory that is available, models of this agent counted as available.",
            memory.available.get() as f64,
        );
        let inventory = self.sources.inventory.borrow().clone();
        let Some(inventory) = inventory else { return };
        let sample = self.sources.memory.borrow().clone();
        let sampled = |name: &str| sample.as_ref()?.devices.get(name).map(|level| level.free);
        let label = |name: &String| [name.clone()];
        let devices = &inventory.devices;
        page.each(
            "muster_agent_device_memory_total_bytes",
            "Memory of a device.",
            &["device"],
            devices.iter().filter_map(|device| Some((label(&device.name), device.memory_total?.get() as f64))),
        );
        page.each(
            "muster_agent_device_memory_free_bytes",
            "Memory of a device that was free at the last look, models of this agent counted as free.",
            &["device"],
            devices.iter().filter_map(|device| {
                Some((label(&device.name), sampled(&device.name).or(device.memory_free)?.get() as f64))
            }),
        );
        if let Some(typical) = &inventory.hardware.typical {
            page.one(
                "muster_agent_memory_typically_available_bytes",
                "Main memory that is available 95 % of the time.",
                typical.memory_available.get() as f64,
            );
            page.each(
                "muster_agent_device_memory_typically_free_bytes",
                "Memory of a device that is free 95 % of the time.",
                &["device"],
                typical.devices.iter().map(|free| (label(&free.device), free.free.get() as f64)),
            );
        }
        if let Some(disk) = inventory.store_disk {
            page.one("muster_agent_store_free_bytes", "What is free on the store's volume.", disk.free.get() as f64);
        }
        page.one(
            "muster_agent_inventory_timestamp_seconds",
            "When the machine was last looked at.",
            seconds(inventory.collected_at),
        );
        if let Some(mains) = inventory.hardware.chassis.on_mains {
            page.one("muster_agent_on_mains", "Whether the machine has mains power.", f64::from(u8::from(mains)));
        }
    }

    fn link(&self, page: &MetricsPage) {
        let link = self.sources.link.borrow().clone();
        page.one("muster_agent_connected", "Whether the controller is there.", f64::from(u8::from(link.online)));
        if let Some(expires) = link.certificate_expires_at {
            page.one(
                "muster_agent_certificate_expiry_timestamp_seconds",
                "When this machine's certificate ends.",
                seconds(expires),
            );
        }
    }
}

fn seconds(moment: muster_proto::Timestamp) -> f64 {
    moment.unix_millis() as f64 / 1000.0
}

fn speeds(page: &MetricsPage, benchmark: &Benchmark) {
    let points = |which: fn(&muster_proto::BenchPoint) -> f64| {
        let at_the_start = benchmark.points.iter().filter(|point| point.depth == 0);
        let labels = |point: &muster_proto::BenchPoint| {
            [point.device.clone(), point.model.name.clone(), point.model.quantization.clone()]
        };
        at_the_start.map(|point| (labels(point), which(point))).collect::<Vec<_>>()
    };
    let labels = ["device", "model", "quantization"];
    page.each(
        "muster_agent_benchmark_decode_tokens_per_second",
        "Median decode speed of the newest benchmark's models.",
        &labels,
        points(|point| point.decode.median.get()),
    );
    page.each(
        "muster_agent_benchmark_prefill_tokens_per_second",
        "Median prefill speed of the newest benchmark's models.",
        &labels,
        points(|point| point.prefill.median.get()),
    );
    page.one(
        "muster_agent_benchmark_timestamp_seconds",
        "When the newest benchmark began.",
        seconds(benchmark.measured_at),
    );
}

/// A request that is being answered. Counts when it is dropped.
#[derive(Debug)]
pub struct Answering {
    metrics: Arc<Metrics>,
    model: Option<String>,
    outcome: Outcome,
}

impl Answering {
    /// One of this desk's models answers it.
    pub fn by(&mut self, model: &str) {
        self.model = Some(model.to_owned());
    }

    /// It did not come to an answer.
    pub fn ended(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// It came to its end.
    pub fn answered(&mut self, prompt: u32, completion: u32, prefill_ms: f64, decode_ms: f64) {
        self.outcome = Outcome::Answered;
        let Some(model) = &self.model else { return };
        let metrics = &self.metrics;
        metrics.prompt_tokens.with_label_values(&[model]).inc_by(prompt.into());
        metrics.generated_tokens.with_label_values(&[model]).inc_by(completion.into());
        if prefill_ms > 0.0 {
            let speed = f64::from(prompt) / prefill_ms * 1000.0;
            metrics.prefill.with_label_values(&[model]).observe(speed);
        }
        // The first token comes with the prefill.
        if completion > 1 && decode_ms > 0.0 {
            let speed = f64::from(completion - 1) / decode_ms * 1000.0;
            metrics.decode.with_label_values(&[model]).observe(speed);
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let model = self.model.as_deref().unwrap_or(NO_MODEL);
        self.metrics.requests.with_label_values(&[model, self.outcome.word()]).inc();
    }
}
