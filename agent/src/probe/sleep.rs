//! Devices that the kernel has put to sleep while nobody uses them (runtime suspend, Documentation/power/runtime_pm), as a
//! laptop's graphics card mostly is. Whoever asks a driver about such a card wakes it, which costs seconds of battery.
//!
//! Reads states, which wakes nobody. It does not know what is asked of whom.

use std::path::Path;

/// Whether a device, by its folder below `/sys`, sleeps.
pub fn is_asleep(device: &Path) -> bool {
    std::fs::read_to_string(device.join("power/runtime_status")).is_ok_and(|status| status.trim() == "suspended")
}

/// How NVIDIA's cards are, all together: their library wakes all that it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nvidia {
    /// There are none.
    None,
    /// At least one sleeps.
    SomeAsleep,
    /// All are awake.
    Awake,
}

/// NVIDIA's cards below `/sys`.
pub fn nvidia(sys: &Path) -> Nvidia {
    let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let devices = std::fs::read_dir(sys.join("bus/pci/devices")).into_iter().flatten().flatten();
    let mut found = Nvidia::None;
    for folder in devices.map(|device| device.path()) {
        if text(&folder.join("vendor")).trim() == "0x10de" && text(&folder.join("class")).starts_with("0x03") {
            if is_asleep(&folder) {
                return Nvidia::SomeAsleep;
            }
            found = Nvidia::Awake;
        }
    }
    found
}
