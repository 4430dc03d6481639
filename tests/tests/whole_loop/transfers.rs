//! Model files on their way to a desk, and what may happen to them there.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use muster_engine::bundled::NAME;
use muster_proto::{Bytes, DeploymentState, Model};
use muster_tests::{Agent, Controller, PATIENCE, Relay, children, corrupt, random_model, user, wait_for};

/// What a desk may fetch twice after it was killed.
const FETCHED_TWICE: u64 = 16 << 20;

/// Imports a model of random weights.
pub fn import_random(controller: &Controller, name: &str, size: Bytes) -> (PathBuf, Model) {
    let file = controller.scratch(&format!("{name}.gguf"));
    random_model(&file, size, 7);
    let model = controller.import(&file, name);
    (file, model)
}

/// Size of what the agent has of a file that is still coming.
fn coming(agent: &Agent) -> u64 {
    let part = |path: &Path| path.extension().is_some_and(|extension| extension == "part");
    agent.files().iter().filter(|(path, _)| part(path)).map(|(_, size)| *size).sum()
}

/// Waits until at least `size` of a file has come, and says how much.
fn wait_coming(agent: &Agent, size: u64) -> u64 {
    wait_for(&format!("{size} bytes of a download"), PATIENCE, || {
        let here = coming(agent);
        if here >= size { Ok(here) } else { Err(format!("{here} bytes; {:?}", agent.files())) }
    })
}

fn assert_same_content(one: &Path, other: &Path) {
    let (mut one, mut other) = (File::open(one).expect("a file"), File::open(other).expect("a file"));
    assert_eq!(one.metadata().expect("a size").len(), other.metadata().expect("a size").len());
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let length = one.read(&mut left).expect("readable");
        if length == 0 {
            break;
        }
        other.read_exact(&mut right[..length]).expect("readable");
        assert!(left[..length] == right[..length], "the contents differ");
    }
}

/// The only whole model file that the agent keeps.
fn kept(agent: &Agent, model: &Model) -> PathBuf {
    let hex = model.artifacts[0].digest.hex();
    let files = agent.files();
    let found = files.iter().find(|(path, _)| {
        path.extension().is_some_and(|extension| extension == "gguf") && path.to_string_lossy().contains(&hex)
    });
    found.unwrap_or_else(|| panic!("no file of {hex} in {files:?}")).0.clone()
}

#[test]
fn an_agent_killed_in_mid_download_goes_on_where_it_was() {
    let controller = Controller::start();
    let (file, model) = import_random(&controller, "big", Bytes::from_mib(256));
    let relay = Relay::to(&controller.address);
    let mut agent =
        Agent::new().with(&["--bandwidth-limit", "64MiB"]).start_at(&controller, &relay.address.to_string());
    let id = agent.id();
    controller.want("big", 512);
    wait_coming(&agent, 64 << 20);

    // Meanwhile its clients are told to come back.
    let reply = agent.endpoint().chat(&muster_tests::Endpoint::body("big", &user("Hello")));
    assert_eq!(reply.status, 503);
    assert!(reply.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    assert!(reply.json()["error"]["message"].is_string());
    // And the operator sees how far it is.
    let seen = controller.wait_deployment(id, "that is downloading", |deployment| {
        deployment.state == DeploymentState::Downloading && deployment.transfer.is_some()
    });
    let transfer = seen.transfer.expect("asked for");
    assert_eq!(transfer.total, model.artifacts[0].size);
    assert!(transfer.done < transfer.total, "{transfer:?}");

    agent.kill9();
    let left = coming(&agent);
    assert!(left >= 64 << 20 && left < model.artifacts[0].size.get(), "{left} bytes were left");
    agent.restart();
    let deployment = controller.wait_success(id, "big");
    let transfer = deployment.transfer.expect("a download of this run");
    assert!(transfer.resumed_from.get() + FETCHED_TWICE >= left, "{transfer:?} of {left}");
    assert_eq!(transfer.done, transfer.total);
    let size = model.artifacts[0].size.get();
    let down = relay.down();
    assert!(down >= size && down < size + FETCHED_TWICE, "{down} bytes came for a file of {size}");
    assert_same_content(&kept(&agent, &model), &file);
    assert_eq!(coming(&agent), 0);
}

#[test]
fn a_controller_killed_in_mid_push_comes_back_and_the_desk_converges() {
    let mut controller = Controller::start();
    let (file, model) = import_random(&controller, "big", Bytes::from_mib(96));
    let mut agent = Agent::new().with(&["--bandwidth-limit", "32MiB"]);
    agent = {
        let address = controller.address.clone();
        agent.start_at(&controller, &address)
    };
    let id = agent.id();
    controller.want("big", 512);
    let left = wait_coming(&agent, 16 << 20);
    controller.kill9();
    assert!(agent.process().ended().is_none(), "the agent ended with its controller");
    controller.restart();
    let deployment = controller.wait_success(id, "big");
    assert!(deployment.transfer.is_some_and(|transfer| transfer.resumed_from.get() + FETCHED_TWICE >= left));
    assert_same_content(&kept(&agent, &model), &file);
}

/// Where the controller keeps the file of a digest.
pub fn blob(controller: &Controller, model: &Model) -> PathBuf {
    fn find(folder: &Path, hex: &str) -> Option<PathBuf> {
        let mut entries = fs::read_dir(folder).ok()?.filter_map(Result::ok);
        entries.find_map(|entry| match entry.path() {
            path if path.is_dir() => find(&path, hex),
            path if path.to_string_lossy().replace('/', "").contains(hex) => Some(path),
            _ => None,
        })
    }
    let hex = model.artifacts[0].digest.hex();
    find(&controller.data(), &hex).unwrap_or_else(|| panic!("no blob of {hex}"))
}

#[test]
fn a_flipped_byte_is_refused_reported_and_not_kept() {
    let controller = Controller::start();
    let model = controller.import_bundled("");
    let blob = blob(&controller, &model);
    fs::set_permissions(&blob, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("our own file");
    let size = model.artifacts[0].size.get();
    corrupt(&blob, size / 2);
    let mut agent = Agent::start(&controller);
    let id = agent.id();
    controller.want(NAME, 1024);
    let failed =
        controller.wait_deployment(id, "in failure", |deployment| deployment.state == DeploymentState::Failure);
    let reason = failed.reason.expect("a failure has a reason");
    assert!(reason.contains("sha256") || reason.contains("digest"), "{reason}");
    let large: Vec<_> = agent.files().into_iter().filter(|(_, size)| *size > 1 << 20).collect();
    assert!(large.is_empty(), "kept: {large:?}");
    assert_eq!(agent.endpoint().chat(&muster_tests::Endpoint::body(NAME, &user("Hello"))).status, 503);

    // A file that is wrong at its source is not fetched over and over: the next attempt is in a minute, or at a start.
    corrupt(&blob, size / 2);
    agent.kill9();
    agent.restart();
    controller.wait_success(id, NAME);
    assert_eq!(agent.endpoint().ask(NAME, &user(crate::QUESTION.0)).content, crate::QUESTION.1);
}

#[test]
fn a_model_that_is_no_longer_wanted_stops_answering() {
    let (controller, mut agent) = crate::desk();
    let (_, _) = import_random(&controller, "other", Bytes::from_mib(8));
    let worker = agent.workers();
    controller.want("other", 512);
    controller.wait_success(agent.id(), "other");
    assert_eq!(agent.endpoint().chat(&muster_tests::Endpoint::body(NAME, &user("Hello"))).status, 404);
    assert!(agent.endpoint().try_ask("other", &user("Hello")).is_ok());
    let pid = agent.process().pid();
    wait_for("the old worker to be gone", PATIENCE, || {
        let now = children(pid, "engine-worker");
        if now.iter().any(|one| worker.contains(one)) { Err(format!("{now:?}")) } else { Ok(()) }
    });
}
