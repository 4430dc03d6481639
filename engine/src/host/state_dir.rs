//! [`StateDir`]: the one directory that holds all state of a program, private to its user and locked while it runs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use super::atomic_file;

const LOCK_FILE: &str = "lock";
const FORMAT_FILE: &str = "format";

/// Why a state directory cannot be used. Each says which, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// The file system refused a step.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was tried, e.g. `create`.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the file system says.
        #[source]
        source: io::Error,
    },
    /// Another process runs on it.
    #[error("{} is in use by {}: stop that one first", path.display(), match pid { Some(pid) => format!("process {pid}"), None => "another process".into() })]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who holds it, where the lock file says so.
        pid: Option<u32>,
    },
    /// Others may read or enter it, and it cannot be made private.
    #[error("{} is open to other users (mode {mode:o}): make it private with chmod 700", path.display())]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A newer build wrote it.
    #[error("{} has format {found}, this build knows up to {known}: use the newer build again", path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// What the directory has.
        found: u32,
        /// What this build knows.
        known: u32,
    },
    /// The format file holds no number.
    #[error("{} is damaged: it should hold a format version", path.display())]
    Damaged {
        /// The format file.
        path: PathBuf,
    },
}

/// An open state directory. The lock is held as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    format: u32,
    _lock: File,
}

impl StateDir {
    /// Opens the directory, creating it with mode 0700 if it is not there; takes its lock; checks its format version.
    /// A directory without a version (a new one) gets `known_format`; one with an older version keeps it, for the caller
    /// to migrate and then [`set_format`](Self::set_format).
    ///
    /// # Errors
    /// Each refusal says what to do.
    pub fn open(path: &Path, known_format: u32) -> Result<Self, StateDirError> {
        create_private(path)?;
        let lock = lock(path)?;
        let format_path = path.join(FORMAT_FILE);
        let format = match fs::read_to_string(&format_path) {
            Ok(text) => text.trim().parse().map_err(|_| StateDirError::Damaged { path: format_path.clone() })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_format(&format_path, known_format)?;
                known_format
            }
            Err(source) => return Err(StateDirError::Io { step: "read", path: format_path, source }),
        };
        if format > known_format {
            return Err(StateDirError::Newer { path: path.to_owned(), found: format, known: known_format });
        }
        Ok(Self { path: path.to_owned(), format, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its format version, at most the one given to [`open`](Self::open).
    pub const fn format(&self) -> u32 {
        self.format
    }

    /// Notes that the content was migrated.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_format(&mut self, format: u32) -> Result<(), StateDirError> {
        write_format(&self.path.join(FORMAT_FILE), format)?;
        self.format = format;
        Ok(())
    }

    /// A directory inside, created private if it is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf, StateDirError> {
        let path = self.path.join(name);
        create_private(&path)?;
        Ok(path)
    }
}

fn io_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateDirError {
    move |source| StateDirError::Io { step, path: path.to_owned(), source }
}

fn create_private(path: &Path) -> Result<(), StateDirError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(io_error("create", path))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = fs::metadata(path).map_err(io_error("open", path))?;
        if !metadata.is_dir() {
            return Err(io_error("open", path)(io::ErrorKind::NotADirectory.into()));
        }
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StateDirError::NotPrivate { path: path.to_owned(), mode });
        }
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<File, StateDirError> {
    let path = directory.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&path).map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = (&file).take(32).read_to_string(&mut holder);
            return Err(StateDirError::Locked { path: directory.to_owned(), pid: holder.trim().parse().ok() });
        }
        Err(TryLockError::Error(source)) => return Err(StateDirError::Io { step: "lock", path, source }),
    }
    let write_pid = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write_pid(&mut file).map_err(io_error("write", &path))?;
    Ok(file)
}

fn write_format(path: &Path, format: u32) -> Result<(), StateDirError> {
    atomic_file::write_atomic(path, format!("{format}\n").as_bytes()).map_err(io_error("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_opener_is_told_who_holds_it() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let path = parent.path().join("state");
        let first = StateDir::open(&path, 1).expect("new");
        match StateDir::open(&path, 1) {
            Err(StateDirError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("opened twice: {other:?}"),
        }
        drop(first);
        StateDir::open(&path, 1).expect("free again");
    }

    #[test]
    fn a_newer_format_is_refused_and_an_older_one_kept() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let path = parent.path().join("state");
        drop(StateDir::open(&path, 3).expect("new"));
        assert!(matches!(StateDir::open(&path, 2), Err(StateDirError::Newer { found: 3, known: 2, .. })));
        let mut newer = StateDir::open(&path, 4).expect("older content");
        assert_eq!(newer.format(), 3);
        newer.set_format(4).expect("written");
        drop(newer);
        assert_eq!(StateDir::open(&path, 4).expect("its own").format(), 4);
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_open_to_others_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let parent = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).expect("changed");
        assert!(matches!(StateDir::open(parent.path(), 1), Err(StateDirError::NotPrivate { mode: 0o755, .. })));
    }
}
