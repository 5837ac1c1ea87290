//! Which requests webhooks and policies are asked about: rules, selectors, and other versions of the same objects.

use std::sync::Arc;

use serde_json::Value;

use super::{Operation, Request};
use crate::kinds::Kind;
use crate::selector::Labels;
use crate::server::ApiServer;
use crate::status::Status;
use crate::verbs::read::decoded;

impl Operation {
    /// As `CREATE`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// What somebody wants to be asked about.
pub(super) struct Scope {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    namespaces: Labels,
    objects: Labels,
    equivalent: bool,
}

struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    scope: String,
}

impl Scope {
    /// Reads a webhook, or what a policy or its binding matches.
    ///
    /// # Errors
    /// A selector that is none.
    pub fn read(from: &Value) -> Result<Self, String> {
        let rules = |field: &str| from[field].as_array().into_iter().flatten().map(Rule::read).collect::<Vec<_>>();
        Ok(Self {
            rules: rules("rules").into_iter().chain(rules("resourceRules")).collect(),
            excluded: rules("excludeResourceRules"),
            namespaces: Labels::from_object(&from["namespaceSelector"])?,
            objects: Labels::from_object(&from["objectSelector"])?,
            equivalent: from["matchPolicy"] != "Exact",
        })
    }

    /// The kind as which the objects of a request are wanted, if they are; without rules every kind is (bindings).
    ///
    /// # Errors
    /// When the request's namespace cannot be read.
    pub fn wants(
        &self,
        server: &ApiServer,
        request: &Request<'_>,
        object: &Value,
    ) -> Result<Option<Arc<Kind>>, Status> {
        let own = || server.inner.registry.get(request.group, &request.kind.names.version, request.plural);
        let hit = |rules: &[Rule], kind: &Kind| rules.iter().any(|rule| rule.hits(request, kind));
        if hit(&self.excluded, request.kind) {
            return Ok(None);
        }
        let found = if hit(&self.rules, request.kind) || self.rules.is_empty() {
            own()
        } else if self.equivalent {
            let prefix = request.kind.prefix("");
            let others = server.inner.registry.all().into_iter().filter(|kind| kind.prefix("") == prefix);
            others.into_iter().find(|kind| hit(&self.rules, kind) && !hit(&self.excluded, kind))
        } else {
            None
        };
        if found.is_none() || !self.selects_object(request, object) {
            return Ok(None);
        }
        Ok(if self.selects_namespace(server, request, object)? { found } else { None })
    }

    fn selects_object(&self, request: &Request<'_>, object: &Value) -> bool {
        // What can have no labels is selected by none.
        let fits =
            |object: &Value| object["metadata"].is_object() && self.objects.matches(&object["metadata"]["labels"]);
        let now = request.operation != Operation::Delete && fits(object);
        self.objects.is_empty() || now || request.old.is_some_and(fits)
    }

    fn selects_namespace(&self, server: &ApiServer, request: &Request<'_>, object: &Value) -> Result<bool, Status> {
        if self.namespaces.is_empty() {
            return Ok(true);
        }
        if request.is_namespace() {
            return Ok(self.namespaces.matches(&object["metadata"]["labels"]));
        }
        let namespace = namespace_object(server, request)?;
        Ok(namespace.is_none_or(|namespace| self.namespaces.matches(&namespace["metadata"]["labels"])))
    }
}

/// The namespace in which something is written; none for what lives in none.
///
/// # Errors
/// When it cannot be read.
pub(super) fn namespace_object(server: &ApiServer, request: &Request<'_>) -> Result<Option<Value>, Status> {
    if request.namespace.is_empty() {
        return Ok(None);
    }
    let kind = server.inner.registry.get("", "v1", "namespaces").ok_or_else(Status::no_resource)?;
    let entry = server
        .inner
        .store
        .get(&kind.key("", request.namespace))
        .ok_or_else(|| Status::not_found("", "namespaces", request.namespace))?;
    decoded(&kind, &entry).map(Some)
}

impl Rule {
    fn read(rule: &Value) -> Self {
        let list = |field: &str| -> Vec<String> {
            rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            operations: list("operations"),
            groups: list("apiGroups"),
            versions: list("apiVersions"),
            resources: list("resources"),
            names: list("resourceNames"),
            scope: rule["scope"].as_str().unwrap_or("*").to_owned(),
        }
    }

    /// Whether it speaks of a request, taken for one on `kind`.
    fn hits(&self, request: &Request<'_>, kind: &Kind) -> bool {
        let any = |list: &[String], word: &str| list.iter().any(|known| known == "*" || known == word);
        let resource = |known: &String| {
            let (plural, subresource) = known.split_once('/').unwrap_or((known, ""));
            (plural == "*" || plural == kind.names.plural) && (subresource == "*" || subresource == request.subresource)
        };
        any(&self.operations, request.operation.word())
            && any(&self.groups, &kind.names.group)
            && any(&self.versions, &kind.names.version)
            && self.resources.iter().any(resource)
            && (self.names.is_empty() || self.names.iter().any(|name| name == request.name))
            && match self.scope.as_str() {
                "Namespaced" => !request.namespace.is_empty(),
                "Cluster" => request.namespace.is_empty(),
                _ => true,
            }
    }
}
