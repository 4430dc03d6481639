//! A small fleet to report on, and estimates.

use std::collections::BTreeMap;

use muster_proto::{
    AdminRecord, AgentStatus, Alternative, Artifact, ArtifactSource, AssignmentId, AuditEvent, BenchModel, BenchPoint,
    Benchmark, Bytes, BytesPerSecond, CaFingerprint, Candidate, Change, ComputeGraphs, ContextTokens, ControllerStatus,
    Cpu, Deployment, DeploymentState, DesiredAssignment, Device, DeviceKind, DeviceMemory, Disk, EngineSettings,
    EnrolmentState, Estimate, EstimateSettings, EstimatedDevice, EstimatedHost, EstimatedModel, EstimatedSpeed,
    FlashAttention, Inventory, KvType, Machine, MachineId, MachinePlan, Measured, Memory, MemoryNeed, Model,
    ModelDigest, ModelSource, Observed, Os, OutputsReserved, Plan, Prediction, ProbeFailure, Rejection,
    RejectionReason, Spread, Timestamp, TokenId, TokenRecord, TokensPerSecond, Transfer,
};

/// The moment that every report is made at.
pub const NOW: Timestamp = Timestamp::from_unix_millis(1_763_817_000_000);

fn ago(seconds: i64) -> Timestamp {
    Timestamp::from_unix_millis(NOW.unix_millis() - seconds * 1000)
}

fn speed(rate: f64) -> TokensPerSecond {
    TokensPerSecond::new(rate).expect("a rate")
}

fn id(byte: u8) -> MachineId {
    MachineId::from_bytes([byte; 16])
}

pub fn inventory() -> Inventory {
    Inventory {
        collected_at: ago(200),
        hostname: "desk-7".into(),
        hardware_fingerprint: "3f9c".repeat(16),
        os: Os {
            platform: "linux-x86_64".into(),
            name: Some("Debian GNU/Linux 12 (bookworm)".into()),
            kernel: Some("6.1.0-28-amd64".into()),
        },
        cpu: Cpu {
            brand: Some("AMD Ryzen 7 5800X 8-Core Processor".into()),
            physical_cores: Some(8),
            threads: 16,
            features: ["avx", "avx2", "bmi2", "f16c", "fma", "sse3", "sse4_2", "ssse3"].map(Into::into).into(),
        },
        memory: Memory { total: Bytes::from_gib(32), available: Bytes::from_mib(20_800) },
        devices: vec![
            Device {
                name: "CUDA0".into(),
                description: "NVIDIA GeForce RTX 3060".into(),
                kind: DeviceKind::DiscreteGpu,
                backend: "CUDA".into(),
                memory_total: Some(Bytes::from_gib(12)),
                memory_free: Some(Bytes::from_mib(10_342)),
                pci_bus_id: Some("0000:01:00.0".into()),
                uuid: Some("GPU-8c1e".into()),
                driver: Some("550.54.14".into()),
            },
            Device {
                name: "CPU".into(),
                description: "AMD Ryzen 7 5800X 8-Core Processor".into(),
                kind: DeviceKind::Cpu,
                backend: "CPU".into(),
                memory_total: Some(Bytes::from_gib(32)),
                memory_free: Some(Bytes::from_mib(20_800)),
                pci_bus_id: None,
                uuid: None,
                driver: None,
            },
        ],
        store_disk: Some(Disk { total: Bytes::from_gib(500), free: Bytes::from_gib(123) }),
        engine_build: "llama-cpp-sys-2 0.1.161".into(),
        failures: vec![ProbeFailure {
            probe: "smbios".into(),
            reason: "/sys/firmware/dmi/tables/DMI: permission denied; run the agent as root to read the modules".into(),
        }],
        hardware: muster_proto::Hardware::default(),
    }
}

/// A laptop whose two GPUs are in different states.
pub fn laptop() -> Inventory {
    let gpus = r#"[
        {"name": "Intel(R) Iris(R) Xe Graphics", "vendor": "intel", "kind": "integrated_gpu", "pci_bus_id": "0000:00:02.0",
         "pci_id": "8086:46a6", "driver": "i915 (Mesa 25.0.7)", "memory_shared": 12884901888, "unified_memory": true,
         "obstacle": {"kind": "no_permission", "text": "no right to open the device node /dev/dri/renderD128",
            "remedy": "add the user to the group render (`sudo usermod -aG render ann`), then start the agent again"}},
        {"name": "NVIDIA GeForce RTX 3060 Laptop GPU", "vendor": "nvidia", "kind": "discrete_gpu",
         "pci_bus_id": "0000:01:00.0", "pci_id": "10de:2520", "uuid": "GPU-8c1e", "driver": "nvidia 580.95.05",
         "memory_total": 6442450944, "memory_free": 5368709120, "unified_memory": false, "compute_capability": "8.6",
         "cuda_version": "13.0", "pcie": {"generation": 1, "width": 8, "generation_max": 4, "width_max": 16},
         "power_limit_watts": 80.0, "temperature_celsius": 47.0, "throttle_reasons": ["gpu_idle", "sw_power_cap"],
         "used_by": [{"pid": 900, "name": "Xorg", "bytes": 536870912}, {"pid": 901, "name": null, "bytes": null}],
         "engine_device": "CUDA0"}
    ]"#;
    let hardware = muster_proto::Hardware {
        gpus: serde_json::from_str(gpus).expect("GPUs"),
        chassis: muster_proto::Chassis {
            kind: Some(muster_proto::ChassisKind::Laptop),
            vendor: Some("LENOVO".into()),
            model: Some("ThinkPad X1 Extreme".into()),
            domain: Some("CORP.EXAMPLE".into()),
            battery: Some(true),
            on_mains: Some(false),
        },
        remote_session: Some(true),
        typical: Some(muster_proto::TypicalUse {
            since: ago(900_000),
            until: ago(300),
            samples: 500,
            memory_available: Bytes::from_gib(14),
            devices: vec![muster_proto::TypicalFree { device: "CUDA0".into(), free: Bytes::from_gib(4) }],
        }),
    };
    Inventory { hardware, failures: vec![], ..inventory() }
}

/// A desk of which little could be read.
pub fn bare_inventory() -> Inventory {
    Inventory {
        os: Os { platform: "linux-aarch64".into(), name: None, kernel: None },
        cpu: Cpu { brand: None, physical_cores: None, threads: 2, features: vec![] },
        devices: vec![],
        store_disk: None,
        failures: vec![],
        hardware: muster_proto::Hardware::default(),
        ..inventory()
    }
}

pub fn benchmark() -> Benchmark {
    let point = |device: &str, threads, factor: f64| BenchPoint {
        device: device.into(),
        threads,
        model: BenchModel {
            name: "llama-33m".into(),
            quantization: "Q4_K_M".into(),
            bytes_per_token: Bytes::new(21_000_000),
            parameters_per_token: 33_000_000,
            layers: 8,
        },
        prefill_tokens: 512,
        decode_tokens: 32,
        prefill: Spread::of([1250.0, 1240.5, 1261.25].map(|rate| rate * factor).into()).expect("rates"),
        decode: Spread::of([60.25, 60.0, 58.875].map(|rate| rate * factor).into()).expect("rates"),
        depth: 0,
    };
    Benchmark {
        measured_at: ago(190),
        took_ms: 4210,
        engine_build: "llama-cpp-sys-2 0.1.161".into(),
        hardware_fingerprint: "3f9c".repeat(16),
        points: vec![point("CPU", Some(8), 1.0), point("CUDA0", None, 8.5)],
        conditions: muster_proto::Conditions::default(),
        parts: vec![],
        on_battery: vec![],
    }
}

fn need(scale: u64) -> MemoryNeed {
    MemoryNeed {
        devices: vec![DeviceMemory {
            name: "CUDA0".into(),
            model: Bytes::from_mib(42 * scale),
            context: Bytes::from_mib(512),
            compute: Bytes::from_mib(300),
        }],
        host: DeviceMemory {
            name: "Host".into(),
            model: Bytes::from_mib(70),
            context: Bytes::ZERO,
            compute: Bytes::from_mib(16),
        },
    }
}

fn prediction() -> Prediction {
    Prediction { memory: need(100), prefill: Some(speed(900.0)), decode: Some(speed(41.5)) }
}

pub fn measured() -> Measured {
    Measured {
        memory: need(101),
        resident: Some(Bytes::from_mib(800)),
        load_ms: 2140,
        prefill: Some(speed(880.0)),
        decode: Some(speed(43.17)),
    }
}

/// What a processor alone is expected to do, of which one speed is not known.
pub fn host_only() -> (Prediction, Measured) {
    let host = |model| MemoryNeed {
        devices: vec![],
        host: DeviceMemory {
            name: "Host".into(),
            model: Bytes::from_mib(model),
            context: Bytes::from_mib(3),
            compute: Bytes::from_mib(8),
        },
    };
    let prediction = Prediction { memory: host(66), prefill: None, decode: Some(speed(310.0)) };
    let measured = Measured {
        memory: host(66),
        resident: None,
        load_ms: 90,
        prefill: Some(speed(4000.0)),
        decode: Some(speed(250.0)),
    };
    (prediction, measured)
}

pub fn prediction_pairs() -> Vec<(String, Prediction, Measured)> {
    let (prediction_on_host, measured_on_host) = host_only();
    vec![
        ("qwen/qwen3-8b Q4_K_M".into(), prediction(), measured()),
        ("muster-tiny F16".into(), prediction_on_host, measured_on_host),
    ]
}

pub fn assignment() -> DesiredAssignment {
    DesiredAssignment {
        id: AssignmentId::from_bytes([0x22; 16]),
        role: "chat".into(),
        model: "qwen/qwen3-8b".into(),
        quantization: "Q4_K_M".into(),
        digest: ModelDigest::new([0xab; 32]),
        size: Bytes::from_mib(4700),
        settings: EngineSettings {
            context: ContextTokens::new(8192),
            parallel: 2,
            kv_type: KvType::Q8_0,
            ..EngineSettings::default()
        },
        prediction: prediction(),
    }
}

fn deployment(state: DeploymentState) -> Deployment {
    Deployment {
        assignment: AssignmentId::from_bytes([0x22; 16]),
        digest: ModelDigest::new([0xab; 32]),
        model: "qwen/qwen3-8b".into(),
        state,
        reason: None,
        transfer: None,
        measured: None,
    }
}

/// One deployment in each telling state.
pub fn observed() -> Observed {
    let transfer = Transfer {
        total: Bytes::from_mib(4700),
        done: Bytes::from_mib(1222),
        resumed_from: Bytes::from_mib(100),
        speed: BytesPerSecond::new(1.1e8),
    };
    let downloaded = Transfer { done: transfer.total, resumed_from: Bytes::ZERO, ..transfer };
    let full = "the store's volume is full: 3.1 GiB free, 4.6 GiB and a reserve of 1.0 GiB are needed; make room or \
                lower --disk-reserve";
    Observed {
        at: ago(42),
        generation: 8,
        deployments: vec![
            Deployment {
                transfer: Some(downloaded),
                measured: Some(measured()),
                ..deployment(DeploymentState::Success)
            },
            Deployment { transfer: Some(transfer), ..deployment(DeploymentState::Downloading) },
            Deployment { reason: Some(full.into()), ..deployment(DeploymentState::Failure) },
            deployment(DeploymentState::Scheduled),
            deployment(DeploymentState::AlreadyInstalled),
        ],
        endpoint: Some("http://127.0.0.1:11435/v1".into()),
        store_used: Bytes::from_mib(4701),
    }
}

pub fn machine() -> Machine {
    let mut observed = observed();
    observed.deployments.truncate(1);
    Machine {
        id: id(0x11),
        hostname: "desk-7".into(),
        enrolment: EnrolmentState::Accepted,
        enrolled_at: ago(86_400 * 3),
        last_seen: Some(ago(12)),
        online: true,
        agent_version: Some("0.1.0".into()),
        inventory: Some(inventory()),
        benchmark: Some(benchmark()),
        desired_generation: 9,
        observed: Some(observed),
        bench_order: None,
        groups: vec!["accounting".into(), "berlin".into()],
    }
}

/// A machine that has said nothing but its name.
pub fn bare_machine() -> Machine {
    Machine {
        id: id(0x12),
        hostname: "desk-8".into(),
        enrolment: EnrolmentState::Pending,
        enrolled_at: ago(30),
        last_seen: None,
        online: false,
        agent_version: None,
        inventory: None,
        benchmark: None,
        desired_generation: 0,
        observed: None,
        bench_order: None,
        groups: vec![],
    }
}

pub fn machines() -> Vec<Machine> {
    let mut gone = machine();
    gone.id = id(0x13);
    gone.hostname = "accounting-workstation-with-a-long-name.example.org".into();
    gone.online = false;
    gone.last_seen = Some(ago(86_400 * 12));
    gone.inventory = Some(bare_inventory());
    gone.observed = Some(observed());
    let mut revoked = bare_machine();
    revoked.id = id(0x14);
    revoked.enrolment = EnrolmentState::Revoked;
    revoked.hostname = "evil\u{1b}[2Jdesk\u{202e}".into();
    let mut idle = machine();
    idle.observed = Some(Observed { deployments: vec![], ..observed() });
    vec![machine(), bare_machine(), gone, revoked, idle]
}

pub fn model() -> Model {
    let artifact = |byte, quantization: &str, mib, bits_per_weight, source| Artifact {
        digest: ModelDigest::new([byte; 32]),
        quantization: quantization.into(),
        size: Bytes::from_mib(mib),
        bits_per_weight,
        source,
        quality: None,
    };
    let from = |byte| ArtifactSource::QuantizedFrom { digest: ModelDigest::new([byte; 32]) };
    Model {
        name: "qwen/qwen3-8b".into(),
        architecture: "qwen3".into(),
        parameters: 8_190_735_360,
        context_train: Some(ContextTokens::new(40_960)),
        licence: Some("apache-2.0".into()),
        imported_at: ago(86_400),
        artifacts: vec![
            artifact(0xaa, "F16", 15_600, 16.0, ArtifactSource::Imported),
            artifact(0xac, "Q8_0", 8300, 8.5, from(0xaa)),
            artifact(0xab, "Q4_K_M", 4700, 4.91, from(0xee)),
        ],
    }
}

pub fn models() -> Vec<Model> {
    let mut tiny = model();
    tiny.name = "muster-tiny".into();
    tiny.parameters = 33_400_000;
    tiny.licence = None;
    tiny.context_train = None;
    tiny.artifacts.truncate(1);
    tiny.artifacts[0].size = Bytes::from_mib(66);
    vec![model(), tiny]
}

pub fn plan() -> Plan {
    let candidate =
        |model: &str, quantization: &str, bits_per_weight, needs, reason: Option<RejectionReason>| Candidate {
            model: model.into(),
            quantization: quantization.into(),
            digest: ModelDigest::new([0xab; 32]),
            bits_per_weight,
            needs,
            decode: needs.map(|needs: Bytes| speed(200_000.0 / (needs.get() >> 20) as f64)),
            rejected: reason.map(|reason| Rejection { reason }),
        };
    let (needs, free) = (Bytes::from_mib(11_469), Bytes::from_mib(9830));
    let short = RejectionReason::MemoryShort { device: "CUDA0".into(), needs, free, typical: false };
    let qwen = "qwen/qwen3-8b";
    let candidates = vec![
        candidate(qwen, "Q8_0", 8.5, Some(needs), Some(short)),
        candidate(qwen, "Q4_K_M", 4.91, Some(Bytes::from_mib(4898)), None),
        candidate(
            qwen,
            "IQ2_XXS",
            2.4,
            Some(Bytes::from_mib(2900)),
            Some(RejectionReason::Outranked { by: "Q4_K_M".into(), closeness: None }),
        ),
        candidate(
            qwen,
            "F16",
            16.0,
            None,
            Some(RejectionReason::NotSized { error: "unknown architecture 'qwen9'".into() }),
        ),
        candidate(
            "llama/llama-3.3-70b-instruct-abliterated",
            "Q4_K_M",
            4.85,
            Some(Bytes::from_gib(44)),
            Some(RejectionReason::DiskShort { needs: Bytes::from_gib(40), free: Bytes::from_gib(2) }),
        ),
        candidate(
            "muster-tiny",
            "F16",
            16.0,
            Some(Bytes::from_mib(77)),
            Some(RejectionReason::ContextShort { has: 1024, wanted: 8192 }),
        ),
        candidate(
            "slow",
            "Q8_0",
            8.5,
            Some(Bytes::from_gib(9)),
            Some(RejectionReason::TooSlow { predicted: speed(3.2), wanted: speed(10.0) }),
        ),
    ];
    let lost = candidates.iter().filter(|candidate| candidate.rejected.is_some()).take(1).cloned().collect();
    Plan {
        machines: BTreeMap::from([
            (id(0x11), MachinePlan { assignment: Some(assignment()), candidates, blocked: None }),
            (id(0x12), MachinePlan { assignment: None, candidates: lost, blocked: None }),
            (
                id(0x13),
                MachinePlan {
                    assignment: None,
                    candidates: vec![],
                    blocked: Some("no inventory yet: it comes with the agent's first connection".into()),
                },
            ),
            (id(0x14), MachinePlan::default()),
        ]),
    }
}

pub fn names() -> BTreeMap<MachineId, String> {
    BTreeMap::from([(id(0x11), "desk-7".into()), (id(0x12), "desk-8".into()), (id(0x13), "desk-9".into())])
}

pub fn tokens() -> Vec<TokenRecord> {
    let token = |byte, expires_in: i64, uses, needs_acceptance, revoked| TokenRecord {
        id: TokenId::from_bytes([byte; 16]),
        created_at: ago(5000),
        expires_at: ago(-expires_in),
        uses_allowed: 30,
        uses,
        needs_acceptance,
        revoked,
        groups: if byte == 0x32 { vec!["berlin".into()] } else { vec![] },
    };
    vec![
        token(0x31, 81_400, 2, false, false),
        token(0x32, 81_400, 30, true, false),
        token(0x33, -100, 0, false, false),
        token(0x34, 81_400, 0, false, true),
    ]
}

pub fn admins() -> Vec<AdminRecord> {
    let admin = |name: &str, expires_in: i64, revoked| AdminRecord {
        name: name.parse().expect("a name"),
        created_at: ago(86_400),
        expires_at: ago(-expires_in),
        revoked,
    };
    vec![admin("kim@example", 86_400 * 89, false), admin("lee", -5000, false), admin("max", 86_400 * 89, true)]
}

pub fn status() -> ControllerStatus {
    ControllerStatus {
        version: "0.1.0".into(),
        protocol: 1,
        started_at: ago(5000),
        data_dir: "/var/lib/muster".into(),
        listen: "0.0.0.0:7433".into(),
        ca_fingerprint: CaFingerprint::new([0xc4; 32]),
        machines: 7,
        machines_online: 5,
        machines_pending: 1,
        models: 2,
        blob_bytes: Bytes::from_gib(20),
        deployments_success: 4,
        deployments: 6,
    }
}

pub fn new_status() -> ControllerStatus {
    ControllerStatus {
        machines: 0,
        machines_online: 0,
        machines_pending: 0,
        models: 0,
        blob_bytes: Bytes::ZERO,
        deployments_success: 0,
        deployments: 0,
        ..status()
    }
}

pub fn agent_status() -> AgentStatus {
    let mut observed = observed();
    observed.deployments.truncate(2);
    AgentStatus {
        machine_id: Some(id(0x11)),
        controller: Some("controller.example.org:7433".into()),
        online: false,
        last_error: Some("cannot connect to controller.example.org:7433: connection refused (os error 111)".into()),
        generation: 8,
        endpoint: Some("http://127.0.0.1:11435/v1".into()),
        observed: Some(observed),
    }
}

pub fn events() -> Vec<AuditEvent> {
    let event = |sequence, actor: &str, action: &str, subject: &str, detail: &str| AuditEvent {
        sequence,
        at: ago(1000 - i64::try_from(sequence).expect("small")),
        actor: actor.into(),
        action: action.into(),
        subject: subject.into(),
        detail: detail.into(),
    };
    let machine = id(0x11).to_string();
    vec![
        event(1, "local", "model.imported", &ModelDigest::new([0xab; 32]).to_string(), "muster-tiny F16, 66.0 MiB"),
        event(2, "token:33333333-3333-3333-3333-333333333333", "machine.enrolled", &machine, "desk-7"),
        event(
            3,
            &format!("machine:{machine}"),
            "generation.went_on",
            &machine,
            "held generation 8, the controller was at 3 and goes on from 9",
        ),
        event(4, "admin:kim@example", "policy.applied", "", ""),
    ]
}

fn estimated_speed(decode: f64, prefill: f64, depth: u32) -> EstimatedSpeed {
    EstimatedSpeed {
        prefill_tokens_per_second: speed(prefill),
        prefill_low: speed(prefill * 0.7),
        prefill_high: speed(prefill * 1.4),
        decode_tokens_per_second: speed(decode),
        decode_low: speed(decode * 0.85),
        decode_high: speed(decode * 1.15),
        depth: ContextTokens::new(depth),
        basis: "what is published of GeForce RTX 4090 and measured of others with cuda".into(),
    }
}

/// A model that fits on one known device.
pub fn estimate() -> Estimate {
    Estimate {
        model: EstimatedModel {
            name: "Llama 3.1 8B Instruct".into(),
            source: ModelSource::Reference,
            architecture: "llama".into(),
            quantization: Some("Q4_K_M".into()),
            parameters: 8_030_261_312,
            file_bytes: Bytes::new(4_920_739_232),
            context_train: ContextTokens::new(131_072),
            experts: 0,
        },
        devices: vec![EstimatedDevice {
            name: "gpu0".into(),
            description: Some("GeForce RTX 4090".into()),
            backend: "CUDA".into(),
            memory_bytes: Bytes::from_gib(24),
            model_bytes: Bytes::from_mib(4403),
            context_bytes: Bytes::from_gib(16),
            compute_bytes: Bytes::from_mib(284),
            driver_bytes: Some(Bytes::from_mib(430)),
            free_bytes: Bytes::from_mib(24 * 1024 - 4403 - 16 * 1024 - 284 - 430),
            short_bytes: Bytes::ZERO,
            layers: 33,
        }],
        host: EstimatedHost {
            memory_bytes: None,
            model_bytes: Bytes::from_mib(281),
            context_bytes: Bytes::ZERO,
            compute_bytes: Bytes::from_mib(264),
        },
        gpu_layers: 33,
        total_layers: 33,
        n_ctx: ContextTokens::new(131_072),
        context_shrank: false,
        speed: Some(estimated_speed(131.4, 9620.0, 4096)),
        fits: true,
        spare_bytes: Some(Bytes::from_mib(3075)),
        short_bytes: Bytes::ZERO,
        full_offload_short_bytes: None,
        sentence: "fits with 3.0 GiB to spare".into(),
        partial_layers: 0,
        settings: EstimateSettings {
            parallel: 1,
            batch: 2048,
            ubatch: 512,
            kv_type: KvType::F16,
            kv_unified: false,
            flash_attention: FlashAttention::Auto,
            outputs: OutputsReserved::MicroBatch,
            graphs: ComputeGraphs::Earlier,
            margin_bytes: Some(Bytes::from_gib(1)),
        },
        alternatives: vec![],
        warnings: vec![],
        engine_build: "llama-cpp-sys-2 0.1.161".into(),
    }
}

/// A model that does not, and what would.
pub fn short_estimate() -> Estimate {
    let mut short = estimate();
    let device = &mut short.devices[0];
    device.description = None;
    device.memory_bytes = Bytes::from_gib(20);
    device.free_bytes = Bytes::ZERO;
    device.short_bytes = Bytes::from_mib(1021);
    short.fits = false;
    short.speed = None;
    short.spare_bytes = None;
    short.short_bytes = Bytes::from_mib(1021);
    short.settings.margin_bytes = None;
    short.sentence = "short by 1021.0 MiB: would fit at 121,856 tokens, with a q8_0 KV cache or as Q3_K_S".into();
    let alternative = |change| Alternative { change, spare_bytes: Some(Bytes::from_mib(131)), speed: None };
    short.alternatives = vec![
        alternative(Change::Context { n_ctx: ContextTokens::new(121_856) }),
        alternative(Change::KvCache { kv_type: KvType::Q8_0 }),
        alternative(Change::Quantization { quantization: "Q3_K_S".into() }),
        Alternative {
            change: Change::Offload { gpu_layers: 29, partial_layers: 0 },
            spare_bytes: Some(Bytes::from_mib(1040)),
            speed: Some(estimated_speed(40.2, 2100.0, 0)),
        },
    ];
    short.warnings = vec!["the context is longer than the 8,192 tokens that the model was trained with".into()];
    short
}

/// A mixture of experts over two devices and main memory.
pub fn split_estimate() -> Estimate {
    let mut split = estimate();
    split.model.name = "Qwen3 30B A3B".into();
    split.model.architecture = "qwen3moe".into();
    split.model.parameters = 30_532_122_624;
    split.model.experts = 128;
    let part = |name: &str, model: u64, layers: u32| EstimatedDevice {
        name: name.into(),
        memory_bytes: Bytes::from_gib(8),
        model_bytes: Bytes::from_mib(model),
        context_bytes: Bytes::from_mib(384),
        compute_bytes: Bytes::from_mib(300),
        driver_bytes: None,
        free_bytes: Bytes::from_mib(8 * 1024 - 684 - model),
        layers,
        ..split.devices[0].clone()
    };
    split.devices = vec![part("gpu0", 6420, 25), part("gpu1", 6410, 24)];
    split.host.memory_bytes = Some(Bytes::from_gib(32));
    split.host.model_bytes = Bytes::from_mib(4900);
    (split.gpu_layers, split.total_layers, split.partial_layers) = (49, 49, 12);
    split.settings.parallel = 4;
    split.full_offload_short_bytes = Some(Bytes::from_mib(3120));
    split.sentence =
        "the experts of 12 layers in main memory; short by 3.0 GiB for all of it: would fit as Q3_K_S".into();
    split
}

/// A model on a processor that takes more than there is.
pub fn cpu_estimate() -> Estimate {
    let mut cpu = estimate();
    cpu.devices.clear();
    cpu.gpu_layers = 0;
    cpu.host = EstimatedHost {
        memory_bytes: Some(Bytes::from_gib(8)),
        model_bytes: Bytes::from_mib(7900),
        context_bytes: Bytes::from_mib(1024),
        compute_bytes: Bytes::from_mib(300),
    };
    (cpu.fits, cpu.spare_bytes, cpu.short_bytes) = (false, None, Bytes::from_mib(1032));
    cpu.sentence = "short by 1.0 GiB of main memory: it needs a machine with more memory".into();
    cpu.speed = None;
    cpu.settings.margin_bytes = None;
    cpu.settings.outputs = OutputsReserved::Sequence;
    cpu
}
