//! `muster-agent run`.

use std::io::Write as _;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::args::RunArgs;
use crate::app::App;
use crate::config::Config;

/// Runs the daemon until SIGINT or SIGTERM.
pub async fn run(context: Context, flags: RunArgs) -> anyhow::Result<ExitCode> {
    let settings = flags.into_settings().over(context.file);
    let config = Config::new(context.paths, settings)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let app = App::build(config).await?;
    // The one line that others wait for.
    println!("endpoint http://{}/v1", app.endpoint());
    std::io::stdout().flush()?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let mut running = std::pin::pin!(app.run(shutdown));
    loop {
        // Cancel-safe: signals are kept, and the daemon is only polled.
        tokio::select! {
            result = &mut running => {
                result?;
                return Ok(ExitCode::SUCCESS);
            }
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.is_cancelled() {
            // Asked twice: the kernel ends the workers with us.
            return Ok(ExitCode::FAILURE);
        }
        tracing::info!("stopping");
        stop.cancel();
    }
}
