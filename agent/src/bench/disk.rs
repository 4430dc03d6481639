//! Reading from the volume of the model store, past the page cache, as a model is read that was not used for long.
//!
//! A file that has no name from the start, so that it is gone however this process ends; written, synced, then read in large
//! pieces with `O_DIRECT`, or, where the file system has none, after its pages were dropped. A disk's own cache, or a
//! hypervisor's, cannot be passed.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use muster_proto::Bytes;

/// Largest file.
const FILE: u64 = 256 << 20;
/// Bytes of a read; llama.cpp's own reads are of about this size.
const PIECE: usize = 4 << 20;
/// What `O_DIRECT` wants buffers to be aligned to: the largest page of common disks.
const ALIGNMENT: usize = 4096;
/// Fewest pieces that say something.
const FEWEST_PIECES: u64 = 4;
/// Most passes over the file.
const PASSES: usize = 5;

/// Bytes a second of each pass over the file.
///
/// # Errors
/// What the system says, or that too little of the disk is free.
pub fn read_rates(folder: &Path, time: Duration, reserve: Bytes) -> io::Result<Vec<f64>> {
    let start = Instant::now();
    let room = room(folder, reserve)?;
    let pieces = FILE.min(room) / PIECE as u64;
    if pieces < FEWEST_PIECES {
        return Err(io::Error::other(format!("{}: too little of the disk is free", folder.display())));
    }
    let mut file = nameless(folder)?;
    let mut buffer = vec![0_u8; PIECE + ALIGNMENT];
    let offset = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    let piece = &mut buffer[offset..offset + PIECE];
    // Noise: a disk or file system that compresses would be measured otherwise.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in piece.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    let mut written = 0;
    while written < pieces && (written < FEWEST_PIECES || start.elapsed() < time.mul_f64(0.4)) {
        // Pieces that are alike would be stored once by some.
        piece[..8].copy_from_slice(&written.to_le_bytes());
        file.write_all(piece)?;
        written += 1;
    }
    file.sync_all()?;
    let direct = direct(&file);
    let mut rates = Vec::new();
    while rates.len() < PASSES && (rates.is_empty() || start.elapsed() < time) {
        if !direct {
            drop_pages(&file)?;
        }
        file.seek(SeekFrom::Start(0))?;
        let began = Instant::now();
        for _ in 0..written {
            file.read_exact(piece)?;
        }
        rates.push(written as f64 * PIECE as f64 / began.elapsed().as_secs_f64().max(1e-9));
    }
    Ok(rates)
}

/// Bytes that may be written.
#[cfg(unix)]
fn room(folder: &Path, reserve: Bytes) -> io::Result<u64> {
    let volume = rustix::fs::statvfs(folder)?;
    Ok((volume.f_bavail * volume.f_frsize).saturating_sub(reserve.get()))
}

/// Elsewhere the file system refuses by itself.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the system is asked elsewhere")]
fn room(_folder: &Path, _reserve: Bytes) -> io::Result<u64> {
    Ok(FILE)
}

/// A file that is gone as soon as it is closed.
fn nameless(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!(".muster-disk-{}", std::process::id()));
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::custom_flags(&mut options, 0x0400_0000); // FILE_FLAG_DELETE_ON_CLOSE
    let file = options.open(&path)?;
    #[cfg(unix)]
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Whether reads pass the page cache from now on.
#[cfg(target_os = "linux")]
fn direct(file: &File) -> bool {
    let Ok(flags) = rustix::fs::fcntl_getfl(file) else { return false };
    rustix::fs::fcntl_setfl(file, flags | rustix::fs::OFlags::DIRECT).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn direct(_file: &File) -> bool {
    false
}

/// Drops what the page cache holds of the file.
#[cfg(target_os = "linux")]
fn drop_pages(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

#[cfg(not(target_os = "linux"))]
fn drop_pages(_file: &File) -> io::Result<()> {
    Err(io::Error::other("this system is not known to read past its page cache"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let rates = read_rates(folder.path(), Duration::from_millis(1), Bytes::ZERO).expect("measured");
        assert!(!rates.is_empty() && rates.iter().all(|rate| *rate > 0.0));
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0);
    }

    #[test]
    fn the_reserve_of_the_disk_is_kept() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let error = read_rates(folder.path(), Duration::ZERO, Bytes::new(u64::MAX)).expect_err("refused");
        assert!(error.to_string().contains("too little of the disk"), "{error}");
    }
}
