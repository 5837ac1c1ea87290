//! Configurations that are asked at every write: read once, and again only when the store has others.
//!
//! A write without any costs one look into the store's map; with some, a comparison of their revisions.

use std::sync::{Arc, RwLock};

use serde_json::Value;
use substrate_store::Revision;

use crate::object;
use crate::server::ApiServer;
use crate::status::Status;

/// What was read of all objects of one kind of `admissionregistration.k8s.io`.
pub(super) struct Registered<T> {
    plural: &'static str,
    read: fn(&Value) -> Vec<T>,
    known: RwLock<Arc<Known<T>>>,
}

struct Known<T> {
    /// Which objects, as they were.
    of: Vec<(Arc<str>, Revision)>,
    items: Arc<Vec<T>>,
}

impl<T> Registered<T> {
    /// Nothing is read yet. `read` makes of one object what is needed of it.
    pub fn new(plural: &'static str, read: fn(&Value) -> Vec<T>) -> Self {
        let known = Known { of: Vec::new(), items: Arc::new(Vec::new()) };
        Self { plural, read, known: RwLock::new(Arc::new(known)) }
    }

    /// What holds now, in the order of the objects' names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn now(&self, server: &ApiServer) -> Result<Arc<Vec<T>>, Status> {
        let prefix = format!("/admissionregistration.k8s.io/{}/", self.plural);
        let page = server.inner.store.list(&prefix, None, 0, None).map_err(Status::internal)?;
        let known = self.known.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let same = page.entries.len() == known.of.len()
            && page.entries.iter().zip(&known.of).all(|(entry, (key, at))| entry.revision == *at && entry.key == *key);
        if same {
            return Ok(known.items.clone());
        }
        let mut items = Vec::new();
        for entry in &page.entries {
            items.extend((self.read)(&object::decode(&entry.value, entry.revision).map_err(Status::internal)?));
        }
        let of = page.entries.into_iter().map(|entry| (entry.key, entry.revision)).collect();
        let items = Arc::new(items);
        let fresh = Known { of, items: items.clone() };
        *self.known.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(fresh);
        Ok(items)
    }
}
