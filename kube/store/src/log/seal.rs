//! *Sealing*: values under given prefixes are encrypted on the disk, by AES-256-GCM, and bound to their key and revision, so that
//! a sealed value cannot be put in another's place.
//!
//! ```text
//! sealed value   length of the key's name 1 │ name │ nonce 12 │ ciphertext │ tag 16
//! ```
//!
//! The first key seals; all of them open. Values that are not sealed by the first key, or should not be sealed at all, are
//! written anew when the store is opened, so that a key can be replaced: put the new one first, start, and remove the old one.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::{Error, Revision};

/// A key and its name.
#[derive(Clone)]
pub struct Key {
    name: String,
    key: LessSafeKey,
}

impl Key {
    /// A key of 32 bytes. Its name is written beside what it seals.
    ///
    /// # Errors
    /// [`Error::Sealing`]: the name is empty or longer than 64 bytes, or the key is not 32 bytes long.
    pub fn new(name: &str, bytes: &[u8]) -> Result<Self, Error> {
        if name.is_empty() || name.len() > 64 {
            return Err(Error::Sealing(format!("the name of a key is 1 to 64 bytes long, not {}", name.len())));
        }
        let wrong = || Error::Sealing(format!("key {name} has {} bytes; needed are 32", bytes.len()));
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| wrong())?);
        Ok(Self { name: name.to_owned(), key })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is sealed, and by which keys.
#[derive(Clone, Debug, Default)]
pub struct Sealing {
    /// Values of keys that begin with one of these are sealed.
    pub prefixes: Vec<String>,
    /// The first one seals, every one opens. Without any, nothing is sealed.
    pub keys: Vec<Key>,
    /// The keys only open: what they sealed is written open again.
    pub open: bool,
}

impl Sealing {
    fn key_for(&self, key: &[u8]) -> Option<&Key> {
        let applies = !self.open && self.prefixes.iter().any(|prefix| key.starts_with(prefix.as_bytes()));
        self.keys.first().filter(|_| applies)
    }

    /// The sealed value, if values of this key are sealed.
    pub(super) fn seal(&self, key: &[u8], revision: Revision, value: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let Some(Key { name, key: cipher }) = self.key_for(key) else { return Ok(None) };
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| Error::Sealing("no randomness".into()))?;
        let mut ciphertext = value.to_vec();
        cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound_to(key, revision), &mut ciphertext)
            .map_err(|_| Error::Sealing(format!("key {name} refuses")))?;
        let mut sealed = vec![name.len() as u8];
        sealed.extend_from_slice(name.as_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        Ok(Some(sealed))
    }

    /// The value of a sealed one, and whether it is sealed as it would be today.
    pub(super) fn open(&self, key: &[u8], revision: Revision, sealed: &[u8]) -> Result<(Vec<u8>, bool), Error> {
        let shown = String::from_utf8_lossy(key);
        let damaged = || {
            Error::Sealing(format!(
                "the sealed value of {shown} does not open: it is damaged, or its key is another of the same name"
            ))
        };
        let (length, rest) = sealed.split_first().ok_or_else(damaged)?;
        let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or_else(damaged)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(damaged)?;
        let Some(found) = self.keys.iter().find(|candidate| candidate.name.as_bytes() == name) else {
            let known: Vec<&str> = self.keys.iter().map(|key| key.name.as_str()).collect();
            let name = String::from_utf8_lossy(name);
            return Err(Error::Sealing(format!(
                "the value of {shown} is sealed by key {name:?}, and the keys given are {known:?}"
            )));
        };
        let mut value = ciphertext.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = found.key.open_in_place(nonce, bound_to(key, revision), &mut value).map_err(|_| damaged())?.len();
        value.truncate(length);
        let today = self.key_for(key).is_some_and(|first| first.name == found.name);
        Ok((value, today))
    }

    /// Whether an open value is open today.
    pub(super) fn leaves_open(&self, key: &[u8]) -> bool {
        self.key_for(key).is_none()
    }
}

fn bound_to(key: &[u8], revision: Revision) -> Aad<Vec<u8>> {
    Aad::from([&revision.to_le_bytes(), key].concat())
}
