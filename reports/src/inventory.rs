//! What a desk is.

use muster_proto::{ChassisKind, Device, DeviceKind, Hardware, Inventory};

use crate::age::date;
use crate::gpus::gpus_part;
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
        hardware,
    } = inventory;
    let system =
        [Some(os.platform.clone()), os.name.clone(), os.kernel.as_ref().map(|kernel| format!("kernel {kernel}"))];
    let cores = match cpu.physical_cores {
        Some(cores) => format!("{cores} cores, {} threads", cpu.threads),
        None => format!("{} threads", cpu.threads),
    };
    let mut facts = Facts::new(style);
    facts.add("hostname", plain(hostname));
    let machine = machine(hardware);
    if !machine.is_empty() {
        facts.add("machine", plain(machine.join(", ")));
    }
    facts
        .add("system", plain(system.into_iter().flatten().collect::<Vec<_>>().join(", ")))
        .add("processor", known(cpu.brand.as_ref()))
        .add("", plain(cores));
    if !cpu.features.is_empty() {
        facts.add("", plain(cpu.features.join(" ")));
    }
    facts.add("memory", plain(format!("{}, {} available", memory.total, memory.available)));
    if let Some(typical) = &hardware.typical {
        let free = typical.devices.iter().map(|device| format!("{} of {}", device.free, device.device));
        let all: Vec<String> = std::iter::once(format!("{} of memory", typical.memory_available)).chain(free).collect();
        facts.add("free mostly", plain(format!("{}, 95 % of the time since {}", all.join(", "), date(typical.since))));
    }
    facts.add("store's disk", known(store_disk.map(|disk| format!("{}, {} free", disk.total, disk.free))));
    facts.add("engine", plain(engine_build));
    facts.add("hardware", plain(hardware_fingerprint.get(..12).unwrap_or(hardware_fingerprint)));
    facts.add("collected", plain(date(*collected_at)));
    let mut page = facts.render();
    page.push('\n');
    // An older agent knew only of what llama.cpp uses.
    if hardware != &Hardware::default() {
        page += &gpus_part(&hardware.gpus, style);
        page.push('\n');
    }
    page += &devices_table(devices, style);
    for failure in failures {
        page += &sentence(format!("could not read {}: {}", failure.probe, failure.reason), Tone::Waiting, style);
    }
    page
}

/// What kind of machine it is, as far as it is known.
fn machine(hardware: &Hardware) -> Vec<String> {
    let Hardware { chassis, remote_session, gpus: _, typical: _ } = hardware;
    let kind = chassis.kind.map(|kind| match kind {
        ChassisKind::Virtual => "virtual machine".to_owned(),
        kind => kind.to_string(),
    });
    let name = [&chassis.vendor, &chassis.model].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ");
    let power = match (chassis.battery, chassis.on_mains) {
        (Some(true), Some(true)) => Some("on mains".to_owned()),
        (Some(true), Some(false)) => Some("on battery".to_owned()),
        _ => None,
    };
    let domain = chassis.domain.as_ref().map(|domain| format!("of {domain}"));
    let remote = (*remote_session == Some(true)).then(|| "seen from a remote session".to_owned());
    [kind, Some(name).filter(|name| !name.is_empty()), domain, power, remote].into_iter().flatten().collect()
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
