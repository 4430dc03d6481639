//! Finding a device by the name that people and drivers write. Pure; entry point: [`find`].
//!
//! Names are cut into words ("RTX4090 Ti" → `rtx 4090 ti`). A device matches if all words of the question are among its
//! words; words that only name a brand, and memory sizes that fit, may be missing on either side. The best match must be
//! the only one, or all matches be variants of one product (cores of an Apple chip, a socket or a slot, a memory size): then
//! the usual one is taken, and the answer names the others.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::KnownDevice;

/// Words that say whose product it is and tell no two devices apart.
const BRANDS: [&str; 34] = [
    "nvidia",
    "amd",
    "ati",
    "apple",
    "intel",
    "geforce",
    "radeon",
    "rtx",
    "gtx",
    "rx",
    "tesla",
    "quadro",
    "instinct",
    "arc",
    "tm",
    "r",
    "graphics",
    "gpu",
    "corporation",
    "inc",
    "generation",
    "series",
    "cpu",
    "ryzen",
    "threadripper",
    "tr",
    "xeon",
    "epyc",
    "platinum",
    "gold",
    // "Ryzen 9", "Core Ultra 7": a shelf, which the model number says too.
    "3",
    "5",
    "7",
    "9",
];
/// Of these products, the variant that most who run models have; of others, the slowest.
const USUAL: [&str; 6] = ["m1-max-32c", "m2-max-38c", "m3-max-40c", "m4-max-40c", "m5-max-40c", "h100-sxm"];
/// Names in an answer to an unknown one.
const NEAREST: usize = 5;

/// No single device has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no single known device is called {name:?}; nearest: {}", .nearest.join(", "))]
pub struct UnknownDevice {
    /// What was asked.
    pub name: String,
    /// Keys of the nearest devices, best first; each of them is found if asked for.
    pub nearest: Vec<String>,
}

/// A device, and the variants of the same product that the name could also mean.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundDevice<'a> {
    /// The one that is taken.
    pub device: &'a KnownDevice,
    /// The others; empty if the name says which.
    pub others: Vec<&'a KnownDevice>,
}

impl FoundDevice<'_> {
    /// What the reader should know where the name did not say which variant it means.
    pub fn note(&self) -> Option<String> {
        let keys: Vec<&str> = self.others.iter().map(|device| device.key.as_str()).collect();
        (!keys.is_empty()).then(|| {
            format!("taken to be {} ({}); it could also be {}", self.device.name, self.device.key, keys.join(", "))
        })
    }
}

/// See [`super::find_variant`].
pub(super) fn find_variant<'a>(
    name: &str,
    cpu: bool,
    devices: &'a [KnownDevice],
) -> Result<FoundDevice<'a>, UnknownDevice> {
    let search = |pool: &[&'a KnownDevice]| {
        let found = find(name, pool).map(|device| FoundDevice { device, others: Vec::new() });
        found.or_else(|| variants(&name.trim().to_lowercase(), pool))
    };
    let exact = name.trim().to_lowercase();
    if let Some(device) = devices.iter().find(|known| known.key == exact || known.name.to_lowercase() == exact) {
        return Ok(FoundDevice { device, others: Vec::new() });
    }
    // A chip's name alone means its graphics.
    let cpu = cpu || words(&exact).contains("cpu");
    let preferred: Vec<&KnownDevice> = devices.iter().filter(|device| device.is_cpu() == cpu).collect();
    let all: Vec<&KnownDevice> = devices.iter().collect();
    search(&preferred).or_else(|| search(&all)).ok_or_else(|| UnknownDevice {
        name: name.chars().take(100).collect(),
        nearest: nearest(&name.trim().to_lowercase(), devices),
    })
}

/// All variants of the one product that is asked for, the usual first.
fn variants<'a>(name: &str, devices: &[&'a KnownDevice]) -> Option<FoundDevice<'a>> {
    let known: BTreeSet<String> =
        devices.iter().flat_map(|device| &words(&device.key) | &words(&device.name)).collect();
    let asked = words(name);
    // Words that no device has are noise ("Air").
    let product: BTreeSet<&String> =
        asked.iter().filter(|word| known.contains(*word) && !is_variant(word) && !is_brand(word)).collect();
    if product.is_empty() {
        return None;
    }
    let mut found: Vec<&KnownDevice> = devices
        .iter()
        .filter(|device| {
            let own = words(&device.key.replace("-max-q", "").replace("-laptop", ""));
            let memory = device.memory.filter(|_| !device.unified).map(|bytes| bytes.get() >> 30);
            own.iter().filter(|word| !is_variant(word) && !is_brand(word)).collect::<BTreeSet<_>>() == product
                && asked.iter().all(|word| match memory_gib(word) {
                    Some(gib) => memory.is_none_or(|own| own == gib),
                    None => !is_variant(word) || own.contains(word),
                })
        })
        .copied()
        .collect();
    found.sort_by(|a, b| {
        let unusual = |device: &KnownDevice| !USUAL.contains(&device.key.as_str());
        let speed = |device: &KnownDevice| (device.bandwidth, device.gpu_cores, device.fp32);
        let slower = speed(a).partial_cmp(&speed(b)).unwrap_or(Ordering::Equal);
        unusual(a).cmp(&unusual(b)).then(slower).then(a.key.cmp(&b.key))
    });
    let (device, others) = found.split_first()?;
    Some(FoundDevice { device, others: others.to_vec() })
}

/// A word that tells variants of one product apart: cores, a socket or slot, a memory size.
fn is_variant(word: &str) -> bool {
    let cores = word.strip_suffix('c').is_some_and(|count| count.parse::<u32>().is_ok());
    cores || memory_gib(word).is_some() || matches!(word, "sxm" | "pcie" | "nvl")
}

/// The only device of that name.
fn find<'a>(name: &str, devices: &[&'a KnownDevice]) -> Option<&'a KnownDevice> {
    let trimmed = name.trim().to_lowercase();
    if let Some(device) = devices.iter().copied().find(|device| device.key == trimmed) {
        return Some(device);
    }
    // Once as written; then without what is in brackets, where drivers put names of chips.
    for question in [trimmed.clone(), without_brackets(&trimmed)] {
        let asked = words(&question);
        if asked.iter().all(|word| is_brand(word) || memory_gib(word).is_some()) {
            continue;
        }
        // A chip's name alone means its graphics.
        let mut matches: Vec<(u32, &KnownDevice)> = devices
            .iter()
            .filter_map(|&device| {
                Some((2 * distance(&asked, device)? + u32::from(device.is_cpu() && !asked.contains("cpu")), device))
            })
            .collect();
        matches.sort_by_key(|(distance, _)| *distance);
        match matches.as_slice() {
            [(best, device), rest @ ..] if *best <= 3 && rest.first().is_none_or(|(next, _)| next > best) => {
                return Some(device);
            }
            _ => {}
        }
    }
    by_widest_name(&trimmed, devices).or_else(|| by_model_number(&trimmed, devices))
}

/// The only device that is all that is asked, by its key and its name together, and whose key leaves nothing out: "RTX PRO
/// 6000 Workstation" says a word of the name beside the key's. Words that no device has are noise ("8ch", "DDR5-4800").
fn by_widest_name<'a>(name: &str, devices: &[&'a KnownDevice]) -> Option<&'a KnownDevice> {
    let names: Vec<BTreeSet<String>> =
        devices.iter().map(|device| &words(&device.key) | &words(&device.name)).collect();
    let known = |word: &String| memory_gib(word).is_some() || names.iter().any(|name| name.contains(word));
    let mut asked: BTreeSet<String> = words(name).into_iter().filter(known).collect();
    // So NVIDIA's driver calls the SXM card; the other one has HBM2e.
    if asked.contains("h100") && name.contains("hbm3") {
        asked.insert("sxm".to_owned());
    }
    if !asked.iter().any(|word| !is_brand(word) && memory_gib(word).is_none() && has_digit(word)) {
        return None;
    }
    let mut matches = devices.iter().copied().zip(&names).filter(|(device, name)| {
        let key = words(&device.key);
        let memory = device.memory.map(|bytes| bytes.get() >> 30);
        asked.iter().all(|word| {
            name.contains(word) || is_brand(word) || memory_gib(word).is_some_and(|gib| Some(gib) == memory)
        }) && key.iter().all(|word| asked.contains(word) || is_brand(word) || memory_gib(word).is_some())
    });
    let (device, _) = matches.next()?;
    matches.next().is_none().then_some(device)
}

/// The only device with a model number that is asked for: letters and digits, or a server processor's four digits.
fn by_model_number<'a>(name: &str, devices: &[&'a KnownDevice]) -> Option<&'a KnownDevice> {
    let asked = words(name);
    let server = asked.contains("xeon") || asked.contains("epyc");
    let number = |word: &&String| {
        let letters = word.chars().any(|c| c.is_ascii_alphabetic());
        has_digit(word) && memory_gib(word).is_none() && (letters && word.len() >= 5 || server && word.len() == 4)
    };
    let numbers: Vec<&String> = asked.iter().filter(number).collect();
    let mut matches = devices.iter().copied().filter(|device| {
        let own = &words(&device.key) | &words(&device.name);
        numbers.iter().any(|word| own.contains(*word))
    });
    let device = matches.next()?;
    matches.next().is_none().then_some(device)
}

fn has_digit(word: &str) -> bool {
    word.chars().any(|c| c.is_ascii_digit())
}

/// How much of a device's name the question leaves out: 0 nothing, 1 a memory size or a form, more than that another
/// product; `None` if the question has words that the device does not have.
fn distance(asked: &BTreeSet<String>, device: &KnownDevice) -> Option<u32> {
    let memory = device.memory.map(|bytes| bytes.get() >> 30);
    spellings(device)
        .iter()
        .filter_map(|spelling| {
            let fits = |word: &String| {
                spelling.contains(word)
                    || is_brand(word)
                    || memory_gib(word).is_some_and(|gib| Some(gib) == memory && !has_memory(spelling))
            };
            if !asked.iter().all(fits) {
                return None;
            }
            let missing = spelling.iter().filter(|word| !asked.contains(*word) && !is_brand(word));
            Some(missing.map(|word| if memory_gib(word).is_some() { 1 } else { 4 }).sum())
        })
        .min()
}

fn has_memory(spelling: &BTreeSet<String>) -> bool {
    spelling.iter().any(|word| memory_gib(word).is_some())
}

/// The ways to write a device: its key, its name, its name without brackets, and what stands between slashes, commas and
/// brackets.
fn spellings(device: &KnownDevice) -> Vec<BTreeSet<String>> {
    let name = device.name.to_lowercase();
    let mut spellings = vec![words(&device.key), words(&name)];
    // Of a laptop's chip, the brackets say that it is one.
    if !name.contains("laptop") {
        spellings.push(words(&without_brackets(&name)));
        spellings.extend(name.split(['/', '(', ')', ',']).map(words));
    }
    spellings.retain(|spelling| {
        spelling
            .iter()
            .any(|word| !is_brand(word) && memory_gib(word).is_none() && word.chars().any(|c| c.is_ascii_digit()))
            || spelling.len() >= 2 && spelling.iter().any(|word| !is_brand(word) && memory_gib(word).is_none())
    });
    spellings
}

fn without_brackets(name: &str) -> String {
    let mut depth = 0_u32;
    name.chars()
        .filter(|c| {
            match c {
                '(' | '[' => depth += 1,
                ')' | ']' => {
                    depth = depth.saturating_sub(1);
                    return false;
                }
                _ => {}
            }
            depth == 0
        })
        .collect()
}

fn is_brand(word: &str) -> bool {
    BRANDS.contains(&word)
}

fn memory_gib(word: &str) -> Option<u64> {
    word.strip_suffix("gb")?.parse().ok()
}

/// Words in one spelling: `40-core` is `40c`, `24 GiB` is `24gb`, `RTX4060Ti` is `rtx 4060 ti`, `mobile` is `laptop`.
fn words(name: &str) -> BTreeSet<String> {
    let mut parts: Vec<String> = Vec::new();
    for raw in
        name.to_lowercase().split(|c: char| !c.is_ascii_alphanumeric() && c != '.').filter(|word| !word.is_empty())
    {
        parts.extend(split(raw));
    }
    let mut words = BTreeSet::new();
    let mut parts = parts.into_iter().peekable();
    while let Some(part) = parts.next() {
        let number = part.chars().all(|c| c.is_ascii_digit());
        // "32 GPU cores".
        if number && parts.peek().is_some_and(|next| next == "gpu") {
            let mut ahead = parts.clone();
            ahead.next();
            if ahead.next().is_some_and(|next| next.starts_with("core")) {
                parts.next();
            }
        }
        let word = match parts.peek().map(String::as_str) {
            Some("gb" | "gib" | "g") if number => format!("{part}gb"),
            Some("core" | "cores" | "c") if number => format!("{part}c"),
            _ => {
                words.insert(match part.as_str() {
                    "mobile" | "notebook" => "laptop".to_owned(),
                    "sxm2" | "sxm4" | "sxm5" => "sxm".to_owned(),
                    _ => part,
                });
                continue;
            }
        };
        parts.next();
        words.insert(word);
    }
    words
}

/// Cuts what people write together: a brand before a number, a variant after it.
fn split(word: &str) -> Vec<String> {
    const VARIANTS: [&str; 10] = ["ti", "super", "xt", "xtx", "gre", "gb", "gib", "g", "core", "c"];
    let digits = |c: char| c.is_ascii_digit();
    if let Some(brand) = ["rtx", "gtx", "rx"]
        .into_iter()
        .find(|brand| word.strip_prefix(brand).is_some_and(|rest| rest.starts_with(digits)))
    {
        let mut parts = vec![brand.to_owned()];
        parts.extend(split(&word[brand.len()..]));
        return parts;
    }
    if let Some(end) = word.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0) {
        let (number, variant) = word.split_at(end);
        if VARIANTS.contains(&variant) {
            return vec![number.to_owned(), variant.to_owned()];
        }
    }
    vec![word.to_owned()]
}

/// The devices that share most with the question: words first (numbers count double), then letters.
fn nearest(question: &str, devices: &[KnownDevice]) -> Vec<String> {
    let asked = words(question);
    // No name is longer than its first letters tell.
    let flat: String = asked.iter().filter(|word| !is_brand(word)).flat_map(|word| word.chars()).take(64).collect();
    let mut scored: Vec<(usize, usize, &str)> = devices
        .iter()
        .map(|device| {
            let own: BTreeSet<String> = words(&device.key).into_iter().chain(words(&device.name)).collect();
            let weight = |word: &&String| match (is_brand(word), word.chars().any(|c| c.is_ascii_digit())) {
                (true, _) => 1,
                (false, true) => 6,
                (false, false) => 3,
            };
            let shared: usize = asked.intersection(&own).map(|word| weight(&word)).sum();
            let key: String =
                words(&device.key).iter().filter(|word| !is_brand(word)).flat_map(|word| word.chars()).collect();
            (shared, strsim::levenshtein(&flat, &key), device.key.as_str())
        })
        .collect();
    scored.sort_by(|a, b| (b.0 * 2).cmp(&(a.0 * 2)).then(a.1.cmp(&b.1)).then(a.2.cmp(b.2)));
    scored.into_iter().take(NEAREST).map(|(_, _, key)| key.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{all, find, find_variant};

    #[test]
    fn people_and_drivers_write_names_in_many_ways() {
        for (name, key) in [
            ("RTX 4090", "rtx-4090"),
            ("NVIDIA GeForce RTX 4090", "rtx-4090"),
            ("4090", "rtx-4090"),
            ("rtx4090", "rtx-4090"),
            ("RTX 4090 24GB", "rtx-4090"),
            ("NVIDIA GeForce RTX 4090 Laptop GPU", "rtx-4090-laptop"),
            ("RTX 4090 mobile", "rtx-4090-laptop"),
            ("4060 Ti 8GB", "rtx-4060-ti-8gb"),
            ("RTX 4060Ti", "rtx-4060-ti"),
            ("RTX 3060", "rtx-3060-12gb"),
            ("rtx-3060-12gb", "rtx-3060-12gb"),
            ("GeForce GTX 1660 SUPER", "gtx-1660-super"),
            ("Apple M4 Max 40c", "m4-max-40c"),
            ("M4 Max (40-core GPU)", "m4-max-40c"),
            ("apple m3 ultra 80 core", "m3-ultra-80c"),
            ("Radeon RX 7900 XTX", "rx-7900-xtx"),
            ("AMD Radeon RX 7900 XTX (RADV NAVI31)", "rx-7900-xtx"),
            ("RX7900XT", "rx-7900-xt"),
            ("AMD Radeon(TM) 780M Graphics", "radeon-780m"),
            ("Radeon 8060S", "strix-halo"),
            ("Strix Halo", "strix-halo"),
            ("Intel(R) Arc(TM) A770 Graphics", "arc-a770"),
            ("B580", "arc-b580"),
            ("NVIDIA A100-SXM4-80GB", "a100-80gb-sxm"),
            ("NVIDIA A100-PCIE-40GB", "a100-40gb-pcie"),
            ("Tesla T4", "t4"),
            ("NVIDIA RTX A6000", "rtx-a6000"),
            ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
            ("DGX Spark", "gb10"),
            ("MI300X", "mi300x"),
            ("Instinct MI50 32GB", "mi50"),
            ("Radeon PRO W7900", "w7900"),
            ("Ryzen 9 5950X", "cpu-5950x"),
            ("AMD Ryzen Threadripper PRO 7965WX", "cpu-tr-7965wx"),
            ("Intel Xeon Platinum 8358", "cpu-xeon-8358"),
            ("Apple M3 Max (40 GPU cores)", "m3-max-40c"),
            ("M2 (10 GPU cores)", "m2-10c"),
            ("NVIDIA H100 80GB HBM3", "h100-sxm"),
            ("RTX PRO 6000 Blackwell", "rtx-pro-6000"),
            ("NVIDIA RTX PRO 6000 Workstation", "rtx-pro-6000"),
        ] {
            match find(name) {
                Ok(device) => assert_eq!(device.key, key, "{name}"),
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }

    #[test]
    fn of_variants_of_one_product_the_usual_is_taken_and_the_others_are_named() {
        for (name, key, others) in [
            ("Apple M1 Max", "m1-max-32c", vec!["m1-max-24c"]),
            ("M1 Max 64GB", "m1-max-32c", vec!["m1-max-24c"]),
            ("Apple M3 Max", "m3-max-40c", vec!["m3-max-30c"]),
            ("M2 Air", "m2-8c", vec!["m2-10c"]),
            ("M4 Pro", "m4-pro-16c", vec!["m4-pro-20c"]),
            ("H100 80 GB", "h100-sxm", vec!["h100-pcie"]),
            ("A100 80 GB", "a100-80gb-pcie", vec!["a100-80gb-sxm"]),
            ("Tesla P100", "tesla-p100-pcie", vec!["tesla-p100-sxm2"]),
            ("GTX 1650 Ti", "gtx-1650-ti-max-q", vec!["gtx-1650-ti-laptop"]),
            ("AMD Ryzen AI 9 300 Series", "igpu-ryzen-ai-300", vec![]),
            ("RTX 4090", "rtx-4090", vec![]),
        ] {
            let found = find_variant(name, false).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(found.device.key, key, "{name}");
            assert_eq!(found.others.iter().map(|device| device.key.as_str()).collect::<Vec<_>>(), others, "{name}");
            assert_eq!(found.note().is_some(), !others.is_empty());
        }
        assert!(find_variant("A100", false).expect("a family").note().expect("several").contains("a100-80gb-sxm"));
    }

    #[test]
    fn for_the_cpu_backend_a_processor_is_preferred() {
        let key = |name: &str, cpu: bool| find_variant(name, cpu).map(|found| found.device.key.clone());
        assert_eq!(key("M2 Max", true).as_deref(), Ok("cpu-m2-max"));
        assert_eq!(key("M2 Max", false).as_deref(), Ok("m2-max-38c"));
        assert_eq!(key("Strix Halo", true).as_deref(), Ok("cpu-strix-halo"));
        assert_eq!(key("Strix Halo", false).as_deref(), Ok("strix-halo"));
        assert_eq!(key("RTX 4090", true).as_deref(), Ok("rtx-4090"), "there is no such processor");
    }

    #[test]
    fn every_device_is_found_by_its_key_and_its_name() {
        for device in all() {
            assert_eq!(find(&device.key).expect("a key").key, device.key);
            match find(&device.name) {
                Ok(found) => assert_eq!(found.key, device.key, "{}", device.name),
                Err(error) => panic!("{}: {error}", device.name),
            }
        }
    }

    #[test]
    fn unknown_and_ambiguous_names_give_the_nearest() {
        let nearest = |name: &str| find(name).expect_err("not one device").nearest;
        assert!(nearest("RTX 4095").iter().any(|key| key.starts_with("rtx-409")), "{:?}", nearest("RTX 4095"));
        assert!(nearest("RTX 6000 Pro Max").len() > 1);
        assert!(!nearest("").is_empty());
        assert!(!nearest("RTX").is_empty());
        assert!(!nearest(&"x".repeat(10_000)).is_empty());
        assert!(find("NVIDIA 24GB").is_err());
    }
}
