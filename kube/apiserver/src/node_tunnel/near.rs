//! The API server's end: it asks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use engine_session::carry;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::{Answer, Ask, PING, read, write};
use crate::node_proxy::{ContainerTarget, Duplex, Error, ExecOptions, ExecSession, LogOptions, NodeProxies, NodeProxy};

/// A machine that has not answered by then is not there for a user at a terminal; a command on a busy one starts within.
const ANSWER: Duration = Duration::from_secs(30);
/// What a machine says of itself, as its metrics: some KiB for each pod.
const READ_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Characters of a machine's reason.
const REASON_MAX: usize = 1024;
/// What may be read of a machine: other types are plain text.
const TYPES: [&str; 3] = ["text/plain; charset=utf-8", "application/json", "text/plain; version=0.0.4; charset=utf-8"];

/// A machine behind a connection that it has opened.
struct Tunnel {
    node: String,
    send: SendRequest<Empty<Bytes>>,
}

/// Answers for `node` through this connection until that ends.
pub(super) async fn hold(connection: Upgraded, node: &str, proxies: &NodeProxies) -> hyper::Result<()> {
    let mut http = Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING).keep_alive_while_idle(true);
    let (send, connection) = http.handshake(connection).await?;
    tracing::info!(node, "a node has opened its tunnel");
    let _held = proxies.hold(node, Arc::new(Tunnel { node: node.to_owned(), send }));
    connection.await
}

impl Tunnel {
    /// A stream to which the machine has said yes.
    async fn open(&self, ask: Ask) -> Result<(TokioIo<Upgraded>, Option<String>), Error> {
        let opening = async {
            let mut send = self.send.clone();
            send.ready().await.map_err(io::Error::other)?;
            let request = Request::connect("node:10250").body(Empty::new()).map_err(io::Error::other)?;
            let response = send.send_request(request).await.map_err(io::Error::other)?;
            let mut stream = TokioIo::new(hyper::upgrade::on(response).await.map_err(io::Error::other)?);
            write(&mut stream, &ask).await?;
            let answer: Answer = read(&mut stream).await?;
            io::Result::Ok((stream, answer))
        };
        let away = |why: String| Error::Unavailable(format!("node {:?} cannot be reached: {why}", self.node));
        let opened = tokio::time::timeout(ANSWER, opening).await;
        let (stream, answer) = opened
            .map_err(|_| away(format!("no answer within {} s", ANSWER.as_secs())))?
            .map_err(|error| away(error.to_string()))?;
        Ok((stream, answer.map_err(|error| error.map(|why| why.chars().take(REASON_MAX).collect()))?))
    }

    async fn session(&self, ask: Ask) -> Result<ExecSession, Error> {
        let (stream, _) = self.open(ask).await?;
        Ok(carry::caller(stream, &format!("node {:?}", self.node)))
    }
}

#[async_trait]
impl NodeProxy for Tunnel {
    async fn logs(
        &self,
        target: &ContainerTarget,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, Error> {
        let (stream, _) = self.open(Ask::Logs(target.clone(), options.clone())).await?;
        Ok(ReaderStream::new(stream).boxed())
    }

    async fn exec(&self, target: &ContainerTarget, options: &ExecOptions) -> Result<ExecSession, Error> {
        self.session(Ask::Exec(target.clone(), options.clone())).await
    }

    async fn attach(&self, target: &ContainerTarget, options: &ExecOptions) -> Result<ExecSession, Error> {
        self.session(Ask::Attach(target.clone(), options.clone())).await
    }

    async fn read(&self, path: &str) -> Result<Option<(&'static str, String)>, Error> {
        let (stream, Some(kind)) = self.open(Ask::Read(path.to_owned())).await? else { return Ok(None) };
        let mut text = String::new();
        let reading = tokio::time::timeout(ANSWER, stream.take(READ_BYTES_MAX + 1).read_to_string(&mut text)).await;
        let why = match reading {
            Ok(Ok(_)) if text.len() as u64 <= READ_BYTES_MAX => {
                return Ok(Some((TYPES.into_iter().find(|known| *known == kind).unwrap_or(TYPES[0]), text)));
            }
            Ok(Ok(_)) => format!("more than {READ_BYTES_MAX} bytes"),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not whole within {} s", ANSWER.as_secs()),
        };
        Err(Error::Unavailable(format!("node {:?} says of {path}: {why}", self.node)))
    }

    async fn port_forward(&self, target: &ContainerTarget, port: u16) -> Result<Box<dyn Duplex>, Error> {
        let (stream, _) = self.open(Ask::Forward(target.clone(), port)).await?;
        Ok(Box::new(stream))
    }
}
