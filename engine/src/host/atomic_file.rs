//! Files that are either the old or the new content after a power loss, never a mix. Entry point: [`write_atomic`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Tells the temporary files of one process apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Replaces the file at `path` with `content`, readable by its owner alone: a temporary file in the same directory,
/// fsync, rename, fsync of the directory. On an error the old file is untouched and the temporary one removed.
///
/// # Errors
/// What the file system says.
pub fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = parent_of(path);
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"))?;
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let temporary = directory.join(temporary_name);
    let written = write_new(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_dir(&directory)
}

/// Makes renames and removals in `directory` survive a power loss.
///
/// # Errors
/// What the file system says.
pub fn sync_dir(directory: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = directory;
    Ok(())
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file: File = match options.open(path) {
        // Of a process that had this number and lost power: after a restart numbers come again.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)?
        }
        other => other?,
    };
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("ledger");
        write_atomic(&path, b"first, and longer").expect("written");
        write_atomic(&path, b"second").expect("replaced");
        assert_eq!(fs::read(&path).expect("readable"), b"second");
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn what_a_crash_left_behind_is_in_nobodys_way() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("temporary");
        fs::write(&path, b"half of someth").expect("written");
        write_new(&path, b"whole").expect("written over");
        assert_eq!(fs::read(&path).expect("readable"), b"whole");
    }

    #[test]
    fn a_failure_keeps_the_old_and_removes_the_new() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("taken");
        fs::create_dir(&path).expect("created");
        fs::write(path.join("inside"), b"x").expect("written");
        assert!(write_atomic(&path, b"file over a folder").is_err());
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1);
    }
}
