//! `muster estimate` as its users and programs that read its JSON see it: the real program, no controller.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use muster_engine::bundled::MUSTER_TINY_F16;
use muster_engine::gguf::GgufHeader;
use muster_engine::reference;
use muster_engine::worker::WorkerCommand;
use muster_proto::{Bytes, Change, ContextTokens, Estimate, ModelSource, OutputsReserved};
use serde_json::Value;
use tempfile::TempDir;

/// A folder with the bundled model, and no controller anywhere.
struct Desk {
    folder: TempDir,
}

/// What a command answered.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("tiny.gguf"), MUSTER_TINY_F16).expect("the bundled model");
        fs::create_dir(folder.path().join("tmp")).expect("a folder");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.path(name), content).expect("a file");
        name.to_owned()
    }

    /// `muster estimate` with these arguments, in the folder.
    fn say(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MUSTER_") {
                command.env_remove(name);
            }
        }
        command.env("MUSTER_DATA", self.path("no-controller")).env("TMPDIR", self.path("tmp"));
        command.current_dir(self.folder.path()).arg("estimate").args(arguments);
        let Output { status, stdout, stderr } = command.output().expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let said = Said { code: status.code(), out: text(stdout), err: text(stderr) };
        let left: Vec<_> = fs::read_dir(self.path("tmp")).expect("a folder").collect();
        assert!(left.is_empty(), "{arguments:?} left {left:?}");
        said
    }

    #[track_caller]
    fn page(&self, arguments: &[&str]) -> String {
        let said = self.say(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.err);
        said.out
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Estimate {
        let text = self.page(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// A refusal: one line that has these words, nothing on standard output.
    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let said = self.say(arguments);
        assert_eq!(said.code, Some(code), "{arguments:?}: {}{}", said.out, said.err);
        assert!(said.out.is_empty() && said.err.starts_with("error: "), "{arguments:?}: {}{}", said.out, said.err);
        for word in words {
            assert!(said.err.contains(word), "{arguments:?} does not say {word:?}: {}", said.err);
        }
        // clap adds a hint on how to get help.
        let lines = said.err.trim_end().lines().count();
        assert!(lines == 1 || code == 2, "{arguments:?}: {}", said.err);
    }
}

/// Every field of the contract, with its type, as `docs/estimate.md` has it.
#[test]
fn json_is_a_contract() {
    let desk = Desk::new();
    let devices = ["--device", "b=24GiB", "--device", "a=16384MiB"];
    let text = desk.page(&[&["tiny.gguf", "--json", "--ctx", "512"], &devices[..]].concat());
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let fields: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    for field in ["devices", "host", "gpu_layers", "total_layers", "n_ctx", "speed"] {
        assert!(fields.contains(&field), "{field} of {fields:?}");
    }
    let names: Vec<_> = value["devices"].as_array().expect("a list").iter().map(|d| d["name"].as_str()).collect();
    assert_eq!(names, [Some("b"), Some("a")], "in the order asked");
    for place in value["devices"].as_array().into_iter().flatten().chain([&value["host"]]) {
        for field in ["model_bytes", "context_bytes", "compute_bytes"] {
            assert!(place[field].is_u64(), "{field} of {place}");
        }
    }
    assert_eq!(value["total_layers"], 5);
    assert_eq!(value["gpu_layers"], 5);
    assert_eq!(value["n_ctx"], 512);
    assert!(value["speed"].is_null(), "no device is known: {text}");
    // What is read back is what was said: nothing is lost in a type.
    let estimate: Estimate = serde_json::from_value(value.clone()).expect("the contract");
    assert_eq!(serde_json::to_value(&estimate).expect("JSON"), value);
    // The output matrix is that of the embeddings: it is on a device, and once more in main memory.
    let on_devices: Bytes = estimate.devices.iter().map(|device| device.model_bytes).sum();
    let header = GgufHeader::read(&desk.path("tiny.gguf")).expect("a model");
    assert!(on_devices <= header.tensor_bytes && on_devices > Bytes::ZERO && estimate.host.model_bytes > Bytes::ZERO);
    assert!(estimate.devices.iter().all(|device| device.layers > 0), "{:?}", estimate.devices);

    let known = desk.json(&["tiny.gguf", "--on", "RTX 4090"]);
    let speed = known.speed.expect("a known device has a speed");
    assert!(speed.decode_low <= speed.decode_tokens_per_second && speed.decode_tokens_per_second <= speed.decode_high);
    assert!(speed.prefill_low <= speed.prefill_tokens_per_second && speed.prefill_high.get() > 0.0);
    let written = serde_json::to_value(&speed).expect("JSON");
    for field in ["prefill_tokens_per_second", "decode_tokens_per_second", "decode_low", "decode_high"] {
        assert!(written[field].is_f64(), "{field}");
    }
}

/// Llama 3.1 8B in Q4_K_M as llama.cpp's logs print it all over the web: 4403.49 MiB of weights on CUDA0, 281.81 MiB of
/// embeddings on the host, 1024 MiB of KV cache for 8192 tokens.
#[test]
fn a_reference_model_needs_no_file() {
    let desk = Desk::new();
    let estimate = desk.json(&["llama-3.1-8b:Q4_K_M", "--on", "NVIDIA GeForce RTX 4090", "--ctx", "8192"]);
    let [device] = &estimate.devices[..] else { panic!("{:?}", estimate.devices) };
    let near = |bytes: Bytes, mib: f64| (bytes.get() as f64 / (mib * 1024.0 * 1024.0) - 1.0).abs() < 0.001;
    assert!(near(device.model_bytes, 4403.49), "{:?}", device.model_bytes);
    assert!(near(estimate.host.model_bytes, 281.81), "{:?}", estimate.host.model_bytes);
    assert_eq!(device.context_bytes, Bytes::from_gib(1));
    assert_eq!((estimate.gpu_layers, estimate.total_layers, estimate.n_ctx.get()), (33, 33, 8192));
    assert_eq!(estimate.model.source, ModelSource::Reference);
    assert_eq!(estimate.model.quantization.as_deref(), Some("Q4_K_M"));
    assert!(estimate.fits && estimate.short_bytes == Bytes::ZERO && estimate.alternatives.is_empty());
    assert!(estimate.sentence.starts_with("fits with 1") && estimate.sentence.ends_with(" GiB to spare"));
    let apple = desk.json(&["llama-3.1-8b", "--on", "Apple M4 Max 40c", "--ctx", "8192"]);
    assert_eq!((apple.devices[0].backend.as_str(), apple.devices[0].memory_bytes), ("Metal", Bytes::from_gib(96)));
    assert!(apple.warnings[0].contains("several sizes") && apple.speed.is_some(), "{:?}", apple.warnings);
    // A filled context slows down.
    let at = |depth: &str| {
        let speed = desk.json(&["llama-3.1-8b:Q4_K_M", "--on", "RTX 4090", "--ctx", "16384", "--depth", depth]).speed;
        speed.expect("known").decode_tokens_per_second
    };
    assert!(at("16000") < at("0"));
}

#[test]
fn what_does_not_fit_says_by_how_much_and_what_would() {
    let desk = Desk::new();
    let asked = ["llama-3.1-8b:Q4_K_M", "--device", "gpu0=6GiB", "--gpu-layers", "all", "--ctx"];
    let estimate = desk.json(&[&asked[..], &["32768"]].concat());
    let device = &estimate.devices[0];
    assert!(!estimate.fits && estimate.spare_bytes.is_none());
    assert_eq!(device.short_bytes, estimate.short_bytes);
    assert_eq!(device.short_bytes.get(), device.used().get() - Bytes::from_gib(6).get());
    assert!(estimate.sentence.starts_with(&format!("short by {}: would fit ", estimate.short_bytes)));
    let context = estimate.alternatives.iter().find_map(|alternative| match alternative.change {
        Change::Context { n_ctx } => Some(n_ctx),
        _ => None,
    });
    let context = context.unwrap_or_else(|| panic!("{}", estimate.sentence));
    assert!(context.get() >= 4096 && context.get().is_multiple_of(1024), "{context}");
    // It is true, and not much more would fit.
    assert!(desk.json(&[&asked[..], &[&context.get().to_string()]].concat()).fits);
    assert!(!desk.json(&[&asked[..], &[&(context.get() + 2048).to_string()]].concat()).fits);
    let offload = estimate.alternatives.iter().find_map(|alternative| match alternative.change {
        Change::Offload { gpu_layers, .. } => Some(gpu_layers),
        _ => None,
    });
    assert!(offload.is_some_and(|layers| layers < 33), "{:?}", estimate.alternatives);

    let estimate = desk.json(&["llama-3.1-8b:Q8_0", "--device", "gpu0=8GiB", "--gpu-layers", "all", "--ctx", "4096"]);
    let smaller = estimate.alternatives.iter().find_map(|alternative| match &alternative.change {
        Change::Quantization { quantization } => Some(quantization.clone()),
        _ => None,
    });
    assert_eq!(smaller.as_deref(), Some("Q6_K"), "{}", estimate.sentence);
    assert!(estimate.sentence.contains("Q6_K"), "{}", estimate.sentence);

    let none = desk.json(&["tiny.gguf", "--device", "gpu0=4MiB", "--gpu-layers", "all"]);
    assert!(!none.fits && none.sentence.starts_with("short by "), "{}", none.sentence);
}

#[test]
fn layers_go_where_the_flags_or_llama_cpp_put_them() {
    let desk = Desk::new();
    let all = desk.json(&["tiny.gguf", "--device", "gpu0=1GiB", "--gpu-layers", "all"]);
    let some = desk.json(&["tiny.gguf", "--device", "gpu0=1GiB", "--gpu-layers", "3"]);
    let none = desk.json(&["tiny.gguf", "--device", "gpu0=1GiB", "--gpu-layers", "0"]);
    assert_eq!((all.gpu_layers, some.gpu_layers, none.gpu_layers), (5, 3, 0));
    let weights = |estimate: &Estimate| estimate.devices[0].model_bytes;
    assert!(weights(&all) > weights(&some) && weights(&some) > weights(&none), "{some:?}");
    assert!(some.host.model_bytes > all.host.model_bytes && some.fits);
    assert!(some.sentence.contains("3 of 5 layers on the device"), "{}", some.sentence);

    // By its own fit, llama.cpp leaves its margin free, of which the driver takes a part.
    let fitted = desk.json(&["llama-3.1-8b:Q4_K_M", "--device", "gpu0=5GiB", "--ctx", "8192"]);
    assert!(fitted.gpu_layers < 33 && fitted.gpu_layers > 10 && fitted.fits, "{}", fitted.sentence);
    assert!(fitted.spare_bytes.is_some_and(|spare| spare >= Bytes::from_mib(500)), "{:?}", fitted.spare_bytes);
    assert!(fitted.full_offload_short_bytes.is_some_and(|short| short > Bytes::ZERO), "{}", fitted.sentence);
    let more = desk.json(&["llama-3.1-8b:Q4_K_M", "--device", "gpu0=5GiB", "--ctx", "8192", "--margin", "128MiB"]);
    assert!(more.gpu_layers > fitted.gpu_layers);

    // Without a context, as much of the trained one as fits.
    let shrunk = desk.json(&["llama-3.1-8b:Q4_K_M", "--device", "gpu0=12GiB"]);
    assert!(shrunk.context_shrank && shrunk.n_ctx > ContextTokens::new(16_384), "{}", shrunk.sentence);
    assert!(shrunk.n_ctx < ContextTokens::new(131_072) && shrunk.gpu_layers == 33 && shrunk.fits);
    let whole = desk.json(&["llama-3.1-8b:Q4_K_M", "--device", "gpu0=12GiB", "--gpu-layers", "all"]);
    assert!(whole.context_shrank && whole.fits, "{}", whole.sentence);
    assert!(whole.n_ctx.get().abs_diff(shrunk.n_ctx.get()) < 2048, "{} and {}", whole.n_ctx, shrunk.n_ctx);

    // Two devices share what one cannot hold.
    let two = desk.json(&[
        "llama-3.1-8b:Q4_K_M",
        "--device",
        "x=4GiB",
        "--device",
        "y=4GiB",
        "--ctx",
        "4096",
        "--margin",
        "256MiB",
    ]);
    assert!(two.gpu_layers == 33 && two.fits && two.devices.iter().all(|device| device.layers > 10), "{two:?}");
    assert_eq!(two.devices.iter().map(|device| device.layers).sum::<u32>(), 33);
}

#[test]
fn experts_stay_in_main_memory() {
    let desk = Desk::new();
    let asked = ["qwen3-30b-a3b:Q4_K_M", "--device", "gpu0=8GiB", "--ctx", "8192"];
    let all = desk.json(&[&asked[..], &["--gpu-layers", "all"]].concat());
    let moved = desk.json(&[&asked[..], &["--cpu-moe"]].concat());
    let ten = desk.json(&[&asked[..], &["--cpu-moe", "10"]].concat());
    assert!(!all.fits && moved.fits, "{}", moved.sentence);
    assert_eq!((moved.partial_layers, ten.partial_layers), (48, 10));
    assert!(moved.host.model_bytes > ten.host.model_bytes && ten.host.model_bytes > all.host.model_bytes);
    assert_eq!(moved.gpu_layers, moved.total_layers);
    // And so does llama.cpp's own fit.
    let fitted = desk.json(&asked);
    assert!(
        fitted.fits && fitted.partial_layers > 0 && fitted.gpu_layers == fitted.total_layers,
        "{}",
        fitted.sentence
    );
    let dense = desk.json(&["tiny.gguf", "--device", "gpu0=1GiB", "--cpu-moe"]);
    assert!(dense.warnings.iter().any(|warning| warning.contains("no experts")), "{:?}", dense.warnings);
}

#[test]
fn settings_reach_the_dry_run() {
    let desk = Desk::new();
    let with = |more: &[&str]| desk.json(&[&["tiny.gguf", "--device", "gpu0=4GiB", "--ctx", "1024"], more].concat());
    let base = with(&[]);
    assert!(with(&["--kv-type", "q8_0"]).devices[0].context_bytes < base.devices[0].context_bytes);
    assert!(with(&["--ubatch", "64"]).devices[0].compute_bytes < base.devices[0].compute_bytes);
    assert!(with(&["--flash-attn", "off"]).devices[0].compute_bytes >= base.devices[0].compute_bytes);
    let apart = with(&["--parallel", "4"]);
    assert_eq!((apart.n_ctx.get(), apart.settings.parallel), (1024, 4), "the context is that of all sequences");
    assert!(with(&["--parallel", "4", "--kv-unified"]).settings.kv_unified);
    let sequence = with(&["--outputs", "sequence", "--graphs", "earlier"]);
    assert_eq!(base.settings.outputs, OutputsReserved::MicroBatch);
    assert!(sequence.host.compute_bytes.get() <= base.host.compute_bytes.get());
    assert!(sequence.devices[0].compute_bytes <= base.devices[0].compute_bytes);
    let cpu = desk.json(&["tiny.gguf", "--backend", "cpu"]);
    assert!(cpu.devices.is_empty() && cpu.gpu_layers == 0 && cpu.host.memory_bytes.is_some() && cpu.fits);
    let small = desk.json(&["tiny.gguf", "--host", "10MiB"]);
    assert!(!small.fits && small.sentence.contains("of main memory"), "{}", small.sentence);
}

#[test]
fn a_bad_model_file_is_one_line_and_code_3() {
    let desk = Desk::new();
    let whole = MUSTER_TINY_F16;
    let with = |offset: usize, bytes: &[u8]| {
        let mut copy = whole.to_vec();
        copy[offset..offset + bytes.len()].copy_from_slice(bytes);
        copy
    };
    let huge = (1_u64 << 60).to_le_bytes();
    let architecture =
        whole.windows(8).position(|window| window == b"\x05\0\0\0\0\0\0\0").expect("a text of five letters");
    assert_eq!(&whole[architecture + 8..architecture + 13], b"llama");
    for (name, content, words) in [
        ("empty.gguf", Vec::new(), "not a GGUF"),
        ("text.gguf", b"this is a text\n".repeat(50), "not a GGUF"),
        ("random", (0..5000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect(), "not a GGUF"),
        ("cut.gguf", whole[..9000].to_vec(), "the file ends at byte 9000"),
        ("cut-in-weights.gguf", whole[..5_000_000].to_vec(), "beyond the file's end"),
        ("version.gguf", with(4, &77_u32.to_le_bytes()), "version 77"),
        ("tensors.gguf", with(8, &huge), "1152921504606846976"),
        ("entries.gguf", with(16, &huge), "1152921504606846976"),
        ("key.gguf", with(24, &huge), "1152921504606846976"),
        ("unsupported.gguf", with(architecture + 8, b"lambo"), "lambo"),
    ] {
        desk.write(name, &content);
        desk.refused(&[name, "--device", "gpu0=8GiB"], 3, &[name, words]);
    }
    fs::create_dir(desk.path("folder.gguf")).expect("a folder");
    desk.refused(&["folder.gguf"], 3, &["folder.gguf", "not a regular file"]);
    desk.refused(&["missing.gguf"], 3, &["missing.gguf: no such file"]);
    desk.refused(&["./missing"], 3, &["no such file"]);
    desk.refused(&["lama-3.1-8b"], 3, &["no file", "nearest", "llama-3.1-8b", "no controller runs"]);
    desk.refused(&["llama-3.1-8b:Q4_K_X"], 3, &["Q4_K_X", "Q4_K_"]);
}

#[test]
fn wrong_usage_is_code_2() {
    let desk = Desk::new();
    desk.refused(&["tiny.gguf", "--device", "gpu0=24"], 2, &["24GiB"]);
    desk.refused(&["tiny.gguf", "--device", "24GiB"], 2, &["NAME=SIZE"]);
    desk.refused(&["tiny.gguf", "--device", "a=1GiB", "--device", "a=1GiB"], 2, &["two devices"]);
    desk.refused(&["tiny.gguf", "--on", "RTX 4O90"], 2, &["RTX 4O90", "nearest", "rtx-4090"]);
    desk.refused(&["tiny.gguf", "--on", "RTX 4090", "--backend", "metal"], 2, &["Metal", "4090"]);
    desk.refused(&["tiny.gguf", "--on", "RTX 4090", "--machine", "desk"], 2, &["--machine"]);
    desk.refused(&["tiny.gguf", "--backend", "vulkan"], 2, &["--device"]);
    desk.refused(&["tiny.gguf", "--backend", "cpu", "--device", "a=1GiB"], 2, &["--backend cpu"]);
    desk.refused(&["tiny.gguf", "--batch", "2", "--parallel", "4"], 2, &["--batch 2"]);
    desk.refused(&["tiny.gguf", "--kv-type", "q8_0", "--flash-attn", "off"], 2, &["--flash-attn"]);
    desk.refused(&["tiny.gguf", "--gpu-layers", "some"], 2, &["all or auto"]);
    desk.refused(&["tiny.gguf", "--ctx", "0"], 2, &["--ctx"]);
    desk.refused(&["--cpu-moe", "tiny.gguf"], 2, &["write it before the flags"]);
    // A controller is asked only where it has to be.
    desk.refused(&["tiny.gguf", "--machine", "desk"], 1, &["no controller runs"]);
}

/// The header of a file of more than 80 GB, which takes a few MB of disk.
#[tokio::test]
async fn a_header_of_a_large_file_is_enough() {
    let desk = Desk::new();
    let (model, quantization) = reference::parse("llama-3.1-70b:Q8_0").expect("a reference model");
    let command = WorkerCommand::new(env!("CARGO_BIN_EXE_muster"));
    let made = reference::header_file(&command, model, quantization, desk.folder.path()).await.expect("a header");
    let length = made.metadata().expect("there").len();
    assert!(length > 70_000_000_000, "{length}");
    // The same with weights behind it that reach beyond 80 GB.
    fs::OpenOptions::new()
        .write(true)
        .open(&made)
        .and_then(|file| file.set_len(85_000_000_000))
        .expect("a sparse file");
    let file = made.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    let estimate = desk.json(&[&file, "--device", "a=48GiB", "--device", "b=48GiB", "--ctx", "8192"]);
    assert_eq!(estimate.model.source, ModelSource::File);
    assert!(estimate.fits && estimate.gpu_layers == 81, "{}", estimate.sentence);
    assert_eq!(estimate.model.file_bytes, Bytes::new(85_000_000_000));
}

#[test]
fn a_page_is_for_people() {
    let desk = Desk::new();
    let page = desk.page(&["tiny.gguf", "--on", "RTX 4090"]);
    for words in ["fits with 2", "WEIGHTS", "gpu0", "GeForce RTX 4090", "all 5 layers on gpu0", "tok/s", "█"] {
        assert!(page.contains(words), "{words:?} is not on the page:\n{page}");
    }
    assert!(!page.contains('\u{1b}'), "a pipe takes no colours");
    assert!(desk.page(&["tiny.gguf", "--color", "always"]).contains("\u{1b}["));
    assert!(page.lines().all(|line| line.chars().count() <= 100), "{page}");
    let help = desk.page(&["--help"]);
    for flag in [
        "--device",
        "--on",
        "--machine",
        "--ctx",
        "--parallel",
        "--batch",
        "--ubatch",
        "--kv-type",
        "--kv-unified",
        "--flash-attn",
        "--gpu-layers",
        "--cpu-moe",
        "--backend",
        "--depth",
        "--json",
        "--margin",
        "--outputs",
        "--host",
    ] {
        assert!(help.contains(flag), "{flag}");
    }
    let completions =
        Command::new(env!("CARGO_BIN_EXE_muster")).args(["completions", "bash"]).output().expect("it runs");
    let completions = String::from_utf8(completions.stdout).expect("UTF-8");
    assert!(completions.contains("estimate") && completions.contains("--cpu-moe"));
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/estimate.md").is_file(), "the contract is documented");
}
