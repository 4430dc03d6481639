//! `muster-agent enrol`.

use std::process::ExitCode;

use muster_engine::host::StateDir;
use serde_json::json;

use super::Context;
use super::args::EnrolArgs;
use crate::connect::{Dialer, ProxySettings};
use crate::enrol::{Enrolled, enrol};
use crate::state;

/// Enrols this machine.
pub async fn run(context: Context, args: EnrolArgs) -> anyhow::Result<ExitCode> {
    let Context { paths, file, output } = context;
    let _state = StateDir::open(paths.root(), state::FORMAT)?;
    let proxy =
        ProxySettings { proxy: args.proxy.proxy.or(file.proxy), no_proxy: args.proxy.no_proxy.or(file.no_proxy) };
    let dialer = Dialer::new(args.controller.clone(), &proxy);
    let enrolled = enrol(&paths, &dialer, &args.token, args.wait, |machine| {
        eprintln!("machine {machine} waits for the operator: `muster machines accept {machine}`");
    })
    .await?;
    let (state, machine, expires_at) = match enrolled {
        Enrolled::Accepted { machine, expires_at } => ("accepted", machine, Some(expires_at)),
        Enrolled::Pending { machine } => ("pending", machine, None),
    };
    let value = json!({ "machine_id": machine, "state": state, "certificate_expires_at": expires_at });
    output.show(&value, |_| match enrolled {
        Enrolled::Accepted { machine, .. } => {
            format!("enrolled as machine {machine}\nnext: `muster-agent run`\n")
        }
        Enrolled::Pending { machine } => format!(
            "machine {machine} waits for the operator's word (`muster machines accept {machine}`)\n\
             next: repeat this command with the same token, or add --wait\n"
        ),
    })?;
    Ok(ExitCode::SUCCESS)
}
