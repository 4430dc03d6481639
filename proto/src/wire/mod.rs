//! The wire: generated messages and services, and the conversions to and from the domain types.
//!
//! Domain to wire is an infallible `From`; wire to domain is `TryFrom`, whose [`ConversionError`] names the field's
//! path. Generated types are only ever written as `wire::Name`. Messages without a domain type (Hello, Welcome, requests)
//! are read where they are handled.

mod admin;
mod audit;
mod bench_order;
mod benchmark;
mod catalog;
mod desired;
mod enrolment;
mod error;
mod hardware;
mod inventory;
mod machine;
mod observed;
mod plan;
mod quality;
mod readiness;
mod what_if;

#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic)]
mod generated {
    tonic::include_proto!("muster.v1");
}

pub use error::{ConversionError, FLEET_MAX, LIST_MAX, POLICY_MAX, SAMPLES_MAX, TEXT_MAX};
pub use generated::*;

impl From<from_agent::Message> for FromAgent {
    fn from(message: from_agent::Message) -> Self {
        Self { message: Some(message) }
    }
}

impl From<to_agent::Message> for ToAgent {
    fn from(message: to_agent::Message) -> Self {
        Self { message: Some(message) }
    }
}
