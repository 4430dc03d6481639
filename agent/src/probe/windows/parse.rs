//! Windows' answers → the fields of [`raw`](super::super::raw). Pure.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use muster_engine::windows::{Adapter, DisplayDevice, PowerStatus};
use muster_proto::Bytes;

use super::super::raw::{DxgiAdapter, PowerSupply, RegistryAdapter};

/// `DXGI_ADAPTER_FLAG_REMOTE`.
const REMOTE: u32 = 1;
/// `DXGI_ADAPTER_FLAG_SOFTWARE`.
const SOFTWARE: u32 = 2;
/// Where drivers keep what they say of their devices.
const CLASSES: &str = r"SYSTEM\CurrentControlSet\Control\Class";

/// An adapter of DXGI.
pub fn adapter(told: &Adapter) -> DxgiAdapter {
    DxgiAdapter {
        description: told.description.clone(),
        vendor_id: told.vendor_id,
        device_id: told.device_id,
        subsys_id: told.subsys_id,
        revision: told.revision,
        luid: Some(HEXLOWER.encode(&told.luid)),
        dedicated_video: Bytes::new(told.dedicated_video),
        dedicated_system: Bytes::new(told.dedicated_system),
        shared_system: Bytes::new(told.shared_system),
        remote: told.flags & REMOTE != 0,
        software: told.flags & SOFTWARE != 0,
        local_budget: told.local.map(|segment| Bytes::new(segment.budget)),
        local_usage: told.local.map(|segment| Bytes::new(segment.usage)),
        non_local_budget: told.non_local.map(|segment| Bytes::new(segment.budget)),
        uma: told.uma,
        driver_version: told.driver_version.map(version),
        pci_bus_id: None,
    }
}

/// A display adapter of the device manager, with what its driver wrote into the registry; `value` reads a value.
pub fn registry(device: &DisplayDevice, value: impl Fn(&str, &str) -> Option<Vec<u8>>) -> RegistryAdapter {
    let key = device.driver_key.as_deref().map(text).unwrap_or_default();
    let read = |name: &str| value(&format!(r"{CLASSES}\{key}"), name).filter(|_| !key.is_empty());
    let said = |name: &str| read(name).map(|bytes| text(&bytes)).filter(|text| !text.is_empty());
    // The basic driver matches every display (`pci\cc_0300`): the hardware's own identifier then says which it is.
    let matching = said("MatchingDeviceId").filter(|id| id.to_ascii_lowercase().contains("ven_"));
    RegistryAdapter {
        key: key.rsplit('\\').next().unwrap_or_default().to_owned(),
        description: said("DriverDesc"),
        matching_device_id: matching.or_else(|| device.hardware_ids.as_deref().map(text)),
        driver_version: said("DriverVersion"),
        provider: said("ProviderName"),
        qw_memory_size: read("HardwareInformation.qwMemorySize").and_then(|bytes| number(&bytes)),
        memory_size: read("HardwareInformation.MemorySize")
            .and_then(|bytes| number(&bytes))
            .and_then(|size| u32::try_from(size).ok()),
        location: location(device),
        problem: device.problem,
    }
}

/// Bus and address are numbers, in every language of Windows; the text is for what has none.
fn location(device: &DisplayDevice) -> Option<String> {
    let value = |bytes: &Option<Vec<u8>>| bytes.as_deref().and_then(number);
    match (value(&device.bus), value(&device.address)) {
        // The address of PCI: the device in the upper half, the function in the lower.
        (Some(bus), Some(address)) if is_pci(device) => {
            Some(format!("PCI bus {bus}, device {}, function {}", address >> 16, address & 0xffff))
        }
        _ => device.location.as_deref().map(text).filter(|text| !text.is_empty()),
    }
}

fn is_pci(device: &DisplayDevice) -> bool {
    device.hardware_ids.as_deref().is_some_and(|ids| text(ids).to_ascii_lowercase().starts_with("pci\\"))
}

/// Text in UTF-16 up to the first zero: of a list its first entry.
fn text(bytes: &[u8]) -> String {
    let letters: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
    String::from_utf16_lossy(letters.split(|letter| *letter == 0).next().unwrap_or_default())
}

/// A number of four or eight bytes; drivers write them as numbers and as plain bytes.
fn number(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        4 => bytes.try_into().ok().map(u32::from_le_bytes).map(u64::from),
        8 => bytes.try_into().ok().map(u64::from_le_bytes),
        _ => None,
    }
}

/// A driver's version, four numbers of 16 bits.
fn version(packed: i64) -> String {
    let [d, c, b, a] = [0, 16, 32, 48].map(|shift| (packed >> shift) & 0xffff);
    format!("{a}.{b}.{c}.{d}")
}

/// In the attributes that Linux has. Bits of `BatteryFlag`: 8 charging, 128 no battery; 255 not known.
pub fn power(status: PowerStatus) -> Vec<PowerSupply> {
    let supply = |name: &str, attributes: &[(&str, &str)]| PowerSupply {
        name: name.to_owned(),
        attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
    };
    let mut supplies = Vec::new();
    if status.ac_line <= 1 {
        supplies.push(supply("AC", &[("type", "Mains"), ("online", if status.ac_line == 1 { "1" } else { "0" })]));
    }
    if status.battery_flag != 255 && status.battery_flag & 128 == 0 {
        let state = match (status.battery_flag & 8 != 0, status.ac_line) {
            (true, _) => "Charging",
            (false, 0) => "Discharging",
            _ => "Not charging",
        };
        supplies.push(supply("Battery", &[("type", "Battery"), ("status", state)]));
    }
    supplies
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(text: &str) -> Vec<u8> {
        text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
    }

    fn device(id: &str) -> DisplayDevice {
        DisplayDevice {
            driver_key: Some(wide(r"{4d36e968-e325-11ce-bfc1-08002be10318}\0002")),
            hardware_ids: Some([wide(id), wide("PCI\\VEN_10DE&CC_030000"), wide("")].concat()),
            location: Some(wide("PCI-Bus 10, Gerät 2, Funktion 1")),
            bus: Some(10_u32.to_le_bytes().to_vec()),
            address: Some(0x2_0001_u32.to_le_bytes().to_vec()),
            problem: Some(0),
        }
    }

    #[test]
    fn a_driver_s_values_are_read_whatever_their_type() {
        let value = |path: &str, name: &str| {
            assert!(path.ends_with(r"Class\{4d36e968-e325-11ce-bfc1-08002be10318}\0002"), "{path}");
            match name {
                "DriverDesc" => Some(wide("NVIDIA GeForce RTX 4090")),
                "MatchingDeviceId" => Some(wide(r"pci\ven_10de&dev_2684")),
                "HardwareInformation.qwMemorySize" => Some(25_757_220_864_u64.to_le_bytes().to_vec()),
                "HardwareInformation.MemorySize" => Some(0xfff0_0000_u32.to_le_bytes().to_vec()),
                _ => None,
            }
        };
        let adapter = registry(&device(r"PCI\VEN_10DE&DEV_2684&SUBSYS_1"), value);
        assert_eq!((adapter.key.as_str(), adapter.problem), ("0002", Some(0)));
        assert_eq!(adapter.description.as_deref(), Some("NVIDIA GeForce RTX 4090"));
        assert_eq!(adapter.matching_device_id.as_deref(), Some(r"pci\ven_10de&dev_2684"));
        assert_eq!((adapter.qw_memory_size, adapter.memory_size), (Some(25_757_220_864), Some(4_293_918_720)));
        assert_eq!(adapter.location.as_deref(), Some("PCI bus 10, device 2, function 1"));
    }

    #[test]
    fn the_basic_driver_does_not_hide_which_card_it_is() {
        let value = |_: &str, name: &str| (name == "MatchingDeviceId").then(|| wide(r"PCI\CC_0300"));
        let adapter = registry(&device(r"PCI\VEN_10DE&DEV_2507&SUBSYS_1"), value);
        assert_eq!(adapter.matching_device_id.as_deref(), Some(r"PCI\VEN_10DE&DEV_2507&SUBSYS_1"));
        let mut on_another_bus = device(r"ACPI\QCOM0C36");
        on_another_bus.bus = None;
        assert_eq!(location(&on_another_bus).as_deref(), Some("PCI-Bus 10, Gerät 2, Funktion 1"));
    }

    #[test]
    fn an_adapter_s_numbers_get_their_form() {
        let told = Adapter {
            description: "x".into(),
            vendor_id: 0x10de,
            device_id: 1,
            subsys_id: 2,
            revision: 3,
            luid: [0xd1, 0xe5, 0, 0, 1, 0, 0, 0],
            dedicated_video: 5,
            dedicated_system: 0,
            shared_system: 7,
            flags: SOFTWARE,
            local: None,
            non_local: None,
            uma: Some(false),
            driver_version: Some((0x20 << 48) | (0xf << 16) | 0x17ce),
        };
        let adapter = adapter(&told);
        assert_eq!(adapter.luid.as_deref(), Some("d1e5000001000000"));
        assert_eq!(adapter.driver_version.as_deref(), Some("32.0.15.6094"));
        assert!(adapter.software && !adapter.remote);
    }

    #[test]
    fn power_has_linux_words() {
        let states = |ac_line, battery_flag| {
            let supplies = power(PowerStatus { ac_line, battery_flag });
            let word = |supply: &PowerSupply, key: &str| supply.attributes.get(key).cloned().unwrap_or_default();
            supplies.iter().map(|supply| word(supply, "online") + &word(supply, "status")).collect::<Vec<_>>()
        };
        assert_eq!(states(1, 128), ["1"], "a desktop");
        assert_eq!(states(0, 1), ["0", "Discharging"]);
        assert_eq!(states(1, 9), ["1", "Charging"]);
        assert_eq!(states(255, 255), Vec::<String>::new());
    }
}
