//! The *node tunnel*: how the API server looks into the pods of a machine that it cannot call. The machine calls it, with the certificate of
//! its node, and the connection is turned round: then the API server is the client of HTTP/2 on it. Nothing listens on the machine.
//!
//! ```text
//! machine ── GET /node-tunnel, Upgrade: node-tunnel ──▶ API server ── 101
//!         ◀═══════════════ HTTP/2, one CONNECT stream for each log, command, port ══════════════ Tunnel: NodeProxy
//! stream = Ask (JSON) ▶ ◀ what became of it (JSON) ─ then bytes; of a command: messages (`engine_session::carry`)
//! ```
//!
//! Each JSON has its length before it. A name has one tunnel, the newest; a node that somebody else answers for gets none.

mod far;
mod near;

use std::time::Duration;

use engine_session::ExecOptions;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::upgrade::OnUpgrade;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub use self::far::serve;
use crate::admission::node_restriction::node_of;
use crate::auth::User;
use crate::body::Body;
use crate::node_proxy::{ContainerTarget, Error, LogOptions};
use crate::server::ApiServer;
use crate::status::Status;

/// Where a machine asks for it.
pub const PATH: &str = "/node-tunnel";
/// What it asks to speak (`Upgrade`).
pub const PROTOCOL: &str = "node-tunnel";
/// A command line; the kernel's own bound of one argument is 128 KiB.
const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Streams of one machine at a time.
const STREAMS_MAX: u32 = 250;
/// A connection that has said nothing is asked whether it is there; it has this long, too, to answer.
const PING: Duration = Duration::from_secs(10);

/// What is wanted of a machine.
#[derive(Serialize, Deserialize)]
enum Ask {
    Logs(ContainerTarget, LogOptions),
    Exec(ContainerTarget, #[serde(with = "Exec")] ExecOptions),
    Attach(ContainerTarget, #[serde(with = "Exec")] ExecOptions),
    Read(String),
    Forward(ContainerTarget, u16),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ExecOptions")]
struct Exec {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

/// What became of it. Of [`Ask::Read`] the type of what follows, if there is anything.
type Answer = Result<Option<String>, Error>;

/// Turns the connection of a node round.
///
/// # Errors
/// 403 for who is no node, 409 for one that is reached otherwise, 400 for a connection that cannot be turned round.
pub(crate) fn turn(
    server: &ApiServer,
    user: &User,
    headers: &HeaderMap,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<Body>, Status> {
    let node = node_of(user).filter(|node| !node.is_empty()).map(str::to_owned);
    let node = node.ok_or_else(|| Status::forbidden("", "nodes", "", "only a node has a tunnel, for itself"))?;
    if server.inner.proxies.is_registered(&node) {
        let why = "the API server reaches it without a tunnel; another machine needs another name";
        return Err(Status::conflict("", "nodes", &node, why));
    }
    let asked = headers.get(header::UPGRADE).is_some_and(|to| to == PROTOCOL);
    let upgrade = upgrade.filter(|_| asked);
    let upgrade = upgrade.ok_or_else(|| Status::bad_request(format!("needed is Upgrade: {PROTOCOL} over HTTP/1.1")))?;
    let proxies = server.inner.proxies.clone();
    tokio::spawn(async move {
        let ended = match upgrade.await {
            Ok(connection) => near::hold(connection, &node, &proxies).await,
            Err(error) => Err(error),
        };
        tracing::info!(node, ?ended, "the node's tunnel has ended");
    });
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    Ok(response)
}

async fn write(to: &mut (impl AsyncWrite + Unpin), what: &impl Serialize) -> std::io::Result<()> {
    let json = serde_json::to_vec(what)?;
    let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= FRAME_BYTES_MAX);
    let length =
        length.ok_or_else(|| std::io::Error::other(format!("{} bytes, at most {FRAME_BYTES_MAX}", json.len())))?;
    to.write_all(&[&length.to_be_bytes()[..], &json].concat()).await?;
    to.flush().await
}

async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<T> {
    let length = from.read_u32().await? as usize;
    if length > FRAME_BYTES_MAX {
        return Err(std::io::Error::other(format!("{length} bytes, at most {FRAME_BYTES_MAX}")));
    }
    let mut json = vec![0; length];
    from.read_exact(&mut json).await?;
    Ok(serde_json::from_slice(&json)?)
}
