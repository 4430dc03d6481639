//! NVIDIA's management library: the calls. Each field fails alone.
//!
//! Runs in a probe's process ([`super::child`]); what the answers mean is [`super::assemble`]'s.

use std::collections::BTreeMap;
use std::ffi::OsString;

use muster_proto::Bytes;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};

use super::raw::{NvmlAnswers, NvmlDevice, NvmlMemory, NvmlProcess, ProbeResult};

/// A path of the library instead of the system's, for tests.
const LIBRARY_VARIABLE: &str = "MUSTER_NVML_LIBRARY";

/// Opens the library. Blocks for as long as the driver takes.
pub fn open() -> Result<Nvml, NvmlError> {
    let library: Option<OsString> = std::env::var_os(LIBRARY_VARIABLE);
    let mut builder = Nvml::builder();
    if let Some(library) = &library {
        builder.lib_path(library);
    }
    builder.init()
}

/// Asks NVML. Blocks for as long as the driver takes.
pub fn ask() -> ProbeResult<NvmlAnswers> {
    let nvml = match open() {
        Ok(nvml) => nvml,
        Err(error @ (NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound)) => {
            return ProbeResult::absent(format!("NVIDIA's library is not installed: {error}"));
        }
        Err(error @ NvmlError::DriverNotLoaded) => return ProbeResult::absent(error.to_string()),
        Err(error) => return ProbeResult::failed(error.to_string()),
    };
    let mut fields = Fields::default();
    let driver_version = fields.take("driver_version", nvml.sys_driver_version());
    let cuda_version = fields.take("cuda_version", nvml.sys_cuda_driver_version());
    let count = match nvml.device_count() {
        Ok(count) => count,
        Err(error) => return ProbeResult::failed(format!("the cards cannot be counted: {error}")),
    };
    let devices = (0..count).map(|index| match nvml.device_by_index(index) {
        Ok(device) => card(index, &device),
        Err(error) => {
            let mut fields = Fields::default();
            fields.take::<()>("device", Err(error));
            NvmlDevice { index, errors: fields.errors, ..NvmlDevice::default() }
        }
    });
    ProbeResult::Ok(NvmlAnswers { driver_version, cuda_version, devices: devices.collect(), errors: fields.errors })
}

/// Takes answers, and remembers those that failed.
#[derive(Default)]
struct Fields {
    errors: BTreeMap<String, String>,
}

impl Fields {
    fn take<T>(&mut self, name: &str, answer: Result<T, NvmlError>) -> Option<T> {
        answer.map_err(|error| self.errors.insert(name.to_owned(), error.to_string())).ok()
    }
}

fn card(index: u32, device: &Device<'_>) -> NvmlDevice {
    let mut fields = Fields::default();
    let pci = fields.take("pci_info", device.pci_info());
    let mut card = common(index, device, &mut fields);
    card.pci_bus_id = pci.as_ref().map(|pci| pci.bus_id.clone());
    card.pci_device_id = pci.map(|pci| pci.pci_device_id);
    card.pcie_generation = fields.take("pcie_generation", device.current_pcie_link_gen());
    card.pcie_width = fields.take("pcie_width", device.current_pcie_link_width());
    card.pcie_generation_max = fields.take("pcie_generation_max", device.max_pcie_link_gen());
    card.pcie_width_max = fields.take("pcie_width_max", device.max_pcie_link_width());
    card.power_limit_milliwatts = fields.take("power_limit", device.enforced_power_limit());
    card.temperature_celsius = fields.take("temperature", device.temperature(TemperatureSensor::Gpu));
    card.throttle_reasons = fields.take("throttle_reasons", device.current_throttle_reasons()).map(words);
    card.ecc = fields.take("ecc", device.is_ecc_enabled()).map(|mode| mode.currently_enabled);
    card.mig = fields.take("mig", device.mig_mode()).map(|mode| mode.current == 1);
    if card.mig == Some(true) {
        let most = fields.take("mig_device_count", device.mig_device_count()).unwrap_or(0);
        card.slices = (0..most)
            .filter_map(|index| {
                // A card has places for seven slices and need not fill them.
                let slice = device.mig_device_by_index(index).ok()?;
                let mut fields = Fields::default();
                let mut slice = common(index, &slice, &mut fields);
                slice.errors = fields.errors;
                Some(slice)
            })
            .collect();
    }
    card.errors = fields.errors;
    card
}

/// What cards and slices have both.
fn common(index: u32, device: &Device<'_>, fields: &mut Fields) -> NvmlDevice {
    let memory = fields.take("memory", device.memory_info());
    let capability = fields.take("compute_capability", device.cuda_compute_capability());
    let mut processes = fields.take("compute_processes", device.running_compute_processes()).unwrap_or_default();
    processes.extend(fields.take("graphics_processes", device.running_graphics_processes()).unwrap_or_default());
    NvmlDevice {
        index,
        name: fields.take("name", device.name()),
        uuid: fields.take("uuid", device.uuid()),
        memory: memory.map(|memory| NvmlMemory {
            total: Bytes::new(memory.total),
            free: Bytes::new(memory.free),
            used: Bytes::new(memory.used),
        }),
        compute_capability: capability.map(|capability| (capability.major, capability.minor)),
        processes: processes.iter().map(process).collect(),
        ..NvmlDevice::default()
    }
}

fn process(process: &ProcessInfo) -> NvmlProcess {
    NvmlProcess {
        pid: process.pid,
        name: name_of(process.pid),
        bytes: match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(Bytes::new(bytes)),
            UsedGpuMemory::Unavailable => None,
        },
    }
}

fn name_of(pid: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned()).filter(|name| !name.is_empty())
}

fn words(reasons: ThrottleReasons) -> Vec<String> {
    [
        (ThrottleReasons::GPU_IDLE, "gpu_idle"),
        (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, "applications_clocks_setting"),
        (ThrottleReasons::SW_POWER_CAP, "sw_power_cap"),
        (ThrottleReasons::HW_SLOWDOWN, "hw_slowdown"),
        (ThrottleReasons::SYNC_BOOST, "sync_boost"),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, "sw_thermal_slowdown"),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, "hw_thermal_slowdown"),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "hw_power_brake_slowdown"),
        (ThrottleReasons::DISPLAY_CLOCK_SETTING, "display_clock_setting"),
    ]
    .into_iter()
    .filter(|(reason, _)| reasons.contains(*reason))
    .map(|(_, word)| word.to_owned())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttle_reasons_have_nvml_s_words() {
        assert_eq!(words(ThrottleReasons::NONE), Vec::<String>::new());
        let hot = ThrottleReasons::HW_SLOWDOWN | ThrottleReasons::HW_THERMAL_SLOWDOWN;
        assert_eq!(words(hot), ["hw_slowdown", "hw_thermal_slowdown"]);
    }
}
