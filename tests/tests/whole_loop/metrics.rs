//! Figures for Prometheus, of both programs.
#![expect(clippy::float_cmp, reason = "what is compared are counts")]

use muster_engine::bundled::NAME;
use muster_tests::{Agent, Controller, Metrics, PATIENCE, Request, send, user, wait_for};
use serde_json::json;

#[test]
fn both_programs_tell_their_figures_and_no_more() {
    let mut controller = Controller::start_with(&["--metrics-listen", "127.0.0.1:0"]);
    let address = controller.metrics();
    controller.import_bundled("");
    controller.want(NAME, 1024);
    let agent = Agent::start(&controller);
    controller.wait_success(agent.id(), NAME);
    let endpoint = agent.endpoint();
    let (question, _) = crate::QUESTION;
    let first = endpoint.ask(NAME, &user(question));
    let second = endpoint.ask_streamed(NAME, &user(question));
    endpoint.chat(&json!({"model": "no-such-model", "messages": user("Hello")}));
    endpoint.chat(&json!({"model": NAME, "messages": user(&"word ".repeat(3000))}));

    let desk = Metrics::scrape(endpoint.address());
    let of = |name: &str| desk.value(&format!("{name}{{model=\"{NAME}\"}}"));
    let ended = |model: &str, outcome: &str| {
        desk.value(&format!("muster_agent_requests_total{{model=\"{model}\",outcome=\"{outcome}\"}}"))
    };
    assert_eq!((ended(NAME, "answered"), ended(NAME, "refused"), ended("none", "refused")), (2.0, 1.0, 1.0));
    let generated = f64::from(u32::try_from(first.usage.1 + second.usage.1).expect("few"));
    assert_eq!(of("muster_agent_generated_tokens_total"), generated);
    assert_eq!(of("muster_agent_decode_tokens_per_second_count"), 2.0);
    assert_eq!(of("muster_agent_model_loaded"), 1.0);
    assert_eq!(desk.value("muster_agent_connected"), 1.0);
    assert!(desk.value("muster_agent_generation") >= 1.0);
    let (available, total) =
        (desk.value("muster_agent_memory_available_bytes"), desk.value("muster_agent_memory_total_bytes"));
    assert!(0.0 < available && available <= total, "{available} of {total}");
    assert!(desk.value("muster_agent_store_used_bytes") > 0.0);
    assert!(!desk.text.contains("no-such-model"), "a name that a client made up is a label");

    // The controller's are read every few seconds.
    let fleet = wait_for("the deployment among the figures", PATIENCE, || {
        let fleet = Metrics::scrape(&address);
        let success = fleet.get("muster_controller_deployments{state=\"success\"}");
        if success == Some(1.0) { Ok(fleet) } else { Err(fleet.text) }
    });
    assert_eq!(fleet.value("muster_controller_machines{state=\"accepted\"}"), 1.0);
    assert_eq!(fleet.value("muster_controller_machines_online"), 1.0);
    assert_eq!(fleet.value("muster_controller_models"), 1.0);
    assert!(fleet.value("muster_controller_blob_bytes") > 0.0);
    assert!(fleet.value("muster_controller_plan_seconds_count") >= 1.0);
    assert!(fleet.value("muster_controller_rpcs_total{code=\"Ok\",rpc=\"AgentLink/Link\"}") >= 1.0);
    let age = fleet.value("muster_controller_inventory_age_max_seconds");
    assert!(age < 3600.0, "{age}");
    let id = agent.id().to_string();
    assert!(!fleet.text.contains(&id) && !fleet.text.contains(&id[..8]), "a machine is a label");

    // Not for web pages, and nothing else is there.
    for address in [address.as_str(), endpoint.address()] {
        let page = send(address, &Request::get("/metrics").header("host", "evil.example")).expect("an answer");
        assert_eq!(page.status, 403, "{address}");
    }
    for path in ["/", "/muster.v1.Admin/GetStatus"] {
        assert_eq!(send(&address, &Request::get(path)).expect("an answer").status, 404, "{path}");
    }
}
