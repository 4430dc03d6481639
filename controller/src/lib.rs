//! The centre: enrols machines, keeps the catalog of models, decides what each machine runs, and serves it.
//!
//! Overview: [`app`] builds everything from a [`ServeConfig`] and runs it; `listen` accepts connections and `identity`
//! decides what each may do; `rpc` are thin handlers over [`enrol`], `catalog`, `links` and [`store`]; `replan` is the
//! one task that turns policy, catalog and inventories into desired states by the pure [`mod@plan`] and
//! [`mod@check`]; [`cli`] is the operator's command line. It never sees the agent's crate: both know only the contract.

pub mod app;
mod benches;
mod blobs;
pub mod ca;
mod catalog;
mod catalog_quality;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
mod crowd;
pub mod desired;
pub mod enrol;
mod identity;
mod links;
mod listen;
mod metrics;
mod pace;
pub mod plan;
mod replan;
mod rpc;
mod sizing;
pub mod store;

pub use app::{App, BuildError, RunError};
pub use clock::Clock;
pub use config::ServeConfig;
pub use listen::ReceivedTap;

/// An error and its causes in one line, as logs and peers see it.
pub(crate) fn error_chain<E: std::error::Error + ?Sized>(error: &E) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors repeat their cause in their own words.
        if !words.ends_with(&next) {
            words.push_str(": ");
            words.push_str(&next);
        }
        cause = error.source();
    }
    words
}
