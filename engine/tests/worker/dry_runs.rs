//! Dry runs against real loads on the CPU, byte for byte, for architectures that place and cache differently. The same on a
//! Vulkan device is `make check-vulkan`.

use muster_engine::worker::{SizeOptions, SizeRequest, size};
use muster_proto::{Bytes, FlashAttention, KvType};

use crate::small_models::{COMPRESSED, DENSE, EXPERTS, Model, RECURRENT, Recipe, SINKS, WINDOWS, made};
use crate::{command, settings, started, within};

/// Compares; gives back what the weights take.
async fn check(model: &Model) -> Bytes {
    let mut taken = Bytes::ZERO;
    for (context, parallel, kv_type, flash_attention, kv_unified) in [
        (1024, 1, KvType::F16, FlashAttention::Auto, false),
        (1024, 1, KvType::Q8_0, FlashAttention::On, false),
        (512, 3, KvType::F16, FlashAttention::Off, true),
    ] {
        let mut settings = settings(context, parallel);
        settings.kv_type = kv_type;
        settings.flash_attention = flash_attention;
        settings.kv_unified = kv_unified;
        let request = SizeRequest {
            path: model.path.clone(),
            settings: settings.clone(),
            devices: Vec::new(),
            options: SizeOptions::default(),
        };
        let sized = within(size(&command(), request)).await.unwrap();
        let (generator, loaded) = started(&model.path, settings.clone()).await;
        generator.stop().await;
        assert_eq!(sized.need, loaded.memory, "{} {settings:?}", model.name);
        assert!(sized.need.devices.is_empty() && sized.need.host.context > Bytes::ZERO, "{}", model.name);
        taken = sized.need.host.model;
    }
    taken
}

async fn check_all(recipe: &Recipe) {
    let folder = tempfile::tempdir().unwrap();
    for model in within(made(&command(), folder.path(), recipe)).await {
        check(&model).await;
    }
}

#[tokio::test]
async fn a_dense_model_takes_on_the_cpu_what_the_dry_run_says() {
    check_all(&DENSE).await;
}

#[tokio::test]
async fn experts_take_on_the_cpu_what_the_dry_run_says() {
    check_all(&EXPERTS).await;
}

#[tokio::test]
async fn sliding_windows_take_on_the_cpu_what_the_dry_run_says() {
    check_all(&WINDOWS).await;
}

#[tokio::test]
async fn sinks_take_on_the_cpu_what_the_dry_run_says() {
    check_all(&SINKS).await;
}

#[tokio::test]
async fn a_compressed_cache_takes_on_the_cpu_what_the_dry_run_says() {
    check_all(&COMPRESSED).await;
}

#[tokio::test]
async fn recurrent_layers_take_on_the_cpu_what_the_dry_run_says() {
    check_all(&RECURRENT).await;
}
