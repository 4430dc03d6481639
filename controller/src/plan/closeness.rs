//! Which artifact of a model is better: the order in which a planner tries them. Pure.
//!
//! Lower KL divergence from the source is better where it was measured; the source itself diverges by nothing. Two figures
//! compare only if measured against the same source, on the same text, in the same way; of several such groups within one
//! model the largest counts, and artifacts outside it are as good as unmeasured. Those compare by bits per weight.
//!
//! Comparing pairs by either figure would not always be an order (measured A before measured B by divergence, B before
//! unmeasured C by bits, C before A by bits). So all are put in order of bits per weight first, and the places that
//! measured ones hold are then given out among them again by divergence: an unmeasured one keeps the place that its bits
//! give it. Ties go by bits per weight, then by digest.

use std::collections::BTreeMap;

use muster_proto::{Artifact, ModelDigest, Quality};

/// Mean KL divergence of each artifact of one model that may be compared with the others of the result.
pub fn divergences<'a>(artifacts: impl Iterator<Item = &'a Artifact> + Clone) -> BTreeMap<ModelDigest, f64> {
    let mut groups: BTreeMap<_, usize> = BTreeMap::new();
    for quality in artifacts.clone().filter_map(|artifact| artifact.quality.as_ref()) {
        *groups.entry(quality.basis()).or_default() += 1;
    }
    // Of equally large groups the first by source, text, context and chunks, so that the order of artifacts is nothing.
    let mut largest = None;
    for (basis, count) in groups {
        if largest.is_none_or(|(_, most)| count > most) {
            largest = Some((basis, count));
        }
    }
    let Some((basis, _)) = largest else { return BTreeMap::new() };
    let measured = |quality: &Quality| (quality.basis() == basis).then(|| quality.divergence.mean.value.max(0.0));
    artifacts
        .filter_map(|artifact| {
            let own = artifact.quality.as_ref().and_then(measured);
            let figure = if artifact.digest == basis.0 { Some(0.0) } else { own };
            figure.filter(|figure| figure.is_finite()).map(|figure| (artifact.digest, figure))
        })
        .collect()
}

/// Puts the artifacts of one model in order, the best first, whatever order they came in.
pub fn sort<T>(items: &mut [T], artifact: impl Fn(&T) -> &Artifact) {
    let figures = divergences(items.iter().map(&artifact));
    let by_bits = |one: &Artifact, other: &Artifact| {
        other.bits_per_weight.total_cmp(&one.bits_per_weight).then(one.digest.cmp(&other.digest))
    };
    items.sort_by(|one, other| by_bits(artifact(one), artifact(other)));
    let digest = |item: &T| artifact(item).digest;
    let places: Vec<usize> = (0..items.len()).filter(|index| figures.contains_key(&digest(&items[*index]))).collect();
    // A selection sort over those places: stable by swapping only when strictly better.
    let closer = |one: &T, other: &T| {
        let (one, other) = (artifact(one), artifact(other));
        figures[&one.digest].total_cmp(&figures[&other.digest]).then_with(|| by_bits(one, other)).is_lt()
    };
    for (rank, place) in places.iter().enumerate() {
        let mut best = *place;
        for other in &places[rank + 1..] {
            if closer(&items[*other], &items[best]) {
                best = *other;
            }
        }
        items.swap(*place, best);
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::{ArtifactSource, Bytes, ContextTokens, Divergence, Statistic};
    use proptest::prelude::*;

    use super::*;

    fn artifact(number: u8, bits: f64, divergence: Option<f64>, text: &str) -> Artifact {
        let mean = |value| Divergence { mean: Statistic { value, error: 0.0 }, ..Divergence::default() };
        Artifact {
            digest: ModelDigest::new([number; 32]),
            quantization: format!("q{number}"),
            size: Bytes::new(1),
            bits_per_weight: bits,
            source: ArtifactSource::Imported,
            quality: divergence.map(|value| Quality {
                source: ModelDigest::new([0; 32]),
                text: text.to_owned(),
                context: ContextTokens::new(512),
                chunks: 1,
                engine_build: "b".to_owned(),
                divergence: mean(value),
            }),
        }
    }

    fn order(mut artifacts: Vec<Artifact>) -> Vec<u8> {
        sort(&mut artifacts, |artifact| artifact);
        artifacts.iter().map(|artifact| artifact.digest.as_bytes()[0]).collect()
    }

    #[test]
    fn divergence_decides_among_the_measured_and_bits_among_the_others() {
        let (f16, q8) = (artifact(0, 16.0, None, ""), artifact(1, 8.5, Some(0.002), "a"));
        // More bits, and yet farther away.
        let (q4_1, q4_k) = (artifact(2, 5.0, Some(0.07), "a"), artifact(3, 4.9, Some(0.03), "a"));
        let (imported, other_text) = (artifact(4, 6.6, None, ""), artifact(5, 4.95, Some(0.0), "b"));
        let all = vec![other_text, q4_1, imported, f16, q4_k, q8];
        assert_eq!(order(all), [0, 1, 4, 3, 5, 2]);
    }

    #[test]
    fn without_any_measurement_bits_decide() {
        assert_eq!(
            order(vec![artifact(1, 4.0, None, ""), artifact(2, 8.0, None, ""), artifact(3, 4.0, None, "")]),
            [2, 1, 3]
        );
    }

    proptest! {
        #[test]
        fn the_order_they_came_in_is_nothing(
            facts in prop::collection::vec((0_u8..4, prop::option::of(0_u8..4), 0_u8..2), 0..9),
            rotation in 0_usize..9,
        ) {
            let made: Vec<_> = (0_u8..).zip(&facts).map(|(number, (bits, divergence, text))| {
                artifact(number, f64::from(*bits), divergence.map(f64::from), ["a", "b"][usize::from(*text)])
            }).collect();
            let mut turned = made.clone();
            turned.reverse();
            if !turned.is_empty() {
                let length = turned.len();
                turned.rotate_left(rotation % length);
            }
            let figures = divergences(made.iter());
            let ordered = order(made);
            prop_assert_eq!(&ordered, &order(turned));
            let measured: Vec<f64> = ordered.iter().filter_map(|n| figures.get(&ModelDigest::new([*n; 32])).copied()).collect();
            prop_assert!(measured.is_sorted());
        }
    }
}
