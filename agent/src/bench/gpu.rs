//! Bandwidth and arithmetic of GPUs, through compute shaders, whatever llama.cpp can use there.
//!
//! Bandwidth is STREAM's triad in 32-bit floats (12 bytes an element); arithmetic is chains of multiply-adds, two operations
//! each, in vectors of four. It does not know whose GPU it is: adapters are told apart by their PCI address.

use std::time::{Duration, Instant};

use muster_proto::{PartQuantity, PartRate, Spread};

/// Largest of the three arrays of the triad; all three are beyond the largest caches of a GPU.
const ARRAY: u64 = 128 << 20;
/// Threads of a workgroup.
const GROUP: u32 = 256;
/// Most workgroups in one dimension.
const MOST_GROUPS: u32 = 65_535;
/// Multiply-adds of a thread: 8 chains of vectors of four, 256 times.
const OPERATIONS: f64 = 2.0 * 4.0 * 8.0 * 256.0;
/// How long a sample takes at least, so that what a submission costs is small beside it.
const SAMPLE: Duration = Duration::from_millis(25);
/// Samples of a rate.
const SAMPLES: usize = 5;
/// What no submission takes on a GPU that works.
const PATIENCE: Duration = Duration::from_secs(10);
/// With this, as with llama.cpp, software devices count.
const SOFTWARE_TOO: &str = "GGML_VK_VISIBLE_DEVICES";

const TRIAD: &str = "
@group(0) @binding(0) var<storage, read_write> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> c: array<vec4<f32>>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < arrayLength(&a); i += groups.x * 256u) {
        a[i] = b[i] + 3.0 * c[i];
    }
}
";

/// The shader of multiply-adds in one type of floats.
fn multiply_adds(float: &str) -> String {
    let enable = if float == "f16" { "enable f16;" } else { "" };
    let chains: Vec<String> = (0..8).map(|chain| format!("        v{chain} = fma(v{chain}, m, n);\n")).collect();
    let starts: Vec<String> =
        (0..8).map(|chain| format!("    var v{chain} = vec4<T>(T(id.x & 7u) + T({chain}.0));\n")).collect();
    let sum: Vec<String> = (0..8).map(|chain| format!("v{chain}")).collect();
    format!(
        "{enable}
alias T = {float};
@group(0) @binding(0) var<storage, read_write> out: array<vec4<f32>>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
{}    let m = vec4<T>(T(0.5));
    let n = vec4<T>(T(id.x & 3u));
    for (var i = 0; i < 256; i++) {{
{}    }}
    out[id.x % arrayLength(&out)] = vec4<f32>({});
}}
",
        starts.concat(),
        chains.concat(),
        sum.join(" + ")
    )
}

/// What is found of a GPU.
#[derive(Debug)]
pub enum Found {
    /// A rate.
    Rate(PartRate),
    /// What of one could not be measured.
    Failed(String),
}

/// Measures every GPU once. `names` are PCI addresses with llama.cpp's names of the devices there.
pub async fn measure(names: &[(String, String)], time: Duration, mut tell: impl FnMut(Found)) {
    let descriptor = wgpu::InstanceDescriptor {
        backends: wgpu::Backends::PRIMARY,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    };
    let adapters = wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::PRIMARY).await;
    let software_too = std::env::var_os(SOFTWARE_TOO).is_some();
    let mut seen: Vec<String> = Vec::new();
    let wanted: Vec<wgpu::Adapter> = adapters
        .into_iter()
        .filter(|adapter| {
            let info = adapter.get_info();
            let hardware = info.device_type != wgpu::DeviceType::Cpu;
            // One card behind two interfaces is one card; the first is the native one.
            let key = if info.device_pci_bus_id.is_empty() { info.name } else { info.device_pci_bus_id };
            let new = !seen.contains(&key);
            seen.push(key);
            (hardware || software_too) && new
        })
        .collect();
    let each = time / u32::try_from(wanted.len().max(1)).unwrap_or(1);
    for adapter in wanted {
        let info = adapter.get_info();
        let bus = info.device_pci_bus_id.to_lowercase();
        let part = names
            .iter()
            .find(|(known, _)| !bus.is_empty() && known.to_lowercase() == bus)
            .map_or_else(|| info.name.clone(), |(_, name)| name.clone());
        if let Err(reason) = one(&adapter, &part, each, &mut tell).await {
            tell(Found::Failed(format!("{}: {reason}", info.name)));
        }
    }
}

async fn one(adapter: &wgpu::Adapter, part: &str, time: Duration, tell: &mut impl FnMut(Found)) -> Result<(), String> {
    let half = adapter.features().contains(wgpu::Features::SHADER_F16);
    let limits = adapter.limits();
    let array = ARRAY.min(limits.max_storage_buffer_binding_size).min(limits.max_buffer_size) & !0xffff;
    let (device, queue) = adapter
        .request_device(&wgpu::DeviceDescriptor {
            label: None,
            required_features: if half { wgpu::Features::SHADER_F16 } else { wgpu::Features::empty() },
            required_limits: limits,
            experimental_features: wgpu::ExperimentalFeatures::disabled(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        })
        .await
        .map_err(|error| error.to_string())?;
    let gpu = Gpu { device, queue };
    let buffers: Vec<wgpu::Buffer> = (0..3).map(|_| gpu.buffer(array)).collect();
    let mut kinds =
        vec![(PartQuantity::MemoryBandwidth, TRIAD.to_owned(), 3), (PartQuantity::Fp32, multiply_adds("f32"), 1)];
    if half {
        kinds.push((PartQuantity::Fp16, multiply_adds("f16"), 1));
    }
    let each = time / u32::try_from(kinds.len()).unwrap_or(1);
    for (quantity, shader, bindings) in kinds {
        let task = gpu.task(&shader, &buffers[..bindings]);
        let triad = bindings == 3;
        // The triad passes over its arrays whatever the number of threads; arithmetic grows with it.
        let mut groups = if triad { 4096 } else { 64 };
        let work = |groups: u32| {
            if triad { 3.0 * array as f64 } else { f64::from(groups) * f64::from(GROUP) * OPERATIONS }
        };
        // First touch of memory and clocks that have to rise.
        let mut times = 1;
        let began = Instant::now();
        let mut took = gpu.run(&task, groups, times)?;
        while took < SAMPLE && began.elapsed() < each {
            if !triad && groups < MOST_GROUPS {
                groups = (groups * 2).min(MOST_GROUPS);
            } else {
                times *= 2;
            }
            took = gpu.run(&task, groups, times)?;
        }
        let mut rates = Vec::new();
        while rates.len() < SAMPLES && (rates.is_empty() || began.elapsed() < each) {
            let took = gpu.run(&task, groups, times)?;
            rates.push(work(groups) * f64::from(times) / took.as_secs_f64().max(1e-9));
        }
        if let Some(rate) = Spread::of(rates) {
            tell(Found::Rate(PartRate { part: part.to_owned(), quantity, rate }));
        }
    }
    Ok(())
}

struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
}

struct Task {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
}

impl Gpu {
    fn buffer(&self, size: u64) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        })
    }

    fn task(&self, shader: &str, buffers: &[wgpu::Buffer]) -> Task {
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(shader.into()),
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let entries: Vec<wgpu::BindGroupEntry> = (0..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bindings = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        Task { pipeline, bindings }
    }

    /// How long so many dispatches take together, from submitting to their end.
    fn run(&self, task: &Task, groups: u32, times: u32) -> Result<Duration, String> {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&task.pipeline);
            pass.set_bind_group(0, &task.bindings, &[]);
            for _ in 0..times {
                pass.dispatch_workgroups(groups, 1, 1);
            }
        }
        let commands = encoder.finish();
        let start = Instant::now();
        self.queue.submit([commands]);
        let wait = wgpu::PollType::Wait { submission_index: None, timeout: Some(PATIENCE) };
        self.device.poll(wait).map_err(|error| error.to_string())?;
        Ok(start.elapsed())
    }
}
