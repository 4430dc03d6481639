//! Sizing profiles.
pub(crate) mod fit;
pub(crate) mod planes;
pub(crate) mod shape;
mod simplex;
pub(crate) mod survey;
