//! Twins: a *twin* is the pod at a provider that stands for a pod of a consumer.
//!
//! ```text
//! desired/1 ─▶ Expected: contract, signer, sequence ─▶ admit: baseline, amounts ─▶ build ─▶ namespace, ConfigMaps, Secrets, pod
//! twin pods of this API ─▶ report ─▶ Observed, Gone, Ready
//! paid per use, and more is asked for than there is ─▶ yields: twins end or do not begin, in the order that contracts say
//! contracts that have ended, twins that nobody names ─▶ sweep: pods, ConfigMaps, Secrets, namespaces go
//! ```
//! A twin is *confirmed* if and only if its consumer has named it since this process started. A kubelet starts no container of
//! a twin that is not confirmed: what a node finds when it comes back may have been started elsewhere meanwhile.

mod admit;
mod build;
mod burst;
mod session;
mod sweep;
#[cfg(test)]
mod tests;
mod yields;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use fluidos_link::{LinkStream, PeerInfo};
use fluidos_model::kinds::names;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub(crate) use self::burst::Yielding;
pub(crate) use self::session::tell_yielding;
pub(crate) use self::sweep::run;
use crate::fabric::Shared;
use crate::frames::Header;

/// Which pod of the consumer a twin stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Origin {
    /// Returns what a twin stands for; `None` if it is no twin.
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let mut parts = pod.annotations().get(names::ANNOTATION_ORIGIN)?.split('/').map(str::to_owned);
        let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
        parts.next().is_none().then_some(Self { namespace, name, uid })
    }
}

/// What this node provides now.
#[derive(Default)]
pub(crate) struct Providing {
    deals: Mutex<BTreeMap<String, Arc<Contract>>>,
}

/// One contract that is provided.
#[derive(Default)]
pub(crate) struct Contract {
    /// Ends the session that holds it.
    newer: Mutex<CancellationToken>,
    /// One session at a time; in it the newest epoch and sequence that were accepted.
    pub last: tokio::sync::Mutex<Option<(u64, u64)>>,
}

impl Providing {
    /// The contract of this name.
    pub(crate) fn contract(&self, name: &str) -> Arc<Contract> {
        self.lock().entry(name.to_owned()).or_default().clone()
    }

    /// Forgets all but these.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.lock().retain(|name, _| keep(name));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Contract>>> {
        self.deals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contract {
    /// Asks the session there is to end, and returns what asks the new one.
    pub(crate) fn take_over(&self) -> CancellationToken {
        let mut newer = self.newer.lock().unwrap_or_else(PoisonError::into_inner);
        newer.cancel();
        *newer = CancellationToken::new();
        newer.clone()
    }
}

/// Answers streams of desired state.
pub(crate) struct Handler(pub Arc<Shared>);

#[async_trait]
impl fluidos_link::Handler for Handler {
    async fn stream(&self, peer: &PeerInfo, header: Value, stream: LinkStream) {
        match serde_json::from_value::<Header>(header) {
            Ok(header) => session::run(&self.0, peer, header.contract, stream).await,
            Err(error) => {
                tracing::warn!(peer = %peer.id, %error, "a stream of desired state without a contract");
                stream.abandon();
            }
        }
    }
}
