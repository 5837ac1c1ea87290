//! Subresources that are streams into a pod's machine: log, exec, attach, port-forward.
//!
//! exec and attach speak WebSocket `v5.channel.k8s.io` (KEP-4006; kubectl from 1.31) and `v4.channel.k8s.io` (older clients): the
//! first byte of a message names its channel. What cannot be started is told on the error channel, after the upgrade: a client that is
//! refused before tries SPDY, and shows how that ended. Port-forward is told of in [`super::port_forward`]. Not built: exec and attach
//! over SPDY.

use futures::StreamExt;
use http::header::HeaderValue;
use http::{Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::{Call, port_forward, read, terminal};
use crate::admission::{self, Operation};
use crate::audit;
use crate::body::Body;
use crate::node_proxy::{ContainerTarget, Error, ExecOptions, ExecOutput, ExecSession, LogOptions, NodeProxy};
use crate::object::meta;
use crate::server::ApiServer;
use crate::status::{FieldError, Status};

const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// One message from a client; kubectl sends at most 32 KiB.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// A subresource, and what admission is asked about: the kind of its options, and which parameters are its fields.
type Asked = (&'static str, &'static str, &'static [&'static str]);

const ASKED: [Asked; 3] = [
    ("exec", "PodExecOptions", &["command", "container", "stderr", "stdin", "stdout", "tty"]),
    ("attach", "PodAttachOptions", &["container", "stderr", "stdin", "stdout", "tty"]),
    ("portforward", "PodPortForwardOptions", &["ports"]),
];

/// Whether a call is answered by a stream rather than an object.
pub fn is_stream(call: &Call) -> bool {
    call.kind.is("", "pods") && matches!(call.route.subresource.as_str(), "log" | "exec" | "attach" | "portforward")
}

/// Answers such a call.
pub async fn answer(server: &ApiServer, call: &mut Call, upgrade: Option<OnUpgrade>) -> Result<Response<Body>, Status> {
    if let Some(asked) = ASKED.iter().find(|asked| asked.0 == call.route.subresource) {
        admit(server, call, asked).await?;
    }
    let call = &*call;
    let entry = server.inner.store.get(&call.key()).ok_or_else(|| call.not_found())?;
    let pod = read::decoded(&call.kind, &entry)?;
    match (call.route.subresource.as_str(), call.method.as_str()) {
        ("log", "GET") => log(server, call, &pod).await,
        ("exec" | "attach", "GET" | "POST") => command(server, call, &pod, upgrade).await,
        ("portforward", "GET" | "POST") => port_forward(server, call, &pod, upgrade),
        _ => Err(Status::method_not_allowed()),
    }
}

/// Asks admission about what the query says, and lets it say what admission made of that.
async fn admit(server: &ApiServer, call: &mut Call, (_, kind, fields): &Asked) -> Result<(), Status> {
    if !matches!(call.method, Method::GET | Method::POST) {
        return Err(Status::method_not_allowed());
    }
    let mut options = json!({});
    for field in *fields {
        let all = call.query.all(field);
        let value: Value = match *field {
            "command" => Some(all.collect()).filter(|all: &Value| *all != json!([])).unwrap_or_default(),
            "container" => call.query.get(field).unwrap_or_default().into(),
            "ports" => all.flat_map(|ports| ports.split(',')).filter_map(|port| port.parse::<u16>().ok()).collect(),
            flag => call.query.flag(flag).into(),
        };
        // Go leaves out what is empty, but for the command.
        if *field == "command" || ![json!(""), json!(false), json!([])].contains(&value) {
            options[*field] = value;
        }
    }
    let before = options.clone();
    admission::ask(server, call, (Operation::Connect, Some(["", "v1", kind])), &mut options, (None, false)).await?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for field in fields.iter().filter(|field| options[**field] != before[**field]) {
        let new = &options[*field];
        let values = new.as_array().map(Vec::as_slice).unwrap_or(std::slice::from_ref(new));
        call.query.set(field, values.iter().filter(|value| !value.is_null()).map(text));
    }
    Ok(())
}

/// The machine that runs `pod`, and the container that is meant.
fn target(
    server: &ApiServer,
    call: &Call,
    pod: &Value,
) -> Result<(std::sync::Arc<dyn NodeProxy>, ContainerTarget), Status> {
    let name = meta(pod, "name");
    let containers = || {
        ["containers", "initContainers", "ephemeralContainers"]
            .into_iter()
            .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
            .filter_map(|c| c["name"].as_str())
    };
    let container = match call.query.get("container") {
        Some(asked) if containers().any(|c| c == asked) => asked,
        Some(asked) => return Err(Status::bad_request(format!("container {asked} is not valid for pod {name}"))),
        None => {
            let all: Vec<&str> =
                pod["spec"]["containers"].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect();
            match all.as_slice() {
                [one] => *one,
                _ => {
                    return Err(Status::bad_request(format!(
                        "a container name must be specified for pod {name}, choose one of: {all:?}"
                    )));
                }
            }
        }
    };
    machine(server, pod, container)
}

/// The machine that runs `pod`.
pub(super) fn machine(
    server: &ApiServer,
    pod: &Value,
    container: &str,
) -> Result<(std::sync::Arc<dyn NodeProxy>, ContainerTarget), Status> {
    let name = meta(pod, "name");
    let node = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty());
    let node = node.ok_or_else(|| Status::bad_request(format!("pod {name} does not have a host assigned")))?;
    let proxy = server.inner.proxies.get(node).ok_or_else(|| {
        let nodes = server.inner.registry.get("", "v1", "nodes");
        match nodes.and_then(|nodes| server.inner.store.get(&nodes.key("", node))) {
            Some(_) => Status::unavailable(format!("nobody answers for node {node:?}, where pod {name} is")),
            None => Status::not_found("", "nodes", node),
        }
    })?;
    let target = ContainerTarget {
        namespace: meta(pod, "namespace").to_owned(),
        pod: name.to_owned(),
        pod_uid: meta(pod, "uid").to_owned(),
        container: container.to_owned(),
    };
    Ok((proxy, target))
}

async fn log(server: &ApiServer, call: &Call, pod: &Value) -> Result<Response<Body>, Status> {
    let options = log_options(call)?;
    let (proxy, target) = target(server, call, pod)?;
    let stream = proxy.logs(&target, &options).await?;
    let body = StreamBody::new(stream.map(|chunk| chunk.map(Frame::data))).boxed_unsync();
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// What of a log is asked for (`PodLogOptions`, judged as upstream's `ValidatePodLogOptions`).
fn log_options(call: &Call) -> Result<LogOptions, Status> {
    let number = |key: &str| match call.query.get(key) {
        None => Ok(None),
        Some(text) => text.parse::<i64>().map(Some).map_err(|_| Status::bad_request(format!("invalid {key} {text:?}"))),
    };
    let (tail, since, limit) = (number("tailLines")?, number("sinceSeconds")?, number("limitBytes")?);
    let mut errors = Vec::new();
    for (field, value, least, why) in [
        ("tailLines", tail, 0, "must be greater than or equal to 0"),
        ("limitBytes", limit, 1, "must be greater than 0"),
        ("sinceSeconds", since, 1, "must be greater than 0"),
    ] {
        if let Some(value) = value.filter(|value| *value < least) {
            errors.push(FieldError::invalid(field, &value.into(), why));
        }
    }
    let time = call.query.get("sinceTime");
    if since.is_some() && time.is_some() {
        errors.push(FieldError::forbidden("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", &call.route.name, &errors));
    }
    let since_time = match time {
        None => None,
        Some(text) => {
            let at: jiff::Timestamp =
                text.parse().map_err(|_| Status::bad_request(format!("invalid sinceTime {text:?}")))?;
            Some((jiff::Timestamp::now().as_second() - at.as_second()).max(1))
        }
    };
    Ok(LogOptions {
        follow: call.query.flag("follow"),
        previous: call.query.flag("previous"),
        timestamps: call.query.flag("timestamps"),
        tail_lines: tail.and_then(|lines| u64::try_from(lines).ok()),
        since_seconds: since.or(since_time),
        limit_bytes: limit.and_then(|bytes| u64::try_from(bytes).ok()),
    })
}

/// A command in a container, or its first process.
async fn command(
    server: &ApiServer,
    call: &Call,
    pod: &Value,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<Body>, Status> {
    let attach = call.route.subresource == "attach";
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        let what = if attach { "attach a container" } else { "exec into a container" };
        return Err(Status::bad_request(format!("cannot {what} in a completed pod; current phase is {phase}")));
    }
    let options = ExecOptions {
        command: call.query.all("command").map(str::to_owned).collect(),
        stdin: call.query.flag("stdin"),
        stdout: call.query.flag("stdout"),
        stderr: call.query.flag("stderr") && !call.query.flag("tty"),
        tty: call.query.flag("tty"),
    };
    if options.command.is_empty() && !attach {
        return Err(Status::bad_request("you must specify at least 1 command for the container"));
    }
    let (proxy, target) = target(server, call, pod)?;
    let over = text(call, "upgrade");
    if !over.eq_ignore_ascii_case("websocket") {
        return Err(Status::not_implemented(&format!("{} over {over:?} (WebSocket is)", call.route.subresource)));
    }
    let switch = Switch::to_websocket(call, upgrade, &PROTOCOLS)?;
    let (session, doing) = match attach {
        true => (proxy.attach(&target, &options).await, "error attaching to container"),
        false => (proxy.exec(&target, &options).await, "error executing command in container"),
    };
    let session = match session {
        Ok(session) => session,
        Err(Error::Internal(why)) => failed(format!("{doing}: {why}")),
        Err(why) if switch.protocol == PROTOCOLS[0] => failed(format!("unable to upgrade connection: {why}")),
        Err(why) => return Err(why.into()), // older clients show why they are refused, and try nothing else
    };
    Ok(switch.socket(move |socket| terminal::carry(socket, session, attach)))
}

/// A session of what did not start.
fn failed(why: String) -> ExecSession {
    let (say, output) = mpsc::channel(1);
    let _ = say.try_send(ExecOutput::Failed(why)); // there is room for one
    ExecSession { stdin: mpsc::channel(1).0, resize: mpsc::channel(1).0, output }
}

/// A connection that is about to speak something else, in a protocol that both ends know.
struct Switch {
    upgrade: OnUpgrade,
    protocol: &'static str,
    response: Response<Body>,
}

impl Switch {
    /// To `name`, in the first protocol of `known` that is offered in this field.
    fn new(
        call: &Call,
        upgrade: Option<OnUpgrade>,
        (name, field): (&'static str, &'static str),
        known: &[&'static str],
    ) -> Result<Self, Status> {
        let offered = text(call, field);
        let protocol = known.iter().find(|known| offered.split(',').any(|offer| offer.trim() == **known));
        let why = || format!("unable to negotiate protocol: client supports [{offered}], server accepts {known:?}");
        let protocol = *protocol.ok_or_else(|| Status::bad_request(why()))?;
        let upgrade = upgrade.ok_or_else(|| Status::bad_request("this connection cannot be upgraded"))?;
        let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static(name));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(field, HeaderValue::from_static(protocol));
        Ok(Self { upgrade, protocol, response })
    }

    fn to_websocket(call: &Call, upgrade: Option<OnUpgrade>, known: &[&'static str]) -> Result<Self, Status> {
        let mut switch = Self::new(call, upgrade, ("websocket", "sec-websocket-protocol"), known)?;
        let key = call.headers.get(header::SEC_WEBSOCKET_KEY);
        let key = key.ok_or_else(|| Status::bad_request("no Sec-WebSocket-Key"))?;
        let accept = derive_accept_key(key.as_bytes()).parse().map_err(Status::internal)?;
        switch.response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        Ok(switch)
    }

    /// 101, and `serve` has the connection from then on.
    fn stream<F: Future<Output = ()> + Send + 'static>(
        self,
        serve: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
    ) -> Response<Body> {
        let entry = audit::current(); // which ends with the stream
        tokio::spawn(async move {
            let _entry = entry;
            match self.upgrade.await {
                Ok(upgraded) => serve(TokioIo::new(upgraded)).await,
                Err(error) => tracing::debug!(%error, self.protocol, "the connection was not upgraded"),
            }
        });
        self.response
    }

    /// 101, and `serve` has the socket from then on.
    fn socket<F: Future<Output = ()> + Send + 'static>(
        self,
        serve: impl FnOnce(WebSocketStream<TokioIo<Upgraded>>) -> F + Send + 'static,
    ) -> Response<Body> {
        let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX));
        let config = Some(config.max_frame_size(Some(MESSAGE_BYTES_MAX)));
        self.stream(move |stream| async move {
            serve(WebSocketStream::from_raw_socket(stream, Role::Server, config).await).await;
        })
    }
}

fn text<'a>(call: &'a Call, header: &str) -> &'a str {
    call.headers.get(header).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Connections to the pod's ports, over whichever of the two transports the caller speaks.
fn port_forward(
    server: &ApiServer,
    call: &Call,
    pod: &Value,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<Body>, Status> {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if phase != "Running" {
        return Err(Status::bad_request(format!(
            "unable to forward port because pod is not running. Current status={phase}"
        )));
    }
    let (proxy, target) = machine(server, pod, "")?;
    match text(call, "upgrade").to_ascii_lowercase().as_str() {
        "websocket" => {
            let switch = Switch::to_websocket(call, upgrade, &[port_forward::WEBSOCKET, port_forward::CHANNELS])?;
            if switch.protocol == port_forward::WEBSOCKET {
                return Ok(switch.socket(move |socket| port_forward::over_websocket(socket, proxy, target)));
            }
            let ports = port_forward::ports(call.query.all("ports")).map_err(Status::bad_request)?;
            Ok(switch.socket(move |socket| port_forward::over_channels(socket, proxy, target, ports)))
        }
        "spdy/3.1" => {
            let to = ("SPDY/3.1", "x-stream-protocol-version");
            let switch = Switch::new(call, upgrade, to, &[port_forward::STREAMS])?;
            Ok(switch.stream(move |stream| port_forward::over_connection(stream, proxy, target)))
        }
        other => Err(Status::bad_request(format!("unable to upgrade: {other:?}; needed is websocket or SPDY/3.1"))),
    }
}
