//! One stream of desired state, at the provider.

mod make;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fluidos_identity::Envelope;
use fluidos_link::{LinkStream, PeerInfo};
use fluidos_model::kinds::{Allocation, AllocationPhase, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodIP, PodStatus};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use self::make::Made;
use super::{Contract, Origin};
use crate::Error;
use crate::deal::Deal;
use crate::fabric::Shared;
use crate::frames::{self, Change, Expected, FRAME_BYTES_MAX, Put, Reported};
use crate::resale;
use crate::tasks::Task;
use crate::virtual_node::absent_is_well;

/// Frames that wait while one is carried out; then the stream holds the consumer back.
const WAITING_MAX: usize = 4;
/// Pods that wait for a name that is still in use; each may be a frame.
const NAMES_MAX: usize = 16;
/// A name that is still in use is tried again, and contracts end by time.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A consumer that does not take a frame for this long does not work.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

struct Session<'a> {
    shared: &'a Arc<Shared>,
    deal: Deal,
    to: tokio::io::WriteHalf<LinkStream>,
    /// Named in `Begin`, or put since.
    wanted: BTreeSet<String>,
    begun: bool,
    synced: bool,
    ready: bool,
    /// Why what serves the contract is not there, as it was said last.
    missing: Option<String>,
    /// Put, but their name is still another's.
    waiting: BTreeMap<String, Put>,
    /// What was said of each twin.
    said: BTreeMap<String, PodStatus>,
    /// To be told when they are gone.
    leaving: BTreeSet<String>,
    /// Put, and had to yield: they are put again.
    yielding: BTreeSet<String>,
}

/// Serves a stream until it ends.
pub(super) async fn run(shared: &Arc<Shared>, peer: &PeerInfo, contract: String, stream: LinkStream) {
    shared.synced().await;
    let (from, mut to) = tokio::io::split(stream);
    let deal = match shared.live_deal(&contract, peer.id, shared.id()) {
        Ok(deal) => deal,
        Err(error) => {
            tracing::warn!(peer = %peer.id, %error, "desired state refused");
            close(&mut to, &error).await;
            return;
        }
    };
    let providing = shared.providing.contract(&deal.name);
    let newer = providing.take_over();
    let served = async {
        let session = Session {
            shared,
            deal,
            to,
            wanted: BTreeSet::new(),
            begun: false,
            synced: false,
            ready: false,
            missing: None,
            waiting: BTreeMap::new(),
            said: BTreeMap::new(),
            leaving: BTreeSet::new(),
            yielding: BTreeSet::new(),
        };
        session.serve(&providing, from).await;
    };
    // What a session that is replaced leaves half done, the newer one finds in the API.
    tokio::select! {
        () = served => {}
        () = newer.cancelled() => tracing::debug!(contract, "a newer stream took over"),
    }
}

async fn close(to: &mut tokio::io::WriteHalf<LinkStream>, error: &Error) {
    // One that cannot be told sees the end of the stream.
    let newest_epoch = match error {
        Error::Replayed { last, .. } => Some(last.0),
        _ => None,
    };
    let telling = async {
        let closing = Reported::Closing { reason: error.to_string(), newest_epoch };
        frames::write(to, "the end of the stream", &closing).await?;
        to.shutdown().await.map_err(Error::stream("the end of the stream"))?;
        tokio::time::sleep(Duration::from_millis(200)).await; // dropping a stream stops what has not been read yet
        Ok::<_, Error>(())
    };
    let _ = tokio::time::timeout(WRITE_TIMEOUT, telling).await;
}

impl Session<'_> {
    async fn serve(mut self, providing: &Contract, mut from: tokio::io::ReadHalf<LinkStream>) {
        let mut last = providing.last.lock().await;
        let mut expected = Expected {
            contract: self.deal.name.clone(),
            consumer: self.deal.buyer,
            provider: self.deal.seller,
            last: *last,
        };
        let (sender, mut frames) = mpsc::channel(WAITING_MAX);
        let _reader = Task::spawn(async move {
            loop {
                let envelope = frames::read::<Envelope>(&mut from, "desired state", FRAME_BYTES_MAX).await;
                let is_last = envelope.is_err();
                if sender.send(envelope).await.is_err() || is_last {
                    return;
                }
            }
        });
        let mut pods = self.shared.pods.changes();
        let mut contracts = self.shared.contracts.changes();
        let mut nodes = self.shared.nodes.changes();
        let ended = loop {
            pods.mark_unchanged();
            nodes.mark_unchanged();
            if let Err(error) = self.report().await {
                break error;
            }
            // Each arm only waits or takes one whole frame: losing the race loses nothing.
            let step = tokio::select! {
                frame = frames.recv() => match frame {
                    Some(Ok(envelope)) => match expected.open(&envelope) {
                        Ok(desired) => {
                            *last = expected.last;
                            self.take(desired.change).await
                        }
                        Err(error) => Err(error),
                    },
                    Some(Err(error)) => Err(error),
                    None => Err(Error::stream("desired state")(std::io::ErrorKind::UnexpectedEof.into())),
                },
                _ = pods.changed() => Ok(()),
                _ = nodes.changed(), if self.deal.served_by.is_some() => Ok(()),
                _ = contracts.changed() => self.still_live(),
                () = tokio::time::sleep(LOOK_AGAIN) => match self.still_live() {
                    Ok(()) => self.put_waiting().await,
                    ended => ended,
                },
            };
            if let Err(error) = step {
                break error;
            }
        };
        tracing::info!(contract = self.deal.name, peer = %self.deal.buyer, error = %ended, "the stream of desired state ended");
        close(&mut self.to, &ended).await;
    }

    /// Looks at the contract again: which other one serves it may have changed.
    fn still_live(&mut self) -> Result<(), Error> {
        self.deal = self.shared.live_deal(&self.deal.name, self.deal.buyer, self.deal.seller)?;
        Ok(())
    }

    async fn take(&mut self, change: Change) -> Result<(), Error> {
        match change {
            Change::Begin { pods } if !self.begun => {
                self.begun = true;
                self.shared.begin(&self.deal.name);
                self.wanted = pods.into_iter().collect();
                self.shared.confirm_only(&self.deal.name, self.wanted.clone());
                for twin in self.twins().await? {
                    if !origin_uid(&twin).is_some_and(|uid| self.wanted.contains(&uid)) {
                        self.delete(&twin, None).await?;
                    }
                }
                Ok(())
            }
            _ if !self.begun => {
                Err(Error::Malformed { what: "desired state", reason: "it does not begin with Begin".into() })
            }
            Change::Begin { .. } => Err(Error::Malformed { what: "desired state", reason: "it begins twice".into() }),
            Change::Put(put) => self.put(*put).await,
            Change::Delete { uid, grace_seconds } => {
                self.wanted.remove(&uid);
                self.waiting.remove(&uid);
                self.yields(&uid, false).await;
                self.shared.confirm_only(&self.deal.name, self.wanted.clone());
                match self.twins().await?.iter().find(|twin| origin_uid(twin).as_ref() == Some(&uid)) {
                    Some(twin) => {
                        self.delete(twin, grace_seconds).await?;
                        self.leaving.insert(uid);
                        Ok(())
                    }
                    None => self.say(Reported::Gone { uid, reason: None }).await,
                }
            }
            Change::Synced => {
                self.synced = true;
                Ok(())
            }
        }
    }

    /// Makes a twin, or brings what goes with it up to date.
    async fn put(&mut self, put: Put) -> Result<(), Error> {
        let uid = put.pod.metadata.uid.clone().unwrap_or_default();
        self.waiting.remove(&uid);
        let made = self.make(&put, &uid).await?;
        self.yields(&uid, matches!(made, Made::Yields(_))).await;
        match made {
            Made::Done => {
                self.wanted.insert(uid.clone());
                self.shared.confirm(&self.deal.name, [&uid]);
                Ok(())
            }
            Made::Later if self.waiting.len() < NAMES_MAX => {
                self.waiting.insert(uid, put);
                Ok(())
            }
            Made::Later => {
                let reason = format!("its name is in use, and {NAMES_MAX} others wait for theirs");
                self.say(Reported::Refused { uid, reason, yields: false }).await
            }
            Made::Refused(reason) => {
                tracing::info!(contract = self.deal.name, uid, reason, "a pod is refused");
                self.say(Reported::Refused { uid, reason, yields: false }).await
            }
            Made::Yields(reason) => self.say(Reported::Refused { uid, reason, yields: true }).await,
        }
    }

    async fn put_waiting(&mut self) -> Result<(), Error> {
        for (_, put) in std::mem::take(&mut self.waiting) {
            self.put(put).await?;
        }
        Ok(())
    }

    /// The twins of the contract as the API has them now.
    async fn twins(&self) -> Result<Vec<Pod>, Error> {
        let of_contract = ListParams::default().labels(&format!("{}={}", names::LABEL_CONTRACT, self.deal.name));
        let list = Api::<Pod>::all(self.shared.client.clone()).list(&of_contract).await;
        Ok(list.map_err(Error::api("list twins"))?.items)
    }

    async fn delete(&self, twin: &Pod, grace_seconds: Option<u32>) -> Result<(), Error> {
        delete(self.shared, twin, grace_seconds).await
    }

    /// Says what is new about twins.
    async fn report(&mut self) -> Result<(), Error> {
        if !self.begun {
            return Ok(());
        }
        let missing = self.shared.missing(&self.deal);
        if missing != self.missing {
            self.missing.clone_from(&missing);
            self.say(Reported::Capacity { missing }).await?;
        }
        let mut here = BTreeMap::new();
        for pod in self.shared.pods.list() {
            if pod.labels().get(names::LABEL_CONTRACT) == Some(&self.deal.name)
                && let Some(uid) = origin_uid(&pod)
            {
                here.insert(uid, pod);
            }
        }
        for (uid, pod) in &here {
            let status = seen(pod);
            if self.said.get(uid) != Some(&status) {
                self.said.insert(uid.clone(), status.clone());
                self.say(Reported::Observed { uid: uid.clone(), status: Box::new(status) }).await?;
            }
        }
        let absent: Vec<String> =
            self.said.keys().chain(&self.leaving).filter(|uid| !here.contains_key(*uid)).cloned().collect();
        if !absent.is_empty() || (self.synced && !self.ready) {
            // What is watched may be behind what was just written.
            let now: BTreeSet<String> = self.twins().await?.iter().filter_map(origin_uid).collect();
            for uid in absent.into_iter().filter(|uid| !now.contains(uid)) {
                self.said.remove(&uid);
                self.leaving.remove(&uid);
                let reason = self.shared.yielding.take(&self.deal.name, &uid);
                self.say(Reported::Gone { uid, reason }).await?;
            }
            if self.synced && !self.ready && now.iter().all(|uid| self.wanted.contains(uid)) {
                self.ready = true;
                self.say(Reported::Ready).await?;
            }
        }
        if self.ready {
            self.in_use().await; // again as long as it does not say so: it may be written after the stream has begun
        }
        Ok(())
    }

    /// Takes note of whether a pod yields, and says on this side's Allocation how many do.
    async fn yields(&mut self, uid: &str, does: bool) {
        if if does { self.yielding.insert(uid.to_owned()) } else { self.yielding.remove(uid) } {
            tell_yielding(self.shared, &self.deal.name, self.yielding.len()).await;
        }
    }

    /// Says on this side's Allocation that the buyer uses it. One that official tools took away is not made again.
    async fn in_use(&self) {
        let name = names::allocation(&self.deal.name);
        let known = self.shared.allocations.get(names::NAMESPACE, &name);
        if known.is_none_or(|known| known.status.as_ref().is_some_and(|s| s.status == AllocationPhase::Active)) {
            return;
        }
        let message = "the buyer has said what shall run here";
        let status = json!({"status": {"status": AllocationPhase::Active, "lastUpdateTime": Timestamp::now().to_string(), "message": message}});
        let api = Api::<Allocation>::namespaced(self.shared.client.clone(), names::NAMESPACE);
        if let Err(error) = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await {
            tracing::warn!(allocation = name, %error, "its status stays behind");
        }
    }

    async fn say(&mut self, reported: Reported) -> Result<(), Error> {
        let writing = async {
            frames::write(&mut self.to, "observed state", &reported).await?;
            self.to.flush().await.map_err(Error::stream("observed state"))
        };
        tokio::time::timeout(WRITE_TIMEOUT, writing).await.unwrap_or_else(|_| {
            Err(Error::stream("observed state")(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "the consumer does not read",
            )))
        })
    }
}

/// Writes into the Allocation of a contract how many pods yield, if it does not stand there.
pub(crate) async fn tell_yielding(shared: &Shared, contract: &str, pods: usize) {
    let name = names::allocation(contract);
    let Some(known) = shared.allocations.get(names::NAMESPACE, &name) else { return };
    let pods = pods as u64;
    if known.status.as_ref().map_or(0, |status| status.yielding) == pods {
        return;
    }
    let api = Api::<Allocation>::namespaced(shared.client.clone(), names::NAMESPACE);
    let patch = Patch::Merge(json!({"status": {"yielding": pods}}));
    if let Err(error) = absent_is_well(api.patch_status(&name, &PatchParams::default(), &patch).await.map(drop)) {
        tracing::warn!(allocation = name, %error, "how many pods yield stays untold");
    }
}

fn origin_uid(pod: &Pod) -> Option<String> {
    Origin::of(pod).map(|origin| origin.uid)
}

/// Deletes this very twin; one that is being deleted already may be given less time.
pub(super) async fn delete(shared: &Shared, twin: &Pod, grace_seconds: Option<u32>) -> Result<(), Error> {
    let (namespace, name) = (twin.namespace().unwrap_or_default(), twin.name_any());
    if twin.metadata.deletion_timestamp.is_some() && grace_seconds.is_none() {
        return Ok(());
    }
    let api = Api::<Pod>::namespaced(shared.client.clone(), &namespace);
    let same = Preconditions { uid: twin.uid(), resource_version: None };
    let grace = grace_seconds.map(|seconds| {
        let own = twin.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        // At least a second: a kubelet is to stop it, not the API to forget it; and no longer than the twin itself says.
        seconds.clamp(1, u32::try_from(own).unwrap_or(1).max(1))
    });
    let params = DeleteParams { grace_period_seconds: grace, preconditions: Some(same), ..DeleteParams::default() };
    absent_is_well(api.delete(&name, &params).await.map(drop))
        .map_err(Error::api(format!("delete pod {namespace}/{name}")))
}

/// What a consumer is told of a twin: nothing of this cluster's machines, nor of who runs it.
fn seen(pod: &Pod) -> PodStatus {
    let mut status = pod.status.clone().unwrap_or_default();
    let stand_in = resale::stand_in(pod);
    if let Some(stand_in) = stand_in {
        status.pod_ip = status.pod_ip.map(|_| stand_in.to_string());
        status.pod_ips = status.pod_ip.clone().map(|ip| vec![PodIP { ip }]);
    }
    let unscheduled = |c: &PodCondition| c.type_ == "PodScheduled" && c.status == "False";
    let waits = status.conditions.iter().flatten().any(unscheduled);
    let (reason, message) = match waits {
        true if stand_in.is_some() => {
            let why = "what the provider has bought to run it is not there now, or full";
            (Some("Unschedulable".to_owned()), Some(why.to_owned()))
        }
        true => (Some("Unschedulable".to_owned()), Some("the provider has no machine for it now".to_owned())),
        false => (status.reason, status.message),
    };
    let conditions = status.conditions.map(|all| all.into_iter().filter(|c| c.type_ != "PodScheduled").collect());
    PodStatus {
        phase: status.phase,
        conditions,
        reason,
        message,
        start_time: status.start_time,
        pod_ip: status.pod_ip,
        pod_ips: status.pod_ips,
        container_statuses: status.container_statuses,
        init_container_statuses: status.init_container_statuses,
        ..PodStatus::default()
    }
}
