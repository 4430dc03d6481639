//! The same build, phantom against real: what the dry run on a Vulkan phantom says, against what llama.cpp then allocates
//! on a real Vulkan device, byte for byte. `make check-vulkan` runs it on Mesa's software device (lavapipe), which needs no
//! GPU; it is compiled only with the feature `vulkan`.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../small_models/mod.rs"]
mod small_models;

use std::fmt::Write;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use muster_engine::worker::{
    BenchEvent, BenchRequest, Generator, Layout, LoadRequest, PhantomBackend, PhantomDevice, SizeOptions, SizeRequest,
    WorkerCommand, bench, devices, size,
};
use muster_proto::{
    Bytes, ContextTokens, Device, DeviceKind, DeviceMemory, EngineSettings, FlashAttention, KvType, MemoryNeed,
};

use small_models::Model;

/// No test may hang: far above what any takes, on a machine that is busy with others, where a software device compiles
/// shaders.
const DEADLINE: Duration = Duration::from_mins(15);

/// By what a device's name has in it, its vendor's number in Vulkan: whose limits the phantom takes. The first is Mesa's
/// software device.
const VENDORS: [(&str, u32); 5] =
    [("llvmpipe", 0x10005), ("NVIDIA", 0x10DE), ("AMD", 0x1002), ("Radeon", 0x1002), ("Intel", 0x8086)];

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("the test took longer than its deadline")
}

fn command() -> WorkerCommand {
    WorkerCommand::new(env!("CARGO_BIN_EXE_engine-worker"))
}

/// The one Vulkan device that is there.
async fn real_device() -> Device {
    let all = within(devices(&command())).await.unwrap();
    let mut found = all.into_iter().filter(|device| device.backend == "Vulkan" && device.kind != DeviceKind::Cpu);
    let device = found.next().expect(
        "no Vulkan device: `make check-vulkan` sets GGML_VK_VISIBLE_DEVICES=0, without which llama.cpp leaves software \
         devices alone",
    );
    assert!(found.next().is_none(), "more than one Vulkan device: set GGML_VK_VISIBLE_DEVICES to one");
    device
}

/// Where it goes, in words for the table.
fn layers(gpu_layers: Option<u32>) -> String {
    gpu_layers.map_or_else(|| "all".into(), |layers| layers.to_string())
}

/// Compares one model in one setting; says what was the same, or what was not.
async fn compare(model: &Model, settings: &EngineSettings, device: &Device) -> Result<MemoryNeed, String> {
    let mut phantom = PhantomDevice::new(
        device.name.clone(),
        PhantomBackend::Vulkan,
        device.memory_total.unwrap_or(Bytes::from_gib(8)),
    );
    let vendor = VENDORS.iter().find(|(name, _)| device.description.contains(name));
    phantom.capability = Some(vendor.unwrap_or_else(|| panic!("whose is {}?", device.description)).1);
    phantom.integrated = device.kind == DeviceKind::IntegratedGpu;
    let request = SizeRequest {
        path: model.path.clone(),
        settings: settings.clone(),
        devices: vec![phantom],
        options: SizeOptions::default(),
    };
    let sized = within(size(&command(), request)).await;
    let loaded = within(load(&model.path, settings)).await;
    match (sized, loaded) {
        (Ok(sized), Ok((memory, gpu_layers))) if sized.need == memory && sized.gpu_layers == gpu_layers => Ok(memory),
        (Ok(sized), Ok((memory, gpu_layers))) => Err(format!(
            "dry run, {} layers on the GPU: {}\n      real, {gpu_layers} layers on the GPU: {}",
            sized.gpu_layers,
            in_bytes(&sized.need),
            in_bytes(&memory),
        )),
        (sized, loaded) => Err(format!(
            "dry run: {}\n      real: {}",
            sized.map_or_else(|error| error.to_string(), |sized| in_bytes(&sized.need)),
            loaded.map_or_else(|error| error, |(memory, _)| in_bytes(&memory)),
        )),
    }
}

async fn load(path: &Path, settings: &EngineSettings) -> Result<(MemoryNeed, u32), String> {
    let request =
        LoadRequest { path: path.to_owned(), settings: settings.clone(), threads: Some(1), layout: Layout::default() };
    let (generator, loaded) = Generator::start(&command(), request, |_| {}).await.map_err(|error| error.to_string())?;
    generator.stop().await;
    Ok((loaded.memory, loaded.gpu_layers))
}

fn in_bytes(need: &MemoryNeed) -> String {
    let mut text = String::new();
    for DeviceMemory { name, model, context, compute } in need.devices.iter().chain([&need.host]) {
        let _ = write!(text, " {name} {} {} {}", model.get(), context.get(), compute.get());
    }
    text
}

/// Where layers go, how wide the cache is, how attention is computed: every combination for the first quantization of a
/// model, the corners for the others.
fn all_settings(model: &Model) -> Vec<EngineSettings> {
    use FlashAttention::{Auto, Off, On};
    use KvType::{F16, Q8_0};
    let with = |gpu_layers, kv_type, flash_attention| EngineSettings {
        context: ContextTokens::new(1024),
        gpu_layers,
        kv_type,
        flash_attention,
        ..EngineSettings::default()
    };
    let half = Some(model.layers / 2);
    let experts_on_host = EngineSettings { expert_layers_on_host: model.layers / 2, ..with(None, F16, Auto) };
    if !model.first {
        let mut corners = vec![with(None, F16, Auto), with(half, Q8_0, On), with(half, F16, Off)];
        corners.extend(model.experts.then_some(experts_on_host));
        return corners;
    }
    let mut all = Vec::new();
    for gpu_layers in [None, half, Some(1), Some(0)] {
        for (kv_type, flash_attention) in [(F16, Auto), (F16, On), (F16, Off), (Q8_0, Auto), (Q8_0, On)] {
            all.push(with(gpu_layers, kv_type, flash_attention));
        }
    }
    // Several sequences, a shared cache, another micro-batch: once each.
    let wide = EngineSettings { context: ContextTokens::new(512), parallel: 4, ..EngineSettings::default() };
    all.push(EngineSettings { kv_unified: true, ..wide.clone() });
    all.push(EngineSettings { ubatch: 128, batch: 256, ..wide.clone() });
    all.push(EngineSettings { gpu_layers: half, ..wide });
    all.extend(model.experts.then_some(experts_on_host));
    all
}

async fn check(models: Vec<Model>) {
    let device = real_device().await;
    let mut compared = 0;
    let mut differ = Vec::new();
    for model in models {
        for settings in all_settings(&model) {
            let what = format!(
                "{} layers {} ctx {}×{} ubatch {} KV {:?}{} FA {:?}{}",
                model.name,
                layers(settings.gpu_layers),
                settings.parallel,
                settings.context.get(),
                settings.ubatch,
                settings.kv_type,
                if settings.kv_unified { " unified" } else { "" },
                settings.flash_attention,
                if settings.expert_layers_on_host > 0 { ", experts of the first half on the host" } else { "" },
            );
            match compare(&model, &settings, &device).await {
                Ok(need) => println!("same  {what}:{}", in_bytes(&need)),
                Err(why) => {
                    println!("DIFF  {what}\n      {why}");
                    differ.push(format!("{what}\n      {why}"));
                }
            }
            compared += 1;
        }
    }
    assert!(differ.is_empty(), "{} of {compared} differ:\n{}", differ.len(), differ.join("\n"));
}

#[tokio::test]
async fn llama_takes_what_the_dry_run_says() {
    let folder = tempfile::tempdir().unwrap();
    check(small_models::llama(&command(), folder.path()).await).await;
}

#[tokio::test]
async fn a_dense_model_takes_what_the_dry_run_says() {
    let folder = tempfile::tempdir().unwrap();
    check(small_models::made(&command(), folder.path(), &small_models::DENSE).await).await;
}

#[tokio::test]
async fn experts_take_what_the_dry_run_says() {
    let folder = tempfile::tempdir().unwrap();
    check(small_models::made(&command(), folder.path(), &small_models::EXPERTS).await).await;
}

#[tokio::test]
async fn sliding_windows_take_what_the_dry_run_says() {
    let folder = tempfile::tempdir().unwrap();
    check(small_models::made(&command(), folder.path(), &small_models::WINDOWS).await).await;
}

#[tokio::test]
async fn sinks_take_what_the_dry_run_says() {
    let folder = tempfile::tempdir().unwrap();
    check(small_models::made(&command(), folder.path(), &small_models::SINKS).await).await;
}

#[tokio::test]
async fn a_compressed_cache_takes_what_the_dry_run_says() {
    let folder = tempfile::tempdir().unwrap();
    check(small_models::made(&command(), folder.path(), &small_models::COMPRESSED).await).await;
}

#[tokio::test]
async fn recurrent_layers_take_what_the_dry_run_says() {
    let folder = tempfile::tempdir().unwrap();
    check(small_models::made(&command(), folder.path(), &small_models::RECURRENT).await).await;
}

#[tokio::test]
async fn matrices_too_large_for_the_device_take_what_the_dry_run_says() {
    let folder = tempfile::tempdir().unwrap();
    check(small_models::made(&command(), folder.path(), &small_models::TOO_LARGE).await).await;
}

#[tokio::test]
async fn the_benchmark_measures_the_device_and_the_processor() {
    let device = real_device().await;
    let scratch = tempfile::tempdir().unwrap();
    let request = BenchRequest {
        scratch_dir: scratch.path().to_owned(),
        budget: Duration::from_secs(60),
        threads: None,
        quick: true,
        sustained: Duration::ZERO,
    };
    let mut points = Vec::new();
    let command = command();
    let found = bench(&command, request, |event| {
        if let BenchEvent::Point(point) = event {
            point.put_into(&mut points);
        }
    });
    within(found).await.unwrap();
    for name in [device.name.as_str(), "CPU"] {
        let own: Vec<_> = points.iter().filter(|point| point.device == name).collect();
        assert!(!own.is_empty(), "no point of {name}");
        assert!(own.iter().all(|point| point.threads.is_some() == (name == "CPU")));
        for point in own {
            println!("{name} {} {}: {}", point.model.name, point.model.quantization, point.decode.median);
        }
    }
}
