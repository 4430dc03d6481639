//! What keeps llama.cpp from a GPU, and the remedy: asked only of a GPU that llama.cpp does not show.
//!
//! In the order in which somebody would mend it: the kernel's driver, the right to use it, the driver that computes, the
//! engine's build.

use muster_proto::{GpuVendor, Obstacle, ObstacleKind};

use super::super::raw::{DeviceNode, ProbeResult, RawMachine};
use super::join::Part;
use super::sight::{Source, is_software};

/// The first thing that stands in the way.
pub fn of(raw: &RawMachine, part: &Part<'_>) -> Option<Obstacle> {
    let vendor = part.vendor();
    if vendor == GpuVendor::Other && !part.seen_by(Source::Vulkan) {
        return obstacle(ObstacleKind::Unsupported, "it shows a picture and cannot compute", None);
    }
    kernel_driver(raw, part, vendor)
        .or_else(|| windows_driver(part))
        .or_else(|| management(raw, part, vendor))
        .or_else(|| permission(raw, part, vendor))
        .or_else(|| compute_driver(raw, part, vendor))
        .or_else(|| backend(raw, vendor))
        .or_else(|| other_of_a_mac(raw))
        .or_else(|| engine(raw))
}

#[expect(clippy::unnecessary_wraps, reason = "every caller answers with one or none")]
fn obstacle(kind: ObstacleKind, text: impl Into<String>, remedy: Option<&str>) -> Option<Obstacle> {
    Some(Obstacle { kind, text: text.into(), remedy: remedy.map(ToOwned::to_owned) })
}

/// Linux: the driver that the kernel has bound to it.
fn kernel_driver(raw: &RawMachine, part: &Part<'_>, vendor: GpuVendor) -> Option<Obstacle> {
    let on_pci = part.says(Source::Drm, |sighting| sighting.bus.clone())?;
    let driver = part.says(Source::Drm, |sighting| sighting.driver_name);
    match (driver, vendor) {
        (None, _) => {
            let remedy = match vendor {
                GpuVendor::Nvidia => {
                    "install NVIDIA's driver (Debian: `apt install nvidia-driver`, Ubuntu: `ubuntu-drivers install`, \
                     Fedora: `dnf install akmod-nvidia`), then restart"
                }
                GpuVendor::Amd => {
                    "install its firmware (Debian: `apt install firmware-amd-graphics`) and a kernel that knows this \
                     card, then restart; see `dmesg | grep amdgpu`"
                }
                GpuVendor::Intel => {
                    "install its firmware (Debian: `apt install firmware-intel-graphics`) and a kernel that knows this \
                     chip, then restart; see `dmesg | grep -e i915 -e xe`"
                }
                _ => "install its driver, then restart",
            };
            obstacle(
                ObstacleKind::DriverMissing,
                format!("the GPU is there ({on_pci}), and no driver of the kernel is bound to it"),
                Some(remedy),
            )
        }
        (Some(name @ ("vfio-pci" | "pci-stub" | "xen-pciback")), _) => obstacle(
            ObstacleKind::DriverMissing,
            format!("it is set aside for a virtual machine (driver {name})"),
            Some("run the agent in that machine, or take the card out of the settings of vfio and restart"),
        ),
        (Some("nouveau"), GpuVendor::Nvidia) if !part.seen_by(Source::Vulkan) => obstacle(
            ObstacleKind::ComputeDriverMissing,
            "the driver nouveau is bound to it, with which llama.cpp cannot compute",
            Some(
                "install NVIDIA's driver (Debian: `apt install nvidia-driver`, Ubuntu: `ubuntu-drivers install`, \
                 Fedora: `dnf install akmod-nvidia`), then restart",
            ),
        ),
        (Some("radeon"), GpuVendor::Amd) => obstacle(
            ObstacleKind::Unsupported,
            "the driver radeon is bound to it, which has no Vulkan",
            Some(
                "for GCN cards start the kernel with radeon.si_support=0 radeon.cik_support=0 amdgpu.si_support=1 amdgpu.cik_support=1",
            ),
        ),
        _ if raw.session.container.is_some()
            && render_nodes(raw, part).is_empty()
            && raw.drm.ok().is_some_and(|drm| drm.nodes.is_empty()) =>
        {
            let remedy = match vendor {
                GpuVendor::Nvidia => {
                    "start the container with `--gpus all` (needs nvidia-container-toolkit on the host)"
                }
                _ => "start the container with `--device /dev/dri`",
            };
            obstacle(ObstacleKind::NoPermission, "the container was not given the GPU's device nodes", Some(remedy))
        }
        _ => None,
    }
}

/// Windows: what the device manager says.
fn windows_driver(part: &Part<'_>) -> Option<Obstacle> {
    let entry = part.says(Source::Registry, |sighting| sighting.registry)?;
    let basic = entry.description.as_deref().is_some_and(|name| name.contains("Basic Display"))
        || entry.provider.as_deref() == Some("Microsoft");
    match entry.problem {
        Some(22) => obstacle(
            ObstacleKind::DriverBroken,
            "it is switched off in the device manager (code 22)",
            Some("switch it on in the device manager"),
        ),
        Some(28) => obstacle(
            ObstacleKind::DriverMissing,
            "no driver is installed for it (code 28)",
            Some("install the vendor's driver, or let Windows Update find one"),
        ),
        Some(14) => obstacle(
            ObstacleKind::DriverBroken,
            "its driver waits for a restart (code 14)",
            Some("restart the machine"),
        ),
        Some(code) if code != 0 => obstacle(
            ObstacleKind::DriverBroken,
            format!("Windows has stopped it (code {code})"),
            Some("install the vendor's newest driver and restart; if the code stays, the card may be damaged"),
        ),
        _ if basic => obstacle(
            ObstacleKind::DriverMissing,
            "Windows drives it with its basic display driver, which cannot compute",
            Some("install the vendor's driver"),
        ),
        _ => None,
    }
}

/// NVIDIA: what its management library says.
fn management(raw: &RawMachine, part: &Part<'_>, vendor: GpuVendor) -> Option<Obstacle> {
    // Through Mesa's own driver it computes without NVIDIA's library.
    if vendor != GpuVendor::Nvidia || part.says(Source::Drm, |sighting| sighting.driver_name) == Some("nouveau") {
        return None;
    }
    match &raw.nvml {
        ProbeResult::TimedOut { after_ms } => obstacle(
            ObstacleKind::TimedOut,
            format!("NVIDIA's driver did not answer within {} s", after_ms / 1000),
            Some("restart the machine; if it happens again, see `dmesg | grep -i xid`"),
        ),
        ProbeResult::Failed { reason, .. } if reason.contains("version mismatch") => obstacle(
            ObstacleKind::DriverBroken,
            "NVIDIA's driver was updated, and the kernel still runs the old one",
            Some("restart the machine"),
        ),
        ProbeResult::Failed { absent: true, .. } if reason_of(raw).contains("not loaded") => obstacle(
            ObstacleKind::DriverBroken,
            "NVIDIA's driver is installed, and the kernel has not loaded it",
            Some("restart the machine; with secure boot sign the module (`mokutil --sb-state`, `dkms status`)"),
        ),
        ProbeResult::Failed { absent: true, .. } => obstacle(
            ObstacleKind::ComputeDriverMissing,
            "the kernel's driver is there, NVIDIA's libraries (libnvidia-ml, libcuda) are not",
            Some("install them in the driver's version (Debian: `apt install libcuda1 libnvidia-ml1`)"),
        ),
        ProbeResult::Failed { reason, .. } => obstacle(
            ObstacleKind::DriverBroken,
            format!("NVIDIA's driver fails: {reason}"),
            Some("restart the machine; if it stays, install the driver again"),
        ),
        ProbeResult::Ok(_) => {
            let card = part.says(Source::Nvml, |sighting| sighting.nvml);
            let lost = card.and_then(|card| card.errors.values().find(|error| is_broken(error)));
            match (card, lost) {
                (_, Some(error)) => obstacle(
                    ObstacleKind::DriverBroken,
                    format!("NVIDIA's driver cannot use it: {error}"),
                    Some(
                        "restart the machine; if it happens again, see `dmesg | grep -i xid`, and check the card's power cables",
                    ),
                ),
                (None, _) => obstacle(
                    ObstacleKind::DriverBroken,
                    "NVIDIA's driver does not list this card",
                    Some("see `dmesg | grep -i nvrm`: older cards need an older branch of the driver"),
                ),
                _ => None,
            }
        }
        ProbeResult::Skipped => None,
    }
}

fn reason_of(raw: &RawMachine) -> &str {
    match &raw.nvml {
        ProbeResult::Failed { reason, .. } => reason,
        _ => "",
    }
}

/// Errors of NVML that concern the card and not one of its fields.
fn is_broken(error: &str) -> bool {
    ["fell off the bus", "requires a reset", "power cables", "infoROM", "interrupt issue"]
        .iter()
        .any(|words| error.contains(words))
}

fn render_nodes<'a>(raw: &'a RawMachine, part: &Part<'_>) -> Vec<(&'a str, &'a DeviceNode)> {
    let Some(drm) = raw.drm.ok() else { return Vec::new() };
    let ours = part.says(Source::Drm, |sighting| Some(sighting.nodes.clone())).unwrap_or_default();
    let nodes = drm.nodes.iter().filter(|(path, _)| ours.contains(path));
    nodes.map(|(path, node)| (path.as_str(), node)).collect()
}

/// Linux: whether this user may use the device nodes.
fn permission(raw: &RawMachine, part: &Part<'_>, vendor: GpuVendor) -> Option<Obstacle> {
    let drm = raw.drm.ok()?;
    let nvidia = part.says(Source::Drm, |sighting| sighting.driver_name) == Some("nvidia");
    let nodes = if vendor == GpuVendor::Nvidia && nvidia {
        drm.nodes.iter().filter(|(path, _)| *path == "nvidiactl").map(|(path, node)| (path.as_str(), node)).collect()
    } else {
        render_nodes(raw, part)
    };
    let (path, node) = nodes.iter().find(|(_, node)| !node.usable)?;
    let user = raw.session.user.as_deref().unwrap_or("this user");
    let remedy = match &node.group {
        Some(group) if group != "root" => {
            format!("add the user to the group {group} (`sudo usermod -aG {group} {user}`), then start the agent again")
        }
        _ => format!("let {user} read and write /dev/{path}, then start the agent again"),
    };
    obstacle(ObstacleKind::NoPermission, format!("no right to open the device node /dev/{path}"), Some(&remedy))
}

/// Vulkan's driver of this GPU, where llama.cpp would need it.
fn compute_driver(raw: &RawMachine, part: &Part<'_>, vendor: GpuVendor) -> Option<Obstacle> {
    let has = |name: &str| raw.engine.backends.iter().any(|backend| backend.starts_with(name));
    let native = match vendor {
        GpuVendor::Nvidia => has("CUDA") || !has("Vulkan"),
        GpuVendor::Amd => has("ROCm") || has("HIP"),
        GpuVendor::Intel => has("SYCL"),
        GpuVendor::Apple => true,
        _ => false,
    };
    let native = native || is_mac(raw);
    if native || part.seen_by(Source::Vulkan) {
        return None;
    }
    let linux = raw.system.platform.starts_with("linux");
    let package = match (vendor, linux) {
        (GpuVendor::Nvidia, true) => {
            "install the Vulkan part of NVIDIA's driver (Debian: `apt install nvidia-vulkan-icd libvulkan1`)"
        }
        (_, true) => {
            "install mesa-vulkan-drivers and libvulkan1 (Fedora: `dnf install mesa-vulkan-drivers vulkan-loader`, \
             Arch: `pacman -S vulkan-radeon` or `vulkan-intel`)"
        }
        (_, false) => "install the vendor's newest driver, which brings Vulkan",
    };
    match &raw.vulkan {
        ProbeResult::Failed { absent: true, .. } => {
            obstacle(ObstacleKind::ComputeDriverMissing, "the GPU is there, the Vulkan loader is not", Some(package))
        }
        ProbeResult::Failed { reason, .. } if reason.contains("INCOMPATIBLE_DRIVER") => {
            obstacle(ObstacleKind::ComputeDriverMissing, "the GPU is there, no Vulkan driver is", Some(package))
        }
        ProbeResult::Failed { reason, .. } => obstacle(
            ObstacleKind::DriverBroken,
            format!("Vulkan fails: {reason}"),
            Some("install the newest Vulkan driver; see what `vulkaninfo --summary` says"),
        ),
        ProbeResult::TimedOut { after_ms } => obstacle(
            ObstacleKind::TimedOut,
            format!("its Vulkan driver did not answer within {} s", after_ms / 1000),
            Some("restart the machine; if it happens again, install another version of the driver"),
        ),
        ProbeResult::Ok(answers) => {
            let software = answers.adapters.iter().find(|adapter| is_software(adapter));
            match software {
                // Mesa's software renderer comes with its other drivers: they are there, and do not take this GPU.
                Some(adapter) if vendor != GpuVendor::Nvidia => obstacle(
                    ObstacleKind::SoftwareRenderer,
                    format!("Vulkan has no driver for it; {} computes on the processor in its place", adapter.name),
                    Some(
                        "install the Vulkan driver of this GPU in a newer Mesa (Debian: mesa-vulkan-drivers of backports, \
                         Arch: vulkan-radeon or vulkan-intel); see `vulkaninfo --summary`",
                    ),
                ),
                _ => obstacle(
                    ObstacleKind::ComputeDriverMissing,
                    "the GPU is there, the Vulkan driver for it is not",
                    Some(package),
                ),
            }
        }
        ProbeResult::Skipped => None,
    }
}

/// The backends of the engine's build.
fn backend(raw: &RawMachine, vendor: GpuVendor) -> Option<Obstacle> {
    let wanted: &[&str] = match vendor {
        _ if is_mac(raw) => &["Metal", "MTL", "Vulkan"],
        GpuVendor::Nvidia => &["CUDA", "Vulkan"],
        GpuVendor::Amd => &["ROCm", "HIP", "Vulkan"],
        GpuVendor::Intel => &["SYCL", "Vulkan"],
        _ => &["Vulkan"],
    };
    let has = wanted.iter().any(|name| raw.engine.backends.iter().any(|backend| backend.starts_with(name)));
    if has || raw.engine.backends.is_empty() {
        return None;
    }
    let names = raw.engine.backends.join(", ");
    obstacle(
        ObstacleKind::BackendMissing,
        format!("this build of the engine computes on {names} alone"),
        Some("install the build of muster-agent with the GPU backend (feature `vulkan`)"),
    )
}

fn is_mac(raw: &RawMachine) -> bool {
    raw.system.platform.starts_with("macos")
}

/// llama.cpp's Metal takes the device that the system calls its default: of two the card.
fn other_of_a_mac(raw: &RawMachine) -> Option<Obstacle> {
    let takes_another = raw.ggml.ok()?.iter().any(|device| device.backend == "MTL" || device.backend == "Metal");
    if !is_mac(raw) || !takes_another {
        return None;
    }
    obstacle(ObstacleKind::Unsupported, "llama.cpp computes on one GPU of a Mac, and takes another one", None)
}

/// The engine itself.
fn engine(raw: &RawMachine) -> Option<Obstacle> {
    match &raw.ggml {
        ProbeResult::TimedOut { after_ms } => obstacle(
            ObstacleKind::TimedOut,
            format!("llama.cpp did not list its devices within {} s: a driver hangs", after_ms / 1000),
            Some("restart the machine; if it happens again, install another version of the driver"),
        ),
        ProbeResult::Failed { reason, .. } => obstacle(
            ObstacleKind::DriverBroken,
            format!("llama.cpp could not list its devices: {reason}"),
            Some("install the newest driver of the GPU"),
        ),
        _ => obstacle(
            ObstacleKind::Unsupported,
            "its driver is there, and llama.cpp does not take it: too old, or it lacks what llama.cpp needs",
            Some("install the newest driver of the GPU"),
        ),
    }
}
