//! NVIDIA's management library: which very card a ggml device is, and its driver.

use muster_proto::Device;
use nvml_wrapper::Nvml;

/// One NVIDIA card, as NVML names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// PCI address in ggml's form.
    pub pci_bus_id: String,
    /// The vendor's identifier of this very card.
    pub uuid: Option<String>,
    /// Driver version.
    pub driver: Option<String>,
}

/// Asks NVML. Blocks for as long as the driver takes.
///
/// # Errors
/// A sentence: the library is not there, or says no.
pub fn read() -> Result<Vec<Card>, String> {
    let nvml = Nvml::init().map_err(|error| error.to_string())?;
    let driver = nvml.sys_driver_version().ok();
    let count = nvml.device_count().map_err(|error| error.to_string())?;
    let cards = (0..count).filter_map(|index| {
        let device = nvml.device_by_index(index).ok()?;
        let bus = device.pci_info().ok()?.bus_id;
        Some(Card { pci_bus_id: normalize(&bus)?, uuid: device.uuid().ok(), driver: driver.clone() })
    });
    Ok(cards.collect())
}

/// Whether NVML should know this device.
pub fn is_nvidia(device: &Device) -> bool {
    device.backend.starts_with("CUDA") || device.description.to_ascii_lowercase().contains("nvidia")
}

/// Adds what NVML knows to the devices with the same PCI address.
pub fn join(devices: &mut [Device], cards: &[Card]) {
    for device in devices {
        let address = device.pci_bus_id.as_deref().and_then(normalize);
        if let Some(card) = cards.iter().find(|card| address.as_ref() == Some(&card.pci_bus_id)) {
            device.uuid = device.uuid.take().or_else(|| card.uuid.clone());
            device.driver = device.driver.take().or_else(|| card.driver.clone());
        }
    }
}

/// `00000000:65:00.0` (NVML) and `0000:65:00.0` (ggml, Linux) → `0000:65:00.0`.
fn normalize(address: &str) -> Option<String> {
    let (rest, function) = address.trim().rsplit_once('.')?;
    let mut parts = rest.rsplit(':');
    let (device, bus, domain) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0"));
    if parts.next().is_some() {
        return None;
    }
    let hex = |text: &str| u32::from_str_radix(text, 16).ok();
    Some(format!("{:04x}:{:02x}:{:02x}.{:x}", hex(domain)?, hex(bus)?, hex(device)?, hex(function)?))
}

#[cfg(test)]
mod tests {
    use muster_proto::DeviceKind;

    use super::*;

    #[test]
    fn addresses_of_both_sources_meet() {
        for text in ["00000000:65:00.0", "0000:65:00.0", "65:00.0", "0000:65:00.0\n"] {
            assert_eq!(normalize(text).as_deref(), Some("0000:65:00.0"), "{text}");
        }
        assert_eq!(normalize("00000000:0A:1F.1").as_deref(), Some("0000:0a:1f.1"));
        for wrong in ["", "65", "a:b:c:d.0", "zz:00.0", "65:00"] {
            assert_eq!(normalize(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_card_finds_its_device() {
        let mut devices = [Device {
            name: "CUDA0".into(),
            description: "NVIDIA GeForce RTX 3090".into(),
            kind: DeviceKind::DiscreteGpu,
            backend: "CUDA".into(),
            memory_total: None,
            memory_free: None,
            pci_bus_id: Some("0000:65:00.0".into()),
            uuid: None,
            driver: None,
        }];
        assert!(is_nvidia(&devices[0]));
        let card = |bus: &str, uuid: &str| Card {
            pci_bus_id: bus.into(),
            uuid: Some(uuid.into()),
            driver: Some("580.1".into()),
        };
        join(&mut devices, &[card("0000:17:00.0", "GPU-a"), card("0000:65:00.0", "GPU-b")]);
        assert_eq!(devices[0].uuid.as_deref(), Some("GPU-b"));
        assert_eq!(devices[0].driver.as_deref(), Some("580.1"));
    }
}
