//! Engine workers that die: the desk recovers, and gives up when it does no good.

use muster_engine::bundled::NAME;
use muster_proto::DeploymentState;
use muster_tests::{PATIENCE, children, user, wait_for};
use rustix::process::{Pid, Signal, kill_process};

fn kill(worker: u32) {
    let pid = Pid::from_raw(i32::try_from(worker).expect("a process id")).expect("not zero");
    // It may have ended by itself meanwhile.
    let _ = kill_process(pid, Signal::KILL);
}

#[test]
fn a_killed_worker_is_started_again() {
    let (controller, mut agent) = crate::desk();
    let workers = agent.workers();
    assert_eq!(workers.len(), 1, "{workers:?}");
    kill(workers[0]);
    let endpoint = agent.endpoint().clone();
    let answer = wait_for("an answer of a new worker", PATIENCE, || endpoint.try_ask(NAME, &user(crate::QUESTION.0)));
    assert_eq!(answer.content, crate::QUESTION.1);
    let now = agent.workers();
    assert!(now.len() == 1 && now != workers, "{now:?} after {workers:?}");
    assert!(agent.process().ended().is_none(), "the agent ended");
    controller.wait_success(agent.id(), NAME);
}

#[test]
fn a_worker_killed_in_mid_answer_ends_that_answer_only() {
    let (_controller, mut agent) = crate::desk();
    let mut body = muster_tests::Endpoint::body(NAME, &user("Count from 3 to 14."));
    body["stream"] = serde_json::json!(true);
    body["max_tokens"] = serde_json::json!(900);
    body["ignore_eos"] = serde_json::json!(true);
    let mut events = agent.endpoint().chat(&body).events();
    assert!(events.next().is_some(), "no first event");
    for worker in agent.workers() {
        kill(worker);
    }
    // The rest may be an error event or a cut stream, but it ends.
    let reader = std::thread::spawn(move || events.count());
    wait_for("the answer to end", PATIENCE, || if reader.is_finished() { Ok(()) } else { Err("it still comes") });
    let endpoint = agent.endpoint().clone();
    let answer = wait_for("an answer of a new worker", PATIENCE, || endpoint.try_ask(NAME, &user(crate::QUESTION.0)));
    assert_eq!(answer.content, crate::QUESTION.1);
}

#[test]
fn a_crash_loop_becomes_a_failed_assignment() {
    let (controller, mut agent) = crate::desk();
    let (id, pid) = (agent.id(), agent.process().pid());
    let reason = wait_for("the desk to give up", PATIENCE, || {
        children(pid, "engine-worker").into_iter().for_each(kill);
        let observed = controller.machine(id).observed;
        let deployments = observed.map(|observed| observed.deployments).unwrap_or_default();
        match deployments.first() {
            Some(deployment) if deployment.state == DeploymentState::Failure => {
                Ok(deployment.reason.clone().unwrap_or_default())
            }
            other => Err(format!("{other:?}")),
        }
    });
    assert!(reason.contains("signal 9") || reason.to_lowercase().contains("kill"), "{reason}");
    assert!(agent.process().ended().is_none(), "the agent ended");
    let status = agent.endpoint().chat(&muster_tests::Endpoint::body(NAME, &user("Hello"))).status;
    assert_eq!(status, 503);
}
