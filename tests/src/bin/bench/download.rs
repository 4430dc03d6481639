//! A download over mutual TLS on loopback: the agent's, which checks the digest as it comes, against `curl` followed by
//! `sha256sum`, with the same certificate, URL and disk, in turns.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use muster_proto::{Bytes, Model};
use muster_tests::{Agent, Controller, random_model, say, wait_for};

use crate::{Figure, median};

/// For one download.
const PATIENCE: Duration = Duration::from_mins(10);

pub fn measure(size: Bytes, rounds: usize) -> Vec<Figure> {
    let controller = Controller::start();
    let file = controller.scratch("big.gguf");
    random_model(&file, size, 11);
    let model = controller.import(&file, "big");
    fs::remove_file(&file).expect("our own file");
    let mut agent = Agent::start(&controller);
    controller.want("big", 512);
    let store = agent.state().join("models");
    let hex = model.artifacts[0].digest.hex();
    let whole = store.join(format!("sha256-{hex}.gguf"));
    let part = store.join(format!("{hex}.part"));
    // The first download only makes the machine entitled to the file.
    wait_for("a first download", PATIENCE, || if whole.exists() { Ok(()) } else { Err("not here") });
    agent.kill9();

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds * 2 {
        fs::remove_file(&whole).unwrap_or_default();
        if round % 2 == 0 {
            theirs.push(curl(&controller, &agent, &model, &whole));
        } else {
            agent.restart();
            wait_for("the download to start", PATIENCE, || if part.exists() { Ok(()) } else { Err("not yet") });
            let started = Instant::now();
            wait_for("the download", PATIENCE, || if whole.exists() { Ok(()) } else { Err("not whole") });
            ours.push(started.elapsed().as_secs_f64());
            agent.kill9();
        }
    }
    let bytes = model.artifacts[0].size.get() as f64;
    let speed = |seconds: f64| format!("{:.2} s, {:.0} MB/s", seconds, bytes / seconds / 1e6);
    let (curl, both): (Vec<f64>, Vec<f64>) = theirs.into_iter().unzip();
    let (ours, curl, theirs) = (median(ours), median(curl), median(both));
    let ratio = theirs / ours;
    let of = format!("{} (median of {rounds})", model.artifacts[0].size);
    vec![
        Figure::new(format!("agent: download, digest, fsync, rename of {of}"), speed(ours), "", None),
        Figure::new(format!("`curl` alone, digest not checked, of {of}"), speed(curl), "", None),
        Figure::new(format!("`curl`, then `sha256sum`, of {of}"), speed(theirs), "", None),
        Figure::new("agent's speed in terms of theirs", format!("{ratio:.2} ×"), "≥ 0.8 ×", Some(ratio >= 0.8)),
    ]
}

/// Seconds that curl, and curl and sha256sum together, take for the same file with the agent's certificate.
fn curl(controller: &Controller, agent: &Agent, model: &Model, target: &Path) -> (f64, f64) {
    let port = controller.address.rsplit(':').next().expect("a port");
    let hex = model.artifacts[0].digest.hex();
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--http1.1", "--noproxy", "*"]);
    command.arg("--resolve").arg(format!("controller.muster:{port}:127.0.0.1"));
    for (option, name) in [("--cert", "certificate.pem"), ("--key", "key.pem"), ("--cacert", "ca.pem")] {
        command.arg(option).arg(agent.state().join(name));
    }
    command.arg("--output").arg(target).arg(format!("https://controller.muster:{port}/v1/blobs/sha256/{hex}"));
    let started = Instant::now();
    say(&mut command, PATIENCE).ok();
    let downloaded = started.elapsed().as_secs_f64();
    let sum = say(Command::new("sha256sum").arg(target), PATIENCE).ok();
    let took = started.elapsed().as_secs_f64();
    assert!(sum.starts_with(&hex), "{sum}");
    (downloaded, took)
}
