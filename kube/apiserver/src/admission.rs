//! Admission: who may change or refuse an object on its way in. What every server does itself is here; a higher floor
//! adds its own steps through [`Admission`].

use async_trait::async_trait;
use serde_json::Value;

use crate::auth::User;
use crate::status::Status;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change to its main resource.
    Update,
    /// Its removal.
    Delete,
}

/// A write on its way.
#[derive(Debug)]
pub struct Request<'a> {
    /// What is being done.
    pub operation: Operation,
    /// Empty for the core group.
    pub group: &'a str,
    /// As `pods`.
    pub plural: &'a str,
    /// Empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// Empty while a name is still to be generated.
    pub name: &'a str,
    /// Who asks.
    pub user: &'a User,
    /// The object before, for updates and removals.
    pub old: Option<&'a Value>,
    /// Nothing will be kept.
    pub dry_run: bool,
}

/// One step of admission. Steps run in order, after defaults and before validation.
#[async_trait]
pub trait Admission: Send + Sync {
    /// May change `object` or refuse it. For [`Operation::Delete`] changes are ignored.
    async fn admit(&self, request: &Request<'_>, object: &mut Value) -> Result<(), Status>;
}
