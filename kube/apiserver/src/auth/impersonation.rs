//! Asking as somebody else: the headers `Impersonate-User`, `Impersonate-Group`, `Impersonate-Uid` and `Impersonate-Extra-…`.
//! Whoever asks needs the verb `impersonate` on each of what it wants to be.

use http::HeaderMap;

use super::User;
use crate::audit;
use crate::authorization::{Attributes, require};
use crate::server::ApiServer;
use crate::status::Status;

/// Headers of one request that are looked at: each costs a decision.
const HEADERS_MAX: usize = 64;
const ACCOUNT: &str = "system:serviceaccount:";

/// The user as whom a request asks: `user`, if it does not ask as another.
///
/// # Errors
/// 400 for headers without a user, or too many of them; 403 if it may not be one of those; 500 for bytes that are no text, as upstream.
pub(crate) fn apply(server: &ApiServer, user: User, headers: &HeaderMap) -> Result<User, Status> {
    let named = |prefix: &'static str| headers.iter().filter(move |(name, _)| name.as_str().starts_with(prefix));
    let count = named("impersonate-").count();
    if count == 0 {
        return Ok(user);
    }
    if count > HEADERS_MAX {
        return Err(Status::bad_request(format!("{count} headers of impersonation, at most {HEADERS_MAX} are taken")));
    }
    let texts = |name: &str| -> Result<Vec<String>, Status> {
        let values = headers.get_all(name).iter();
        values
            .map(|value| value.to_str().map(str::to_owned).map_err(|_| Status::bad_request(format!("{name}: no text"))))
            .collect()
    };
    let wanted = texts("impersonate-user")?.into_iter().next().unwrap_or_default();
    let groups = texts("impersonate-group")?;
    if wanted.is_empty() {
        return Err(Status::bad_request("requested to impersonate groups, uid or extra without a user"));
    }
    let may = |group: &str, resource: &str, namespace: &str, name: &str| {
        let asked = Attributes {
            verb: "impersonate".into(),
            group: group.into(),
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            path: String::new(),
        };
        require(server, &user, &asked)
    };
    let account = wanted.strip_prefix(ACCOUNT).and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, name)) => may("", "serviceaccounts", namespace, name)?,
        None => may("", "users", "", &wanted)?,
    }
    for group in &groups {
        may("", "groups", "", group)?;
    }
    for uid in texts("impersonate-uid")? {
        may("authentication.k8s.io", "uids", "", &uid)?;
    }
    for (name, value) in named("impersonate-extra-") {
        let key = name.as_str().trim_start_matches("impersonate-extra-");
        may("authentication.k8s.io", &format!("userextras/{key}"), "", value.to_str().unwrap_or_default())?;
    }
    let mut all = groups;
    if let Some((namespace, _)) = account
        && all.is_empty()
    {
        all = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    let known = if wanted == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    if !all.iter().any(|group| group == known) {
        all.push(known.into());
    }
    let user = User { name: wanted, groups: all };
    audit::impersonated(&user);
    Ok(user)
}
