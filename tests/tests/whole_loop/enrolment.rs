//! How a machine becomes known, and how it does not.

use std::fs;
use std::time::SystemTime;

use muster_proto::{CaFingerprint, EnrolmentState, EnrolmentToken, Timestamp};
use muster_tests::{Agent, Controller, PATIENCE, Process, Relay, Said, wait_for};

/// Checks that enrolling failed with one line that says why.
#[track_caller]
fn refused(said: &Said, words: &[&str]) {
    assert_eq!(said.code, Some(1), "{said:?}");
    let lines: Vec<&str> = said.err.lines().filter(|line| line.starts_with("error: ")).collect();
    let [line] = lines[..] else { panic!("not one line of error: {said:?}") };
    let lower = line.to_lowercase();
    assert!(words.iter().any(|word| lower.contains(word)), "none of {words:?} in {line}");
}

fn parts(token: &str) -> ([u8; 20], [u8; 32]) {
    let token: EnrolmentToken = token.parse().expect("a token");
    (*token.secret(), *token.ca_fingerprint())
}

#[test]
fn a_wrong_token_enrols_nobody() {
    let controller = Controller::start();
    let token = controller.token(&[]);
    let (secret, fingerprint) = parts(&token);
    let agent = Agent::new();

    let guessed = EnrolmentToken::new([7; 20], fingerprint).to_string();
    refused(&agent.enrol(&controller.address, &guessed), &["token"]);
    // The same secret at the wrong controller: it must not even be sent.
    let elsewhere = EnrolmentToken::new(secret, [1; 32]).to_string();
    refused(
        &agent.enrol(&controller.address, &elsewhere),
        &["fingerprint", "not the controller", "another controller", "other controller"],
    );
    let damaged = &token[..token.len() - 3];
    let said = agent.enrol(&controller.address, damaged);
    assert!(matches!(said.code, Some(1 | 2)) && said.err.contains("damaged"), "{said:?}");

    assert_eq!(controller.machines(), []);
    assert_eq!(controller.tokens()[0].uses, 0);
    // And the right one still works for the same desk.
    agent.enrol(&controller.address, &token).ok();
    assert_eq!(controller.machines().len(), 1);
}

#[test]
fn a_token_is_good_once_and_not_for_ever() {
    let controller = Controller::start();
    let token = controller.token(&[]);
    let first = Agent::new();
    first.enrol(&controller.address, &token).ok();
    let id = first.id();
    let second = Agent::new();
    refused(&second.enrol(&controller.address, &token), &["used"]);
    // Stored hashed: whoever reads the database has no token.
    let (secret, fingerprint) = parts(&token);
    let mut searched = 0;
    for entry in fs::read_dir(controller.data()).expect("its folder").flatten() {
        let Ok(content) = fs::read(entry.path()) else { continue };
        searched += 1;
        assert!(!content.windows(secret.len()).any(|window| window == secret), "{}", entry.path().display());
    }
    assert!(searched >= 2, "{searched} files");
    assert_eq!(controller.status()["ca_fingerprint"], CaFingerprint::new(fingerprint).hex());
    // The same desk may repeat: it is the same machine.
    first.enrol(&controller.address, &token).ok();
    assert_eq!(first.id(), id);
    assert_eq!(controller.machines().len(), 1);
    assert_eq!(controller.tokens()[0].uses, 1);

    let twice = controller.token(&["--uses", "2"]);
    second.enrol(&controller.address, &twice).ok();
    Agent::new().enrol(&controller.address, &twice).ok();
    refused(&Agent::new().enrol(&controller.address, &twice), &["used"]);
    assert_eq!(controller.machines().len(), 3);

    let short = controller.token(&["--expires", "1s"]);
    wait_for("the token to expire", PATIENCE, || {
        let expires = controller.tokens().iter().map(|token| token.expires_at).min().expect("three tokens");
        if Timestamp::from(SystemTime::now()) > expires { Ok(()) } else { Err(format!("it ends at {expires}")) }
    });
    refused(&Agent::new().enrol(&controller.address, &short), &["expired"]);

    let taken_back = controller.token(&[]);
    let newest = controller.tokens().into_iter().max_by_key(|token| token.created_at).expect("four tokens");
    controller.say(&["token", "revoke", &newest.id.to_string()]).ok();
    refused(&Agent::new().enrol(&controller.address, &taken_back), &["revoked", "taken back"]);
    assert_eq!(controller.machines().len(), 3);
}

#[test]
fn killed_between_commit_and_reply_it_just_repeats() {
    let controller = Controller::start();
    let token = controller.token(&[]);
    let relay = Relay::to(&controller.address);
    relay.hold_replies();
    let agent = Agent::new();
    let address = relay.address.to_string();
    let mut enrolling = Process::spawn(agent.enrolment(&address, &token), "enrolment", &agent.log());
    let committed = wait_for("the enrolment to be committed", PATIENCE, || {
        controller.machines().first().map(|machine| machine.id).ok_or("no machine")
    });
    enrolling.kill9();
    assert!(!agent.state().join("certificate.pem").exists(), "the reply was to be held back");

    agent.enrol(&controller.address, &token).ok();
    assert_eq!(agent.id(), committed);
    assert_eq!(controller.machines().len(), 1);
    assert_eq!(controller.tokens()[0].uses, 1);
    let mut agent = agent;
    agent.restart();
    controller.wait_online(committed, true, PATIENCE);
}

#[test]
fn a_machine_may_have_to_wait_for_an_operator() {
    let controller = Controller::start();
    let token = controller.token(&["--needs-acceptance"]);
    let mut agent = Agent::new();
    let _ = agent.enrol(&controller.address, &token);
    let machines = controller.machines();
    assert_eq!(machines.len(), 1);
    let id = machines[0].id;
    assert_eq!(machines[0].enrolment, EnrolmentState::Pending);
    assert!(!agent.state().join("certificate.pem").exists(), "a pending machine has a certificate");
    let plan = controller.plan();
    assert!(plan.machines.values().all(|machine| machine.assignment.is_none()), "{plan:?}");

    controller.say(&["machines", "accept", &id.to_string()]).ok();
    agent.enrol(&controller.address, &token).ok();
    assert_eq!(agent.id(), id);
    agent.restart();
    let machine = controller.wait_online(id, true, PATIENCE);
    assert_eq!(machine.enrolment, EnrolmentState::Accepted);

    let token = controller.token(&["--needs-acceptance"]);
    let other = Agent::new();
    let mut waiting = Process::spawn(
        {
            let mut command = other.enrolment(&controller.address, &token);
            command.arg("--wait");
            command
        },
        "enrolment",
        &other.log(),
    );
    let pending = wait_for("the second machine", PATIENCE, || {
        controller.machines().iter().find(|machine| machine.id != id).map(|machine| machine.id).ok_or("one machine")
    });
    controller.say(&["machines", "accept", &pending.to_string(), "--reject"]).ok();
    assert_eq!(waiting.wait(PATIENCE).code(), Some(1), "{}", waiting.log_tail());
    assert_eq!(controller.machine(pending).enrolment, EnrolmentState::Rejected);
}
