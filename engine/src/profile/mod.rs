//! Sizing profiles.
pub mod shape;
