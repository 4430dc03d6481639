//! [`Store`]: the folder of model files, each named by its digest and nothing else.
//!
//! A whole file is `sha256-<hex>.gguf` and was verified before it got that name; one that is still coming is
//! `<hex>.part`. Files of other names are never touched.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use muster_engine::host::atomic_file::sync_dir;
use muster_proto::{Bytes, Disk, ModelDigest};
use ring::digest::{Context, SHA256};

/// The store of one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    directory: PathBuf,
}

/// One file of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Which model.
    pub digest: ModelDigest,
    /// Whether it is whole.
    pub whole: bool,
    /// What it takes.
    pub size: Bytes,
}

impl Store {
    /// The store in `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the whole file of `digest` lies.
    pub fn file(&self, digest: &ModelDigest) -> PathBuf {
        self.directory.join(format!("sha256-{}.gguf", digest.hex()))
    }

    /// Where what came of it so far lies.
    pub fn part(&self, digest: &ModelDigest) -> PathBuf {
        self.directory.join(format!("{}.part", digest.hex()))
    }

    /// Everything in it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn contents(&self) -> io::Result<Vec<StoredFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((digest, whole)) = name.to_str().and_then(parse_name) else { continue };
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                files.push(StoredFile { digest, whole, size: Bytes::new(metadata.len()) });
            }
        }
        files.sort_by_key(|file| (file.digest, file.whole));
        Ok(files)
    }

    /// Removes the file of `digest`, whole or not.
    ///
    /// # Errors
    /// What the file system says; a file that is not there is none.
    pub fn remove(&self, digest: &ModelDigest) -> io::Result<()> {
        for path in [self.file(digest), self.part(digest)] {
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        sync_dir(&self.directory)
    }

    /// The volume that it lies on.
    ///
    /// # Errors
    /// What the file system says.
    pub fn disk(&self) -> io::Result<Disk> {
        disk_of(&self.directory)
    }

    /// Reads the whole file of `digest` again and says whether it still is what its name says.
    ///
    /// # Errors
    /// What the file system says.
    pub fn verify(&self, digest: &ModelDigest) -> io::Result<bool> {
        let mut file = fs::File::open(self.file(digest))?;
        let mut context = Context::new(&SHA256);
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                length => context.update(&buffer[..length]),
            }
        }
        Ok(context.finish().as_ref() == digest.as_bytes())
    }
}

/// The volume that `path` lies on.
///
/// # Errors
/// What the file system says.
pub fn disk_of(path: &Path) -> io::Result<Disk> {
    #[cfg(unix)]
    {
        let volume = rustix::fs::statvfs(path)?;
        let unit = volume.f_frsize;
        Ok(Disk {
            total: Bytes::new(volume.f_blocks.saturating_mul(unit)),
            free: Bytes::new(volume.f_bavail.saturating_mul(unit)),
        })
    }
    #[cfg(not(unix))]
    {
        let disks = sysinfo::Disks::new_with_refreshed_list();
        disks
            .list()
            .iter()
            .filter(|disk| path.starts_with(disk.mount_point()))
            .max_by_key(|disk| disk.mount_point().as_os_str().len())
            .map(|disk| Disk { total: Bytes::new(disk.total_space()), free: Bytes::new(disk.available_space()) })
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no volume holds this path"))
    }
}

fn parse_name(name: &str) -> Option<(ModelDigest, bool)> {
    let (hex, whole) = match name.strip_suffix(".part") {
        Some(hex) => (hex, false),
        None => (name.strip_prefix("sha256-")?.strip_suffix(".gguf")?, true),
    };
    ModelDigest::from_hex(hex).ok().map(|digest| (digest, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_names_count() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&directory.path().join("models")).expect("made");
        let (whole, part) = (ModelDigest::new([1; 32]), ModelDigest::new([2; 32]));
        fs::write(store.file(&whole), b"whole").expect("written");
        fs::write(store.part(&part), b"part").expect("written");
        fs::write(store.directory().join("notes.txt"), b"mine").expect("written");
        fs::write(store.directory().join("sha256-12.gguf"), b"mine too").expect("written");
        let files = store.contents().expect("listed");
        assert_eq!(files.len(), 2);
        assert_eq!(files[0], StoredFile { digest: whole, whole: true, size: Bytes::new(5) });
        store.remove(&part).expect("removed");
        store.remove(&part).expect("removed once more");
        assert_eq!(store.contents().expect("listed").len(), 1);
        assert!(!store.verify(&whole).expect("read"), "its content is not what its name says");
        assert!(store.disk().expect("a volume").total > Bytes::ZERO);
    }
}
