//! The model that ships with Muster: small enough for the repository, good enough for the quickstart and the tests.

/// The name under which it enters a catalog.
pub const NAME: &str = "muster-tiny";

/// The model in F16, a GGUF file of 7.4 MB. What it knows and how well is in `engine/models/README.md`.
pub const MUSTER_TINY_F16: &[u8] = include_bytes!("../models/muster-tiny-f16.gguf");
