//! A desk that reaches its controller only through an HTTP proxy.

use muster_engine::bundled::NAME;
use muster_tests::{Agent, ConnectProxy, Controller, PATIENCE, user};

#[test]
fn an_agent_works_through_a_connect_proxy() {
    let controller = Controller::start();
    controller.import_bundled("");
    controller.want(NAME, 1024);
    let proxy = ConnectProxy::to(&controller.address);
    let mut agent = Agent::new().variable("HTTPS_PROXY", &format!("http://desk:secret@{}", proxy.address));
    // A name that nobody but the proxy can resolve: without it, nothing would connect.
    agent.enrol("controller.invalid:7433", &controller.token(&[])).ok();
    agent.restart();
    let id = agent.id();
    controller.wait_online(id, true, PATIENCE);
    controller.wait_success(id, NAME);
    assert_eq!(agent.endpoint().ask(NAME, &user(crate::QUESTION.0)).content, crate::QUESTION.1);
    let asked = proxy.asked();
    assert!(asked.len() >= 3, "enrolment, stream and download: {asked:?}");
    for request in &asked {
        assert!(request.starts_with("CONNECT controller.invalid:7433 HTTP/1.1"), "{request}");
        assert!(request.to_ascii_lowercase().contains("proxy-authorization: basic zgvzazpzzwnyzxq="), "{request}");
    }
    assert!(!agent.process().log().contains("secret"), "the proxy's password is in the log");
}

#[test]
fn no_proxy_goes_straight() {
    let controller = Controller::start();
    let proxy = ConnectProxy::to(&controller.address);
    let mut agent = Agent::new()
        .variable("HTTPS_PROXY", &format!("http://{}", proxy.address))
        .variable("NO_PROXY", "localhost,127.0.0.1");
    agent.enrol(&controller.address, &controller.token(&[])).ok();
    agent.restart();
    controller.wait_online(agent.id(), true, PATIENCE);
    assert_eq!(proxy.asked(), Vec::<String>::new());
}
