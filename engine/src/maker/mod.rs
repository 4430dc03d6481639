//! The model maker: GGUF files of any shape of an architecture, as headers alone or with random weights.
//!
//! Owns: what a model is ([`ModelSpec`]), the quantizations that llama.cpp can make ([`Quantization`]), the metadata that
//! says it to llama.cpp, and which of llama.cpp's optional tensors the published models carry. It does not know names and
//! shapes of tensors or the rules of quantizing: in a worker it asks llama.cpp for both. Entry point from outside:
//! [`worker::make_model`](crate::worker::make_model).

mod counts;
mod metadata;
mod noise;
mod quantization;
mod shape;
mod small;
mod spec;
mod tensors;
pub(crate) mod tokenizer;
mod write;

pub use quantization::{Quantization, UnknownQuantization};
pub use shape::{PerLayer, RopeScaling, Shape};
pub use spec::{FactsError, ModelSpec, OutputMatrix, PublishedTypes};

pub(crate) use write::make;

use noise::Noise;
