//! Logs, exec, attach and port-forward for the pods of this machine, and what the node itself answers: the kubelet's side of [`NodeProxy`].

mod logs;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use substrate_apiserver::node_proxy::{
    ContainerTarget, Duplex, Error, ExecOptions, ExecSession, LogOptions, NodeProxy,
};
use tokio::net::TcpSocket;

use crate::kubelet::Handle;
use crate::pod::PodDir;
use crate::pod::plan::{restarts, runs_of};
use engine_runtime::ContainerStatus as Run;

/// A port that does not answer within this does not exist for a user at a terminal.
const DIAL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

#[async_trait]
impl NodeProxy for Handle {
    async fn logs(
        &self,
        target: &ContainerTarget,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Error> {
        let target = &self.here(target);
        let (known, runs) = self.runs(target).await?;
        let dir = PodDir::new(&self.shared.dir, &target.pod_uid);
        let attempts = logs::attempts(&dir, &target.container);
        let latest = runs.first().map(|r| r.attempt).or(attempts.last().copied());
        let waits = runs.first().is_some_and(|r| r.finished.is_some() && restarts(&known, r));
        let wanted = match options.previous {
            // A container that waits for its restart has no current run: its last one is the previous one too.
            true if !waits => attempts.iter().rev().find(|a| Some(**a) < latest).copied(),
            _ => latest,
        };
        let Some(attempt) = wanted else {
            let ContainerTarget { container, pod, .. } = target;
            return Err(Error::BadRequest(match options.previous {
                true => format!("previous terminated container \"{container}\" in pod \"{pod}\" not found"),
                false => {
                    let why = crate::pod::status::not_yet(&known);
                    format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {why}")
                }
            }));
        };
        let seen = self.shared.runtime.watch(&target.pod_uid).await;
        let run = runs.iter().find(|r| r.attempt == attempt).map(|r| r.id.clone());
        logs::read(dir.log(&target.container, attempt), options.clone(), seen, run).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound(format!(
                "the log of run {attempt} of container \"{}\" is gone (there are {attempts:?})",
                target.container
            )),
            _ => Error::Internal(format!("read the log of container \"{}\": {e}", target.container)),
        })
    }

    async fn exec(&self, target: &ContainerTarget, options: &ExecOptions) -> Result<ExecSession, Error> {
        let target = &self.here(target);
        let (_, run) = self.running(target).await?;
        self.shared.runtime.exec(&target.pod_uid, &run, options).await.map_err(refused)
    }

    async fn attach(&self, target: &ContainerTarget, options: &ExecOptions) -> Result<ExecSession, Error> {
        let target = &self.here(target);
        let (pod, run) = self.running(target).await?;
        // Whether there is a terminal is the container's matter, not the caller's.
        let tty = crate::pod::container(&pod, &target.container).is_some_and(|c| c.tty == Some(true));
        let options = ExecOptions { tty, ..options.clone() };
        self.shared.runtime.attach(&target.pod_uid, &run, &options).await.map_err(refused)
    }

    async fn read(&self, path: &str) -> Result<Option<(&'static str, String)>, Error> {
        Ok(self.answer(path).await)
    }

    async fn port_forward(&self, target: &ContainerTarget, port: u16) -> Result<Box<dyn Duplex>, Error> {
        let target = &self.here(target);
        let pod = self.pods.borrow().get(&target.pod_uid).cloned().ok_or_else(|| not_here(target))?;
        let host = pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let socket = match (host, &self.shared.network) {
            (true, _) => TcpSocket::new_v4().map_err(|e| Error::Internal(format!("make a socket: {e}")))?,
            (false, Some(network)) => {
                if !network.attached().await.contains(&target.pod_uid) {
                    return Err(Error::BadRequest(format!("pod \"{}\" is not running", target.pod)));
                }
                let attached =
                    network.attach(&target.pod_uid).await.map_err(|e| Error::Internal(crate::pod::chain(&e)))?;
                socket_in(attached.netns).await?
            }
            (false, None) => return Err(Error::BadRequest("this node has no pod network".to_owned())),
        };
        let failed = |why: String| Error::Internal(format!("dial port {port} of pod \"{}\": {why}", target.pod));
        match tokio::time::timeout(DIAL_TIMEOUT, socket.connect(address)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(e)) => Err(failed(e.to_string())),
            Err(_) => Err(failed("no answer".to_owned())),
        }
    }
}

impl Handle {
    /// The target by its uid on this machine: a static pod is asked for by that of its mirror.
    fn here(&self, target: &ContainerTarget) -> ContainerTarget {
        ContainerTarget { pod_uid: self.shared.uid_here(&target.pod_uid), ..target.clone() }
    }

    /// The run of a container that goes on.
    async fn running(&self, target: &ContainerTarget) -> Result<(Arc<Pod>, String), Error> {
        let (pod, runs) = self.runs(target).await?;
        let ContainerTarget { container, pod: name, .. } = target;
        match runs.first().filter(|r| r.finished.is_none()) {
            Some(run) => Ok((pod, run.id.clone())),
            None => Err(Error::BadRequest(format!("container \"{container}\" in pod \"{name}\" is not running"))),
        }
    }

    /// The runs of a container, the latest first.
    async fn runs(&self, target: &ContainerTarget) -> Result<(Arc<Pod>, Vec<Run>), Error> {
        let pod = self.pods.borrow().get(&target.pod_uid).cloned().ok_or_else(|| not_here(target))?;
        if crate::pod::container(&pod, &target.container).is_none() {
            return Err(Error::BadRequest(format!(
                "container {} is not valid for pod {}",
                target.container, target.pod
            )));
        }
        let observed = self.shared.runtime.watch(&target.pod_uid).await.borrow().clone();
        let runs = runs_of(&observed.containers, &target.container).into_iter().cloned().collect();
        Ok((pod, runs))
    }
}

fn refused(error: engine_runtime::Error) -> Error {
    match error {
        engine_runtime::Error::Refused(why) => Error::Internal(why),
        e => Error::Internal(crate::pod::chain(&e)),
    }
}

fn not_here(target: &ContainerTarget) -> Error {
    Error::NotFound(format!("pod \"{}/{}\" is not on this node", target.namespace, target.pod))
}

/// A socket that belongs to a pod's network namespace, wherever it is used later. A thread of its own goes there, for a
/// namespace belongs to a thread, and the runtime's threads must stay where they are.
async fn socket_in(netns: PathBuf) -> Result<TcpSocket, Error> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let work = move || {
        let made = (|| {
            let file = open(&netns, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
            setns(file, CloneFlags::CLONE_NEWNET)?;
            TcpSocket::new_v4()
        })();
        drop(send.send(made)); // the caller may have gone
    };
    std::thread::Builder::new()
        .name("port-forward".to_owned())
        .spawn(work)
        .map_err(|e| Error::Internal(format!("start a thread: {e}")))?;
    match receive.await {
        Ok(made) => made.map_err(|e| Error::Internal(format!("make a socket in the pod's network: {e}"))),
        Err(_) => Err(Error::Internal("the thread that makes sockets was lost".to_owned())),
    }
}
