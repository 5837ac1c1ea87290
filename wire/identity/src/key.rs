//! The key pair of a node and the file that keeps it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, spki::der::pem::LineEnding};
use ed25519_dalek::{Signer, SigningKey};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};

use crate::history::finish_rotation;
use crate::{IdError, NodeId, TlsError};

/// The file of a node's key in its identity directory.
pub const NODE_KEY_FILE: &str = "node.key";
/// A PKCS#8 PEM of an Ed25519 key is under 200 bytes; anything of another size is not ours.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// The Ed25519 key pair of this node. Cloning shares no secret with anybody: it stays in this process.
#[derive(Clone)]
pub struct NodeKey {
    secret: SigningKey,
    id: NodeId,
    /// What TLS shows of it, once it was asked for: clones share it.
    tls: Arc<OnceLock<Arc<CertifiedKey>>>,
}

/// Why there is no key. The owner must mend the directory; trying again alone does not help.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file or its directory could not be read or written.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read the file: it might not be a secret any more.
    #[error("{}: mode is {observed:04o}, needed 0600: others could have read this key. `chmod 600` it if nobody did", path.display())]
    LooseMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        observed: u32,
    },
    /// The file holds something else.
    #[error("{}: not an Ed25519 private key in PKCS#8 PEM: {reason}", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no file.
    #[error("{}: there is no key; make one with: fluidos identity new --out {}", path.display(), path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is a file already, and a key is never overwritten.
    #[error("{}: there is a file already, and a key is never overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A change of the key was interrupted and cannot be finished.
    #[error("finishing the change of the key: {0}")]
    Unfinished(String),
    /// The system gives no random numbers.
    #[error("the system has no random numbers to make a key from")]
    NoRandom,
    /// The key has no usable public half.
    #[error(transparent)]
    Id(#[from] IdError),
}

impl NodeKey {
    /// Returns a new key from the system's random numbers, kept nowhere.
    ///
    /// # Errors
    /// [`KeyError::NoRandom`] if the system has none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        let random = rustls::crypto::ring::default_provider().secure_random;
        random.fill(&mut seed).map_err(|_| KeyError::NoRandom)?;
        Self::from_seed(seed)
    }

    /// Returns the key of a seed: the same seed gives the same node. For tests and simulations.
    ///
    /// # Errors
    /// [`KeyError::Id`] in theory only.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, KeyError> {
        Self::from_secret(SigningKey::from_bytes(&seed))
    }

    fn from_secret(secret: SigningKey) -> Result<Self, KeyError> {
        let id = NodeId::from_public_key(secret.verifying_key().to_bytes())?;
        Ok(Self { secret, id, tls: Arc::default() })
    }

    /// Returns the key kept in `dir`, made now if there is none. The directory is created (0700) if need be. A rotation that
    /// was interrupted is finished.
    ///
    /// *Guarantees*: the file appears whole or not at all, is synced before this returns, has mode 0600, and of two
    /// processes that start at once both get the same key.
    ///
    /// # Errors
    /// [`KeyError`] if the file is readable by others, is not a key, or cannot be read or written.
    pub fn load_or_create(dir: &Path) -> Result<Self, KeyError> {
        let path = dir.join(NODE_KEY_FILE);
        finish_rotation(dir).map_err(|error| KeyError::Unfinished(error.to_string()))?;
        if let Some(key) = Self::load(&path)? {
            return Ok(key);
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("creating directory", dir))?;
        let key = Self::generate()?;
        if key.save(dir, &path)? {
            return Ok(key);
        }
        // Somebody else was faster: that key is the node's.
        Self::load(&path)?.ok_or_else(|| KeyError::NotAKey { path, reason: "it vanished while it was read".into() })
    }

    /// Returns a new key, kept at `path` (0600): an owner's, or the next one of a node. Its directory must be there.
    ///
    /// *Guarantees*: as of [`NodeKey::load_or_create`]; a file that is there stays as it is.
    ///
    /// # Errors
    /// [`KeyError::Exists`], or [`KeyError`] if the file cannot be written.
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let key = Self::generate()?;
        // `owner.key` alone is in the working directory.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if key.save(parent.unwrap_or(Path::new(".")), path)? {
            Ok(key)
        } else {
            Err(KeyError::Exists { path: path.into() })
        }
    }

    /// Returns the key kept at `path`.
    ///
    /// # Errors
    /// [`KeyError::Missing`], or [`KeyError`] if the file is readable by others, is not a key, or cannot be read.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        Self::load(path)?.ok_or_else(|| KeyError::Missing { path: path.into() })
    }

    fn load(path: &Path) -> Result<Option<Self>, KeyError> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("opening", path)(error)),
        };
        let metadata = file.metadata().map_err(failed("reading the mode of", path))?;
        let observed = metadata.mode() & 0o777;
        if observed & 0o077 != 0 {
            return Err(KeyError::LooseMode { path: path.into(), observed });
        }
        let mut pem = String::new();
        (&mut file).take(KEY_FILE_BYTES_MAX).read_to_string(&mut pem).map_err(failed("reading", path))?;
        let secret = SigningKey::from_pkcs8_pem(&pem)
            .map_err(|error| KeyError::NotAKey { path: path.into(), reason: error.to_string() })?;
        Self::from_secret(secret).map(Some)
    }

    /// Puts the key at `path`. Returns false, and changes nothing, if there is one already.
    fn save(&self, dir: &Path, path: &Path) -> Result<bool, KeyError> {
        let pem = self
            .secret
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|error| KeyError::NotAKey { path: path.into(), reason: error.to_string() })?;
        let draft = dir.join(format!(".{NODE_KEY_FILE}.{}.{}", std::process::id(), self.id.tag()));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .map_err(failed("creating", &draft))?;
        let written = file.write_all(pem.as_bytes()).and_then(|()| file.sync_all());
        // A link, not a rename: it fails if the name exists, so a key is never overwritten.
        let linked = written.and_then(|()| fs::hard_link(&draft, path));
        fs::remove_file(&draft).map_err(failed("removing", &draft))?;
        match linked {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(failed("writing", path)(error)),
        }
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("syncing", dir))?;
        Ok(true)
    }

    /// Returns the node's name.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Returns the signature of this node over a message (RFC 8032, deterministic).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.secret.sign(message).to_bytes()
    }

    /// Returns 16 bytes that only this key makes of these: its holder knows them again, and to anybody else they say nothing.
    pub fn mark(&self, nonce: &[u8; 16]) -> [u8; 16] {
        // A signature is the same each time and nobody else's to make; its digest proves nothing to who has not got it. No other message
        // that is signed begins so.
        let signature = self.sign(&[b"fluidos-mark\n".as_slice(), nonce].concat());
        let (digest, mut mark) = (Sha256::digest(signature), [0; 16]);
        mark.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        mark
    }

    /// Returns what TLS shows of this key, made by `make` the first time: a certificate costs as much as a handshake.
    pub(crate) fn certified(
        &self,
        make: impl FnOnce() -> Result<CertifiedKey, TlsError>,
    ) -> Result<Arc<CertifiedKey>, TlsError> {
        if let Some(made) = self.tls.get() {
            return Ok(made.clone());
        }
        let made = Arc::new(make()?);
        Ok(self.tls.get_or_init(|| made).clone())
    }

    /// Returns the key in PKCS#8 DER, for the certificate maker.
    pub(crate) fn pkcs8_der(&self) -> Result<ed25519_dalek::pkcs8::spki::der::zeroize::Zeroizing<Vec<u8>>, String> {
        let document = self.secret.to_pkcs8_der().map_err(|error| error.to_string())?;
        Ok(document.as_bytes().to_vec().into())
    }
}

/// Prints the public half only.
impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeKey").field("id", &self.id).field("secret", &"(redacted)").finish()
    }
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> KeyError {
    move |source| KeyError::Io { action, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_same_directory_is_the_same_node() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("identity");
        let key = NodeKey::load_or_create(&home).unwrap();
        assert_eq!(NodeKey::load_or_create(&home).unwrap().id(), key.id());
        assert_eq!(fs::metadata(home.join(NODE_KEY_FILE)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&home).unwrap().count(), 1, "no draft is left behind");
    }

    #[test]
    fn an_owners_key_is_made_once_and_opened_from_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("owner.key");
        assert!(matches!(NodeKey::open(&path), Err(KeyError::Missing { .. })));
        let key = NodeKey::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(NodeKey::create(&path), Err(KeyError::Exists { .. })));
        assert_eq!(NodeKey::open(&path).unwrap().id(), key.id());
    }

    #[test]
    fn many_starters_agree_on_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let ids: Vec<NodeId> = std::thread::scope(|scope| {
            let start = || scope.spawn(|| NodeKey::load_or_create(dir.path()).unwrap().id());
            let starters: Vec<_> = (0..8).map(|_| start()).collect();
            starters.into_iter().map(|starter| starter.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        NodeKey::load_or_create(dir.path()).unwrap();
        fs::set_permissions(dir.path().join(NODE_KEY_FILE), fs::Permissions::from_mode(0o640)).unwrap();
        let error = NodeKey::load_or_create(dir.path()).unwrap_err();
        assert!(matches!(error, KeyError::LooseMode { observed: 0o640, .. }), "{error}");
    }

    #[test]
    fn a_damaged_key_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        NodeKey::load_or_create(dir.path()).unwrap();
        let path = dir.path().join(NODE_KEY_FILE);
        fs::write(&path, "half a k").unwrap();
        assert!(matches!(NodeKey::load_or_create(dir.path()), Err(KeyError::NotAKey { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "half a k");
    }

    #[test]
    fn the_secret_is_not_printed() {
        let key = NodeKey::from_seed([7; 32]).unwrap();
        let printed = format!("{key:?}");
        assert!(printed.contains("redacted") && !printed.contains("0707") && !printed.contains("7, 7"), "{printed}");
    }

    #[test]
    fn a_signature_holds_for_its_message_and_key_only() {
        let (key, other) = (NodeKey::from_seed([1; 32]).unwrap(), NodeKey::from_seed([2; 32]).unwrap());
        let signature = key.sign(b"one");
        assert!(key.id().verify(b"one", &signature));
        assert!(!key.id().verify(b"two", &signature));
        assert!(!other.id().verify(b"one", &signature));
    }

    #[test]
    fn a_mark_is_of_one_key_and_one_nonce() {
        let (key, other) = (NodeKey::from_seed([1; 32]).unwrap(), NodeKey::from_seed([2; 32]).unwrap());
        assert_eq!(key.mark(&[7; 16]), key.mark(&[7; 16]));
        assert_ne!(key.mark(&[7; 16]), other.mark(&[7; 16]));
        assert_ne!(key.mark(&[7; 16]), key.mark(&[8; 16]));
    }
}
