//! Getting model files onto the disk: the store, the controller's files over HTTPS, resumable verified downloads, caps.
//!
//! Entry points: [`Store`] and [`Download::run`]. Nothing here decides what is wanted.

mod bandwidth;
mod blobs;
mod download;
mod store;
mod writer;

pub use bandwidth::Bandwidth;
pub use blobs::{BlobError, Blobs};
pub use download::{Download, DownloadError, Phase};
pub use store::{Store, StoredFile, disk_of};
