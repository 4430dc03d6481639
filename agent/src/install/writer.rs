//! The disk's side of a download: one blocking thread that writes and hashes while the network goes on.
//!
//! What lies in the partial file already is hashed again first, so that nothing but the file itself has to survive a
//! kill. Entry point: [`write`].

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

use bytes::Bytes as RawBytes;
use ring::digest::{Context, SHA256};
use tokio::sync::mpsc;

/// What the network's side sends. A channel that closes without `End` leaves the partial file for another time.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes.
    Data(RawBytes),
    /// What was there does not count; bytes come from the start.
    Restart,
    /// The file is whole.
    End,
}

/// How the writer ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// Everything came and is on disk; its SHA-256.
    Whole([u8; 32]),
    /// The channel closed before.
    Partial,
}

/// Hashes the first `prefix` bytes of the file at `path`, then appends and hashes what comes.
///
/// # Errors
/// What the file system says; what was written stays.
pub fn write(path: &Path, prefix: u64, pieces: &mut mpsc::Receiver<Piece>) -> io::Result<Written> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let mut context = Context::new(&SHA256);
    if prefix > 0 {
        hash_prefix(&mut file, prefix, &mut context, pieces)?;
    }
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Data(bytes) => {
                file.write_all(&bytes)?;
                context.update(&bytes);
            }
            Piece::Restart => {
                file.set_len(0)?;
                file.rewind()?;
                context = Context::new(&SHA256);
            }
            Piece::End => {
                file.sync_all()?;
                let digest = context.finish();
                return Ok(Written::Whole(digest.as_ref().try_into().expect("SHA-256 has 32 bytes")));
            }
        }
    }
    Ok(Written::Partial)
}

fn hash_prefix(file: &mut File, prefix: u64, context: &mut Context, pieces: &mpsc::Receiver<Piece>) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut left = prefix;
    while left > 0 {
        if pieces.is_closed() && pieces.is_empty() {
            return Ok(());
        }
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let length = file.read(&mut buffer[..wanted])?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        context.update(&buffer[..length]);
        left -= length as u64;
    }
    Ok(())
}
