//! What the fleet is ready for, from an enrolled desk to the report in every form.

use std::fs;

use muster_proto::{Machine, Readiness, ReadinessReport};
use muster_tests::{Agent, Controller, PATIENCE, wait_for};

#[test]
fn an_enrolled_desk_is_in_the_report_with_a_verdict_and_reasons() {
    let controller = Controller::start();
    let agent = Agent::start(&controller);
    let id = agent.id().to_string();

    let report = wait_for("the inventory", PATIENCE, || {
        let report: ReadinessReport =
            controller.json(&["report", "readiness", "--format", "json", "--role", "chat-70b"]);
        let told = report.machines.iter().any(|row| row.facts.inventory.is_some());
        if told { Ok(report) } else { Err("no inventory yet") }
    });
    assert_eq!((report.role.name.as_str(), report.machines.len()), ("chat-70b", 1));
    let row = &report.machines[0];
    assert_eq!(row.machine, agent.id());
    assert!(row.facts.inventory.is_some() && row.memory_total.is_some(), "{row:?}");
    let assessment = &row.assessment;
    // No machine that runs this test answers with 70 billion parameters at once without a GPU.
    assert_ne!(assessment.verdict, Readiness::Ready, "{assessment:?}");
    assert!(!assessment.reasons.is_empty() && assessment.best.is_some(), "{assessment:?}");

    let grouped = |group: &str| controller.say(&["report", "readiness", "--json", "--group", group]);
    assert_eq!(grouped("berlin").code, Some(1));
    let machine: Machine = controller.json(&["machines", "group", &id, "--add", "berlin", "--add", "design"]);
    assert_eq!(machine.groups, ["berlin", "design"]);
    assert!(grouped("berlin").ok().contains(&id));
    let machine: Machine = controller.json(&["machines", "group", &id, "--remove", "berlin"]);
    assert_eq!(machine.groups, ["design"]);
    assert_eq!(grouped("berlin").code, Some(1));
    let events = controller.events();
    let told = events.iter().filter(|event| event.action == "machine.groups_changed");
    assert_eq!(told.count(), 2, "{events:?}");

    let folder = controller.scratch("reports");
    fs::create_dir(&folder).expect("a folder");
    for (ending, begins) in
        [("csv", &b"hostname,"[..]), ("xlsx", b"PK"), ("html", b"<!DOCTYPE html>"), ("txt", b"Readiness")]
    {
        let file = folder.join(format!("readiness.{ending}"));
        controller.say(&["report", "readiness", "--output", file.to_str().expect("UTF-8")]).ok();
        let written = fs::read(&file).expect("written");
        assert!(written.starts_with(begins), "{ending}: {:?}", &written[..20]);
    }
    let shown = controller.say(&["machines", "show", &id]).ok();
    assert!(shown.contains("Ready for") && shown.contains("chat-70b") && shown.contains("design"), "{shown}");
    let said = controller.say(&["report", "readiness", "--role", "poet"]);
    assert!(said.code == Some(1) && said.err.contains("chat-14b"), "{said:?}");

    let what_if: ReadinessReport =
        controller.json(&["report", "readiness", "--gpu", "rtx 4090", "--add-memory", "16GiB"]);
    let asked = what_if.what_if.expect("asked");
    assert_eq!(asked.to_string(), "16 GiB more main memory and GeForce RTX 4090");
    assert!(what_if.summary.what_if.is_some());
    let said = controller.say(&["report", "readiness", "--gpu", "voodoo 2"]);
    assert!(said.code == Some(1) && said.err.contains("voodoo 2"), "{said:?}");
}

#[test]
fn a_token_brings_machines_into_its_groups() {
    let controller = Controller::start();
    let said = controller.say(&["token", "create", "--group", "lab", "--group", "two words"]);
    assert!(said.code == Some(1) && said.err.contains("two words"), "{said:?}");
    let token = controller.say(&["token", "create", "--group", "lab"]).ok();
    let listed = controller.say(&["token", "list"]).ok();
    assert!(listed.contains("join lab"), "{listed}");
    let agent = Agent::new();
    agent.enrol(&controller.address, token.trim()).ok();
    assert_eq!(controller.machines()[0].groups, ["lab"]);
}
