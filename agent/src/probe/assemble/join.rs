//! [`parts`]: sightings → physical GPUs, each once.
//!
//! By PCI address, else by the card's identifier, else by what is certain: the same kind of card, the first one that this
//! driver has not shown yet. Two sources that both know an address and differ never meet.

use muster_proto::{Device, GpuVendor};

use super::super::raw::RawMachine;
use super::sight::{self, Sighting, Source, vendor_of};

/// One physical GPU: all that saw it.
#[derive(Clone, Debug, Default)]
pub struct Part<'a> {
    /// By rank of the source.
    pub sightings: Vec<Sighting<'a>>,
    /// llama.cpp's devices on it: one, or one for each MIG slice.
    pub engine: Vec<Device>,
}

impl<'a> Part<'a> {
    /// What the most trustworthy source says.
    pub fn first<T>(&self, of: impl Fn(&Sighting<'a>) -> Option<T>) -> Option<T> {
        self.sightings.iter().find_map(of)
    }

    /// What a source says.
    pub fn says<T>(&self, source: Source, of: impl Fn(&Sighting<'a>) -> Option<T>) -> Option<T> {
        self.sightings.iter().filter(|sighting| sighting.source == source).find_map(of)
    }

    /// Whether a source saw it.
    pub fn seen_by(&self, source: Source) -> bool {
        self.sightings.iter().any(|sighting| sighting.source == source)
    }

    /// PCI address.
    pub fn bus(&self) -> Option<&str> {
        self.sightings.iter().find_map(|sighting| sighting.bus.as_deref())
    }

    /// PCI vendor and device, whole if any source has it whole.
    pub fn id(&self) -> Option<(u32, u32)> {
        self.first(|sighting| sighting.id.filter(|id| id.1 != 0)).or_else(|| self.first(|sighting| sighting.id))
    }

    /// Who made it.
    pub fn vendor(&self) -> GpuVendor {
        self.id().map_or(GpuVendor::Other, |id| vendor_of(id.0))
    }

    pub fn add(&mut self, sighting: Sighting<'a>) {
        self.sightings.push(sighting);
        self.sightings.sort_by_key(|sighting| sighting.source);
    }
}

/// Joins all sightings.
pub fn parts(raw: &RawMachine) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    place(&mut parts, sight::of(&raw.drm, sight::drm));
    place(&mut parts, sight::of(&raw.nvml, sight::nvml));
    place(&mut parts, sight::of(&raw.metal, |devices| sight::metal(devices, raw)));
    let registry = sight::of(&raw.registry, |adapters| sight::registry(adapters));
    let shown = sight::of(&raw.dxgi, |adapters| sight::dxgi(adapters));
    place(&mut parts, without_copies(shown, &registry));
    let registry = present(registry, &parts);
    place(&mut parts, registry);
    place(&mut parts, sight::of(&raw.vulkan, |answers| sight::vulkan(&answers.adapters)));
    parts
}

/// A virtual display shows the card that draws for it once more. The registry knows how many there are.
fn without_copies<'a>(shown: Vec<Sighting<'a>>, registry: &[Sighting<'_>]) -> Vec<Sighting<'a>> {
    let mut kept: Vec<Sighting<'a>> = Vec::new();
    for sighting in shown {
        let real = registry.iter().filter(|entry| entry.id == sighting.id).count();
        let already = kept.iter().filter(|other| other.id == sighting.id).count();
        let same_luid = kept.iter().any(|other| other.luid.is_some() && other.luid == sighting.luid);
        if !same_luid && (real == 0 || already < real) {
            kept.push(sighting);
        }
    }
    kept
}

/// The registry remembers cards that are gone. Those count that something else shows too, or that Windows has a state of.
fn present<'a>(registry: Vec<Sighting<'a>>, parts: &[Part<'_>]) -> Vec<Sighting<'a>> {
    let known = |sighting: &Sighting<'_>| parts.iter().any(|part| same_kind(part.id(), sighting.id));
    let has_state = |sighting: &Sighting<'_>| sighting.registry.is_some_and(|entry| entry.problem.is_some());
    registry.into_iter().filter(|sighting| known(sighting) || has_state(sighting)).collect()
}

/// Adds one source's sightings: those that are certain first, so that a guess never takes their place.
fn place<'a>(parts: &mut Vec<Part<'a>>, sightings: Vec<Sighting<'a>>) {
    let mut unsure = Vec::new();
    for sighting in sightings {
        match parts.iter_mut().find(|part| certainly(part, &sighting)) {
            Some(part) => part.add(sighting),
            None => unsure.push(sighting),
        }
    }
    let alone = unsure.len() == 1;
    for sighting in unsure {
        // Among those that came before it in this very list, too.
        let certain = parts.iter().position(|part| certainly(part, &sighting));
        let found = certain.or_else(|| parts.iter().position(|part| probably(part, &sighting))).or_else(|| {
            // Numbers that are no PCI numbers join only where there is no choice.
            let mut free = parts.iter().enumerate().filter(|(_, part)| !part.seen_by(sighting.source));
            let only = free.next().filter(|_| alone && sighting.id.is_none() && sighting.bus.is_none());
            only.filter(|_| free.next().is_none()).map(|(index, _)| index)
        });
        match found {
            Some(index) => parts[index].add(sighting),
            // A copy of a card in the registry that nothing else shows is one that is gone.
            None if sighting.source == Source::Registry && !parts.is_empty() && no_state(&sighting) => {}
            None => parts.push(Part { sightings: vec![sighting], engine: Vec::new() }),
        }
    }
}

fn no_state(sighting: &Sighting<'_>) -> bool {
    sighting.registry.is_none_or(|entry| entry.problem.is_none())
}

/// The same address or the same identifier.
fn certainly(part: &Part<'_>, sighting: &Sighting<'_>) -> bool {
    if let (Some(ours), Some(theirs)) = (part.bus(), sighting.bus.as_deref()) {
        return ours == theirs;
    }
    part.sightings.iter().any(|other| {
        let luid = other.luid.is_some() && other.luid == sighting.luid;
        let uuid = match (other.uuid.as_deref().and_then(digits), sighting.uuid.as_deref().and_then(digits)) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => false,
        };
        luid || uuid
    })
}

/// 32 hexadecimal digits that are not all zero, of `GPU-12345678-…` as of Vulkan's identifier: NVIDIA's are the same.
fn digits(uuid: &str) -> Option<String> {
    let digits: String = uuid
        .trim_start_matches("GPU-")
        .chars()
        .filter(|letter| *letter != '-')
        .collect::<String>()
        .to_ascii_lowercase();
    let is_uuid = digits.len() == 32 && digits.chars().all(|digit| digit.is_ascii_hexdigit());
    (is_uuid && digits.chars().any(|digit| digit != '0')).then_some(digits)
}

/// The same kind of card, and one that this driver has not shown yet.
fn probably(part: &Part<'_>, sighting: &Sighting<'_>) -> bool {
    let no_conflict = part.bus().is_none() || sighting.bus.is_none();
    let shown =
        part.sightings.iter().any(|other| other.source == sighting.source && other.driver_name == sighting.driver_name);
    no_conflict && !shown && same_kind(part.id(), sighting.id)
}

/// Whether two pairs of vendor and device say the same; a device of 0 is not known.
fn same_kind(ours: Option<(u32, u32)>, theirs: Option<(u32, u32)>) -> bool {
    match (ours, theirs) {
        (Some(a), Some(b)) => a.0 == b.0 && (a.1 == b.1 || a.1 == 0 || b.1 == 0),
        _ => false,
    }
}
