//! What a desk is.

use muster_proto::{Device, DeviceKind, Inventory};

use crate::age::date;
use crate::layout::{Facts, Grid, known, plain, sentence, toned};
use crate::style::{Style, Tone};

/// Everything that was collected of one machine, and what could not be read.
pub fn inventory_page(inventory: &Inventory, style: &Style) -> String {
    let Inventory {
        collected_at,
        hostname,
        hardware_fingerprint,
        os,
        cpu,
        memory,
        devices,
        store_disk,
        engine_build,
        failures,
        hardware: _,
    } = inventory;
    let system =
        [Some(os.platform.clone()), os.name.clone(), os.kernel.as_ref().map(|kernel| format!("kernel {kernel}"))];
    let cores = match cpu.physical_cores {
        Some(cores) => format!("{cores} cores, {} threads", cpu.threads),
        None => format!("{} threads", cpu.threads),
    };
    let mut facts = Facts::new(style);
    facts
        .add("hostname", plain(hostname))
        .add("system", plain(system.into_iter().flatten().collect::<Vec<_>>().join(", ")))
        .add("processor", known(cpu.brand.as_ref()))
        .add("", plain(cores));
    if !cpu.features.is_empty() {
        facts.add("", plain(cpu.features.join(" ")));
    }
    facts.add("memory", plain(format!("{}, {} available", memory.total, memory.available)));
    facts.add("store's disk", known(store_disk.map(|disk| format!("{}, {} free", disk.total, disk.free))));
    facts.add("engine", plain(engine_build));
    facts.add("hardware", plain(hardware_fingerprint.get(..12).unwrap_or(hardware_fingerprint)));
    facts.add("collected", plain(date(*collected_at)));
    let mut page = facts.render();
    page.push('\n');
    page += &devices_table(devices, style);
    for failure in failures {
        page += &sentence(format!("could not read {}: {}", failure.probe, failure.reason), Tone::Waiting, style);
    }
    page
}

fn devices_table(devices: &[Device], style: &Style) -> String {
    if devices.is_empty() {
        return sentence("no device that llama.cpp can compute on was found", Tone::Bad, style);
    }
    let mut grid =
        Grid::new(style, &["DEVICE", "KIND", "DESCRIPTION", "MEMORY", "FREE", "DRIVER"]).right(&[3, 4]).whole(&[0]);
    for device in devices {
        grid.row(vec![
            plain(&device.name),
            plain(kind(device.kind)),
            plain(&device.description),
            known(device.memory_total),
            known(device.memory_free),
            match &device.driver {
                Some(driver) => plain(format!("{} {driver}", device.backend)),
                None => toned(&device.backend, Tone::Plain),
            },
        ]);
    }
    grid.render()
}

fn kind(kind: DeviceKind) -> String {
    match kind {
        DeviceKind::Cpu => "CPU".into(),
        DeviceKind::DiscreteGpu => "GPU".into(),
        DeviceKind::IntegratedGpu => "GPU, shared memory".into(),
        other => other.to_string(),
    }
}
