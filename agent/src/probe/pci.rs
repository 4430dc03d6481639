//! PCI addresses and names, as different sources write them.

use std::collections::BTreeMap;

/// `00000000:65:00.0` (NVML) and `0000:65:00.0` (ggml, Linux) → `0000:65:00.0`. `None` for what is no address.
pub fn normalize(address: &str) -> Option<String> {
    let (rest, function) = address.trim().rsplit_once('.')?;
    let mut parts = rest.rsplit(':');
    let (device, bus, domain) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0"));
    if parts.next().is_some() {
        return None;
    }
    let hex = |text: &str| u32::from_str_radix(text, 16).ok();
    Some(format!("{:04x}:{:02x}:{:02x}.{:x}", hex(domain)?, hex(bus)?, hex(device)?, hex(function)?))
}

/// `0x10de` → 0x10de, as the files below `/sys` write numbers.
pub fn number(text: &str) -> Option<u32> {
    u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
}

/// Vendor and device as they are written together: `10de:2684`.
pub fn id(vendor: u32, device: u32) -> String {
    format!("{vendor:04x}:{device:04x}")
}

/// The names of the wanted ids (`10de:2684`) out of the text of `pci.ids`.
pub fn names(text: &str, wanted: &[String]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut vendor = "";
    for line in text.lines() {
        // The list of classes follows those of vendors.
        if line.starts_with("C ") {
            break;
        }
        if line.starts_with('#') || line.starts_with("\t\t") {
            continue;
        }
        let Some((id, name)) = line.trim_start().split_once("  ") else { continue };
        if line.starts_with('\t') {
            let id = format!("{vendor}:{id}");
            if wanted.contains(&id) {
                found.insert(id, name.trim().to_owned());
            }
        } else {
            vendor = id;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_all_sources_meet() {
        for text in ["00000000:65:00.0", "0000:65:00.0", "65:00.0", "0000:65:00.0\n"] {
            assert_eq!(normalize(text).as_deref(), Some("0000:65:00.0"), "{text}");
        }
        assert_eq!(normalize("00000000:0A:1F.1").as_deref(), Some("0000:0a:1f.1"));
        for wrong in ["", "65", "a:b:c:d.0", "zz:00.0", "65:00"] {
            assert_eq!(normalize(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_are_found_by_vendor_and_device() {
        let text = "# comment\n1002  AMD\n\t164e  Raphael\n\t\t1043 0001  ASUS\n10de  NVIDIA Corporation\n\t2684  AD102 [GeForce RTX 4090]\n\t164e  Not this\nC 03  Display controller\n\t00  VGA\n";
        let wanted = ["1002:164e".to_owned(), "10de:2684".to_owned(), "8086:1234".to_owned()];
        let names = names(text, &wanted);
        assert_eq!(names.len(), 2);
        assert_eq!(names["1002:164e"], "Raphael");
        assert_eq!(names["10de:2684"], "AD102 [GeForce RTX 4090]");
        assert_eq!(number("0x10de\n"), Some(0x10de));
    }
}
