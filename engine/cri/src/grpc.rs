//! gRPC over a Unix socket: one connection of HTTP/2, made again when it is gone.
//!
//! ```text
//! message = 0 (not compressed) ─ length (4, big endian) ─ protobuf         answer ─▶ messages, then grpc-status in the trailers
//! ```

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// What pods and containers of one machine take in a list: the bound that container runtimes have themselves.
const ANSWER_MAX: usize = 16 << 20;
/// What an error says of itself, in bytes.
const REASON_MAX: usize = 2048;
/// containerd's namespace of everything that came by CRI.
const NAMESPACE: &str = "k8s.io";

/// `grpc-status` numbers that are told apart.
pub(crate) mod code {
    pub const UNKNOWN: i32 = 2;
    pub const DEADLINE_EXCEEDED: i32 = 4;
    pub const NOT_FOUND: i32 = 5;
    pub const ALREADY_EXISTS: i32 = 6;
    pub const UNAVAILABLE: i32 = 14;
}

/// A call that did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub code: i32,
    pub why: String,
}

impl Failure {
    pub fn new(code: i32, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The server behind a socket. It is only reached for when something is asked.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    connection: Mutex<Option<SendRequest<Body>>>,
}

impl Client {
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, connection: Mutex::default() }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// One message there, one back, within a time.
    pub async fn call<T: Message + Default>(
        &self,
        method: &'static str,
        message: &impl Message,
        within: Duration,
    ) -> Result<T, Failure> {
        self.call_under(method, message, None, within).await
    }

    /// The same on behalf of a lease of containerd's.
    pub async fn call_under<T: Message + Default>(
        &self,
        method: &'static str,
        message: &impl Message,
        lease: Option<&str>,
        within: Duration,
    ) -> Result<T, Failure> {
        let body = Full::new(framed(message)).boxed_unsync();
        let answer = async {
            let response = self.send(method, body, lease).await?;
            let bytes = finished(response).await?;
            let message = bytes.get(5..).ok_or_else(|| Failure::new(code::UNKNOWN, "the answer has no message"))?;
            T::decode(message).map_err(|e| Failure::new(code::UNKNOWN, format!("the answer cannot be read: {e}")))
        };
        let late = || Failure::new(code::DEADLINE_EXCEEDED, format!("no answer within {} s", within.as_secs()));
        tokio::time::timeout(within, answer).await.map_err(|_| late())?
    }

    /// Many messages there; what is answered matters only if it is an error.
    pub async fn pour(
        &self,
        method: &'static str,
        frames: impl tokio_stream::Stream<Item = Bytes> + Send + 'static,
        lease: &str,
    ) -> Result<(), Failure> {
        use tokio_stream::StreamExt as _;
        let body = http_body_util::StreamBody::new(frames.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))));
        let response = self.send(method, body.boxed_unsync(), Some(lease)).await?;
        finished(response).await.map(drop)
    }

    /// One message there, and a body that says something as long as it lives.
    pub async fn follow(&self, method: &'static str, message: &impl Message) -> Result<Incoming, Failure> {
        let response = self.send(method, Full::new(framed(message)).boxed_unsync(), None).await?;
        Ok(response.into_body())
    }

    async fn send(
        &self,
        method: &'static str,
        body: Body,
        lease: Option<&str>,
    ) -> Result<http::Response<Incoming>, Failure> {
        let mut request = Request::post(format!("http://localhost{method}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .header("containerd-namespace", NAMESPACE);
        if let Some(lease) = lease {
            request = request.header("containerd-lease", lease);
        }
        let request = request.body(body).map_err(|e| Failure::new(code::UNKNOWN, e.to_string()))?;
        let mut sender = self.connected().await?;
        let response = sender.send_request(request).await;
        response.map_err(|e| Failure::new(code::UNAVAILABLE, format!("the connection was lost: {e}")))
    }

    async fn connected(&self) -> Result<SendRequest<Body>, Failure> {
        let mut connection = self.connection.lock().await;
        if let Some(sender) = connection.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let lost = |why: String| Failure::new(code::UNAVAILABLE, why);
        let socket = UnixStream::connect(&self.socket).await.map_err(|e| lost(format!("it does not answer: {e}")))?;
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let shaken = builder.handshake(TokioIo::new(socket)).await;
        let (sender, driver) = shaken.map_err(|e| lost(format!("it does not speak HTTP/2: {e}")))?;
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!("a connection to a container runtime ended: {error}");
            }
        });
        Ok(connection.insert(sender).clone())
    }
}

/// A message as gRPC carries it.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.encoded_len() + 5);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX)); // all are bounded far below by who makes them
    bytes.put_slice(&message.encode_to_vec());
    bytes.freeze()
}

/// The bytes of an answer that says of itself that it is one.
async fn finished(response: http::Response<Incoming>) -> Result<Bytes, Failure> {
    let (head, body) = response.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(Failure::new(code::UNKNOWN, format!("it answers with HTTP status {}", head.status)));
    }
    let body = Limited::new(body, ANSWER_MAX).collect().await;
    let body = body.map_err(|e| Failure::new(code::UNAVAILABLE, format!("the answer was lost: {e}")))?;
    // An error without a message has its code in the head.
    let said = verdict(body.trailers()).or_else(|| verdict(Some(&head.headers)));
    match said {
        Some((0, _)) => Ok(body.to_bytes()),
        Some((code, why)) => Err(Failure { code, why }),
        None => Err(Failure::new(code::UNKNOWN, "the answer does not say how it went")),
    }
}

fn verdict(of: Option<&HeaderMap>) -> Option<(i32, String)> {
    let text = |name: &str| of?.get(name).map(|value| value.as_bytes().to_vec());
    let code = std::str::from_utf8(&text("grpc-status")?).ok()?.parse().ok()?;
    Some((code, unescaped(&text("grpc-message").unwrap_or_default())))
}

/// gRPC's `%41` is `A`.
fn unescaped(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len().min(REASON_MAX));
    let mut rest = text;
    while let Some((first, next)) = rest.split_first() {
        if bytes.len() >= REASON_MAX {
            break;
        }
        let hex = rest.get(1..3).and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        match hex.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            None => {
                bytes.push(*first);
                rest = next;
            }
        }
    }
    String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control() || *c == '\n').collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    #[test]
    fn reasons_are_read() {
        let mut head = HeaderMap::new();
        assert_eq!(verdict(Some(&head)), None);
        head.insert("grpc-status", "5".parse().unwrap());
        head.insert("grpc-message", "no %22x%22: 100%, %e2%9c%93".parse().unwrap());
        assert_eq!(verdict(Some(&head)), Some((5, "no \"x\": 100%, \u{2713}".into())));
        assert_eq!(unescaped(&[b'x'; 5000]).len(), REASON_MAX);
    }

    #[test]
    fn messages_are_framed() {
        let message = crate::messages::SandboxId { id: "ab".into() };
        assert_eq!(framed(&message)[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    }
}
