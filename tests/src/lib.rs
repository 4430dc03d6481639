//! The harness of the whole loop: real controllers and agents as child processes, and what tests need around them.
//!
//! It knows both programs only by their command lines, their state directories and what they say on the network.
//! Every wait has a deadline and says, when it passes, what was seen last; a failing test prints the end of each log.
//!
//! Entry points: [`Controller::start`], [`Agent::start`], [`wait_for`].
#![allow(clippy::missing_panics_doc, reason = "a harness fails by panicking: that is how a test says so")]

mod agent;
mod binaries;
mod controller;
mod endpoint;
mod facts;
pub mod fleet;
mod gguf;
mod http;
mod identity;
mod interceptor;
mod metrics;
mod process;
mod proxy;
mod relay;
mod surroundings;
mod wait;

pub use agent::{Agent, copy_folder};
pub use binaries::{Binaries, beside_this_program, binaries};
pub use controller::Controller;
pub use endpoint::{Answer, Endpoint, user};
pub use facts::{Fact, facts, right_facts};
pub use gguf::{corrupt, malformed, random_model};
pub use http::{Events, Reply, Request, send, send_over};
pub use identity::{CONTROLLER_NAME, Identity};
pub use interceptor::Interceptor;
pub use metrics::Metrics;
pub use process::{Process, Said, children, say, try_say};
pub use proxy::ConnectProxy;
pub use relay::Relay;
pub use surroundings::Surroundings;
pub use wait::{PATIENCE, try_wait_for, wait_for};
