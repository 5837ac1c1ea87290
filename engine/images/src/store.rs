//! The store itself: names, collection, and the unpacked layers.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::blobs::{BLOB_SIZE_MAX, Blobs};
use super::config::{ConfigFile, DOCUMENT_SIZE_MAX, Descriptor, Index, Manifest, architecture};
use super::{Digest, Error, Image, Reference, archive, unpack};

/// Half-written files older than this were left by a crash.
const LEFT_BEHIND: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// A blob of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blob {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A name in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The reference, normalised.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Manifest, configuration and layers in bytes.
    pub size_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Named {
    reference: String,
    digest: Digest,
}

/// Keeps collections away: see [`ImageStore::hold`].
#[derive(Debug)]
pub struct Hold {
    _lock: Flock<File>,
}

/// Images in one directory; cheap to clone. See the module for its layout.
#[derive(Clone, Debug)]
pub struct ImageStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    blobs: Blobs,
    /// One layer is unpacked once, however many pods wait for it.
    unpacking: tokio::sync::Mutex<()>,
}

impl ImageStore {
    /// Opens the store in `root`, creating the directory (0700: layers hold other people's set-uid files).
    ///
    /// # Errors
    /// The directory cannot be created or written.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        use std::os::unix::fs::PermissionsExt;
        let root = root.into();
        for dir in ["references", "layers", "leases"] {
            let path = root.join(dir);
            fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).map_err(Error::io("protect", &root))?;
        let blobs = Blobs::open(&root)?;
        Ok(Self(Arc::new(Inner { root, blobs, unpacking: tokio::sync::Mutex::new(()) })))
    }

    /// Loads an OCI layout (directory or tar), an OCI archive or a Docker archive, each also gzipped, and
    /// answers the names it brought. An archive without names brings `name_hint` if given.
    ///
    /// # Errors
    /// The file is none of these, is damaged, or names nothing this machine can run.
    pub async fn load(&self, file: impl Into<PathBuf>, name_hint: Option<Reference>) -> Result<Vec<Listed>, Error> {
        let (store, file) = (self.clone(), file.into());
        blocking(move || {
            let _shared = store.lock(FlockArg::LockShared)?;
            let images = archive::load(&store.0.blobs, &file, name_hint)?;
            images.iter().map(|(reference, digest)| store.name(reference, digest)).collect()
        })
        .await
    }

    /// All names, sorted.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn list(&self) -> Result<Vec<Listed>, Error> {
        let store = self.clone();
        blocking(move || store.names()?.into_iter().map(|n| store.listed(n)).collect()).await
    }

    /// Forgets a name, then every blob and layer that no name needs. What was not there is fine (`false`).
    ///
    /// # Errors
    /// A file cannot be removed.
    pub async fn remove(&self, reference: &Reference) -> Result<bool, Error> {
        let (store, reference) = (self.clone(), reference.clone());
        blocking(move || {
            let _alone = store.lock(FlockArg::LockExclusive)?;
            let path = store.reference_path(&reference);
            let there = match fs::remove_file(&path) {
                Ok(()) => true,
                Err(e) if e.kind() == io::ErrorKind::NotFound => false,
                Err(e) => return Err(Error::io("remove", path)(e)),
            };
            store.collect()?;
            Ok(there)
        })
        .await
    }

    /// Whether the blob is here.
    pub fn has(&self, digest: &Digest) -> bool {
        self.0.blobs.has(digest)
    }

    /// The blob's bytes.
    ///
    /// # Errors
    /// [`Error::NoBlob`], or it cannot be read.
    pub async fn open_blob(&self, digest: &Digest) -> Result<tokio::fs::File, Error> {
        let path = self.0.blobs.path(digest);
        match tokio::fs::File::open(&path).await {
            Ok(file) => Ok(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::NoBlob(digest.clone())),
            Err(e) => Err(Error::io("open", path)(e)),
        }
    }

    /// Stores everything `from` gives under `digest`; nothing is kept unless it hashes to it. A blob that is
    /// already here is not read again. Keep a [`hold`](Self::hold) until the image has its name.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::TooLarge`] (see [`BLOB_SIZE_MAX`]), or the disk does not take it.
    pub async fn write(&self, digest: &Digest, mut from: impl AsyncRead + Unpin + Send) -> Result<u64, Error> {
        if self.has(digest) {
            return self.0.blobs.size(digest);
        }
        let mut sink = self.0.blobs.begin()?;
        let mut chunk = vec![0; 64 << 10];
        loop {
            let n = from.read(&mut chunk).await.map_err(Error::io("receive", self.0.blobs.path(digest)))?;
            if n == 0 {
                break;
            }
            // A page-cache write: shorter than the hop to another thread would be.
            sink.push(&chunk[..n], BLOB_SIZE_MAX)?;
        }
        let digest = digest.clone();
        blocking(move || sink.finish(Some(&digest))).await.map(|(_, size)| size)
    }

    /// Names the image whose manifest is `digest`; all its blobs must be here.
    ///
    /// # Errors
    /// A blob is missing, or the manifest is none.
    pub async fn tag(&self, reference: &Reference, digest: &Digest) -> Result<(), Error> {
        let (store, reference, digest) = (self.clone(), reference.clone(), digest.clone());
        blocking(move || {
            let _shared = store.lock(FlockArg::LockShared)?;
            store.name(&reference, &digest).map(drop)
        })
        .await
    }

    /// Manifest, configuration and layers of an image, in this order.
    ///
    /// # Errors
    /// [`Error::NoImage`].
    pub async fn blobs(&self, reference: &Reference) -> Result<Vec<Blob>, Error> {
        let (store, reference) = (self.clone(), reference.clone());
        blocking(move || {
            let digest = store.digest_of(&reference)?.ok_or_else(|| Error::NoImage(reference.to_string()))?;
            store.blobs_of(&digest)
        })
        .await
    }

    /// The image, if it is here. A reference by digest is found under any name.
    ///
    /// # Errors
    /// The store cannot be read or holds something broken.
    pub async fn find(&self, reference: &Reference) -> Result<Option<Image>, Error> {
        let (store, reference) = (self.clone(), reference.clone());
        blocking(move || {
            let Some(digest) = store.digest_of(&reference)? else { return Ok(None) };
            let manifest = store.manifest(&digest)?;
            let size_bytes = store.blobs_of(&digest)?.iter().map(|b| b.size).sum();
            let bytes = store.0.blobs.read(&manifest.config.digest, DOCUMENT_SIZE_MAX)?;
            let config: ConfigFile = serde_json::from_slice(&bytes)
                .map_err(|e| Error::invalid(reference.to_string(), format!("has an unreadable configuration: {e}")))?;
            let fits = |have: &str, need: &str| have.is_empty() || have == need;
            if !fits(&config.os, "linux") || !fits(&config.architecture, architecture()) {
                let why = format!("is for {}/{}, needed linux/{}", config.os, config.architecture, architecture());
                return Err(Error::invalid(reference.to_string(), why));
            }
            let layers = manifest.layers.into_iter().map(|l| l.digest).collect();
            let (architecture, config) = (config.architecture, config.config.unwrap_or_default());
            Ok(Some(Image { reference, digest, architecture, config, layers, size_bytes }))
        })
        .await
    }

    /// The image's layers as directories, lowest first; unpacks those that are not yet. They stay until
    /// [`release`](Self::release) of the same `owner`, whatever is removed meanwhile: containers stand on them.
    ///
    /// # Errors
    /// A layer is hostile, damaged, or does not fit on the disk.
    pub async fn unpacked(&self, image: &Image, owner: &str) -> Result<Vec<PathBuf>, Error> {
        let _one = self.0.unpacking.lock().await;
        let (store, layers, digest, owner) =
            (self.clone(), image.layers.clone(), image.digest.clone(), owner.to_owned());
        blocking(move || {
            let _shared = store.lock(FlockArg::LockShared)?;
            let lease = store.0.root.join("leases").join(format!("{owner}.{}", digest.hex()));
            let names: Vec<&str> = layers.iter().map(layer_name).collect();
            engine_host::files::write_durably(&lease, names.join("\n").as_bytes(), 0o600)
                .map_err(Error::io("write", &lease))?;
            layers.iter().map(|digest| store.unpack(digest)).collect()
        })
        .await
    }

    /// `owner` needs its layers no more; one that has none is fine.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub async fn release(&self, owner: &str) -> Result<(), Error> {
        let (dir, prefix) = (self.0.root.join("leases"), format!("{owner}."));
        blocking(move || sweep(&dir, |name| !name.starts_with(&prefix))).await
    }

    /// While the answer lives nothing is collected: for whoever brings an image blob by blob.
    ///
    /// # Errors
    /// The lock file cannot be opened.
    pub async fn hold(&self) -> Result<Hold, Error> {
        let store = self.clone();
        blocking(move || store.lock(FlockArg::LockShared).map(|lock| Hold { _lock: lock })).await
    }

    /// Which directory [`unpacked`](Self::unpacked) paths are below.
    pub fn layers_dir(&self) -> PathBuf {
        self.0.root.join("layers")
    }

    fn unpack(&self, digest: &Digest) -> Result<PathBuf, Error> {
        let path = self.layers_dir().join(layer_name(digest));
        if path.is_dir() {
            return Ok(path);
        }
        let blob = File::open(self.0.blobs.path(digest)).map_err(|_| Error::NoBlob(digest.clone()))?;
        let half = self.0.root.join("tmp").join(format!("layer-{}-{}", std::process::id(), layer_name(digest)));
        match fs::remove_dir_all(&half) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", half)(e)),
            _ => {}
        }
        fs::create_dir(&half).map_err(Error::io("create", &half))?;
        if let Err(e) = unpack::unpack(&format!("layer {digest}"), blob, &half) {
            let _ = fs::remove_dir_all(&half); // the first error is the one to tell
            return Err(e);
        }
        match fs::rename(&half, &path) {
            Ok(()) => Ok(path),
            Err(_) if path.is_dir() => {
                let _ = fs::remove_dir_all(&half); // another process was faster
                Ok(path)
            }
            Err(e) => Err(Error::io("name", path)(e)),
        }
    }

    fn name(&self, reference: &Reference, digest: &Digest) -> Result<Listed, Error> {
        let size_bytes = self.blobs_of(digest)?.iter().map(|b| b.size).sum();
        let path = self.reference_path(reference);
        let named = Named { reference: reference.to_string(), digest: digest.clone() };
        let bytes = serde_json::to_vec(&named).map_err(|e| Error::invalid(reference.to_string(), e.to_string()))?;
        engine_host::files::write_durably(&path, &bytes, 0o600).map_err(Error::io("write", path))?;
        Ok(Listed { reference: named.reference, digest: named.digest, size_bytes })
    }

    fn names(&self) -> Result<Vec<Named>, Error> {
        let dir = self.0.root.join("references");
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).map_err(Error::io("list", &dir))? {
            let path = entry.map_err(Error::io("list", &dir))?.path();
            if path.extension().is_some() {
                continue; // half-written
            }
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::io("read", path)(e)),
            };
            let named = serde_json::from_slice(&bytes)
                .map_err(|e| Error::invalid(path.display().to_string(), format!("is no reference file: {e}")))?;
            names.push(named);
        }
        names.sort_by(|a: &Named, b: &Named| a.reference.cmp(&b.reference));
        Ok(names)
    }

    fn listed(&self, named: Named) -> Result<Listed, Error> {
        let size_bytes = self.blobs_of(&named.digest)?.iter().map(|b| b.size).sum();
        Ok(Listed { reference: named.reference, digest: named.digest, size_bytes })
    }

    fn digest_of(&self, reference: &Reference) -> Result<Option<Digest>, Error> {
        if let Some(digest) = reference.digest() {
            return Ok(self.names()?.into_iter().map(|n| n.digest).find(|d| d == digest));
        }
        let path = self.reference_path(reference);
        match fs::read(&path) {
            Ok(bytes) => {
                let named: Named = serde_json::from_slice(&bytes)
                    .map_err(|e| Error::invalid(path.display().to_string(), format!("is no reference file: {e}")))?;
                Ok(Some(named.digest))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", path)(e)),
        }
    }

    fn manifest(&self, digest: &Digest) -> Result<Manifest, Error> {
        Manifest::parse(&format!("manifest {digest}"), &self.0.blobs.read(digest, DOCUMENT_SIZE_MAX)?)
    }

    fn blobs_of(&self, digest: &Digest) -> Result<Vec<Blob>, Error> {
        let manifest = self.manifest(digest)?;
        let own = Blob { digest: digest.clone(), size: self.0.blobs.size(digest)? };
        let rest = manifest.blobs().map(|d| Ok(Blob { digest: d.digest.clone(), size: self.0.blobs.size(&d.digest)? }));
        std::iter::once(Ok(own)).chain(rest).collect()
    }

    /// Removes what no name needs. The caller holds the exclusive lock.
    fn collect(&self) -> Result<(), Error> {
        let mut blobs = HashSet::new();
        for named in self.names()? {
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

    fn reference_path(&self, reference: &Reference) -> PathBuf {
        self.0.root.join("references").join(Digest::of(reference.to_string().as_bytes()).hex())
    }

    fn lock(&self, how: FlockArg) -> Result<Flock<File>, Error> {
        let path = self.0.root.join("lock");
        let file = File::options().create(true).append(true).open(&path).map_err(Error::io("open", &path))?;
        Flock::lock(file, how).map_err(|(_, e)| Error::io("lock", path)(e.into()))
    }
}

/// A layer's directory: 128 bits of its digest, so that 100 of them fit into one page of mount options.
fn layer_name(digest: &Digest) -> &str {
    &digest.hex()[..32]
}

fn sweep(dir: &Path, keep: impl Fn(&str) -> bool) -> Result<(), Error> {
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

/// The manifest for this machine that `descriptor` leads to, through at most two levels of index.
pub(super) fn manifest_for_this_machine(blobs: &Blobs, what: &str, descriptor: &Descriptor) -> Result<Digest, Error> {
    let mut at = descriptor.clone();
    for _ in 0..3 {
        if !at.is_index() {
            Manifest::parse(what, &blobs.read(&at.digest, DOCUMENT_SIZE_MAX)?)?;
            return Ok(at.digest);
        }
        let index: Index = serde_json::from_slice(&blobs.read(&at.digest, DOCUMENT_SIZE_MAX)?)
            .map_err(|e| Error::invalid(what, format!("is no index: {e}")))?;
        at = index
            .manifests
            .into_iter()
            .find(Descriptor::fits)
            .ok_or_else(|| Error::invalid(what, format!("has no manifest for linux/{}", architecture())))?;
    }
    Err(Error::invalid(what, "nests more than two indexes"))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::invalid("image store", format!("a task was lost: {e}"))),
    }
}
