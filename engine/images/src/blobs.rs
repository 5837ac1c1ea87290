//! The content-addressed half of the store: bytes in, verified, named by their digest, written once.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use super::{Digest, Error};

/// The largest blob that is taken: 16 GiB, twice the largest layers seen in the wild (models, CUDA toolkits).
pub const BLOB_SIZE_MAX: u64 = 16 << 30;
/// Reads move this much at a time: large enough that the system calls do not show, small enough for a device.
const CHUNK: usize = 64 << 10;

/// The blobs of a store directory.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    root: PathBuf,
}

impl Blobs {
    pub fn open(root: &Path) -> Result<Self, Error> {
        for dir in ["blobs/sha256", "tmp"] {
            let path = root.join(dir);
            fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    pub fn size(&self, digest: &Digest) -> Result<u64, Error> {
        match fs::metadata(self.path(digest)) {
            Ok(found) => Ok(found.len()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::NoBlob(digest.clone())),
            Err(e) => Err(Error::io("read", self.path(digest))(e)),
        }
    }

    /// A whole small blob (manifest, configuration).
    pub fn read(&self, digest: &Digest, max: u64) -> Result<Vec<u8>, Error> {
        let size = self.size(digest)?;
        if size > max {
            return Err(Error::TooLarge { what: format!("blob {digest}"), max });
        }
        fs::read(self.path(digest)).map_err(Error::io("read", self.path(digest)))
    }

    /// Takes everything `from` gives and answers its digest and size. With `wanted`, other content is refused.
    pub fn write(&self, mut from: impl Read, wanted: Option<&Digest>, max: u64) -> Result<(Digest, u64), Error> {
        let mut sink = self.begin()?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::io("read the source of", &sink.path)(e)),
            };
            sink.push(&chunk[..n], max)?;
        }
        sink.finish(wanted)
    }

    /// A blob to be written piece by piece; dropped unfinished, it leaves nothing.
    pub fn begin(&self) -> Result<Sink, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("blob-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = self.root.join("tmp").join(name);
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        Ok(Sink { blobs: self.clone(), path, file, hash: Sha256::new(), size: 0, done: false })
    }
}

/// One blob on its way in.
pub(crate) struct Sink {
    blobs: Blobs,
    path: PathBuf,
    file: File,
    hash: Sha256,
    size: u64,
    done: bool,
}

impl Sink {
    pub fn push(&mut self, bytes: &[u8], max: u64) -> Result<(), Error> {
        self.size += bytes.len() as u64;
        if self.size > max {
            return Err(Error::TooLarge { what: "blob".into(), max });
        }
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    /// Verifies, makes durable, and gives the blob its name.
    pub fn finish(mut self, wanted: Option<&Digest>) -> Result<(Digest, u64), Error> {
        let observed = Digest::from_hash(std::mem::take(&mut self.hash));
        if let Some(wanted) = wanted
            && *wanted != observed
        {
            return Err(Error::Corrupt { wanted: wanted.clone(), observed });
        }
        self.file.sync_data().map_err(Error::io("sync", &self.path))?;
        let path = self.blobs.path(&observed);
        fs::rename(&self.path, &path).map_err(Error::io("name", path))?;
        self.done = true;
        Ok((observed, self.size))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if !self.done {
            // Nothing more can be done about a file that cannot be removed; the next collection tries again.
            let _ = fs::remove_file(&self.path);
        }
    }
}
