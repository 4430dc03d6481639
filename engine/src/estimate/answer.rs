//! [`answer`]: which dry runs a question takes.

use std::path::Path;

use muster_proto::{
    Bytes, ComputeGraphs, ContextTokens, EngineSettings, Estimate, EstimateSettings, EstimatedModel, KvType,
    OutputsReserved, grouped,
};

use super::alternatives::alternatives;
use super::layout::Layout;
use super::sentence::sentence;
use super::speed::speed;
use super::{EstimateError, ExpertsOnHost, GpuLayers, Question};
use crate::gguf::{GgufFiles, GgufHeader};
use crate::worker::{self, Graphs, Outputs, PhantomDevice, Placement, SizeOptions, SizeRequest, WorkerCommand};

/// Steps in which a context that is free to choose shrinks: llama.cpp rounds each sequence's to these anyway.
const CONTEXT_STEP: u32 = 256;

/// What one dry run differs in from others of the same question.
#[derive(Clone, Debug)]
pub(super) struct Run<'a> {
    pub path: &'a Path,
    /// Over all sequences; 0 only together with a fit.
    pub context: u32,
    pub kv_type: KvType,
    pub gpu_layers: Option<u32>,
    pub expert_layers_on_host: u32,
    pub fit: bool,
}

/// A model, a question and the program that sizes.
pub(super) struct Asking<'a> {
    pub command: &'a WorkerCommand,
    pub question: &'a Question,
    pub header: &'a GgufHeader,
}

/// Answers a question, with as many dry runs as it takes: one or two where the model fits, some more where it does not.
///
/// # Errors
/// See [`EstimateError`]. That a model does not fit is an answer.
pub async fn answer(command: &WorkerCommand, question: &Question) -> Result<Estimate, EstimateError> {
    let header = GgufFiles::open(&question.path)
        .map(GgufFiles::into_header)
        .map_err(|source| EstimateError::File { path: question.path.clone(), source })?;
    let asking = Asking { command, question, header: &header };
    let (layout, by_fit) = asking.placed().await?;
    // What an operator asks next, where llama.cpp left layers behind.
    let left = |layout: &Layout| layout.sized.gpu_layers < layout.sized.total_layers || layout.partial(&header) > 0;
    let whole = if by_fit && left(&layout) {
        let run = Run { context: layout.sized.context.get(), gpu_layers: None, ..asking.run() };
        Some(asking.size(&run).await?)
    } else {
        None
    };
    let short = whole.as_ref().map_or(!layout.fits(), |whole| !whole.fits());
    let alternatives =
        if short { alternatives(&asking, whole.as_ref().unwrap_or(&layout), by_fit).await } else { Vec::new() };
    let sized = &layout.sized;
    let mut estimate = Estimate {
        model: model(question, &header, sized),
        devices: layout.devices.clone(),
        host: layout.host.clone(),
        gpu_layers: sized.gpu_layers,
        total_layers: sized.total_layers,
        n_ctx: sized.context,
        context_shrank: question.context.is_none() && sized.context.get() < asking.trained(),
        speed: speed(question, &header, &layout),
        fits: layout.fits(),
        spare_bytes: layout.spare(),
        short_bytes: layout.short(),
        full_offload_short_bytes: whole.as_ref().map(Layout::devices_short).filter(|short| *short > Bytes::ZERO),
        sentence: String::new(),
        partial_layers: layout.partial(&header),
        settings: settings(question, by_fit),
        alternatives,
        warnings: warnings(question, sized),
        engine_build: crate::BUILD.to_owned(),
    };
    estimate.sentence = sentence(&estimate);
    Ok(estimate)
}

impl<'a> Asking<'a> {
    /// The dry run of the question's own words.
    pub fn run(&self) -> Run<'a> {
        let question = self.question;
        Run {
            path: &question.path,
            context: question.context.map_or_else(|| self.trained(), ContextTokens::get),
            kv_type: question.kv_type,
            gpu_layers: match question.gpu_layers {
                GpuLayers::Auto | GpuLayers::All => None,
                GpuLayers::Count(layers) => Some(layers),
            },
            expert_layers_on_host: match question.experts_on_host {
                ExpertsOnHost::All => self.header.layers().unwrap_or(u32::MAX),
                ExpertsOnHost::Layers(layers) => layers,
            },
            fit: false,
        }
    }

    /// What the model was trained with, for each of the KV caches that there will be: what llama.cpp takes where nobody
    /// says.
    fn trained(&self) -> u32 {
        let each = self.header.context_length().map_or(4096, ContextTokens::get).max(1);
        each.saturating_mul(self.question.streams()).min(i32::MAX.unsigned_abs())
    }

    /// The placement that the question asks for, and whether llama.cpp's fit decided it.
    async fn placed(&self) -> Result<(Layout, bool), EstimateError> {
        let question = self.question;
        let decided = question.devices.is_empty()
            || question.gpu_layers != GpuLayers::Auto
            || question.experts_on_host != ExpertsOnHost::Layers(0);
        if !decided {
            let context = question.context.map_or(0, ContextTokens::get);
            let layout = self.size(&Run { context, fit: true, ..self.run() }).await?;
            return Ok((layout, true));
        }
        let layout = self.size(&self.run()).await?;
        if question.context.is_some() || layout.fits_with(question.margin) {
            return Ok((layout, false));
        }
        // As llama.cpp does: less context first, and if the least does not fit either, it is told of the least.
        Ok((self.with_less_context(&self.run(), &layout, question.margin).await?.unwrap_or(layout), false))
    }

    /// The smallest context that is offered.
    pub fn least_context(&self) -> u32 {
        Question::MIN_CONTEXT.get().saturating_mul(self.question.streams())
    }

    /// As much context as fits with a margin, or the least one where none does; `None` where there is no less than that of
    /// `too_large`. KV cache and compute buffers grow with the context along a line, nearly: where two dry runs say it
    /// crosses the limit, a third one checks.
    pub async fn with_less_context(
        &self,
        run: &Run<'_>,
        too_large: &Layout,
        margin: Bytes,
    ) -> Result<Option<Layout>, EstimateError> {
        /// Tries after the line was wrong, each of which gives more way.
        const TRIES: u32 = 4;
        let step = CONTEXT_STEP * self.question.streams();
        let (least, most) = (self.least_context(), too_large.sized.context.get());
        if least >= most {
            return Ok(None);
        }
        let at_least = self.size(&Run { context: least, ..run.clone() }).await?;
        if !at_least.fits_with(margin) {
            return Ok(Some(at_least));
        }
        let (low, high) = (-at_least.excess(margin), too_large.excess(margin));
        let share = if low + high > 0 { low as f64 / (low + high) as f64 } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between both contexts")]
        let mut context = least + (f64::from(most - least) * share.clamp(0.0, 1.0)) as u32;
        for attempt in 0..TRIES {
            context = context / step * step;
            if context <= least {
                break;
            }
            let layout = self.size(&Run { context, ..run.clone() }).await?;
            if layout.fits_with(margin) {
                return Ok(Some(layout));
            }
            // A 64th of what is above the least, then a 16th, a 4th.
            context = context.saturating_sub(((context - least) >> (6 - 2 * attempt)).max(step));
        }
        Ok(Some(at_least))
    }

    /// One dry run.
    pub async fn size(&self, run: &Run<'_>) -> Result<Layout, EstimateError> {
        let question = self.question;
        let parallel = question.parallel.max(1);
        let settings = EngineSettings {
            // None at all leaves it to the fit.
            context: ContextTokens::new(if run.context == 0 { 0 } else { (run.context / parallel).max(1) }),
            parallel,
            batch: question.batch,
            ubatch: question.ubatch,
            kv_type: run.kv_type,
            gpu_layers: run.gpu_layers,
            kv_unified: question.kv_unified,
            flash_attention: question.flash_attention,
            expert_layers_on_host: run.expert_layers_on_host,
        };
        let placement = if run.fit {
            Placement::Fit { min_context: Question::MIN_CONTEXT, margin: question.margin }
        } else {
            Placement::AsSet
        };
        let devices: Vec<PhantomDevice> =
            question.devices.iter().enumerate().map(|(index, device)| device.phantom(index)).collect();
        let request = SizeRequest {
            path: run.path.to_owned(),
            settings,
            devices,
            options: SizeOptions {
                total_context: Some(ContextTokens::new(run.context)),
                outputs: question.outputs,
                graphs: question.graphs,
                placement,
                ..SizeOptions::default()
            },
        };
        let sized = worker::size(self.command, request)
            .await
            .map_err(|source| EstimateError::of_worker(run.path.to_owned(), source))?;
        Ok(Layout::new(question, sized))
    }
}

fn model(question: &Question, header: &GgufHeader, sized: &worker::Sized) -> EstimatedModel {
    let file_name = || question.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = question.name.clone().or_else(|| header.name().map(str::to_owned)).or_else(file_name);
    EstimatedModel {
        name: name.unwrap_or_default(),
        source: question.source,
        architecture: header.architecture().to_owned(),
        quantization: header.file_type(),
        parameters: header.parameters(),
        file_bytes: header.file_size,
        context_train: ContextTokens::new(sized.context_train),
        experts: sized.experts,
    }
}

fn settings(question: &Question, by_fit: bool) -> EstimateSettings {
    EstimateSettings {
        parallel: question.parallel,
        batch: question.batch,
        ubatch: question.ubatch,
        kv_type: question.kv_type,
        kv_unified: question.kv_unified,
        flash_attention: question.flash_attention,
        outputs: match question.outputs {
            Outputs::MicroBatch => OutputsReserved::MicroBatch,
            Outputs::PerSequence => OutputsReserved::Sequence,
        },
        graphs: match question.graphs {
            Graphs::EarlierBuilds => ComputeGraphs::Earlier,
            Graphs::ThisBuild => ComputeGraphs::ThisBuild,
        },
        margin_bytes: by_fit.then_some(question.margin),
    }
}

fn warnings(question: &Question, sized: &worker::Sized) -> Vec<String> {
    let mut warnings = question.notes.clone();
    if sized.experts == 0 && question.experts_on_host != ExpertsOnHost::Layers(0) {
        warnings.push("the model has no experts that could stay in main memory".to_owned());
    }
    if question.depth > sized.context {
        warnings.push(format!(
            "the speed is that after {} tokens, and the context holds {}",
            grouped(question.depth.get()),
            grouped(sized.context.get())
        ));
    }
    let each = sized.context.get() / question.parallel.max(1) * if question.kv_unified { question.parallel } else { 1 };
    if sized.context_train > 0 && each > sized.context_train {
        warnings.push(format!(
            "the context is longer than the {} tokens that the model was trained with",
            grouped(sized.context_train)
        ));
    }
    warnings
}
