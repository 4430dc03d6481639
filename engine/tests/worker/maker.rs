//! The model maker and the reference models against llama.cpp's own loader and quantizer and against published files.

use std::collections::BTreeMap;
use std::path::Path;

use muster_engine::gguf::{GgufHeader, TensorType};
use muster_engine::maker::{FactsError, ModelSpec, OutputMatrix, Quantization};
use muster_engine::reference::{self, ModelRole, ReferenceModel};
use muster_engine::worker::{
    Made, MakeRequest, QuantizeRequest, SizeOptions, SizeRequest, Weights, WorkerError, make_model, quantize, size,
};
use muster_proto::Bytes;
use serde_json::{Map, Value, json};

use crate::{bundled, command, settings, started, within};

/// Makes the header of a model.
async fn header(spec: ModelSpec, quantization: Quantization, folder: &Path) -> (Made, GgufHeader) {
    let path = folder.join("made.gguf");
    let request = MakeRequest { spec, quantization, path: path.clone(), weights: Weights::HeaderOnly };
    let made = within(make_model(&command(), request)).await.unwrap();
    (made, GgufHeader::read(&path).unwrap())
}

fn named(name: &str) -> Quantization {
    name.parse().unwrap()
}

/// Tensors of each type, by ggml's name in lower case.
fn types(header: &GgufHeader) -> BTreeMap<String, u64> {
    let mut types = BTreeMap::new();
    for tensor in &header.tensors {
        *types.entry(tensor.kind.name.to_lowercase()).or_insert(0) += 1;
    }
    types
}

fn gib(made: &Made) -> f64 {
    made.tensor_bytes.get() as f64 / 1024_f64.powi(3)
}

struct Row {
    id: String,
    reference: String,
    quantization: Quantization,
    gib: f64,
    /// What llama.cpp printed of the file, empty where it is not known.
    types: BTreeMap<String, u64>,
    /// What is other about the file than what llama.cpp's quantizer makes of the model.
    variant: Option<Value>,
    facts: Option<Map<String, Value>>,
    architecture: String,
}

fn rows() -> Vec<Row> {
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let counts = row["tensor_types"].as_object().cloned().unwrap_or_default();
        let reference = text("reference");
        Row {
            id: format!("{} {} {}", text("row"), text("name"), text("quantization")),
            architecture: reference::find(&reference).unwrap().architecture.clone(),
            reference,
            quantization: named(&text("quantization")),
            gib: row["size_gib"].as_f64().unwrap(),
            types: counts.into_iter().map(|(name, count)| (name.to_lowercase(), count.as_u64().unwrap())).collect(),
            variant: row.get("variant").filter(|variant| variant.is_object()).cloned(),
            facts: row["facts"].as_object().cloned(),
        }
    };
    include_str!("../data/model_sizes.jsonl").lines().map(row).collect()
}

/// The same model as the variant of it that was published; `None` where nobody says how it was made.
fn as_published(mut spec: ModelSpec, variant: &Value) -> Option<ModelSpec> {
    let types = variant["types"].as_object();
    let separate = variant["output"] == "separate";
    if separate {
        spec = spec.with_output(OutputMatrix::Separate);
    }
    for (pattern, kind) in types.into_iter().flatten() {
        spec.types.insert(pattern.clone(), kind.as_str()?.to_owned());
    }
    spec.importance = variant["importance"] == true;
    (separate || types.is_some() || spec.importance).then_some(spec)
}

#[tokio::test]
async fn sizes_are_those_of_published_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut plain: BTreeMap<(String, Quantization), (f64, BTreeMap<String, u64>)> = BTreeMap::new();
    let mut errors = Vec::new();
    for row in rows() {
        let key = (row.reference.clone(), row.quantization);
        let spec = ModelSpec::from(reference::find(&row.reference).unwrap());
        if !plain.contains_key(&key) {
            let (made, header) = header(spec.clone(), row.quantization, folder.path()).await;
            plain.insert(key.clone(), (gib(&made), types(&header)));
        }
        let (size, types) = &plain[&key];
        let error = size / row.gib - 1.0;
        println!(
            "{:+6.2} % {size:7.2} GiB made, {:7.2} published: {} {:?}",
            error * 100.0,
            row.gib,
            row.id,
            row.variant
        );
        errors.push(error.abs());
        match &row.variant {
            None => {
                assert!(
                    error.abs() <= 0.01,
                    "{}: {size:.2} GiB made, {:.2} published, and no name why",
                    row.id,
                    row.gib
                );
            }
            // A name that explains nothing would be no name: made that way, the size is right.
            Some(variant) => {
                if let Some(spec) = as_published(spec, variant) {
                    let exact = spec.importance && !row.types.is_empty();
                    let (made, header) = header(spec, row.quantization, folder.path()).await;
                    let error = gib(&made) / row.gib - 1.0;
                    println!("{:+6.2} % as named", error * 100.0);
                    assert!(error.abs() <= 0.01, "{}: {:.3} GiB is not {:.3}", row.id, gib(&made), row.gib);
                    if exact {
                        assert_eq!(self::types(&header), row.types, "{}", row.id);
                    }
                }
            }
        }
        // Exact types, where a log has them and llama.cpp's own quantizer made the file (Q8_0 of Deepseek and what was
        // made with an importance matrix or by another quantizer differ, by less than 1 %).
        let exact =
            ["llama", "llama4", "qwen2", "gpt-oss"].contains(&row.architecture.as_str()) && row.variant.is_none();
        if exact && !row.types.is_empty() {
            assert_eq!(types, &row.types, "{}", row.id);
        }
    }
    errors.sort_by(f64::total_cmp);
    let median = errors[errors.len() / 2];
    println!("{} rows, median {:.3} %", errors.len(), median * 100.0);
    assert!(errors.len() > 100 && median <= 0.01, "the median error is {median}");
}

#[tokio::test]
async fn counted_types_of_a_log_come_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for row in rows().into_iter().filter(|row| !row.types.is_empty()) {
        let known = row.types.keys().all(|name| TensorType::from_name(&name.to_uppercase()).is_some());
        // Files of other converters (keys and values in one tensor, fewer or more blocks) have other tensors.
        if !known || row.architecture == "deepseek2" || row.architecture == "glm4moe" {
            continue;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a file's size")]
        let bytes = Bytes::new((row.gib * 1024_f64.powi(3)) as u64);
        let spec = ModelSpec::from(reference::find(&row.reference).unwrap());
        let spec = spec.with_published_types(row.types.clone(), Some(bytes));
        let (made, header) = header(spec, row.quantization, folder.path()).await;
        assert_eq!(types(&header), row.types, "{}", row.id);
        let error = gib(&made) / row.gib - 1.0;
        assert!(error.abs() < 5e-3, "{}: {error}", row.id);
        checked += 1;
    }
    assert!(checked > 35, "{checked}");
}

#[tokio::test]
async fn facts_of_a_log_make_the_same_model_as_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for row in rows() {
        let Some(facts) = &row.facts else { continue };
        let model = reference::find(&row.reference).unwrap();
        let spec = ModelSpec::from_facts(&row.id, &model.architecture, facts).unwrap();
        let (from_facts, _) = header(spec, named("Q4_K_M"), folder.path()).await;
        let (known, _) = header(ModelSpec::from(model), named("Q4_K_M"), folder.path()).await;
        let error = gib(&from_facts) / gib(&known) - 1.0;
        // A finetune may add some tokens to the vocabulary.
        assert!(error.abs() < 1e-3, "{}: {error} of {}", row.id, row.reference);
        checked += 1;
    }
    assert!(checked > 40, "{checked}");
}

/// One reference model of each architecture, the smallest.
fn architectures() -> Vec<&'static ReferenceModel> {
    let mut smallest: BTreeMap<&str, &ReferenceModel> = BTreeMap::new();
    for model in reference::all() {
        let known = smallest.entry(&model.architecture).or_insert(model);
        if model.parameters() < known.parameters() {
            *known = model;
        }
    }
    smallest.into_values().collect()
}

#[tokio::test]
async fn headers_of_every_architecture_size() {
    let folder = tempfile::tempdir().unwrap();
    let few = ["BF16", "Q8_0", "Q4_K_M", "IQ2_XXS", "MXFP4", "TQ1_0"];
    let models = architectures();
    assert_eq!(models.len(), 28);
    for (index, model) in models.into_iter().enumerate() {
        // A different pair for each; `examples/check_reference.rs` does all.
        for quantization in [few[index % few.len()], few[(index + 3) % few.len()]] {
            let command = command();
            let path =
                within(reference::header_file(&command, model, named(quantization), folder.path())).await.unwrap();
            let header = GgufHeader::read(&path).unwrap();
            let published = model.parameters() as f64;
            // Rounded to two digits behind the point of a billion, or to three.
            let error = (header.parameters() as f64 - published).abs();
            assert!(error < 6e6 + published * 0.01, "{}: {} parameters", model.id, header.parameters());
            let request =
                SizeRequest { path, settings: settings(512, 1), devices: Vec::new(), options: SizeOptions::default() };
            let sized = within(size(&command, request)).await.unwrap();
            assert_eq!((sized.layers, sized.context_train), (model.shape.n_layer, model.context()), "{}", model.id);
            assert_eq!(sized.experts, model.shape.n_expert.unwrap_or(0), "{}", model.id);
        }
    }
}

#[tokio::test]
async fn random_models_of_every_architecture_load_and_decode() {
    let folder = tempfile::tempdir().unwrap();
    for model in architectures() {
        let path = folder.path().join("random.gguf");
        let spec = ModelSpec::small(model);
        let request = MakeRequest {
            spec,
            quantization: named("Q4_K_M"),
            path: path.clone(),
            weights: Weights::Random { seed: 7 },
        };
        let made = within(make_model(&command(), request)).await.unwrap();
        let header = GgufHeader::read(&path).unwrap();
        assert_eq!(
            (made.file_size, made.parameters),
            (header.file_size, header.parameters()),
            "{}",
            model.architecture
        );
        println!("{}: {} bytes", model.architecture, made.file_size.get());
        let (generator, loaded) = started(&path, settings(256, 1)).await;
        let request = SizeRequest {
            path: path.clone(),
            settings: settings(256, 1),
            devices: Vec::new(),
            options: SizeOptions::default(),
        };
        let sized = within(size(&command(), request)).await.unwrap();
        assert_eq!(sized.need, loaded.memory, "{}", model.architecture);
        // An encoder's every token is an output, and the worker asks for one output a sequence.
        let prompt = if model.roles.contains(&ModelRole::Embed) { 1 } else { 32 };
        let measured = within(generator.measure(prompt, 2)).await;
        let (prefill, decode) = measured.unwrap_or_else(|error| panic!("{}: {error:?}", model.architecture));
        assert!(prefill.get() > 0.0 && decode.get() > 0.0, "{}", model.architecture);
        generator.stop().await;
    }
}

#[tokio::test]
async fn the_same_seed_makes_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (name, seed) in [("a", 1), ("b", 1), ("c", 2)] {
        let path = folder.path().join(name);
        let request = MakeRequest {
            spec: ModelSpec::small(reference::find("qwen3-0.6b").unwrap()),
            quantization: named("IQ3_S"),
            path: path.clone(),
            weights: Weights::Random { seed },
        };
        within(make_model(&command(), request)).await.unwrap();
        files.push(std::fs::read(&path).unwrap());
    }
    assert!(files[0] == files[1] && files[0] != files[2]);
}

/// The quantizer itself on a small model of an architecture, against what the maker says of the same model.
#[tokio::test]
async fn types_are_those_that_quantizing_makes() {
    let folder = tempfile::tempdir().unwrap();
    let few = ["Q4_K_M", "Q3_K_L", "Q5_K_S", "Q4_0", "IQ4_XS", "MXFP4_MOE", "Q2_K", "Q8_0", "BF16"];
    let models = ["llama-3.1-8b", "qwen3-30b-a3b", "qwen3.5-9b", "gemma-4-e2b", "deepseek-v3", "bge-small-en-v1.5"];
    for (index, id) in models.into_iter().enumerate() {
        let spec = ModelSpec::small(reference::find(id).unwrap());
        let source = folder.path().join("f16.gguf");
        let request = MakeRequest {
            spec: spec.clone(),
            quantization: named("F16"),
            path: source.clone(),
            weights: Weights::Random { seed: 1 },
        };
        within(make_model(&command(), request)).await.unwrap();
        // All for the first, some for each other.
        let some = few.iter().enumerate().filter(|(at, _)| index == 0 || at % 3 == index % 3).map(|(_, name)| *name);
        for quantization in some {
            let target = folder.path().join("quantized.gguf");
            let request = QuantizeRequest {
                source: source.clone(),
                target: target.clone(),
                quantization: quantization.into(),
                threads: Some(2),
            };
            within(quantize(&command(), request, |_| {})).await.unwrap();
            let real = by_name(&GgufHeader::read(&target).unwrap());
            std::fs::remove_file(&target).unwrap();
            let (_, made) = header(spec.clone(), named(quantization), folder.path()).await;
            assert_eq!(by_name(&made), real, "{id} {quantization}");
        }
    }
}

fn by_name(header: &GgufHeader) -> BTreeMap<String, (&'static str, Vec<u64>)> {
    header.tensors.iter().map(|tensor| (tensor.name.clone(), (tensor.kind.name, tensor.dimensions.clone()))).collect()
}

#[tokio::test]
async fn the_bundled_model_is_made_again_from_its_numbers() {
    let (folder, path) = bundled();
    let real = GgufHeader::read(&path).unwrap();
    let number = |key: &str| real.get_u64(key).unwrap_or(0);
    let facts = json!({
        "n_layer": number("llama.block_count"),
        "n_embd": number("llama.embedding_length"),
        "n_head": number("llama.attention.head_count"),
        "n_head_kv": number("llama.attention.head_count_kv"),
        "n_ff": number("llama.feed_forward_length"),
        "n_vocab": number("llama.vocab_size"),
        "n_ctx_train": number("llama.context_length"),
    });
    let spec = ModelSpec::from_facts("bundled", "llama", facts.as_object().unwrap()).unwrap();
    let spec = spec.with_output(OutputMatrix::Tied);
    for quantization in ["Q4_K_M", "Q6_K", "Q8_0"] {
        let quantized = crate::quantized(&path, quantization).await;
        let (_, made) = header(spec.clone(), named(quantization), folder.path()).await;
        assert_eq!(by_name(&made), by_name(&GgufHeader::read(&quantized).unwrap()), "{quantization}");
    }
}

#[tokio::test]
async fn numbers_that_make_no_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.gguf");
    let good = ModelSpec::small(reference::find("qwen3-0.6b").unwrap());
    let with = |change: fn(&mut ModelSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        spec
    };
    for (spec, says) in [
        (with(|spec| spec.shape.n_layer = 0), "0 layers"),
        (with(|spec| spec.shape.n_layer = 600), "600 layers"),
        (with(|spec| spec.shape.n_expert = Some(8)), "0 of 8 experts"),
        (with(|spec| spec.shape.n_vocab = 10), "a vocabulary of at least 264"),
        (with(|spec| spec.architecture = "qwen77".into()), "unknown model architecture: 'qwen77'"),
        (with(|spec| drop(spec.types.insert("*".into(), "Q9_9".into()))), "\"Q9_9\" is no tensor type"),
        (with(|spec| drop(spec.types.insert("*norm*".into(), "Q4_K".into()))), "no multiple of Q4_K's block of 256"),
    ] {
        let request = MakeRequest {
            spec,
            quantization: Quantization::DEFAULT,
            path: path.clone(),
            weights: Weights::Random { seed: 1 },
        };
        let error = within(make_model(&command(), request)).await.unwrap_err();
        assert!(matches!(&error, WorkerError::Refused { reason } if reason.contains(says)), "{says}: {error}");
        assert!(!path.exists());
    }
    let facts = json!({ "n_layer": 3, "n_embd": 256, "n_head": 4 });
    let error = ModelSpec::from_facts("x", "llama", facts.as_object().unwrap()).unwrap_err();
    assert_eq!(error, FactsError::Missing { architecture: "llama".into(), fact: "n_vocab" });
}
