//! Two agents with one identity: a cloned disk, or a reboot behind a connection that nobody closed.

use std::time::{Duration, Instant};

use muster_tests::{Agent, Controller, PATIENCE};
use rustix::process::Signal;

/// The controller's patience with a silent stream is 2 s; the rest is for a busy machine.
const HANDED_OVER: Duration = Duration::from_secs(6);

#[test]
fn a_running_original_answers_and_the_clone_is_refused() {
    let controller = Controller::start();
    let mut original = Agent::new();
    original.enrol(&controller.address, &controller.token(&[])).ok();
    let mut clone = original.cloned_disk();
    original.restart();
    let id = original.id();
    controller.wait_online(id, true, PATIENCE);
    clone.restart();
    let status = clone.wait_status("that was refused", |status| {
        status["last_error"].as_str().is_some_and(|error| error.contains("clone"))
    });
    assert_eq!(status["online"], false, "{status}");
    let event = controller.wait_event("identity.cloned");
    assert!(event.subject.contains(&id.to_string()) || event.detail.contains(&id.to_string()), "{event:?}");
    original.wait_status("that is still online", |status| status["online"] == true);
    assert!(controller.machine(id).online);
}

#[test]
fn a_silent_original_hands_over() {
    let controller = Controller::start();
    let mut original = Agent::new();
    original.enrol(&controller.address, &controller.token(&[])).ok();
    let mut successor = original.cloned_disk();
    original.restart();
    let id = original.id();
    controller.wait_online(id, true, PATIENCE);
    original.process().signal(Signal::STOP);
    let stopped = Instant::now();
    successor.restart();
    successor.wait_status("that took over", |status| status["online"] == true);
    let took = stopped.elapsed();
    assert!(took < HANDED_OVER, "it took {took:?}");
    let events = controller.events();
    assert!(events.iter().all(|event| event.action != "identity.cloned"), "{events:?}");
    assert!(controller.machine(id).online);
}
