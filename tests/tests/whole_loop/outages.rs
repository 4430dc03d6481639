//! What goes on while a program is away, and how it comes back.

use std::fs;

use muster_engine::bundled::NAME;
use muster_proto::DeploymentState;
use muster_tests::{Agent, Controller, PATIENCE, copy_folder, user, wait_for};
use rustix::process::{Pid, test_kill_process};

#[test]
fn with_the_controller_gone_a_restarted_desk_still_answers() {
    let (mut controller, mut agent) = crate::desk();
    controller.kill9();
    let workers = agent.workers();
    assert_eq!(workers.len(), 1, "{workers:?}");
    agent.kill9();
    // A worker sees the end of its pipe and never outlives its parent, however that one died.
    let worker = Pid::from_raw(i32::try_from(workers[0]).expect("a process id")).expect("not zero");
    wait_for("the worker to end", PATIENCE, || match test_kill_process(worker) {
        Ok(()) if fs::read_to_string(format!("/proc/{}/stat", workers[0])).is_ok_and(|stat| !stat.contains(") Z ")) => {
            Err("it still runs")
        }
        _ => Ok(()),
    });
    agent.restart();
    let endpoint = agent.endpoint().clone();
    let answer = wait_for("an answer", PATIENCE, || endpoint.try_ask(NAME, &user(crate::QUESTION.0)));
    assert_eq!(answer.content, crate::QUESTION.1);
    let status = agent.status();
    assert_eq!(status["online"], false, "{status}");
    assert!(status["last_error"].is_string(), "{status}");
    let id = agent.id();
    controller.restart();
    controller.wait_online(id, true, PATIENCE);
    let deployment = controller.wait_success(id, NAME);
    assert!(deployment.transfer.is_none_or(|transfer| transfer.done == transfer.total), "{deployment:?}");
}

#[test]
fn serve_ends_cleanly_on_sigterm_and_goes_on_with_what_it_had() {
    let (mut controller, mut agent) = crate::desk();
    let id = agent.id();
    let (machine, models) = (controller.machine(id), controller.say(&["models", "list", "--json"]).ok());
    assert_eq!(controller.terminate().code(), Some(0), "{}", controller.process().log_tail());
    assert_eq!(
        fs::read_dir(controller.data())
            .expect("its folder")
            .flatten()
            .filter(|entry| entry.file_name() == "admin.sock")
            .count(),
        0
    );
    controller.restart();
    assert_eq!(controller.say(&["models", "list", "--json"]).ok(), models);
    controller.wait_online(id, true, PATIENCE);
    assert_eq!(controller.machine(id).desired_generation, machine.desired_generation);
    assert_eq!(controller.wait_success(id, NAME).state, DeploymentState::Success);
    assert_eq!(agent.terminate().code(), Some(0), "{}", agent.process().log_tail());
}

#[test]
fn a_controller_restored_from_an_old_backup_goes_on_from_the_desks_generation() {
    let mut controller = Controller::start();
    controller.import_bundled("Q8_0");
    controller.want(NAME, 512);
    let agent = Agent::start(&controller);
    let id = agent.id();
    controller.wait_success(id, NAME);
    controller.terminate();
    let backup = controller.scratch("backup");
    copy_folder(&controller.data(), &backup);

    controller.restart();
    controller.wait_online(id, true, PATIENCE);
    let old = controller.machine(id).desired_generation;
    controller.want(NAME, 1024);
    let newer = wait_for("a newer generation on the desk", PATIENCE, || {
        let machine = controller.machine(id);
        let held = machine.observed.map_or(0, |observed| observed.generation);
        if held > old && held == machine.desired_generation { Ok(held) } else { Err(format!("{held}")) }
    });
    controller.terminate();
    fs::remove_dir_all(controller.data()).expect("our own folder");
    fs::rename(&backup, controller.data()).expect("our own folder");
    controller.restart();
    controller.wait_online(id, true, PATIENCE);
    let event = controller.wait_event("generation.went_on");
    assert!(format!("{event:?}").contains(&newer.to_string()), "{event:?}");
    let settled = wait_for("the desk on the restored state", PATIENCE, || {
        let machine = controller.machine(id);
        let observed = machine.observed.as_ref().map_or(0, |observed| observed.generation);
        let done = observed == machine.desired_generation && observed > newer;
        if done { Ok(observed) } else { Err(format!("{observed}, wanted {}", machine.desired_generation)) }
    });
    assert_eq!(settled, newer + 1);
    // What it runs is what the restored policy wants: the smaller context.
    controller.wait_success(id, NAME);
    let plan = controller.plan();
    let assignment = plan.machines[&id].assignment.as_ref().expect("an assignment");
    assert_eq!(assignment.settings.context.get(), 512);
}
