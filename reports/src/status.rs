//! How a controller and how an agent is doing.

use muster_proto::{AgentStatus, ControllerStatus, Timestamp};

use crate::age::date_and_age;
use crate::layout::{Facts, count, known, plain, sentence, toned};
use crate::observed::deployments_table;
use crate::style::{Style, Tone};

/// The controller, and what waits for its operator.
pub fn status_page(status: &ControllerStatus, now: Timestamp, style: &Style) -> String {
    let ControllerStatus {
        version,
        protocol,
        started_at,
        data_dir,
        listen,
        ca_fingerprint,
        machines,
        machines_online,
        machines_pending,
        models,
        blob_bytes,
        deployments_success,
        deployments,
    } = status;
    let mut facts = Facts::new(style);
    facts
        .add("controller", plain(format!("{version}, protocol {protocol}")))
        .add("started", plain(date_and_age(*started_at, now)))
        .add("listens on", plain(listen))
        .add("data", plain(data_dir))
        .add("CA", plain(format!("sha256:{}", &ca_fingerprint.hex()[..12])))
        .add("machines", plain(format!("{machines}, {machines_online} online, {machines_pending} pending")))
        .add("models", plain(format!("{models}, {blob_bytes} on disk")))
        .add(
            "deployments",
            toned(
                format!("{deployments_success} of {deployments} run"),
                if deployments_success == deployments { Tone::Good } else { Tone::Waiting },
            ),
        );
    let mut page = facts.render();
    let mut next = |text: String| page += &sentence(text, Tone::Waiting, style);
    if *machines == 0 {
        next("next: `muster token create`, and `muster-agent enrol` with the token on a desk".into());
    }
    if *machines_pending > 0 {
        let waiting = count(*machines_pending as usize, "machine waits", "machines wait");
        next(format!("next: {waiting} for you, see `muster machines list` and `muster machines accept NAME`"));
    }
    if *models == 0 {
        next("next: `muster models import FILE` or `muster models import --bundled`".into());
    }
    page
}

/// The agent on this desk.
pub fn agent_status_page(status: &AgentStatus, style: &Style) -> String {
    let AgentStatus { machine_id, controller, online, last_error, generation, endpoint, observed } = status;
    let Some(machine_id) = machine_id else {
        let hint = "not enrolled yet: ask the operator for a token, then run `muster-agent enrol --controller HOST:PORT \
                    --token TOKEN`";
        let mut page = sentence(hint, Tone::Waiting, style);
        if let Some(error) = last_error {
            page += &sentence(format!("last attempt: {error}"), Tone::Bad, style);
        }
        return page;
    };
    let mut facts = Facts::new(style);
    facts
        .add("machine", plain(machine_id.to_string()))
        .add("controller", known(controller.as_ref()))
        .add("stream", if *online { toned("online", Tone::Good) } else { toned("offline", Tone::Waiting) });
    if let Some(error) = last_error {
        facts.add("last error", toned(error, Tone::Bad));
    }
    facts.add("endpoint", known(endpoint.as_ref()));
    facts.add("generation", plain(generation.to_string()));
    if let Some(observed) = observed {
        facts.add("store", plain(format!("{} of model files", observed.store_used)));
    }
    let deployments = observed.as_ref().map_or(&[][..], |observed| &observed.deployments);
    facts.render() + "\n" + &deployments_table(deployments, style)
}
