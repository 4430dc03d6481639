//! Reference models: 110 open models that everybody knows, with the facts that make their files, so that a fleet can be
//! judged before anything is downloaded.
//!
//! Owns: the data (`data/reference_models.jsonl`, one model a line with the source of its facts), finding a model by what
//! people write, and header-only files for estimates. It does not know devices. Entry points: [`all`], [`find`], [`parse`],
//! [`header_file`].

mod file;
mod find;
mod model;

pub use file::header_file;
pub use find::{ParseError, UnknownModel, find, parse};
pub use model::{ModelRole, ReferenceModel, all};
