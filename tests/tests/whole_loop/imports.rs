//! Files that are no models, and models that do not fit.

use muster_engine::bundled::{MUSTER_TINY_F16, NAME};
use muster_proto::{ModelDigest, RejectionReason};
use muster_tests::{Agent, Controller, malformed};

#[test]
fn malformed_models_are_refused_with_one_line_each() {
    let mut controller = Controller::start();
    let pid = controller.process().pid();
    for (what, file) in malformed(&controller.scratch("malformed")) {
        let said = controller.say(&["models", "import", file.to_str().expect("UTF-8"), "--name", "broken"]);
        assert_eq!(said.code, Some(3), "{what}: {said:?}");
        let errors: Vec<&str> = said.err.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = errors.last().copied().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.len() > 20, "{what}: {said:?}");
        assert!(!said.err.contains("panicked") && !last.contains("os error"), "{what}: {said:?}");
    }
    assert_eq!(controller.process().pid(), pid);
    assert!(controller.process().ended().is_none(), "the controller ended");
    assert_eq!(controller.say(&["models", "list", "--json"]).ok().trim(), "[]");
    assert_eq!(controller.status()["blob_bytes"], 0, "{}", controller.status());
    // And a good one is taken afterwards.
    controller.import_bundled("");
}

#[test]
fn the_bundled_model_is_imported_quantized_and_decided_with_reasons() {
    let controller = Controller::start();
    let model = controller.import_bundled("Q8_0,Q4_K_M");
    let quantizations: Vec<&str> = model.artifacts.iter().map(|artifact| artifact.quantization.as_str()).collect();
    assert_eq!(quantizations, ["F16", "Q8_0", "Q4_K_M"]);
    let sizes: Vec<u64> = model.artifacts.iter().map(|artifact| artifact.size.get()).collect();
    assert_eq!(sizes, [7_413_248, 3_972_640, 2_391_072], "the sizes that the model's README gives");
    let digest = ring::digest::digest(&ring::digest::SHA256, MUSTER_TINY_F16);
    assert_eq!(Ok(model.artifacts[0].digest), ModelDigest::try_from(digest.as_ref()));

    controller.want(NAME, 1024);
    let agent = Agent::start(&controller);
    let id = agent.id();
    controller.wait_success(id, NAME);
    let plan = controller.plan();
    let machine = &plan.machines[&id];
    assert_eq!(machine.assignment.as_ref().expect("it fits").quantization, "F16");
    let rejected: Vec<_> = machine.candidates.iter().filter_map(|candidate| candidate.rejected.as_ref()).collect();
    assert_eq!(rejected.len(), 2, "{:?}", machine.candidates);
    assert!(rejected.iter().all(|rejection| matches!(rejection.reason, RejectionReason::Outranked { .. })));
    let shown = controller.say(&["plan", "show", &id.to_string()]).ok();
    assert!(shown.contains("F16") && shown.contains("Q4_K_M") && shown.contains("closer"), "{shown}");

    // With nearly all memory reserved nothing fits, and each candidate says what it lacks.
    let policy = format!("reserve = '900TiB'\n[[role]]\nname = 'chat'\nmodels = ['{NAME}']\ncontext = 1024\n");
    let file = controller.scratch("greedy.toml");
    std::fs::write(&file, policy).expect("a file of the test");
    controller.say(&["policy", "apply", file.to_str().expect("UTF-8")]).ok();
    let plan = controller.plan();
    let machine = &plan.machines[&id];
    assert!(machine.assignment.is_none(), "{machine:?}");
    assert_eq!(machine.candidates.len(), 3);
    for candidate in &machine.candidates {
        let rejection = candidate.rejected.as_ref().expect("nothing fits");
        assert!(matches!(rejection.reason, RejectionReason::MemoryShort { .. }), "{rejection:?}");
    }
}

#[test]
fn a_policy_that_cannot_be_followed_changes_nothing() {
    let controller = Controller::start();
    controller.import_bundled("");
    controller.want(NAME, 1024);
    let before = controller.say(&["policy", "show"]).ok();
    for wrong in [
        "",
        "[[role]]\nname = 'cook'\nmodels = ['x']\n",
        "reserve = [",
        "[[role]]\nname = 'chat'\nmodels = ['x']\ncontxt = 1\n",
    ] {
        let file = controller.scratch("wrong.toml");
        std::fs::write(&file, wrong).expect("a file of the test");
        let said = controller.say(&["policy", "apply", file.to_str().expect("UTF-8")]);
        assert_eq!(said.code, Some(1), "{wrong:?}: {said:?}");
        assert!(said.err.contains("error: "), "{wrong:?}: {said:?}");
    }
    assert_eq!(controller.say(&["policy", "show"]).ok(), before);
}
