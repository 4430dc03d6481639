//! `muster estimate` where it does need a controller, and what it leaves behind when it is interrupted.

use std::fs;
use std::process::Command;

use muster_engine::bundled::NAME;
use muster_proto::{Estimate, ModelSource};
use muster_tests::{Agent, Controller, PATIENCE, Process, binaries, say, wait_for};
use rustix::process::Signal;

#[test]
fn a_machine_and_a_model_of_the_catalog_are_found() {
    let controller = Controller::start();
    controller.import_bundled("Q8_0");
    let agent = Agent::start(&controller);
    let id = agent.id().to_string();
    let machine = controller.machine(agent.id());
    let memory = machine.inventory.as_ref().expect("an inventory").memory;

    let estimate: Estimate = controller.json(&["estimate", &format!("{NAME}:q8_0"), "--machine", &id, "--ctx", "512"]);
    assert_eq!(estimate.model.source, ModelSource::Catalog);
    assert_eq!((estimate.model.name.as_str(), estimate.model.quantization.as_deref()), (NAME, Some("Q8_0")));
    assert!(estimate.fits && estimate.n_ctx.get() == 512, "{}", estimate.sentence);
    assert_eq!(estimate.host.memory_bytes, Some(memory.available));
    // Nothing was measured on it yet.
    assert_eq!(estimate.speed, None);
    agent.say(&["bench", "--quick"]).ok();
    wait_for("its benchmark", PATIENCE, || controller.machine(agent.id()).benchmark.ok_or("none"));
    let estimate: Estimate = controller.json(&["estimate", NAME, "--machine", &machine.hostname]);
    assert_eq!(estimate.model.quantization.as_deref(), Some("F16"), "most bits first");
    assert!(estimate.speed.is_some_and(|speed| speed.decode_low.get() > 0.0));

    for (arguments, code, words) in [
        (&["muster-tini"][..], 3, "muster-tiny"),
        (&["muster-tiny:Q2_K"], 3, "not as Q2_K"),
        (&[NAME, "--machine", "nobody"], 1, "nobody"),
    ] {
        let said = controller.say(&[&["estimate"], arguments].concat());
        assert_eq!(said.code, Some(code), "{arguments:?}: {said:?}");
        assert!(said.err.contains(words) && said.err.trim_end().lines().count() == 1, "{said:?}");
    }
}

#[test]
fn an_interrupted_estimate_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let scratch = folder.path().join("tmp");
    fs::create_dir(&scratch).expect("a folder");
    let mut command = Command::new(&binaries().controller);
    command.env("TMPDIR", &scratch).env("MUSTER_DATA", folder.path().join("none"));
    // The largest there is, which does not fit: many dry runs.
    command.args(["estimate", "deepseek-v3:Q4_K_M", "--device", "gpu0=8GiB", "--gpu-layers", "all"]);
    let mut process = Process::spawn(command, "estimate", &folder.path().join("log"));
    let files = || fs::read_dir(&scratch).expect("a folder").flatten().count();
    wait_for("its folder", PATIENCE, || if files() > 0 { Ok(()) } else { Err("not there") });
    process.signal(Signal::INT);
    let ended = wait_for("its end", PATIENCE, || process.ended().ok_or("it runs"));
    assert_eq!(ended.code(), Some(130));
    assert_eq!(files(), 0, "files were left");
    let said = say(Command::new(&binaries().controller).args(["estimate"]), PATIENCE);
    assert_eq!(said.code, Some(2), "{said:?}");
}
