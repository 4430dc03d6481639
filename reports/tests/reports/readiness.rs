//! The readiness report in every form, and the audit of one machine.

use std::io::Cursor;

use calamine::{Data, Reader, Xlsx};
use insta::assert_snapshot;
use muster_proto::{
    Assessment, Bytes, ChassisKind, ContextTokens, DeviceKind, FactTimes, FleetGpu, GpuVendor, Hypothetical, MachineId,
    MachineReadiness, MemoryBasis, ModelCoverage, ModelPlacement, ModelVerdict, Obstacle, ObstacleKind, Phase,
    Readiness, ReadinessReason, ReadinessReport, ReasonCause, RemedyCount, RoleProfile, SpeedRange, Timestamp,
    TokensPerSecond, WhatIf,
};
use muster_reports::*;

use crate::samples::{self, NOW};

const NARROW: Style = Style { color: false, width: 80 };

fn rate(rate: f64) -> TokensPerSecond {
    TokensPerSecond::new(rate).expect("a rate")
}

fn range(expected: f64) -> SpeedRange {
    SpeedRange { expected: rate(expected), low: rate(expected * 0.8), high: rate(expected * 1.2) }
}

fn verdict(verdict: Readiness, reasons: Vec<ReadinessReason>) -> ModelVerdict {
    let fits = verdict != Readiness::NotReady;
    ModelVerdict {
        model: "llama-3.1-8b".into(),
        name: "Llama 3.1 8B Instruct".into(),
        parameters: 8_030_000_000,
        quantization: "Q4_K_M".into(),
        context: fits.then_some(ContextTokens::new(16_384)),
        placement: fits.then_some(ModelPlacement::Gpu),
        on_gpu: if fits { 1.0 } else { 0.0 },
        vram: Bytes::from_mib(5900),
        ram: Bytes::from_mib(350),
        file: Bytes::from_mib(4690),
        prefill: fits.then(|| range(1890.0)),
        decode: fits.then(|| range(45.2)),
        measured: true,
        verdict,
        reasons,
    }
}

fn row(byte: u8, hostname: &str, verdict_is: Readiness, reasons: Vec<ReadinessReason>) -> MachineReadiness {
    let ago = |seconds: i64| Some(Timestamp::from_unix_millis(NOW.unix_millis() - seconds * 1000));
    let usable = verdict_is == Readiness::Ready;
    MachineReadiness {
        machine: MachineId::from_bytes([byte; 16]),
        hostname: hostname.into(),
        groups: vec!["berlin".into()],
        online: usable,
        os: Some("Debian GNU/Linux 12".into()),
        cpu: Some("AMD Ryzen 7 5800X 8-Core Processor".into()),
        chassis: Some(ChassisKind::Desktop),
        memory_total: Some(Bytes::from_gib(32)),
        disk_free: Some(Bytes::from_gib(120)),
        gpus: vec![FleetGpu {
            name: "NVIDIA GeForce RTX 3060".into(),
            vendor: Some(GpuVendor::Nvidia),
            kind: DeviceKind::DiscreteGpu,
            memory_total: Some(Bytes::from_gib(12)),
            memory_free: Some(Bytes::from_mib(11_000)),
            driver: Some("nvidia 580.95.05".into()),
            engine_device: usable.then(|| "CUDA0".into()),
            obstacle: (!usable).then(|| Obstacle {
                kind: ObstacleKind::ComputeDriverMissing,
                text: "its Vulkan driver is missing".into(),
                remedy: Some("install nvidia-driver".into()),
            }),
        }],
        facts: FactTimes { seen: ago(60), inventory: ago(3600), benchmark: ago(86_400 * 3), typical: None },
        assessment: Assessment {
            role: "chat".into(),
            verdict: verdict_is,
            reasons: reasons.clone(),
            best: Some(verdict(verdict_is, reasons)),
            memory_basis: Some(MemoryBasis::Typical),
            ram: Some(Bytes::from_gib(20)),
            vram: Some(Bytes::from_gib(10)),
        },
        what_if: None,
    }
}

pub fn report(evil: &str) -> ReadinessReport {
    let reason = |cause, remedy: Option<&str>| ReadinessReason { cause, remedy: remedy.map(Into::into) };
    let missing = ReasonCause::DriverMissing {
        gpu: "NVIDIA GeForce RTX 3060".into(),
        text: "its Vulkan driver is missing".into(),
    };
    let slow = ReasonCause::TooSlow { phase: Phase::Decode, predicted: rate(6.1), wanted: rate(10.0) };
    let mut unknown =
        row(3, "nb-3", Readiness::Unknown, vec![reason(ReasonCause::NoFacts, Some("start its agent once"))]);
    unknown.assessment.best = None;
    unknown.gpus.clear();
    unknown.facts = FactTimes::default();
    let rows = vec![
        row(1, "desk-1", Readiness::Ready, vec![]),
        row(2, evil, Readiness::NotReady, vec![reason(missing, Some("install nvidia-driver")), reason(slow, None)]),
        unknown,
    ];
    let model = |model: &str, parameters, machines| ModelCoverage {
        model: model.into(),
        name: model.to_uppercase(),
        parameters,
        counts: parameters == 8_000_000_000,
        machines,
    };
    let role = RoleProfile {
        name: "chat".into(),
        purpose: "chat".into(),
        parameters_least: 6_500_000_000,
        parameters_most: 10_500_000_000,
        context: ContextTokens::new(8192),
        least_quantization: "Q4_K_M".into(),
        prefill_floor: Some(rate(100.0)),
        decode_floor: Some(rate(10.0)),
    };
    let models =
        vec![model("tiny", 1_000_000_000, 2), model("eight", 8_000_000_000, 1), model("huge", 70_000_000_000, 0)];
    ReadinessReport::new(NOW, role, None, rows, models)
}

/// The same report with a change that makes the second machine ready.
fn changed() -> ReadinessReport {
    let mut report = report("desk-2");
    let card = WhatIf { gpu: Some("GeForce RTX 5060 Ti 16GB".into()), ..WhatIf::default() };
    report.machines[1].what_if = Some(Hypothetical {
        verdict: Readiness::Ready,
        model: Some("Llama 3.1 8B Instruct".into()),
        quantization: Some("Q8_0".into()),
    });
    let drivers = WhatIf { fix_drivers: true, ..WhatIf::default() };
    let remedies = [drivers, card.clone()].map(|change| RemedyCount { change, machines: 1 });
    report.with_changes(remedies.to_vec(), Some(card))
}

#[test]
fn a_change_is_told_in_every_form() {
    let report = changed();
    assert_snapshot!(readiness_page(&report, &NARROW));
    let html = readiness_html(&report);
    for told in
        ["GeForce RTX 5060 Ti 16GB: 2 ready, 1 machine more", "then ready with Llama 3.1 8B Instruct Q8_0; now:"]
    {
        assert!(html.contains(told), "{told}");
    }
    let csv = readiness_csv(&report).expect("CSV");
    assert!(csv.lines().nth(2).is_some_and(|line| line.ends_with(",ready,Llama 3.1 8B Instruct,Q8_0")), "{csv}");
    assert!(csv.lines().nth(1).is_some_and(|line| line.ends_with(",,,")), "{csv}");
    let mut book: Xlsx<_> = Xlsx::new(Cursor::new(readiness_xlsx(&report).expect("a workbook"))).expect("it opens");
    let machines = book.worksheet_range("Machines").expect("there");
    let then = |title: &str| {
        let column = machines.rows().next()?.iter().position(|known| *known == Data::String(title.into()))?;
        Some(machines.rows().nth(2)?[column].to_string())
    };
    assert_eq!(then("What if: verdict").as_deref(), Some("ready"));
    assert_eq!(then("What if: model").as_deref(), Some("Llama 3.1 8B Instruct Q8_0"));
    let json = serde_json::to_value(&report).expect("JSON");
    assert_eq!(json["summary"]["what_if"]["made_ready"], 1);
    assert_eq!(json["remedies"][0]["change"]["fix_drivers"], true);
}

#[test]
fn page() {
    assert_snapshot!(readiness_page(&report("desk-2"), &NARROW));
}

#[test]
fn csv() {
    assert_snapshot!(readiness_csv(&report("=HYPERLINK(\"http://x\",\"desk\")")).expect("CSV"));
}

#[test]
fn audit() {
    let short = ReasonCause::VramShort { by: Bytes::from_mib(2150) };
    let reason = ReadinessReason { cause: short, remedy: Some("a GPU with 12 GiB".into()) };
    let rows = [verdict(Readiness::NotReady, vec![reason]), verdict(Readiness::Ready, vec![])];
    assert_snapshot!(audit_table(&rows, &NARROW));
    let html = audit_html(&samples::inventory(), Some(&samples::benchmark()), &rows);
    assert!(
        html.contains("<h1>Audit of desk-7</h1>") && html.contains("2.1 GiB of GPU memory short: a GPU with 12 GiB")
    );
    let ready = html.find("badge ready").expect("one is ready");
    assert!(ready < html.find("badge not").expect("one is not"), "what runs comes first");
}

#[test]
fn the_page_loads_nothing_and_nothing_in_a_name_is_markup() {
    let html = readiness_html(&report("<script>alert('x')</script>"));
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;"), "{html}");
    for loads in ["src=", "href=", "http:", "https:", "@import", "url("] {
        assert!(!html.contains(loads), "{loads}");
    }
    let opened = html.matches("<svg").count();
    assert!(opened >= 3 && opened == html.matches("</svg>").count());
    assert!(html.contains("<th scope=\"col\" class=\"n\">RAM</th>") && html.contains("<th scope=\"col\">GPUs</th>"));
    assert!(html.contains("prefers-color-scheme: dark") && html.contains("@media print"));
}

#[test]
fn a_workbook_has_typed_columns() {
    let bytes = readiness_xlsx(&report("=1+1")).expect("a workbook");
    assert_eq!(bytes, readiness_xlsx(&report("=1+1")).expect("the same"), "the same report is the same file");
    let mut book: Xlsx<_> = Xlsx::new(Cursor::new(bytes)).expect("it opens");
    assert_eq!(book.sheet_names(), ["Summary", "Machines", "GPUs", "Models"]);
    let sheet = book.worksheet_range("Machines").expect("there");
    let titles: Vec<String> = sheet.rows().next().expect("a header").iter().map(ToString::to_string).collect();
    let column = |title: &str| titles.iter().position(|known| known == title).expect(title);
    let cell = |row: usize, title: &str| sheet.rows().nth(row).expect("a row")[column(title)].clone();
    assert_eq!(sheet.height(), 4);
    // By name, and "=" is before letters.
    assert_eq!(cell(1, "Machine"), Data::String("=1+1".into()));
    assert!(book.worksheet_formula("Machines").expect("there").rows().flatten().all(String::is_empty), "a formula");
    assert_eq!(cell(2, "Decode (tok/s)"), Data::Float(45.2));
    assert_eq!(cell(2, "RAM (GiB)"), Data::Float(32.0));
    assert_eq!(cell(2, "Online"), Data::Bool(true));
    assert!(matches!(cell(2, "Inventory (UTC)"), Data::DateTime(_)), "{:?}", cell(2, "Inventory (UTC)"));
    assert_eq!(cell(3, "Inventory (UTC)"), Data::Empty);
    let gpus = book.worksheet_range("GPUs").expect("there");
    assert_eq!(gpus.height(), 3);
    let models = book.worksheet_range("Models").expect("there");
    assert_eq!(models.rows().nth(1).expect("the largest")[2], Data::Float(70.0));
}
