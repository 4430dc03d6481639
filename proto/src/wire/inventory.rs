//! [`Inventory`] on the wire.

use super::error::{ConversionError, from_reference, list, moment, optional, optional_text, required, text, texts};
use crate::{Bytes, Cpu, Device, DeviceKind, Disk, Hardware, Inventory, Memory, Os, ProbeFailure, wire};

impl From<Inventory> for wire::Inventory {
    fn from(value: Inventory) -> Self {
        let Inventory {
            collected_at,
            hostname,
            hardware_fingerprint,
            os,
            cpu,
            memory,
            devices,
            store_disk,
            engine_build,
            failures,
            hardware,
        } = value;
        Self {
            collected_at: collected_at.unix_millis(),
            hostname,
            hardware_fingerprint,
            os: Some(os.into()),
            cpu: Some(cpu.into()),
            memory: Some(memory.into()),
            devices: devices.into_iter().map(Into::into).collect(),
            store_disk: store_disk.map(Into::into),
            engine_build,
            failures: failures.into_iter().map(Into::into).collect(),
            hardware: (hardware != Hardware::default()).then(|| hardware.into()),
        }
    }
}

impl TryFrom<wire::Inventory> for Inventory {
    type Error = ConversionError;
    fn try_from(message: wire::Inventory) -> Result<Self, ConversionError> {
        let wire::Inventory {
            collected_at,
            hostname,
            hardware_fingerprint,
            os,
            cpu,
            memory,
            devices,
            store_disk,
            engine_build,
            failures,
            hardware,
        } = message;
        Ok(Self {
            collected_at: moment("collected_at", collected_at)?,
            hostname: text("hostname", hostname)?,
            hardware_fingerprint: text("hardware_fingerprint", hardware_fingerprint)?,
            os: required("os", os)?,
            cpu: required("cpu", cpu)?,
            memory: required("memory", memory)?,
            devices: list("devices", devices)?,
            store_disk: optional("store_disk", store_disk)?,
            engine_build: text("engine_build", engine_build)?,
            failures: list("failures", failures)?,
            hardware: optional("hardware", hardware)?.unwrap_or_default(),
        })
    }
}

impl From<Os> for wire::Os {
    fn from(value: Os) -> Self {
        let Os { platform, name, kernel } = value;
        Self { platform, name, kernel }
    }
}

impl TryFrom<wire::Os> for Os {
    type Error = ConversionError;
    fn try_from(message: wire::Os) -> Result<Self, ConversionError> {
        let wire::Os { platform, name, kernel } = message;
        Ok(Self {
            platform: text("platform", platform)?,
            name: optional_text("name", name)?,
            kernel: optional_text("kernel", kernel)?,
        })
    }
}

impl From<Cpu> for wire::Cpu {
    fn from(value: Cpu) -> Self {
        let Cpu { brand, physical_cores, threads, features } = value;
        Self { brand, physical_cores, threads, features }
    }
}

impl TryFrom<wire::Cpu> for Cpu {
    type Error = ConversionError;
    fn try_from(message: wire::Cpu) -> Result<Self, ConversionError> {
        let wire::Cpu { brand, physical_cores, threads, features } = message;
        Ok(Self {
            brand: optional_text("brand", brand)?,
            physical_cores,
            threads,
            features: texts("features", features)?,
        })
    }
}

impl From<Memory> for wire::Memory {
    fn from(value: Memory) -> Self {
        let Memory { total, available } = value;
        Self { total: total.get(), available: available.get() }
    }
}

impl TryFrom<wire::Memory> for Memory {
    type Error = ConversionError;
    fn try_from(message: wire::Memory) -> Result<Self, ConversionError> {
        let wire::Memory { total, available } = message;
        Ok(Self { total: Bytes::new(total), available: Bytes::new(available) })
    }
}

impl From<Disk> for wire::Disk {
    fn from(value: Disk) -> Self {
        let Disk { total, free } = value;
        Self { total: total.get(), free: free.get() }
    }
}

impl TryFrom<wire::Disk> for Disk {
    type Error = ConversionError;
    fn try_from(message: wire::Disk) -> Result<Self, ConversionError> {
        let wire::Disk { total, free } = message;
        Ok(Self { total: Bytes::new(total), free: Bytes::new(free) })
    }
}

impl From<Device> for wire::Device {
    fn from(value: Device) -> Self {
        let Device { name, description, kind, backend, memory_total, memory_free, pci_bus_id, uuid, driver } = value;
        Self {
            name,
            description,
            kind: kind.number(),
            backend,
            memory_total: memory_total.map(Bytes::get),
            memory_free: memory_free.map(Bytes::get),
            pci_bus_id,
            uuid,
            driver,
        }
    }
}

impl TryFrom<wire::Device> for Device {
    type Error = ConversionError;
    fn try_from(message: wire::Device) -> Result<Self, ConversionError> {
        let wire::Device { name, description, kind, backend, memory_total, memory_free, pci_bus_id, uuid, driver } =
            message;
        Ok(Self {
            name: text("name", name)?,
            description: text("description", description)?,
            kind: DeviceKind::from_number(kind),
            backend: text("backend", backend)?,
            memory_total: memory_total.map(Bytes::new),
            memory_free: memory_free.map(Bytes::new),
            pci_bus_id: optional_text("pci_bus_id", pci_bus_id)?,
            uuid: optional_text("uuid", uuid)?,
            driver: optional_text("driver", driver)?,
        })
    }
}

impl From<ProbeFailure> for wire::ProbeFailure {
    fn from(value: ProbeFailure) -> Self {
        let ProbeFailure { probe, reason } = value;
        Self { probe, reason: super::error::clip(reason) }
    }
}

impl TryFrom<wire::ProbeFailure> for ProbeFailure {
    type Error = ConversionError;
    fn try_from(message: wire::ProbeFailure) -> Result<Self, ConversionError> {
        let wire::ProbeFailure { probe, reason } = message;
        Ok(Self { probe: text("probe", probe)?, reason: text("reason", reason)? })
    }
}

from_reference!(Inventory, Os, Cpu, Memory, Disk, Device, ProbeFailure);
