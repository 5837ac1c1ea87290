//! Nobody gives away rights that it does not have: who writes a role or a binding needs what it gives, or the verbs `escalate` and `bind`.

use serde_json::Value;

use super::{Attributes, GROUP, MASTERS, Rule, decide};
use crate::admission::{Operation, Request};
use crate::auth::User;
use crate::server::ApiServer;
use crate::status::Status;
use crate::verbs::read::decoded;

/// Judges what is written of the kinds that give rights.
///
/// # Errors
/// 403 with the rules that the writer lacks; 404 for a role that is bound and not there.
pub fn judge(server: &ApiServer, request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let user = request.user;
    let masters = user.groups.iter().any(|group| group == MASTERS);
    if request.group != GROUP || request.operation == Operation::Delete || masters {
        return Ok(());
    }
    let same = |field: &str| request.old.is_some_and(|old| old[field] == object[field]);
    match request.plural {
        "roles" | "clusterroles" => {
            if (same("rules") && same("aggregationRule"))
                || may(server, request, "escalate", request.plural, request.name)?
            {
                return Ok(());
            }
            let mut wanted = Rule::all(object);
            if object["aggregationRule"].is_object() && !same("aggregationRule") {
                // It may become anything.
                let every = || vec!["*".to_owned()];
                wanted.push(Rule { verbs: every(), groups: every(), resources: every(), ..Rule::default() });
                wanted.push(Rule { verbs: every(), urls: every(), ..Rule::default() });
            }
            covered(server, request, &wanted)
        }
        _ => {
            if same("roleRef") && same("subjects") {
                return Ok(());
            }
            let (kind, name) = (&object["roleRef"]["kind"], object["roleRef"]["name"].as_str().unwrap_or_default());
            let (plural, home) = if kind == "Role" { ("roles", request.namespace) } else { ("clusterroles", "") };
            if may(server, request, "bind", plural, name)? {
                return Ok(());
            }
            let kind = server.inner.registry.get(GROUP, "v1", plural).ok_or_else(Status::no_resource)?;
            let entry =
                server.inner.store.get(&kind.key(home, name)).ok_or_else(|| Status::not_found(GROUP, plural, name))?;
            covered(server, request, &Rule::all(&decoded(&kind, &entry)?))
        }
    }
}

fn may(server: &ApiServer, request: &Request<'_>, verb: &str, plural: &str, name: &str) -> Result<bool, Status> {
    let asked = Attributes {
        verb: verb.into(),
        group: GROUP.into(),
        resource: plural.into(),
        namespace: request.namespace.into(),
        name: name.into(),
        path: String::new(),
    };
    Ok(decide(server, request.user, &asked)?.is_some())
}

fn covered(server: &ApiServer, request: &Request<'_>, wanted: &[Rule]) -> Result<(), Status> {
    let held = server.inner.rights.now(server)?.rules(request.user, request.namespace);
    let beyond = Rule::beyond(&held, wanted);
    if beyond.is_empty() {
        return Ok(());
    }
    let User { name, groups } = request.user;
    let groups: Vec<String> = groups.iter().map(|group| format!("{group:?}")).collect();
    let rules: Vec<String> = beyond.iter().map(Rule::shown).collect();
    let why = format!(
        "user {name:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        groups.join(" "),
        rules.join("\n")
    );
    Err(Status::forbidden(GROUP, request.plural, request.name, &why))
}
