//! `muster serve`.

use std::io::{IsTerminal as _, Write as _};

use muster_engine::worker::WorkerCommand;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::args::{ColorChoice, Global, ServeArgs};
use super::{Failure, data};
use crate::app::App;
use crate::config::{ConfigFile, SHORTEST_CERTIFICATE_LIFETIME, ServeConfig};

fn config(global: &Global, arguments: &ServeArgs) -> Result<ServeConfig, Failure> {
    let data = data(global)?;
    let file = ConfigFile::read(global.config.as_deref(), &data).map_err(|error| Failure::of(&error))?;
    let worker = WorkerCommand::this_executable()
        .map_err(|error| Failure::new(format!("cannot find this program's own file: {error}")))?;
    let mut config = ServeConfig::new(data, worker);
    config.listen = arguments.listen.or(file.listen).unwrap_or(config.listen);
    let lifetime = arguments.certificate_lifetime.or(file.certificate_lifetime);
    config.certificate_lifetime = lifetime.map_or(config.certificate_lifetime, |written| written.0);
    let reserve = arguments.blob_reserve.or(file.blob_reserve);
    config.blob_reserve = reserve.map_or(config.blob_reserve, |written| written.0);
    config.max_connections = arguments.max_connections.or(file.max_connections).unwrap_or(config.max_connections);
    config.metrics_listen = arguments.metrics_listen.or(file.metrics_listen);
    if config.certificate_lifetime < SHORTEST_CERTIFICATE_LIFETIME {
        let shortest = SHORTEST_CERTIFICATE_LIFETIME.as_secs();
        return Err(Failure::usage(format!("certificates that last less than {shortest} s cannot be renewed in time")));
    }
    if !(1..=1_000_000).contains(&config.max_connections) {
        return Err(Failure::usage("the number of connections must be from 1 to 1000000"));
    }
    Ok(config)
}

pub(super) fn run(global: &Global, arguments: &ServeArgs) -> Result<(), Failure> {
    let color = match global.color {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => std::io::stderr().is_terminal(),
    };
    let filter = EnvFilter::try_from_env("MUSTER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(color).init();
    let config = config(global, arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    runtime.block_on(serve(config))
}

async fn serve(config: ServeConfig) -> Result<(), Failure> {
    // Before anything else, so that a signal while starting is not lost.
    let shutdown = stop_on_signal()?;
    let app = App::build(config).await.map_err(|error| Failure::of(&error))?;
    let mut stdout = std::io::stdout();
    let ready = writeln!(stdout, "listening on {}", app.address())
        .and_then(|()| app.metrics_address().map_or(Ok(()), |own| writeln!(stdout, "metrics on http://{own}/metrics")))
        .and_then(|()| stdout.flush());
    ready.map_err(|error| Failure::new(format!("cannot write to standard output: {error}")))?;
    tracing::info!(address = %app.address(), ca = %app.ca_fingerprint(), "the controller is up");
    app.run(shutdown).await.map_err(|error| Failure::of(&error))?;
    tracing::info!("the controller stopped");
    Ok(())
}

/// Cancelled by SIGTERM or SIGINT.
fn stop_on_signal() -> Result<CancellationToken, Failure> {
    let wait = |kind| signal(kind).map_err(|error| Failure::new(format!("cannot wait for signals: {error}")));
    let (mut terminate, mut interrupt) = (wait(SignalKind::terminate())?, wait(SignalKind::interrupt())?);
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        // Cancel-safe: `recv` loses no signal.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(shutdown)
}
