//! The catalog, and one model of it.

use muster_proto::{Artifact, ArtifactSource, Bytes, Model};

use crate::age::date;
use crate::layout::{Facts, Grid, heading, known, plain, sentence, toned};
use crate::style::{Style, Tone};

/// One line for each model.
pub fn models_table(models: &[Model], style: &Style) -> String {
    if models.is_empty() {
        let hint = "the catalog is empty: `muster models import FILE` takes a GGUF file, `muster models import --bundled` \
                    the small model that is built in";
        return sentence(hint, Tone::Quiet, style);
    }
    let mut grid =
        Grid::new(style, &["NAME", "PARAMETERS", "CONTEXT", "QUANTIZATIONS", "ON DISK", "LICENCE"]).right(&[1, 2, 4]);
    for model in models {
        let quantizations: Vec<_> = model.artifacts.iter().map(|artifact| artifact.quantization.as_str()).collect();
        grid.row(vec![
            plain(&model.name),
            plain(parameters(model.parameters)),
            known(model.context_train.map(muster_proto::ContextTokens::get)),
            plain(quantizations.join(", ")),
            plain(model.artifacts.iter().map(|artifact| artifact.size).sum::<Bytes>().to_string()),
            known(model.licence.as_ref()),
        ]);
    }
    grid.render()
}

/// `8.2 B`, `33 M`: three digits at most, as models are named.
pub(crate) fn parameters(number: u64) -> String {
    let number = number as f64;
    match number {
        _ if number >= 1e9 => format!("{:.1} B", number / 1e9),
        _ if number >= 1e6 => format!("{:.1} M", number / 1e6),
        _ => format!("{:.0} k", number / 1e3),
    }
}

/// One model with its files.
pub fn model_page(model: &Model, style: &Style) -> String {
    let Model { name, architecture, parameters: number, context_train, licence, imported_at, artifacts } = model;
    let mut facts = Facts::new(style);
    facts
        .add("architecture", plain(architecture))
        .add("parameters", plain(parameters(*number)))
        .add("trained context", known(*context_train))
        .add("licence", known(licence.as_ref()))
        .add("imported", plain(date(*imported_at)));
    let page = heading(name, style) + &facts.render() + "\n";
    let mut files = Grid::new(style, &["QUANTIZATION", "BITS", "SIZE", "FROM", "KLD", "SAME TOP", "PPL RATIO"])
        .right(&[1, 2, 4, 5, 6])
        .whole(&[0, 1, 2, 3, 4]);
    let mut digests = Grid::new(style, &["QUANTIZATION", "SHA-256"]).whole(&[0]);
    for artifact in artifacts {
        let Artifact { digest, quantization, size, bits_per_weight, source, quality } = artifact;
        let from = match source {
            ArtifactSource::Imported => "imported".to_owned(),
            ArtifactSource::QuantizedFrom { digest } => artifacts
                .iter()
                .find(|other| other.digest == *digest)
                .map_or_else(|| digest.short(), |other| other.quantization.clone()),
        };
        let bits = format!("{bits_per_weight:.2}");
        let figures = quality.as_ref().map(|quality| &quality.divergence);
        files.row(vec![
            plain(quantization),
            plain(bits),
            plain(size.to_string()),
            plain(from),
            known(figures.map(|figures| divergence(figures.mean.value, figures.mean.error))),
            known(figures.map(|figures| format!("{:.1} %", figures.same_top.value * 100.0))),
            known(figures.map(|figures| format!("{:.3}", figures.log_ratio.value.exp()))),
        ]);
        digests.row(vec![plain(quantization), toned(digest.hex(), Tone::Quiet)]);
    }
    page + &files.render() + &basis(artifacts, style) + "\n" + &digests.render()
}

/// `0.0313 ± 0.0002`.
fn divergence(mean: f64, error: f64) -> String {
    format!("{mean:.4} ± {error:.4}")
}

/// What the figures of quality rest on; empty where there are none.
fn basis(artifacts: &[Artifact], style: &Style) -> String {
    let mut said: Vec<String> = Vec::new();
    for quality in artifacts.iter().filter_map(|artifact| artifact.quality.as_ref()) {
        let source = artifacts.iter().find(|artifact| artifact.digest == quality.source);
        let source = source.map_or_else(|| quality.source.short(), |artifact| artifact.quantization.clone());
        let words = format!(
            "KLD: mean KL divergence from {source} on {}, {} chunks of {}; lower is better",
            quality.text, quality.chunks, quality.context
        );
        if !said.contains(&words) {
            said.push(words);
        }
    }
    said.iter().map(|words| sentence(words, Tone::Quiet, style)).collect()
}
