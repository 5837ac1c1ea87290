//! The kinds that are served now: the built-in ones, and those of CustomResourceDefinitions.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use serde_json::Value;

use crate::kinds::{self, Kind};

/// Group, version, plural.
type Id = (String, String, String);

/// Which kinds there are. Clones share the table.
#[derive(Clone)]
pub struct Registry {
    kinds: Arc<RwLock<BTreeMap<Id, Arc<Kind>>>>,
}

impl Registry {
    /// The built-in kinds.
    pub fn builtin() -> Self {
        let kinds = kinds::builtin().into_iter().map(|kind| (id(&kind), kind)).collect();
        Self { kinds: Arc::new(RwLock::new(kinds)) }
    }

    /// The kind of this path.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.read().get(&(group.to_owned(), version.to_owned(), plural.to_owned())).cloned()
    }

    /// The kind of objects that call themselves so.
    pub fn by_kind(&self, group: &str, kind: &str) -> Option<Arc<Kind>> {
        self.read().values().find(|k| k.names.group == group && k.names.kind == kind).cloned()
    }

    /// All kinds, by group, version and plural.
    pub fn all(&self) -> Vec<Arc<Kind>> {
        self.read().values().cloned().collect()
    }

    /// Serves what `definition` says, in place of what it said before.
    pub fn define(&self, definition: &Value) {
        let served = crate::custom::kinds(definition);
        let (group, plural) = names(definition);
        let mut kinds = self.write();
        kinds.retain(|_, kind| !(kind.is(&group, &plural) && is_custom(kind)));
        for kind in served {
            kinds.entry(id(&kind)).or_insert(kind); // a built-in kind cannot be replaced
        }
    }

    /// Serves it no more.
    pub fn forget(&self, definition: &Value) {
        let (group, plural) = names(definition);
        self.write().retain(|_, kind| !(kind.is(&group, &plural) && is_custom(kind)));
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Id, Arc<Kind>>> {
        self.kinds.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<Id, Arc<Kind>>> {
        self.kinds.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn is_custom(kind: &Kind) -> bool {
    matches!(kind.rules, kinds::Rules::Custom(_))
}

fn id(kind: &Kind) -> Id {
    (kind.names.group.to_string(), kind.names.version.to_string(), kind.names.plural.to_string())
}

fn names(definition: &Value) -> (String, String) {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    (text(&definition["spec"]["group"]), text(&definition["spec"]["names"]["plural"]))
}
