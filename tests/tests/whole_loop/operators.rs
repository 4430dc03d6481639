//! Operators: on the same host over the controller's socket, from elsewhere with a certificate.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use muster_tests::{Agent, Controller, PATIENCE, Said, binaries, say};

/// `muster` from elsewhere: without the data directory.
fn remote(controller: &Controller, identity: &str, arguments: &[&str]) -> Said {
    let mut command = Command::new(&binaries().controller);
    command.arg("--controller").arg(&controller.address).arg("--identity").arg(identity).args(arguments);
    command.env_remove("MUSTER_DATA");
    say(&mut command, PATIENCE)
}

#[test]
fn an_admin_works_from_elsewhere_until_revoked() {
    let controller = Controller::start();
    let folder = controller.scratch("anna");
    let identity = folder.to_str().expect("UTF-8");
    controller.say(&["admin", "add", "anna", "--out", identity]).ok();
    let key = fs::metadata(folder.join("key.pem")).expect("a key").permissions().mode();
    assert_eq!(key & 0o077, 0, "others may read the key: {key:o}");

    let agent = Agent::start(&controller);
    let listed = remote(&controller, identity, &["machines", "list", "--json"]).ok();
    assert!(listed.contains(&agent.id().to_string()), "{listed}");
    remote(&controller, identity, &["token", "create"]).ok();
    let events = controller.events();
    assert!(events.iter().any(|event| event.action == "token.created" && event.actor == "admin:anna"), "{events:?}");

    // A machine's identity is none of an operator: same files, same names.
    let posing = controller.scratch("posing");
    fs::create_dir(&posing).expect("a folder");
    for (from, to) in [("key.pem", "key.pem"), ("certificate.pem", "cert.pem"), ("ca.pem", "ca.pem")] {
        fs::copy(agent.state().join(from), posing.join(to)).expect("a copy");
    }
    let said = remote(&controller, posing.to_str().expect("UTF-8"), &["machines", "list"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(!said.out.contains(&agent.id().to_string()), "{said:?}");

    controller.say(&["admin", "revoke", "anna"]).ok();
    let said = remote(&controller, identity, &["machines", "list"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.starts_with("error: ") && said.out.is_empty(), "{said:?}");
}

#[test]
fn state_is_private_and_one_program_at_a_time_works_on_it() {
    let controller = Controller::start();
    let mut agent = Agent::start(&controller);
    for (folder, socket) in [(controller.data(), "admin.sock"), (agent.state(), "control.sock")] {
        let mode = |path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(folder.clone()), 0o700, "{}", folder.display());
        assert_eq!(mode(folder.join(socket)) & 0o077, 0, "{socket} of {}", folder.display());
    }
    let key = fs::metadata(agent.state().join("key.pem")).expect("a key").permissions().mode();
    assert_eq!(key & 0o077, 0, "others may read the key: {key:o}");

    let said = controller.say(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("in use by process"), "{said:?}");
    let said = say(&mut agent.running(), PATIENCE);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("in use by process"), "{said:?}");
    assert!(agent.process().ended().is_none());
    agent.terminate();
    let said = agent.say(&["status"]);
    assert_eq!(said.code, Some(1), "{said:?}");
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    let controller = Controller::start();
    for arguments in [&["serve", "--listen", "nowhere"][..], &["models", "import"], &["no-such-command"]] {
        assert_eq!(controller.say(arguments).code, Some(2), "{arguments:?}");
    }
    for arguments in
        [&["machines", "show", "no-such-machine"][..], &["models", "show", "no-such-model"], &["token", "revoke", "00"]]
    {
        let said = controller.say(arguments);
        assert_eq!(said.code, Some(1), "{arguments:?}: {said:?}");
        assert!(said.err.starts_with("error: ") && said.err.trim_end().lines().count() == 1, "{said:?}");
    }
}
