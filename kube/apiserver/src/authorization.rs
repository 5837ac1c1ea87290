//! Who may do what: RBAC, deny by default.
//!
//! ```text
//! Role, ClusterRole ─┐
//!                    ├─▶ Index: who ─▶ grants (where, rules) ─▶ decide(user, attributes) ─▶ allowed because … | refused
//! their bindings ────┘      made anew when one of the four kinds was written
//! ```
//!
//! *Attributes* are what is asked for, in RBAC's words. `system:masters` may do everything, before any rule is looked at: the owner of a
//! machine cannot lock itself out, and its own controllers pay nothing. Nobody can give away more than it has ([`escalation`]).

pub mod bootstrap;
pub mod escalation;
mod index;
pub mod reviews;
pub mod rule;

use std::sync::Arc;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

pub use self::index::Index;
pub use self::rule::Rule;
use crate::audit;
use crate::auth::User;
use crate::route::{Query, Route};
use crate::server::ApiServer;
use crate::status::Status;

/// The group whose kinds give rights.
pub const GROUP: &str = "rbac.authorization.k8s.io";
/// May do everything.
pub const MASTERS: &str = "system:masters";

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// As `list`; of other paths the method in small letters.
    pub verb: String,
    /// Empty for the core group.
    pub group: String,
    /// As `pods` or `pods/log`; empty for other paths.
    pub resource: String,
    /// Empty for what no namespace has, and for all of them.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// Of what is no resource, as `/metrics`.
    pub path: String,
}

impl Attributes {
    /// What a request on a resource asks for.
    pub fn of(verb: &str, route: &Route, query: &Query) -> Self {
        let sub = if route.subresource.is_empty() { String::new() } else { format!("/{}", route.subresource) };
        let mut name = route.name.clone();
        if name.is_empty()
            && let Some((_, one)) =
                query.get("fieldSelector").and_then(|selector| selector.split_once("metadata.name="))
        {
            name = one.trim_start_matches('=').split(',').next().unwrap_or_default().to_owned();
        }
        // A namespace is in itself: who has rights in it may be given the one to look at it.
        let own = route.group.is_empty() && route.plural == "namespaces";
        let namespace = if own { route.name.clone() } else { route.namespace.clone() };
        Self {
            verb: verb.to_owned(),
            group: route.group.clone(),
            resource: format!("{}{sub}", route.plural),
            namespace,
            name,
            path: String::new(),
        }
    }

    /// What a request on another path asks for.
    pub fn of_path(verb: &str, path: &str) -> Self {
        Self { verb: verb.to_lowercase(), path: path.to_owned(), ..Self::default() }
    }

    /// What somebody who may not is told.
    fn refusal(&self, user: &User) -> Status {
        if self.resource.is_empty() {
            return Status::forbidden_path(&user.name, &self.verb, &self.path);
        }
        let place = match self.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let plural = self.resource.split('/').next().unwrap_or_default();
        let why = format!(
            "User {:?} cannot {} resource {:?} in API group {:?} {place}",
            user.name, self.verb, self.resource, self.group
        );
        Status::forbidden(&self.group, plural, &self.name, &why)
    }
}

/// The rights that are in force.
#[derive(Default)]
pub struct Rights {
    /// Counts what was written of the kinds that give rights.
    changes: AtomicU64,
    /// Of which count it is, and what was read then.
    known: RwLock<Option<(u64, Arc<Index>)>>,
}

impl Rights {
    /// Something that gives rights was written or is gone.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// What holds now.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn now(&self, server: &ApiServer) -> Result<Arc<Index>, Status> {
        // Counted before it is read: what is written meanwhile makes it old at once.
        let count = self.changes.load(Ordering::SeqCst);
        let known = self.known.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        if let Some((of, index)) = known
            && of == count
        {
            return Ok(index);
        }
        let index = Arc::new(Index::read(server)?);
        *self.known.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some((count, index.clone()));
        Ok(index)
    }
}

/// Why a user may do this, in words; `None` if it may not.
///
/// # Errors
/// When the store cannot be read.
pub fn decide(server: &ApiServer, user: &User, asked: &Attributes) -> Result<Option<String>, Status> {
    if user.groups.iter().any(|group| group == MASTERS) {
        return Ok(Some(String::new()));
    }
    Ok(server.inner.rights.now(server)?.decide(user, asked))
}

/// Lets a user go on, or says what it may not.
///
/// # Errors
/// 403, in the words of kube-apiserver.
pub fn require(server: &ApiServer, user: &User, asked: &Attributes) -> Result<(), Status> {
    match decide(server, user, asked)? {
        Some(_) => Ok(()),
        None => Err(asked.refusal(user)),
    }
}

/// Lets a request go on as [`require`], and notes what was decided.
///
/// # Errors
/// 403, in the words of kube-apiserver.
pub fn admit(server: &ApiServer, user: &User, asked: &Attributes) -> Result<(), Status> {
    let decided = decide(server, user, asked)?;
    audit::note("authorization.k8s.io/decision", if decided.is_some() { "allow" } else { "forbid" });
    audit::note("authorization.k8s.io/reason", decided.as_deref().unwrap_or_default());
    decided.map(|_| ()).ok_or_else(|| asked.refusal(user))
}
