//! The names of images: a file for each, which says whose name it is and of which manifest.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::store::ImageStore;
use super::{Digest, Error, Reference};

#[derive(Serialize, Deserialize)]
pub(crate) struct Named {
    pub reference: String,
    pub digest: Digest,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub realm: String,
}

impl Named {
    pub fn repository(&self) -> Result<String, Error> {
        Ok(self.reference.parse::<Reference>()?.repository())
    }
}

impl ImageStore {
    pub(crate) fn names(&self) -> Result<Vec<Named>, Error> {
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

    /// The names that a reference may mean in a realm: its own, then the machine's; by digest any.
    pub(crate) fn named(&self, reference: &Reference, realm: &str) -> Result<Vec<Named>, Error> {
        if let Some(digest) = reference.digest() {
            return Ok(self.names()?.into_iter().filter(|named| named.digest == *digest).collect());
        }
        let mut found = Vec::new();
        let realms = if realm.is_empty() { vec![""] } else { vec![realm, ""] };
        for realm in realms {
            let path = self.reference_path(realm, &reference.to_string());
            match fs::read(&path) {
                Ok(bytes) => {
                    found.push(serde_json::from_slice(&bytes).map_err(|e| {
                        Error::invalid(path.display().to_string(), format!("is no reference file: {e}"))
                    })?)
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("read", path)(e)),
            }
        }
        Ok(found)
    }

    pub(crate) fn reference_path(&self, realm: &str, reference: &str) -> PathBuf {
        let key = if realm.is_empty() { reference.to_owned() } else { format!("{realm}\0{reference}") };
        self.0.root.join("references").join(Digest::of(key.as_bytes()).hex())
    }
}
