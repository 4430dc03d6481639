//! Measuring quality, with the bundled model.

use std::borrow::Cow;

use muster_engine::quality_text::QualityText;
use muster_engine::random_model::{RandomModelSpec, write_random_model};
use muster_engine::worker::{QualityFound, QualityRequest, WorkerError, quality};
use muster_proto::ContextTokens;

use crate::{bundled, command, quantized, within};

async fn measured(request: QualityRequest) -> Result<QualityFound, WorkerError> {
    within(quality(&command(), QualityRequest { chunks: Some(16), ..request }, |_| {})).await
}

#[tokio::test]
async fn a_file_is_itself_and_fewer_bits_are_farther_away() {
    let (_folder, source) = bundled();
    for text in [QualityText::bundled(), QualityText::built_in()] {
        let same = QualityRequest::new(source.clone(), source.clone(), text.clone());
        let same = measured(same).await.unwrap();
        let found = same.divergence;
        assert_eq!((found.mean.value, found.largest, found.same_top.value), (0.0, 0.0, 1.0), "{found:?}");
        assert_eq!((found.log_ratio.value, found.perplexity), (0.0, found.source_perplexity));
        // Of each chunk the second half, but for its last token.
        assert_eq!(found.positions, u64::from(same.chunks * (text.context / 2 - 1)));
        let mut before = 0.0;
        for quantization in ["Q8_0", "Q4_K_M", "Q2_K"] {
            let candidate = source.with_file_name(format!("{quantization}.gguf"));
            if !candidate.exists() {
                quantized(&source, quantization).await;
            }
            let found = measured(QualityRequest::new(source.clone(), candidate, text.clone())).await.unwrap();
            let found = found.divergence;
            assert!(found.mean.value > 1.5 * before, "{quantization}: {found:?}");
            assert!(found.median <= found.p90 && found.p90 <= found.p99 && found.p99 <= found.largest);
            assert!(found.mean.error > 0.0 && found.same_top.value < 1.0 + f64::EPSILON);
            before = found.mean.value;
        }
    }
}

#[tokio::test]
async fn sixteen_bits_are_almost_the_same() {
    let (_folder, source) = bundled();
    let candidate = quantized(&source, "Q4_K_M").await;
    let exact = QualityRequest::new(source, candidate, QualityText::bundled());
    let rounded = QualityRequest { sixteen_bit: true, ..exact.clone() };
    let (exact, rounded) = (measured(exact).await.unwrap(), measured(rounded).await.unwrap());
    let ratio = rounded.divergence.mean.value / exact.divergence.mean.value;
    assert!((0.98..1.02).contains(&ratio) && (ratio - 1.0).abs() > 1e-12, "{ratio}");
}

#[tokio::test]
async fn chunks_longer_than_a_batch_are_scored_too() {
    let (_folder, source) = bundled();
    let candidate = quantized(&source, "Q8_0").await;
    let request = QualityRequest {
        context: Some(ContextTokens::new(1024)),
        chunks: Some(2),
        ..QualityRequest::new(source, candidate, QualityText::built_in())
    };
    let mut steps = Vec::new();
    let found = within(quality(&command(), request, |step| steps.push(step))).await.unwrap();
    assert_eq!((found.divergence.positions, found.chunks), (2 * 511, 2));
    assert!(steps.is_sorted_by(|one, other| one.fraction <= other.fraction), "{steps:?}");
    assert!(steps.iter().any(|step| step.step.starts_with("chunk 2 of 2")), "{steps:?}");
}

#[tokio::test]
async fn what_cannot_be_compared_is_refused() {
    let (folder, source) = bundled();
    let words = |text: &str| QualityText { content: Cow::Owned(text.into()), ..QualityText::built_in() };
    let refused = |request| async { measured(request).await.unwrap_err().to_string() };
    let short = refused(QualityRequest::new(source.clone(), source.clone(), words("Too short."))).await;
    assert!(short.contains("one chunk takes 512"), "{short}");
    let few = QualityRequest {
        context: Some(ContextTokens::new(32)),
        ..QualityRequest::new(source.clone(), source.clone(), words(&"One two three. ".repeat(10)))
    };
    let few = refused(few).await;
    assert!(few.contains("fewer than 100"), "{few}");
    let other = folder.path().join("other.gguf");
    write_random_model(&other, &RandomModelSpec::tiny("F16")).unwrap();
    let different = refused(QualityRequest::new(source.clone(), other, QualityText::built_in())).await;
    assert!(different.contains("not of one model") || different.contains("has no tokens"), "{different}");
    let damaged = folder.path().join("damaged.gguf");
    std::fs::write(&damaged, b"GGUF").unwrap();
    let damaged = refused(QualityRequest::new(source, damaged, QualityText::built_in())).await;
    assert!(damaged.contains("damaged") || damaged.contains("ends") || damaged.contains("byte"), "{damaged}");
}
