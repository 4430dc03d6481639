//! Between this module's types and the messages on the pipes.

use std::path::Path;

use muster_proto::{Bytes, ContextTokens, Device, DeviceKind, DeviceMemory, EngineSettings, MemoryNeed};

use super::{
    ChatRequest, FinishReason, GenerationEvent, Graphs, Layout, Outputs, PhantomBackend, PhantomDevice, Placement,
    ResponseFormat, SizeOptions, TensorOverride, ToolCallDelta, ToolChoice,
};
use crate::wire;

pub(super) fn path(path: &Path) -> Vec<u8> {
    #[cfg(unix)]
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec();
    #[cfg(not(unix))]
    let bytes = path.to_string_lossy().into_owned().into_bytes();
    bytes
}

pub(super) fn settings(settings: &EngineSettings) -> wire::Settings {
    let EngineSettings {
        context,
        parallel,
        batch,
        ubatch,
        kv_type,
        gpu_layers,
        kv_unified,
        flash_attention,
        expert_layers_on_host,
    } = settings;
    wire::Settings {
        context: context.get(),
        parallel: *parallel,
        batch: *batch,
        ubatch: *ubatch,
        kv_type: kv_type.number(),
        gpu_layers: *gpu_layers,
        kv_unified: *kv_unified,
        flash_attention: flash_attention.number(),
        expert_layers_on_host: *expert_layers_on_host,
    }
}

pub(super) fn phantom(device: &PhantomDevice) -> wire::Phantom {
    wire::Phantom {
        name: device.name.clone(),
        backend: match device.backend {
            PhantomBackend::Cuda => 0,
            PhantomBackend::Vulkan => 1,
            PhantomBackend::Metal => 2,
            PhantomBackend::Rocm => 3,
        },
        total: device.total.get(),
        free: device.free.get(),
        integrated: device.integrated,
        capability: device.capability.unwrap_or(0),
    }
}

pub(super) fn size_options(options: &SizeOptions) -> wire::SizeOptions {
    let SizeOptions {
        total_context,
        outputs,
        placement,
        layout: _,
        graphs,
        unmodified_fit,
        earlier,
        gpu_without_layers,
    } = options;
    let (fit, fit_min_context, fit_margin) = match placement {
        Placement::AsSet => (false, 0, 0),
        Placement::Fit { min_context, margin } => (true, min_context.get(), margin.get()),
    };
    wire::SizeOptions {
        total_context: total_context.map(ContextTokens::get),
        all_outputs: *outputs == Outputs::MicroBatch,
        fit,
        fit_min_context,
        fit_margin,
        earlier_builds: *graphs == Graphs::EarlierBuilds,
        unmodified_fit: *unmodified_fit,
        f32_masks: *graphs == Graphs::EarlierBuilds && earlier.f32_masks,
        copied_rows: *graphs == Graphs::EarlierBuilds && earlier.copied_rows,
        gpu_without_layers: *gpu_without_layers,
    }
}

pub(super) fn layout(layout: &Layout) -> wire::Layout {
    let Layout { split, overrides } = layout;
    wire::Layout {
        split: split.clone(),
        overrides: overrides
            .iter()
            .map(|TensorOverride { pattern, device }| wire::TensorOverride {
                pattern: pattern.clone(),
                device: device.clone(),
            })
            .collect(),
    }
}

pub(super) fn layout_back(split: Vec<f32>, overrides: Vec<wire::TensorOverride>) -> Layout {
    Layout {
        split,
        overrides: overrides
            .into_iter()
            .map(|wire::TensorOverride { pattern, device }| TensorOverride { pattern, device })
            .collect(),
    }
}

/// The name of main memory in a [`MemoryNeed`].
const HOST: &str = "Host";

pub(super) fn memory(memory: Option<wire::Memory>) -> MemoryNeed {
    let device = |entry: wire::DeviceMemory| DeviceMemory {
        name: entry.name,
        model: Bytes::new(entry.model),
        context: Bytes::new(entry.context),
        compute: Bytes::new(entry.compute),
    };
    let mut entries = memory.unwrap_or_default().entries.into_iter();
    let host = DeviceMemory { name: HOST.into(), ..device(entries.next().unwrap_or_default()) };
    let devices = entries.map(device).filter(|device| device.total() > Bytes::ZERO).collect();
    MemoryNeed { devices, host }
}

pub(super) fn device(device: wire::Device) -> Device {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let bytes = |bytes: u64| (bytes > 0).then_some(Bytes::new(bytes));
    Device {
        name: device.name,
        description: device.description,
        kind: DeviceKind::from_number(device.kind),
        backend: device.backend,
        memory_total: bytes(device.memory_total),
        memory_free: bytes(device.memory_free),
        pci_bus_id: some(device.bus_id),
        uuid: None,
        driver: None,
    }
}

pub(super) fn chat(request: ChatRequest) -> wire::Chat {
    let ChatRequest { messages_json, tools_json, tool_choice, parallel_tool_calls, response_format, sampling, stop } =
        request;
    wire::Chat {
        messages: messages_json,
        tools: tools_json,
        tool_choice: match tool_choice {
            ToolChoice::Auto => 0,
            ToolChoice::Required => 1,
            ToolChoice::None => 2,
        },
        parallel_tool_calls,
        json_schema: match response_format {
            ResponseFormat::Text => None,
            ResponseFormat::JsonObject => Some(r#"{"type": "object"}"#.to_owned()),
            ResponseFormat::JsonSchema(schema) => Some(schema),
        },
        sampling: Some(wire::Sampling {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            min_p: sampling.min_p,
            seed: sampling.seed,
            repeat_penalty: sampling.repeat_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            max_tokens: sampling.max_tokens,
        }),
        stop,
    }
}

pub(super) fn delta(delta: wire::Delta) -> GenerationEvent {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let call = |call: wire::ToolCall| ToolCallDelta {
        index: call.index,
        id: some(call.id),
        name: some(call.name),
        arguments: call.arguments,
    };
    GenerationEvent::Delta {
        content: delta.content,
        reasoning: some(delta.reasoning),
        tool_calls: delta.tool_calls.into_iter().map(call).collect(),
    }
}

pub(super) fn finished(finished: &wire::Finished) -> GenerationEvent {
    GenerationEvent::Finished {
        reason: match finished.reason {
            0 => FinishReason::Stop,
            2 => FinishReason::ToolCalls,
            _ => FinishReason::Length,
        },
        prompt_tokens: finished.prompt_tokens,
        completion_tokens: finished.completion_tokens,
        prefill_ms: finished.prefill_ms,
        decode_ms: finished.decode_ms,
    }
}
