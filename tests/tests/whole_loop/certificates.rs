//! Certificates: taken back, of another CA, renewed, expired.

use std::fs;
use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use muster_engine::bundled::NAME;
use muster_proto::{EnrolmentState, Model, Timestamp};
use muster_tests::{Agent, Controller, Identity, Interceptor, PATIENCE, Relay, Request, user, wait_for};

/// How long a revoked machine may still be connected.
const CUT_OFF: Duration = Duration::from_secs(5);

fn blob_of(model: &Model) -> Request {
    Request::get(&format!("/v1/blobs/sha256/{}", model.artifacts[0].digest.hex())).header("range", "bytes=0-99")
}

/// The status of a reply, or `None` if the controller did not even complete the handshake.
fn status(reply: io::Result<muster_tests::Reply>) -> Option<u16> {
    reply.ok().map(|reply| reply.status)
}

#[test]
fn a_revoked_machine_is_cut_off_at_once() {
    let controller = Controller::start();
    let model = controller.import_bundled("");
    controller.want(NAME, 1024);
    let agent = Agent::start(&controller);
    let id = agent.id();
    controller.wait_success(id, NAME);
    let identity = Identity::of_agent(&agent.state());
    assert_eq!(status(identity.send(&controller.address, &blob_of(&model))), Some(206));
    assert!(matches!(status(identity.anonymous().send(&controller.address, &blob_of(&model))), Some(401 | 403)));

    let revoked = Instant::now();
    controller.say(&["machines", "revoke", &id.to_string()]).ok();
    let machine = controller.wait_online(id, false, CUT_OFF);
    assert!(revoked.elapsed() < CUT_OFF);
    assert_eq!(machine.enrolment, EnrolmentState::Revoked);
    assert!(matches!(status(identity.send(&controller.address, &blob_of(&model))), None | Some(401 | 403)));
    agent.wait_status("that knows of it", |status| {
        status["online"] == false && status["last_error"].as_str().is_some_and(|error| error.contains("revoked"))
    });
    // It does not come back, neither by itself nor by enrolling with a token that was used.
    let event = controller.wait_event("machine.revoked");
    assert_eq!(event.actor, "local");
    assert!(!controller.machine(id).online);
}

#[test]
fn a_certificate_of_another_ca_is_nothing() {
    let (ours, theirs) = (Controller::start(), Controller::start());
    let model = ours.import_bundled("");
    let agent = Agent::start(&ours);
    let stranger = Agent::start(&theirs);
    let our_ca = Identity::of_agent(&agent.state()).ca;
    let posing = Identity::of_agent(&stranger.state()).believing(our_ca);
    assert!(matches!(status(posing.send(&ours.address, &blob_of(&model))), None | Some(401 | 403)));
    // The same request by the same code is answered where the certificate belongs: 404 is about the digest.
    assert_eq!(status(Identity::of_agent(&stranger.state()).send(&theirs.address, &blob_of(&model))), Some(404));
    assert_eq!(status(Identity::of_agent(&agent.state()).send(&ours.address, &blob_of(&model))), Some(404));
}

#[test]
fn an_agent_believes_only_its_own_controller() {
    let (ours, theirs) = (Controller::start(), Controller::start());
    let relay = Relay::to(&ours.address);
    let mut agent = Agent::new().start_at(&ours, &relay.address.to_string());
    agent.terminate();
    relay.point_at(&theirs.address);
    agent.restart();
    agent.wait_status("that refused the other controller", |status| {
        status["online"] == false && status["last_error"].as_str().is_some_and(|error| error.contains("certificate"))
    });
    assert_eq!(theirs.machines(), []);
    relay.point_at(&ours.address);
    ours.wait_online(agent.id(), true, PATIENCE);
}

/// Runs an enrolled agent that reaches its controller only through the interceptor; returns what it says of it.
fn seen_through(agent: Agent, interceptor: &Interceptor) -> String {
    let mut agent = agent.variable("HTTPS_PROXY", &format!("http://{}", interceptor.address));
    agent.restart();
    let status = agent.wait_status("that gave its reason", |status| status["last_error"].is_string());
    assert_eq!(status["online"], false, "{status}");
    assert_eq!(interceptor.received(), b"", "it talked to somebody whom it should not believe");
    status["last_error"].as_str().expect("a reason").to_owned()
}

fn enrolled(controller: &Controller) -> Agent {
    let agent = Agent::new();
    agent.enrol(&controller.address, &controller.token(&[])).ok();
    agent
}

#[test]
fn a_wrong_clock_is_said_with_both_times() {
    let controller = Controller::start();
    let (now, day) = (SystemTime::now(), Duration::from_hours(24));
    let date = |time: SystemTime| Timestamp::from(time).to_string()[..10].to_owned();
    for (from, until, other) in
        [(now - 90 * day, now - 60 * day, now - 60 * day), (now + 30 * day, now + 60 * day, now + 30 * day)]
    {
        let agent = enrolled(&controller);
        let interceptor = Interceptor::of_another_time(&controller, Identity::of_agent(&agent.state()), from, until);
        let error = seen_through(agent, &interceptor);
        assert!(error.contains("clock") && error.contains(&date(now)) && error.contains(&date(other)), "{error}");
    }
}

#[test]
fn an_agents_certificate_cannot_pose_as_the_controller() {
    let controller = Controller::start();
    let (agent, other) = (enrolled(&controller), enrolled(&controller));
    let other = Identity::of_agent(&other.state());
    let interceptor = Interceptor::as_a_machine(&controller, Identity::of_agent(&agent.state()), &other);
    let error = seen_through(agent, &interceptor);
    assert!(error.contains("not the controller"), "{error}");
    // The same way with the right certificate leads to the controller: it is the certificate that was refused.
    let agent = enrolled(&controller);
    let interceptor = Interceptor::between(&controller, Identity::of_agent(&agent.state()));
    let mut agent = agent.variable("HTTPS_PROXY", &format!("http://{}", interceptor.address));
    agent.restart();
    controller.wait_online(agent.id(), true, PATIENCE);
}

#[test]
fn certificates_renew_at_half_life_and_the_stream_goes_on() {
    let controller = Controller::start_with(&["--certificate-lifetime", "6s"]);
    let agent = Agent::start(&controller);
    let id = agent.id();
    let path = agent.state().join("certificate.pem");
    let mut seen = vec![fs::read(&path).expect("a certificate")];
    wait_for("three renewals", PATIENCE, || {
        assert!(controller.machine(id).online, "the stream dropped after {} certificates", seen.len());
        let now = fs::read(&path).expect("a certificate");
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        if seen.len() >= 4 { Ok(()) } else { Err(format!("{} certificates", seen.len())) }
    });
    let events = controller.events();
    let connected = events.iter().filter(|event| event.action == "machine.connected").count();
    assert_eq!(connected, 1, "the stream was opened again: {events:?}");
}

#[test]
fn an_expired_certificate_renews_by_proof_of_its_key() {
    let mut controller = Controller::start_with(&["--certificate-lifetime", "2s"]);
    controller.import_bundled("");
    controller.want(NAME, 1024);
    let mut agent = Agent::start(&controller);
    let id = agent.id();
    controller.wait_success(id, NAME);
    agent.terminate();
    let old = Identity::of_agent(&agent.state());
    wait_for("the certificate to expire", PATIENCE, || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let left = old.expires_at() + 1 - i64::try_from(now).expect("a date of our time");
        if left < 0 { Ok(()) } else { Err(format!("{left} s are left")) }
    });
    assert_eq!(
        status(old.send(&controller.address, &Request::get("/v1/blobs/sha256/00"))),
        None,
        "it should be refused"
    );
    controller.kill9();
    controller.restart_with(&[]);
    agent.restart();
    controller.wait_online(id, true, PATIENCE);
    assert!(Identity::of_agent(&agent.state()).expires_at() > old.expires_at() + 3600);
    assert_eq!(agent.endpoint().ask(NAME, &user(crate::QUESTION.0)).content, crate::QUESTION.1);

    // Revoked while it is away: the same proof is worth nothing.
    agent.terminate();
    controller.say(&["machines", "revoke", &id.to_string()]).ok();
    agent.restart();
    agent.wait_status("that was refused", |status| {
        status["online"] == false && status["last_error"].as_str().is_some_and(|error| error.contains("revoked"))
    });
}
