//! `muster-agent status`.

use std::io;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use muster_proto::AgentStatus;
use muster_reports::agent_status_page;

use super::Context;
use crate::control::{self, Reply, Request};
use crate::identity::Identity;
use crate::ledger::Ledger;

/// Shows how the running agent is doing; what is on disk if none runs.
pub async fn run(context: &Context) -> anyhow::Result<ExitCode> {
    match ask(context, Request::Status).await {
        Ok(Reply::Status(status)) => {
            context.output.show(&status, |style| agent_status_page(&status, style))?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(Reply::Failed { reason }) => bail!(reason),
        Ok(_) => bail!("the agent answered something else than was asked"),
        Err(_) => {
            let status = at_rest(context);
            context.output.show(&status, |style| agent_status_page(&status, style))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Asks the running agent.
pub async fn ask(context: &Context, request: Request) -> anyhow::Result<Reply> {
    let path = context.paths.control_socket();
    match control::ask(&path, request, |_, _| {}).await {
        Ok(reply) => Ok(reply),
        Err(error) if no_agent(&error) => Err(anyhow::anyhow!(
            "no agent runs on {}: start it with `muster-agent run`",
            context.paths.root().display()
        )),
        Err(error) => Err(error).with_context(|| format!("cannot ask the agent on {}", context.paths.root().display())),
    }
}

/// Whether nobody listens on the socket.
pub fn no_agent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn at_rest(context: &Context) -> AgentStatus {
    let known = Identity::glance(&context.paths).ok().flatten();
    AgentStatus {
        machine_id: known.as_ref().map(|(machine, _)| *machine),
        controller: known.as_ref().map(|(_, controller)| controller.to_string()),
        online: false,
        last_error: known.is_some().then(|| "the agent is not running: start it with `muster-agent run`".to_owned()),
        generation: glance_at_ledger(context),
        endpoint: None,
        observed: None,
    }
}

/// The generation on disk. Only read where there is one: opening a damaged ledger would move it aside.
fn glance_at_ledger(context: &Context) -> u64 {
    Ledger::glance(&context.paths.ledger()).map_or(0, |held| held.state.generation)
}
