//! Who may have an image that is here. One that was loaded by hand, or pulled without a credential or with one of the machine's, is for
//! everybody. One that was pulled with the credential of a *caller* serves another only when that one's credential has been admitted by
//! the registry, too; one that somebody else's machine brought (a *realm*) serves that one alone.
//!
//! ```text
//! access/HEX    {realm, repository, digest, credentials: [mark of each that was admitted]}     none: for everybody
//! access/salt   what marks are made with: they tell a credential from others and do not give it away
//! ```
//!
//! The file is written before the first layer comes, and gone only with the image's last name: a pull that is cut short leaves nothing that
//! serves somebody else. A layer on its own is no way in: one that a caller has no image with is fetched again from where the caller has it,
//! however many copies are here ([`Incoming`]). The same idea: KEP-2535, "Ensure Secret Pulled Images".

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;

use super::config::{DOCUMENT_SIZE_MAX, Manifest};
use super::credentials::Credential;
use super::names::Named;
use super::store::{Blob, Hold, ImageStore, blocking};
use super::{BLOB_SIZE_MAX, Digest, Error, Reference};

/// Marks of one image: the oldest go, and whoever had them asks the registry again.
const MARKS_MAX: usize = 100;

/// Who wants an image.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Empty: the machine's owner. Others have names of their own: what they bring is seen by nobody else.
    pub realm: String,
    /// What it can show a registry, tried in turn.
    pub credentials: Vec<Credential>,
}

/// Why an image is given to whoever wanted it.
#[derive(Clone, Copy, Debug)]
pub enum Admitted<'a> {
    /// It would be given to anybody.
    Everybody,
    /// A registry knows this credential.
    With(&'a Credential),
}

/// What is here for a caller.
#[derive(Debug)]
pub enum Found {
    /// Nothing of that name.
    Absent,
    /// The image is here, and the caller has not been admitted to it.
    Barred,
    /// The image.
    Here(Box<super::Image>),
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Access {
    #[serde(default)]
    realm: String,
    repository: String,
    digest: Digest,
    #[serde(default)]
    credentials: Vec<String>,
}

/// A caller as it is held against files.
pub(crate) struct Marked {
    realm: String,
    marks: Vec<String>,
}

impl Marked {
    fn may(&self, access: &Access) -> bool {
        match (access.realm.is_empty(), access.realm == self.realm) {
            (true, true) => access.credentials.iter().any(|mark| self.marks.contains(mark)),
            (false, same) => same,
            (true, false) => false,
        }
    }
}

impl ImageStore {
    pub(crate) fn marked(&self, caller: &Caller) -> Result<Marked, Error> {
        let salt = if caller.credentials.is_empty() { Vec::new() } else { self.salt()? };
        let marks = caller.credentials.iter().map(|credential| credential.mark(&salt)).collect();
        Ok(Marked { realm: caller.realm.clone(), marks })
    }

    fn salt(&self) -> Result<Vec<u8>, Error> {
        let path = self.access_dir().join("salt");
        let read = || match fs::read(&path) {
            Ok(salt) if salt.len() == 32 => Ok(Some(salt)),
            Ok(_) => Ok(None), // being written
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", &path)(e)),
        };
        if let Some(salt) = read()? {
            return Ok(salt);
        }
        // Linked into place whole: of several processes the first one's counts.
        let mut salt = vec![0; 32];
        let random = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut salt));
        random.map_err(Error::io("read", "/dev/urandom"))?;
        let half = self.access_dir().join(format!("salt.{}.half", std::process::id()));
        let file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&half);
        let written = file.and_then(|mut file| file.write_all(&salt).and_then(|()| file.sync_all()));
        written.map_err(Error::io("write", &half))?;
        let linked = fs::hard_link(&half, &path);
        let _ = fs::remove_file(&half); // what it was made for is done
        match linked {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(Error::io("name", &path)(e)),
            _ => read()?.ok_or_else(|| Error::invalid(path.display().to_string(), "is not 32 bytes; remove it")),
        }
    }

    fn access_path(&self, realm: &str, repository: &str, digest: &Digest) -> PathBuf {
        let key = format!("{realm}\0{repository}@{digest}");
        self.access_dir().join(Digest::of(key.as_bytes()).hex())
    }

    pub(crate) fn access(&self, realm: &str, repository: &str, digest: &Digest) -> Result<Option<Access>, Error> {
        read_access(&self.access_path(realm, repository, digest))
    }

    fn write_access(&self, access: &Access) -> Result<(), Error> {
        let path = self.access_path(&access.realm, &access.repository, &access.digest);
        let bytes = serde_json::to_vec(access).map_err(|e| Error::invalid(&access.repository, e.to_string()))?;
        engine_host::files::write_durably(&path, &bytes, 0o600).map_err(Error::io("write", path))
    }

    /// From now on the image is for everybody.
    pub(crate) fn open_to_all(&self, reference: &Reference, digest: &Digest) -> Result<(), Error> {
        let path = self.access_path("", &reference.repository(), digest);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
            _ => Ok(()),
        }
    }

    /// Whether a name that is here is for this caller.
    pub(crate) fn may(&self, who: &Marked, named: &Named) -> Result<bool, Error> {
        match self.access(&named.realm, &named.repository()?, &named.digest)? {
            Some(access) => Ok(who.may(&access)),
            None => Ok(named.realm.is_empty() || named.realm == who.realm),
        }
    }

    /// Every file about access with what it says.
    pub(crate) fn accesses(&self) -> Result<Vec<(PathBuf, Access)>, Error> {
        let dir = self.access_dir();
        let mut all = Vec::new();
        for entry in fs::read_dir(&dir).map_err(Error::io("list", &dir))? {
            let path = entry.map_err(Error::io("list", &dir))?.path();
            let is_one = path.extension().is_none() && !path.ends_with("salt");
            if is_one && let Some(access) = read_access(&path)? {
                all.push((path, access));
            }
        }
        Ok(all)
    }

    /// Files about images that have no name any more are taken away. The caller holds the exclusive lock.
    pub(crate) fn collect_access(&self, names: &[Named]) -> Result<(), Error> {
        for (path, access) in self.accesses()? {
            let is_of = |named: &&Named| {
                named.realm == access.realm
                    && named.digest == access.digest
                    && named.repository().is_ok_and(|repository| repository == access.repository)
            };
            if !names.iter().any(|named| is_of(&named)) {
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Blobs that are here for others and not for this caller.
    fn barred(&self, who: &Marked) -> Result<HashSet<Digest>, Error> {
        let mut barred = HashSet::new();
        for (_, access) in self.accesses()? {
            if let Ok(manifest) = self.manifest(&access.digest)
                && !who.may(&access)
            {
                barred.extend(manifest.blobs().map(|blob| blob.digest.clone()));
            }
        }
        if !barred.is_empty() {
            for named in self.names()? {
                if self.may(who, &named)? {
                    for blob in self.blobs_of(&named.digest)? {
                        barred.remove(&blob.digest);
                    }
                }
            }
        }
        Ok(barred)
    }

    /// Begins to bring an image of which the manifest is known and whose source has admitted the caller.
    ///
    /// # Errors
    /// The manifest is none or names absurd sizes; the disk has no room for what is missing.
    pub async fn incoming(
        &self,
        reference: &Reference,
        manifest: &[u8],
        caller: &Caller,
        admitted: Admitted<'_>,
    ) -> Result<Incoming, Error> {
        let hold = self.hold().await?;
        let (store, reference, caller) = (self.clone(), reference.clone(), caller.clone());
        let (bytes, digest) = (manifest.to_vec(), Digest::of(manifest));
        let with = match admitted {
            Admitted::With(credential) => Some(credential.clone()),
            Admitted::Everybody => None,
        };
        blocking(move || {
            let manifest = Manifest::parse(&format!("manifest of {reference}"), &bytes)?;
            store.0.blobs.write(bytes.as_slice(), Some(&digest), DOCUMENT_SIZE_MAX)?;
            store.note(&reference, &digest, &caller.realm, with.as_ref())?;
            let barred = store.barred(&store.marked(&caller)?)?;
            let mut seen = HashSet::new();
            let missing = |blob: &&super::config::Descriptor| {
                seen.insert(blob.digest.clone()) && (barred.contains(&blob.digest) || !store.has(&blob.digest))
            };
            let needed: Vec<Blob> = manifest
                .blobs()
                .filter(missing)
                .map(|blob| Blob { digest: blob.digest.clone(), size: blob.size })
                .collect();
            if let Some(absurd) = needed.iter().find(|blob| blob.size > BLOB_SIZE_MAX) {
                return Err(Error::TooLarge { what: format!("blob {}", absurd.digest), max: BLOB_SIZE_MAX });
            }
            store.has_room(needed.iter().map(|blob| blob.size).sum())?;
            let is_open = with.is_none() && caller.realm.is_empty();
            Ok(Incoming { store, reference, realm: caller.realm, digest, needed, barred, is_open, _hold: hold })
        })
        .await
    }

    /// Whoever brings this blob holds the lock.
    fn flight(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.0.flights.lock().unwrap_or_else(|e| e.into_inner());
        flights.retain(|_, flight| flight.strong_count() > 0);
        let known = flights.get(digest).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let flight = Arc::default();
            flights.insert(digest.clone(), Arc::downgrade(&flight));
            flight
        })
    }

    /// Notes who is admitted, before there is anything to have.
    fn note(
        &self,
        reference: &Reference,
        digest: &Digest,
        realm: &str,
        with: Option<&Credential>,
    ) -> Result<(), Error> {
        if with.is_none() && realm.is_empty() {
            return Ok(());
        }
        let repository = reference.repository();
        let known = self.access(realm, &repository, digest)?;
        if known.is_none() && realm.is_empty() {
            let is_it = |named: &Named| {
                named.realm.is_empty() && named.digest == *digest && named.repository().is_ok_and(|r| r == repository)
            };
            if self.names()?.iter().any(is_it) {
                return Ok(()); // everybody has it already
            }
        }
        let mut credentials = known.map(|access| access.credentials).unwrap_or_default();
        if let Some(credential) = with.filter(|_| realm.is_empty()) {
            let mark = credential.mark(&self.salt()?);
            credentials.retain(|known| *known != mark);
            credentials.push(mark);
            credentials.drain(..credentials.len().saturating_sub(MARKS_MAX));
        }
        self.write_access(&Access { realm: realm.to_owned(), repository, digest: digest.clone(), credentials })
    }
}

fn read_access(path: &std::path::Path) -> Result<Option<Access>, Error> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Error::invalid(path.display().to_string(), format!("is no file about access: {e}"))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}

/// An image on its way in. Nothing is collected while it lives; it has a name when it is [finished](Self::finish).
#[derive(Debug)]
pub struct Incoming {
    store: ImageStore,
    reference: Reference,
    realm: String,
    digest: Digest,
    needed: Vec<Blob>,
    barred: HashSet<Digest>,
    is_open: bool,
    _hold: Hold,
}

impl Incoming {
    /// What must be brought, each once: what is not here, and what is here for others alone.
    pub fn needed(&self) -> &[Blob] {
        &self.needed
    }

    /// Takes one blob; nothing is kept unless it has its digest and no more than its size. `from` is waited for only if nobody else has
    /// brought the bytes meanwhile: of several that want a blob one fetches it, and the others wait.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::TooLarge`], the disk, or what `from` says.
    pub async fn take<R: AsyncRead + Unpin + Send>(
        &self,
        blob: &Blob,
        from: impl Future<Output = Result<R, Error>> + Send,
    ) -> Result<(), Error> {
        let flight = self.store.flight(&blob.digest);
        let _alone = flight.lock().await;
        if self.store.has(&blob.digest) && !self.barred.contains(&blob.digest) {
            return Ok(());
        }
        let put = self.store.put(&blob.digest, from.await?, blob.size.min(BLOB_SIZE_MAX)).await;
        put.map_err(|error| self.store.full(error, blob.size))
    }

    /// Names the image; all its blobs must be here.
    ///
    /// # Errors
    /// A blob is missing, or a file cannot be written.
    pub async fn finish(self) -> Result<(), Error> {
        blocking(move || {
            if self.is_open {
                self.store.open_to_all(&self.reference, &self.digest)?;
            }
            self.store.name(&self.realm, &self.reference, &self.digest).map(drop)
        })
        .await
    }
}
