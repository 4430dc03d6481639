//! [`ReadinessReport`] on the wire. Its summary does not travel: it follows from the rows.

use bytes::Bytes as RawBytes;

use super::error::{
    ConversionError, FLEET_MAX, clip, figure, from_reference, identity, list, list_up_to, moment, optional,
    optional_text, optional_tokens_rate, required, text, texts, tokens_rate,
};
use crate::wire::readiness_reason::Cause;
use crate::{
    Assessment, Bytes, ChassisKind, ContextTokens, DeviceKind, FactTimes, FleetGpu, GpuVendor, MachineReadiness,
    MemoryBasis, ModelCoverage, ModelPlacement, ModelVerdict, ObstacleKind, Phase, Readiness, ReadinessReason,
    ReadinessReport, ReasonCause, RoleProfile, SpeedRange, Timestamp, TokensPerSecond, wire,
};

impl From<ReadinessReport> for wire::ReadinessReport {
    fn from(value: ReadinessReport) -> Self {
        let ReadinessReport { at, role, group, summary: _, machines, models, remedies, what_if } = value;
        Self {
            at: at.unix_millis(),
            role: Some(role.into()),
            group,
            machines: machines.into_iter().map(Into::into).collect(),
            models: models.into_iter().map(Into::into).collect(),
            remedies: remedies.into_iter().map(Into::into).collect(),
            what_if: what_if.map(Into::into),
        }
    }
}

impl TryFrom<wire::ReadinessReport> for ReadinessReport {
    type Error = ConversionError;
    fn try_from(message: wire::ReadinessReport) -> Result<Self, ConversionError> {
        let wire::ReadinessReport { at, role, group, machines, models, remedies, what_if } = message;
        let report = Self::new(
            moment("at", at)?,
            required("role", role)?,
            optional_text("group", group)?,
            list_up_to(FLEET_MAX, "machines", machines)?,
            list("models", models)?,
        );
        Ok(report.with_changes(list("remedies", remedies)?, optional("what_if", what_if)?))
    }
}

impl From<RoleProfile> for wire::RoleProfile {
    fn from(value: RoleProfile) -> Self {
        let RoleProfile {
            name,
            purpose,
            parameters_least,
            parameters_most,
            context,
            least_quantization,
            prefill_floor,
            decode_floor,
        } = value;
        Self {
            name,
            purpose,
            parameters_least,
            parameters_most,
            context: context.get(),
            least_quantization,
            prefill_floor: prefill_floor.map(TokensPerSecond::get),
            decode_floor: decode_floor.map(TokensPerSecond::get),
        }
    }
}

impl TryFrom<wire::RoleProfile> for RoleProfile {
    type Error = ConversionError;
    fn try_from(message: wire::RoleProfile) -> Result<Self, ConversionError> {
        let wire::RoleProfile {
            name,
            purpose,
            parameters_least,
            parameters_most,
            context,
            least_quantization,
            prefill_floor,
            decode_floor,
        } = message;
        Ok(Self {
            name: text("name", name)?,
            purpose: text("purpose", purpose)?,
            parameters_least,
            parameters_most,
            context: ContextTokens::new(context),
            least_quantization: text("least_quantization", least_quantization)?,
            prefill_floor: optional_tokens_rate("prefill_floor", prefill_floor)?,
            decode_floor: optional_tokens_rate("decode_floor", decode_floor)?,
        })
    }
}

impl From<MachineReadiness> for wire::MachineReadiness {
    fn from(value: MachineReadiness) -> Self {
        let MachineReadiness {
            machine,
            hostname,
            groups,
            online,
            os,
            cpu,
            chassis,
            memory_total,
            disk_free,
            gpus,
            facts,
            assessment,
            what_if,
        } = value;
        Self {
            machine: RawBytes::copy_from_slice(machine.as_bytes()),
            hostname,
            groups,
            online,
            os,
            cpu,
            chassis: chassis.map(ChassisKind::number),
            memory_total: memory_total.map(Bytes::get),
            disk_free: disk_free.map(Bytes::get),
            gpus: gpus.into_iter().map(Into::into).collect(),
            facts: Some(facts.into()),
            assessment: Some(assessment.into()),
            what_if: what_if.map(Into::into),
        }
    }
}

impl TryFrom<wire::MachineReadiness> for MachineReadiness {
    type Error = ConversionError;
    fn try_from(message: wire::MachineReadiness) -> Result<Self, ConversionError> {
        let wire::MachineReadiness {
            machine,
            hostname,
            groups,
            online,
            os,
            cpu,
            chassis,
            memory_total,
            disk_free,
            gpus,
            facts,
            assessment,
            what_if,
        } = message;
        Ok(Self {
            machine: identity("machine", &machine)?,
            hostname: text("hostname", hostname)?,
            groups: texts("groups", groups)?,
            online,
            os: optional_text("os", os)?,
            cpu: optional_text("cpu", cpu)?,
            chassis: chassis.map(ChassisKind::from_number),
            memory_total: memory_total.map(Bytes::new),
            disk_free: disk_free.map(Bytes::new),
            gpus: list("gpus", gpus)?,
            facts: required("facts", facts)?,
            assessment: required("assessment", assessment)?,
            what_if: optional("what_if", what_if)?,
        })
    }
}

impl From<FleetGpu> for wire::FleetGpu {
    fn from(value: FleetGpu) -> Self {
        let FleetGpu { name, vendor, kind, memory_total, memory_free, driver, engine_device, obstacle } = value;
        Self {
            name,
            vendor: vendor.map(GpuVendor::number),
            kind: kind.number(),
            memory_total: memory_total.map(Bytes::get),
            memory_free: memory_free.map(Bytes::get),
            driver,
            engine_device,
            obstacle: obstacle.map(Into::into),
        }
    }
}

impl TryFrom<wire::FleetGpu> for FleetGpu {
    type Error = ConversionError;
    fn try_from(message: wire::FleetGpu) -> Result<Self, ConversionError> {
        let wire::FleetGpu { name, vendor, kind, memory_total, memory_free, driver, engine_device, obstacle } = message;
        Ok(Self {
            name: text("name", name)?,
            vendor: vendor.map(GpuVendor::from_number),
            kind: DeviceKind::from_number(kind),
            memory_total: memory_total.map(Bytes::new),
            memory_free: memory_free.map(Bytes::new),
            driver: optional_text("driver", driver)?,
            engine_device: optional_text("engine_device", engine_device)?,
            obstacle: optional("obstacle", obstacle)?,
        })
    }
}

impl From<FactTimes> for wire::FactTimes {
    fn from(value: FactTimes) -> Self {
        let FactTimes { seen, inventory, benchmark, typical } = value;
        let millis = |moment: Option<Timestamp>| moment.map(Timestamp::unix_millis);
        Self {
            seen: millis(seen),
            inventory: millis(inventory),
            benchmark: millis(benchmark),
            typical: millis(typical),
        }
    }
}

impl TryFrom<wire::FactTimes> for FactTimes {
    type Error = ConversionError;
    fn try_from(message: wire::FactTimes) -> Result<Self, ConversionError> {
        let wire::FactTimes { seen, inventory, benchmark, typical } = message;
        let read = |field: &str, millis: Option<i64>| millis.map(|millis| moment(field, millis)).transpose();
        Ok(Self {
            seen: read("seen", seen)?,
            inventory: read("inventory", inventory)?,
            benchmark: read("benchmark", benchmark)?,
            typical: read("typical", typical)?,
        })
    }
}

impl From<Assessment> for wire::Assessment {
    fn from(value: Assessment) -> Self {
        let Assessment { role, verdict, reasons, best, memory_basis, ram, vram } = value;
        Self {
            role,
            verdict: verdict.number(),
            reasons: reasons.into_iter().map(Into::into).collect(),
            best: best.map(Into::into),
            memory_basis: memory_basis.map(MemoryBasis::number),
            ram: ram.map(Bytes::get),
            vram: vram.map(Bytes::get),
        }
    }
}

impl TryFrom<wire::Assessment> for Assessment {
    type Error = ConversionError;
    fn try_from(message: wire::Assessment) -> Result<Self, ConversionError> {
        let wire::Assessment { role, verdict, reasons, best, memory_basis, ram, vram } = message;
        Ok(Self {
            role: text("role", role)?,
            verdict: Readiness::from_number(verdict),
            reasons: list("reasons", reasons)?,
            best: optional("best", best)?,
            memory_basis: memory_basis.map(MemoryBasis::from_number),
            ram: ram.map(Bytes::new),
            vram: vram.map(Bytes::new),
        })
    }
}

impl From<ModelVerdict> for wire::ModelVerdict {
    fn from(value: ModelVerdict) -> Self {
        let ModelVerdict {
            model,
            name,
            parameters,
            quantization,
            context,
            placement,
            on_gpu,
            vram,
            ram,
            file,
            prefill,
            decode,
            measured,
            verdict,
            reasons,
        } = value;
        Self {
            model,
            name,
            parameters,
            quantization,
            context: context.map(ContextTokens::get),
            placement: placement.map(ModelPlacement::number),
            on_gpu,
            vram: vram.get(),
            ram: ram.get(),
            file: file.get(),
            prefill: prefill.map(Into::into),
            decode: decode.map(Into::into),
            measured,
            verdict: verdict.number(),
            reasons: reasons.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::ModelVerdict> for ModelVerdict {
    type Error = ConversionError;
    fn try_from(message: wire::ModelVerdict) -> Result<Self, ConversionError> {
        let wire::ModelVerdict {
            model,
            name,
            parameters,
            quantization,
            context,
            placement,
            on_gpu,
            vram,
            ram,
            file,
            prefill,
            decode,
            measured,
            verdict,
            reasons,
        } = message;
        Ok(Self {
            model: text("model", model)?,
            name: text("name", name)?,
            parameters,
            quantization: text("quantization", quantization)?,
            context: context.map(ContextTokens::new),
            placement: placement.map(ModelPlacement::from_number),
            on_gpu: figure("on_gpu", on_gpu)?,
            vram: Bytes::new(vram),
            ram: Bytes::new(ram),
            file: Bytes::new(file),
            prefill: optional("prefill", prefill)?,
            decode: optional("decode", decode)?,
            measured,
            verdict: Readiness::from_number(verdict),
            reasons: list("reasons", reasons)?,
        })
    }
}

impl From<SpeedRange> for wire::SpeedRange {
    fn from(value: SpeedRange) -> Self {
        let SpeedRange { expected, low, high } = value;
        Self { expected: expected.get(), low: low.get(), high: high.get() }
    }
}

impl TryFrom<wire::SpeedRange> for SpeedRange {
    type Error = ConversionError;
    fn try_from(message: wire::SpeedRange) -> Result<Self, ConversionError> {
        let wire::SpeedRange { expected, low, high } = message;
        Ok(Self {
            expected: tokens_rate("expected", expected)?,
            low: tokens_rate("low", low)?,
            high: tokens_rate("high", high)?,
        })
    }
}

impl From<ReadinessReason> for wire::ReadinessReason {
    fn from(value: ReadinessReason) -> Self {
        let words = clip(value.cause.to_string());
        let ReadinessReason { cause, remedy } = value;
        let obstacle = |gpu, kind: ObstacleKind, text| wire::GpuObstacle { gpu, kind: kind.number(), text: clip(text) };
        let cause = match cause {
            ReasonCause::NoFacts => Some(Cause::NoFacts(wire::NoFacts {})),
            ReasonCause::Stale { days } => Some(Cause::Stale(wire::Stale { days })),
            ReasonCause::VramShort { by } => Some(Cause::VramShort(wire::VramShort { by: by.get() })),
            ReasonCause::RamShort { by } => Some(Cause::RamShort(wire::RamShort { by: by.get() })),
            ReasonCause::DiskShort { by } => Some(Cause::DiskShort(wire::StoreShort { by: by.get() })),
            ReasonCause::TooSlow { phase, predicted, wanted } => Some(Cause::TooSlow(wire::SpeedShort {
                phase: phase.number(),
                predicted: predicted.get(),
                wanted: wanted.get(),
            })),
            ReasonCause::Uncertain { phase, low, high, wanted } => Some(Cause::Uncertain(wire::SpeedUncertain {
                phase: phase.number(),
                low: low.get(),
                high: high.get(),
                wanted: wanted.get(),
            })),
            ReasonCause::ContextShort { has, wanted } => {
                Some(Cause::ContextShort(wire::TrainedShort { has: has.get(), wanted: wanted.get() }))
            }
            ReasonCause::DriverMissing { gpu, text } => {
                Some(Cause::DriverMissing(obstacle(gpu, ObstacleKind::DriverMissing, text)))
            }
            ReasonCause::NoPermission { gpu, text } => {
                Some(Cause::NoPermission(obstacle(gpu, ObstacleKind::NoPermission, text)))
            }
            ReasonCause::GpuUnusable { gpu, kind, text } => Some(Cause::GpuUnusable(obstacle(gpu, kind, text))),
            ReasonCause::NoDevice => Some(Cause::NoDevice(wire::NoDevice {})),
            ReasonCause::NotBenchmarked => Some(Cause::NotBenchmarked(wire::NotBenchmarked {})),
            ReasonCause::Other { .. } => None,
        };
        Self { text: words, remedy: remedy.map(clip), cause }
    }
}

impl TryFrom<wire::ReadinessReason> for ReadinessReason {
    type Error = ConversionError;
    fn try_from(message: wire::ReadinessReason) -> Result<Self, ConversionError> {
        let wire::ReadinessReason { text: words, remedy, cause } = message;
        let cause = match cause {
            Some(Cause::NoFacts(wire::NoFacts {})) => ReasonCause::NoFacts,
            Some(Cause::Stale(wire::Stale { days })) => ReasonCause::Stale { days },
            Some(Cause::VramShort(wire::VramShort { by })) => ReasonCause::VramShort { by: Bytes::new(by) },
            Some(Cause::RamShort(wire::RamShort { by })) => ReasonCause::RamShort { by: Bytes::new(by) },
            Some(Cause::DiskShort(wire::StoreShort { by })) => ReasonCause::DiskShort { by: Bytes::new(by) },
            Some(Cause::TooSlow(wire::SpeedShort { phase, predicted, wanted })) => ReasonCause::TooSlow {
                phase: Phase::from_number(phase),
                predicted: tokens_rate("too_slow.predicted", predicted)?,
                wanted: tokens_rate("too_slow.wanted", wanted)?,
            },
            Some(Cause::Uncertain(wire::SpeedUncertain { phase, low, high, wanted })) => ReasonCause::Uncertain {
                phase: Phase::from_number(phase),
                low: tokens_rate("uncertain.low", low)?,
                high: tokens_rate("uncertain.high", high)?,
                wanted: tokens_rate("uncertain.wanted", wanted)?,
            },
            Some(Cause::ContextShort(wire::TrainedShort { has, wanted })) => {
                ReasonCause::ContextShort { has: ContextTokens::new(has), wanted: ContextTokens::new(wanted) }
            }
            Some(Cause::DriverMissing(wire::GpuObstacle { gpu, kind: _, text: said })) => ReasonCause::DriverMissing {
                gpu: text("driver_missing.gpu", gpu)?,
                text: text("driver_missing.text", said)?,
            },
            Some(Cause::NoPermission(wire::GpuObstacle { gpu, kind: _, text: said })) => ReasonCause::NoPermission {
                gpu: text("no_permission.gpu", gpu)?,
                text: text("no_permission.text", said)?,
            },
            Some(Cause::GpuUnusable(wire::GpuObstacle { gpu, kind, text: said })) => ReasonCause::GpuUnusable {
                gpu: text("gpu_unusable.gpu", gpu)?,
                kind: ObstacleKind::from_number(kind),
                text: text("gpu_unusable.text", said)?,
            },
            Some(Cause::NoDevice(wire::NoDevice {})) => ReasonCause::NoDevice,
            Some(Cause::NotBenchmarked(wire::NotBenchmarked {})) => ReasonCause::NotBenchmarked,
            None => ReasonCause::Other { text: text("text", words)? },
        };
        Ok(Self { cause, remedy: optional_text("remedy", remedy)? })
    }
}

impl From<ModelCoverage> for wire::ModelCoverage {
    fn from(value: ModelCoverage) -> Self {
        let ModelCoverage { model, name, parameters, counts, machines } = value;
        Self { model, name, parameters, counts, machines }
    }
}

impl TryFrom<wire::ModelCoverage> for ModelCoverage {
    type Error = ConversionError;
    fn try_from(message: wire::ModelCoverage) -> Result<Self, ConversionError> {
        let wire::ModelCoverage { model, name, parameters, counts, machines } = message;
        Ok(Self { model: text("model", model)?, name: text("name", name)?, parameters, counts, machines })
    }
}

from_reference!(
    ReadinessReport,
    RoleProfile,
    MachineReadiness,
    FleetGpu,
    FactTimes,
    Assessment,
    ModelVerdict,
    SpeedRange,
    ReadinessReason,
    ModelCoverage,
);
