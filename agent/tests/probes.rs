//! The real program looks at this machine, and at one whose `/sys` is made up: probes' processes, joining and all.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// The inventory that `audit` shows, with these variables set.
fn audit(state: &Path, variables: &[(&str, &Path)]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster-agent"));
    command.args(["audit", "--json", "--state"]).arg(state).envs(variables.iter().copied());
    let output = command.output().expect("the agent runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut all: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    all["inventory"].take()
}

fn gpus(inventory: &Value) -> &Vec<Value> {
    inventory["hardware"]["gpus"].as_array().expect("a list of GPUs")
}

#[test]
fn this_machine_has_each_gpu_once_and_no_software_renderer_among_them() {
    let state = tempfile::tempdir().expect("a folder");
    let inventory = audit(state.path(), &[]);
    let addresses: Vec<&str> = gpus(&inventory).iter().filter_map(|gpu| gpu["pci_bus_id"].as_str()).collect();
    assert_eq!(addresses.len(), addresses.iter().collect::<BTreeSet<_>>().len(), "{inventory:#}");
    for gpu in gpus(&inventory) {
        let name = gpu["name"].as_str().expect("a name");
        assert!(!name.contains("llvmpipe"), "{gpu:#}");
        assert!(gpu["engine_device"].is_string() != gpu["obstacle"].is_object(), "{gpu:#}");
    }
    let devices = inventory["devices"].as_array().expect("a list of devices");
    assert!(devices.iter().any(|device| device["kind"] == "cpu"), "{devices:#?}");
    let vulkan = inventory["failures"].as_array().expect("a list").iter().find(|failure| failure["probe"] == "vulkan");
    if let Some(failure) = vulkan {
        assert!(failure["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    }
}

#[test]
fn a_card_without_a_driver_is_there_with_its_remedy() {
    let root = tempfile::tempdir().expect("a folder");
    let card = root.path().join("sys/bus/pci/devices/0000:03:00.0");
    fs::create_dir_all(&card).expect("made");
    fs::create_dir_all(root.path().join("dev")).expect("made");
    for (file, text) in [("class", "0x030000\n"), ("vendor", "0x1002\n"), ("device", "0x744c\n")] {
        fs::write(card.join(file), text).expect("written");
    }
    let (sys, dev) = (root.path().join("sys"), root.path().join("dev"));
    let variables = [("MUSTER_SYSFS_ROOT", sys.as_path()), ("MUSTER_DEV_ROOT", dev.as_path())];
    let inventory = audit(&root.path().join("state"), &variables);
    let gpu = gpus(&inventory).iter().find(|gpu| gpu["pci_id"] == "1002:744c").expect("the card");
    assert_eq!(gpu["obstacle"]["kind"], "driver_missing", "{gpu:#}");
    assert!(gpu["obstacle"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("amdgpu")), "{gpu:#}");
}

#[test]
fn a_probe_that_is_none_says_so() {
    let mut probe = Command::new(env!("CARGO_BIN_EXE_muster-agent"))
        .args(["probe", "none-of-these"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the agent runs");
    // A probe ends when whoever asked is gone: its input stays open meanwhile.
    let open = probe.stdin.take();
    assert_eq!(probe.wait().expect("it ends").code(), Some(2));
    drop(open);
}
