//! Muster's agent: one on each desk.
//!
//! It finds out what the desk is ([`probe`], [`survey`], [`typical`]), keeps one stream to the controller ([`uplink`]), holds what the
//! desk should run on its [`ledger`], brings it there ([`reconcile`], [`install`], [`supervisor`]), and answers locally
//! ([`endpoint`]) with the controller there or not. Entry points: [`app::App`] for the daemon, [`cli::run`] for the
//! program.

pub mod address;
pub mod app;
mod backoff;
pub mod bench;
pub mod cli;
mod clock;
pub mod config;
pub mod connect;
pub mod control;
mod cpu_time;
pub mod endpoint;
pub mod enrol;
pub mod identity;
pub mod install;
pub mod ledger;
mod measured;
mod metrics;
mod news;
pub mod probe;
pub mod reconcile;
mod renew;
pub mod roots;
pub mod serving;
mod signs;
pub mod state;
pub mod supervisor;
pub mod survey;
mod tls;
pub mod typical;
pub mod uplink;

/// The error and its causes in one line. A cause that only repeats what was said is left out.
pub(crate) fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !said.is_empty() && !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
