//! The whole loop: real controllers and real agents over real TLS, with faults put in.
//!
//! One program with many tests, so that it links once. Each test has its own controller, agents, folders and ports.

mod answers;
mod benches;
mod certificates;
mod duplicates;
mod enrolment;
mod estimates;
mod full_disk;
mod imports;
mod metrics;
mod operators;
mod outages;
mod privacy;
mod proxies;
mod readiness;
mod stops;
mod transfers;
mod workers;

use muster_engine::bundled::NAME;
use muster_tests::{Agent, Controller};

/// A controller and a desk that answers with the bundled model.
fn desk() -> (Controller, Agent) {
    let controller = Controller::start();
    controller.import_bundled("");
    controller.want(NAME, 1024);
    let agent = Agent::start(&controller);
    controller.wait_success(agent.id(), NAME);
    (controller, agent)
}

/// A question that the bundled model answers in every quantization, and its answer.
const QUESTION: (&str, &str) = ("What is the capital of Ukraine?", "The capital of Ukraine is Kyiv.");
