//! What is compared: several architectures and quantizations, each small enough for a software device.

use std::path::{Path, PathBuf};

use muster_engine::random_model::{RandomModelSpec, write_random_model};
use muster_engine::worker::{QuantizeRequest, quantize};

use crate::{command, within};

/// A model file.
pub struct Model {
    /// For the table.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Blocks; the output is one layer more.
    pub layers: u32,
    /// Whether it has experts.
    pub experts: bool,
}

/// All of them, made in a folder.
pub async fn all(folder: &Path) -> Vec<Model> {
    let mut all = Vec::new();
    let bundled = folder.join("muster-tiny-f16.gguf");
    std::fs::write(&bundled, muster_engine::bundled::MUSTER_TINY_F16).unwrap();
    let tiny = |name: &str, path: &Path| Model { name: format!("muster-tiny {name}"), path: path.into(), layers: 4, experts: false };
    for quantization in ["Q8_0", "Q4_K_M", "IQ4_XS", "Q4_0"] {
        let target = folder.join(format!("muster-tiny-{quantization}.gguf"));
        let request = QuantizeRequest {
            source: bundled.clone(),
            target: target.clone(),
            quantization: quantization.into(),
            threads: None,
        };
        within(quantize(&command(), request, |_| {})).await.unwrap();
        all.push(tiny(quantization, &target));
    }
    all.push(tiny("F16", &bundled));
    for quantization in ["F16", "Q8_0", "Q4_0", "Q4_K"] {
        let path = folder.join(format!("llama-8m-{quantization}.gguf"));
        let spec = RandomModelSpec::tiny(quantization);
        let layers = spec.layers;
        write_random_model(&path, &spec).unwrap();
        all.push(Model { name: format!("llama-8m {quantization}"), path, layers, experts: false });
    }
    all
}
