//! What is not needed any more goes: blobs and layers that no name and nobody who stands on them needs, and, where the disk is nearly full,
//! names that have not been used for longest.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::fcntl::FlockArg;

use super::Error;
use super::names::Named;
use super::store::{ImageStore, blocking};

/// Half-written files older than this were left by a crash.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 3600);
/// Who has just pulled an image is about to stand on it.
const AGE_MIN: Duration = Duration::from_secs(120);

/// How full the disk of a store is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// In all.
    pub capacity: u64,
    /// What can be written.
    pub available: u64,
}

impl ImageStore {
    /// How full its disk is.
    ///
    /// # Errors
    /// The directory cannot be asked.
    pub fn disk(&self) -> Result<Disk, Error> {
        let root = &self.0.root;
        let found = nix::sys::statvfs::statvfs(root).map_err(|e| Error::io("measure the disk of", root)(e.into()))?;
        let bytes = |blocks: nix::libc::fsblkcnt_t| blocks.saturating_mul(found.fragment_size());
        Ok(Disk { capacity: bytes(found.blocks()), available: bytes(found.blocks_available()) })
    }

    /// # Errors
    /// [`Error::NoRoom`].
    pub(crate) fn has_room(&self, needed: u64) -> Result<(), Error> {
        let free = self.disk()?.available;
        if needed <= free { Ok(()) } else { Err(Error::NoRoom { path: self.0.root.clone(), free, needed }) }
    }

    /// A disk that has become full while `needed` bytes were written says how full.
    pub(crate) fn full(&self, error: Error, needed: u64) -> Error {
        match (&error, self.disk()) {
            (Error::Io { source, .. }, Ok(disk)) if source.kind() == io::ErrorKind::StorageFull => {
                Error::NoRoom { path: self.0.root.clone(), free: disk.available, needed }
            }
            _ => error,
        }
    }

    /// Takes away what no name needs: after a pull that has failed.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub async fn tidy(&self) -> Result<(), Error> {
        let store = self.clone();
        blocking(move || {
            let _alone = store.lock(FlockArg::LockExclusive)?;
            store.collect()
        })
        .await
    }

    /// Forgets names that nobody stands on, those not used for longest first, until `wanted` bytes more can be written; answers how many
    /// bytes came free. What was used in the last two minutes stays.
    ///
    /// # Errors
    /// A file cannot be read or removed.
    pub async fn evict(&self, wanted: u64) -> Result<u64, Error> {
        let store = self.clone();
        blocking(move || {
            let _alone = store.lock(FlockArg::LockExclusive)?;
            let before = store.disk()?.available;
            let free = || Ok::<_, Error>(store.disk()?.available.saturating_sub(before));
            store.collect()?;
            for named in store.idle(SystemTime::now())? {
                if free()? >= wanted {
                    break;
                }
                tracing::info!(image = named.reference, "an image that nobody uses is removed: the disk is full");
                store.forget(&named)?;
                store.collect()?;
            }
            free()
        })
        .await
    }

    /// Names that nobody stands on, longest unused first.
    fn idle(&self, now: SystemTime) -> Result<Vec<Named>, Error> {
        let leases = self.0.root.join("leases");
        let mut held = HashSet::new();
        for entry in fs::read_dir(&leases).map_err(Error::io("list", &leases))? {
            let path = entry.map_err(Error::io("list", &leases))?.path();
            held.extend(path.extension().and_then(|hex| hex.to_str()).map(str::to_owned));
        }
        let mut idle = Vec::new();
        for named in self.names()?.into_iter().filter(|named| !held.contains(named.digest.hex())) {
            let path = self.reference_path(&named.realm, &named.reference);
            let at = fs::metadata(&path).and_then(|file| file.modified()).map_err(Error::io("read", &path))?;
            if now.duration_since(at).is_ok_and(|age| age >= AGE_MIN) {
                idle.push((at, named));
            }
        }
        idle.sort_by_key(|(at, _)| *at);
        Ok(idle.into_iter().map(|(_, named)| named).collect())
    }

    /// Notes that a name is used now: its file is as old as its last use.
    pub(crate) fn used(&self, named: &Named) {
        let path = self.reference_path(&named.realm, &named.reference);
        let touched =
            fs::File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::debug!(path = %path.display(), %error, "the use of an image is not noted");
        }
    }

    /// Forgets one name; whether it was there.
    pub(crate) fn forget(&self, named: &Named) -> Result<bool, Error> {
        let path = self.reference_path(&named.realm, &named.reference);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("remove", path)(e)),
        }
    }

    /// Removes what no name needs. The caller holds the exclusive lock.
    pub(crate) fn collect(&self) -> Result<(), Error> {
        let mut blobs = HashSet::new();
        let names = self.names()?;
        self.collect_access(&names)?;
        for named in &names {
            blobs.extend(self.blobs_of(&named.digest)?.into_iter().map(|b| b.digest.hex().to_owned()));
        }
        let mut layers: HashSet<String> = blobs.iter().map(|hex| hex[..32].to_owned()).collect();
        let leases = self.0.root.join("leases");
        for entry in fs::read_dir(&leases).map_err(Error::io("list", &leases))? {
            let path = entry.map_err(Error::io("list", &leases))?.path();
            let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
            layers.extend(text.lines().map(str::to_owned));
        }
        sweep(&self.0.root.join("blobs/sha256"), |name| blobs.contains(name))?;
        sweep(&self.layers_dir(), |name| layers.contains(name))?;
        // Nobody writes there now but a process that did not ask for the lock; what is a day old has no author any more.
        let tmp = self.0.root.join("tmp");
        let is_new = |name: &str| {
            let modified = fs::metadata(tmp.join(name)).and_then(|m| m.modified()).ok();
            modified.and_then(|m| m.elapsed().ok()).is_none_or(|age| age < LEFT_BEHIND)
        };
        sweep(&tmp, is_new)
    }
}

pub(crate) fn sweep(dir: &Path, keep: impl Fn(&str) -> bool) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let path = entry.map_err(Error::io("list", dir))?.path();
        if path.file_name().and_then(|n| n.to_str()).is_some_and(&keep) {
            continue;
        }
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(Error::io("remove", path))?;
    }
    Ok(())
}
