//! One full value of everything that travels, as of protocol version 1. The frozen bytes decode to exactly these: a field
//! that is added later is absent here.

use std::collections::BTreeMap;

use bytes::Bytes as RawBytes;
use muster_proto::{
    AdminRecord, Artifact, ArtifactSource, Assessment, AssignmentId, AuditEvent, BenchModel, BenchOrder, BenchOrderId,
    BenchOrderState, BenchPoint, Benchmark, BenchmarkKind, Bytes, BytesPerSecond, CaFingerprint, Candidate,
    ChassisKind, ContextTokens, ControllerStatus, Cpu, Deployment, DeploymentState, DesiredAssignment, DesiredState,
    Device, DeviceKind, DeviceMemory, Disk, Divergence, EngineSettings, EnrolmentState, FactTimes, FlashAttention,
    FleetGpu, GpuVendor, Hypothetical, Inventory, KvType, Machine, MachineId, MachinePlan, MachineReadiness, Measured,
    Memory, MemoryBasis, MemoryNeed, Model, ModelCoverage, ModelDigest, ModelPlacement, ModelVerdict, Observed,
    Obstacle, ObstacleKind, Os, Phase, Plan, PolicyRecord, Prediction, ProbeFailure, Quality, Readiness,
    ReadinessReason, ReadinessReport, ReasonCause, Rejection, RejectionReason, RemedyCount, RoleProfile, SpeedRange,
    Spread, Statistic, Timestamp, TokenId, TokenRecord, TokensPerSecond, Transfer, WhatIf, wire,
};

pub fn moment(second: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_763_817_000_000 + second * 1000 + 123)
}

pub fn speed(rate: f64) -> TokensPerSecond {
    TokensPerSecond::new(rate).expect("a rate")
}

pub fn machine_id() -> MachineId {
    MachineId::from_bytes([0x11; 16])
}

pub fn inventory() -> Inventory {
    Inventory {
        collected_at: moment(0),
        hostname: "desk-7".into(),
        hardware_fingerprint: "3f".repeat(32),
        os: Os {
            platform: "linux-x86_64".into(),
            name: Some("Debian GNU/Linux 12 (bookworm)".into()),
            kernel: Some("6.1.0-28-amd64".into()),
        },
        cpu: Cpu {
            brand: Some("AMD Ryzen 7 5800X".into()),
            physical_cores: Some(8),
            threads: 16,
            features: vec!["avx2".into(), "fma".into()],
        },
        memory: Memory { total: Bytes::from_gib(32), available: Bytes::from_gib(20) },
        devices: vec![
            Device {
                name: "CUDA0".into(),
                description: "NVIDIA GeForce RTX 3060".into(),
                kind: DeviceKind::DiscreteGpu,
                backend: "CUDA".into(),
                memory_total: Some(Bytes::from_gib(12)),
                memory_free: Some(Bytes::from_mib(11_000)),
                pci_bus_id: Some("0000:01:00.0".into()),
                uuid: Some("GPU-8c1e".into()),
                driver: Some("550.54".into()),
            },
            Device {
                name: "CPU".into(),
                description: "AMD Ryzen 7 5800X".into(),
                kind: DeviceKind::Cpu,
                backend: "CPU".into(),
                memory_total: None,
                memory_free: None,
                pci_bus_id: None,
                uuid: None,
                driver: None,
            },
        ],
        store_disk: Some(Disk { total: Bytes::from_gib(500), free: Bytes::from_gib(123) }),
        engine_build: "llama-cpp-sys-2 0.1.161".into(),
        failures: vec![ProbeFailure { probe: "smbios".into(), reason: "permission denied".into() }],
        hardware: muster_proto::Hardware::default(),
    }
}

pub fn benchmark() -> Benchmark {
    Benchmark {
        measured_at: moment(5),
        took_ms: 4200,
        engine_build: "llama-cpp-sys-2 0.1.161".into(),
        hardware_fingerprint: "3f".repeat(32),
        points: vec![BenchPoint {
            device: "CPU".into(),
            threads: Some(8),
            model: BenchModel {
                name: "llama-33m".into(),
                quantization: "Q4_K_M".into(),
                bytes_per_token: Bytes::new(21_000_000),
                parameters_per_token: 33_000_000,
                layers: 8,
            },
            prefill_tokens: 512,
            decode_tokens: 32,
            prefill: Spread::of(vec![1250.0, 1240.5, 1261.25]).expect("rates"),
            decode: Spread::of(vec![61.0, 60.0]).expect("rates"),
            depth: 0,
        }],
        conditions: muster_proto::Conditions::default(),
        parts: vec![],
        on_battery: vec![],
    }
}

/// A laptop's, with what a later version tells.
pub fn benchmark_of_a_laptop() -> Benchmark {
    let mut benchmark = benchmark();
    benchmark.conditions.on_mains = Some(true);
    benchmark.conditions.has_battery = Some(true);
    benchmark.on_battery =
        vec![muster_proto::OnBattery { device: "CPU".into(), prefill: 0.55, decode: 0.625, points: 3 }];
    benchmark
}

fn need() -> MemoryNeed {
    MemoryNeed {
        devices: vec![DeviceMemory {
            name: "CUDA0".into(),
            model: Bytes::from_mib(4000),
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
            batch: 2048,
            ubatch: 512,
            kv_type: KvType::Q8_0,
            gpu_layers: Some(33),
            kv_unified: true,
            flash_attention: FlashAttention::On,
            expert_layers_on_host: 3,
        },
        prediction: Prediction { memory: need(), prefill: Some(speed(900.0)), decode: Some(speed(41.5)) },
    }
}

pub fn desired() -> DesiredState {
    DesiredState { generation: 9, assignments: vec![assignment()] }
}

pub fn observed() -> Observed {
    Observed {
        at: moment(60),
        generation: 9,
        deployments: vec![
            Deployment {
                assignment: AssignmentId::from_bytes([0x22; 16]),
                digest: ModelDigest::new([0xab; 32]),
                model: "qwen/qwen3-8b".into(),
                state: DeploymentState::Success,
                reason: None,
                transfer: Some(Transfer {
                    total: Bytes::from_mib(4700),
                    done: Bytes::from_mib(4700),
                    resumed_from: Bytes::from_mib(100),
                    speed: BytesPerSecond::new(1.1e8),
                }),
                measured: Some(Measured {
                    memory: need(),
                    resident: Some(Bytes::from_mib(800)),
                    load_ms: 2100,
                    prefill: Some(speed(880.0)),
                    decode: Some(speed(40.0)),
                }),
            },
            Deployment {
                assignment: AssignmentId::from_bytes([0x23; 16]),
                digest: ModelDigest::new([0xac; 32]),
                model: "tiny".into(),
                state: DeploymentState::Failure,
                reason: Some("the store's volume is full: 0 B free, 4.6 GiB needed".into()),
                transfer: None,
                measured: None,
            },
        ],
        endpoint: Some("http://127.0.0.1:11435/v1".into()),
        store_used: Bytes::from_mib(4701),
    }
}

pub fn model() -> Model {
    Model {
        name: "qwen/qwen3-8b".into(),
        architecture: "qwen3".into(),
        parameters: 8_190_735_360,
        context_train: Some(ContextTokens::new(40_960)),
        licence: Some("apache-2.0".into()),
        imported_at: moment(-3600),
        artifacts: vec![
            Artifact {
                digest: ModelDigest::new([0xaa; 32]),
                quantization: "F16".into(),
                size: Bytes::from_mib(15_600),
                bits_per_weight: 16.0,
                source: ArtifactSource::Imported,
                quality: None,
            },
            Artifact {
                digest: ModelDigest::new([0xab; 32]),
                quantization: "Q4_K_M".into(),
                size: Bytes::from_mib(4700),
                bits_per_weight: 4.91,
                source: ArtifactSource::QuantizedFrom { digest: ModelDigest::new([0xaa; 32]) },
                quality: None,
            },
        ],
    }
}

pub fn machine() -> Machine {
    Machine {
        id: machine_id(),
        hostname: "desk-7".into(),
        enrolment: EnrolmentState::Accepted,
        enrolled_at: moment(-86_400),
        last_seen: Some(moment(61)),
        online: true,
        agent_version: Some("0.1.0".into()),
        inventory: Some(inventory()),
        benchmark: Some(benchmark()),
        desired_generation: 9,
        observed: Some(observed()),
        groups: vec![],
        bench_order: None,
    }
}

/// An order in its middle, as no message of the first version carries one.
pub fn bench_order() -> BenchOrder {
    BenchOrder {
        id: BenchOrderId::from_bytes([0x66; 16]),
        machine: MachineId::from_bytes([0x11; 16]),
        hostname: "desk-7".into(),
        kind: BenchmarkKind::Full,
        state: BenchOrderState::Running,
        step: Some("decode of llama-33m Q4_K_M".into()),
        fraction: Some(0.25),
        reason: None,
        ordered_at: moment(7),
        ordered_by: "admin:anna".into(),
        expires_at: moment(86_407),
        ended_at: Some(moment(8)),
    }
}

/// One candidate for each kind of rejection, and the chosen one.
pub fn plan() -> Plan {
    let reasons = [
        RejectionReason::MemoryShort {
            device: "CUDA0".into(),
            needs: Bytes::from_mib(11_469),
            free: Bytes::from_mib(9830),
            typical: false,
        },
        RejectionReason::DiskShort { needs: Bytes::from_gib(15), free: Bytes::from_gib(2) },
        RejectionReason::TooSlow { predicted: speed(3.2), wanted: speed(10.0) },
        RejectionReason::ContextShort { has: 4096, wanted: 8192 },
        RejectionReason::NotSized { error: "unknown architecture".into() },
        RejectionReason::Outranked { by: "Q4_K_M".into(), closeness: None },
        RejectionReason::Other { text: "the moon is full".into() },
    ];
    let candidate = |rejected| Candidate {
        model: "qwen/qwen3-8b".into(),
        quantization: "Q4_K_M".into(),
        digest: ModelDigest::new([0xab; 32]),
        bits_per_weight: 4.91,
        needs: Some(Bytes::from_mib(4898)),
        decode: Some(speed(41.5)),
        rejected,
    };
    let candidates = std::iter::once(candidate(None))
        .chain(reasons.into_iter().map(|reason| candidate(Some(Rejection { reason }))))
        .collect();
    Plan {
        machines: BTreeMap::from([
            (machine_id(), MachinePlan { assignment: Some(assignment()), candidates, blocked: None }),
            (
                MachineId::from_bytes([0x12; 16]),
                MachinePlan { assignment: None, candidates: vec![], blocked: Some("no inventory yet".into()) },
            ),
        ]),
    }
}

pub fn names() -> BTreeMap<MachineId, String> {
    BTreeMap::from([(machine_id(), "desk-7".into()), (MachineId::from_bytes([0x12; 16]), "desk-8".into())])
}

pub fn token() -> TokenRecord {
    TokenRecord {
        id: TokenId::from_bytes([0x33; 16]),
        created_at: moment(-100),
        expires_at: moment(86_300),
        uses_allowed: 30,
        uses: 2,
        needs_acceptance: true,
        revoked: true,
        groups: vec![],
    }
}

pub fn status() -> ControllerStatus {
    ControllerStatus {
        version: "0.1.0".into(),
        protocol: 1,
        started_at: moment(-5000),
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

pub fn admin() -> AdminRecord {
    AdminRecord {
        name: "kim@example".parse().expect("a name"),
        created_at: moment(-9000),
        expires_at: moment(7_776_000),
        revoked: true,
    }
}

pub fn policy() -> PolicyRecord {
    PolicyRecord {
        toml: "[[role]]\nname = 'chat'\nmodels = ['qwen/qwen3-8b']\n".into(),
        revision: 3,
        applied_at: moment(-40),
        applied_by: "admin:kim@example".into(),
    }
}

pub fn event() -> AuditEvent {
    AuditEvent {
        sequence: 41,
        at: moment(-39),
        actor: "machine:11111111-1111-1111-1111-111111111111".into(),
        action: "generation.went_on".into(),
        subject: "11111111-1111-1111-1111-111111111111".into(),
        detail: "held generation 8, the controller was at 3 and goes on from 9".into(),
    }
}

/// Everything from an agent, one for each arm.
pub fn from_agent() -> Vec<wire::FromAgent> {
    use wire::from_agent::Message;
    let hello = wire::Hello {
        protocol: 1,
        agent_version: "0.1.0".into(),
        engine_build: "llama-cpp-sys-2 0.1.161".into(),
        held_generation: 8,
        held_digest: RawBytes::from_static(&[0xdd; 32]),
        hostname: "desk-7".into(),
        agent_time: moment(0).unix_millis(),
    };
    let refused = wire::DesiredStateRefused {
        offered_generation: 3,
        held_generation: 8,
        reason: "older than what is held".into(),
    };
    [
        Message::Hello(hello),
        Message::Inventory(inventory().into()),
        Message::Benchmark(benchmark().into()),
        Message::Observed(observed().into()),
        Message::Heartbeat(wire::Heartbeat {}),
        Message::ChallengeAnswer(wire::ChallengeAnswer { nonce: RawBytes::from_static(&[5; 32]) }),
        Message::DesiredStateRefused(refused),
    ]
    .map(Into::into)
    .into()
}

/// Everything to an agent, one for each arm.
pub fn to_agent() -> Vec<wire::ToAgent> {
    use wire::to_agent::Message;
    let welcome = wire::Welcome {
        protocol: 1,
        controller_version: "0.1.0".into(),
        controller_time: moment(1).unix_millis(),
        heartbeat_seconds: 60,
    };
    [
        Message::Welcome(welcome),
        Message::DesiredState(desired().into()),
        Message::HeartbeatAck(wire::HeartbeatAck {}),
        Message::Challenge(wire::Challenge { nonce: RawBytes::from_static(&[5; 32]) }),
        Message::InventoryRequest(wire::InventoryRequest {}),
        Message::BenchmarkRequest(wire::BenchmarkRequest { quick: true, kind: 0, order: RawBytes::new() }),
    ]
    .map(Into::into)
    .into()
}

pub fn enrol_request() -> wire::EnrolRequest {
    wire::EnrolRequest {
        protocol: 1,
        agent_version: "0.1.0".into(),
        token_secret: RawBytes::from_static(&[7; 20]),
        certificate_request: RawBytes::from_static(b"request"),
        hostname: "desk-7".into(),
    }
}

pub fn enrol_response() -> wire::EnrolResponse {
    wire::EnrolResponse {
        machine_id: RawBytes::from_static(&[0x11; 16]),
        certificate: RawBytes::from_static(b"certificate"),
        ca_certificate: RawBytes::from_static(b"ca"),
        state: wire::EnrolmentState::Accepted.into(),
        expires_at: moment(86_400).unix_millis(),
        controller_time: moment(0).unix_millis(),
    }
}

pub fn renew_expired() -> wire::RenewExpiredRequest {
    wire::RenewExpiredRequest {
        protocol: 1,
        certificate: RawBytes::from_static(b"certificate"),
        certificate_request: RawBytes::from_static(b"request"),
        nonce: RawBytes::from_static(&[5; 32]),
        signature: RawBytes::from_static(b"signature"),
    }
}

/// Every step of an import.
pub fn import_progress() -> Vec<wire::ImportModelProgress> {
    use wire::import_model_progress::Message;
    let step = wire::ImportStep { what: "quantizing".into(), subject: "Q4_K_M".into(), fraction: 0.5 };
    [Message::Received(1 << 20), Message::Step(step), Message::Done(model().into())]
        .map(|message| wire::ImportModelProgress { message: Some(message) })
        .into()
}

/// The messages of an import.
pub fn import_request() -> Vec<wire::ImportModelRequest> {
    use wire::import_model_request::Message;
    let start = wire::ImportModelStart {
        size: 77,
        name: "tiny".into(),
        quantize: vec!["Q8_0".into(), "Q4_K_M".into()],
        bundled: true,
        no_quality: false,
        imatrix_size: 0,
    };
    [Message::Start(start), Message::Chunk(RawBytes::from_static(b"GGUF"))]
        .map(|message| wire::ImportModelRequest { message: Some(message) })
        .into()
}

/// A model of which one artifact was measured.
pub fn model_with_quality() -> Model {
    let mut model = model();
    model.artifacts[1].quality = Some(quality());
    model
}

/// A quality, as no message of the first version carries one.
pub fn quality() -> Quality {
    let estimate = |value, error| Statistic { value, error };
    Quality {
        source: ModelDigest::new([0xaa; 32]),
        text: "muster-text-1".into(),
        context: ContextTokens::new(512),
        chunks: 32,
        engine_build: "llama-cpp-sys-2 0.1.161".into(),
        divergence: Divergence {
            positions: 8160,
            mean: estimate(0.0312, 0.0004),
            median: 0.011,
            p90: 0.07,
            p99: 0.31,
            p999: 1.2,
            largest: 2.75,
            same_top: estimate(0.923, 0.003),
            perplexity: estimate(6.41, 0.04),
            source_perplexity: estimate(6.5, 0.04),
            log_ratio: estimate(-0.014, 0.001),
        },
    }
}

/// Every kind of reason, on one machine.
pub fn readiness() -> ReadinessReport {
    let range = SpeedRange { expected: speed(40.0), low: speed(31.5), high: speed(52.0) };
    let causes = [
        ReasonCause::NoFacts,
        ReasonCause::Stale { days: 40 },
        ReasonCause::VramShort { by: Bytes::from_mib(2100) },
        ReasonCause::RamShort { by: Bytes::from_mib(2101) },
        ReasonCause::DiskShort { by: Bytes::from_mib(2102) },
        ReasonCause::TooSlow { phase: Phase::Decode, predicted: speed(6.0), wanted: speed(10.0) },
        ReasonCause::Uncertain { phase: Phase::Prefill, low: speed(60.0), high: speed(150.0), wanted: speed(100.0) },
        ReasonCause::ContextShort { has: ContextTokens::new(4096), wanted: ContextTokens::new(8192) },
        ReasonCause::DriverMissing { gpu: "card".into(), text: "gone".into() },
        ReasonCause::NoPermission { gpu: "card".into(), text: "closed".into() },
        ReasonCause::GpuUnusable { gpu: "card".into(), kind: ObstacleKind::BackendMissing, text: "CPU only".into() },
        ReasonCause::NoDevice,
        ReasonCause::NotBenchmarked,
        ReasonCause::Other { text: "the moon is full".into() },
    ];
    let reasons: Vec<ReadinessReason> = causes
        .into_iter()
        .enumerate()
        .map(|(index, cause)| ReadinessReason { cause, remedy: (index % 2 == 0).then(|| "wait".into()) })
        .collect();
    let best = ModelVerdict {
        model: "llama-3.1-8b".into(),
        name: "Llama 3.1 8B Instruct".into(),
        parameters: 8_030_000_000,
        quantization: "Q4_K_M".into(),
        context: Some(ContextTokens::new(16_384)),
        placement: Some(ModelPlacement::Partial),
        on_gpu: 0.75,
        vram: Bytes::from_mib(4000),
        ram: Bytes::from_mib(2000),
        file: Bytes::from_mib(4700),
        prefill: Some(range),
        decode: None,
        measured: true,
        verdict: Readiness::NotReady,
        reasons: reasons.clone(),
    };
    let row = MachineReadiness {
        machine: machine_id(),
        hostname: "desk-7".into(),
        groups: vec!["berlin".into()],
        online: true,
        os: Some("Debian".into()),
        cpu: None,
        chassis: Some(ChassisKind::Laptop),
        memory_total: Some(Bytes::from_gib(32)),
        disk_free: Some(Bytes::from_gib(100)),
        gpus: vec![FleetGpu {
            name: "card".into(),
            vendor: Some(GpuVendor::Amd),
            kind: DeviceKind::DiscreteGpu,
            memory_total: Some(Bytes::from_gib(8)),
            memory_free: None,
            driver: Some("amdgpu".into()),
            engine_device: None,
            obstacle: Some(Obstacle { kind: ObstacleKind::NoPermission, text: "closed".into(), remedy: None }),
        }],
        facts: FactTimes {
            seen: Some(moment(1)),
            inventory: Some(moment(2)),
            benchmark: None,
            typical: Some(moment(3)),
        },
        assessment: Assessment {
            role: "chat".into(),
            verdict: Readiness::NotReady,
            reasons,
            best: Some(best),
            memory_basis: Some(MemoryBasis::Typical),
            ram: Some(Bytes::from_gib(20)),
            vram: Some(Bytes::from_gib(7)),
        },
        what_if: Some(Hypothetical {
            verdict: Readiness::Ready,
            model: Some("Llama".into()),
            quantization: Some("Q8_0".into()),
        }),
    };
    let role = RoleProfile {
        name: "chat".into(),
        purpose: "chat".into(),
        parameters_least: 1,
        parameters_most: 2,
        context: ContextTokens::new(8192),
        least_quantization: "Q4_K_M".into(),
        prefill_floor: Some(speed(100.0)),
        decode_floor: None,
    };
    let coverage = ModelCoverage { model: "m".into(), name: "M".into(), parameters: 7, counts: true, machines: 1 };
    let change =
        WhatIf { add_memory: Some(Bytes::from_gib(16)), gpu: Some("GeForce RTX 4090".into()), fix_drivers: true };
    ReadinessReport::new(moment(5), role, Some("berlin".into()), vec![row], vec![coverage])
        .with_changes(vec![RemedyCount { change: WhatIf::default(), machines: 3 }], Some(change))
}
