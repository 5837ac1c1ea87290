//! The provider's side: who asks, about which twin, and then the node that runs it.

use std::sync::Arc;

use async_trait::async_trait;
use fluidos_link::{Handler, LinkStream, PeerInfo};
use fluidos_model::kinds::names;
use kube::ResourceExt as _;
use serde_json::Value;
use substrate_apiserver::node_proxy::{ContainerTarget, Error, ExecOptions, LogOptions, NodeProxy, carry_log};
use tokio::io::AsyncWriteExt as _;

use super::{Answer, EXEC, FORWARD, Header, LOGS};
use crate::fabric::Shared;
use crate::frames;
use crate::twins::Origin;

/// A command line; the kernel's own bound of one argument is 128 KiB, and the header's 64 KiB.
const ARGUMENTS_MAX: usize = 256;

pub(super) struct Door {
    pub shared: Arc<Shared>,
    pub kind: &'static str,
}

#[async_trait]
impl Handler for Door {
    async fn stream(&self, peer: &PeerInfo, header: Value, mut stream: LinkStream) {
        let found = match serde_json::from_value::<Header>(header) {
            Ok(header) => self.find(peer, &header).map(|(target, proxy)| (header, target, proxy)),
            Err(error) => Err(Error::BadRequest(format!("header: {error}"))),
        };
        let served = match found {
            Ok((header, target, proxy)) => self.serve(header, target, proxy, &mut stream).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::debug!(peer = %peer.id, kind = self.kind, %error, "refused");
            let _ = frames::write(&mut stream, "the answer", &Answer::from(error)).await; // the peer may have gone
        }
        let _ = stream.shutdown().await;
        // Dropping a stream stops what has not been read yet: the peer closes when it has read all.
        let mut rest = [0; 512];
        let draining =
            async { while matches!(tokio::io::AsyncReadExt::read(&mut stream, &mut rest).await, Ok(n) if n > 0) {} };
        let _ = tokio::time::timeout(super::ANSWER_TIMEOUT, draining).await;
    }
}

impl Door {
    /// The twin that a peer asks about, if it is its own, and the node that runs it.
    fn find(&self, peer: &PeerInfo, header: &Header) -> Result<(ContainerTarget, Arc<dyn NodeProxy>), Error> {
        let deal = self.shared.live_deal(&header.contract, peer.id, self.shared.id());
        let deal = deal.map_err(|error| Error::NotFound(error.to_string()))?;
        let is_twin = |pod: &k8s_openapi::api::core::v1::Pod| {
            pod.labels().get(names::LABEL_CONTRACT) == Some(&deal.name)
                && Origin::of(pod).is_some_and(|origin| origin.uid == header.uid)
        };
        let twin = self.shared.pods.list().into_iter().find(|pod| is_twin(pod));
        let twin = twin.ok_or_else(|| Error::NotFound("the provider has no twin of this pod".into()))?;
        let spec = twin.spec.clone().unwrap_or_default();
        let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        if self.kind != FORWARD && !containers.any(|container| container.name == header.container) {
            return Err(Error::BadRequest(format!(
                "container {:?} is not one of the pod's",
                frames::cut(&header.container, 63)
            )));
        }
        let node = spec.node_name.filter(|node| !node.is_empty());
        let node = node.ok_or_else(|| Error::BadRequest("the provider has not given the pod a machine yet".into()))?;
        let proxy = self.shared.proxies.get(&node);
        let proxy = proxy
            .ok_or_else(|| Error::Unavailable("the machine of the pod cannot be reached at the provider".into()))?;
        let target = ContainerTarget {
            namespace: twin.namespace().unwrap_or_default(),
            pod: twin.name_any(),
            pod_uid: twin.uid().unwrap_or_default(),
            container: header.container.clone(),
        };
        Ok((target, proxy))
    }

    /// Answers and carries. An error is one before the answer.
    async fn serve(
        &self,
        header: Header,
        target: ContainerTarget,
        proxy: Arc<dyn NodeProxy>,
        stream: &mut LinkStream,
    ) -> Result<(), Error> {
        let wanted = (self.kind, header.logs, header.exec, header.port);
        match wanted {
            (LOGS, Some(logs), None, None) => {
                let super::Logs { follow, previous, timestamps, tail_lines, since_seconds, limit_bytes } = logs;
                let options = LogOptions { follow, previous, timestamps, tail_lines, since_seconds, limit_bytes };
                let mut log = proxy.logs(&target, &options).await?;
                if yes(stream).await {
                    carry_log(&mut log, stream).await;
                }
            }
            (EXEC, None, Some(exec), None) => {
                let super::Exec { command, stdin, stdout, stderr, tty } = exec;
                if command.is_empty() || command.len() > ARGUMENTS_MAX {
                    let why = format!("a command of {} words, needed 1 to {ARGUMENTS_MAX}", command.len());
                    return Err(Error::BadRequest(why));
                }
                let session = proxy.exec(&target, &ExecOptions { command, stdin, stdout, stderr, tty }).await?;
                if yes(stream).await {
                    engine_session::carry::serve(session, stream).await;
                }
            }
            (FORWARD, None, None, Some(port)) => {
                let mut connection = proxy.port_forward(&target, port).await?;
                if yes(stream).await {
                    // Either side may break it off.
                    let _ = tokio::io::copy_bidirectional(stream, &mut connection).await;
                }
            }
            _ => return Err(Error::BadRequest(format!("{} with other options than it has", self.kind))),
        }
        Ok(())
    }
}

/// Whether the peer is still there to hear the yes.
async fn yes(stream: &mut LinkStream) -> bool {
    frames::write(stream, "the answer", &Answer::Yes).await.is_ok()
}
