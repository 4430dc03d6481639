//! What helps, in words: the cheapest that is known.

use muster_proto::{Bytes, ContextTokens};

use super::desk::Desk;
use super::judge::{context_index, vram_short};
use super::sizes::{QUANTIZATIONS, sizes};

/// Where measuring would decide.
pub(super) const BENCHMARK: &str = "benchmark it, which tells its own speed";

/// Sizes that graphics cards are sold with, in GiB.
const CARDS: [u64; 12] = [4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 80, 96];

/// Sizes that main memory is extended by, in GiB.
const MODULES: [u64; 8] = [4, 8, 16, 32, 64, 128, 256, 512];

/// What a card keeps for its driver and the desktop, on top of what a model takes.
pub(super) const CARD_RESERVE: u64 = 1 << 30;

/// The smallest size of `sold` that is at least `bytes`.
fn sold(sold: &[u64], bytes: Bytes) -> Option<Bytes> {
    sold.iter().map(|gib| Bytes::from_gib(*gib)).find(|size| *size >= bytes)
}

/// `8 GiB`.
fn gib(bytes: Bytes) -> String {
    format!("{} GiB", bytes.get().div_ceil(1 << 30))
}

/// A card that has room for so much.
pub(super) fn card(need: Bytes) -> String {
    match sold(&CARDS, need + Bytes::new(CARD_RESERVE)) {
        Some(size) => format!("a GPU with {}", gib(size)),
        None => format!("GPUs with {} together", gib(need + Bytes::new(CARD_RESERVE))),
    }
}

/// Modules that add so much.
pub(super) fn main_memory(missing: Bytes) -> String {
    format!("{} more main memory", gib(sold(&MODULES, missing).unwrap_or(missing)))
}

/// Room on the volume of the model store.
pub(super) fn disk(missing: Bytes) -> String {
    format!("free {missing} on the model store's volume")
}

/// A smaller quantization with which all layers would be on the GPUs.
pub(super) fn smaller(desk: &Desk, model: usize, least: usize, context: ContextTokens) -> Option<String> {
    let index = context_index(context)?;
    let quantization = (least + 1..QUANTIZATIONS.len()).find(|quantization| {
        sizes(desk.backend(), model, *quantization)
            .and_then(|sizes| sizes.by_context.get(index))
            .is_some_and(|size| vram_short(desk, size) == Some(0))
    })?;
    Some(format!("{} would fit", QUANTIZATIONS[quantization]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_that_shops_have() {
        assert_eq!(card(Bytes::from_mib(5700)), "a GPU with 8 GiB");
        assert_eq!(card(Bytes::from_gib(95)), "a GPU with 96 GiB");
        assert_eq!(card(Bytes::from_gib(130)), "GPUs with 131 GiB together");
        assert_eq!(main_memory(Bytes::from_mib(5000)), "8 GiB more main memory");
        assert_eq!(disk(Bytes::from_gib(12)), "free 12.0 GiB on the model store's volume");
    }
}
