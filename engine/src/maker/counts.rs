//! Tensor types from what a log prints of a file: how many tensors have which type, and how large all are together.
//!
//! Other quantizers choose types by rules of their own, of which only these sums are printed. Starting from what llama.cpp
//! would choose, as few tensors as possible change their type until the counts are right; then pairs of tensors swap their
//! types until the bytes are. Which tensor has which type stays a guess; the sums do not.

use std::collections::BTreeMap;

use crate::gguf::{TensorPlan, TensorType};

/// Most swaps; each brings the sum nearer, so that this is only a fence.
const MOST_SWAPS: usize = 10_000;

/// Changes types until each type has its count and all together have about `bytes`. `pinned` tensors keep theirs.
///
/// # Errors
/// The counts are not those of so many tensors, or a type does not exist or fits no tensor that is left.
pub(super) fn settle(
    tensors: &mut [TensorPlan],
    counts: &BTreeMap<String, u64>,
    bytes: Option<u64>,
    pinned: impl Fn(&TensorPlan) -> bool,
) -> Result<(), String> {
    let all: u64 = counts.values().sum();
    if all != tensors.len() as u64 {
        return Err(format!("the model has {} tensors, and types are counted for {all}", tensors.len()));
    }
    let mut missing: Vec<(TensorType, i64)> = Vec::new();
    for (name, count) in counts {
        let kind = TensorType::from_name(&name.to_uppercase()).ok_or_else(|| format!("{name:?} is no tensor type"))?;
        let have = tensors.iter().filter(|tensor| tensor.kind == kind).count();
        missing.push((kind, i64::try_from(*count).unwrap_or(i64::MAX) - i64::try_from(have).unwrap_or(0)));
    }
    // Types that the file does not have at all.
    for tensor in tensors.iter() {
        if !missing.iter().any(|(kind, _)| *kind == tensor.kind) {
            let have = tensors.iter().filter(|other| other.kind == tensor.kind).count();
            missing.push((tensor.kind, -i64::try_from(have).unwrap_or(0)));
        }
    }
    // The largest types first, to the tensors that most quantizers spare most.
    missing.sort_by(|(a, _), (b, _)| bits(*b).total_cmp(&bits(*a)));
    let mut order: Vec<usize> = (0..tensors.len()).filter(|index| !pinned(&tensors[*index])).collect();
    order.sort_by_key(|index| rank(&tensors[*index].name));
    let too_many: Vec<TensorType> = missing.iter().filter(|(_, count)| *count < 0).map(|(kind, _)| *kind).collect();
    let mut left: Vec<i64> = missing.iter().map(|(_, count)| *count).collect();
    for wanted in 0..missing.len() {
        for &index in &order {
            if left[wanted] <= 0 {
                break;
            }
            let Some(from) = missing.iter().position(|(kind, _)| *kind == tensors[index].kind) else { continue };
            if left[from] < 0 && too_many.contains(&tensors[index].kind) && fits(&tensors[index], missing[wanted].0) {
                tensors[index].kind = missing[wanted].0;
                left[from] += 1;
                left[wanted] -= 1;
            }
        }
        if left[wanted] > 0 {
            return Err(format!("{} more tensors should be {} than can be", left[wanted], missing[wanted].0.name));
        }
    }
    if let Some(bytes) = bytes {
        swap(tensors, &order, bytes);
    }
    Ok(())
}

/// Swaps the types of pairs of tensors as long as that brings the sum nearer to `bytes`. Tensors of one shape and type are
/// alike, so that pairs of such classes are tried, and the best is done.
fn swap(tensors: &mut [TensorPlan], order: &[usize], bytes: u64) {
    let total: u64 = tensors.iter().map(TensorPlan::bytes).sum();
    let mut error = i128::from(total) - i128::from(bytes);
    for _ in 0..MOST_SWAPS {
        let mut classes: BTreeMap<(&[u64], u32), usize> = BTreeMap::new();
        for &index in order {
            // Vectors stay what they are.
            if tensors[index].dimensions.len() > 1 {
                classes.entry((&tensors[index].dimensions, tensors[index].kind.number)).or_insert(index);
            }
        }
        let firsts: Vec<usize> = classes.into_values().collect();
        let mut best = (error.abs(), None);
        for (at, &a) in firsts.iter().enumerate() {
            for &b in &firsts[at + 1..] {
                let (one, other) = (&tensors[a], &tensors[b]);
                if one.kind == other.kind || !fits(one, other.kind) || !fits(other, one.kind) {
                    continue;
                }
                let size =
                    |tensor: &TensorPlan, kind: TensorType| i128::from(tensor.elements() / kind.block * kind.bytes);
                let change =
                    size(one, other.kind) + size(other, one.kind) - size(one, one.kind) - size(other, other.kind);
                if (error + change).abs() < best.0 {
                    best = ((error + change).abs(), Some((a, b, change)));
                }
            }
        }
        let Some((a, b, change)) = best.1 else { return };
        let kind = tensors[a].kind;
        tensors[a].kind = tensors[b].kind;
        tensors[b].kind = kind;
        error += change;
    }
}

fn bits(kind: TensorType) -> f64 {
    kind.bytes as f64 / kind.block as f64
}

fn fits(tensor: &TensorPlan, kind: TensorType) -> bool {
    tensor.dimensions.first().is_some_and(|row| row.is_multiple_of(kind.block))
}

/// Which tensors get more bits first: the vocabulary's, then attention's values, then what leaves a block, then the rest by
/// layer.
fn rank(name: &str) -> (usize, usize) {
    const ORDER: [&str; 7] = ["output.weight", "token_embd", "ssm_", "attn_v", "attn_k", "attn_output", "ffn_down"];
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()).and_then(|layer| layer.parse().ok());
    let place = match layer {
        None if name == "output.weight" => 0,
        _ => ORDER.iter().skip(1).position(|part| name.contains(part)).map_or(ORDER.len(), |at| at + 1),
    };
    (place, layer.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, rows: u64, kind: &str) -> TensorPlan {
        let kind = TensorType::from_name(kind).expect("a type");
        TensorPlan { name: name.into(), dimensions: vec![256, rows], kind }
    }

    fn model() -> Vec<TensorPlan> {
        let mut all = vec![tensor("token_embd.weight", 4096, "Q4_K"), tensor("output.weight", 4096, "Q6_K")];
        for layer in 0..4 {
            all.push(tensor(&format!("blk.{layer}.attn_v.weight"), 64, "Q4_K"));
            all.push(tensor(&format!("blk.{layer}.ffn_down.weight"), 512, "Q4_K"));
        }
        all
    }

    fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn counts_come_out_right_and_bytes_nearly() {
        let mut published = model();
        published[3].kind = TensorType::from_name("Q8_0").expect("a type");
        published[5].kind = TensorType::from_name("Q8_0").expect("a type");
        published[2].kind = TensorType::from_name("F16").expect("a type");
        let bytes: u64 = published.iter().map(TensorPlan::bytes).sum();
        let mut made = model();
        let wanted = counts(&[("f16", 1), ("q8_0", 2), ("q4_K", 6), ("q6_K", 1)]);
        settle(&mut made, &wanted, Some(bytes), |_| false).expect("possible");
        // Ten tensors leave few sums to choose from.
        let error = made.iter().map(TensorPlan::bytes).sum::<u64>() as f64 / bytes as f64 - 1.0;
        assert!(error.abs() < 0.03, "{error}");
        for (name, count) in wanted {
            let have = made.iter().filter(|tensor| tensor.kind.name.eq_ignore_ascii_case(&name)).count() as u64;
            assert_eq!(have, count, "{name}");
        }
    }

    #[test]
    fn counts_of_another_model_are_refused() {
        let error = |of: &[(&str, u64)]| settle(&mut model(), &counts(of), None, |_| false).expect_err("impossible");
        assert_eq!(error(&[("q4_K", 3)]), "the model has 10 tensors, and types are counted for 3");
        assert_eq!(error(&[("q4_K", 9), ("iq4_kss", 1)]), "\"iq4_kss\" is no tensor type");
    }
}
