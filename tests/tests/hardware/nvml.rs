//! NVIDIA's library, real and dynamically loaded, with any card behind it: `fake_nvml/nvml.c`, asked by the agent's own
//! probe in its own process through the real wrapper.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use muster_agent::probe::child::ask;
use muster_agent::probe::kept::KeptProbe;
use muster_agent::probe::nvml_free::{self, Card, Free};
use muster_agent::probe::nvml_use::{CardUse, NvmlUse};
use muster_agent::probe::raw::{NvmlAnswers, NvmlDevice, NvmlProcess, ProbeResult};
use muster_proto::Bytes;
use muster_tests::{PATIENCE, binaries, wait_for};
use tempfile::TempDir;

use super::corpus::machines;

/// Long enough for any machine that is busy with other tests.
const PATIENT: Duration = Duration::from_mins(2);
/// The probe's names of what it asks, and the function that answers.
const FUNCTIONS: [(&str, &str); 17] = [
    ("device", "nvmlDeviceGetHandleByIndex_v2"),
    ("name", "nvmlDeviceGetName"),
    ("uuid", "nvmlDeviceGetUUID"),
    ("pci_info", "nvmlDeviceGetPciInfo_v3"),
    ("memory", "nvmlDeviceGetMemoryInfo_v2"),
    ("compute_capability", "nvmlDeviceGetCudaComputeCapability"),
    ("pcie_generation", "nvmlDeviceGetCurrPcieLinkGeneration"),
    ("pcie_width", "nvmlDeviceGetCurrPcieLinkWidth"),
    ("pcie_generation_max", "nvmlDeviceGetMaxPcieLinkGeneration"),
    ("pcie_width_max", "nvmlDeviceGetMaxPcieLinkWidth"),
    ("power_limit", "nvmlDeviceGetEnforcedPowerLimit"),
    ("temperature", "nvmlDeviceGetTemperature"),
    ("throttle_reasons", "nvmlDeviceGetCurrentClocksThrottleReasons"),
    ("ecc", "nvmlDeviceGetEccMode"),
    ("mig", "nvmlDeviceGetMigMode"),
    ("compute_processes", "nvmlDeviceGetComputeRunningProcesses_v3"),
    ("graphics_processes", "nvmlDeviceGetGraphicsRunningProcesses_v3"),
];
/// The wrapper's words for NVML's codes (nvml.h), as far as the corpus has them.
const CODES: [(&str, u32); 5] = [
    ("the requested operation is not available on the target device", 3),
    ("NVIDIA driver is not loaded", 9),
    ("device fell off the bus or has otherwise become inacessible", 15),
    ("RM detects a driver/library version mismatch", 18),
    ("an internal driver error occurred", 999),
];
/// NVML's bits of throttling (nvml.h), by the probe's words.
const THROTTLE: [(&str, u32); 9] = [
    ("gpu_idle", 0x1),
    ("applications_clocks_setting", 0x2),
    ("sw_power_cap", 0x4),
    ("hw_slowdown", 0x8),
    ("sync_boost", 0x10),
    ("sw_thermal_slowdown", 0x20),
    ("hw_thermal_slowdown", 0x40),
    ("hw_power_brake_slowdown", 0x80),
    ("display_clock_setting", 0x100),
];
/// What the wrapper says of a function that the library lacks, before its name.
const MISSING: &str = "undefined symbol: ";

/// A machine with NVIDIA's library in a folder of its own: an agent that finds it.
struct Machine {
    folder: TempDir,
}

impl Machine {
    /// A library without the `missing` functions that answers as `description` says.
    fn new(description: &str, missing: &BTreeSet<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("machine"), description).unwrap();
        let mut hidden = String::from("{ global: nvml*;");
        if !missing.is_empty() {
            hidden.push_str(" local:");
            for name in missing {
                write!(hidden, " {name};").unwrap();
            }
        }
        fs::write(path("symbols"), hidden + " };\n").unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fake_nvml/nvml.c");
        let compiled = Command::new("cc")
            .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o"])
            .arg(path("libnvidia-ml.so.1"))
            .arg(source)
            .arg(format!("-Wl,--version-script={}", path("symbols").display()))
            .output()
            .expect("the C compiler");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let agent = format!(
            "#!/bin/sh\nexport FAKE_NVML={} MUSTER_NVML_LIBRARY={}\nexec {} \"$@\"\n",
            path("machine").display(),
            path("libnvidia-ml.so.1").display(),
            binaries().agent.display()
        );
        fs::write(path("agent"), agent).unwrap();
        fs::set_permissions(path("agent"), fs::Permissions::from_mode(0o700)).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the agent's probe says of it.
    async fn ask(&self, deadline: Duration) -> ProbeResult<NvmlAnswers> {
        ask(&self.path("agent"), "nvml", deadline).await
    }
}

/// The machine of these answers, as the library reads it; and which functions it lacks.
fn describe(answers: &NvmlAnswers) -> (String, BTreeSet<String>) {
    let (mut text, mut missing) = (String::new(), BTreeSet::new());
    writeln!(text, "driver {}", answers.driver_version.as_deref().expect("a driver")).unwrap();
    writeln!(text, "cuda {}", answers.cuda_version.expect("CUDA's version")).unwrap();
    for card in &answers.devices {
        describe_card(card, "device", &mut text, &mut missing);
        for slice in &card.slices {
            describe_card(slice, "slice", &mut text, &mut missing);
        }
    }
    (text, missing)
}

fn describe_card(card: &NvmlDevice, word: &str, text: &mut String, missing: &mut BTreeSet<String>) {
    writeln!(text, "{word}").unwrap();
    let mut say = |word: &str, rest: Option<String>| {
        if let Some(rest) = rest {
            writeln!(text, "{word} {rest}").unwrap();
        }
    };
    say("name", card.name.clone());
    say("uuid", card.uuid.clone());
    say("bus", card.pci_bus_id.clone());
    say("pci", card.pci_device_id.map(|id| id.to_string()));
    say("memory", card.memory.map(|m| format!("{} {} {}", m.total.get(), m.free.get(), m.used.get())));
    say("capability", card.compute_capability.map(|(major, minor)| format!("{major} {minor}")));
    let link = [card.pcie_generation, card.pcie_width, card.pcie_generation_max, card.pcie_width_max];
    say("pcie", Some(link.map(|number| number.unwrap_or_default().to_string()).join(" ")));
    say("power", card.power_limit_milliwatts.map(|limit| limit.to_string()));
    say("temperature", card.temperature_celsius.map(|celsius| celsius.to_string()));
    say("throttle", card.throttle_reasons.as_ref().map(|words| bits(words).to_string()));
    say("ecc", card.ecc.map(|on| u8::from(on).to_string()));
    say("mig", card.mig.map(|on| u8::from(on).to_string()));
    for process in &card.processes {
        // The greatest number is NVML's for "not told".
        say("compute", Some(format!("{} {}", process.pid, process.bytes.map_or(u64::MAX, Bytes::get))));
    }
    for (field, error) in &card.errors {
        let function = FUNCTIONS.iter().find(|(name, _)| name == field).map_or_else(|| panic!("{field}?"), |f| f.1);
        if let Some((_, name)) = error.split_once(MISSING) {
            assert_eq!(name, function, "{field}");
            missing.insert(name.to_owned());
        } else {
            let code = CODES.iter().find(|(words, _)| words == error).unwrap_or_else(|| panic!("{error:?}?"));
            say("error", Some(format!("{function} {}", code.1)));
        }
    }
}

fn bits(words: &[String]) -> u32 {
    let bit = |word: &String| THROTTLE.iter().find(|(name, _)| name == word).map_or_else(|| panic!("{word}?"), |t| t.1);
    words.iter().map(bit).sum()
}

/// Without what this machine adds: names of programs, and the library's folder in errors.
fn plain(answers: &NvmlAnswers) -> NvmlAnswers {
    let mut answers = answers.clone();
    for card in &mut answers.devices {
        for process in &mut card.processes {
            process.name = None;
        }
        for error in card.errors.values_mut() {
            if let Some((_, name)) = error.split_once(MISSING) {
                *error = format!("{MISSING}{name}");
            }
        }
    }
    answers
}

/// A card in few words.
fn few(name: &str) -> String {
    format!(
        "device\nname {name}\nuuid GPU-1\nbus 00000000:01:00.0\npci 0x268410de\nmemory 8192 4096 4096\ncapability 8 9\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_corpus_through_the_real_library_is_what_the_corpus_says() {
    let mut asked = 0;
    for (name, machine) in machines() {
        let Some(answers) = machine.raw.nvml.ok() else { continue };
        let (description, missing) = describe(answers);
        let came = Machine::new(&description, &missing).ask(PATIENT).await;
        let Some(came) = came.ok() else { panic!("{name}.json: {came:?}") };
        assert_eq!(plain(came), plain(answers), "{name}.json");
        asked += 1;
    }
    assert!(asked >= 15, "{asked} machines with NVML");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_says_no_is_a_reason() {
    for (name, machine) in machines() {
        let ProbeResult::Failed { reason, absent } = &machine.raw.nvml else { continue };
        let Some((_, code)) = CODES.iter().find(|(words, _)| words == reason) else { continue };
        let came = Machine::new(&format!("init {code}\n"), &BTreeSet::new()).ask(PATIENT).await;
        assert_eq!(came, ProbeResult::Failed { reason: reason.clone(), absent: *absent }, "{name}.json");
    }
    let lacks_init = BTreeSet::from(["nvmlInit_v2".to_owned()]);
    let came = Machine::new("driver 1\n", &lacks_init).ask(PATIENT).await;
    assert!(matches!(&came, ProbeResult::Failed { reason, .. } if reason.contains("nvmlInit_v2")), "{came:?}");
}

/// In the middle of a call, as a driver whose card does not come back from sleep.
#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_hangs_is_killed_at_the_deadline() {
    for function in ["nvmlInit_v2", "nvmlDeviceGetTemperature"] {
        let machine = Machine::new("", &BTreeSet::new());
        let mark = machine.path("pid");
        let description = format!("driver 580.95.05\ncuda 13000\nhang {function} {}\n{}", mark.display(), few("Card"));
        fs::write(machine.path("machine"), description).unwrap();
        // Until it hangs, however slow this machine is; then it is only a matter of the deadline.
        let mut deadline = Duration::from_secs(1);
        let came = loop {
            let came = machine.ask(deadline).await;
            if mark.exists() {
                break came;
            }
            deadline *= 2;
            assert!(deadline < PATIENT, "{function} was not called: {came:?}");
        };
        let after_ms = u64::try_from(deadline.as_millis()).unwrap();
        assert_eq!(came, ProbeResult::TimedOut { after_ms }, "{function}");
        let pid: i32 = fs::read_to_string(&mark).unwrap().trim().parse().unwrap();
        wait_for("the end of the probe that hung", PATIENCE, || if is_running(pid) { Err("it runs") } else { Ok(()) });
    }
}

/// A process that nobody has waited for yet counts as ended.
fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_crashes_takes_only_its_probe_along() {
    for function in ["nvmlInit_v2", "nvmlDeviceGetName", "nvmlDeviceGetGraphicsRunningProcesses_v3"] {
        let description = format!("driver 580.95.05\ncuda 13000\nabort {function}\n{}", few("Card"));
        let came = Machine::new(&description, &BTreeSet::new()).ask(PATIENT).await;
        assert!(
            matches!(&came, ProbeResult::Failed { reason, absent: false } if reason.contains("crashed")),
            "{came:?}"
        );
    }
    let came = Machine::new(&format!("driver 1\ncuda 13000\n{}", few("Card")), &BTreeSet::new()).ask(PATIENT).await;
    assert_eq!(came.ok().expect("another one answers").devices[0].name.as_deref(), Some("Card"));
}

/// One that this very test holds: names of programs are read where they may be.
#[tokio::test(flavor = "multi_thread")]
async fn programs_on_the_card_have_names() {
    let own = std::process::id();
    let machine = format!("driver 1\ncuda 13000\n{}compute {own} 1024\ngraphics {own} {}\n", few("Card"), u64::MAX);
    let came = Machine::new(&machine, &BTreeSet::new()).ask(PATIENT).await;
    let card = &came.ok().expect("it answers").devices[0];
    let name = fs::read_to_string("/proc/self/comm").ok().map(|name| name.trim_end().to_owned());
    let one = |bytes| NvmlProcess { pid: own, name: name.clone(), bytes };
    assert_eq!(card.processes, [one(Some(Bytes::new(1024))), one(None)]);
}

/// A machine whose one card of NVIDIA is as `status` says, below `/sys`.
fn with_card(sys: &Path, status: &str) {
    let card = sys.join("bus/pci/devices/0000:01:00.0");
    fs::create_dir_all(card.join("power")).unwrap();
    for (file, text) in [("vendor", "0x10de"), ("class", "0x030200"), ("power/runtime_status", status)] {
        fs::write(card.join(file), format!("{text}\n")).unwrap();
    }
}

async fn until(watched: &NvmlUse, what: &str, wanted: impl Fn(&[CardUse]) -> bool) {
    let mut newest = watched.follow();
    let seen = tokio::time::timeout(PATIENT, newest.wait_for(|cards| wanted(cards))).await;
    assert!(matches!(seen, Ok(Ok(_))), "never {what}: {:?}", watched.newest());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_computes_is_known_while_the_card_is_awake() {
    let description = format!("driver 1\ncuda 13000\n{}busy 64\nworks 7 40\nworks 8 30\nworks 7 10\n", few("Card"));
    let machine = Machine::new(&description, &BTreeSet::new());
    let sys = tempfile::tempdir().unwrap();
    with_card(sys.path(), "active");
    let mut watched = NvmlUse::start(&machine.path("agent"), sys.path());
    watched.known().await;
    let busy = CardUse { percent: Some(64), programs: Some([(7, 40), (8, 30)].into()) };
    until(&watched, "busy", |cards| cards == std::slice::from_ref(&busy)).await;
    // It falls asleep: nobody keeps it awake, and nobody uses it.
    with_card(sys.path(), "suspended");
    until(&watched, "asleep", <[CardUse]>::is_empty).await;
    with_card(sys.path(), "active");
    until(&watched, "awake again", |cards| !cards.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_counts_no_programs_says_how_busy_it_is() {
    let description = format!("driver 1\ncuda 13000\n{}busy 5\n", few("Card"));
    let lacks = BTreeSet::from(["nvmlDeviceGetProcessUtilization".to_owned()]);
    let sys = tempfile::tempdir().unwrap();
    with_card(sys.path(), "active");
    for (missing, programs) in [(lacks, None), (BTreeSet::new(), Some([].into()))] {
        let machine = Machine::new(&description, &missing);
        let watched = NvmlUse::start(&machine.path("agent"), sys.path());
        let wanted = CardUse { percent: Some(5), programs };
        until(&watched, "counted", |cards| cards == std::slice::from_ref(&wanted)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_crashes_is_not_asked_who_computes() {
    let description = format!("driver 1\ncuda 13000\nabort nvmlDeviceGetUtilizationRates\n{}", few("Card"));
    let machine = Machine::new(&description, &BTreeSet::new());
    let sys = tempfile::tempdir().unwrap();
    with_card(sys.path(), "active");
    let mut watched = NvmlUse::start(&machine.path("agent"), sys.path());
    watched.known().await;
    assert_eq!(watched.newest(), []);
    // Nor is it on a machine that has none, and never was.
    let none = tempfile::tempdir().unwrap();
    let mut watched = NvmlUse::start(&machine.path("agent"), none.path());
    watched.known().await;
    assert_eq!(watched.newest(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_free_is_asked_of_a_process_that_stays() {
    let machine = Machine::new(&format!("driver 1\ncuda 13000\n{}", few("Card")), &BTreeSet::new());
    let mut probe = KeptProbe::start(&machine.path("agent"), nvml_free::NAME).expect("it starts");
    let card = |name: &str, bus: &str, uuid: Option<&str>| Card {
        name: name.into(),
        bus: bus.into(),
        uuid: uuid.map(str::to_owned),
    };
    let asked = [
        card("CUDA0", "0000:99:00.0", Some("GPU-1")),
        card("Vulkan0", "0000:01:00.0", None),
        card("Vulkan1", "0000:99:00.0", None),
    ];
    let free = |name: &str| Free { name: name.into(), free: Bytes::new(4096) };
    for _ in 0..2 {
        let answer: Option<Vec<Free>> = probe.ask(&asked, PATIENT).await;
        assert_eq!(answer, Some(vec![free("CUDA0"), free("Vulkan0")]), "by what tells slices apart, and by address");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_hangs_is_not_waited_for_by_who_asks_what_is_free() {
    let machine = Machine::new("", &BTreeSet::new());
    let mark = machine.path("pid");
    let description =
        format!("driver 1\ncuda 13000\nhang nvmlDeviceGetMemoryInfo_v2 {}\n{}", mark.display(), few("Card"));
    fs::write(machine.path("machine"), description).unwrap();
    let mut probe = KeptProbe::start(&machine.path("agent"), nvml_free::NAME).expect("it starts");
    let asked = [Card { name: "CUDA0".into(), bus: "0000:01:00.0".into(), uuid: None }];
    let answer: Option<Vec<Free>> = probe.ask(&asked, Duration::from_secs(5)).await;
    assert_eq!(answer, None);
    drop(probe);
    wait_for("the call that hung", PATIENCE, || fs::read_to_string(&mark).map(drop).map_err(|error| error.to_string()));
    let pid: i32 = fs::read_to_string(&mark).unwrap().trim().parse().unwrap();
    wait_for("the end of the probe that hung", PATIENCE, || if is_running(pid) { Err("it runs") } else { Ok(()) });
}
