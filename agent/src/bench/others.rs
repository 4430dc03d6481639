//! [`Others`]: what others take of this machine's graphics cards, from all that says so: Linux's count for each program, NVIDIA's
//! library in a process of its own, and amdgpu's `gpu_busy_percent`. No card that sleeps is woken to ask.

use std::path::Path;

use super::gpu_use::GpuUse;
use crate::probe::nvml_use::{self, NvmlUse};
use crate::probe::sleep;
use crate::roots::Roots;

/// Watches the cards.
#[derive(Debug)]
pub struct Others {
    roots: Roots,
    programs: GpuUse,
    nvml: NvmlUse,
}

impl Others {
    /// Begins. `program` is this one, for the process that asks NVIDIA's library.
    pub fn start(roots: &Roots, program: &Path) -> Self {
        let mut programs = GpuUse::new(&roots.proc);
        programs.since_last(&[]);
        Self { roots: roots.clone(), programs, nvml: NvmlUse::start(program, &roots.sys) }
    }

    /// Returns when NVIDIA's library has answered once, or never will. Cancel-safe.
    pub async fn known(&mut self) {
        self.nvml.known().await;
    }

    /// The largest share of a card in use while nothing of ours computes, 0 to 1.
    pub fn before(&mut self) -> Option<f64> {
        let programs = self.programs.since_last(&[std::process::id()]);
        let nvidia = nvml_use::others(&self.nvml.newest(), None, |_| true);
        [programs, nvidia, busy_percent(&self.roots.sys)].into_iter().flatten().reduce(f64::max)
    }

    /// The same while the processes `own` compute, which do not count.
    pub fn beside(&mut self, own: &[u32]) -> Option<f64> {
        let programs = self.programs.since_last(own);
        let is_shown = |pid: u32| self.roots.proc.join(pid.to_string()).exists();
        let nvidia = nvml_use::others(&self.nvml.newest(), Some(own), is_shown);
        [programs, nvidia].into_iter().flatten().reduce(f64::max)
    }
}

/// amdgpu's own figure, where others' programs may not be looked at.
fn busy_percent(sys: &Path) -> Option<f64> {
    let cards = std::fs::read_dir(sys.join("class/drm")).into_iter().flatten().flatten();
    let devices = cards.map(|card| card.path().join("device")).filter(|device| !sleep::is_asleep(device));
    let shares = devices.filter_map(|device| {
        let text = std::fs::read_to_string(device.join("gpu_busy_percent")).ok()?;
        text.trim().parse::<u32>().ok().map(|percent| f64::from(percent) / 100.0)
    });
    shares.reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn amdgpu_says_how_busy_it_is_and_is_not_woken_to_say_so() {
        let root = tempfile::tempdir().expect("a folder");
        let put = |file: &str, text: &str| {
            let path = root.path().join("class/drm/card1/device").join(file);
            std::fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        let roots = Roots { sys: root.path().into(), dev: root.path().into(), proc: root.path().join("proc") };
        let mut others = Others::start(&roots, Path::new("no-such-program"));
        others.known().await;
        assert_eq!(others.before(), None);
        put("gpu_busy_percent", "37\n");
        assert_eq!(others.before(), Some(0.37));
        assert_eq!(others.beside(&[]), None, "it may be our own work");
        put("power/runtime_status", "suspended\n");
        assert_eq!(others.before(), None);
    }
}
