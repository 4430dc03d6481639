//! x
use muster_engine::worker::*;
use muster_engine::profile::{DeviceShare, Needed};
use muster_proto::*;
fn main() {
    if std::env::args().nth(1).as_deref() == Some(muster_engine::WORKER_ARGUMENT) { muster_engine::worker_main(); return; }
    let path = std::env::args().nth(1).unwrap();
    let backend = match std::env::args().nth(2).as_deref() { Some("vulkan") => PhantomBackend::Vulkan, Some("metal") => PhantomBackend::Metal, Some("rocm") => PhantomBackend::Rocm, _ => PhantomBackend::Cuda };
    let runs: u32 = std::env::args().nth(3).and_then(|v| v.parse().ok()).unwrap_or(40);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let command = WorkerCommand::this_executable().unwrap();
    let path = if let Some(name) = path.strip_prefix("ref:") {
        let (model, quantization) = muster_engine::reference::parse(name).unwrap();
        let to = format!("/tmp/pf/{}.gguf", name.replace(':', "-"));
        let start = std::time::Instant::now();
        runtime.block_on(make_model(&command, MakeRequest { spec: muster_engine::maker::ModelSpec::from(model), quantization, path: to.clone().into(), weights: Weights::HeaderOnly })).unwrap();
        println!("made in {:?}", start.elapsed());
        to
    } else { path };
    let start = std::time::Instant::now();
    let kind = ProfileBackend { backend, capability: None };
    let profile = runtime.block_on(profile(&command, ProfileRequest { path: path.clone().into(), backend: Some(kind), depth: if std::env::args().nth(4).is_some() { ProfileDepth::Whole } else { ProfileDepth::Several } }, |_| ())).unwrap();
    let json = serde_json::to_string(&profile).unwrap();
    println!("PROFILE {path} {:?} json {} asked {} worst {:.4}", start.elapsed(), json.len(), profile.dry_runs(), profile.worst_miss());
    std::fs::write("/tmp/pf/last.json", &json).unwrap();
    let mut seed = 7_u64;
    let mut random = move || { seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); (seed >> 40) as f64 / (1_u64 << 24) as f64 };
    let mut log = move |lo: f64, hi: f64| (lo * (hi / lo).powf(random())).round() as u32;
    let total = profile.total_layers();
    let (mut w, mut c, mut n) = (0.0_f64, 0.0_f64, 0);
    let mut errs = vec![];
    for i in 0..runs {
        let devs = [1usize, 1, 0, 1, 2, 1, 1, 1][(i % 8) as usize];
        let layers = match i % 4 { 0 => None, 1 => Some(log(1.0, total as f64).min(total)), 2 => Some(total - log(1.0, total as f64).min(total)), _ => None };
        let parallel = log(0.3, 16.0).max(1);
        let kv = [KvType::F16, KvType::Q8_0, KvType::Q4_0, KvType::F16][(log(1.0, 5.0) as usize).min(4) - 1];
        let flash = if kv == KvType::F16 { [FlashAttention::Auto, FlashAttention::On, FlashAttention::Off][(log(1.0, 4.0) as usize).min(3) - 1] } else { FlashAttention::Auto };
        let settings = EngineSettings { context: ContextTokens::new(log(512.0, profile.context_train().max(600).min(262144) as f64)), parallel, batch: 2048, ubatch: if i % 2 == 0 { log(64.0, 2048.0) } else { 1 << log(6.0, 12.0).min(11) }, kv_type: kv, gpu_layers: layers, kv_unified: i % 3 == 0, flash_attention: flash, expert_layers_on_host: if i % 7 == 3 { total } else { 0 } };
        let shares: Vec<DeviceShare> = (0..devs).map(|d| DeviceShare { name: format!("GPU{d}"), share: 1.0 }).collect();
        let outputs = if i % 5 == 0 { Outputs::MicroBatch } else { Outputs::PerSequence };
        let real = runtime.block_on(size(&command, SizeRequest { path: path.clone().into(), settings: settings.clone(), devices: shares.iter().map(|s| PhantomDevice::new(s.name.clone(), backend, Bytes::from_gib(4000))).collect(), options: SizeOptions { outputs, layout: Layout { split: if devs > 1 { vec![1.0; devs] } else { vec![] }, overrides: vec![] }, ..Default::default() } }));
        let mine = profile.need(&settings, &Needed { devices: &shares, total_context: None, all_outputs: outputs == Outputs::MicroBatch });
        let (real, mine) = match (real, mine) { (Ok(r), Ok(m)) => (r.need, m), (a, b) => { println!("NO {settings:?}\n  {:?}\n  {:?}", a.map(|_| ()), b.map(|_| ())); continue; } };
        let mut all: Vec<(&DeviceMemory, &DeviceMemory)> = real.devices.iter().zip(&mine.devices).collect();
        if real.devices.len() != mine.devices.len() { println!("DEVICES {} {}", real.devices.len(), mine.devices.len()); }
        all.push((&real.host, &mine.host));
        for (r, m) in all {
            let share = |a: Bytes, b: Bytes| (b.get() as f64 - a.get() as f64) / (a.get() as f64).max(1.0);
            if r.model != m.model || r.context != m.context { println!("MODEL {} {settings:?} real {} {} mine {} {}", r.name, r.model.get(), r.context.get(), m.model.get(), m.context.get()); }
            let (t, k) = (share(r.total(), m.total()), share(r.compute, m.compute));
            n += 1; w = w.max(t.abs()); c = c.max(k.abs()); errs.push(t.abs());
            if t.abs() > 0.005 { println!("MISS {} total {:+.4} compute {:+.4} ({} {}) layers {layers:?} devs {devs} exp {} ctx {} par {} uni {} ub {} kv {kv:?} {flash:?} {outputs:?}", r.name, t, k, r.compute.get(), m.compute.get(), settings.expert_layers_on_host, settings.context.get(), parallel, settings.kv_unified, settings.ubatch); }
        }
    }
    errs.sort_by(f64::total_cmp);
    println!("CHECKED {n} figures: worst of total {w:.4}, of compute {c:.4}; within 1%: {:.3}", errs.iter().filter(|e| **e < 0.01).count() as f64 / errs.len() as f64);
}
