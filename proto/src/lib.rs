//! The contract between agents, controller and operator.
//!
//! Always here: the domain types, plain data with the field's names and units as types. Behind the feature `wire`: the
//! protobuf messages, the gRPC services and the conversions between both. This crate does no I/O.
//!
//! Entry points: [`Inventory`] and [`Benchmark`] (what a desk is), [`Policy`] (what the operator wants), [`Plan`] (what
//! was decided and why), [`DesiredState`] and [`Observed`] (what a desk should run, and what it was seen to run).

mod agent_status;
mod audit;
mod bench_order;
mod benchmark;
mod catalog;
mod controller;
mod desired;
mod digest;
mod enrolment;
mod estimate;
mod hardware;
mod ids;
mod inventory;
mod machine;
mod observed;
mod open_enum;
mod plan;
mod policy;
mod protocol;
mod quality;
mod readiness;
mod timestamp;
mod units;
mod what_if;
#[cfg(feature = "wire")]
pub mod wire;

pub use agent_status::AgentStatus;
pub use audit::AuditEvent;
pub use bench_order::{BenchOrder, BenchOrderState};
pub use benchmark::{
    BenchModel, BenchPoint, Benchmark, BenchmarkKind, Conditions, OnBattery, PartQuantity, PartRate, Spread,
};
pub use catalog::{Artifact, ArtifactSource, DeviceMemory, MemoryNeed, Model};
pub use controller::{AdminRecord, CaFingerprint, ControllerStatus, PolicyRecord};
pub use desired::{DesiredAssignment, DesiredState, EngineSettings, FlashAttention, KvType, Prediction};
pub use digest::{DigestError, ModelDigest};
pub use enrolment::{EnrolmentToken, EnrolmentTokenError, TokenRecord};
pub use estimate::{
    Alternative, Change, ComputeGraphs, Estimate, EstimateSettings, EstimatedDevice, EstimatedHost, EstimatedModel,
    EstimatedSpeed, ModelSource, OutputsReserved,
};
pub use hardware::{
    Chassis, ChassisKind, Gpu, GpuVendor, Hardware, MemoryUser, Obstacle, ObstacleKind, PcieLink, TypicalFree,
    TypicalUse,
};
pub use ids::{AdminName, AssignmentId, BenchOrderId, IdError, MachineId, TokenId};
pub use inventory::{Cpu, Device, DeviceKind, Disk, Inventory, Memory, Os, ProbeFailure};
pub use machine::{EnrolmentState, Machine};
pub use observed::{Deployment, DeploymentState, Measured, Observed, Transfer};
pub use plan::{Assignment, Candidate, Closeness, MachinePlan, Plan, Rejection, RejectionReason};
pub use policy::{Policy, PolicyError, RolePolicy};
pub use protocol::{PROTOCOL_VERSION, ProtocolError, check_peer_protocol};
pub use quality::{Divergence, Quality, Statistic};
pub use readiness::{
    Assessment, CoverageLevel, FactTimes, FleetGpu, MachineReadiness, MemoryBasis, ModelCoverage, ModelPlacement,
    ModelVerdict, Phase, Readiness, ReadinessReason, ReadinessReport, ReadinessSummary, ReasonCause, RoleProfile,
    SpeedRange, VramBin,
};
pub use timestamp::Timestamp;
pub use units::{Bytes, BytesPerSecond, ContextTokens, TokensPerSecond, grouped};
pub use what_if::{Hypothetical, RemedyCount, WhatIf, WhatIfTotals};
