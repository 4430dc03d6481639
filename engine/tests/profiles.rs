//! Sizing profiles against dry runs at points that they were not made from: one model of each kind, and a sample of the
//! shipped ones.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use muster_engine::maker::ModelSpec;
use muster_engine::profile::shipped::ShippedProfiles;
use muster_engine::profile::{ContextLadder, DeviceShare, NeedError, Needed, SizingProfile, shipped};
use muster_engine::reference;
use muster_engine::worker::{
    MakeRequest, Outputs, PhantomBackend, PhantomDevice, ProfileBackend, ProfileDepth, ProfileRequest, SizeOptions,
    SizeRequest, Weights, WorkerCommand, make_model, profile, size,
};
use muster_proto::{Bytes, ContextTokens, DeviceMemory, EngineSettings, FlashAttention, KvType, MemoryNeed};

const CUDA: ProfileBackend = ProfileBackend { backend: PhantomBackend::Cuda, capability: None };

fn command() -> WorkerCommand {
    WorkerCommand::new(env!("CARGO_BIN_EXE_engine-worker"))
}

async fn header(folder: &Path, name: &str) -> std::path::PathBuf {
    let (model, quantization) = reference::parse(name).unwrap();
    let path = folder.join(format!("{}.gguf", model.id));
    let spec = ModelSpec::from(model);
    let request = MakeRequest { spec, quantization, path: path.clone(), weights: Weights::HeaderOnly };
    make_model(&command(), request).await.unwrap();
    path
}

/// Points that are the same in every run (Knuth's MMIX generator).
struct Points(u64);

impl Points {
    fn between(&mut self, least: f64, most: f64) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        #[expect(clippy::cast_precision_loss, reason = "24 bits")]
        let share = (self.0 >> 40) as f64 / f64::from(1 << 24);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range")]
        let value = (least * (most / least).powf(share)).round() as u32;
        value
    }

    /// Settings anywhere in the range.
    fn settings(&mut self, profile: &SizingProfile) -> EngineSettings {
        let kv_type = [KvType::F16, KvType::Q8_0, KvType::Q4_0][self.between(1.0, 3.0) as usize - 1];
        let flash_attention = match (kv_type, self.between(1.0, 3.0)) {
            (KvType::F16, 1) => FlashAttention::On,
            (KvType::F16, 2) => FlashAttention::Off,
            _ => FlashAttention::Auto,
        };
        EngineSettings {
            context: ContextTokens::new(self.between(512.0, f64::from(profile.context_train().max(2048)))),
            parallel: self.between(0.6, 16.0).max(1),
            batch: 2048,
            ubatch: self.between(64.0, 2048.0),
            kv_type,
            gpu_layers: None,
            kv_unified: self.between(1.0, 3.0) == 1,
            flash_attention,
            expert_layers_on_host: 0,
        }
    }
}

async fn dry_run(path: &Path, settings: &EngineSettings, devices: &[DeviceShare], all_outputs: bool) -> MemoryNeed {
    let phantom = |share: &DeviceShare| PhantomDevice::new(share.name.clone(), CUDA.backend, Bytes::from_gib(1 << 14));
    let request = SizeRequest {
        path: path.to_owned(),
        settings: settings.clone(),
        devices: devices.iter().map(phantom).collect(),
        options: SizeOptions {
            outputs: if all_outputs { Outputs::MicroBatch } else { Outputs::PerSequence },
            ..SizeOptions::default()
        },
    };
    size(&command(), request).await.unwrap().need
}

/// Weights (but for those of models without a cache) and caches to the byte, all together within a share.
fn assert_near(mine: &MemoryNeed, real: &MemoryNeed, share: f64, at: &str) {
    assert_eq!(mine.devices.len(), real.devices.len(), "{at}");
    let host = std::iter::once((&mine.host, &real.host));
    let near = |a: Bytes, b: Bytes| {
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let (a, b) = (a.get() as f64, b.get() as f64);
        (a - b).abs() <= b * share + 4096.0
    };
    let check = |(mine, real): (&DeviceMemory, &DeviceMemory)| {
        let name = &real.name;
        assert_eq!(mine.context, real.context, "{name} at {at}");
        // Models without a cache have norms of their embeddings, 3 KB that a profile counts to a device with some layers.
        let slack = if real.context == Bytes::ZERO { 4096 } else { 0 };
        assert!(mine.model.get().abs_diff(real.model.get()) <= slack, "{name}: {mine:?} is not {real:?} at {at}");
        assert!(near(mine.total(), real.total()), "{name}: {mine:?} is not {real:?} at {at}");
    };
    mine.devices.iter().zip(&real.devices).chain(host).for_each(check);
}

/// Exact to 1 % anywhere: with all layers on the GPU, some, or none, and with experts on the host.
async fn follows_dry_runs(name: &str, points: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = header(folder.path(), name).await;
    let request = ProfileRequest { path: path.clone(), backend: Some(CUDA), depth: ProfileDepth::Parts };
    let profile = profile(&command(), request, |_| ()).await.unwrap();
    assert_eq!(SizingProfile::from_bytes(&profile.to_bytes()).as_ref(), Some(&profile));
    let gpu = DeviceShare::only("CUDA0");
    let mut random = Points(name.len() as u64 + 42);
    for point in 0..points {
        let mut settings = random.settings(&profile);
        let all_outputs = point % 3 == 1;
        let devices = if point % 4 == 3 { &[][..] } else { &gpu[..] };
        match point % 4 {
            1 => settings.gpu_layers = Some(random.between(1.0, f64::from(profile.total_layers() - 1))),
            2 => settings.expert_layers_on_host = random.between(1.0, f64::from(profile.total_layers())),
            _ => {}
        }
        let needed = Needed { devices, total_context: None, all_outputs };
        let mine = profile.need(&settings, &needed).unwrap();
        let real = dry_run(&path, &settings, devices, all_outputs).await;
        assert_near(&mine, &real, 0.01, &format!("{name}, point {point}: {settings:?}, outputs {all_outputs}"));
    }
}

#[tokio::test]
async fn dense() {
    follows_dry_runs("llama-3.2-1b:Q4_K_M", 12).await;
}

#[tokio::test]
async fn sliding_window() {
    follows_dry_runs("gemma-3-1b:Q4_K_M", 8).await;
}

#[tokio::test]
async fn experts_with_a_sliding_window() {
    follows_dry_runs("gpt-oss-20b:MXFP4_MOE", 8).await;
}

#[tokio::test]
async fn latent_attention() {
    follows_dry_runs("deepseek-v3:Q4_K_M", 4).await;
}

#[tokio::test]
async fn recurrent_and_attention() {
    follows_dry_runs("qwen3.5-9b:Q4_K_M", 8).await;
}

#[tokio::test]
async fn embedding() {
    follows_dry_runs("bge-small-en-v1.5:F16", 8).await;
}

/// What ships is what would be made now: contexts, compute and weights of a sample of models, backends and quantizations.
#[tokio::test]
async fn shipped_profiles_have_not_drifted() {
    let folder = tempfile::tempdir().unwrap();
    for (model, quantization) in [("llama-3.1-8b", "Q4_K_M"), ("qwen3-4b", "Q8_0"), ("gemma-3-4b", "Q6_K")] {
        let path = header(folder.path(), &format!("{model}:{quantization}")).await;
        let gpu = DeviceShare::only("CUDA0");
        let profile = shipped::find(model, quantization, "cuda").expect("it ships");
        for (devices, context, parallel, gpu_layers) in [
            (&gpu[..], 8192, 1, None),
            (&gpu[..], 32_768, 4, None),
            (&gpu[..], 8192, 1, Some(13)),
            (&[][..], 4096, 1, None),
        ] {
            let context = ContextTokens::new(context);
            let settings = EngineSettings { context, parallel, gpu_layers, ..EngineSettings::default() };
            let needed = Needed { devices, ..Needed::default() };
            let mine = profile.need(&settings, &needed).unwrap();
            let real = dry_run(&path, &settings, devices, false).await;
            assert_near(&mine, &real, 0.005, &format!("{model}:{quantization}, run the script again"));
        }
    }
}

/// All models, on all backends.
#[test]
fn every_reference_model_ships() {
    let loaded = ShippedProfiles::load("vulkan");
    assert_eq!(loaded.get("qwen3-4b", "Q6_K"), shipped::find("qwen3-4b", "Q6_K", "vulkan").as_ref());
    assert!(loaded.iter().count() >= reference::all().len() * shipped::QUANTIZATIONS.len());
    for (model, backend) in
        reference::all().iter().flat_map(|model| shipped::BACKENDS.into_iter().map(move |name| (model, name)))
    {
        for quantization in shipped::QUANTIZATIONS {
            let profile = shipped::find(&model.id, quantization, backend);
            let profile = profile.unwrap_or_else(|| panic!("{} {quantization} {backend}", model.id));
            let settings = EngineSettings { context: ContextTokens::new(512), ..EngineSettings::default() };
            let gpu = DeviceShare::only("GPU0");
            let need = profile.need(&settings, &Needed { devices: &gpu, ..Needed::default() }).unwrap();
            assert!(need.devices[0].model > Bytes::from_mib(10), "{} {quantization} {backend}", model.id);
        }
    }
}

/// What fits follows by arithmetic, and what was not profiled is an error, not a guess.
#[test]
fn what_would_fit() {
    let profile = shipped::find("llama-3.1-8b", "Q4_K_M", "cuda").expect("it ships");
    let gpu = DeviceShare::only("CUDA0");
    let needed = Needed { devices: &gpu, ..Needed::default() };
    let (settings, host) = (EngineSettings::default(), Bytes::from_gib(16));
    let free = [Bytes::from_gib(8)];
    let most = profile.max_context(&settings, &needed, &free, host).unwrap().expect("it fits");
    let at = |context: u32| {
        let settings = EngineSettings { context: ContextTokens::new(context), ..settings.clone() };
        profile.need(&settings, &needed).unwrap().devices[0].total()
    };
    assert!(at(most.get()) <= free[0] && at(most.get() + 256) > free[0], "{most:?}");
    assert_eq!(profile.max_context(&settings, &needed, &[Bytes::from_gib(4)], host).unwrap(), None);
    let free = [Bytes::from_gib(4)];
    let layers = profile.max_gpu_layers(&settings, &needed, &free, host).unwrap().expect("some layers fit");
    let with = |layers: u32| {
        let settings = EngineSettings { gpu_layers: Some(layers), ..settings.clone() };
        profile.need(&settings, &needed).unwrap().devices[0].total()
    };
    assert!((1..profile.total_layers()).contains(&layers), "{layers}");
    assert!(with(layers) <= free[0] && with(layers + 1) > free[0], "{layers}");
    let ladder = ContextLadder::new(&profile, &settings, &needed, &[2048, 8192, 65_536, 1 << 30]);
    assert_eq!(ladder.steps().len(), 3);
    let steps = ladder.steps();
    assert_eq!(ladder.largest(steps[1].1, host), Some(steps[1].0));
    assert_eq!(ladder.largest(Bytes::from_gib(1), host), None);
    let two: Vec<DeviceShare> = ["A", "B"].map(|name| DeviceShare { name: name.into(), share: 1.0 }).into();
    let over_two = Needed { devices: &two, ..Needed::default() };
    assert!(matches!(profile.need(&settings, &over_two), Err(NeedError::Placement { .. })));
    let refused = EngineSettings { kv_type: KvType::Q8_0, flash_attention: FlashAttention::Off, ..settings };
    assert!(matches!(profile.need(&refused, &needed), Err(NeedError::Refused { .. })));
}
