//! Linux' GPUs below `/sys` and `/dev`: reads files, draws no conclusions.
//!
//! Runs in a probe's process ([`super::child`]): a driver that resets its card blocks even the reading of its files.

use std::collections::BTreeMap;
use std::path::Path;

use super::raw::{DeviceNode, DrmAnswers, ProbeResult, SysfsEntry};
use super::{pci, sleep};
use crate::roots::Roots;

/// Where distributions keep PCI's names.
const NAMES: [&str; 3] = ["/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids", "/var/lib/pciutils/pci.ids"];
/// What is read of a GPU's folder.
const FILES: [&str; 20] = [
    "vendor",
    "device",
    "subsystem_vendor",
    "subsystem_device",
    "class",
    "revision",
    "boot_vga",
    "enable",
    "driver",
    "physfn",
    "mem_info_vram_total",
    "mem_info_vram_used",
    "mem_info_gtt_total",
    "mem_info_gtt_used",
    "mem_info_vram_vendor",
    "unique_id",
    "lmem_total_bytes",
    "lmem_avail_bytes",
    "tile0/physical_vram_size_bytes",
    "power/runtime_status",
];
/// The same, but the kernel asks the card itself, and newer ones wake it for that.
const LINK_FILES: [&str; 4] = ["current_link_speed", "current_link_width", "max_link_speed", "max_link_width"];
/// What is read of a GPU that is not on PCI.
const PLATFORM_FILES: [&str; 3] = ["uevent", "modalias", "driver"];

/// Reads the files of all GPUs; `gently` leaves out what wakes one that sleeps.
pub fn ask(gently: bool) -> ProbeResult<DrmAnswers> {
    let Roots { sys, dev, proc: _ } = Roots::of_this_machine();
    read(&sys, &dev, gently)
}

fn read(sys: &Path, dev: &Path, gently: bool) -> ProbeResult<DrmAnswers> {
    let mut answers = DrmAnswers::default();
    let buses = sys.join("bus/pci/devices");
    let on_pci = names(&buses);
    for address in on_pci.iter().filter(|address| is_gpu(&buses.join(address))) {
        let folder = format!("bus/pci/devices/{address}");
        take(sys, &folder, &FILES, &mut answers.files);
        if !gently || !sleep::is_asleep(&sys.join(&folder)) {
            take(sys, &folder, &LINK_FILES, &mut answers.files);
        }
        for node in names(&sys.join(&folder).join("drm")) {
            answers.files.insert(format!("{folder}/drm/{node}"), SysfsEntry::Text(String::new()));
        }
        // What else is in the same place tells a processor's GPU from a card.
        let place = address.rsplit_once('.').map_or(address.as_str(), |(place, _)| place);
        for other in on_pci.iter().filter(|other| *other != address && other.starts_with(place)) {
            take(sys, &format!("bus/pci/devices/{other}"), &["vendor", "class"], &mut answers.files);
        }
    }
    for node in names(&sys.join("class/drm")) {
        let folder = format!("class/drm/{node}/device");
        // `card0-HDMI-A-1` is a connector.
        let is_node = (node.starts_with("card") || node.starts_with("renderD")) && !node.contains('-');
        if is_node && sys.join(&folder).exists() && !sys.join(&folder).join("vendor").exists() {
            take(sys, &folder, &PLATFORM_FILES, &mut answers.files);
        }
    }
    let drivers: Vec<String> = answers.files.iter().filter_map(|(path, entry)| driver(path, entry)).collect();
    for driver in drivers {
        take(sys, &format!("module/{driver}"), &["version"], &mut answers.files);
    }
    read_nodes(dev, &mut answers.nodes);
    answers.pci_names = pci_names(&answers.files);
    if answers.files.is_empty() && !buses.exists() && !sys.join("class/drm").exists() {
        return ProbeResult::absent(format!("{} shows no devices", sys.display()));
    }
    ProbeResult::Ok(answers)
}

/// A display controller, or an accelerator of AMD (class 12), as its Instinct cards are.
fn is_gpu(folder: &Path) -> bool {
    let number = |file| pci::number(&std::fs::read_to_string(folder.join(file)).ok()?);
    match number("class").map(|class| class >> 16) {
        Some(0x03) => true,
        Some(0x12) => number("vendor") == Some(0x1002),
        _ => false,
    }
}

fn driver(path: &str, entry: &SysfsEntry) -> Option<String> {
    match entry {
        SysfsEntry::Link { link } if path.ends_with("/driver") => link.rsplit('/').next().map(ToOwned::to_owned),
        _ => None,
    }
}

/// The names in a folder, sorted; none if it is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Reads files and links of a folder; what is not there is left out.
fn take(root: &Path, folder: &str, files: &[&str], into: &mut BTreeMap<String, SysfsEntry>) {
    for file in files {
        let name = format!("{folder}/{file}");
        let path = root.join(&name);
        let entry = match std::fs::symlink_metadata(&path) {
            Ok(data) if data.is_symlink() => match std::fs::read_link(&path) {
                Ok(link) => SysfsEntry::Link { link: link.to_string_lossy().into_owned() },
                Err(error) => SysfsEntry::Error { error: error.to_string() },
            },
            Ok(_) => match std::fs::read_to_string(&path) {
                Ok(text) => SysfsEntry::Text(text.trim_end().to_owned()),
                Err(error) => SysfsEntry::Error { error: error.to_string() },
            },
            Err(_) => continue,
        };
        into.insert(name, entry);
    }
}

fn read_nodes(dev: &Path, into: &mut BTreeMap<String, DeviceNode>) {
    let render = names(&dev.join("dri")).into_iter().filter(|name| name.starts_with("renderD"));
    let nvidia = names(dev).into_iter().filter(|name| name.starts_with("nvidia"));
    let others = ["kfd", "dxg"].into_iter().map(ToOwned::to_owned);
    for name in render.map(|name| format!("dri/{name}")).chain(nvidia).chain(others) {
        if let Some(node) = read_node(&dev.join(&name)) {
            into.insert(name, node);
        }
    }
}

/// Asks for the rights only: opening would wake a card that sleeps.
#[cfg(unix)]
fn read_node(path: &Path) -> Option<DeviceNode> {
    use std::os::unix::fs::MetadataExt as _;
    let data = std::fs::metadata(path).ok().filter(|data| !data.is_dir())?;
    let access = rustix::fs::access(path, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK);
    Some(DeviceNode {
        usable: access.is_ok(),
        error: access.err().map(|error| std::io::Error::from(error).to_string()),
        group: super::linux::group_name(data.gid()),
        mode: Some(data.mode() & 0o7777),
    })
}

#[cfg(not(unix))]
fn read_node(_: &Path) -> Option<DeviceNode> {
    None
}

fn pci_names(files: &BTreeMap<String, SysfsEntry>) -> BTreeMap<String, String> {
    let number = |path: &str| match files.get(path)? {
        SysfsEntry::Text(text) => pci::number(text),
        _ => None,
    };
    let folders = files.keys().filter_map(|path| path.strip_suffix("/device"));
    let wanted: Vec<String> = folders
        .filter_map(|folder| Some(pci::id(number(&format!("{folder}/vendor"))?, number(&format!("{folder}/device"))?)))
        .collect();
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    let text = NAMES.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
    pci::names(&String::from_utf8_lossy(&text), &wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_becomes_files_and_links() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        let card = "sys/bus/pci/devices/0000:03:00.0";
        write(&format!("{card}/class"), "0x030000\n");
        write(&format!("{card}/vendor"), "0x1002\n");
        write(&format!("{card}/device"), "0x744c\n");
        write(&format!("{card}/drm/renderD128/dev"), "226:128\n");
        std::os::unix::fs::symlink("../../../../bus/pci/drivers/amdgpu", root.path().join(card).join("driver"))
            .expect("linked");
        write("sys/bus/pci/devices/0000:03:00.1/class", "0x040300\n");
        write("sys/bus/pci/devices/0000:03:00.1/vendor", "0x1002\n");
        write("sys/bus/pci/devices/0000:04:00.0/class", "0x020000\n");
        write("sys/module/amdgpu/version", "6.12.12\n");
        write("sys/class/drm/card1/device/uevent", "DRIVER=v3d\n");
        write("sys/class/drm/card1-HDMI-A-1/device/uevent", "x\n");
        write("dev/dri/renderD128", "");
        write("dev/nvidiactl", "");
        let answers = read(&root.path().join("sys"), &root.path().join("dev"), false);
        let answers = answers.ok().expect("answered");
        let paths: Vec<&str> = answers.files.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            [
                "bus/pci/devices/0000:03:00.0/class",
                "bus/pci/devices/0000:03:00.0/device",
                "bus/pci/devices/0000:03:00.0/driver",
                "bus/pci/devices/0000:03:00.0/drm/renderD128",
                "bus/pci/devices/0000:03:00.0/vendor",
                "bus/pci/devices/0000:03:00.1/class",
                "bus/pci/devices/0000:03:00.1/vendor",
                "class/drm/card1/device/uevent",
                "module/amdgpu/version",
            ]
        );
        // Where it sleeps, the kernel is not made to ask the card.
        write(&format!("{card}/max_link_width"), "16\n");
        let link = |gently| {
            let answers = read(&root.path().join("sys"), &root.path().join("dev"), gently);
            answers.ok().expect("answered").files.contains_key("bus/pci/devices/0000:03:00.0/max_link_width")
        };
        assert!(link(false) && link(true));
        write(&format!("{card}/power/runtime_status"), "suspended\n");
        assert!(link(false) && !link(true));
        assert_eq!(answers.files["bus/pci/devices/0000:03:00.0/vendor"], SysfsEntry::Text("0x1002".into()));
        assert!(answers.nodes["dri/renderD128"].usable && answers.nodes.contains_key("nvidiactl"));
        let nothing = read(&root.path().join("none"), &root.path().join("none"), false);
        assert!(matches!(nothing, ProbeResult::Failed { absent: true, .. }));
    }
}
