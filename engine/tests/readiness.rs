//! Machines that everybody can picture, and what they are ready for.

use muster_engine::readiness::{Change, Judge, evaluate, role, table};
use muster_proto::{
    Bytes, ChassisKind, ContextTokens, Cpu, Device, DeviceKind, Disk, EnrolmentState, Gpu, GpuVendor, Hardware,
    Inventory, Machine, MachineId, Memory, MemoryBasis, ModelPlacement, Obstacle, ObstacleKind, Os, Readiness,
    ReasonCause, RoleProfile, Timestamp, TypicalFree, TypicalUse, WhatIf,
};

const NOW: Timestamp = Timestamp::from_unix_millis(1_763_817_000_000);

fn inventory(memory: u64, devices: Vec<Device>) -> Inventory {
    Inventory {
        collected_at: NOW,
        hostname: "desk".into(),
        hardware_fingerprint: "f".into(),
        os: Os { platform: "linux-x86_64".into(), name: None, kernel: None },
        cpu: Cpu {
            brand: Some("AMD Ryzen 9 7950X 16-Core Processor".into()),
            physical_cores: Some(16),
            threads: 32,
            features: vec![],
        },
        memory: Memory { total: Bytes::from_gib(memory), available: Bytes::from_gib(memory * 3 / 4) },
        devices,
        store_disk: Some(Disk { total: Bytes::from_gib(512), free: Bytes::from_gib(200) }),
        engine_build: muster_engine::BUILD.into(),
        failures: vec![],
        hardware: Hardware::default(),
    }
}

fn card(name: &str, backend: &str, gib: u64) -> Device {
    Device {
        name: format!("{backend}0"),
        description: name.into(),
        kind: DeviceKind::DiscreteGpu,
        backend: backend.into(),
        memory_total: Some(Bytes::from_gib(gib)),
        memory_free: Some(Bytes::from_mib(gib * 1024 - 500)),
        pci_bus_id: None,
        uuid: None,
        driver: None,
    }
}

/// A card that no driver drives.
fn without_driver() -> Gpu {
    Gpu {
        name: "NVIDIA GeForce RTX 3060".into(),
        vendor: GpuVendor::Nvidia,
        kind: DeviceKind::DiscreteGpu,
        pci_bus_id: None,
        pci_id: None,
        uuid: None,
        driver: None,
        memory_total: Some(Bytes::from_gib(12)),
        memory_free: None,
        memory_shared: None,
        unified_memory: false,
        compute_capability: None,
        cuda_version: None,
        pcie: None,
        power_limit_watts: None,
        temperature_celsius: None,
        throttle_reasons: vec![],
        ecc: None,
        mig: None,
        slice_of: None,
        used_by: vec![],
        engine_device: None,
        obstacle: Some(Obstacle {
            kind: ObstacleKind::DriverMissing,
            text: "no driver is bound to it".into(),
            remedy: Some("install nvidia-driver".into()),
        }),
        sources: vec![],
    }
}

fn machine(byte: u8, inventory: Option<Inventory>, group: &str) -> Machine {
    Machine {
        id: MachineId::from_bytes([byte; 16]),
        hostname: format!("desk-{byte}"),
        enrolment: EnrolmentState::Accepted,
        enrolled_at: NOW,
        last_seen: Some(NOW),
        online: true,
        agent_version: None,
        inventory,
        benchmark: None,
        desired_generation: 0,
        bench_order: None,
        observed: None,
        groups: vec![group.into()],
    }
}

fn judged(inventory: &Inventory, name: &str) -> muster_proto::Assessment {
    evaluate(inventory, None, &role(name).expect(name))
}

#[test]
fn a_large_card_is_ready_for_small_and_middle_models_and_not_for_the_largest() {
    let desk = inventory(64, vec![card("NVIDIA GeForce RTX 4090", "CUDA", 24)]);
    for name in ["chat", "chat-14b", "chat-32b", "code", "embed"] {
        let found = judged(&desk, name);
        assert_eq!(found.verdict, Readiness::Ready, "{name}: {found:#?}");
        let best = found.best.expect("a model");
        assert_eq!((best.placement, best.reasons.len()), (Some(ModelPlacement::Gpu), 0), "{name}");
        assert!(best.vram <= Bytes::from_gib(24) && best.context >= Some(role(name).expect(name).context), "{best:?}");
    }
    let best = judged(&desk, "chat").best.expect("a model");
    assert_eq!(best.quantization, "Q8_0", "an 8B model has room in the best quantization");
    let largest = table(&desk, None).into_iter().find(|row| row.model == "llama-3.3-70b").expect("known");
    assert_eq!(largest.verdict, Readiness::NotReady, "{largest:#?}");
    let vram = largest.reasons.iter().find(|reason| matches!(reason.cause, ReasonCause::VramShort { .. }));
    assert!(vram.and_then(|reason| reason.remedy.as_ref()).is_some_and(|it| it.contains("48 GiB")), "{largest:#?}");
    assert!(largest.reasons.iter().any(|reason| matches!(reason.cause, ReasonCause::TooSlow { .. })), "{largest:#?}");
}

#[test]
fn a_small_machine_is_told_what_to_buy() {
    let desk = inventory(4, vec![]);
    let found = judged(&desk, "chat");
    assert_eq!(found.verdict, Readiness::NotReady, "{found:#?}");
    let words: Vec<&str> = found.reasons.iter().map(|reason| reason.cause.word()).collect();
    assert_eq!(words, ["ram_short", "no_device"]);
    let remedies: Vec<&str> = found.reasons.iter().filter_map(|reason| reason.remedy.as_deref()).collect();
    assert!(remedies[0].ends_with("GiB more main memory") && remedies[1].starts_with("a GPU with "), "{remedies:?}");
}

#[test]
fn a_card_that_nearly_does_is_told_what_would_fit() {
    let desk = inventory(2, vec![card("NVIDIA GeForce GTX 1060 6GB", "CUDA", 6)]);
    let found = judged(&desk, "chat-14b");
    let vram = found.reasons.iter().find(|reason| matches!(reason.cause, ReasonCause::VramShort { .. }));
    assert!(vram.and_then(|reason| reason.remedy.as_ref()).is_some_and(|it| it.contains("a GPU with")), "{found:#?}");
}

#[test]
fn a_missing_driver_is_the_first_reason_and_says_what_would_be() {
    let mut desk = inventory(16, vec![]);
    desk.hardware.gpus = vec![without_driver()];
    let found = judged(&desk, "chat-14b");
    assert_eq!(found.verdict, Readiness::NotReady, "{found:#?}");
    assert!(matches!(found.reasons[0].cause, ReasonCause::DriverMissing { .. }), "{found:#?}");
    let remedy = found.reasons[0].remedy.as_deref().expect("a remedy");
    assert!(remedy.starts_with("install nvidia-driver: ready then with "), "{remedy}");
    assert!(found.reasons.iter().all(|reason| reason.cause != ReasonCause::NoDevice), "there is a GPU: {found:#?}");
}

#[test]
fn a_desk_in_use_is_sized_for_its_day_and_a_full_disk_counts() {
    let mut desk = inventory(32, vec![card("NVIDIA GeForce RTX 3060", "CUDA", 12)]);
    assert_eq!(judged(&desk, "chat-14b").memory_basis, Some(MemoryBasis::Momentary));
    let empty = judged(&desk, "chat").best.expect("a model");
    desk.hardware.typical = Some(TypicalUse {
        since: NOW,
        until: NOW,
        samples: 1000,
        memory_available: Bytes::from_gib(20),
        devices: vec![TypicalFree { device: "CUDA0".into(), free: Bytes::from_gib(7) }],
    });
    let found = judged(&desk, "chat");
    assert_eq!((found.memory_basis, found.verdict), (Some(MemoryBasis::Typical), Readiness::Ready), "{found:#?}");
    let used = found.best.expect("a model");
    assert!(used.vram <= Bytes::from_gib(7) && used.vram < empty.vram, "{used:?} {empty:?}");

    desk.store_disk = Some(Disk { total: Bytes::from_gib(64), free: Bytes::from_gib(2) });
    let found = judged(&desk, "chat");
    assert_eq!(found.verdict, Readiness::NotReady);
    assert!(matches!(found.reasons[0].cause, ReasonCause::DiskShort { .. }), "{found:#?}");
    assert!(found.reasons[0].remedy.as_deref().is_some_and(|remedy| remedy.starts_with("free ")), "{found:#?}");
}

#[test]
fn parts_that_nobody_knows_and_nobody_measured_are_unknown() {
    let mut desk = inventory(32, vec![card("Frobnicator 9000", "Vulkan", 16)]);
    desk.cpu.brand = None;
    let found = judged(&desk, "chat");
    assert_eq!(found.verdict, Readiness::Unknown, "{found:#?}");
    assert!(found.reasons.iter().any(|reason| reason.cause == ReasonCause::NotBenchmarked), "{found:#?}");
}

#[test]
fn every_model_has_a_line() {
    let rows = table(&inventory(64, vec![card("NVIDIA GeForce RTX 4090", "CUDA", 24)]), None);
    assert_eq!(rows.len(), muster_engine::reference::all().len());
    assert!(rows.windows(2).all(|pair| pair[0].parameters >= pair[1].parameters), "the largest first");
    for row in &rows {
        assert_eq!(row.verdict == Readiness::Ready, row.reasons.is_empty(), "{row:?}");
        assert!(row.verdict != Readiness::Ready || row.placement.is_some() && row.prefill.is_some(), "{row:?}");
    }
    let verdict = |id: &str| rows.iter().find(|row| row.model == id).map(|row| row.verdict);
    assert_eq!(verdict("llama-3.1-8b"), Some(Readiness::Ready));
    assert_eq!(verdict("deepseek-v3"), Some(Readiness::NotReady));
}

#[test]
fn a_fleet_is_counted() {
    let large = || inventory(64, vec![card("NVIDIA GeForce RTX 4090", "CUDA", 24)]);
    let mut silent = machine(4, Some(large()), "a");
    silent.online = false;
    silent.last_seen = Some(Timestamp::from_unix_millis(NOW.unix_millis() - 40 * 86_400_000));
    silent.inventory.as_mut().expect("set").collected_at = silent.last_seen.expect("set");
    let mut pending = machine(5, Some(large()), "a");
    pending.enrolment = EnrolmentState::Pending;
    let fleet = [
        machine(1, Some(large()), "a"),
        machine(2, Some(inventory(4, vec![])), "b"),
        machine(3, None, "a"),
        silent,
        pending,
    ];
    let judge = Judge::new();
    let chat = role("chat").expect("there");
    let report = judge.report(&fleet, &chat, None, None, NOW);
    let summary = &report.summary;
    assert_eq!((summary.machines, summary.ready, summary.not_ready, summary.unknown), (4, 1, 1, 2), "{summary:?}");
    let count = |word: &str| summary.reasons.iter().find(|(known, _)| known == word).map(|(_, count)| *count);
    assert_eq!((count("no_facts"), count("stale"), count("ram_short")), (Some(1), Some(1), Some(1)), "{summary:?}");
    assert_eq!(summary.vram.iter().map(|bin| bin.machines).sum::<u32>(), 3);
    assert_eq!(report, judge.report(&fleet, &chat, None, None, NOW), "what is remembered changes nothing");
    assert_eq!(judge.report(&fleet, &chat, Some("b"), None, NOW).summary.not_ready, 1);
}

#[test]
fn a_card_with_room_for_half_of_the_context_says_how_much_and_what_a_larger_one_takes() {
    // The owner's programs take more and more of the card, and a slow processor computes no layers fast enough.
    let mut desk = inventory(2, vec![card("NVIDIA GeForce RTX 2060", "CUDA", 6)]);
    desk.cpu.brand = Some("Intel(R) Core(TM) i5-8500 CPU @ 3.00GHz".into());
    let fuller = (2000..6000).rev().step_by(100).find_map(|mib| {
        desk.devices[0].memory_free = Some(Bytes::from_mib(mib));
        Some(judged(&desk, "code")).filter(|found| found.verdict != Readiness::Ready)
    });
    let found = fuller.expect("half of the card is too little");
    assert_eq!(found.verdict, Readiness::NotReady, "{found:#?}");
    let best = found.best.as_ref().expect("a model");
    let ReasonCause::ContextShort { has, wanted } = found.reasons[0].cause else { panic!("{found:#?}") };
    assert!((2048..16_384).contains(&has.get()) && wanted.get() == 16_384, "{found:#?}");
    assert!(best.context >= Some(has) && best.vram <= Bytes::from_gib(6), "{best:#?}");
    let remedy = found.reasons[0].remedy.as_deref().expect("one");
    assert!(remedy.starts_with(&best.name) && remedy.contains(&format!("{} tokens", has.get())), "{remedy}");
    assert!(found.reasons.len() > 1, "what gives the whole context is told as well: {found:#?}");
    // A role that wants no more than that is done.
    let modest = RoleProfile { context: has, ..role("code").expect("one") };
    assert_eq!(evaluate(&desk, None, &modest).verdict, Readiness::Ready);
}

#[test]
fn a_role_that_wants_more_than_any_of_its_models_was_trained_with_is_told_so() {
    let desk = inventory(64, vec![card("NVIDIA GeForce RTX 4090", "CUDA", 24)]);
    let wide = RoleProfile { context: ContextTokens::new(1 << 20), ..role("chat").expect("one") };
    let found = evaluate(&desk, None, &wide);
    assert_eq!(found.verdict, Readiness::NotReady, "{found:#?}");
    let ReasonCause::ContextShort { has, .. } = found.reasons[0].cause else { panic!("{found:#?}") };
    assert!(has.get() >= 32_768, "{found:#?}");
    // Embedders have no shorter context to offer.
    let poor = inventory(1, vec![]);
    let found =
        judged(&Inventory { memory: Memory { available: Bytes::from_mib(10), ..poor.memory }, ..poor }, "embed");
    assert!(found.reasons.iter().all(|reason| reason.cause.word() != "context_short"), "{found:#?}");
}

#[test]
fn a_change_is_judged_before_anybody_buys_it() {
    let desk = inventory(4, vec![]);
    let mut laptop = desk.clone();
    laptop.hardware.chassis.kind = Some(ChassisKind::Laptop);
    let mut obstructed = inventory(16, vec![]);
    obstructed.hardware.gpus = vec![without_driver()];
    let ready = inventory(64, vec![card("NVIDIA GeForce RTX 4090", "CUDA", 24)]);
    let parts = [ready, desk.clone(), laptop, obstructed];
    let fleet: Vec<Machine> = (1..).zip(parts).map(|(byte, parts)| machine(byte, Some(parts), "a")).collect();
    let (judge, role) = (Judge::new(), role("chat-14b").expect("there"));
    let report = |change: WhatIf| {
        let change = Change::of(change).expect("can be judged");
        judge.report(&fleet, &role, None, Some(&change), NOW)
    };
    let bought = report(WhatIf { gpu: Some("rtx 5090".into()), ..WhatIf::default() });
    let then: Vec<Option<Readiness>> =
        bought.machines.iter().map(|row| row.what_if.as_ref().map(|then| then.verdict)).collect();
    // One is ready anyway, and a laptop takes no card.
    assert_eq!(then, [None, Some(Readiness::Ready), None, Some(Readiness::Ready)]);
    let totals = bought.summary.what_if.expect("asked");
    assert_eq!((totals.ready, totals.not_ready, totals.unknown, totals.made_ready), (3, 1, 0, 2));
    assert_eq!((bought.summary.ready, bought.summary.not_ready), (1, 3), "today is today");
    // It is what the desk is judged once the card is there.
    let mut real = desk;
    real.devices = vec![card("NVIDIA GeForce RTX 5090", "CUDA", 32)];
    real.devices[0].memory_free = Some(Bytes::from_gib(31));
    let best = judged(&real, "chat-14b").best.expect("a model");
    let then = bought.machines[1].what_if.as_ref().expect("judged");
    assert_eq!((&then.model, &then.quantization), (&Some(best.name), &Some(best.quantization)));

    // Nobody throws a card out for a smaller one because its driver is missing.
    let smaller = report(WhatIf { gpu: Some("rtx 3050 8gb".into()), ..WhatIf::default() });
    assert!(smaller.machines[3].what_if.is_none() && smaller.machines[1].what_if.is_some());

    let mended = report(WhatIf { fix_drivers: true, ..WhatIf::default() });
    assert_eq!(mended.summary.what_if.map(|totals| totals.made_ready), Some(1));
    // What each change alone does is counted without asking: the driver first, and the largest card most.
    let asked_nothing = judge.report(&fleet, &role, None, None, NOW);
    assert_eq!(asked_nothing.remedies, mended.remedies);
    assert!(asked_nothing.summary.what_if.is_none() && asked_nothing.what_if.is_none());
    let (first, last) = (&mended.remedies[0], mended.remedies.last().expect("some help"));
    assert!(first.change.fix_drivers && first.machines == 1, "{first:?}");
    assert_eq!((last.change.gpu.as_deref(), last.machines), (Some("GeForce RTX 5090"), 2));
}
