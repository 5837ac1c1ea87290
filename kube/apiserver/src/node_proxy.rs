//! A *node proxy* is how the API server reaches what only the machine of a pod knows: its logs, its
//! terminals, its ports. The API server owns the door (authentication, subresources, the protocols of
//! kubectl); whoever runs the pods owns the room behind it.
//!
//! ```text
//! kubectl logs|exec|attach|port-forward ─HTTP/WebSocket─▶ apiserver ─trait NodeProxy─▶ kubelet, virtual node
//! ```
//!
//! The kubelet implements it for the machine it runs on, a virtual node implements it for the pods of a
//! peer, [`crate::node_tunnel`] for a machine elsewhere. [`NodeProxies`] finds the one that answers for a node's name.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
pub use engine_session::{ExecOptions, ExecOutput, ExecSession, TerminalSize};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// One container of one pod, as the API server resolved it: the container exists in the pod's spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerTarget {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid: a pod of the same name that was created later is another one.
    pub pod_uid: String,
    /// The container's name.
    pub container: String,
}

/// What of a container's log is wanted (`PodLogOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// Keep the stream open and send what is written later.
    pub follow: bool,
    /// The log of the container's previous run.
    pub previous: bool,
    /// Begin each line with its RFC 3339 time.
    pub timestamps: bool,
    /// Only the last so many lines.
    pub tail_lines: Option<u64>,
    /// Only lines written in the last so many seconds.
    pub since_seconds: Option<i64>,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// A two-way byte stream to a port of a pod.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Why a node could not answer. The API server maps it to a `Status` (see `From` in `status.rs`).
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum Error {
    /// The pod or container is not on this node, or its log is gone: 404.
    #[error("{0}")]
    NotFound(String),
    /// It exists but is in no state to answer (not started yet): 400, as the kubelet says it.
    #[error("{0}")]
    BadRequest(String),
    /// The node's machine cannot be reached now: 503; try again.
    #[error("{0}")]
    Unavailable(String),
    /// This node does not do that: 501.
    #[error("{0}")]
    NotImplemented(String),
    /// Anything else: 500.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// The same with another reason.
    pub(crate) fn map(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::NotFound(why) => Self::NotFound(change(why)),
            Self::BadRequest(why) => Self::BadRequest(change(why)),
            Self::Unavailable(why) => Self::Unavailable(change(why)),
            Self::NotImplemented(why) => Self::NotImplemented(change(why)),
            Self::Internal(why) => Self::Internal(change(why)),
        }
    }
}

/// Carries a log until it ends or who reads it goes. The reader never writes: what can be read is its end.
pub async fn carry_log(
    log: &mut BoxStream<'static, std::io::Result<Bytes>>,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut byte = [0];
    let gone = from.read(&mut byte);
    tokio::pin!(gone);
    let mut watching = true;
    loop {
        // Losing the race loses nothing: `next` keeps what it has not returned.
        tokio::select! {
            chunk = log.next() => match chunk {
                Some(Ok(chunk)) => {
                    if to.write_all(&chunk).await.is_err() || to.flush().await.is_err() {
                        return;
                    }
                }
                Some(Err(error)) => return tracing::debug!(%error, "a log broke"),
                None => return,
            },
            // A reader that only finishes its direction still reads; one that drops the stream resets it.
            read = &mut gone, if watching => match read {
                Ok(_) => watching = false,
                Err(_) => return,
            },
        }
    }
}

/// Answers for the pods of one node. What a node does not do it says so of by itself ([`Error::NotImplemented`]).
#[async_trait]
pub trait NodeProxy: Send + Sync {
    /// The container's log. With `follow` the stream ends when the container does or the caller drops it.
    async fn logs(
        &self,
        target: &ContainerTarget,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Error> {
        let _ = options; // whoever reads nothing needs not know how much
        Err(not_carried(target, "logs"))
    }
    /// Starts a command inside the container.
    async fn exec(&self, target: &ContainerTarget, options: &ExecOptions) -> Result<ExecSession, Error> {
        let _ = options; // as above
        Err(not_carried(target, "exec"))
    }
    /// Joins the container's first process; `options.command` is empty. The session ends with the container.
    async fn attach(&self, target: &ContainerTarget, options: &ExecOptions) -> Result<ExecSession, Error> {
        let _ = options; // as above
        Err(not_carried(target, "attach"))
    }
    /// What the node itself answers at `path` (without the first slash), type and text; `None` where there is nothing.
    async fn read(&self, path: &str) -> Result<Option<(&'static str, String)>, Error> {
        let _ = path; // whoever has no machine here has nothing to say of it
        Err(Error::NotImplemented(
            "this node is not a machine of this cluster: nothing of its own is read through it".into(),
        ))
    }
    /// Connects to a TCP port inside the pod's network namespace (`target.container` is empty).
    async fn port_forward(&self, target: &ContainerTarget, port: u16) -> Result<Box<dyn Duplex>, Error> {
        let _ = port; // as above
        Err(not_carried(target, "port-forward"))
    }
}

fn not_carried(target: &ContainerTarget, verb: &str) -> Error {
    Error::NotImplemented(format!("the node of pod {} does not carry {verb}", target.pod))
}

/// Which proxy answers for which node. Cheap to clone; all clones see the same table.
#[derive(Clone, Default)]
pub struct NodeProxies {
    by_node: Table,
    /// Those behind connections; of a node that is in the other table none counts.
    tunnels: Table,
}

type Table = Arc<RwLock<HashMap<String, Arc<dyn NodeProxy>>>>;

/// A tunnel, until it is dropped.
pub(crate) struct Held(NodeProxies, String, Arc<dyn NodeProxy>);

impl Drop for Held {
    fn drop(&mut self) {
        let mut tunnels = self.0.tunnels.write().unwrap_or_else(|e| e.into_inner());
        // A newer one of the same node stays.
        if tunnels.get(&self.1).is_some_and(|proxy| Arc::ptr_eq(proxy, &self.2)) {
            tunnels.remove(&self.1);
        }
    }
}

impl NodeProxies {
    /// `proxy` answers for `node` from now on; an earlier one is replaced.
    pub fn register(&self, node: &str, proxy: Arc<dyn NodeProxy>) {
        self.write().insert(node.to_owned(), proxy);
    }

    /// Nobody answers for `node` any more; an unknown name is fine.
    pub fn unregister(&self, node: &str) {
        self.write().remove(node);
    }

    /// Who answers for `node`.
    pub fn get(&self, node: &str) -> Option<Arc<dyn NodeProxy>> {
        let find = |table: &Table| table.read().unwrap_or_else(|e| e.into_inner()).get(node).cloned();
        find(&self.by_node).or_else(|| find(&self.tunnels))
    }

    /// Whether somebody answers for `node` who is no tunnel.
    pub(crate) fn is_registered(&self, node: &str) -> bool {
        self.by_node.read().unwrap_or_else(|e| e.into_inner()).contains_key(node)
    }

    /// A tunnel answers for `node` until what is returned is dropped, or a newer one does.
    pub(crate) fn hold(&self, node: &str, proxy: Arc<dyn NodeProxy>) -> Held {
        self.tunnels.write().unwrap_or_else(|e| e.into_inner()).insert(node.to_owned(), proxy.clone());
        Held(self.clone(), node.to_owned(), proxy)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, Arc<dyn NodeProxy>>> {
        self.by_node.write().unwrap_or_else(|e| e.into_inner())
    }
}
