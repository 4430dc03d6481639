//! Benchmarks that an operator orders, from the word to the result.

use muster_proto::{BenchOrderState, Machine};
use muster_tests::{Agent, Controller, PATIENCE, wait_for};
use serde_json::Value;

/// What `muster bench … --json` printed.
#[track_caller]
fn results(out: &str) -> Vec<Value> {
    serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}:\n{out}"))
}

#[test]
fn an_order_reaches_the_desk_and_its_result_comes_back() {
    let controller = Controller::start();
    let agent = Agent::start(&controller);
    let id = agent.id().to_string();
    assert!(controller.json::<Machine>(&["machines", "show", &id]).benchmark.is_none(), "measured without being asked");
    let said = controller.say(&["bench", &id, "--quick", "--wait", "--json"]);
    let progress = said.err.clone();
    let results = results(&said.ok());
    assert_eq!(results.len(), 1, "{results:?}");
    assert_eq!((&results[0]["order"]["state"], &results[0]["order"]["kind"]), (&"done".into(), &"quick".into()));
    assert_eq!(results[0]["order"]["ordered_by"], "local");
    let points = results[0]["benchmark"]["points"].as_array().expect("points");
    assert!(points.iter().all(|point| point["decode"]["median"].as_f64() > Some(0.0)) && !points.is_empty());
    assert!(progress.contains("running"), "no progress was shown: {progress}");
    // The store has the same, and the page says nothing of an order that is done.
    let machine: Machine = controller.json(&["machines", "show", &id]);
    assert_eq!(machine.bench_order.map(|order| order.state), Some(BenchOrderState::Done));
    assert_eq!(machine.benchmark.expect("a benchmark").points.len(), points.len());
    for (action, actor) in [("bench.ordered", "local".to_owned()), ("bench.done", format!("machine:{id}"))] {
        assert_eq!(controller.wait_event(action).actor, actor);
    }
}

#[test]
fn an_order_waits_for_its_machine_and_a_second_one_joins_it() {
    let mut controller = Controller::start();
    let mut agent = Agent::start(&controller);
    let id = agent.id();
    agent.terminate();
    controller.wait_online(id, false, PATIENCE);
    let first = results(&controller.say(&["bench", "--all", "--quick", "--json"]).ok());
    assert_eq!(first[0]["order"]["state"], "waiting");
    let second = results(&controller.say(&["bench", &id.to_string(), "--quick", "--json"]).ok());
    assert_eq!(second[0]["order"]["id"], first[0]["order"]["id"], "it did not join");
    let page = controller.say(&["machines", "show", &id.to_string()]).ok();
    assert!(page.contains("waits for the machine"), "{page}");
    // It outlives the controller too.
    controller.terminate();
    controller.restart();
    agent.restart();
    wait_for("the result", PATIENCE, || {
        let machine: Machine = controller.machine(id);
        let done = machine.bench_order.as_ref().is_some_and(|order| order.state == BenchOrderState::Done);
        if done && machine.benchmark.is_some() { Ok(()) } else { Err(format!("{:?}", machine.bench_order)) }
    });
    assert_eq!(controller.machine(id).bench_order.expect("one").id.to_string(), first[0]["order"]["id"]);
}

#[test]
fn orders_for_nobody_are_refused() {
    let controller = Controller::start();
    for (arguments, code) in [
        (&["bench"][..], 2),
        (&["bench", "desk", "--all"], 2),
        (&["bench", "desk", "--quick", "--full"], 2),
        (&["bench", "no-such-machine"], 1),
        (&["bench", "--group", "nobody"], 1),
    ] {
        let said = controller.say(arguments);
        assert_eq!(said.code, Some(code), "{arguments:?}: {said:?}");
    }
    assert_eq!(results(&controller.say(&["bench", "--all", "--json"]).ok()).len(), 0);
}
