//! The planner: what must hold for every fleet, and the reasons in single cases.

use std::collections::BTreeMap;

use muster_controller::check::check;
use muster_controller::desired::same_intent;
use muster_controller::plan::{PlanArtifact, PlanInput, PlanMachine, PlanModel, Sizing, plan};
use muster_proto::{
    Artifact, ArtifactSource, AssignmentId, BenchModel, BenchPoint, Benchmark, Bytes, ContextTokens, Cpu, Device,
    DeviceKind, DeviceMemory, Disk, Divergence, Inventory, MachineId, Memory, MemoryNeed, ModelDigest, Os, Plan,
    Policy, Quality, RejectionReason, RolePolicy, Spread, Statistic, Timestamp, TokensPerSecond, TypicalFree,
    TypicalUse,
};
use proptest::prelude::*;

fn memory(name: &str, mib: u64) -> DeviceMemory {
    let third = Bytes::from_mib(mib / 3);
    DeviceMemory { name: name.to_owned(), model: Bytes::from_mib(mib - 2 * (mib / 3)), context: third, compute: third }
}

fn need(devices: &[(&str, u64)], host: u64) -> MemoryNeed {
    let devices = devices.iter().map(|(name, mib)| memory(name, *mib)).collect();
    MemoryNeed { devices, host: memory("Host", host) }
}

fn digest(number: u8) -> ModelDigest {
    ModelDigest::new([number; 32])
}

fn artifact(number: u8, quantization: &str, mib: u64, bits: f64) -> PlanArtifact {
    PlanArtifact {
        artifact: Artifact {
            digest: digest(number),
            quantization: quantization.to_owned(),
            size: Bytes::from_mib(mib),
            bits_per_weight: bits,
            source: ArtifactSource::Imported,
            quality: None,
        },
        bytes_per_token: Bytes::from_mib(mib),
        parameters_per_token: mib << 20,
    }
}

fn model(name: &str, context: u32, artifacts: Vec<PlanArtifact>) -> PlanModel {
    PlanModel { name: name.to_owned(), context_train: Some(ContextTokens::new(context)), artifacts }
}

fn device(name: &str, kind: DeviceKind, free: Option<u64>) -> Device {
    Device {
        name: name.to_owned(),
        description: name.to_owned(),
        kind,
        backend: "CUDA".to_owned(),
        memory_total: free.map(Bytes::from_mib),
        memory_free: free.map(Bytes::from_mib),
        pci_bus_id: None,
        uuid: None,
        driver: None,
    }
}

pub fn inventory(host: u64, gpus: &[(&str, Option<u64>)], disk: u64) -> Inventory {
    let mut devices = vec![device("CPU", DeviceKind::Cpu, None)];
    devices.extend(gpus.iter().map(|(name, free)| device(name, DeviceKind::DiscreteGpu, *free)));
    let total = Bytes::from_mib(host);
    Inventory {
        collected_at: Timestamp::from_unix_millis(0),
        hostname: "desk".to_owned(),
        hardware_fingerprint: "f".to_owned(),
        os: Os { platform: "linux-x86_64".to_owned(), name: None, kernel: None },
        cpu: Cpu { brand: None, physical_cores: None, threads: 4, features: Vec::new() },
        memory: Memory { total, available: total },
        devices,
        store_disk: Some(Disk { total: Bytes::from_mib(disk), free: Bytes::from_mib(disk) }),
        engine_build: "b".to_owned(),
        failures: Vec::new(),
        hardware: muster_proto::Hardware::default(),
    }
}

fn policy(models: &[&str], context: u32, min_decode: Option<f64>) -> Policy {
    let role = RolePolicy {
        name: "chat".to_owned(),
        models: models.iter().map(ToString::to_string).collect(),
        context: ContextTokens::new(context),
        parallel: 1,
        kv_type: muster_proto::KvType::F16,
        min_decode,
    };
    Policy { roles: vec![role], reserve: Bytes::from_mib(512) }
}

fn machine(inventory: Inventory, sizings: &[(u8, MemoryNeed)]) -> PlanMachine {
    let sizings = sizings.iter().map(|(number, need)| (digest(*number), Sizing::Needs(need.clone()))).collect();
    PlanMachine {
        id: MachineId::random(),
        inventory: Some(inventory),
        benchmark: None,
        current: Vec::new(),
        sizings,
        fresh_id: AssignmentId::random(),
    }
}

/// What each candidate of the only machine came to, in words; the chosen one has none.
fn verdicts(input: &PlanInput) -> Vec<String> {
    let plan = plan(input);
    assert_eq!(check(input, &plan), []);
    let planned = plan.machines.into_values().next().expect("one machine");
    let words =
        |rejected: Option<_>| rejected.map_or_else(|| "chosen".to_owned(), |r: muster_proto::Rejection| r.to_string());
    planned.candidates.into_iter().map(|candidate| words(candidate.rejected)).collect()
}

#[test]
fn the_most_bits_that_fit_win_and_the_others_say_why() {
    let artifacts =
        vec![artifact(2, "Q4_K_M", 500, 4.8), artifact(1, "F16", 2000, 16.0), artifact(3, "Q8_0", 1000, 8.5)];
    let sizings =
        [(1, need(&[("CUDA0", 2400)], 100)), (3, need(&[("CUDA0", 1400)], 100)), (2, need(&[("CUDA0", 900)], 100))];
    let input = PlanInput {
        policy: Some(policy(&["m"], 4096, None)),
        models: vec![model("m", 8192, artifacts)],
        machines: vec![machine(inventory(4000, &[("CUDA0", Some(2500))], 9000), &sizings)],
    };
    let expected = ["needs 2.3 GiB on CUDA0, 1.9 GiB is free", "chosen", "would run, but Q8_0 is better"];
    assert_eq!(verdicts(&input), expected);
}

/// Of main memory and of CUDA0, in MiB.
fn typical(host: u64, gpu: u64) -> TypicalUse {
    TypicalUse {
        since: Timestamp::from_unix_millis(0),
        until: Timestamp::from_unix_millis(86_400_000),
        samples: 1000,
        memory_available: Bytes::from_mib(host),
        devices: vec![TypicalFree { device: "CUDA0".to_owned(), free: Bytes::from_mib(gpu) }],
    }
}

#[test]
fn a_desk_in_use_counts_and_not_an_empty_one() {
    let artifacts = vec![artifact(2, "Q4_K_M", 500, 4.8), artifact(3, "Q8_0", 1000, 8.5)];
    let sizings = [(3, need(&[("CUDA0", 1400)], 100)), (2, need(&[("CUDA0", 900)], 100))];
    let mut input = PlanInput {
        policy: Some(policy(&["m"], 4096, None)),
        models: vec![model("m", 8192, artifacts)],
        machines: vec![machine(inventory(4000, &[("CUDA0", Some(2500))], 9000), &sizings)],
    };
    let mut with = |typical: TypicalUse| {
        let inventory = input.machines[0].inventory.as_mut().expect("one");
        inventory.hardware.typical = Some(typical);
        verdicts(&input)
    };
    assert_eq!(with(typical(4000, 1500)), ["needs 1.4 GiB on CUDA0, 988.0 MiB is typically free", "chosen"]);
    assert_eq!(
        with(typical(600, 2500)),
        ["needs 100.0 MiB on Host, 88.0 MiB is typically free", "needs 100.0 MiB on Host, 88.0 MiB is typically free"]
    );
    // More than there is counts as what there is, and of another device it says nothing.
    assert_eq!(with(typical(9000, 9000)), ["chosen", "would run, but Q8_0 is better"]);
    let mut other = typical(4000, 0);
    other.devices[0].device = "CUDA1".to_owned();
    assert_eq!(with(other), ["chosen", "would run, but Q8_0 is better"]);
}

#[test]
fn what_somebody_takes_for_an_hour_moves_no_model() {
    let sizings = [(3, need(&[("CUDA0", 1400)], 100))];
    let mut busy = inventory(700, &[("CUDA0", Some(600))], 9000);
    busy.memory.total = Bytes::from_mib(8000);
    busy.devices[1].memory_total = Some(Bytes::from_mib(4000));
    busy.hardware.typical = Some(typical(4000, 2500));
    let mut input = PlanInput {
        policy: Some(policy(&["m"], 4096, None)),
        models: vec![model("m", 8192, vec![artifact(3, "Q8_0", 1000, 8.5)])],
        machines: vec![machine(busy, &sizings)],
    };
    assert_eq!(verdicts(&input), ["chosen"]);
    assert_eq!(check(&input, &plan(&input)), []);
    // Without samples, this moment is all that is known.
    input.machines[0].inventory.as_mut().expect("one").hardware.typical = None;
    assert_eq!(verdicts(&input), ["needs 1.4 GiB on CUDA0, 88.0 MiB is free"]);
}

#[test]
fn estimates_for_a_machine_ask_about_the_same_memory() {
    let mut inventory = inventory(4000, &[("CUDA0", Some(2500))], 9000);
    inventory.devices[1].memory_total = Some(Bytes::from_mib(8000));
    let asked = |inventory: &Inventory| {
        (muster_engine::estimate::machine_devices(inventory)[0].memory, inventory.memory_to_plan())
    };
    assert_eq!(asked(&inventory), (Bytes::from_mib(2500), Bytes::from_mib(4000)));
    inventory.hardware.typical = Some(typical(3000, 1500));
    assert_eq!(asked(&inventory), (Bytes::from_mib(1500), Bytes::from_mib(3000)));
}

#[test]
fn a_plan_that_forgets_what_is_typical_is_no_plan() {
    let sizings = [(3, need(&[("CUDA0", 1400)], 100))];
    let mut input = PlanInput {
        policy: Some(policy(&["m"], 4096, None)),
        models: vec![model("m", 8192, vec![artifact(3, "Q8_0", 1000, 8.5)])],
        machines: vec![machine(inventory(4000, &[("CUDA0", Some(2500))], 9000), &sizings)],
    };
    let careless = plan(&input);
    assert_eq!(check(&input, &careless), []);
    for usual in [typical(4000, 1500), typical(600, 2500)] {
        input.machines[0].inventory.as_mut().expect("one").hardware.typical = Some(usual);
        assert_eq!(check(&input, &careless).len(), 1);
    }
}

#[test]
fn a_measured_quality_decides_and_the_reason_has_both_figures() {
    let measured = |number, name: &str, mib, bits, value| {
        let mut made = artifact(number, name, mib, bits);
        made.artifact.quality = Some(Quality {
            source: digest(9),
            text: "t".to_owned(),
            context: ContextTokens::new(512),
            chunks: 8,
            engine_build: "b".to_owned(),
            divergence: Divergence { mean: Statistic { value, error: 0.0 }, ..Divergence::default() },
        });
        made
    };
    // Q4_1 has more bits, and is farther from the source.
    let artifacts = vec![measured(1, "Q4_1", 500, 5.0, 0.0717), measured(2, "Q4_K_M", 480, 4.9, 0.0313)];
    let sizings = [(1, need(&[], 900)), (2, need(&[], 880))];
    let mut input = PlanInput {
        policy: Some(policy(&["m"], 4096, None)),
        models: vec![model("m", 8192, artifacts)],
        machines: vec![machine(inventory(4000, &[], 9000), &sizings)],
    };
    let closer = "would run, but Q4_K_M is closer to the source: KLD 0.0313 against 0.0717";
    assert_eq!(verdicts(&input), ["chosen", closer]);
    input.models[0].artifacts[0].artifact.quality = None;
    assert_eq!(verdicts(&input), ["chosen", "would run, but Q4_1 is better"]);
}

#[test]
fn the_host_the_disk_the_context_and_the_speed_decide_too() {
    let base = PlanInput {
        policy: Some(policy(&["m"], 4096, None)),
        models: vec![model("m", 8192, vec![artifact(1, "Q8_0", 1000, 8.5)])],
        machines: vec![machine(inventory(4000, &[], 9000), &[(1, need(&[], 1200))])],
    };
    assert_eq!(verdicts(&base), ["chosen"]);
    let change = |change: &dyn Fn(&mut PlanInput)| {
        let mut input = base.clone();
        change(&mut input);
        verdicts(&input).remove(0)
    };
    let small = inventory(1700, &[], 9000);
    assert_eq!(change(&|i| i.machines[0].inventory = Some(small.clone())), "needs 1.2 GiB on Host, 1.2 GiB is free");
    let full = inventory(4000, &[], 999);
    assert_eq!(
        change(&|i| i.machines[0].inventory = Some(full.clone())),
        "needs 1000.0 MiB on disk, 999.0 MiB may be used"
    );
    assert!(change(&|i| i.models[0].context_train = Some(ContextTokens::new(2048))).contains("a context of 2048"));
    assert!(change(&|i| i.machines[0].sizings.clear()).contains("was not sized yet"));
    let refused = Sizing::Refused("unknown architecture".to_owned());
    assert!(
        change(&|i| drop(i.machines[0].sizings.insert(digest(1), refused.clone()))).contains("unknown architecture")
    );
    assert!(change(&|i| i.policy = Some(policy(&["m"], 4096, Some(5.0)))).contains("no benchmark"));
    let unknown = inventory(4000, &[("CUDA0", None)], 9000);
    let on_gpu = Sizing::Needs(need(&[("CUDA0", 10)], 10));
    let words = change(&|i| {
        i.machines[0].inventory = Some(unknown.clone());
        i.machines[0].sizings.insert(digest(1), on_gpu.clone());
    });
    assert!(words.contains("it is not known what is free"), "{words}");
}

#[test]
fn an_integrated_gpu_takes_its_memory_from_the_host() {
    let mut inventory = inventory(2000, &[("Vulkan0", Some(2000))], 9000);
    inventory.devices[1].kind = DeviceKind::IntegratedGpu;
    let input = PlanInput {
        policy: Some(policy(&["m"], 4096, None)),
        models: vec![model("m", 8192, vec![artifact(1, "Q8_0", 1000, 8.5)])],
        machines: vec![machine(inventory, &[(1, need(&[("Vulkan0", 1200)], 600))])],
    };
    assert_eq!(verdicts(&input), ["needs 1.8 GiB on Host, 1.5 GiB is free"]);
}

#[test]
fn speed_comes_from_a_benchmark_of_the_same_hardware() {
    let spread = |rate| Spread::of(vec![rate]).expect("a rate");
    let point = |mib: u64, decode| BenchPoint {
        device: "CPU".to_owned(),
        threads: Some(2),
        model: BenchModel {
            name: format!("llama-{mib}m"),
            quantization: "Q8_0".to_owned(),
            bytes_per_token: Bytes::from_mib(mib),
            parameters_per_token: mib << 20,
            layers: 8,
        },
        prefill_tokens: 64,
        decode_tokens: 16,
        prefill: spread(decode * 4.0),
        decode: spread(decode),
        depth: 0,
    };
    let benchmark = Benchmark {
        measured_at: Timestamp::from_unix_millis(0),
        took_ms: 1,
        engine_build: "b".to_owned(),
        hardware_fingerprint: "f".to_owned(),
        points: vec![point(100, 100.0), point(200, 50.0), point(400, 25.0)],
        conditions: muster_proto::Conditions::default(),
        parts: vec![],
        on_battery: vec![],
    };
    let mut input = PlanInput {
        policy: Some(policy(&["m"], 4096, Some(20.0))),
        models: vec![model("m", 8192, vec![artifact(1, "Q8_0", 1000, 8.5), artifact(2, "Q4_0", 400, 4.5)])],
        machines: vec![machine(inventory(8000, &[], 9000), &[(1, need(&[], 1200)), (2, need(&[], 600))])],
    };
    input.machines[0].benchmark = Some(benchmark);
    let words = verdicts(&input);
    assert!(words[0].contains("predicted, policy wants 20.0 tok/s"), "{words:?}");
    assert_eq!(words[1], "chosen");
    input.machines[0].benchmark.as_mut().expect("there").hardware_fingerprint = "another card".to_owned();
    assert!(verdicts(&input).iter().all(|words| words.contains("no benchmark")));
}

#[test]
fn what_a_machine_was_given_stays_when_its_disk_fills() {
    let mut input = PlanInput {
        policy: Some(policy(&["m"], 4096, None)),
        models: vec![model("m", 8192, vec![artifact(1, "Q8_0", 1000, 8.5)])],
        machines: vec![machine(inventory(4000, &[], 2000), &[(1, need(&[], 1200))])],
    };
    let given = plan(&input).machines.into_values().next().and_then(|planned| planned.assignment).expect("chosen");
    input.machines[0].current = vec![given];
    input.machines[0].inventory = Some(inventory(4000, &[], 10));
    assert_eq!(verdicts(&input), ["chosen"]);
}

#[test]
fn without_a_policy_an_inventory_or_a_model_nothing_is_considered_and_that_is_said() {
    let blocked = |input: &PlanInput| {
        let plan = plan(input);
        assert_eq!(check(input, &plan), []);
        plan.machines.into_values().next().and_then(|planned| planned.blocked).expect("blocked")
    };
    let mut input = PlanInput { machines: vec![machine(inventory(4000, &[], 9), &[])], ..PlanInput::default() };
    assert!(blocked(&input).contains("no policy"));
    input.policy = Some(policy(&["m", "n"], 4096, None));
    assert!(blocked(&input).contains("m, n"));
    input.machines[0].inventory = None;
    assert!(blocked(&input).contains("no inventory"));
}

#[test]
fn a_plan_that_breaks_an_invariant_is_noticed() {
    let input = PlanInput {
        policy: Some(policy(&["m"], 4096, None)),
        models: vec![model("m", 8192, vec![artifact(1, "Q8_0", 1000, 8.5)])],
        machines: vec![machine(inventory(4000, &[], 9000), &[(1, need(&[], 1200))])],
    };
    let good = plan(&input);
    let id = input.machines[0].id;
    let spoilt = |spoil: &dyn Fn(&mut muster_proto::MachinePlan)| {
        let mut plan = good.clone();
        spoil(plan.machines.get_mut(&id).expect("planned"));
        let violations = check(&input, &plan);
        assert!(!violations.is_empty());
        violations[0].what.clone()
    };
    assert!(spoilt(&|p| p.assignment = None).contains("no reason against"));
    assert!(spoilt(&|p| p.candidates.clear()).contains("no reason against"));
    let with = |change: fn(&mut muster_proto::DesiredAssignment)| {
        spoilt(&|p| change(p.assignment.as_mut().expect("assigned")))
    };
    assert!(with(|a| a.model = "other".to_owned()).contains("not wanted"));
    assert!(with(|a| a.digest = digest(9)).contains("no file of model"));
    assert!(with(|a| a.prediction.memory = need(&[], 3900)).contains("main memory"));
    assert!(with(|a| a.prediction.memory = need(&[("CUDA0", 1)], 1)).contains("CUDA0"));
    assert!(with(|a| a.settings.context = ContextTokens::new(1)).contains("settings"));
    assert!(!check(&input, &Plan::default()).is_empty(), "a machine is missing");
}

#[test]
fn a_prediction_that_moves_is_no_new_intent_and_one_that_is_learnt_is() {
    let before = vec![crate::harness::assignment(digest(1))];
    let with_speed = |speed: f64| {
        let mut after = before.clone();
        after[0].prediction.decode = TokensPerSecond::new(speed);
        after
    };
    assert!(same_intent(&before, &before));
    assert!(!same_intent(&before, &with_speed(10.0)), "a speed that was not known");
    assert!(same_intent(&with_speed(10.0), &with_speed(11.0)), "a speed that moved");
    assert!(same_intent(&with_speed(10.0), &before), "a speed that was forgotten");
    let mut other = before.clone();
    other[0].prediction.memory.host.model = Bytes::from_mib(7);
    assert!(!same_intent(&before, &other));
    assert!(!same_intent(&before, &[]));
}

prop_compose! {
    fn any_machine(digests: Vec<u8>)(
        host in 0_u64..64_000,
        gpus in proptest::collection::vec(proptest::option::of(0_u64..48_000), 0..3),
        disk in 0_u64..64_000,
        has_inventory in proptest::bool::weighted(0.9),
        needs in proptest::collection::vec(proptest::option::weighted(0.9, (0_u64..40_000, 0_u64..20_000)), digests.len()),
    ) -> PlanMachine {
        let names = ["CUDA0", "CUDA1", "CUDA2"];
        let gpus: Vec<_> = names.into_iter().zip(gpus).collect();
        let mut sizings = BTreeMap::new();
        for (number, need_of) in digests.iter().zip(needs) {
            let sizing = need_of.map_or(Sizing::Refused("no".to_owned()), |(device, host)| {
                let devices: Vec<_> = gpus.iter().map(|(name, _)| (*name, device / gpus.len() as u64)).collect();
                Sizing::Needs(need(&devices, host))
            });
            sizings.insert(digest(*number), sizing);
        }
        PlanMachine { sizings, inventory: has_inventory.then(|| inventory(host, &gpus, disk)), ..machine(inventory(1, &[], 1), &[]) }
    }
}

prop_compose! {
    fn any_models()(
        sizes in proptest::collection::vec(proptest::collection::vec((1_u64..40_000, 1.0_f64..16.0), 0..5), 1..4),
        contexts in proptest::collection::vec(512_u32..16_384, 4),
    ) -> Vec<PlanModel> {
        let mut number = 0;
        sizes.into_iter().zip(contexts).enumerate().map(|(index, (artifacts, context))| {
            let artifacts = artifacts.into_iter().map(|(size, bits)| {
                number += 1;
                artifact(number, &format!("Q{number}"), size, bits)
            }).collect();
            model(&format!("m{index}"), context, artifacts)
        }).collect()
    }
}

fn any_input() -> impl Strategy<Value = PlanInput> {
    any_models()
        .prop_flat_map(|models| {
            let digests: Vec<u8> =
                models.iter().flat_map(|m| &m.artifacts).map(|a| a.artifact.digest.as_bytes()[0]).collect();
            (Just(models), proptest::collection::vec(any_machine(digests), 0..8), 512_u32..16_384)
        })
        .prop_map(|(models, machines, context)| PlanInput {
            policy: Some(policy(&["m2", "m0", "m1", "absent", "m0"], context, None)),
            models,
            machines,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn memory_is_never_exceeded_and_everything_unplaced_has_a_reason(input in any_input()) {
        let plan = plan(&input);
        prop_assert_eq!(check(&input, &plan), []);
        prop_assert_eq!(plan.machines.len(), input.machines.len());
        for machine in &input.machines {
            let planned = &plan.machines[&machine.id];
            if let Some(assignment) = &planned.assignment {
                let inventory = machine.inventory.as_ref().expect("assigned by it");
                let reserve = Bytes::from_mib(512);
                prop_assert!(assignment.prediction.memory.host.total() <= inventory.memory.available.saturating_sub(reserve));
                for taken in &assignment.prediction.memory.devices {
                    let device = inventory.devices.iter().find(|device| device.name == taken.name).expect("there");
                    prop_assert!(taken.total() <= device.memory_free.expect("known").saturating_sub(reserve));
                }
            }
        }
    }

    #[test]
    fn planning_again_changes_nothing(input in any_input()) {
        let first = plan(&input);
        let mut again = input;
        for machine in &mut again.machines {
            machine.current = first.machines[&machine.id].assignment.clone().into_iter().collect();
            machine.fresh_id = AssignmentId::random();
        }
        prop_assert_eq!(plan(&again), first);
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(input in any_input(), turn in 0_usize..8) {
        let first = plan(&input);
        let mut turned = input;
        turned.models.reverse();
        turned.machines.reverse();
        let length = turned.machines.len().max(1);
        turned.machines.rotate_left(turn % length);
        for model in &mut turned.models {
            model.artifacts.reverse();
        }
        prop_assert_eq!(plan(&turned), first);
    }

    #[test]
    fn no_better_candidate_is_passed_over(input in any_input()) {
        for planned in plan(&input).machines.into_values() {
            let chosen = planned.candidates.iter().position(|candidate| candidate.rejected.is_none());
            let outranked = |candidate: &muster_proto::Candidate| {
                candidate.rejected.as_ref().is_some_and(|r| matches!(r.reason, RejectionReason::Outranked { .. }))
            };
            let first_fit = planned.candidates.iter().position(|c| c.rejected.is_none() || outranked(c));
            prop_assert_eq!(chosen, first_fit, "something that fits comes before what was chosen");
        }
    }
}
