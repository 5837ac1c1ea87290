//! The verbs on objects. Each takes a [`Call`], and what it changes goes through [`write`] alone.

mod closing;
pub mod connect;
mod delete;
mod eviction;
mod patch;
mod port_forward;
pub mod proxy;
pub(crate) mod read;
mod resize;
mod spdy;
mod subresource;
mod terminal;
mod watch;
pub(crate) mod write;

use std::sync::Arc;

use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::Value;

use crate::admission::{self, Operation};
use crate::audit;
use crate::auth::User;
use crate::authorization::reviews;
use crate::body::{self, Body, Format, Offer, View};
use crate::kinds::{Kind, Rules};
use crate::object;
use crate::route::{self, Query, Route};
use crate::server::ApiServer;
use crate::status::{FieldError, FieldReason, Status};
use crate::table;
use crate::usage;

/// One request on a resource.
pub struct Call {
    /// Who asks.
    pub user: User,
    /// What kind.
    pub kind: Arc<Kind>,
    /// What of it.
    pub route: Route,
    /// Parameters.
    pub query: Query,
    /// The method.
    pub method: Method,
    /// Headers.
    pub headers: HeaderMap,
}

impl Call {
    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(&self.kind.names.group, &self.kind.names.plural, &self.route.name)
    }

    fn stale(&self) -> Status {
        Status::stale(&self.kind.names.group, &self.kind.names.plural, &self.route.name)
    }

    /// Whether nothing is to be kept.
    ///
    /// # Errors
    /// 400 for a value other than `All`.
    pub(crate) fn dry_run(&self) -> Result<bool, Status> {
        match self.query.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => {
                let error = FieldError::not_supported("dryRun", &serde_json::json!([other]), &["All"]);
                Err(Status::invalid("meta.k8s.io", self.options(), "", &[error]))
            }
        }
    }

    fn key(&self) -> String {
        self.kind.key(&self.route.namespace, &self.route.name)
    }

    fn content_type(&self) -> &str {
        self.headers.get(http::header::CONTENT_TYPE).and_then(|c| c.to_str().ok()).unwrap_or_default()
    }

    /// How the answer is wanted.
    ///
    /// # Errors
    /// 406 when there is no such answer.
    fn wanted(&self, stream: bool) -> Result<(View, Format), Status> {
        let has_messages = matches!(self.kind.rules, Rules::Builtin(_)) && self.kind.names.group != usage::GROUP;
        let protobuf = has_messages || self.route.subresource == "scale";
        body::negotiate(&self.headers, Offer { protobuf, stream })
    }

    /// Whether this is server-side apply.
    fn applies(&self) -> bool {
        self.method == Method::PATCH && self.content_type().split(';').next().is_some_and(|c| c.trim() == patch::APPLY)
    }

    /// Under which name the caller owns what it writes: the one that it gives, else its program's, else its own.
    ///
    /// # Errors
    /// 422 for a name that is too long or not printable.
    fn manager(&self) -> Result<String, Status> {
        const BYTES_MAX: usize = 128; // `FieldManagerMaxLength` upstream
        if let Some(given) = self.query.get("fieldManager").filter(|given| !given.is_empty()) {
            let field = "fieldManager";
            let error = if given.len() > BYTES_MAX {
                let message = format!("Too long: may not be more than {BYTES_MAX} bytes");
                FieldError { reason: FieldReason::TooLong, field: field.into(), message }
            } else if given.chars().any(char::is_control) {
                FieldError::invalid(field, &given.into(), "should only contain printable characters")
            } else {
                return Ok(given.to_owned());
            };
            return Err(Status::invalid("meta.k8s.io", self.options(), "", &[error]));
        }
        let agent =
            self.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let program = agent.split('/').next().unwrap_or_default();
        let name = if program.is_empty() { &self.user.name } else { program };
        Ok(name.chars().filter(|c| !c.is_control()).take(BYTES_MAX).collect())
    }

    /// What its parameters are called.
    fn options(&self) -> &'static str {
        match self.method {
            Method::POST => "CreateOptions",
            Method::PATCH => "PatchOptions",
            Method::DELETE => "DeleteOptions",
            _ => "UpdateOptions",
        }
    }
}

/// What is done with fields that a kind does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Strict,
    Warn,
    Ignore,
}

impl FieldValidation {
    fn of(query: &Query) -> Result<Self, Status> {
        match query.get("fieldValidation") {
            Some("Strict") => Ok(Self::Strict),
            None | Some("Warn") => Ok(Self::Warn),
            Some("Ignore") => Ok(Self::Ignore),
            Some(other) => Err(Status::bad_request(format!(
                "Invalid value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// Answers a call whose body has been read.
pub async fn answer(server: &ApiServer, call: &Call, sent: &[u8]) -> Result<Response<Body>, Status> {
    if call.kind.namespaced && call.route.namespace.is_empty() && !call.route.name.is_empty() {
        return Err(Status::no_resource());
    }
    if !call.kind.namespaced && !call.route.namespace.is_empty() {
        return Err(Status::no_resource());
    }
    let verb = route::verb(&call.method, &call.route, &call.query).ok_or_else(Status::method_not_allowed)?;
    call.wanted(verb == "watch")?; // nothing may be written for a caller who then cannot read the answer
    if call.route.subresource.is_empty() && !call.kind.verbs.contains(&verb) {
        return Err(Status::method_not_allowed());
    }
    if !call.route.subresource.is_empty() {
        return subresource::answer(server, call, verb, sent).await;
    }
    if reviews::is_review(&call.kind.names.group) {
        let mut review = call.kind.decode(body::parse(&call.headers, sent)?).map_err(Status::bad_request)?.object;
        let dry_run = call.dry_run()?;
        admission::ask(server, call, (Operation::Create, None), &mut review, (None, dry_run)).await?;
        return represent(call, StatusCode::CREATED, &reviews::answer(server, call, review)?);
    }
    if call.kind.names.group == usage::GROUP {
        return usage::answer(server, call, verb).await;
    }
    match verb {
        "get" => {
            if let Some(revision) = read::revision(call)? {
                read::wait_for(server, revision).await?;
            }
            read::get(server, call).await
        }
        "list" => read::list(server, call).await,
        "watch" => watch::watch(server, call).await,
        "create" => {
            let object = body::parse(&call.headers, sent)?;
            audit::makes(&object);
            if call.kind.namespaced && call.route.namespace.is_empty() {
                return Err(Status::method_not_allowed());
            }
            let options = write::WriteOptions::of(call)?;
            let written = write::create(server, &call.user, &call.kind, &call.route.namespace, object, options).await?;
            written.respond(call, StatusCode::CREATED)
        }
        "update" => {
            let object = body::parse(&call.headers, sent)?;
            let written = write::update(server, call, write::Part::Main, |_| Ok(object.clone())).await?;
            written.respond(call, StatusCode::OK)
        }
        "patch" => patch::patch(server, call, write::Part::Main, sent).await,
        "delete" => delete::delete(server, call, sent).await,
        "deletecollection" => delete::delete_collection(server, call, sent).await,
        _ => Err(Status::method_not_allowed()),
    }
}

/// Creates `object` as `user`, with every check that a request from outside meets.
pub(crate) async fn create_object(
    server: &ApiServer,
    user: &User,
    kind: &Arc<Kind>,
    namespace: &str,
    object: Value,
) -> Result<Value, Status> {
    let options = write::WriteOptions {
        dry_run: false,
        validation: FieldValidation::Strict,
        manager: user.name.clone(),
        applied: false,
    };
    write::create(server, user, kind, namespace, object, options).await.map(|written| written.object)
}

/// Replaces an object as `user`, whatever its version is.
pub(crate) async fn update_object(
    server: &ApiServer,
    user: &User,
    kind: &Arc<Kind>,
    namespace: &str,
    name: &str,
    object: Value,
) -> Result<Value, Status> {
    let call = Call {
        user: user.clone(),
        kind: kind.clone(),
        route: Route { namespace: namespace.into(), name: name.into(), ..Route::default() },
        query: Query::default(),
        method: Method::PUT,
        headers: HeaderMap::new(),
    };
    write::update(server, &call, write::Part::Main, |_| Ok(object.clone())).await.map(|written| written.object)
}

/// An object in the representation that was asked for.
pub(crate) fn represent(call: &Call, code: StatusCode, object: &Value) -> Result<Response<Body>, Status> {
    Ok(match call.wanted(false)?.0 {
        View::Object => body::json(code, object),
        View::Metadata => body::json(code, &table::partial(object)),
        View::Table => {
            let metadata = serde_json::json!({ "resourceVersion": object::meta(object, "resourceVersion") });
            let include = call.query.get("includeObject").unwrap_or("Metadata");
            body::json(code, &table::table(&call.kind, std::slice::from_ref(object), metadata, include))
        }
    })
}

/// Objects that are not of the store, in the representation that was asked for.
pub(crate) fn represent_list(call: &Call, objects: &[Value], metadata: Value) -> Result<Response<Body>, Status> {
    let names = &call.kind.names;
    let list = match call.wanted(false)?.0 {
        View::Object => serde_json::json!({
            "kind": format!("{}List", names.kind), "apiVersion": format!("{}/{}", names.group, names.version),
            "metadata": metadata, "items": objects,
        }),
        View::Metadata => {
            let items: Vec<Value> = objects.iter().map(table::partial).collect();
            serde_json::json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items,
            })
        }
        View::Table => {
            let include = call.query.get("includeObject").unwrap_or("Metadata");
            table::table(&call.kind, objects, metadata, include)
        }
    };
    Ok(body::json(StatusCode::OK, &list))
}
