//! `pods/NAME/portforward`: TCP connections to ports of a pod, as many as the caller opens, over one connection.
//!
//! ```text
//! kubectl ─ WebSocket "SPDY/3.1+portforward.k8s.io" (KEP-4006), or an upgrade to SPDY/3.1 ─▶ session
//!   per TCP connection two streams of one requestID:  error ◀── why it failed, or nothing
//!                                                     data  ◀─▶ NodeProxy::port_forward(port)
//! ```
//!
//! Limitations: the error stream must be opened before its data stream (clients of Kubernetes do).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, Stream, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::spdy::frame::{self, Frame};
use super::spdy::headers;
use crate::node_proxy::{ContainerTarget, NodeProxy};

/// The subprotocol of the WebSocket.
pub const WEBSOCKET: &str = "SPDY/3.1+portforward.k8s.io";
/// What streams of a direct SPDY connection mean.
pub const STREAMS: &str = "portforward.k8s.io";

/// TCP connections at once in one session. A browser opens six to one port; each may hold 16 chunks of 32 KiB each way.
const CONNECTIONS_MAX: usize = 64;
/// Error streams that wait for their data stream.
const WAITING_MAX: usize = CONNECTIONS_MAX;
/// Chunks that wait for a slow pod, per connection, or for a slow caller.
const CHUNKS_MAX: usize = 16;
const CHUNK_BYTES: usize = 32 * 1024;
/// How long a caller may still send after the pod has closed. kubectl closes at once.
const LINGER: Duration = Duration::from_secs(1);

/// RST_STREAM: the caller broke the rules; too much at once.
const PROTOCOL_ERROR: u32 = 1;
const REFUSED: u32 = 3;

/// Why a session ended before its caller went.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Frame(#[from] frame::Error),
    #[error(transparent)]
    Headers(#[from] headers::Error),
    #[error("the connection cannot be read: {0}")]
    Io(String),
}

/// Serves a session over a WebSocket until the caller goes.
pub async fn over_websocket<S>(socket: WebSocketStream<S>, proxy: Arc<dyn NodeProxy>, target: ContainerTarget)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sink, stream) = socket.split();
    let (out, mut outgoing) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    let incoming = stream.filter_map(async |message| match message {
        Ok(Message::Binary(data)) => Some(Ok(data)),
        Ok(Message::Close(_)) => Some(Err("closed".to_owned())),
        Ok(_) => None,
        Err(error) => Some(Err(error.to_string())),
    });
    let write = async {
        while let Some(bytes) = outgoing.recv().await {
            if sink.send(Message::Binary(bytes)).await.is_err() {
                return;
            }
        }
    };
    run(Box::pin(incoming), out, write, proxy, target).await;
}

/// Serves a session over a connection that speaks SPDY itself.
pub async fn over_connection<S>(connection: S, proxy: Arc<dyn NodeProxy>, target: ContainerTarget)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (read, mut writer) = tokio::io::split(connection);
    let (out, mut outgoing) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    let incoming = tokio_util::io::ReaderStream::new(read).map(|chunk| chunk.map_err(|e| e.to_string()));
    let write = async {
        while let Some(bytes) = outgoing.recv().await {
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    };
    run(incoming, out, write, proxy, target).await;
}

async fn run(
    incoming: impl Stream<Item = Result<Bytes, String>> + Unpin,
    out: mpsc::Sender<Bytes>,
    write: impl Future<Output = ()>,
    proxy: Arc<dyn NodeProxy>,
    target: ContainerTarget,
) {
    let mut session = Session {
        proxy,
        target,
        out,
        room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        waiting: HashMap::new(),
        open: HashMap::new(),
        tasks: JoinSet::new(),
        headers_in: headers::Reader::new(),
        headers_out: headers::Writer::default(),
    };
    // Either end ends the session; dropping it ends its connections.
    tokio::select! {
        ended = session.serve(incoming) => if let Err(error) = ended {
            tracing::debug!(pod = session.target.pod, %error, "port-forward ended");
        },
        () = write => {}
    }
}

struct Session {
    proxy: Arc<dyn NodeProxy>,
    target: ContainerTarget,
    out: mpsc::Sender<Bytes>,
    room: Arc<Semaphore>,
    /// Error streams by request, until their data stream opens.
    waiting: HashMap<String, u32>,
    /// Data streams that the caller may still write to.
    open: HashMap<u32, mpsc::Sender<Bytes>>,
    tasks: JoinSet<()>,
    headers_in: headers::Reader,
    headers_out: headers::Writer,
}

impl Session {
    async fn serve(&mut self, mut incoming: impl Stream<Item = Result<Bytes, String>> + Unpin) -> Result<(), Error> {
        let mut buffer = BytesMut::new();
        while let Some(bytes) = incoming.next().await {
            buffer.extend_from_slice(&bytes.map_err(Error::Io)?);
            while let Some(frame) = frame::take(&mut buffer)? {
                self.take(frame).await?;
            }
            while self.tasks.try_join_next().is_some() {}
        }
        Ok(())
    }

    async fn take(&mut self, frame: Frame) -> Result<(), Error> {
        match frame {
            Frame::Open(stream, block) => {
                let headers = self.headers_in.read(&block)?;
                match self.accept(stream, &headers).await {
                    Ok(()) => {}
                    Err(status) => self.send(frame::reset(stream, status)).await,
                }
            }
            Frame::Headers(block) => drop(self.headers_in.read(&block)?),
            Frame::Data(stream, octets, last) => {
                if let Some(pod) = self.open.get(&stream)
                    && !octets.is_empty()
                {
                    let _ = pod.send(octets).await; // the pod has closed: its end is on the way to the caller
                }
                if last {
                    self.open.remove(&stream);
                }
            }
            Frame::Reset(stream) => drop(self.open.remove(&stream)),
            Frame::Ping(id) if id % 2 == 1 => self.send(frame::ping(id)).await,
            Frame::Ping(_) | Frame::Other => {}
        }
        Ok(())
    }

    /// Opens a stream, or says with which status it is refused. Replies leave in the order in which they are written,
    /// since each continues the compression of the one before.
    async fn accept(&mut self, stream: u32, headers: &HashMap<String, String>) -> Result<(), u32> {
        let header = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
        let request = header("requestid");
        let port: u16 = header("port").parse().ok().filter(|p| *p != 0).ok_or(PROTOCOL_ERROR)?;
        match header("streamtype") {
            "error" if self.waiting.len() >= WAITING_MAX => Err(REFUSED),
            "error" => {
                self.waiting.insert(request.to_owned(), stream);
                let reply = frame::reply(stream, &self.headers_out.empty());
                self.send(reply).await;
                Ok(())
            }
            "data" => {
                let error_stream = self.waiting.remove(request).ok_or(PROTOCOL_ERROR)?;
                let permit = self.room.clone().try_acquire_owned().map_err(|_| REFUSED)?;
                let (to_pod, from_caller) = mpsc::channel(CHUNKS_MAX);
                self.open.retain(|_, pod| !pod.is_closed());
                self.open.insert(stream, to_pod);
                let (out, proxy, target) = (self.out.clone(), self.proxy.clone(), self.target.clone());
                let reply = frame::reply(stream, &self.headers_out.empty());
                self.send(reply).await;
                self.tasks.spawn(async move {
                    forward(&out, proxy, &target, port, stream, error_stream, from_caller).await;
                    drop(permit);
                });
                Ok(())
            }
            _ => Err(PROTOCOL_ERROR),
        }
    }

    async fn send(&self, bytes: Bytes) {
        let _ = self.out.send(bytes).await; // the caller is gone: the session ends by itself
    }
}

async fn answer(out: &mpsc::Sender<Bytes>, bytes: Bytes) {
    let _ = out.send(bytes).await; // as in `Session::send`
}

/// Carries one connection.
async fn forward(
    out: &mpsc::Sender<Bytes>,
    proxy: Arc<dyn NodeProxy>,
    target: &ContainerTarget,
    port: u16,
    data: u32,
    error: u32,
    mut from_caller: mpsc::Receiver<Bytes>,
) {
    let mut why = String::new();
    match proxy.port_forward(target, port).await {
        Err(refused) => {
            why = format!("error forwarding port {port} to pod {}, uid {}: {refused}", target.pod, target.pod_uid);
        }
        Ok(pod) => {
            let (mut read, mut write) = tokio::io::split(pod);
            let upward = async {
                while let Some(bytes) = from_caller.recv().await {
                    if write.write_all(&bytes).await.is_err() {
                        return;
                    }
                    let _ = write.flush().await; // the next write says the same
                }
                let _ = write.shutdown().await; // already closed: the reading side sees it
            };
            let downward = async {
                let mut chunk = vec![0; CHUNK_BYTES];
                loop {
                    match read.read(&mut chunk).await {
                        Ok(0) => return None,
                        Ok(length) => {
                            if out.send(frame::data(data, &chunk[..length], false)).await.is_err() {
                                return None;
                            }
                        }
                        Err(error) => return Some(error),
                    }
                }
            };
            tokio::pin!(upward, downward);
            let mut upward_done = false;
            let broken = loop {
                tokio::select! {
                    () = &mut upward, if !upward_done => upward_done = true, // half closed: the pod may still answer
                    broken = &mut downward => break broken,
                }
            };
            if let Some(broken) = broken {
                why = format!("error forwarding port {port} to pod {}, uid {}: {broken}", target.pod, target.pod_uid);
            }
            answer(out, frame::data(data, &[], true)).await;
            answer(out, frame::data(error, why.as_bytes(), true)).await;
            if !upward_done {
                let _ = tokio::time::timeout(LINGER, upward).await; // what is late is lost, as upstream
            }
            return;
        }
    }
    answer(out, frame::data(error, why.as_bytes(), true)).await;
    answer(out, frame::data(data, &[], true)).await;
}
