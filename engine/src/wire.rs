//! The messages between this crate's two sides, generated from `proto/engine.proto`.

#![allow(missing_docs, clippy::pedantic, reason = "generated code")]

include!(concat!(env!("OUT_DIR"), "/muster.engine.rs"));
