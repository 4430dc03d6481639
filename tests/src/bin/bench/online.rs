//! From `muster-agent run` to online, by the controller's audit log: both read one clock here.

use std::time::SystemTime;

use muster_proto::Timestamp;
use muster_tests::{Agent, Controller, PATIENCE, wait_for};

use crate::{Figure, median};

/// What was asked for.
const WANTED_MS: f64 = 1000.0;

pub fn measure(rounds: usize) -> Vec<Figure> {
    let controller = Controller::start();
    let mut agent = Agent::new();
    agent.enrol(&controller.address, &controller.token(&[])).ok();
    let samples: Vec<f64> = (0..rounds)
        .map(|_| {
            let started = Timestamp::from(SystemTime::now());
            agent.restart();
            let online = wait_for("the machine to connect", PATIENCE, || {
                let events = controller.events();
                let mut connected =
                    events.iter().filter(|event| event.action == "machine.connected" && event.at >= started);
                connected.next().map(|event| event.at).ok_or("no event")
            });
            agent.terminate();
            controller.wait_online(agent.id(), false, PATIENCE);
            online.since(started).as_secs_f64() * 1000.0
        })
        .collect();
    let all = samples.iter().map(|sample| format!("{sample:.0}")).collect::<Vec<_>>().join(", ");
    let middle = median(samples);
    let value = format!("{middle:.0} ms (median of {all})");
    vec![Figure::new("`muster-agent run` to online", value, "≤ 1 s", Some(middle <= WANTED_MS))]
}
