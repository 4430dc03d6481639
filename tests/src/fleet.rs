//! A fleet that does not exist: thousands of desks with parts of the device table, for measuring and for samples.
//!
//! The same number and seed give the same fleet. Speeds in benchmarks are made from the published rates of the parts and
//! noise: good for load, no evidence of how fast anything is.

use std::collections::BTreeMap;
use std::sync::Mutex;

use muster_engine::device_table::{self, KnownDevice, Vendor};
use muster_proto::{
    BenchModel, BenchPoint, Benchmark, Bytes, Chassis, ChassisKind, Conditions, Cpu, Device, DeviceKind, Disk,
    EnrolmentState, Gpu, GpuVendor, Hardware, Inventory, Machine, MachineId, Memory, Obstacle, ObstacleKind, Os,
    Spread, Timestamp, TypicalFree, TypicalUse,
};

/// The moment that the fleet is looked at.
pub const NOW: Timestamp = Timestamp::from_unix_millis(1_763_817_000_000);

const DAY: u64 = 86_400;

/// Names of processors as the system tells them, and their cores.
const PROCESSORS: [(&str, u32); 8] = [
    ("AMD Ryzen 7 5800X 8-Core Processor", 8),
    ("AMD Ryzen 9 7950X 16-Core Processor", 16),
    ("AMD Ryzen 9 5950X 16-Core Processor", 16),
    ("Intel(R) Core(TM) i5-10400 CPU @ 2.90GHz", 6),
    ("Intel(R) Core(TM) i7-12700", 12),
    ("Intel(R) Core(TM) i9-10900X CPU @ 3.70GHz", 10),
    ("AMD Ryzen 5 3500 6-Core Processor", 6),
    ("Intel(R) Core(TM) i5-8500 CPU @ 3.00GHz", 6),
];

/// Steps through numbers that look like chance (SplitMix64).
struct Chance(u64);

impl Chance {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit.max(1)
    }

    fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).expect("small")]
    }

    /// From 1 − `spread` to 1 + `spread`.
    fn about(&mut self, spread: f64) -> f64 {
        1.0 + spread * (self.below(2001) as f64 / 1000.0 - 1.0)
    }
}

fn ago(seconds: u64) -> Timestamp {
    Timestamp::from_unix_millis(NOW.unix_millis() - i64::try_from(seconds * 1000).expect("small"))
}

/// So many desks, all accepted.
pub fn fleet(size: u32, seed: u64) -> Vec<Machine> {
    let cards: Vec<&KnownDevice> = device_table::all()
        .iter()
        .filter(|device| matches!(device.class.as_str(), "consumer-desktop" | "consumer-laptop" | "workstation"))
        .filter(|device| device.memory.is_some() && device.fp16.is_some())
        .collect();
    let mut chance = Chance(seed);
    (0..size).map(|index| machine(index, &cards, &mut chance)).collect()
}

fn machine(index: u32, cards: &[&'static KnownDevice], chance: &mut Chance) -> Machine {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&index.to_be_bytes());
    let hostname = format!("{}-{index:05}", chance.of(&["desk", "cad", "lab", "nb"]));
    let silent = chance.percent(2);
    let seen = if chance.percent(3) { chance.below(90 * DAY) } else { chance.below(DAY) };
    let inventory = (!silent).then(|| inventory(&hostname, seen, cards, chance));
    let benchmark = inventory.as_ref().filter(|_| chance.percent(70)).map(|inventory| benchmark(inventory, chance));
    let groups = [*chance.of(&["berlin", "munich", "remote"]), *chance.of(&["accounting", "design", "engineering"])];
    Machine {
        id: MachineId::from_bytes(id),
        hostname,
        enrolment: EnrolmentState::Accepted,
        enrolled_at: ago(100 * DAY),
        last_seen: (!silent).then(|| ago(seen)),
        online: !silent && seen < 3600,
        agent_version: Some("0.1.0".into()),
        inventory,
        benchmark,
        desired_generation: 0,
        bench_order: None,
        observed: None,
        groups: groups.map(str::to_owned).to_vec(),
    }
}

fn inventory(hostname: &str, seen: u64, cards: &[&'static KnownDevice], chance: &mut Chance) -> Inventory {
    let (brand, cores) = *chance.of(&PROCESSORS);
    let total = Bytes::from_gib(*chance.of(&[8, 16, 16, 32, 32, 64, 128]));
    let available = part(total, 0.65 * chance.about(0.3));
    let cpu = Device {
        name: "CPU".into(),
        description: brand.into(),
        kind: DeviceKind::Cpu,
        backend: "CPU".into(),
        memory_total: Some(total),
        memory_free: Some(available),
        pci_bus_id: None,
        uuid: None,
        driver: None,
    };
    let mut devices = Vec::new();
    let mut gpus = Vec::new();
    let number = if chance.percent(25) { 0 } else { 1 + u32::from(chance.percent(4)) };
    let card = *chance.of(cards);
    for slot in 0..number {
        let (device, gpu) = graphics(card, slot, chance);
        devices.extend(device);
        gpus.push(gpu);
    }
    devices.push(cpu);
    let typical = chance.percent(60).then(|| TypicalUse {
        since: ago(10 * DAY),
        until: ago(seen),
        samples: 2000,
        memory_available: part(available, 0.85),
        devices: devices
            .iter()
            .filter(|device| device.kind != DeviceKind::Cpu)
            .map(|device| TypicalFree {
                device: device.name.clone(),
                free: part(device.memory_free.unwrap_or(Bytes::ZERO), 0.95),
            })
            .collect(),
    });
    let disk = Bytes::from_gib(*chance.of(&[256, 512, 1024]));
    let kind = if hostname.starts_with("nb") { ChassisKind::Laptop } else { ChassisKind::Desktop };
    Inventory {
        collected_at: ago(seen),
        hostname: hostname.to_owned(),
        hardware_fingerprint: format!("{:064x}", chance.number()),
        os: Os {
            platform: "linux-x86_64".into(),
            name: Some((*chance.of(&["Debian GNU/Linux 12", "Ubuntu 24.04 LTS", "Fedora Linux 42"])).into()),
            kernel: None,
        },
        cpu: Cpu { brand: Some(brand.into()), physical_cores: Some(cores), threads: cores * 2, features: vec![] },
        memory: Memory { total, available },
        devices,
        store_disk: Some(Disk { total: disk, free: part(disk, chance.below(60) as f64 / 100.0) }),
        engine_build: muster_engine::BUILD.into(),
        failures: vec![],
        hardware: Hardware {
            gpus,
            chassis: Chassis { kind: Some(kind), ..Chassis::default() },
            remote_session: None,
            typical,
        },
    }
}

/// A card, and the device that llama.cpp makes of it; none where something is in the way.
fn graphics(card: &'static KnownDevice, slot: u32, chance: &mut Chance) -> (Option<Device>, Gpu) {
    let memory = card.memory.expect("chosen with memory");
    let free = part(memory, 0.9 * chance.about(0.08));
    let nvidia = card.vendor == Vendor::Nvidia;
    let brand = if nvidia { "NVIDIA" } else { "AMD" };
    let name = format!("{brand} {}", card.name);
    let (backend, driver) = if nvidia { ("CUDA", "nvidia 580.95.05") } else { ("Vulkan", "amdgpu, Mesa 25.0.7") };
    let obstacle = chance.percent(8).then(|| {
        if chance.percent(70) {
            Obstacle {
                kind: ObstacleKind::ComputeDriverMissing,
                text: "the GPU is there, its Vulkan driver is not".into(),
                remedy: Some(if nvidia { "install nvidia-driver" } else { "install mesa-vulkan-drivers" }.into()),
            }
        } else {
            Obstacle {
                kind: ObstacleKind::NoPermission,
                text: "no right to open /dev/dri/renderD128".into(),
                remedy: Some("add the agent's user to the group render".into()),
            }
        }
    });
    let device = format!("{backend}{slot}");
    let pci = format!("0000:0{}:00.0", slot + 1);
    let listed = obstacle.is_none().then(|| Device {
        name: device.clone(),
        description: name.clone(),
        kind: DeviceKind::DiscreteGpu,
        backend: backend.into(),
        memory_total: Some(memory),
        memory_free: Some(free),
        pci_bus_id: Some(pci.clone()),
        uuid: None,
        driver: Some(driver.into()),
    });
    let gpu = Gpu {
        name,
        vendor: if nvidia { GpuVendor::Nvidia } else { GpuVendor::Amd },
        kind: DeviceKind::DiscreteGpu,
        pci_bus_id: Some(pci),
        pci_id: None,
        uuid: None,
        driver: Some(driver.into()),
        memory_total: Some(memory),
        memory_free: Some(free),
        memory_shared: None,
        unified_memory: false,
        compute_capability: None,
        cuda_version: None,
        pcie: None,
        power_limit_watts: card.tdp_watts,
        temperature_celsius: None,
        throttle_reasons: vec![],
        ecc: None,
        mig: None,
        slice_of: None,
        used_by: vec![],
        engine_device: listed.is_some().then_some(device),
        obstacle,
        sources: vec!["synthetic".into()],
    };
    (listed, gpu)
}

fn part(bytes: Bytes, share: f64) -> Bytes {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a size")]
    Bytes::new((bytes.get() as f64 * share) as u64)
}

/// The device of that name; looked for once.
fn known(name: &str) -> Option<&'static KnownDevice> {
    static FOUND: Mutex<BTreeMap<String, Option<&'static KnownDevice>>> = Mutex::new(BTreeMap::new());
    let mut found = FOUND.lock().expect("nobody panicked");
    *found.entry(name.to_owned()).or_insert_with(|| device_table::find(name).ok())
}

/// Four quantizations of two models on every device, under the names that agents give them.
fn benchmark(inventory: &Inventory, chance: &mut Chance) -> Benchmark {
    let mut points = Vec::new();
    for device in &inventory.devices {
        let known = known(&device.description);
        let bandwidth = known.and_then(|known| known.bandwidth).unwrap_or(45e9);
        let operations = known.filter(|known| !known.is_cpu()).and_then(|known| known.fp16).unwrap_or(0.6e12);
        let own = chance.about(0.1);
        for (name, parameters, layers) in [("muster-61m", 61_000_000_u64, 8), ("muster-300m", 301_000_000, 10)] {
            for (quantization, bits) in [("F16", 16.0), ("Q8_0", 8.5), ("Q4_K_M", 4.9), ("MXFP4", 4.3)] {
                let bytes = parameters as f64 * bits / 8.0;
                let decode = 1.0 / (60e-6 + bytes / (bandwidth * 0.6 * own));
                let prefill = operations * 0.35 * own / (2.0 * parameters as f64);
                let mut spread =
                    |rate: f64| Spread::of((0..5).map(|_| rate * chance.about(0.02)).collect()).expect("rates");
                points.push(BenchPoint {
                    device: device.name.clone(),
                    threads: (device.kind == DeviceKind::Cpu).then(|| inventory.cpu.physical_cores.unwrap_or(4)),
                    model: BenchModel {
                        name: name.into(),
                        quantization: quantization.into(),
                        bytes_per_token: part(Bytes::new(1 << 50), bytes / (1_u64 << 50) as f64),
                        parameters_per_token: parameters,
                        layers,
                    },
                    prefill_tokens: 512,
                    decode_tokens: 128,
                    prefill: spread(prefill),
                    decode: spread(decode),
                    depth: 0,
                });
            }
        }
    }
    Benchmark {
        measured_at: ago(5 * DAY),
        took_ms: 41_000,
        engine_build: inventory.engine_build.clone(),
        hardware_fingerprint: inventory.hardware_fingerprint.clone(),
        points,
        conditions: Conditions::default(),
        parts: vec![],
        on_battery: vec![],
    }
}
