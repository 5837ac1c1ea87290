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
use crate::schema;
use crate::server::ApiServer;
use crate::status::Status;
use crate::verbs::{Call, read, write};

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change to its main resource.
    Update,
    /// Its removal.
    Delete,
    /// A connection to it: a terminal, a port, a proxy. The object is what is asked of it.
    Connect,
}

/// Group, version and kind of what is sent to a subresource and is none of the resource's own kind, as a Scale.
pub(crate) type Sent = [&'static str; 3];

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
    /// What the object is, if it is none of that kind.
    pub(crate) sent: Option<Sent>,
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

/// Asks everybody about what is not kept itself: a question, what is sent to a subresource, a connection (`object`, which they may change).
///
/// # Errors
/// 400 for what is none of its kind, and what the first that refuses says.
pub(crate) async fn ask(
    server: &ApiServer,
    call: &Call,
    (operation, sent): (Operation, Option<Sent>),
    object: &mut Value,
    (old, dry_run): (Option<&Value>, bool),
) -> Result<(), Status> {
    let (kind, route) = (&call.kind, &call.route);
    if let Some(sent) = sent {
        *object = decoded(sent, object.take())?;
        if operation == Operation::Create {
            write::place(kind, &route.namespace, object)?;
        }
    }
    let request = Request {
        operation,
        group: &kind.names.group,
        plural: &kind.names.plural,
        subresource: &route.subresource,
        kind,
        sent,
        namespace: &route.namespace,
        name: &route.name,
        user: &call.user,
        old,
        dry_run,
    };
    mutate(server, &request, object).await?;
    judge(server, &request, object).await
}

/// An object of a kind that is only sent.
fn decoded([group, version, name]: Sent, object: Value) -> Result<Value, Status> {
    let cannot =
        |why| Status::bad_request(format!("{name} in version {version:?} cannot be handled as a {name}: {why}"));
    let of = schema::lookup(group, version, name).ok_or_else(|| Status::internal(format!("no type of {name}")))?;
    if !object.is_object() {
        return Err(Status::bad_request("the object provided is unrecognized: it is no JSON object"));
    }
    let (mut object, _) = schema::decode(of, object).map_err(cannot)?;
    object["apiVersion"] = if group.is_empty() { version.into() } else { format!("{group}/{version}").into() };
    object["kind"] = name.into();
    Ok(object)
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

/// Asks everybody who may change `object`. What is created, changed or deleted passes here once for each try to write it.
///
/// # Errors
/// What the first that refuses says.
pub(crate) async fn mutate(server: &ApiServer, request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    namespace_lifecycle::admit(server, request)?;
    node_restriction::judge(server, request, object)?;
    plug_ins(server, request, object).await?;
    let mut pass = webhooks::Pass::default();
    if webhooks::mutate(server, request, object, &mut pass).await? {
        plug_ins(server, request, object).await?;
        webhooks::mutate(server, request, object, &mut pass).await?;
    }
    Ok(())
}

/// Asks everybody who may refuse `object`, which is valid and as it is to be kept.
///
/// # Errors
/// What the first that refuses says.
pub(crate) async fn judge(server: &ApiServer, request: &Request<'_>, object: &Value) -> Result<(), Status> {
    if matches!(request.subresource, "" | "resize") {
        limit_ranger::judge(server, request, object)?;
    }
    pod_security::judge(server, request, object)?;
    escalation::judge(server, request, object)?;
    certificates::judge(server, request, object)?;
    policies::validate(server, request, object).await?;
    webhooks::validate(server, request, object).await
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
