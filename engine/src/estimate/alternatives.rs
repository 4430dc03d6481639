//! What would fit where the question's own words do not: each a dry run of its own, never a rule of thumb.

use std::path::PathBuf;

use futures_util::future::join;
use muster_proto::{Alternative, Bytes, Change, ContextTokens, FlashAttention, KvType};

use super::Sibling;
use super::answer::{Asking, Run};
use super::layout::Layout;
use super::speed::speed;

/// Contexts are offered in steps that people think in.
const ROUND_CONTEXT: u32 = 1024;

/// Quantizations that are tried, the largest that could fit first.
const QUANTIZATIONS: usize = 3;

/// Changes to what was asked with which all of it would fit, those that lose least first. What cannot be sized is no
/// alternative. `by_fit` says that fewer layers on devices are the answer already.
pub(super) async fn alternatives(asking: &Asking<'_>, short: &Layout, by_fit: bool) -> Vec<Alternative> {
    let ((context, cache), (quantization, offload)) = join(
        join(less_context(asking, short), smaller_cache(asking, short)),
        join(smaller_quantization(asking, short), less_offload(asking, short, by_fit)),
    )
    .await;
    [context, cache, quantization, offload].into_iter().flatten().collect()
}

/// The question as it was asked, at the context that turned out too large.
fn run<'a>(asking: &Asking<'a>, short: &Layout) -> Run<'a> {
    Run { context: short.sized.context.get(), ..asking.run() }
}

fn alternative(asking: &Asking<'_>, change: Change, layout: &Layout) -> Alternative {
    Alternative { change, spare_bytes: layout.spare(), speed: speed(asking.question, asking.header, layout) }
}

async fn less_context(asking: &Asking<'_>, short: &Layout) -> Option<Alternative> {
    // Weights are the same at any context.
    if !short.weights_fit() {
        return None;
    }
    let run = run(asking, short);
    let mut layout = asking.with_less_context(&run, short, Bytes::ZERO).await.ok()??;
    let step = ROUND_CONTEXT * asking.question.streams();
    let round = layout.sized.context.get() / step * step;
    if layout.fits() && round >= asking.least_context() && round < layout.sized.context.get() {
        layout = asking.size(&Run { context: round, ..run }).await.ok()?;
    }
    let change = Change::Context { n_ctx: layout.sized.context };
    layout.fits().then(|| alternative(asking, change, &layout))
}

async fn smaller_cache(asking: &Asking<'_>, short: &Layout) -> Option<Alternative> {
    let question = asking.question;
    // llama.cpp computes on a quantized cache with fused attention only.
    if question.kv_type != KvType::F16 || question.flash_attention == FlashAttention::Off {
        return None;
    }
    let cache: Bytes =
        short.devices.iter().map(|device| device.context_bytes).sum::<Bytes>() + short.host.context_bytes;
    // Eight bits and a scale for 32 of them instead of sixteen: 15/32 less. Where that is not enough, no dry run is needed.
    if cache.get() / 32 * 15 < short.short().get() {
        return None;
    }
    let kv_type = KvType::Q8_0;
    let layout = asking.size(&Run { kv_type, ..run(asking, short) }).await.ok()?;
    layout.fits().then(|| alternative(asking, Change::KvCache { kv_type }, &layout))
}

async fn smaller_quantization(asking: &Asking<'_>, short: &Layout) -> Option<Alternative> {
    let weights = asking.header.tensor_bytes;
    let wanted = weights.get().saturating_sub(short.short().get());
    let mut smaller: Vec<&Sibling> =
        asking.question.siblings.iter().filter(|sibling| sibling.weights.get() <= wanted).collect();
    smaller.sort_by_key(|sibling| std::cmp::Reverse(sibling.weights));
    for sibling in smaller.into_iter().take(QUANTIZATIONS) {
        let file: PathBuf = (sibling.file)().await.ok()?;
        let layout = asking.size(&Run { path: &file, ..run(asking, short) }).await.ok()?;
        if layout.fits() {
            let change = Change::Quantization { quantization: sibling.quantization.clone() };
            // The speed of the other file, whose weights are other bytes.
            let header = crate::gguf::GgufHeader::read(&file).ok()?;
            let speed = speed(asking.question, &header, &layout);
            return Some(Alternative { change, spare_bytes: layout.spare(), speed });
        }
    }
    None
}

async fn less_offload(asking: &Asking<'_>, short: &Layout, by_fit: bool) -> Option<Alternative> {
    if by_fit || asking.question.devices.is_empty() || short.devices_short() == Bytes::ZERO {
        return None;
    }
    let run = Run { fit: true, gpu_layers: None, expert_layers_on_host: 0, ..run(asking, short) };
    let layout = asking.size(&run).await.ok()?;
    let change = Change::Offload { gpu_layers: layout.sized.gpu_layers, partial_layers: layout.partial(asking.header) };
    let same_context = layout.sized.context >= ContextTokens::new(run.context);
    (layout.fits() && same_context).then(|| alternative(asking, change, &layout))
}
