//! The store itself: names, and the unpacked layers.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::blobs::{BLOB_SIZE_MAX, Blobs};
use super::collect::sweep;
use super::config::{ConfigFile, DOCUMENT_SIZE_MAX, Manifest};
use super::names::Named;
use super::{Caller, Digest, Error, Found, Image, Progress, Reference, archive, settle, unpack};

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
    /// Whose name it is; empty: the machine's owner's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub realm: String,
}

/// Keeps collections away: see [`ImageStore::hold`].
#[derive(Debug)]
pub struct Hold {
    _lock: Flock<File>,
}

/// Images in one directory; cheap to clone. See the module for its layout.
#[derive(Clone, Debug)]
pub struct ImageStore(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub root: PathBuf,
    pub blobs: Blobs,
    /// Blobs that are being brought: of several that want one, one fetches it.
    pub flights: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
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
        for dir in ["references", "layers", "settling", "leases", "access"] {
            let path = root.join(dir);
            fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).map_err(Error::io("protect", &root))?;
        let blobs = Blobs::open(&root)?;
        let unpacking = tokio::sync::Mutex::new(());
        let store = Self(Arc::new(Inner { root, blobs, flights: Mutex::default(), unpacking }));
        settle::recover(&store)?;
        Ok(store)
    }

    /// Loads an OCI layout (directory or tar), an OCI archive or a Docker archive, each also compressed with gzip or zstd, and
    /// answers the names it brought, which are for everybody. An archive without names brings `name_hint` if given.
    ///
    /// # Errors
    /// The file is none of these, is damaged, or names nothing this machine can run.
    pub async fn load(&self, file: impl Into<PathBuf>, name_hint: Option<Reference>) -> Result<Vec<Listed>, Error> {
        self.load_told(file, name_hint, Arc::new(())).await
    }

    /// The same, with somebody who is told how far it is.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn load_told(
        &self,
        file: impl Into<PathBuf>,
        name_hint: Option<Reference>,
        progress: Arc<dyn Progress>,
    ) -> Result<Vec<Listed>, Error> {
        let (store, file) = (self.clone(), file.into());
        blocking(move || {
            let _shared = store.lock(FlockArg::LockShared)?;
            let images = archive::load(&store.0.blobs, &file, name_hint, &*progress)?;
            let named = images.iter().map(|(reference, digest)| {
                store.open_to_all(reference, digest)?;
                store.name("", reference, digest)
            });
            named.collect()
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

    /// Forgets a name, whoever's it is, then every blob and layer that no name needs. What was not there is fine (`false`).
    ///
    /// # Errors
    /// A file cannot be removed.
    pub async fn remove(&self, reference: &Reference) -> Result<bool, Error> {
        let (store, reference) = (self.clone(), reference.clone());
        blocking(move || {
            let _alone = store.lock(FlockArg::LockExclusive)?;
            let text = reference.to_string();
            let mut there = false;
            for named in store.names()?.iter().filter(|named| named.reference == text) {
                there |= store.forget(named)?;
            }
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
    pub async fn write(&self, digest: &Digest, from: impl AsyncRead + Unpin + Send) -> Result<u64, Error> {
        if !self.has(digest) {
            self.put(digest, from, BLOB_SIZE_MAX).await?;
        }
        self.0.blobs.size(digest)
    }

    /// The same, whether it is here or not, and at most so many bytes.
    pub(crate) async fn put(
        &self,
        digest: &Digest,
        mut from: impl AsyncRead + Unpin + Send,
        max: u64,
    ) -> Result<(), Error> {
        let mut sink = self.0.blobs.begin()?;
        let mut chunk = vec![0; 64 << 10];
        loop {
            let n = from.read(&mut chunk).await.map_err(Error::io("receive", self.0.blobs.path(digest)))?;
            if n == 0 {
                break;
            }
            // A page-cache write: shorter than the hop to another thread would be.
            sink.push(&chunk[..n], max)?;
        }
        let digest = digest.clone();
        blocking(move || sink.finish(Some(&digest))).await.map(drop)
    }

    /// Names the image whose manifest is `digest`; all its blobs must be here.
    ///
    /// # Errors
    /// A blob is missing, or the manifest is none.
    pub async fn tag(&self, reference: &Reference, digest: &Digest) -> Result<(), Error> {
        let (store, reference, digest) = (self.clone(), reference.clone(), digest.clone());
        blocking(move || {
            let _shared = store.lock(FlockArg::LockShared)?;
            store.name("", &reference, &digest).map(drop)
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

    /// The same of an image that was found.
    ///
    /// # Errors
    /// It is not here any more.
    pub async fn blobs_of_image(&self, image: &Image) -> Result<Vec<Blob>, Error> {
        let (store, digest) = (self.clone(), image.digest.clone());
        blocking(move || store.blobs_of(&digest)).await
    }

    /// The image, if it is here, whoever may have it: what the machine's owner asks. A reference by digest is found under any name.
    ///
    /// # Errors
    /// The store cannot be read or holds something broken.
    pub async fn find(&self, reference: &Reference) -> Result<Option<Image>, Error> {
        let (store, reference) = (self.clone(), reference.clone());
        blocking(move || match store.digest_of(&reference)? {
            Some(digest) => store.image(reference, digest).map(Some),
            None => Ok(None),
        })
        .await
    }

    /// The image, if it is here and for this caller; its own names come before those of the machine's owner.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn find_for(&self, reference: &Reference, caller: &Caller) -> Result<Found, Error> {
        let (store, reference, caller) = (self.clone(), reference.clone(), caller.clone());
        blocking(move || {
            let who = store.marked(&caller)?;
            let mut found = Found::Absent;
            for named in store.named(&reference, &caller.realm)? {
                if store.may(&who, &named)? {
                    store.used(&named);
                    return Ok(Found::Here(Box::new(store.image(reference, named.digest)?)));
                }
                found = Found::Barred;
            }
            Ok(found)
        })
        .await
    }

    fn image(&self, reference: Reference, digest: Digest) -> Result<Image, Error> {
        let manifest = self.manifest(&digest)?;
        let size_bytes = self.blobs_of(&digest)?.iter().map(|b| b.size).sum();
        let bytes = self.0.blobs.read(&manifest.config.digest, DOCUMENT_SIZE_MAX)?;
        let config: ConfigFile = serde_json::from_slice(&bytes)
            .map_err(|e| Error::invalid(reference.to_string(), format!("has an unreadable configuration: {e}")))?;
        let (architecture, config) = config.read(&reference, &manifest.layers)?;
        let layers = manifest.layers.into_iter().map(|l| l.digest).collect();
        Ok(Image { reference, digest, architecture, config, layers, size_bytes })
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
            let mut made = Vec::new();
            let paths = layers.iter().map(|digest| store.unpack(digest, &mut made)).collect();
            settle::beside(&store, made);
            paths
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

    /// Where each blob is a file `sha256/HEX`, for another program that wants an image.
    pub fn blobs_dir(&self) -> PathBuf {
        self.0.root.join("blobs")
    }

    /// Which directory [`unpacked`](Self::unpacked) paths are below.
    pub fn layers_dir(&self) -> PathBuf {
        self.0.root.join("layers")
    }

    /// The layer's directory; a new one is added to `made`.
    fn unpack(&self, digest: &Digest, made: &mut Vec<String>) -> Result<PathBuf, Error> {
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
        settle::begin(&self.0.root, layer_name(digest))?;
        match fs::rename(&half, &path) {
            Ok(()) => {
                made.push(layer_name(digest).to_owned());
                Ok(path)
            }
            Err(_) if path.is_dir() => {
                let _ = fs::remove_dir_all(&half); // another process was faster
                Ok(path)
            }
            Err(e) => Err(Error::io("name", path)(e)),
        }
    }

    pub(crate) fn access_dir(&self) -> PathBuf {
        self.0.root.join("access")
    }

    pub(crate) fn name(&self, realm: &str, reference: &Reference, digest: &Digest) -> Result<Listed, Error> {
        let size_bytes = self.blobs_of(digest)?.iter().map(|b| b.size).sum();
        let path = self.reference_path(realm, &reference.to_string());
        let named = Named { reference: reference.to_string(), digest: digest.clone(), realm: realm.to_owned() };
        let bytes = serde_json::to_vec(&named).map_err(|e| Error::invalid(reference.to_string(), e.to_string()))?;
        engine_host::files::write_durably(&path, &bytes, 0o600).map_err(Error::io("write", path))?;
        Ok(Listed { reference: named.reference, digest: named.digest, size_bytes, realm: named.realm })
    }

    fn listed(&self, named: Named) -> Result<Listed, Error> {
        let size_bytes = self.blobs_of(&named.digest)?.iter().map(|b| b.size).sum();
        Ok(Listed { reference: named.reference, digest: named.digest, size_bytes, realm: named.realm })
    }

    fn digest_of(&self, reference: &Reference) -> Result<Option<Digest>, Error> {
        Ok(self.named(reference, "")?.into_iter().next().map(|named| named.digest))
    }

    pub(crate) fn manifest(&self, digest: &Digest) -> Result<Manifest, Error> {
        Manifest::parse(&format!("manifest {digest}"), &self.0.blobs.read(digest, DOCUMENT_SIZE_MAX)?)
    }

    pub(crate) fn blobs_of(&self, digest: &Digest) -> Result<Vec<Blob>, Error> {
        let manifest = self.manifest(digest)?;
        let own = Blob { digest: digest.clone(), size: self.0.blobs.size(digest)? };
        let rest = manifest.blobs().map(|d| Ok(Blob { digest: d.digest.clone(), size: self.0.blobs.size(&d.digest)? }));
        std::iter::once(Ok(own)).chain(rest).collect()
    }

    pub(crate) fn lock(&self, how: FlockArg) -> Result<Flock<File>, Error> {
        let path = self.0.root.join("lock");
        let file = File::options().create(true).append(true).open(&path).map_err(Error::io("open", &path))?;
        Flock::lock(file, how).map_err(|(_, e)| Error::io("lock", path)(e.into()))
    }
}

/// A layer's directory: 128 bits of its digest, so that 100 of them fit into one page of mount options.
fn layer_name(digest: &Digest) -> &str {
    &digest.hex()[..32]
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::invalid("image store", format!("a task was lost: {e}"))),
    }
}
