//! What a desk runs.

use std::time::Duration;

use muster_proto::{Deployment, DeploymentState, Measured, Observed, Transfer};

use crate::age::{date, span};
use crate::layout::{Facts, Grid, known, plain, sentence, toned};
use crate::style::{Style, Tone};

/// What a machine was last seen to run, how far everything is, and why something does not run.
pub fn observed_page(observed: &Observed, style: &Style) -> String {
    let Observed { at, generation, deployments, endpoint, store_used } = observed;
    let mut facts = Facts::new(style);
    facts
        .add("endpoint", known(endpoint.as_ref()))
        .add("generation", plain(generation.to_string()))
        .add("store", plain(format!("{store_used} of model files")))
        .add("seen", plain(date(*at)));
    facts.render() + "\n" + &deployments_table(deployments, style)
}

pub(crate) fn deployments_table(deployments: &[Deployment], style: &Style) -> String {
    if deployments.is_empty() {
        let hint = "nothing is to run here: the operator says what with `muster policy apply FILE`";
        return sentence(hint, Tone::Quiet, style);
    }
    let mut grid = Grid::new(style, &["MODEL", "STATE", "DETAIL"]).whole(&[1]);
    for deployment in deployments {
        grid.row(vec![plain(&deployment.model), state_cell(deployment.state), plain(detail(deployment))]);
    }
    grid.render()
}

pub(crate) fn state_cell(state: DeploymentState) -> comfy_table::Cell {
    toned(state.to_string().replace('_', " "), state_tone(state))
}

pub(crate) const fn state_tone(state: DeploymentState) -> Tone {
    match state {
        DeploymentState::Success | DeploymentState::AlreadyInstalled => Tone::Good,
        DeploymentState::Failure | DeploymentState::NoArtifact => Tone::Bad,
        DeploymentState::Downloading | DeploymentState::Verifying | DeploymentState::Installing => Tone::Waiting,
        _ => Tone::Quiet,
    }
}

/// What matters most in that state: the reason, then the download while it runs, then what was measured.
fn detail(deployment: &Deployment) -> String {
    let Deployment { assignment: _, digest, model: _, state, reason, transfer, measured } = deployment;
    let mut parts = Vec::new();
    parts.extend(reason.clone());
    parts.extend(transfer.as_ref().map(|transfer| download(*transfer, *state)));
    parts.extend(measured.as_ref().map(what_was_measured));
    if parts.is_empty() { format!("sha256:{}", digest.short()) } else { parts.join("\n") }
}

/// `1.2 GiB of 4.6 GiB (26 %), 110.0 MiB/s, 100.0 MiB kept from before`.
fn download(transfer: Transfer, state: DeploymentState) -> String {
    let Transfer { total, done, resumed_from, speed } = transfer;
    let progress = if done >= total && state != DeploymentState::Downloading {
        format!("downloaded {total}")
    } else {
        let percent = (done.get() as f64 / total.get().max(1) as f64 * 100.0).floor().min(100.0);
        format!("{done} of {total} ({percent:.0} %)")
    };
    let speed = speed.map(|speed| speed.to_string());
    let kept = (resumed_from.get() > 0).then(|| format!("{resumed_from} kept from before"));
    [Some(progress), speed, kept].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn what_was_measured(measured: &Measured) -> String {
    let Measured { memory, resident: _, load_ms, prefill: _, decode } = measured;
    let takes = format!("takes {}, loaded in {}", memory.total(), span(Duration::from_millis(*load_ms)));
    match decode {
        Some(decode) => format!("{takes}, {decode}"),
        None => takes,
    }
}
