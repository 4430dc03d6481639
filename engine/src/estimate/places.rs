//! Which tensors of a laid out model are where, as llama.cpp places them.

use regex_lite::Regex;

use crate::gguf::{GgufHeader, Tensor};
use crate::worker::Sized;

/// What of the weights is computed in main memory, as shares of bytes, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct OnHost {
    /// Of the layers without their experts.
    pub layers: f64,
    /// Of the experts of all layers; 0 without experts.
    pub experts: f64,
    /// Whether the output matrix is there.
    pub output: bool,
    /// Layers on devices of which a part is there.
    pub partial_layers: u32,
}

/// Follows llama.cpp's rule: the last `gpu_layers` layers are on devices, where the output is the very last one
/// (`llama_model_base::load_tensors`), unless an override names the tensor.
pub(super) fn on_host(header: &GgufHeader, sized: &Sized) -> OnHost {
    let first_on_device = sized.total_layers.saturating_sub(sized.gpu_layers);
    let overrides: Vec<(Regex, bool)> = sized
        .layout
        .overrides
        .iter()
        .filter_map(|one| Some((Regex::new(&one.pattern).ok()?, one.device == "CPU")))
        .collect();
    let (mut layers, mut experts) = (Share::default(), Share::default());
    let mut partial = std::collections::BTreeSet::new();
    for tensor in &header.tensors {
        let Some(layer) = layer_of(tensor).filter(|layer| *layer + 1 < sized.total_layers) else { continue };
        let is_expert = tensor.name.contains("_exps.");
        let whole_layer = layer < first_on_device;
        let kept = is_expert && layer < sized.expert_layers_on_host
            || overrides.iter().find(|(pattern, _)| pattern.is_match(&tensor.name)).is_some_and(|(_, host)| *host);
        if kept && !whole_layer {
            partial.insert(layer);
        }
        if is_expert { &mut experts } else { &mut layers }.add(tensor.bytes, whole_layer || kept);
    }
    OnHost {
        layers: layers.get(),
        experts: experts.get(),
        output: sized.gpu_layers == 0,
        partial_layers: u32::try_from(partial.len()).unwrap_or(u32::MAX),
    }
}

/// The layer of `blk.7.attn_q.weight`.
fn layer_of(tensor: &Tensor) -> Option<u32> {
    tensor.name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

/// A part of a sum.
#[derive(Default)]
struct Share {
    all: u64,
    part: u64,
}

impl Share {
    fn add(&mut self, bytes: u64, inside: bool) {
        self.all = self.all.saturating_add(bytes);
        if inside {
            self.part = self.part.saturating_add(bytes);
        }
    }

    fn get(&self) -> f64 {
        if self.all == 0 { 0.0 } else { self.part as f64 / self.all as f64 }
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::{Bytes, ContextTokens, DeviceMemory, MemoryNeed};

    use super::*;
    use crate::bundled::MUSTER_TINY_F16;
    use crate::worker::{Layout, TensorOverride};

    fn sized(gpu_layers: u32, pattern: Option<&str>) -> Sized {
        let nothing =
            DeviceMemory { name: "Host".into(), model: Bytes::ZERO, context: Bytes::ZERO, compute: Bytes::ZERO };
        let overrides = pattern.map(|pattern| TensorOverride { pattern: pattern.into(), device: "CPU".into() });
        Sized {
            need: MemoryNeed { devices: vec![], host: nothing },
            layers: 4,
            gpu_layers,
            context_train: 1024,
            experts: 0,
            total_layers: 5,
            context: ContextTokens::new(1024),
            expert_layers_on_host: 0,
            layout: Layout { split: vec![], overrides: overrides.into_iter().collect() },
            fits: None,
        }
    }

    #[test]
    fn the_last_layers_are_on_devices() {
        let header = GgufHeader::read_bytes(MUSTER_TINY_F16).expect("the bundled model");
        assert_eq!(header.layers(), Some(4));
        let all = on_host(&header, &sized(5, None));
        assert_eq!(all, OnHost::default());
        let none = on_host(&header, &sized(0, None));
        assert!(none.output && (none.layers - 1.0).abs() < 1e-9, "{none:?}");
        // Output and two of four blocks of one size.
        let half = on_host(&header, &sized(3, None));
        assert!(!half.output && (half.layers - 0.5).abs() < 1e-6 && half.partial_layers == 0, "{half:?}");
        let partial = on_host(&header, &sized(3, Some(r"blk\.2\.ffn_down.*")));
        assert!(partial.layers > half.layers && partial.layers < 0.75 && partial.partial_layers == 1, "{partial:?}");
        // A layer that is in main memory anyway is no partial one.
        assert_eq!(on_host(&header, &sized(3, Some(r"blk\.1\.ffn_down.*"))), half);
    }
}
