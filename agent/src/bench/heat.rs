//! How hot a machine is, by Linux's sensors. It does not know what follows from that.

use std::path::Path;

use crate::probe::sleep;

/// So many degrees below critical are too hot to go on.
const MARGIN: f64 = 10.0;
/// Critical where a sensor does not say: what most processors are built for.
const USUAL_CRITICAL: f64 = 100.0;
/// Sensors that are not connected read nonsense beyond this.
const PLAUSIBLE: std::ops::Range<f64> = 1.0..150.0;

/// What the sensors say together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heat {
    /// The hottest sensor, in degrees Celsius.
    pub hottest: f64,
    /// The smallest distance of a sensor from its critical temperature, in degrees.
    pub below_critical: f64,
}

impl Heat {
    /// Whether a load should end.
    pub fn is_too_much(self) -> bool {
        self.below_critical < MARGIN
    }
}

/// Reads all sensors below `/sys`; `None` without one. Those of a device that sleeps are left alone: some drivers wake it to
/// ask, and it is not hot.
pub fn read(sys: &Path) -> Option<Heat> {
    let mut all: Option<Heat> = None;
    for device in std::fs::read_dir(sys.join("class/hwmon")).ok()?.flatten() {
        if sleep::is_asleep(&device.path().join("device")) {
            continue;
        }
        for entry in std::fs::read_dir(device.path()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(sensor) = name.to_str().and_then(|name| name.strip_suffix("_input")) else { continue };
            if !sensor.starts_with("temp") {
                continue;
            }
            // Thousandths of a degree.
            let degrees = |kind: &str| {
                let text = std::fs::read_to_string(device.path().join(format!("{sensor}_{kind}"))).ok()?;
                text.trim().parse::<f64>().ok().map(|value| value / 1000.0).filter(|value| PLAUSIBLE.contains(value))
            };
            let Some(now) = degrees("input") else { continue };
            let distance = degrees("crit").unwrap_or(USUAL_CRITICAL) - now;
            all = Some(match all {
                Some(heat) => {
                    Heat { hottest: heat.hottest.max(now), below_critical: heat.below_critical.min(distance) }
                }
                None => Heat { hottest: now, below_critical: distance },
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sensor_nearest_to_its_limit_counts() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(read(folder.path()), None);
        let file = |device: &str, name: &str, text: &str| {
            let device = folder.path().join("class/hwmon").join(device);
            std::fs::create_dir_all(&device).expect("created");
            std::fs::write(device.join(name), text).expect("written");
        };
        file("hwmon0", "temp1_input", "71000\n");
        file("hwmon0", "temp1_crit", "100000\n");
        file("hwmon1", "temp2_input", "66000\n");
        file("hwmon1", "temp2_crit", "84800\n");
        file("hwmon1", "temp3_input", "-128000\n");
        let heat = read(folder.path()).expect("two sensors");
        assert!((heat.hottest - 71.0).abs() < 1e-9 && (heat.below_critical - 18.8).abs() < 1e-9);
        assert!(!heat.is_too_much());
        // It is asleep, and this figure is of before.
        file("hwmon2", "temp1_input", "99000\n");
        file("hwmon2/device/power", "runtime_status", "suspended\n");
        assert_eq!(read(folder.path()), Some(heat));
        file("hwmon1", "temp2_input", "78000\n");
        assert!(read(folder.path()).expect("two sensors").is_too_much());
    }
}
