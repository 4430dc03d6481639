//! What phantom devices of each backend take, against the arithmetic of upstream's rules; fits and layouts.

use std::path::{Path, PathBuf};

use muster_engine::gguf::GgufHeader;
use muster_engine::maker::{ModelSpec, PerLayer, Quantization};
use muster_engine::reference;
use muster_engine::worker::{
    Layout, MakeRequest, Outputs, PhantomBackend, PhantomDevice, Placement, SizeOptions, SizeRequest, Sized, Weights,
    make_model, size,
};
use muster_proto::{Bytes, ContextTokens, EngineSettings, FlashAttention, KvType};

use crate::{command, settings, within};

const CONTEXT: u32 = 8192;
/// So long that attention, not the feed-forward part, has the largest tensors.
const LONG: u32 = 65_536;

/// The header of a reference model, changed.
async fn header(folder: &Path, name: &str, change: impl FnOnce(&mut ModelSpec)) -> PathBuf {
    let mut spec = ModelSpec::from(reference::find(name).unwrap());
    change(&mut spec);
    let path = folder.join("model.gguf");
    let quantization = Quantization::DEFAULT;
    let request = MakeRequest { spec, quantization, path: path.clone(), weights: Weights::HeaderOnly };
    within(make_model(&command(), request)).await.unwrap();
    path
}

fn gpu(backend: PhantomBackend, capability: Option<u32>) -> PhantomDevice {
    PhantomDevice { capability, ..PhantomDevice::new("GPU0", backend, Bytes::from_gib(200)) }
}

fn with(flash_attention: FlashAttention, kv_type: KvType, ubatch: u32) -> EngineSettings {
    EngineSettings { flash_attention, kv_type, ubatch, batch: ubatch, ..settings(LONG, 1) }
}

async fn sized(path: &Path, settings: EngineSettings, devices: Vec<PhantomDevice>, options: SizeOptions) -> Sized {
    within(size(&command(), SizeRequest { path: path.to_owned(), settings, devices, options })).await.unwrap()
}

async fn compute(path: &Path, settings: EngineSettings, device: PhantomDevice) -> u64 {
    sized(path, settings, vec![device], SizeOptions::default()).await.need.devices[0].compute.get()
}

/// F16 elements of the keys and values of one layer of Llama 3.1 8B: 8 heads of 128.
const KV_F16: u64 = 2 * LONG as u64 * 8 * 128 * 2;

#[tokio::test]
async fn cuda_copies_a_quantized_cache_to_f16_where_its_kernel_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = header(folder.path(), "llama-3.1-8b", |_| {}).await;
    let (on, f16, q8) = (FlashAttention::On, KvType::F16, KvType::Q8_0);
    for (backend, capability) in [
        (PhantomBackend::Cuda, 610),
        (PhantomBackend::Cuda, 700),
        (PhantomBackend::Cuda, 860),
        (PhantomBackend::Cuda, 1200),
        (PhantomBackend::Rocm, 0x908),
        (PhantomBackend::Rocm, 0x1100),
    ] {
        let device = || gpu(backend, Some(capability));
        // Many rows: a tile or matrix kernel, which wants F16. The copies are padded to 128 bytes each, and a part of them
        // lies where later tensors come.
        let more =
            compute(&path, with(on, q8, 512), device()).await - compute(&path, with(on, f16, 512), device()).await;
        assert!((KV_F16 / 2..KV_F16 + 1024).contains(&more), "{backend:?} {capability}: {more}");
        // One row: the vector kernel reads Q8_0 as it is. Volta takes it only where no four heads share a key.
        let (quantized, plain) =
            (compute(&path, with(on, q8, 1), device()).await, compute(&path, with(on, f16, 1), device()).await);
        let copies = quantized > plain + KV_F16 / 2;
        assert_eq!(copies, (backend, capability) == (PhantomBackend::Cuda, 700), "{backend:?} {capability}");
    }
    // Vulkan's copies are pools of the backend, outside of what llama.cpp counts.
    let vulkan = |kv| compute(&path, with(on, kv, 512), gpu(PhantomBackend::Vulkan, None));
    assert!(vulkan(q8).await < vulkan(f16).await + KV_F16 / 2);
}

#[tokio::test]
async fn metal_keeps_scratch_for_flash_attention_whatever_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let path = header(folder.path(), "llama-3.1-8b", |_| {}).await;
    let on = |backend, capability| compute(&path, with(FlashAttention::On, KvType::F16, 512), gpu(backend, capability));
    let metal = on(PhantomBackend::Metal, Some(9)).await;
    let cuda = on(PhantomBackend::Cuda, None).await;
    assert!(metal >= cuda + KV_F16 / 2, "{metal} {cuda}");
}

#[tokio::test]
async fn flash_attention_is_on_where_the_generation_can() {
    let folder = tempfile::tempdir().unwrap();
    // CUDA has no kernel for heads of 48, Metal has; before Apple7 it has none at all.
    let path = header(folder.path(), "llama-3.1-8b", |spec| {
        spec.shape.head_dim_k = 48;
        spec.shape.head_dim_v = 48;
        spec.shape.rope_dim = Some(48);
        spec.shape.rope_freqs = false;
    })
    .await;
    for (backend, capability, can) in [
        (PhantomBackend::Cuda, 860, false),
        (PhantomBackend::Rocm, 0x1100, false),
        (PhantomBackend::Metal, 9, true),
        (PhantomBackend::Metal, 6, false),
        (PhantomBackend::Vulkan, 0x1002, true),
    ] {
        let choice = |flash| compute(&path, with(flash, KvType::F16, 512), gpu(backend, Some(capability)));
        let (auto, off) = (choice(FlashAttention::Auto).await, choice(FlashAttention::Off).await);
        // Without it there are scores of all heads: 512 × 65,536 × 32 × 4 bytes.
        assert_eq!(auto < off / 4, can, "{backend:?} {capability}: {auto} {off}");
    }
}

#[tokio::test]
async fn cuda_pads_rows_of_quantized_weights_and_others_do_not() {
    let folder = tempfile::tempdir().unwrap();
    // A width of 14080 = 27.5 × 512.
    let path = header(folder.path(), "llama-3.1-8b", |spec| spec.shape.n_ff = PerLayer::Same(14_080)).await;
    let padding: u64 = GgufHeader::read(&path)
        .unwrap()
        .tensors
        .iter()
        .filter(|tensor| tensor.kind.block > 1 && tensor.dimensions[0] % 512 != 0)
        .map(|tensor| (512 - tensor.dimensions[0] % 512) / tensor.kind.block * tensor.kind.bytes)
        .sum();
    assert!(padding > 0);
    let model = async |backend| {
        let on = with(FlashAttention::Auto, KvType::F16, 512);
        sized(&path, on, vec![gpu(backend, None)], SizeOptions::default()).await.need.devices[0].model.get()
    };
    let plain = model(PhantomBackend::Metal).await;
    for backend in [PhantomBackend::Cuda, PhantomBackend::Rocm] {
        let more = model(backend).await - plain;
        // Each tensor starts at a multiple of 128 there, of 32 with Metal.
        assert!((padding..padding + 300 * 128).contains(&more), "{more} {padding}");
    }
}

#[tokio::test]
async fn experts_of_the_first_layers_stay_on_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = header(folder.path(), "qwen3-30b-a3b", |_| {}).await;
    let on = |expert_layers_on_host| EngineSettings { expert_layers_on_host, ..settings(CONTEXT, 1) };
    let device = || vec![gpu(PhantomBackend::Cuda, None)];
    let all = sized(&path, on(0), device(), SizeOptions::default()).await;
    let some = sized(&path, on(10), device(), SizeOptions::default()).await;
    let experts: u64 = GgufHeader::read(&path)
        .unwrap()
        .tensors
        .iter()
        .filter(|tensor| tensor.name.contains("_exps"))
        .filter(|tensor| (0..10).any(|layer| tensor.name.starts_with(&format!("blk.{layer}."))))
        .map(|tensor| tensor.bytes)
        .sum();
    // But for the gaps between tensors: 128 bytes on the device, fewer on the host.
    let left = all.need.devices[0].model.get() - some.need.devices[0].model.get();
    let came = some.need.host.model.get() - all.need.host.model.get();
    assert!(left.abs_diff(experts) < 50 * 128 && came.abs_diff(experts) < 50 * 128, "{left} {came} {experts}");
    assert_eq!((some.expert_layers_on_host, some.layout.overrides.len()), (10, 0));
}

/// A fit, and the same again as settings and layout.
async fn fitted(path: &Path, context: u32, devices: Vec<PhantomDevice>) -> Sized {
    let placement = Placement::Fit { min_context: ContextTokens::new(4096), margin: Bytes::from_gib(1) };
    let options = SizeOptions { placement, total_context: Some(ContextTokens::new(context)), ..SizeOptions::default() };
    let fit = sized(path, settings(context, 1), devices.clone(), options).await;
    let again = EngineSettings { gpu_layers: Some(fit.gpu_layers), ..settings(fit.context.get(), 1) };
    let options = SizeOptions { layout: fit.layout.clone(), ..SizeOptions::default() };
    let placed = sized(path, again, devices, options).await;
    assert_eq!(placed.need, fit.need);
    assert_eq!(placed.layout, fit.layout);
    fit
}

fn of(gib: u64, name: &str) -> PhantomDevice {
    PhantomDevice::new(name, PhantomBackend::Cuda, Bytes::from_gib(gib))
}

#[tokio::test]
async fn a_fit_uses_what_is_free_and_can_be_loaded_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = header(folder.path(), "llama-3.1-8b", |_| {}).await;
    let roomy = fitted(&path, CONTEXT, vec![of(24, "CUDA0")]).await;
    assert_eq!((roomy.fits, roomy.gpu_layers, &roomy.layout), (Some(true), 33, &Layout::default()));
    let tight = fitted(&path, CONTEXT, vec![of(4, "CUDA0")]).await;
    assert_eq!(tight.fits, Some(true));
    assert!((1..33).contains(&tight.gpu_layers), "{}", tight.gpu_layers);
    assert!(tight.need.devices[0].total() <= Bytes::from_gib(3));
    // Free memory counts, not total memory.
    let busy = PhantomDevice { free: Bytes::from_gib(4), ..of(24, "CUDA0") };
    assert_eq!(fitted(&path, CONTEXT, vec![busy]).await.gpu_layers, tight.gpu_layers);
    let two = fitted(&path, CONTEXT, vec![of(4, "CUDA0"), of(4, "CUDA1")]).await;
    assert_eq!((two.fits, two.layout.split.len()), (Some(true), 2));
    assert!(two.gpu_layers > tight.gpu_layers);
    // More than is set cannot be changed: it does not fit, and says what it would take.
    let set = EngineSettings { gpu_layers: Some(33), ..settings(CONTEXT, 1) };
    let placement = Placement::Fit { min_context: ContextTokens::new(4096), margin: Bytes::from_gib(1) };
    let options = SizeOptions { placement, outputs: Outputs::PerSequence, ..SizeOptions::default() };
    let refused = sized(&path, set, vec![of(4, "CUDA0")], options).await;
    assert_eq!((refused.fits, refused.gpu_layers), (Some(false), 33));
    assert!(refused.need.devices[0].total() > Bytes::from_gib(3));
}

#[tokio::test]
async fn a_fit_shrinks_a_context_that_is_left_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = header(folder.path(), "llama-3.1-8b", |_| {}).await;
    let placement = Placement::Fit { min_context: ContextTokens::new(4096), margin: Bytes::from_gib(1) };
    let options = SizeOptions { placement, ..SizeOptions::default() };
    let open = EngineSettings { context: ContextTokens::new(0), ..settings(CONTEXT, 1) };
    let sized = sized(&path, open, vec![of(10, "CUDA0")], options).await;
    assert_eq!((sized.fits, sized.gpu_layers), (Some(true), 33));
    assert!((4096..131_072).contains(&sized.context.get()), "{}", sized.context);
}

#[tokio::test]
async fn a_fit_keeps_experts_on_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = header(folder.path(), "qwen3-30b-a3b", |_| {}).await;
    let sized = fitted(&path, CONTEXT, vec![of(10, "CUDA0")]).await;
    assert_eq!((sized.fits, sized.gpu_layers), (Some(true), 49));
    assert!(sized.layout.overrides.iter().any(|o| o.pattern.contains("exps") && o.device == "CPU"));
    assert!(sized.need.host.model > Bytes::from_gib(5));
}

#[tokio::test]
async fn a_fit_places_as_llama_cpp_compiles_it() {
    let folder = tempfile::tempdir().unwrap();
    // Dense and mixed, one device and several, a part of a layer, a context that shrinks, nothing that fits.
    let cases: [(&str, u32, &[u64]); 7] = [
        ("llama-3.1-8b", CONTEXT, &[4]),
        ("llama-3.1-8b", 0, &[4, 3]),
        ("gemma-3-12b", 0, &[9]),
        ("qwen3-30b-a3b", 0, &[13]),
        ("qwen3-30b-a3b", CONTEXT, &[5, 7]),
        ("gpt-oss-20b", 0, &[7]),
        ("gpt-oss-20b", CONTEXT, &[1]),
    ];
    for (model, context, gib) in cases {
        let path = header(folder.path(), model, |_| {}).await;
        let devices: Vec<PhantomDevice> =
            gib.iter().enumerate().map(|(index, gib)| of(*gib, &format!("CUDA{index}"))).collect();
        let fit = async |unmodified_fit| {
            let placement = Placement::Fit { min_context: ContextTokens::new(4096), margin: Bytes::from_gib(1) };
            let total_context = Some(ContextTokens::new(context));
            let options = SizeOptions { placement, total_context, unmodified_fit, ..SizeOptions::default() };
            sized(&path, settings(context, 1), devices.clone(), options).await
        };
        assert_eq!(fit(false).await, fit(true).await, "{model} at {context} on {gib:?} GiB");
    }
}
