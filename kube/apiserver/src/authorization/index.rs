//! What everybody may do, ready to be looked up: made of all roles and bindings.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Attributes, GROUP, Rule};
use crate::auth::User;
use crate::server::ApiServer;
use crate::status::Status;
use crate::table::list;
use crate::verbs::read;

/// Something that a binding gives.
struct Grant {
    /// `None` is everywhere.
    namespace: Option<String>,
    rules: Arc<Vec<Rule>>,
    /// As `RoleBinding "x/y" of Role "z" to User "u"`.
    source: String,
}

/// Grants by whom they are for.
#[derive(Default)]
pub struct Index {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

impl Index {
    /// Reads all roles and bindings. A binding whose role is missing gives nothing.
    pub(super) fn read(server: &ApiServer) -> Result<Self, Status> {
        let all = |plural: &str| -> Result<Vec<Value>, Status> {
            let kind = server.inner.registry.get(GROUP, "v1", plural).ok_or_else(Status::no_resource)?;
            read::all(server, &kind, "")
        };
        let mut roles: HashMap<(String, String), Arc<Vec<Rule>>> = HashMap::new();
        for role in all("roles")?.iter().chain(&all("clusterroles")?) {
            roles.insert(
                (text(&role["metadata"]["namespace"]), text(&role["metadata"]["name"])),
                Arc::new(Rule::all(role)),
            );
        }
        let mut index = Self::default();
        for binding in all("rolebindings")?.iter().chain(&all("clusterrolebindings")?) {
            let namespace = binding["metadata"]["namespace"].as_str().map(str::to_owned);
            let (kind, role) = (text(&binding["roleRef"]["kind"]), text(&binding["roleRef"]["name"]));
            let home = if kind == "Role" { namespace.clone().unwrap_or_default() } else { String::new() };
            let Some(rules) = roles.get(&(home, role.clone())) else { continue };
            for subject in list(&binding["subjects"]) {
                index.grant(binding, subject, namespace.clone(), rules, &format!("{kind} {role:?}"));
            }
        }
        Ok(index)
    }

    fn grant(
        &mut self,
        binding: &Value,
        subject: &Value,
        namespace: Option<String>,
        rules: &Arc<Vec<Rule>>,
        role: &str,
    ) {
        let (kind, name) = (text(&subject["kind"]), text(&subject["name"]));
        let from = text(&binding["metadata"]["name"]);
        let from = match &namespace {
            Some(namespace) => format!("RoleBinding \"{from}/{namespace}\""),
            None => format!("ClusterRoleBinding {from:?}"),
        };
        let (of, key, shown) = match kind.as_str() {
            "Group" => (&mut self.groups, name.clone(), name),
            "ServiceAccount" => {
                let home = text(&subject["namespace"]);
                (&mut self.users, format!("system:serviceaccount:{home}:{name}"), format!("{name}/{home}"))
            }
            _ => (&mut self.users, name.clone(), name),
        };
        let source = format!("{from} of {role} to {kind} {shown:?}");
        of.entry(key).or_default().push(Grant { namespace, rules: rules.clone(), source });
    }

    fn grants<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = &'a Grant> {
        let own = self.users.get(&user.name).into_iter();
        let own = own.chain(user.groups.iter().filter_map(|group| self.groups.get(group))).flatten();
        own.filter(move |grant| grant.namespace.as_deref().is_none_or(|home| home == namespace && !home.is_empty()))
    }

    /// Why a user may do this; `None` if it may not.
    pub(super) fn decide(&self, user: &User, asked: &Attributes) -> Option<String> {
        let mut grants = self.grants(user, &asked.namespace);
        let grant = grants.find(|grant| grant.rules.iter().any(|rule| rule.allows(asked)))?;
        Some(format!("RBAC: allowed by {}", grant.source))
    }

    /// Everything that a user may do in a namespace; without one, everywhere.
    pub(super) fn rules(&self, user: &User, namespace: &str) -> Vec<Rule> {
        self.grants(user, namespace).flat_map(|grant| grant.rules.iter().cloned()).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
