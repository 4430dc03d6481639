//! [`Hardware`] on the wire. Which programs hold a GPU's memory does not travel.

use super::error::{ConversionError, clip, from_reference, list, moment, optional, optional_text, text, texts};
use crate::{
    Bytes, Chassis, ChassisKind, DeviceKind, Gpu, GpuVendor, Hardware, Obstacle, ObstacleKind, PcieLink, TypicalFree,
    TypicalUse, wire,
};

impl From<Hardware> for wire::Hardware {
    fn from(value: Hardware) -> Self {
        let Hardware { gpus, chassis, remote_session, typical } = value;
        Self {
            gpus: gpus.into_iter().map(Into::into).collect(),
            chassis: Some(chassis.into()),
            remote_session,
            typical: typical.map(Into::into),
        }
    }
}

impl TryFrom<wire::Hardware> for Hardware {
    type Error = ConversionError;
    fn try_from(message: wire::Hardware) -> Result<Self, ConversionError> {
        let wire::Hardware { gpus, chassis, remote_session, typical } = message;
        Ok(Self {
            gpus: list("gpus", gpus)?,
            chassis: optional("chassis", chassis)?.unwrap_or_default(),
            remote_session,
            typical: optional("typical", typical)?,
        })
    }
}

impl From<Gpu> for wire::Gpu {
    fn from(value: Gpu) -> Self {
        let Gpu {
            name,
            vendor,
            kind,
            pci_bus_id,
            pci_id,
            uuid,
            driver,
            memory_total,
            memory_free,
            memory_shared,
            unified_memory,
            compute_capability,
            cuda_version,
            pcie,
            power_limit_watts,
            temperature_celsius,
            throttle_reasons,
            ecc,
            mig,
            slice_of,
            used_by: _,
            engine_device,
            obstacle,
            sources,
        } = value;
        Self {
            name,
            vendor: vendor.number(),
            kind: kind.number(),
            pci_bus_id,
            pci_id,
            uuid,
            driver,
            memory_total: memory_total.map(Bytes::get),
            memory_free: memory_free.map(Bytes::get),
            memory_shared: memory_shared.map(Bytes::get),
            unified_memory,
            compute_capability,
            cuda_version,
            pcie: pcie.map(Into::into),
            power_limit_watts,
            temperature_celsius,
            throttle_reasons,
            ecc,
            mig,
            slice_of,
            engine_device,
            obstacle: obstacle.map(Into::into),
            sources,
        }
    }
}

impl TryFrom<wire::Gpu> for Gpu {
    type Error = ConversionError;
    fn try_from(message: wire::Gpu) -> Result<Self, ConversionError> {
        let wire::Gpu {
            name,
            vendor,
            kind,
            pci_bus_id,
            pci_id,
            uuid,
            driver,
            memory_total,
            memory_free,
            memory_shared,
            unified_memory,
            compute_capability,
            cuda_version,
            pcie,
            power_limit_watts,
            temperature_celsius,
            throttle_reasons,
            ecc,
            mig,
            slice_of,
            engine_device,
            obstacle,
            sources,
        } = message;
        Ok(Self {
            name: text("name", name)?,
            vendor: GpuVendor::from_number(vendor),
            kind: DeviceKind::from_number(kind),
            pci_bus_id: optional_text("pci_bus_id", pci_bus_id)?,
            pci_id: optional_text("pci_id", pci_id)?,
            uuid: optional_text("uuid", uuid)?,
            driver: optional_text("driver", driver)?,
            memory_total: memory_total.map(Bytes::new),
            memory_free: memory_free.map(Bytes::new),
            memory_shared: memory_shared.map(Bytes::new),
            unified_memory,
            compute_capability: optional_text("compute_capability", compute_capability)?,
            cuda_version: optional_text("cuda_version", cuda_version)?,
            pcie: optional("pcie", pcie)?,
            power_limit_watts: power_limit_watts.filter(|watts| watts.is_finite()),
            temperature_celsius: temperature_celsius.filter(|degrees| degrees.is_finite()),
            throttle_reasons: texts("throttle_reasons", throttle_reasons)?,
            ecc,
            mig,
            slice_of: optional_text("slice_of", slice_of)?,
            used_by: Vec::new(),
            engine_device: optional_text("engine_device", engine_device)?,
            obstacle: optional("obstacle", obstacle)?,
            sources: texts("sources", sources)?,
        })
    }
}

impl From<PcieLink> for wire::PcieLink {
    fn from(value: PcieLink) -> Self {
        let PcieLink { generation, width, generation_max, width_max } = value;
        Self { generation, width, generation_max, width_max }
    }
}

impl TryFrom<wire::PcieLink> for PcieLink {
    type Error = ConversionError;
    fn try_from(message: wire::PcieLink) -> Result<Self, ConversionError> {
        let wire::PcieLink { generation, width, generation_max, width_max } = message;
        Ok(Self { generation, width, generation_max, width_max })
    }
}

impl From<Obstacle> for wire::Obstacle {
    fn from(value: Obstacle) -> Self {
        let Obstacle { kind, text, remedy } = value;
        Self { kind: kind.number(), text: clip(text), remedy: remedy.map(clip) }
    }
}

impl TryFrom<wire::Obstacle> for Obstacle {
    type Error = ConversionError;
    fn try_from(message: wire::Obstacle) -> Result<Self, ConversionError> {
        let wire::Obstacle { kind, text: words, remedy } = message;
        Ok(Self {
            kind: ObstacleKind::from_number(kind),
            text: text("text", words)?,
            remedy: optional_text("remedy", remedy)?,
        })
    }
}

impl From<Chassis> for wire::Chassis {
    fn from(value: Chassis) -> Self {
        let Chassis { kind, vendor, model, domain, battery, on_mains } = value;
        Self { kind: kind.map(ChassisKind::number), vendor, model, domain, battery, on_mains }
    }
}

impl TryFrom<wire::Chassis> for Chassis {
    type Error = ConversionError;
    fn try_from(message: wire::Chassis) -> Result<Self, ConversionError> {
        let wire::Chassis { kind, vendor, model, domain, battery, on_mains } = message;
        Ok(Self {
            kind: kind.map(ChassisKind::from_number),
            vendor: optional_text("vendor", vendor)?,
            model: optional_text("model", model)?,
            domain: optional_text("domain", domain)?,
            battery,
            on_mains,
        })
    }
}

impl From<TypicalUse> for wire::TypicalUse {
    fn from(value: TypicalUse) -> Self {
        let TypicalUse { since, until, samples, memory_available, devices } = value;
        Self {
            since: since.unix_millis(),
            until: until.unix_millis(),
            samples,
            memory_available: memory_available.get(),
            devices: devices.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::TypicalUse> for TypicalUse {
    type Error = ConversionError;
    fn try_from(message: wire::TypicalUse) -> Result<Self, ConversionError> {
        let wire::TypicalUse { since, until, samples, memory_available, devices } = message;
        Ok(Self {
            since: moment("since", since)?,
            until: moment("until", until)?,
            samples,
            memory_available: Bytes::new(memory_available),
            devices: list("devices", devices)?,
        })
    }
}

impl From<TypicalFree> for wire::TypicalFree {
    fn from(value: TypicalFree) -> Self {
        let TypicalFree { device, free } = value;
        Self { device, free: free.get() }
    }
}

impl TryFrom<wire::TypicalFree> for TypicalFree {
    type Error = ConversionError;
    fn try_from(message: wire::TypicalFree) -> Result<Self, ConversionError> {
        let wire::TypicalFree { device, free } = message;
        Ok(Self { device: text("device", device)?, free: Bytes::new(free) })
    }
}

from_reference!(Hardware, Gpu, PcieLink, Obstacle, Chassis, TypicalUse, TypicalFree);
