//! A store on a volume that fills up. The volume is a small tmpfs in a mount namespace of the agent's own.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::Command;

use muster_proto::{Bytes, Deployment, DeploymentState};
use muster_tests::{Agent, Controller, PATIENCE, wait_for};

use crate::transfers::import_random;

/// Size of the volume.
const VOLUME: u64 = 160 << 20;
/// Size of the model.
const MODEL: u64 = 64 << 20;

/// Starts the agent with its store on a new tmpfs; returns the store as this process can reach it.
fn run_on_small_volume(agent: &mut Agent) -> PathBuf {
    let store = agent.scratch("volume");
    fs::create_dir(&store).expect("a folder for the volume");
    let running = agent.running();
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let script = format!("mount -t tmpfs -o size={VOLUME} muster-test \"$0\" && exec \"$@\"");
    command.args(["sh", "-c", &script]).arg(&store);
    command.arg(running.get_program()).args(running.get_args());
    for (name, value) in running.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.arg("--store").arg(&store).args(["--disk-reserve", "1MiB"]);
    agent.spawn(command);
    let pid = agent.process().pid();
    PathBuf::from(format!("/proc/{pid}/root")).join(store.strip_prefix("/").expect("an absolute path"))
}

/// Takes room away.
fn fill(store: &std::path::Path, bytes: u64) {
    let mut file = File::create(store.join("filler")).expect("a file on the volume");
    let piece = vec![0x55; 1 << 20];
    for _ in 0..bytes.div_ceil(1 << 20) {
        match file.write_all(&piece) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => break,
            Err(error) => panic!("cannot fill the volume: {error}"),
        }
    }
}

fn coming(store: &std::path::Path) -> u64 {
    let entries = fs::read_dir(store).into_iter().flatten().flatten();
    let parts = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "part"));
    parts.filter_map(|entry| entry.metadata().ok()).map(|part| part.len()).sum()
}

fn failed(deployment: &Deployment) -> bool {
    deployment.state == DeploymentState::Failure
}

#[test]
fn without_room_nothing_starts_and_with_room_it_goes_on() {
    let controller = Controller::start();
    import_random(&controller, "big", Bytes::new(MODEL));
    let mut agent = Agent::new();
    agent.enrol(&controller.address, &controller.token(&[])).ok();
    let store = run_on_small_volume(&mut agent);
    let id = agent.id();
    controller.wait_online(id, true, PATIENCE);
    wait_for("the inventory", PATIENCE, || {
        let disk = controller.machine(id).inventory.and_then(|inventory| inventory.store_disk);
        disk.filter(|disk| disk.free.get() > MODEL && disk.total.get() <= VOLUME).ok_or(format!("{disk:?}"))
    });
    fill(&store, VOLUME - MODEL / 2);
    controller.want("big", 512);
    let deployment = controller.wait_deployment(id, "in failure", failed);
    let reason = deployment.reason.expect("a failure has a reason");
    assert!(reason.contains("MiB") && reason.contains("free"), "no figures in: {reason}");
    assert_eq!(coming(&store), 0, "it started without room");

    fs::remove_file(store.join("filler")).expect("our own file");
    controller.wait_success(id, "big");
}

#[test]
fn a_disk_that_fills_up_in_mid_download_loses_nothing() {
    let controller = Controller::start();
    import_random(&controller, "big", Bytes::new(MODEL));
    let mut agent = Agent::new().with(&["--bandwidth-limit", "16MiB"]);
    agent.enrol(&controller.address, &controller.token(&[])).ok();
    let store = run_on_small_volume(&mut agent);
    let id = agent.id();
    controller.wait_online(id, true, PATIENCE);
    controller.want("big", 512);
    wait_for("a fifth of the download", PATIENCE, || {
        let here = coming(&store);
        if here >= MODEL / 5 { Ok(()) } else { Err(format!("{here} bytes")) }
    });
    fill(&store, VOLUME);
    let deployment = controller.wait_deployment(id, "in failure", failed);
    let reason = deployment.reason.expect("a failure has a reason").to_lowercase();
    assert!(["no space", "room", "free", "full"].iter().any(|word| reason.contains(word)), "{reason}");
    let left = coming(&store);
    assert!(left >= MODEL / 5, "{left} bytes were left");
    assert!(agent.process().ended().is_none(), "the agent ended");

    fs::remove_file(store.join("filler")).expect("our own file");
    let deployment = controller.wait_success(id, "big");
    let transfer = deployment.transfer.expect("a download");
    assert!(transfer.resumed_from.get() + (16 << 20) >= left, "{transfer:?} after {left}");
}
