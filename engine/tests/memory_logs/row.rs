//! [`Row`]: what one public log says that llama.cpp allocated, and with which settings
//! (`tests/data/memory_logs.jsonl`; a fact that a log does not show is missing there).

use std::collections::BTreeMap;

use muster_engine::worker::{PhantomBackend, PhantomDevice};
use muster_proto::Bytes;
use serde_json::{Map, Value};

/// One log.
pub struct Row {
    facts: Map<String, Value>,
}

/// Memory on one device, in MiB as logs print it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts {
    /// Weights.
    pub model: f64,
    /// KV cache and recurrent state.
    pub context: f64,
    /// Compute buffer, and on the host the logits.
    pub compute: f64,
}

impl Parts {
    /// All of it.
    pub fn total(self) -> f64 {
        self.model + self.context + self.compute
    }
}

/// All rows.
pub fn all() -> Vec<Row> {
    include_str!("../data/memory_logs.jsonl")
        .lines()
        .map(|line| Row { facts: serde_json::from_str(line).expect("the data of this repository") })
        .collect()
}

impl Row {
    /// A text; empty where the log does not show it.
    pub fn text(&self, fact: &str) -> &str {
        self.facts.get(fact).and_then(Value::as_str).unwrap_or("")
    }

    /// A number.
    pub fn number(&self, fact: &str) -> Option<u32> {
        self.facts.get(fact).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok())
    }

    /// Yes or no.
    pub fn flag(&self, fact: &str) -> Option<bool> {
        self.facts.get(fact).and_then(Value::as_bool)
    }

    /// Its name in the data.
    pub fn id(&self) -> &str {
        self.text("id")
    }

    /// Hyperparameters, and metadata over them.
    pub fn model_facts(&self) -> Map<String, Value> {
        let of = |fact| self.facts.get(fact).and_then(Value::as_object).cloned().unwrap_or_default();
        let mut all: Map<String, Value> = of("hparams");
        all.extend(of("gguf_metadata"));
        all
    }

    /// How many tensors of each type (ggml's names in capitals) the file has.
    pub fn tensor_types(&self) -> BTreeMap<String, u64> {
        let types = self.facts.get("tensor_types").and_then(Value::as_object);
        let entry = |(name, count): (&String, &Value)| Some((name.to_uppercase(), count.as_u64()?));
        types.map(|types| types.iter().filter_map(entry).collect()).unwrap_or_default()
    }

    /// The size of the model's tensors as llama.cpp prints it (`4.58 GiB (4.89 BPW)`), and half of its last digit.
    pub fn model_bytes(&self) -> Option<(f64, f64)> {
        let mut words = self.text("model_size_logged").split_whitespace();
        let number: f64 = words.next()?.parse().ok()?;
        let unit = if words.next()? == "GiB" { f64::from(1 << 30) } else { f64::from(1 << 20) };
        Some((number * unit, 0.005 * unit))
    }

    /// ggml's name of the type of the token embedding, where it is alone on the host; `elements` is how many it has.
    pub fn embedding_type(&self, elements: u64) -> Option<String> {
        #[allow(clippy::cast_precision_loss, reason = "elements of a matrix are far below 2^52")]
        let bits = self.allocated().get("Host")?.model * f64::from(1 << 23) / elements as f64;
        let known = [
            ("F16", 16.0),
            ("BF16", 16.0),
            ("Q8_0", 8.5),
            ("Q6_K", 6.5625),
            ("Q5_K", 5.5),
            ("Q5_0", 5.5),
            ("Q4_K", 4.5),
            ("Q4_0", 4.5),
            ("Q3_K", 3.4375),
            ("Q2_K", 2.625),
            ("IQ4_XS", 4.25),
            ("IQ3_S", 3.4375),
        ];
        let types = self.tensor_types();
        let fits = |(name, of): &&(&str, f64)| (of - bits).abs() < 0.01 && types.contains_key(*name);
        known.iter().find(fits).map(|(name, _)| (*name).to_owned())
    }

    fn buffers<'a>(&'a self, fact: &str) -> impl Iterator<Item = (&'a str, f64)> + use<'a> {
        let list = self.facts.get(fact).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        list.iter().filter_map(|buffer| Some((buffer["device"].as_str()?, buffer["mib"].as_f64()?)))
    }

    /// What was allocated, by device; main memory, pinned or not, has the name `Host`.
    pub fn allocated(&self) -> BTreeMap<String, Parts> {
        let mut by_device: BTreeMap<String, Parts> = BTreeMap::new();
        let mut add = |fact: &str, part: fn(&mut Parts) -> &mut f64| {
            for (name, mib) in self.buffers(fact) {
                *part(by_device.entry(place(name)).or_default()) += mib;
            }
        };
        add("model_buffers", |parts| &mut parts.model);
        add("kv_buffers", |parts| &mut parts.context);
        add("rs_buffers", |parts| &mut parts.context);
        add("compute_buffers", |parts| &mut parts.compute);
        add("output_buffers", |parts| &mut parts.compute);
        by_device
    }

    fn gpu_lines(&self) -> impl Iterator<Item = &str> {
        let lines = self.facts.get("gpus_logged").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        lines.iter().filter_map(Value::as_str)
    }

    /// Whether the machine has more devices than the model was spread over, by a split that the log does not print.
    pub fn hides_devices(&self) -> bool {
        let used = self.allocated().keys().filter(|name| *name != "Host").count();
        used > 1 && self.gpu_lines().filter(|line| line.starts_with("using device")).count() > used
    }

    /// Whether Metal's one buffer over the mapped file covers all of it. It spans the file from the first tensor that it
    /// needs to the last. A tied embedding, which is written first, is among them; and a file that was converted from a single
    /// part (the hub's parts have 5 GB) has the alphabetical order of the original names, in which the output `lm_head` comes
    /// before the embedding.
    pub fn maps_whole_files(&self, tied: bool) -> bool {
        let mapped = self.buffers("model_buffers").any(|(name, _)| name.starts_with('M') && name.ends_with("_Mapped"));
        let parameters: f64 =
            self.text("model_params_logged").split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(f64::MAX);
        let billions = if self.text("model_params_logged").ends_with('M') { parameters / 1e3 } else { parameters };
        self.text("backend") == "metal" && mapped && (tied || billions * 2.0 < 5.0)
    }

    /// The GPUs that the log shows, as phantoms.
    pub fn phantoms(&self) -> Vec<PhantomDevice> {
        let backend = match self.text("backend") {
            "cuda" => PhantomBackend::Cuda,
            "vulkan" => PhantomBackend::Vulkan,
            "rocm" => PhantomBackend::Rocm,
            "metal" => PhantomBackend::Metal,
            _ => return Vec::new(),
        };
        let seen: Vec<&str> = self
            .facts
            .get("gpus_logged")
            .and_then(Value::as_array)
            .map_or_else(Vec::new, |gpus| gpus.iter().filter_map(Value::as_str).collect());
        let said = seen.join("\n");
        self.allocated()
            .into_keys()
            .filter(|name| name != "Host")
            .map(|name| {
                let mut device = PhantomDevice::new(&*name, backend, Bytes::from_gib(1024));
                if let Some(free) = between(&said, &format!("using device {name} ("), "MiB free")
                    .and_then(|text| text.rsplit(" - ").next()?.trim().parse().ok())
                {
                    device.free = Bytes::from_mib(free);
                    device.total = device.free;
                }
                device.integrated = said.contains("uma: 1") || said.contains("gfx1151") || said.contains("Orin");
                device.capability = capability(backend, &said);
                device
            })
            .collect()
    }
}

fn capability(backend: PhantomBackend, said: &str) -> Option<u32> {
    match backend {
        PhantomBackend::Cuda => {
            let version = between(said, "compute capability ", ",")?;
            let (major, minor) = version.split_once('.')?;
            Some(major.parse::<u32>().ok()? * 100 + minor.trim().parse::<u32>().ok()? * 10)
        }
        PhantomBackend::Rocm => {
            let digits: String = said.split("gfx").nth(1)?.chars().take_while(char::is_ascii_hexdigit).collect();
            u32::from_str_radix(&digits, 16).ok()
        }
        // Apple7 is M1, Apple8 M2, Apple9 M3 and M4.
        PhantomBackend::Metal => {
            let chip: u32 = said.split("Apple M").nth(1)?.chars().next()?.to_digit(10)?;
            Some(match chip {
                1 => 7,
                2 => 8,
                3 | 4 => 9,
                _ => 10,
            })
        }
        PhantomBackend::Vulkan => [("NVIDIA", 0x10DE), ("AMD", 0x1002), ("Radeon", 0x1002), ("Intel", 0x8086)]
            .into_iter()
            .find(|(vendor, _)| said.contains(vendor))
            .map(|(_, id)| id),
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let rest = &text[text.find(start)? + start.len()..];
    Some(&rest[..rest.find(end)?])
}

/// The device of a buffer: mapped memory of a device is its own, everything on the host is one.
fn place(buffer: &str) -> String {
    let plain = buffer.trim_end_matches("_Mapped").trim_end_matches("_Private");
    let host = plain.starts_with("CPU") || plain.ends_with("_Host") || plain.starts_with("host");
    if host { "Host".into() } else { plain.into() }
}
