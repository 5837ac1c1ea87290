//! `pods/NAME/proxy` and `services/NAME/proxy`: HTTP to a port of a pod, through the API server. `nodes/NAME/proxy`: what a kubelet says of
//! its node.
//!
//! ```text
//! caller ─ …/services/https?:NAME:PORT/proxy/PATH ─▶ Service ─▶ EndpointSlices ─▶ a ready pod of the namespace
//!          …/pods/NAME:PORT/proxy/PATH ──────────────────────────────────────────▶ pod
//!                                                     NodeProxy::port_forward ◀────┘  PATH, no credentials
//!          …/nodes/NAME/proxy/PATH ─────▶ NodeProxy::read: a table of the kubelet's, no socket
//! ```
//!
//! It leads into pods and nowhere else: an endpoint that names no pod of its namespace is none, a pod with its machine's
//! network is refused, redirects are handed to the caller. Limitations: no `https:`, links in pages are not rewritten, a
//! path with an empty part (`//`) is not found.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::{Call, connect, read};
use crate::admission::{self, Operation};
use crate::audit;
use crate::body::{self, Body};
use crate::object::meta;
use crate::route::decode;
use crate::server::ApiServer;
use crate::status::Status;
use crate::table::list;

/// Requests under way at once, of all callers.
const REQUESTS_MAX: usize = 256;
static REQUESTS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(REQUESTS_MAX)));
/// Where a kubelet is asked.
const KUBELET_PORT: &str = "10250";
/// Which of a Service's endpoints is next.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// What belongs to one connection and is not passed on (RFC 9110 §7.6.1).
const OF_A_CONNECTION: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a call is passed on to a pod.
pub fn is_proxy(call: &Call) -> bool {
    call.route.subresource == "proxy" && ["pods", "services", "nodes"].iter().any(|plural| call.kind.is("", plural))
}

/// Passes a request on and its answer back.
///
/// # Errors
/// What is asked for is not there (404, 503), is not to be reached so (400, 501), or too much is under way (429).
pub async fn answer<B>(server: &ApiServer, call: &Call, mut request: Request<B>) -> Result<Response<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let path = request.uri().path().to_owned();
    // "", api, v1, namespaces, NAMESPACE, PLURAL, NAME, proxy, PATH; nodes have no namespace
    let at = if call.kind.namespaced { 7 } else { 5 };
    let parts: Vec<&str> = path.splitn(at + 2, '/').collect();
    if parts.get(at) != Some(&"proxy") {
        return Err(Status::no_resource());
    }
    let base = parts[..=at].join("/");
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let kind = match call.kind.names.plural.as_ref() {
        "pods" => "PodProxyOptions",
        "services" => "ServiceProxyOptions",
        _ => "NodeProxyOptions",
    };
    let shown = parts.get(at + 1).map(|rest| format!("/{}", decode(rest))); // one place has one name to who judges it
    let mut options = shown.as_ref().map_or(json!({}), |path| json!({ "path": path }));
    admission::ask(server, call, (Operation::Connect, Some(["", "v1", kind])), &mut options, (None, false)).await?;
    let changed = options["path"].as_str().filter(|path| shown.as_deref() != Some(path));
    let Some(rest) = changed.map(|path| path.trim_start_matches('/')).or(parts.get(at + 1).copied()) else {
        let mut response = body::text(StatusCode::MOVED_PERMANENTLY, "");
        set(response.headers_mut(), header::LOCATION, &format!("{base}/{query}"));
        return Ok(response);
    };
    if !call.kind.namespaced {
        return node(server, call, rest).await;
    }
    let (pod, port) = destination(server, call)?;
    let name = meta(&pod, "name");
    if pod["spec"]["hostNetwork"] == true {
        return Err(Status::bad_request(format!(
            "pod {name} has the network of its machine, which this proxy does not lead to"
        )));
    }
    let permit = Arc::clone(&REQUESTS).try_acquire_owned();
    let permit = permit.map_err(|_| Status::too_many_requests("too many requests go through the proxy at once", 1))?;
    let unreachable = |why: &dyn std::fmt::Display| {
        Status::unavailable(format!("error trying to reach service: {}", why.to_string().trim_end()))
    };
    let (machine, target) = connect::machine(server, &pod, "")?;
    let stream = machine.port_forward(&target, port).await.map_err(|e| unreachable(&e))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| unreachable(&e))?;
    let carried = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.with_upgrades().await; // a broken one is seen by the reader of the answer
        drop(permit);
    }));

    let caller = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
    let (head, sent) = request.into_parts();
    let host = format!("{name}:{port}");
    let mut headers = head.headers;
    let upgrade = headers.get(header::UPGRADE).cloned().filter(|_| caller.is_some());
    take_off(&mut headers);
    // Whom the caller proved to be to this server is none of the pod's business.
    headers.remove(header::AUTHORIZATION);
    let others: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    others.iter().for_each(|name| drop(headers.remove(name)));
    let asked = headers.insert(header::HOST, HeaderValue::from_str(&host).map_err(Status::internal)?);
    if let Some(asked) = asked {
        headers.insert("x-forwarded-host", asked);
    }
    set(&mut headers, HeaderName::from_static("x-forwarded-uri"), &format!("{base}/{rest}"));
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    let mut passed = Request::new(sent);
    *passed.method_mut() = head.method;
    *passed.uri_mut() = format!("/{rest}{query}").parse().map_err(|e| Status::bad_request(format!("{e}")))?;
    *passed.headers_mut() = headers;
    let mut response = sender.send_request(passed).await.map_err(|e| unreachable(&e))?;
    drop(carried.detach());

    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let protocol = response.headers().get(header::UPGRADE).cloned().filter(|_| switches);
    if let (Some(caller), true) = (caller, switches) {
        let pod = hyper::upgrade::on(&mut response);
        let entry = audit::current();
        tokio::spawn(async move {
            let _entry = entry;
            if let (Ok(caller), Ok(pod)) = tokio::join!(caller, pod) {
                // Either side may break it off.
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(caller), &mut TokioIo::new(pod)).await;
            }
        });
    }
    take_off(response.headers_mut());
    if let Some(protocol) = protocol {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(header::UPGRADE, protocol);
    }
    let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok()).map(str::to_owned);
    if let Some(location) = location {
        let own = location.strip_prefix("http://").and_then(|l| l.strip_prefix(host.as_str())).unwrap_or(&location);
        if own.starts_with('/') && !own.starts_with("//") {
            set(response.headers_mut(), header::LOCATION, &format!("{base}{own}"));
        }
    }
    Ok(response.map(|body| body.map_err(std::io::Error::other).boxed_unsync()))
}

/// What a node says of itself, `NAME`, `NAME:PORT` or `https:NAME:PORT`, at the port of every kubelet.
async fn node(server: &ApiServer, call: &Call, path: &str) -> Result<Response<Body>, Status> {
    let id = call.route.name.as_str();
    let (name, port) = match id.split(':').collect::<Vec<_>>().as_slice() {
        [name] => (*name, ""),
        [name, port] | ["" | "http" | "https", name, port] => (*name, *port),
        _ => return Err(Status::bad_request(format!("invalid node request {id:?}"))),
    };
    server.inner.store.get(&call.kind.key("", name)).ok_or_else(|| Status::not_found("", "nodes", name))?;
    let unreachable =
        |why: &dyn std::fmt::Display| Status::unavailable(format!("error trying to reach service: {why}"));
    if !matches!(port, "" | KUBELET_PORT) {
        return Err(unreachable(&format!("port {port} of node {name} is none of its kubelet's")));
    }
    let machine =
        server.inner.proxies.get(name).ok_or_else(|| unreachable(&format!("no kubelet of node {name} is there")))?;
    if !matches!(call.method, http::Method::GET | http::Method::HEAD) {
        return Ok(body::text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"));
    }
    let Some((kind, text)) = machine.read(path).await? else {
        return Ok(body::text(StatusCode::NOT_FOUND, "404 page not found\n"));
    };
    let mut response = Response::new(body::full(text.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn take_off(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    named.iter().for_each(|name| drop(headers.remove(name)));
    OF_A_CONNECTION.iter().for_each(|name| drop(headers.remove(*name)));
}

/// The pod and its port that `[scheme:]name[:port]` means.
fn destination(server: &ApiServer, call: &Call) -> Result<(Value, u16), Status> {
    let id = call.route.name.as_str();
    let (scheme, name, port) = match id.split(':').collect::<Vec<_>>().as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return Err(Status::bad_request(format!("invalid {} request {id:?}", call.kind.names.singular))),
    };
    match scheme {
        "" | "http" => {}
        "https" => return Err(Status::not_implemented("a proxy to https")),
        _ => return Err(Status::bad_request(format!("invalid {} request {id:?}", call.kind.names.singular))),
    }
    let not_found = || Status::not_found("", &call.kind.names.plural, name);
    let entry = server.inner.store.get(&call.kind.key(&call.route.namespace, name)).ok_or_else(not_found)?;
    let object = read::decoded(&call.kind, &entry)?;
    if call.kind.is("", "services") {
        return endpoint(server, &object, port);
    }
    let first = || list(&object["spec"]["containers"]).iter().flat_map(|c| list(&c["ports"])).next();
    let port = match port {
        "" => first().and_then(|port| port["containerPort"].as_u64()).unwrap_or(80),
        text => text.parse().map_err(|_| Status::bad_request(format!("invalid pod request {id:?}")))?,
    };
    let port = u16::try_from(port).ok().filter(|port| *port != 0);
    Ok((object, port.ok_or_else(|| Status::bad_request(format!("invalid pod request {id:?}")))?))
}

/// A ready pod behind a Service: its endpoints take turns.
fn endpoint(server: &ApiServer, service: &Value, port: &str) -> Result<(Value, u16), Status> {
    let (name, namespace) = (meta(service, "name"), meta(service, "namespace"));
    let none = || Status::unavailable(format!("no endpoints available for service {name:?}"));
    let port_name = match port.parse::<u64>() {
        Err(_) => port,
        Ok(number) => {
            let found = list(&service["spec"]["ports"]).iter().find(|known| known["port"] == number);
            let missing = || Status::unavailable(format!("no service port {number} found for service {name:?}"));
            found.ok_or_else(missing)?["name"].as_str().unwrap_or_default()
        }
    };
    let registry = &server.inner.registry;
    let slices = registry.get("discovery.k8s.io", "v1", "endpointslices").ok_or_else(none)?;
    let pods = registry.get("", "v1", "pods").ok_or_else(none)?;
    let mut found = Vec::new();
    for slice in read::all(server, &slices, namespace)? {
        if slice["metadata"]["labels"]["kubernetes.io/service-name"] != name {
            continue;
        }
        let port = list(&slice["ports"]).iter().find(|p| p["name"].as_str().unwrap_or_default() == port_name);
        let port = port.and_then(|port| port["port"].as_u64()).and_then(|port| u16::try_from(port).ok());
        let ready = list(&slice["endpoints"]).iter().filter(|e| e["conditions"]["ready"] != false);
        let named = ready.map(|e| &e["targetRef"]).filter(|target| target["kind"] == "Pod");
        found.extend(named.filter_map(|target| Some((target.clone(), port?))));
    }
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    let (target, port) = found.get(turn % found.len().max(1)).ok_or_else(none)?;
    let entry = server.inner.store.get(&pods.key(namespace, target["name"].as_str().unwrap_or_default()));
    let pod = read::decoded(&pods, &entry.ok_or_else(none)?)?;
    match target["uid"].as_str() {
        Some(uid) if uid != meta(&pod, "uid") => Err(none()),
        _ => Ok((pod, *port)),
    }
}
