//! Machines in few words, as their probes would answer; values are made up after public documentation.

use muster_proto::{Bytes, ChassisKind, DeviceKind, GpuVendor, ObstacleKind};
use serde_json::{Value, json};

use super::super::raw::RawMachine;
use super::{Assembled, assemble};

fn machine(value: Value) -> Assembled {
    let mut raw: RawMachine = serde_json::from_value(value).expect("a machine");
    if raw.engine.backends.is_empty() {
        raw.engine.backends = vec!["CPU".into(), "Vulkan".into()];
    }
    if raw.system.platform.is_empty() {
        raw.system.platform = "linux-x86_64".into();
    }
    assemble(&raw)
}

/// The files of one GPU on PCI.
fn card(address: &str, vendor: &str, device: &str, driver: &str, more: &[(&str, &str)]) -> Vec<(String, Value)> {
    let folder = format!("bus/pci/devices/{address}");
    let mut files = vec![
        (format!("{folder}/class"), json!("0x030000")),
        (format!("{folder}/vendor"), json!(vendor)),
        (format!("{folder}/device"), json!(device)),
    ];
    if !driver.is_empty() {
        files.push((format!("{folder}/driver"), json!({ "link": format!("../../bus/pci/drivers/{driver}") })));
    }
    files.extend(more.iter().map(|(name, text)| (format!("{folder}/{name}"), json!(text))));
    files
}

fn drm(cards: &[Vec<(String, Value)>], nodes: &Value) -> Value {
    let files: serde_json::Map<String, Value> = cards.iter().flatten().cloned().collect();
    json!({ "ok": { "files": files, "nodes": nodes } })
}

fn adapter(name: &str, ids: (u32, u32), kind: &str, driver: &str, bus: Option<&str>, heap: u64) -> Value {
    json!({
        "name": name, "vendor_id": ids.0, "device_id": ids.1, "kind": kind, "driver_name": driver, "pci_bus_id": bus,
        "heaps": [{ "size": heap, "device_local": true, "budget": heap / 2 }],
    })
}

fn device(name: &str, description: &str, kind: &str, backend: &str, bus: Option<&str>) -> Value {
    json!({ "name": name, "description": description, "kind": kind, "backend": backend, "pci_bus_id": bus,
        "memory_total": 1_u64 << 33, "memory_free": 1_u64 << 32, "uuid": null, "driver": null })
}

const GIB: u64 = 1 << 30;

#[test]
fn one_integrated_gpu_of_six_drivers_is_one() {
    let one =
        |driver: &str| adapter("Intel(R) UHD Graphics 770", (0x8086, 0x4680), "integrated", driver, None, 16 * GIB);
    let adapters: Vec<Value> = ["a", "b", "c", "d", "e", "f"].iter().map(|driver| one(driver)).collect();
    let with_sysfs = machine(json!({
        "drm": drm(&[card("0000:00:02.0", "0x8086", "0x4680", "i915", &[("drm/renderD128", "")])], &json!({"dri/renderD128": {"usable": true}})),
        "vulkan": { "ok": { "adapters": adapters } },
    }));
    let without = machine(json!({ "vulkan": { "ok": { "adapters": adapters } } }));
    for machine in [with_sysfs, without] {
        assert_eq!(machine.gpus.len(), 1, "{:#?}", machine.gpus);
        let gpu = &machine.gpus[0];
        assert_eq!((gpu.kind, gpu.unified_memory, gpu.memory_total), (DeviceKind::IntegratedGpu, true, None));
        assert_eq!(gpu.memory_shared, Some(Bytes::from_gib(16)));
    }
}

#[test]
fn two_equal_cards_stay_two_with_and_without_addresses() {
    let one = |bus| adapter("NVIDIA GeForce RTX 3090", (0x10de, 0x2204), "discrete", "NVIDIA", bus, 24 * GIB);
    let nvml = |index: u32, bus: &str| {
        json!({"index": index, "name": "NVIDIA GeForce RTX 3090", "uuid": format!("GPU-{index}"),
        "pci_bus_id": bus, "pci_device_id": 0x2204_10de, "memory": {"total": 24 * GIB, "free": 23 * GIB, "used": GIB}})
    };
    let cards = [nvml(0, "00000000:01:00.0"), nvml(1, "00000000:41:00.0")];
    for buses in [[Some("0000:01:00.0"), Some("0000:41:00.0")], [None, None]] {
        let machine = machine(json!({
            "nvml": { "ok": { "driver_version": "580.95.05", "cuda_version": 13000, "devices": cards } },
            "vulkan": { "ok": { "adapters": [one(buses[0]), one(buses[1])] } },
            "ggml": { "ok": [
                device("CUDA0", "NVIDIA GeForce RTX 3090", "discrete_gpu", "CUDA", buses[0]),
                device("CUDA1", "NVIDIA GeForce RTX 3090", "discrete_gpu", "CUDA", buses[1]),
                device("Vulkan0", "NVIDIA GeForce RTX 3090", "discrete_gpu", "Vulkan", buses[0]),
                device("Vulkan1", "NVIDIA GeForce RTX 3090", "discrete_gpu", "Vulkan", buses[1]),
                device("CPU", "Xeon", "cpu", "CPU", None),
            ] },
        }));
        assert_eq!(machine.gpus.len(), 2, "{:#?}", machine.gpus);
        let engine: Vec<_> = machine.gpus.iter().map(|gpu| gpu.engine_device.as_deref()).collect();
        assert_eq!(engine, [Some("CUDA0"), Some("CUDA1")]);
        assert_eq!(machine.gpus[1].cuda_version.as_deref(), Some("13.0"));
        assert_eq!(machine.gpus[0].driver.as_deref(), Some("nvidia 580.95.05"));
        let devices: Vec<_> = machine.devices.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(devices, ["CUDA0", "CUDA1", "CPU"], "a GPU through two backends is one device");
        assert_eq!(machine.devices[1].uuid.as_deref(), Some("GPU-1"));
        assert_eq!(machine.devices[1].driver.as_deref(), Some("580.95.05"));
    }
}

#[test]
fn a_software_renderer_is_no_gpu_and_said_to_be_none() {
    let machine = machine(json!({
        "vulkan": { "ok": { "adapters": [adapter("llvmpipe (LLVM 15.0.6, 256 bits)", (0x1_0005, 0), "cpu", "llvmpipe", None, 4 * GIB)] } },
        "ggml": { "ok": [
            device("Vulkan0", "llvmpipe (LLVM 15.0.6, 256 bits)", "discrete_gpu", "Vulkan", None),
            device("CPU", "Xeon", "cpu", "CPU", None),
        ] },
    }));
    assert!(machine.gpus.is_empty(), "{:#?}", machine.gpus);
    assert_eq!(machine.devices.len(), 2);
    assert!(machine.failures.iter().any(|failure| failure.reason.contains("software renderer")));
}

#[test]
fn an_apu_has_a_carve_out_and_main_memory() {
    let files = [
        ("mem_info_vram_total", "536870912"),
        ("mem_info_vram_used", "100000000"),
        ("mem_info_gtt_total", "16106127360"),
        ("drm/renderD128", ""),
    ];
    let mut apu = card("0000:c4:00.0", "0x1002", "0x9999", "amdgpu", &files);
    apu.push(("bus/pci/devices/0000:c4:00.2/vendor".into(), json!("0x1022")));
    let machine = machine(json!({
        "system": { "platform": "linux-x86_64", "memory_total": 32 * GIB },
        "drm": drm(&[apu], &json!({"dri/renderD128": {"usable": true}})),
        "vulkan": { "ok": { "adapters": [adapter("AMD Radeon 780M Graphics (RADV PHOENIX)", (0x1002, 0x9999), "integrated", "radv", Some("0000:c4:00.0"), 10 * GIB)] } },
        "ggml": { "ok": [device("Vulkan0", "AMD Radeon 780M Graphics (RADV PHOENIX)", "integrated_gpu", "Vulkan", None)] },
    }));
    let [gpu] = &machine.gpus[..] else { panic!("{:#?}", machine.gpus) };
    assert_eq!(gpu.name, "AMD Radeon 780M Graphics");
    assert_eq!((gpu.kind, gpu.unified_memory), (DeviceKind::IntegratedGpu, true));
    assert_eq!((gpu.memory_total, gpu.memory_shared), (Some(Bytes::from_mib(512)), Some(Bytes::from_gib(15))));
    assert_eq!(gpu.engine_device.as_deref(), Some("Vulkan0"));
    assert_eq!(gpu.obstacle, None);
}

#[test]
fn what_is_in_the_way_is_named_in_the_order_of_mending() {
    let amd = |driver: &str, nodes: Value, vulkan: Value, backends: Value| {
        let files = [("mem_info_vram_total", "25753026560"), ("drm/renderD128", "")];
        let machine = machine(json!({
            "session": { "user": "ann" },
            "engine": { "backends": backends },
            "drm": drm(&[card("0000:03:00.0", "0x1002", "0x744c", driver, &files)], &nodes),
            "vulkan": vulkan,
            "ggml": { "ok": [device("CPU", "Ryzen", "cpu", "CPU", None)] },
        }));
        let [gpu] = &machine.gpus[..] else { panic!("{:#?}", machine.gpus) };
        let obstacle = gpu.obstacle.clone().expect("an obstacle");
        assert!(gpu.memory_total.is_some() && gpu.engine_device.is_none());
        (obstacle.kind, obstacle.remedy.expect("a remedy"))
    };
    let (open, closed) =
        (json!({"dri/renderD128": {"usable": true}}), json!({"dri/renderD128": {"usable": false, "group": "render"}}));
    let none = json!({ "failed": { "reason": "no loader", "absent": true } });
    let radv = json!({ "ok": { "adapters": [adapter("AMD Radeon RX 7900 XTX", (0x1002, 0x744c), "discrete", "radv", Some("0000:03:00.0"), 24 * GIB)] } });
    let both = json!(["CPU", "Vulkan"]);
    let (kind, remedy) = amd("", open.clone(), none.clone(), both.clone());
    assert_eq!(kind, ObstacleKind::DriverMissing);
    assert!(remedy.contains("firmware-amd-graphics"), "{remedy}");
    let (kind, remedy) = amd("amdgpu", closed, none.clone(), both.clone());
    assert_eq!(kind, ObstacleKind::NoPermission);
    assert!(remedy.contains("usermod -aG render ann"), "{remedy}");
    let (kind, remedy) = amd("amdgpu", open.clone(), none, both);
    assert_eq!(kind, ObstacleKind::ComputeDriverMissing);
    assert!(remedy.contains("mesa-vulkan-drivers"), "{remedy}");
    let (kind, _) = amd("amdgpu", open.clone(), radv.clone(), json!(["CPU"]));
    assert_eq!(kind, ObstacleKind::BackendMissing);
    let (kind, _) = amd("amdgpu", open.clone(), radv, json!(["CPU", "Vulkan"]));
    assert_eq!(kind, ObstacleKind::Unsupported);
    let (kind, _) = amd("amdgpu", open, json!({ "timed_out": { "after_ms": 8000 } }), json!(["CPU", "Vulkan"]));
    assert_eq!(kind, ObstacleKind::TimedOut);
}

#[test]
fn nvml_half_broken_loses_only_what_it_did_not_say() {
    let machine = machine(json!({
        "nvml": { "ok": { "driver_version": "550.54", "devices": [{
            "index": 0, "name": "NVIDIA T600", "pci_bus_id": "00000000:01:00.0", "pci_device_id": 0x1fb1_10de,
            "errors": {"memory": "an internal driver error occurred", "ecc": "the requested operation is not available on the target device"},
        }] } },
        "vulkan": { "ok": { "adapters": [adapter("NVIDIA T600", (0x10de, 0x1fb1), "discrete", "NVIDIA", Some("0000:01:00.0"), 4 * GIB)] } },
        "ggml": { "ok": [device("Vulkan0", "NVIDIA T600", "discrete_gpu", "Vulkan", Some("0000:01:00.0"))] },
    }));
    let [gpu] = &machine.gpus[..] else { panic!("{:#?}", machine.gpus) };
    assert_eq!((gpu.memory_total, gpu.memory_free), (Some(Bytes::from_gib(4)), Some(Bytes::from_gib(2))));
    let [failure] = &machine.failures[..] else { panic!("{:?}", machine.failures) };
    assert!(failure.reason.contains("memory") && !failure.reason.contains("ecc"), "{failure:?}");
}

#[test]
fn mig_slices_are_devices_of_their_own() {
    let slice = |index: u32| {
        json!({"index": index, "name": "NVIDIA A100 MIG 3g.20gb", "uuid": format!("MIG-{index}"),
        "memory": {"total": 20 * GIB, "free": 19 * GIB, "used": GIB}})
    };
    let machine = machine(json!({
        "engine": { "backends": ["CPU", "CUDA"] },
        "nvml": { "ok": { "devices": [{
            "index": 0, "name": "NVIDIA A100-SXM4-40GB", "uuid": "GPU-x", "pci_bus_id": "00000000:01:00.0", "mig": true,
            "memory": {"total": 40 * GIB, "free": 38 * GIB, "used": 2 * GIB}, "slices": [slice(0), slice(1)],
        }] } },
        "ggml": { "ok": [device("CUDA0", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "discrete_gpu", "CUDA", Some("0000:01:00.0"))] },
    }));
    assert_eq!(machine.gpus.len(), 3);
    assert_eq!((machine.gpus[0].mig, machine.gpus[0].engine_device.as_deref()), (Some(true), None));
    assert_eq!(machine.gpus[1].slice_of.as_deref(), Some("GPU-x"));
    assert_eq!(machine.gpus[1].engine_device.as_deref(), Some("CUDA0"));
    assert_eq!(machine.gpus[1].memory_total, Some(Bytes::from_gib(20)));
    assert!(machine.gpus[2].obstacle.is_some() && machine.gpus[2].engine_device.is_none());
}

#[test]
fn windows_sizes_have_64_bits_and_copies_are_one() {
    let dxgi = |luid: &str| {
        json!({"description": "NVIDIA GeForce RTX 4090", "vendor_id": 0x10de, "device_id": 0x2684, "luid": luid,
        "dedicated_video": 25_386_352_640_u64, "shared_system": 34_000_000_000_u64})
    };
    let machine = machine(json!({
        "system": { "platform": "windows-x86_64", "memory_total": 64 * GIB },
        "dxgi": { "ok": [
            dxgi("0100000000000000"), dxgi("0200000000000000"),
            {"description": "Intel(R) UHD Graphics 770", "vendor_id": 0x8086, "device_id": 0x4680, "dedicated_video": 134_217_728, "shared_system": 34_000_000_000_u64},
            {"description": "Microsoft Basic Render Driver", "vendor_id": 0x1414, "device_id": 0x8c, "software": true},
        ] },
        "registry": { "ok": [
            {"key": "0000", "description": "NVIDIA GeForce RTX 4090", "matching_device_id": "pci\\ven_10de&dev_2684", "driver_version": "32.0.15.6094",
             "qw_memory_size": 25_757_220_864_u64, "memory_size": 4_293_918_720_u32, "location": "PCI bus 1, device 0, function 0"},
            {"key": "0001", "description": "Intel(R) UHD Graphics 770", "matching_device_id": "PCI\\VEN_8086&DEV_4680", "memory_size": 1_073_741_824},
            {"key": "0002", "description": "NVIDIA GeForce GTX 1070", "matching_device_id": "PCI\\VEN_10DE&DEV_1B81", "qw_memory_size": 8_589_934_592_u64},
        ] },
    }));
    let [card, chip] = &machine.gpus[..] else { panic!("{:#?}", machine.gpus) };
    assert_eq!((card.vendor, card.kind), (GpuVendor::Nvidia, DeviceKind::DiscreteGpu));
    assert_eq!(card.memory_total, Some(Bytes::new(25_386_352_640)));
    assert_eq!(card.pci_bus_id.as_deref(), Some("0000:01:00.0"));
    assert_eq!(card.driver.as_deref(), Some("32.0.15.6094"));
    assert_eq!((chip.vendor, chip.kind), (GpuVendor::Intel, DeviceKind::IntegratedGpu));
}

#[test]
fn apple_has_a_working_set() {
    let machine = machine(json!({
        "system": { "platform": "macos-aarch64", "memory_total": 36 * GIB },
        "engine": { "backends": ["CPU", "Metal"] },
        "metal": { "ok": [{"name": "Apple M3 Max", "registry_id": 4_294_968_000_u64, "recommended_max_working_set": 27 * GIB, "unified_memory": true}] },
        "ggml": { "ok": [
            device("MTL0", "Apple M3 Max", "discrete_gpu", "MTL", None),
            device("BLAS", "Accelerate", "accelerator", "BLAS", None),
            device("CPU", "Apple M3 Max", "cpu", "CPU", None),
        ] },
    }));
    let [gpu] = &machine.gpus[..] else { panic!("{:#?}", machine.gpus) };
    assert_eq!((gpu.vendor, gpu.kind, gpu.unified_memory), (GpuVendor::Apple, DeviceKind::IntegratedGpu, true));
    assert_eq!((gpu.memory_total, gpu.memory_shared), (None, Some(Bytes::from_gib(27))));
    assert_eq!(gpu.engine_device.as_deref(), Some("MTL0"));
    assert_eq!(machine.devices.len(), 3);
}

#[test]
fn a_laptop_with_two_gpus_keeps_them_apart() {
    let machine = machine(json!({
        "drm": drm(
            &[
                card("0000:00:02.0", "0x8086", "0x46a6", "i915", &[("drm/renderD128", "")]),
                card("0000:01:00.0", "0x10de", "0x2520", "nouveau", &[("drm/renderD129", "")]),
            ],
            &json!({"dri/renderD128": {"usable": true}, "dri/renderD129": {"usable": true}}),
        ),
        "vulkan": { "ok": { "adapters": [adapter("Intel(R) Iris(R) Xe Graphics (ADL GT2)", (0x8086, 0x46a6), "integrated", "Intel open-source Mesa driver", Some("0000:00:02.0"), 12 * GIB)] } },
        "ggml": { "ok": [device("Vulkan0", "Intel(R) Iris(R) Xe Graphics (ADL GT2)", "integrated_gpu", "Vulkan", Some("0000:00:02.0"))] },
        "dmi": { "ok": {"sys_vendor": "LENOVO", "product_name": "21CB", "product_version": "ThinkPad X1 Extreme", "chassis_type": "10"} },
        "power": { "ok": [
            {"name": "BAT0", "attributes": {"type": "Battery", "status": "Discharging", "present": "1"}},
            {"name": "AC", "attributes": {"type": "Mains", "online": "0"}},
            {"name": "hidpp_battery_0", "attributes": {"type": "Battery", "status": "Full", "scope": "Device"}},
        ] },
    }));
    let [chip, card] = &machine.gpus[..] else { panic!("{:#?}", machine.gpus) };
    assert_eq!((chip.kind, chip.engine_device.as_deref()), (DeviceKind::IntegratedGpu, Some("Vulkan0")));
    let obstacle = card.obstacle.as_ref().expect("nouveau is one");
    assert_eq!((card.kind, obstacle.kind), (DeviceKind::DiscreteGpu, ObstacleKind::ComputeDriverMissing));
    assert!(obstacle.remedy.as_ref().is_some_and(|remedy| remedy.contains("NVIDIA's driver")));
    let chassis = &machine.chassis;
    assert_eq!((chassis.kind, chassis.battery, chassis.on_mains), (Some(ChassisKind::Laptop), Some(true), Some(false)));
    assert_eq!(chassis.model.as_deref(), Some("ThinkPad X1 Extreme"));
}

#[test]
fn what_nobody_misses_is_no_failure() {
    let absent = json!({ "failed": { "reason": "not installed", "absent": true } });
    let quiet = machine(json!({ "nvml": absent, "vulkan": absent, "drm": absent, "dmi": absent, "power": absent }));
    assert_eq!(quiet.failures, []);
    let hangs =
        machine(json!({ "nvml": { "timed_out": { "after_ms": 8000 } }, "ggml": { "failed": { "reason": "x" } } }));
    assert_eq!(hangs.failures.len(), 2);
    assert_eq!((quiet.remote_session, quiet.chassis.battery), (Some(false), None));
}
