//! The GPUs of a desk: each once, what it is, what llama.cpp makes of it, and what stands in the way.

use muster_proto::{DeviceKind, Gpu, MemoryUser, PcieLink};

use crate::layout::{Grid, known, plain, sentence, toned};
use crate::style::{Style, Tone};

/// Programs that are named; the rest is counted.
const NAMED_USERS: usize = 3;

/// The table of GPUs, and below it for each one what is to be said of it.
pub(crate) fn gpus_part(gpus: &[Gpu], style: &Style) -> String {
    if gpus.is_empty() {
        return sentence("no GPU was found", Tone::Quiet, style);
    }
    let mut grid = Grid::new(style, &["GPU", "MEMORY", "FREE", "SHARED", "USED AS", "DRIVER"])
        .right(&[1, 2, 3])
        .whole(&[1, 2, 3, 4]);
    for gpu in gpus {
        grid.row(vec![
            plain(if gpu.slice_of.is_some() { format!("└ {}", gpu.name) } else { gpu.name.clone() }),
            known(gpu.memory_total),
            known(gpu.memory_free),
            known(gpu.memory_shared.filter(|_| gpu.unified_memory)),
            match (&gpu.engine_device, &gpu.obstacle) {
                (Some(device), _) => toned(device, Tone::Good),
                (None, Some(_)) => toned("not used", Tone::Bad),
                (None, None) => known(None::<String>),
            },
            known(gpu.driver.as_ref()),
        ]);
    }
    let mut part = grid.render();
    for gpu in gpus {
        let details = details(gpu);
        if !details.is_empty() {
            part += &sentence(format!("{}: {}", gpu.name, details.join(", ")), Tone::Quiet, style);
        }
        if let Some(obstacle) = &gpu.obstacle {
            part += &sentence(format!("{} is not used: {}", gpu.name, obstacle.text), Tone::Bad, style);
            if let Some(remedy) = &obstacle.remedy {
                part += &sentence(format!("remedy: {remedy}"), Tone::Waiting, style);
            }
        }
    }
    part
}

fn details(gpu: &Gpu) -> Vec<String> {
    let mut details = Vec::new();
    if gpu.kind == DeviceKind::IntegratedGpu {
        details.push("in the processor".to_owned());
    }
    details.extend(gpu.pci_bus_id.clone());
    details.extend(gpu.compute_capability.as_ref().map(|version| format!("compute {version}")));
    details.extend(gpu.cuda_version.as_ref().map(|version| format!("CUDA up to {version}")));
    details.extend(gpu.pcie.and_then(link));
    details.extend(gpu.power_limit_watts.map(|watts| format!("limit {watts:.0} W")));
    details.extend(gpu.temperature_celsius.map(|degrees| format!("{degrees:.0} °C")));
    details.extend(gpu.ecc.map(|on| format!("ECC {}", if on { "on" } else { "off" })));
    details.extend((gpu.mig == Some(true)).then(|| "MIG on".to_owned()));
    // Idle clocks are no slowness.
    let slow: Vec<&str> =
        gpu.throttle_reasons.iter().map(String::as_str).filter(|reason| *reason != "gpu_idle").collect();
    if !slow.is_empty() {
        details.push(format!("slowed by {}", slow.join(" and ")));
    }
    details.extend(users(&gpu.used_by));
    details
}

/// `PCIe 4.0 ×16`, or what it is now of what it could be.
fn link(link: PcieLink) -> Option<String> {
    let side = |generation: Option<u32>, width: Option<u32>| match (generation, width) {
        (Some(generation), Some(width)) => Some(format!("{generation}.0 ×{width}")),
        (Some(generation), None) => Some(format!("{generation}.0")),
        (None, Some(width)) => Some(format!("×{width}")),
        (None, None) => None,
    };
    let (now, most) = (side(link.generation, link.width), side(link.generation_max, link.width_max));
    match (now, most) {
        (Some(now), Some(most)) if now != most => Some(format!("PCIe {now} of {most}")),
        (Some(now), _) => Some(format!("PCIe {now}")),
        (None, most) => most.map(|most| format!("PCIe up to {most}")),
    }
}

fn users(users: &[MemoryUser]) -> Option<String> {
    let name = |user: &MemoryUser| {
        let name = user.name.clone().unwrap_or_else(|| format!("process {}", user.pid));
        match user.bytes {
            Some(bytes) => format!("{name} ({bytes})"),
            None => name,
        }
    };
    let named: Vec<String> = users.iter().take(NAMED_USERS).map(name).collect();
    let more = users.len().saturating_sub(NAMED_USERS);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!named.is_empty()).then(|| format!("held by {}{more}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_below_what_it_could_be_says_so() {
        let full = PcieLink { generation: Some(4), width: Some(16), generation_max: Some(4), width_max: Some(16) };
        assert_eq!(link(full).as_deref(), Some("PCIe 4.0 ×16"));
        let idle = PcieLink { generation: Some(1), ..full };
        assert_eq!(link(idle).as_deref(), Some("PCIe 1.0 ×16 of 4.0 ×16"));
        assert_eq!(link(PcieLink::default()), None);
    }
}
