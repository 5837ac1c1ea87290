//! `pods/NAME/portforward`: TCP connections to ports of a pod, as many as the caller opens, over one connection.
//!
//! ```text
//! kubectl ─ WebSocket "SPDY/3.1+portforward.k8s.io" (KEP-4006), or an upgrade to SPDY/3.1 ─▶ session
//!   per TCP connection two streams of one requestID:  error ◀── why it failed, or nothing
//!                                                     data  ◀─▶ NodeProxy::port_forward(port)
//! ```
//!
//! Older clients, and that of Python, name their ports beforehand and speak WebSocket "v4.channel.k8s.io": the first byte of a message
//! names its channel, 2n for the data of the nth port, 2n+1 for why it failed; the first message of each is the port, two bytes, the low one
//! first. A channel has no end of its own: the connection ends with the last port's.
//!
//! Limitations: the error stream must be opened before its data stream (clients of Kubernetes do).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::closing;
use super::spdy::frame::{self, Frame};
use super::spdy::headers;
use crate::node_proxy::{ContainerTarget, NodeProxy};

/// The subprotocol of the WebSocket.
pub const WEBSOCKET: &str = "SPDY/3.1+portforward.k8s.io";
/// What streams of a direct SPDY connection mean.
pub const STREAMS: &str = "portforward.k8s.io";

/// The subprotocol of a WebSocket with channels.
pub const CHANNELS: &str = "v4.channel.k8s.io";

/// TCP connections at once in one session. A browser opens six to one port; each may hold 16 chunks of 32 KiB each way.
const CONNECTIONS_MAX: usize = 64;
/// Error streams that wait for their data stream.
const WAITING_MAX: usize = CONNECTIONS_MAX;
/// Chunks that wait for a slow pod, per connection, or for a slow caller.
const CHUNKS_MAX: usize = 16;
const CHUNK_BYTES: usize = 32 * 1024;
/// How long a caller that can say that it has no more may still send after the pod has closed. kubectl closes at once.
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
pub async fn over_websocket<S>(mut socket: WebSocketStream<S>, proxy: Arc<dyn NodeProxy>, target: ContainerTarget)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sink, stream) = (&mut socket).split();
    let (out, outgoing) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    run(Box::pin(messages(stream)), out, send(sink, outgoing), proxy, target).await;
    closing::close(socket).await;
}

/// What is in the messages of a socket, until the caller closes it.
fn messages<E: ToString>(stream: impl Stream<Item = Result<Message, E>>) -> impl Stream<Item = Result<Bytes, String>> {
    stream.filter_map(async |message| match message {
        Ok(Message::Binary(data)) => Some(Ok(data)),
        Ok(Message::Close(_)) => Some(Err("closed".to_owned())),
        Ok(_) => None,
        Err(error) => Some(Err(error.to_string())),
    })
}

/// Sends messages until no more come; one that says nothing on its channel is none.
async fn send(mut sink: impl Sink<Message> + Unpin, mut outgoing: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = outgoing.recv().await {
        if bytes.len() > 1 && sink.send(Message::Binary(bytes)).await.is_err() {
            return;
        }
    }
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

/// The ports that a query names, in lists or one by one; in the words of upstream's kubelet.
pub fn ports<'a>(asked: impl Iterator<Item = &'a str>) -> Result<Vec<u16>, String> {
    let port = |text: &str| match text.parse::<u16>() {
        Ok(0) => Err(format!("port {text:?} must be > 0")),
        parsed => parsed.map_err(|error| format!("unable to parse {text:?} as a port: {error}")),
    };
    let ports: Vec<u16> = asked.flat_map(|list| list.split(',')).map(port).collect::<Result<_, _>>()?;
    match ports.len() {
        0 => Err("query parameter \"port\" is required".into()),
        1..=CONNECTIONS_MAX => Ok(ports),
        many => Err(format!("{many} ports; at most {CONNECTIONS_MAX} are forwarded at once")),
    }
}

/// Serves one connection to each of `ports` over a WebSocket with channels, until all have ended or the caller goes.
pub async fn over_channels<S>(
    mut socket: WebSocketStream<S>,
    proxy: Arc<dyn NodeProxy>,
    target: ContainerTarget,
    ports: Vec<u16>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sink, stream) = (&mut socket).split();
    let (out, outgoing) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    let (mut pods, mut tasks) = (Vec::new(), JoinSet::new());
    for (port, data) in ports.into_iter().zip((0..).step_by(2)) {
        let (to_pod, from_caller) = mpsc::channel(CHUNKS_MAX);
        pods.push(to_pod);
        let streams = Streams { frame: on_channel, linger: Duration::ZERO, out: out.clone(), data, error: data + 1 };
        let (proxy, target) = (proxy.clone(), target.clone());
        tasks.spawn(async move {
            for channel in [streams.data, streams.error] {
                streams.say(channel, &port.to_le_bytes(), false).await;
            }
            forward(streams, proxy, &target, port, from_caller).await;
        });
    }
    drop(out); // the last connection to end ends the writing
    let read = async {
        let mut incoming = Box::pin(messages(stream));
        while let Some(Ok(data)) = incoming.next().await {
            let channel = data.first().map(|channel| usize::from(*channel)).filter(|channel| channel % 2 == 0);
            if let Some(pod) = channel.and_then(|channel| pods.get(channel / 2)) {
                let _ = pod.send(data.slice(1..)).await; // the pod has closed: its end is on the way to the caller
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = send(sink, outgoing) => {}
    }
    drop((pods, tasks)); // connections that are still open
    closing::close(socket).await;
}

/// A message on a channel; a last one is empty, and not sent.
fn on_channel(channel: u32, octets: &[u8], _last: bool) -> Bytes {
    [&channel.to_le_bytes()[..1], octets].concat().into() // below 2 * CONNECTIONS_MAX
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
                let error = self.waiting.remove(request).ok_or(PROTOCOL_ERROR)?;
                let permit = self.room.clone().try_acquire_owned().map_err(|_| REFUSED)?;
                let (to_pod, from_caller) = mpsc::channel(CHUNKS_MAX);
                self.open.retain(|_, pod| !pod.is_closed());
                self.open.insert(stream, to_pod);
                let (proxy, target) = (self.proxy.clone(), self.target.clone());
                let out = self.out.clone();
                let streams = Streams { frame: frame::data, linger: LINGER, out, data: stream, error };
                let reply = frame::reply(stream, &self.headers_out.empty());
                self.send(reply).await;
                self.tasks.spawn(async move {
                    forward(streams, proxy, &target, port, from_caller).await;
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

/// The two streams of a connection, and how what they carry goes out.
struct Streams {
    frame: fn(u32, &[u8], bool) -> Bytes,
    /// How long the caller may still send after the pod has closed.
    linger: Duration,
    out: mpsc::Sender<Bytes>,
    data: u32,
    error: u32,
}

impl Streams {
    /// Says it, if the caller is still there.
    async fn say(&self, stream: u32, octets: &[u8], last: bool) -> bool {
        self.out.send((self.frame)(stream, octets, last)).await.is_ok()
    }
}

/// Carries one connection.
async fn forward(
    streams: Streams,
    proxy: Arc<dyn NodeProxy>,
    target: &ContainerTarget,
    port: u16,
    mut from_caller: mpsc::Receiver<Bytes>,
) {
    let Streams { data, error, .. } = streams;
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
                            if !streams.say(data, &chunk[..length], false).await {
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
            streams.say(data, &[], true).await;
            streams.say(error, why.as_bytes(), true).await;
            if !upward_done {
                let _ = tokio::time::timeout(streams.linger, upward).await; // what is late is lost, as upstream
            }
            return;
        }
    }
    streams.say(error, why.as_bytes(), true).await;
    streams.say(data, &[], true).await;
}
