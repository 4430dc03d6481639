//! [`Change`]: what machines that are not ready would be if something were bought, mended or added.
//!
//! A card is judged by published figures, in place of the GPUs that are there; laptops and virtual machines get none. More
//! main memory also gives integrated graphics half of it, as drivers allow. [`RUNGS`] are the changes that a report counts
//! by itself, each alone.

use std::sync::LazyLock;

use muster_proto::{Assessment, Bytes, ChassisKind, GpuVendor, Hypothetical, Inventory, RemedyCount, WhatIf};

use super::desk::{Desk, DeskGpu, backend_of_vendor, budget};
use super::remedy::CARD_RESERVE;
use crate::device_table::{self, KnownDevice, Vendor};

/// Why a change cannot be judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Nothing would change.
    #[error("nothing is changed: name main memory to add, a GPU, or drivers to mend")]
    Nothing,
    /// Nobody knows the card.
    #[error(transparent)]
    Unknown(#[from] device_table::UnknownDevice),
    /// It cannot be put into a machine, or its size is not known.
    #[error("{name} is no card with memory of its own that is put into a desk")]
    NoCard {
        /// The device's name.
        name: String,
    },
}

/// A change that can be judged.
#[derive(Clone, Debug)]
pub struct Change {
    asked: WhatIf,
    card: Option<DeskGpu>,
}

impl Change {
    /// Finds the card that is named.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub fn of(mut asked: WhatIf) -> Result<Self, ChangeError> {
        if asked == WhatIf::default() || asked.add_memory == Some(Bytes::ZERO) {
            return Err(ChangeError::Nothing);
        }
        let known = asked.gpu.as_deref().map(device_table::find).transpose()?;
        // The table's own name, so that everybody sees what was understood.
        asked.gpu = known.map(|known| known.name.clone());
        Ok(Self { card: known.map(card).transpose()?, asked })
    }

    /// What was asked, with the card's full name.
    pub fn asked(&self) -> &WhatIf {
        &self.asked
    }

    /// The desk afterwards, and whether its benchmark still speaks of it; nothing where the change does not apply.
    pub(super) fn on(&self, desk: &Desk, inventory: &Inventory) -> Option<(Desk, bool)> {
        let (mut changed, mut then, mut measured) = (false, desk.clone(), true);
        if self.asked.fix_drivers && !desk.obstructed.is_empty() {
            then = then.without_obstacles();
            (changed, measured) = (true, false);
        }
        if let Some(more) = self.asked.add_memory {
            then.ram = then.ram.saturating_add(more.get());
            for gpu in then.gpus.iter_mut().filter(|gpu| gpu.shared) {
                gpu.budget = gpu.budget.saturating_add(more.get() / 2);
            }
            changed = true;
        }
        if let Some(card) = self.card.as_ref().filter(|_| takes_cards(inventory))
            && cards(&then) < card.budget
        {
            then.gpus = vec![card.clone()];
            then.obstructed.clear();
            (changed, measured) = (true, false);
        }
        changed.then_some((then, measured))
    }
}

fn card(known: &'static KnownDevice) -> Result<DeskGpu, ChangeError> {
    let no_card = || ChangeError::NoCard { name: known.name.clone() };
    let memory = known.memory.filter(|_| !known.is_cpu() && !known.unified && known.class != "consumer-laptop");
    let memory = memory.ok_or_else(no_card)?;
    let vendor = match known.vendor {
        Vendor::Nvidia => GpuVendor::Nvidia,
        Vendor::Amd => GpuVendor::Amd,
        Vendor::Intel => GpuVendor::Intel,
        Vendor::Apple | Vendor::Other => return Err(no_card()),
    };
    let backend = backend_of_vendor(vendor);
    let (budget, surcharge) = budget(backend, memory.saturating_sub(Bytes::new(CARD_RESERVE)));
    Ok(DeskGpu { name: known.name.clone(), backend, shared: false, budget, surcharge, known: Some(known) })
}

/// Memory of the cards that are there, also of those that cannot be used: nobody throws those out for a smaller one.
fn cards(desk: &Desk) -> u64 {
    let obstructed = desk.obstructed.iter().map(|obstructed| &obstructed.gpu);
    desk.gpus.iter().chain(obstructed).filter(|gpu| !gpu.shared).map(|gpu| gpu.budget).fold(0, u64::saturating_add)
}

fn takes_cards(inventory: &Inventory) -> bool {
    !matches!(inventory.hardware.chassis.kind, Some(ChassisKind::Laptop | ChassisKind::Virtual))
}

/// Mended drivers, then modules that are sold, then cards of each common size.
pub(super) static RUNGS: LazyLock<Vec<Change>> = LazyLock::new(|| {
    let drivers = WhatIf { fix_drivers: true, ..WhatIf::default() };
    let memory = [8, 16, 32].map(|gib| WhatIf { add_memory: Some(Bytes::from_gib(gib)), ..WhatIf::default() });
    let cards = ["rtx-3060-12gb", "rtx-5060-ti", "rtx-3090", "rtx-5090"];
    let cards = cards.iter().filter_map(|key| device_table::by_key(key));
    let cards = cards.map(|known| WhatIf { gpu: Some(known.name.clone()), ..WhatIf::default() });
    [drivers].into_iter().chain(memory).chain(cards).filter_map(|change| Change::of(change).ok()).collect()
});

/// Of how many machines each rung makes ready, those that do.
pub(super) fn remedies(counts: &[u32]) -> Vec<RemedyCount> {
    let all = RUNGS.iter().zip(counts).filter(|(_, machines)| **machines > 0);
    all.map(|(rung, machines)| RemedyCount { change: rung.asked.clone(), machines: *machines }).collect()
}

/// What is told of an assessment after a change.
pub(super) fn hypothetical(then: Assessment) -> Hypothetical {
    let (model, quantization) = then.best.map(|best| (best.name, best.quantization)).unzip();
    Hypothetical { verdict: then.verdict, model, quantization }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_is_known_and_only_cards_are_taken() {
        assert_eq!(RUNGS.len(), 8);
        let gpu = |name: &str| Change::of(WhatIf { gpu: Some(name.into()), ..WhatIf::default() });
        assert_eq!(gpu("rtx 4060 ti 16gb").expect("known").asked().gpu.as_deref(), Some("GeForce RTX 4060 Ti 16GB"));
        for name in ["Apple M4 Max", "AMD Ryzen 9 7950X", "GeForce RTX 4090 Laptop"] {
            assert!(matches!(gpu(name), Err(ChangeError::NoCard { .. })), "{name}");
        }
        assert!(matches!(gpu("Voodoo 2"), Err(ChangeError::Unknown(_))));
        assert_eq!(Change::of(WhatIf::default()).map(|_| ()), Err(ChangeError::Nothing));
    }
}
