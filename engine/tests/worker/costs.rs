//! What a model costs per token, counted twice: from the header that the maker writes, which is what the product
//! estimates from, and from the reference model's facts, which is what the speed priors were learnt with.

#![allow(clippy::float_cmp, reason = "sums of whole numbers are exact")]

use muster_engine::gguf::GgufHeader;
use muster_engine::maker::Quantization;
use muster_engine::reference;
use muster_engine::speed::{ModelCosts, ModelFacts};
use serde_json::Value;

use crate::{command, within};

/// One figure, from both.
struct Both {
    name: &'static str,
    header: f64,
    facts: f64,
    /// How far they may differ.
    slack: f64,
}

impl Both {
    fn differs(&self) -> bool {
        (self.header - self.facts).abs() > self.slack * self.facts.max(self.header)
    }
}

/// Cache elements read, or products, by the layers at some depth.
fn over_context(costs: &ModelCosts, depth: f64, each: fn(&muster_engine::speed::Attention) -> f64) -> f64 {
    costs
        .attention
        .iter()
        .map(|attention| attention.layers * each(attention) * attention.window.map_or(depth, |w| depth.min(w as f64)))
        .sum()
}

#[tokio::test]
async fn costs_of_a_header_are_those_of_the_facts() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for line in include_str!("../../data/reference_models.jsonl").lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let model = reference::find(value["id"].as_str().unwrap()).unwrap();
        // Facts of Gemma 4 differ by layer, which `from_facts` does not read: see the next test.
        if model.architecture == "gemma4" {
            continue;
        }
        // Rows of other lengths get other types, and gpt-oss keeps its experts in MXFP4.
        let plain = ["n_embd", "n_ff", "n_ff_exp"]
            .iter()
            .all(|key| value[*key].as_u64().is_none_or(|length| length % 256 == 0));
        for name in ["Q8_0", "Q4_K_M"] {
            let quantization: Quantization = name.parse().unwrap();
            let path = within(reference::header_file(&command(), model, quantization, folder.path())).await.unwrap();
            let header = ModelCosts::of(&GgufHeader::read(&path).unwrap()).unwrap();
            std::fs::remove_file(&path).unwrap();
            let facts = ModelCosts::from_facts(&ModelFacts::from_json(&value), name, None).unwrap();
            let both = |name, slack, figure: &dyn Fn(&ModelCosts) -> f64| Both {
                name,
                header: figure(&header),
                facts: figure(&facts),
                slack,
            };
            let figures = [
                both("layers", 0.0, &|c| c.layers),
                both("layers with experts", 0.0, &|c| c.expert_layers),
                both("recurrent layers", 0.0, &|c| c.recurrent_layers),
                both("experts used", 0.0, &|c| c.experts_used),
                both("experts", 0.0, &|c| c.expert_count),
                both("width of an expert", 0.0, &|c| if c.expert_count > 0.0 { c.expert_width } else { 0.0 }),
                both("parameters per token", 0.02, &ModelCosts::parameters_per_token),
                // The mixtures' shares of larger types differ a little by model; routers of experts are F32.
                both(
                    "bytes per token",
                    match (name, model.architecture.as_str()) {
                        (_, "gpt-oss") => 1.0,
                        ("Q8_0", _) if header.expert_count > 0.0 => 0.05,
                        ("Q8_0", _) => 0.02,
                        _ if plain && header.expert_count <= 0.0 => 0.06,
                        _ => 0.2,
                    },
                    &ModelCosts::bytes_per_token,
                ),
                both("output", 0.0, &|c| c.output.as_ref().map_or(0.0, |output| output.parameters)),
                both("cache elements", 0.02, &|c| over_context(c, 1.0, |a| a.cache_elements)),
                both("cache elements at depth", 0.02, &|c| over_context(c, 65536.0, |a| a.cache_elements)),
                both("products", 0.02, &|c| over_context(c, 1.0, |a| a.products)),
                both("products at depth", 0.02, &|c| over_context(c, 65536.0, |a| a.products)),
                both("length of a key", 0.0, &|c| c.attention.first().map_or(0.0, |a| a.head_size)),
                both("state", 0.02, &|c| c.state_elements),
            ];
            for figure in figures.iter().filter(|figure| figure.differs()) {
                wrong.push(format!(
                    "{} {} {name}: {} {} by the header, {} by the facts",
                    model.id, header.architecture, figure.name, figure.header, figure.facts
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn layers_of_gemma_4_are_counted_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let model = reference::find("gemma-4-26b-a4b").unwrap();
    let quantization: Quantization = "Q8_0".parse().unwrap();
    let path = within(reference::header_file(&command(), model, quantization, folder.path())).await.unwrap();
    let costs = ModelCosts::of(&GgufHeader::read(&path).unwrap()).unwrap();
    // 25 layers of 8 key heads of 256 that look back 1,024 tokens, and 5 of 2 heads of 512 that look back at all.
    assert_eq!(over_context(&costs, 1.0, |a| a.cache_elements), 25.0 * 4096.0 + 5.0 * 2048.0);
    assert_eq!(over_context(&costs, 65536.0, |a| a.cache_elements), 25.0 * 4096.0 * 1024.0 + 5.0 * 2048.0 * 65536.0);
    assert_eq!(over_context(&costs, 1.0, |a| a.products), 16.0 * (25.0 * 512.0 + 5.0 * 1024.0));
    // "A4B": of 25 billion parameters.
    assert!((3.6e9..4.1e9).contains(&costs.parameters_per_token()), "{}", costs.parameters_per_token());
    // Every fifth layer of this one looks back at all, which only the file's list says.
    let model = reference::find("gemma-4-e2b").unwrap();
    let path = within(reference::header_file(&command(), model, quantization, folder.path())).await.unwrap();
    let costs = ModelCosts::of(&GgufHeader::read(&path).unwrap()).unwrap();
    let windowed: f64 = costs.attention.iter().filter(|a| a.window.is_some()).map(|a| a.layers).sum();
    assert_eq!(windowed, 28.0);
}
