//! Devices, sizing, benchmarking.

use std::time::Duration;

use muster_engine::gguf::GgufHeader;
use muster_engine::random_model::{RandomModelSpec, write_random_model};
use muster_engine::worker::{
    BenchEvent, BenchRequest, PhantomBackend, PhantomDevice, SizeOptions, SizeRequest, bench, devices, size,
};
use muster_proto::{Bytes, DeviceKind, KvType};

use crate::{bundled, command, quantized, settings, started, within};

#[tokio::test]
async fn the_cpu_is_among_the_devices() {
    let devices = within(devices(&command())).await.unwrap();
    let cpu = devices.iter().find(|device| device.kind == DeviceKind::Cpu).unwrap();
    assert_eq!((cpu.name.as_str(), cpu.backend.as_str()), ("CPU", "CPU"));
    assert!(cpu.memory_total.unwrap() > Bytes::from_mib(64));
}

#[tokio::test]
async fn an_estimate_is_what_loading_takes_byte_for_byte() {
    let (_folder, f16) = bundled();
    let mut models = vec![f16.clone()];
    for quantization in ["Q4_0", "Q4_K_M", "Q8_0"] {
        models.push(quantized(&f16, quantization).await);
    }
    for path in &models {
        for (context, parallel, kv_type) in [(512, 1, KvType::F16), (1024, 2, KvType::F16), (1024, 4, KvType::Q8_0)] {
            let mut settings = settings(context, parallel);
            settings.kv_type = kv_type;
            let request = SizeRequest {
                path: path.clone(),
                settings: settings.clone(),
                devices: Vec::new(),
                options: SizeOptions::default(),
            };
            let sized = within(size(&command(), request)).await.unwrap();
            let (generator, loaded) = started(path, settings.clone()).await;
            assert_eq!(sized.need, loaded.memory, "{} {settings:?}", path.display());
            assert!(sized.need.devices.is_empty());
            assert!(sized.need.host.model.get() > 1 << 20 && sized.need.host.compute > Bytes::ZERO);
            assert!(loaded.resident.is_none_or(|resident| resident > sized.need.host.model));
            generator.stop().await;
        }
    }
}

#[tokio::test]
async fn phantom_gpus_take_what_the_cpu_took() {
    let (_folder, path) = bundled();
    let gpu = |name: &str| PhantomDevice::new(name, PhantomBackend::Cuda, Bytes::from_gib(8));
    let on = |devices: Vec<PhantomDevice>, gpu_layers| {
        let mut settings = settings(1024, 1);
        settings.gpu_layers = gpu_layers;
        let request = SizeRequest { path: path.clone(), settings, devices, options: SizeOptions::default() };
        async { within(size(&command(), request)).await.unwrap() }
    };
    let cpu = on(vec![], None).await;
    assert_eq!((cpu.layers, cpu.gpu_layers, cpu.context_train), (4, 0, 1024));
    let one = on(vec![gpu("CUDA0")], None).await;
    assert_eq!(one.gpu_layers, 5);
    assert_eq!(one.need.devices.len(), 1);
    assert_eq!(one.need.devices[0].name, "CUDA0");
    // KV: 4 layers × 1024 tokens × (K and V) × 2 heads × 64 × 2 bytes.
    assert_eq!(one.need.devices[0].context, Bytes::new(4 * 1024 * 2 * 2 * 64 * 2));
    let two = on(vec![gpu("CUDA0"), gpu("CUDA1")], None).await;
    assert_eq!(two.need.devices.len(), 2);
    let half = on(vec![gpu("CUDA0")], Some(2)).await;
    assert!(half.need.devices[0].model < one.need.devices[0].model);
    // None of its layers: the GPU is left alone.
    assert_eq!(on(vec![gpu("CUDA0")], Some(0)).await.need, cpu.need);
}

#[tokio::test]
async fn a_benchmark_measures_on_random_models_and_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let request = BenchRequest {
        scratch_dir: scratch.path().to_owned(),
        // Whatever the machine is busy with, the first step is measured; the others only if there is time.
        budget: Duration::from_secs(3),
        threads: Some(2),
        quick: true,
        sustained: Duration::from_millis(1),
    };
    let (mut points, mut last, mut pid, mut load) = (Vec::new(), 0.0, None, Vec::new());
    within(bench(&command(), request, |event| match event {
        BenchEvent::Started { pid: started } => pid = Some(started),
        BenchEvent::Progress { fraction, .. } => last = fraction,
        BenchEvent::Point(point) => point.put_into(&mut points),
        BenchEvent::Sustained { rates, .. } => load = rates,
    }))
    .await
    .unwrap();
    assert!(pid.is_some() && !points.is_empty() && !load.is_empty());
    assert!(points.iter().all(|point| point.device != "CPU" || point.threads == Some(2)));
    assert!(points.iter().all(|point| point.prefill.median.get() > 0.0 && point.decode.median.get() > 0.0));
    // Shortened to what the budget has room for.
    assert_eq!(points[0].model.quantization, "Q8_0");
    assert!((1..=512).contains(&points[0].prefill_tokens) && (1..=128).contains(&points[0].decode_tokens));
    assert!((last - 1.0).abs() < 1e-6);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn random_models_of_every_quantization_load_and_run() {
    let folder = tempfile::tempdir().unwrap();
    for quantization in ["F16", "Q8_0", "Q4_0", "Q4_K"] {
        let path = folder.path().join(quantization);
        let facts = write_random_model(&path, &RandomModelSpec::tiny(quantization)).unwrap();
        let header = GgufHeader::read(&path).unwrap();
        assert_eq!(facts.file_size, header.file_size);
        assert_eq!(facts.parameters, header.parameters());
        assert_eq!(facts.bytes_per_token, header.bytes_per_token());
        assert_eq!(facts.parameters_per_token, header.parameters_per_token());
        let (generator, _) = started(&path, settings(256, 1)).await;
        let (prefill, decode) = within(generator.measure(32, 4)).await.unwrap();
        assert!(prefill.get() > 0.0 && decode.get() > 0.0);
        generator.stop().await;
    }
}
