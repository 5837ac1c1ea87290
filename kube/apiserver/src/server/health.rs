//! Whether the server lives and is ready: `/livez`, `/readyz`, `/healthz`, and each of their parts, in upstream's words.

use http::StatusCode;
use http::{Response, header};

use crate::body::{self, Body};
use crate::route::Query;
use crate::server::ApiServer;
use crate::status::Status;

type Check = (&'static str, fn(&ApiServer) -> Result<(), String>);

/// What is looked at, under the names that kube-apiserver has for it: `etcd` is what keeps objects, whatever it is.
const LIVE: &[Check] = &[("ping", |_| Ok(())), ("etcd", store)];
/// What is ready must have written the roles, too: before that nobody but the owner may do anything.
const READY: &[Check] = &[("ping", |_| Ok(())), ("etcd", store), ("poststarthook/rbac/bootstrap-roles", roles)];

fn store(server: &ApiServer) -> Result<(), String> {
    server.inner.store.list("/", None, 1, None).map(|_| ()).map_err(|error| error.to_string())
}

fn roles(server: &ApiServer) -> Result<(), String> {
    let kind = server.inner.registry.by_kind(crate::authorization::GROUP, "ClusterRole").ok_or("no such kind")?;
    server.inner.store.get(&kind.key("", "cluster-admin")).map(|_| ()).ok_or_else(|| "not finished".to_owned())
}

/// The answer to such a path; `None` if it is none.
pub fn answer(server: &ApiServer, path: &str, query: &Query) -> Option<Result<Response<Body>, Status>> {
    let path = path.strip_prefix('/')?; // that of a CONNECT is empty
    let (name, part) = match path.split_once('/') {
        Some((name, part)) => (name, Some(part)),
        None => (path, None),
    };
    let checks = match name {
        "livez" | "healthz" => LIVE,
        "readyz" => READY,
        _ => return None,
    };
    let Some(part) = part.filter(|part| !part.is_empty()) else { return Some(Ok(all(server, name, checks, query))) };
    let Some((_, check)) = checks.iter().find(|(known, _)| *known == part) else {
        return Some(Err(Status::no_resource()));
    };
    Some(Ok(match check(server) {
        Ok(()) => text(StatusCode::OK, "ok".into()),
        Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
    }))
}

fn all(server: &ApiServer, name: &str, checks: &[Check], query: &Query) -> Response<Body> {
    let mut excluded: Vec<&str> = query.all("exclude").collect();
    let (mut said, mut failed) = (String::new(), false);
    for (check, look) in checks {
        let before = excluded.len();
        excluded.retain(|one| one != check);
        if excluded.len() < before {
            said += &format!("[+]{check} excluded: ok\n");
        } else if let Err(why) = look(server) {
            tracing::warn!(check, why, "{name} fails");
            said += &format!("[-]{check} failed: reason withheld\n");
            failed = true;
        } else {
            said += &format!("[+]{check} ok\n");
        }
    }
    if !excluded.is_empty() {
        let list: Vec<String> = excluded.iter().map(|one| format!("{one:?}")).collect();
        said += &format!("warn: some health checks cannot be excluded: no matches for {}\n", list.join(","));
    }
    match (failed, query.all("verbose").next()) {
        (true, _) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{said}{name} check failed\n")),
        (false, Some(_)) => text(StatusCode::OK, format!("{said}{name} check passed\n")),
        (false, None) => text(StatusCode::OK, "ok".into()),
    }
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    let mut response = body::text(code, "");
    *response.body_mut() = body::full(text.into());
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}
