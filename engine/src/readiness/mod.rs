//! What a machine can run: roles judged with reasons and remedies, reference models with their best quantization.
//!
//! Owns: the role profiles ([`roles`]), how free memory becomes a budget, which quantization is the best that fits, how
//! speeds are held against floors, and what helps. It knows neither stores nor wires, reads no clock and no files: memory
//! is arithmetic over the profiles that ship ([`profile::shipped`](crate::profile::shipped)), speed is
//! [`speed`](crate::speed)'s. Entry points: [`Judge::evaluate`], [`Judge::table`], and [`Judge::report`] for a fleet.
//!
//! How it decides:
//! - Memory is what planners count on too: what is free 95 % of a working day where the agent sampled that, else what was
//!   free at the inventory.
//! - Weights, cache and compute buffers are those of Muster's engine with one sequence in F16; a driver's surcharge counts
//!   as expected. Between all layers on GPUs and none, sizes are interpolated with the larger of both compute buffers.
//! - Speeds are of an empty context: from the machine's own benchmark where it is of this hardware and this engine, else
//!   from published figures. A floor is held against the expected speed. Where only published figures speak, the interval
//!   holds the floor, and its ends are more than [`WIDE`] apart, nobody knows.
//! - Where no model does with the role's context and one does with less, that is the nearest, and the first reason.
//! - A machine that was silent for more than [`STALE_DAYS`] days is unknown whatever it said.
//! - What changes would make of machines that are not ready is the same judging of a changed desk ([`Change`]).
//! - Where a GPU cannot be used, the machine is also judged as if it could; if that is what makes it ready, its obstacle is
//!   the first reason.

mod context;
mod desk;
mod fleet;
mod judge;
mod reasons;
mod remedy;
mod roles;
mod sizes;
mod speeds;
mod what_if;

pub use judge::{Judge, STALE_DAYS, WIDE, evaluate, table};
pub use roles::{UnknownRole, role, roles};
pub use what_if::{Change, ChangeError};
