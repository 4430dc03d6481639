//! Devices that the kernel has put to sleep while nobody uses them (runtime suspend, Documentation/power/runtime_pm), as a
//! laptop's graphics card mostly is. Whoever asks a driver about such a card wakes it, which costs seconds of battery.
//!
//! Reads states, which wakes nobody. It does not know what is asked of whom.

use std::path::Path;

/// Whether a device, by its folder below `/sys`, sleeps.
pub fn is_asleep(device: &Path) -> bool {
    std::fs::read_to_string(device.join("power/runtime_status")).is_ok_and(|status| status.trim() == "suspended")
}
