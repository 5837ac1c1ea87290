//! Logs, terminals and ports of twins, over the link.
//!
//! ```text
//! kubectl ─▶ consumer's API ─▶ RemoteNode ══ logs/1, exec/1, forward/1 ══▶ Door: contract, twin ─▶ provider's own NodeProxy
//! ```
//! Each stream has one header, one answer (a frame of JSON: yes, or why not), then bytes. For logs and ports these are the bytes
//! themselves; for exec they are messages (`engine_session::carry`).

mod door;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fluidos_identity::NodeId;
use fluidos_link::{LinkError, LinkStream};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use substrate_apiserver::node_proxy::{
    ContainerTarget, Duplex, Error, ExecOptions, ExecSession, LogOptions, NodeProxy,
};
use tokio_util::io::ReaderStream;

use crate::fabric::Shared;
use crate::frames;

const LOGS: &str = "logs/1";
const EXEC: &str = "exec/1";
const FORWARD: &str = "forward/1";
/// A provider that does not answer within this does not exist for a user at a terminal.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A reason in words.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// What a stream is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    contract: String,
    /// Of the consumer's pod.
    uid: String,
    #[serde(default)]
    container: String,
    #[serde(default)]
    logs: Option<Logs>,
    #[serde(default)]
    exec: Option<Exec>,
    #[serde(default)]
    port: Option<u16>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Logs {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail_lines: Option<u64>,
    since_seconds: Option<i64>,
    limit_bytes: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exec {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

/// Yes, or why not.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Answer {
    Yes,
    NotFound(String),
    BadRequest(String),
    Unavailable(String),
    NotImplemented(String),
    Internal(String),
}

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(why) => Self::NotFound(why),
            Error::BadRequest(why) => Self::BadRequest(why),
            Error::Unavailable(why) => Self::Unavailable(why),
            Error::NotImplemented(why) => Self::NotImplemented(why),
            Error::Internal(why) => Self::Internal(why),
        }
    }
}

impl Answer {
    fn into_result(self) -> Result<(), Error> {
        let cut = |why: String| frames::cut(&why, 1024);
        match self {
            Self::Yes => Ok(()),
            Self::NotFound(why) => Err(Error::NotFound(cut(why))),
            Self::BadRequest(why) => Err(Error::BadRequest(cut(why))),
            Self::Unavailable(why) => Err(Error::Unavailable(cut(why))),
            Self::NotImplemented(why) => Err(Error::NotImplemented(cut(why))),
            Self::Internal(why) => Err(Error::Internal(cut(why))),
        }
    }
}

/// Answers the streams of peers from now on.
pub(crate) fn serve(shared: &Arc<Shared>) -> Result<(), LinkError> {
    for kind in [LOGS, EXEC, FORWARD] {
        shared.links.handle(kind, Arc::new(door::Door { shared: shared.clone(), kind }))?;
    }
    Ok(())
}

/// Answers for the pods of one virtual node.
pub(crate) struct RemoteNode {
    pub shared: Arc<Shared>,
    pub peer: NodeId,
    pub contract: String,
}

impl RemoteNode {
    fn header(&self, target: &ContainerTarget) -> Header {
        Header {
            contract: self.contract.clone(),
            uid: target.pod_uid.clone(),
            container: target.container.clone(),
            logs: None,
            exec: None,
            port: None,
        }
    }

    /// Opens a stream that the provider has said yes to.
    async fn open(&self, kind: &str, header: &Header) -> Result<LinkStream, Error> {
        let unavailable = |error: LinkError| Error::Unavailable(error.to_string());
        let mut stream = self.shared.links.open(&self.peer, kind, header).await.map_err(unavailable)?;
        let answering = frames::read::<Answer>(&mut stream, "the provider's answer", ANSWER_BYTES_MAX);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, answering).await;
        let answer =
            answer.map_err(|_| Error::Unavailable(format!("the provider did not answer within {ANSWER_TIMEOUT:?}")))?;
        answer.map_err(|error| Error::Unavailable(error.to_string()))?.into_result()?;
        Ok(stream)
    }
}

#[async_trait]
impl NodeProxy for RemoteNode {
    async fn logs(
        &self,
        target: &ContainerTarget,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Error> {
        let LogOptions { follow, previous, timestamps, tail_lines, since_seconds, limit_bytes } = options.clone();
        let logs = Some(Logs { follow, previous, timestamps, tail_lines, since_seconds, limit_bytes });
        let stream = self.open(LOGS, &Header { logs, ..self.header(target) }).await?;
        Ok(ReaderStream::new(stream).boxed())
    }

    async fn exec(&self, target: &ContainerTarget, options: &ExecOptions) -> Result<ExecSession, Error> {
        let ExecOptions { command, stdin, stdout, stderr, tty } = options.clone();
        let exec = Some(Exec { command, stdin, stdout, stderr, tty });
        let stream = self.open(EXEC, &Header { exec, ..self.header(target) }).await?;
        Ok(engine_session::carry::caller(stream, "the provider"))
    }

    async fn port_forward(&self, target: &ContainerTarget, port: u16) -> Result<Box<dyn Duplex>, Error> {
        let stream = self.open(FORWARD, &Header { port: Some(port), ..self.header(target) }).await?;
        Ok(Box::new(stream))
    }
}
