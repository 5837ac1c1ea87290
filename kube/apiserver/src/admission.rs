//! Admission: who may change or refuse an object on its way in. What every server does itself are the *plug-ins* here, one
//! file each, under the names that they have in kube-apiserver; a higher floor adds its own steps through [`Admission`].
//!
//! ```text
//! decoded, with defaults ─▶ NamespaceLifecycle, NodeRestriction ─▶ steps of higher floors ─▶ plug-ins ─▶ mutating webhooks      (mutate)
//!                                                 └──────── again, if a webhook changed something ───────┘
//! ─▶ validation ─▶ plug-ins that judge ─▶ policies ─▶ validating webhooks      (judge)
//! ─▶ ResourceQuota ─▶ store
//! ```

mod certificates;
pub(crate) mod conditions;
mod default_storage_class;
mod limit_ranger;
mod matching;
mod namespace_lifecycle;
pub(crate) mod node_restriction;
mod pod_security;
pub(crate) mod policies;
mod priority;
mod registered;
mod resource_quota;
mod runtime_class;
mod service_account;
pub(crate) mod webhooks;

use async_trait::async_trait;
use serde_json::Value;

use self::registered::Registered;
use crate::auth::User;
use crate::authorization::{MASTERS, escalation};
use crate::kinds::Kind;
use crate::server::ApiServer;
use crate::status::Status;
use crate::verbs::read;

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
pub struct Request<'a> {
    /// What is being done.
    pub operation: Operation,
    /// Empty for the core group.
    pub group: &'a str,
    /// As `pods`.
    pub plural: &'a str,
    /// As `ephemeralcontainers`; empty for the object itself.
    pub subresource: &'a str,
    /// Everything else that is known of the kind.
    pub(crate) kind: &'a Kind,
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

impl Request<'_> {
    /// Whether it is about a namespace itself.
    fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.plural == "namespaces"
    }

    /// What webhooks and policies are never asked about: they themselves, or nobody could take a bad one away, and what
    /// the server writes when it starts, or it could not while a webhook is down.
    fn is_exempt(&self) -> bool {
        let is_server = self.user.name == "system:apiserver" && self.user.groups.iter().any(|group| group == MASTERS);
        self.group == "admissionregistration.k8s.io" || is_server
    }
}

/// What is registered at the API itself, in memory.
pub(crate) struct Registrations {
    mutating: Registered<webhooks::Hook>,
    validating: Registered<webhooks::Hook>,
    policies: Registered<policies::Policy>,
    bindings: Registered<policies::Binding>,
}

impl Default for Registrations {
    fn default() -> Self {
        Self {
            mutating: Registered::new("mutatingwebhookconfigurations", webhooks::read),
            validating: Registered::new("validatingwebhookconfigurations", webhooks::read),
            policies: Registered::new("validatingadmissionpolicies", policies::read),
            bindings: Registered::new("validatingadmissionpolicybindings", policies::read_binding),
        }
    }
}

/// One step of admission. Steps run in order, after defaults and before validation.
#[async_trait]
pub trait Admission: Send + Sync {
    /// May change `object` or refuse it. For [`Operation::Delete`] changes are ignored.
    async fn admit(&self, request: &Request<'_>, object: &mut Value) -> Result<(), Status>;
}

/// Asks everybody who may change `object`; what the caller is to read is added to `warnings`. What is created, changed or deleted passes
/// here once for each try to write it.
///
/// # Errors
/// What the first that refuses says.
pub(crate) async fn mutate(
    server: &ApiServer,
    request: &Request<'_>,
    object: &mut Value,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    namespace_lifecycle::admit(server, request)?;
    node_restriction::judge(server, request, object)?;
    plug_ins(server, request, object).await?;
    let mut pass = webhooks::Pass::default();
    if webhooks::mutate(server, request, object, &mut pass, warnings).await? {
        plug_ins(server, request, object).await?;
        webhooks::mutate(server, request, object, &mut pass, warnings).await?;
    }
    Ok(())
}

/// Asks everybody who may refuse `object`, which is valid and as it is to be kept.
///
/// # Errors
/// What the first that refuses says.
pub(crate) async fn judge(
    server: &ApiServer,
    request: &Request<'_>,
    object: &Value,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    if matches!(request.subresource, "" | "resize") {
        limit_ranger::judge(server, request, object)?;
    }
    pod_security::judge(server, request, object, warnings)?;
    escalation::judge(server, request, object)?;
    certificates::judge(server, request, object)?;
    policies::validate(server, request, object, warnings).await?;
    webhooks::validate(server, request, object, warnings).await
}

/// The steps of higher floors and the plug-ins that change.
async fn plug_ins(server: &ApiServer, request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    if !request.subresource.is_empty() {
        return Ok(()); // what observes an object is not held up by who asks for it
    }
    let steps = server.inner.admission.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    for step in steps {
        step.admit(request, object).await?;
    }
    limit_ranger::admit(server, request, object)?;
    service_account::admit(server, request, object)?;
    priority::admit(server, request, object)?;
    default_storage_class::admit(server, request, object)?;
    runtime_class::admit(server, request, object)
}

/// What is only charged once everybody has agreed and the object is valid.
///
/// # Errors
/// When a quota has not enough left.
pub(crate) async fn charge(server: &ApiServer, request: &Request<'_>, object: &Value) -> Result<(), Status> {
    resource_quota::charge(server, request, object).await
}

/// All objects of a kind, in a namespace or of the cluster.
fn all(
    server: &ApiServer,
    (group, version, plural): (&str, &str, &str),
    namespace: &str,
) -> Result<Vec<Value>, Status> {
    let kind = server.inner.registry.get(group, version, plural).ok_or_else(Status::no_resource)?;
    read::all(server, &kind, namespace)
}
