//! Whether a machine is on mains power, by Linux's power supplies. It does not know what follows from that.

use std::path::Path;

/// Whether it runs on mains, by what is below `/sys`; `None` where the system says nothing. A machine without a battery is
/// on mains.
pub fn on_mains(sys: &Path) -> Option<bool> {
    let supplies = sys.join("class/power_supply");
    let mut battery = None;
    let mut mains = None;
    for supply in std::fs::read_dir(supplies).ok()?.flatten() {
        let read = |name: &str| std::fs::read_to_string(supply.path().join(name)).unwrap_or_default().trim().to_owned();
        // Batteries of mice and headsets have the scope `Device`.
        if read("scope") == "Device" {
            continue;
        }
        match read("type").as_str() {
            "Mains" | "USB" => mains = Some(mains.unwrap_or(false) || read("online") == "1"),
            "Battery" => battery = Some(battery.unwrap_or(false) || read("status") == "Discharging"),
            _ => {}
        }
    }
    match (mains, battery) {
        (_, Some(true)) => Some(false),
        (_, None) | (None, Some(false)) => Some(true),
        (Some(online), Some(false)) => Some(online),
    }
}

/// Whether this machine has a battery of its own, by what is below `/sys`; a wireless mouse's is none. `None` where the system
/// says nothing.
pub fn has_battery(sys: &Path) -> Option<bool> {
    let supplies = std::fs::read_dir(sys.join("class/power_supply")).ok()?;
    Some(supplies.flatten().any(|supply| {
        let read = |name: &str| std::fs::read_to_string(supply.path().join(name)).unwrap_or_default().trim().to_owned();
        read("type") == "Battery" && read("scope") != "Device"
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supply(root: &Path, name: &str, files: &[(&str, &str)]) {
        let folder = root.join("class/power_supply").join(name);
        std::fs::create_dir_all(&folder).expect("created");
        for (file, text) in files {
            std::fs::write(folder.join(file), format!("{text}\n")).expect("written");
        }
    }

    #[test]
    fn a_laptop_is_told_from_a_desktop_with_a_mouse() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let root = folder.path();
        assert_eq!((on_mains(&root.join("absent")), has_battery(&root.join("absent"))), (None, None));
        supply(root, "hidpp_battery_0", &[("type", "Battery"), ("scope", "Device"), ("status", "Discharging")]);
        assert_eq!((on_mains(root), has_battery(root)), (Some(true), Some(false)));
        supply(root, "AC", &[("type", "Mains"), ("online", "1")]);
        supply(root, "BAT0", &[("type", "Battery"), ("status", "Charging")]);
        assert_eq!((on_mains(root), has_battery(root)), (Some(true), Some(true)));
        supply(root, "AC", &[("online", "0")]);
        supply(root, "BAT0", &[("status", "Discharging")]);
        assert_eq!(on_mains(root), Some(false));
    }
}
