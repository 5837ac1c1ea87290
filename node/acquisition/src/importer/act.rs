//! Carries a plan out. Every effect of the importer is here, in [`super::ask`], [`super::buy`] and [`super::trade`].

use fluidos_identity::SignedError;
use fluidos_model::kinds::{
    Contract, Discovery, DiscoverySpec, EmbeddedMeta, EmbeddedPeeringCandidate, PeeringCandidate, PeeringCandidateSpec,
    PeeringCandidateStatus, Phase, PhaseStatus, Solver, SolverStatus, names,
};
use fluidos_rear as rear;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::plan::Action;
use super::view::{Findings, Offered, Peer, Refused};
use super::wanted::Wanted;
use super::{ask, buy, plain, status, weigh};
use crate::contracts::WriteError;
use crate::{Options, contracts, convert, events, paying};

/// Others may write a candidate at the same time: other Solvers that are interested in it.
const TRIES_MAX: u32 = 8;
/// Solvers that are named as interested in one candidate; the newest are kept.
const INTERESTED_MAX: usize = 64;

/// What came of an action.
#[derive(Debug)]
pub(super) enum Done {
    /// Everybody was asked.
    Asked { peers: Vec<Peer>, findings: Findings },
    /// There are contracts: one, or those of all parts.
    Bought { contracts: Vec<String> },
    /// There is none. What each lot has come to.
    Unsold(Vec<Unsold>),
    /// The Solver was written; this version of it is outdated.
    Wrote { outdated: Option<String> },
    /// Nothing was to be done.
    Nothing,
}

/// A lot that was not bought.
#[derive(Debug)]
pub(super) struct Unsold {
    pub candidate: String,
    pub transaction: Option<String>,
    /// Why this one does not sell, and whether it is only away; `None` if it was given back because of another.
    pub why: Option<(Refused, bool)>,
}

/// Why an action was not done. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Signed(#[from] SignedError),
    #[error("{kind} {name} still belongs to an earlier Solver of this name")]
    Stale { kind: String, name: String },
    #[error("contract {name} is there after all")]
    Lives { name: String },
    #[error("candidate {name} kept being changed by others")]
    Contended { name: String },
}

/// Does one thing of a plan.
pub(super) async fn act(client: &Client, options: &Options, solver: &Solver, action: Action) -> Result<Done, Error> {
    match action {
        Action::Write { status } => write(client, solver, &status).await,
        Action::Ask { peers, selector, split, intents, buying, earlier } => {
            let discovery = discovery(client, solver).await?;
            let deadline = buying.as_ref().map_or(ask::DEADLINE, |buying| buying.deadline);
            let request = ask::request(&selector, solver, buying.as_deref());
            let asked = (&request, &rear::Path::default());
            let usable = matches!(selector.as_ref(), Wanted::Slice(_)) && !solver.spec.wants_peering();
            let (asks, spared): (Vec<Peer>, Vec<Peer>) = peers.iter().cloned().partition(|peer| !peer.plain || usable);
            let mut answers = ask::ask(options, &asks, asked, buying.as_deref(), deadline).await;
            answers.extend(spared.into_iter().map(|peer| (peer, Err(plain::unusable()))));
            let findings = match selector.as_ref() {
                Wanted::Slice(slice) => weigh::weigh(slice, split.as_ref(), &intents, buying.as_deref(), &answers),
                Wanted::Service(service, configuration) => {
                    weigh::weigh_services((service, configuration), &intents, buying.as_deref(), &answers)
                }
            };
            let (peers, findings) = match earlier.map(|earlier| *earlier) {
                Some((asked, earlier)) => (asked.into_iter().chain(peers).collect(), earlier.and(findings)),
                None => (peers, findings),
            };
            record(client, solver, &discovery, &findings).await?;
            Ok(Done::Asked { peers, findings })
        }
        Action::Buy { offers } => {
            let pays = offers.iter().any(|offered| offered.owes().is_none_or(|price| !price.is_zero()));
            // What is bought to be sold on is paid from the same purse, by the exporter: one pays at a time.
            let turn = if pays { Some(options.paying.turn().await) } else { None };
            if turn.as_ref().is_some_and(paying::Turn::others_paid)
                && let Err(reason) = afford(client, solver, &offers).await?
            {
                return Ok(Done::Unsold(buy::too_dear(&offers, &reason)));
            }
            match offers.as_slice() {
                [offered] if offered.seller.key().is_none() => plain::act::buy(client, options, solver, offered).await,
                offers => buy::buy(client, options, solver, offers).await,
            }
        }
        Action::Resume => {
            let _paid = options.paying.turn().await;
            buy::resume(client, options, solver).await
        }
        Action::Allocate { contract } => {
            let api = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
            match api.get_opt(&contract).await?.filter(|known| known.metadata.deletion_timestamp.is_none()) {
                Some(known) => {
                    contracts::allocate(client, &known).await?;
                    Ok(Done::Nothing)
                }
                None => {
                    let old = solver.status.clone().unwrap_or_default();
                    let reason = format!("contract {contract} has ended before it was used");
                    let ended = status::ended(&old, Phase::Failed, status::Step::Buy, &reason, Timestamp::now());
                    write(client, solver, &ended).await
                }
            }
        }
        Action::Ended { contracts, status } => {
            let api = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
            for name in contracts {
                if api.get_opt(&name).await?.is_some_and(|known| known.metadata.deletion_timestamp.is_none()) {
                    return Err(Error::Lives { name });
                }
            }
            write(client, solver, &status).await
        }
    }
}

/// Decides again by what stands among the contracts now.
async fn afford(client: &Client, solver: &Solver, offers: &[Offered]) -> Result<Result<(), String>, Error> {
    let (purse, now) = (paying::now(client).await?, Timestamp::now());
    let prices: Vec<_> = offers.iter().map(Offered::owes).collect();
    let decided = paying::afford(&purse, &prices, paying::namespace(solver), &[], now);
    Ok(decided.map_err(|refusal| refusal.to_string()))
}

async fn write(client: &Client, solver: &Solver, status: &SolverStatus) -> Result<Done, Error> {
    let api = Api::<Solver>::namespaced(client.clone(), names::NAMESPACE);
    let outdated = solver.metadata.resource_version.clone();
    let mut value = json!({"metadata": {"resourceVersion": outdated}, "status": status});
    // A merge keeps what is not said.
    if value["status"].get("contracts").is_none() {
        value["status"]["contracts"] = serde_json::Value::Null;
    }
    for time in ["startTime", "endTime"] {
        let phase = &mut value["status"]["solverPhase"];
        if phase.get(time).is_none() {
            phase[time] = serde_json::Value::Null;
        }
    }
    let patch = Patch::Merge(value);
    let written = match api.patch_status(&solver.name_any(), &PatchParams::default(), &patch).await {
        // Somebody changed or deleted it: it is looked at again.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(Done::Nothing),
        other => other?,
    };
    let phase = &status.solver_phase;
    let told = solver.status.as_ref().map(|old| old.contracts.clone()).unwrap_or_default();
    for contract in status.contracts.iter().filter(|contract| !told.contains(contract)) {
        let message = format!("contract {} with {}: {}", contract.name, contract.peer, contract.why);
        events::tell(client, solver, "Bought", &message).await;
    }
    if matches!(phase.phase, Phase::Failed | Phase::TimedOut) {
        let reason = if phase.phase == Phase::Failed { "SolverFailed" } else { "SolverTimedOut" };
        events::warn(client, solver, reason, &phase.message).await;
    }
    Ok(Done::Wrote {
        outdated: outdated.filter(|_| written.metadata.resource_version != solver.metadata.resource_version),
    })
}

/// The owner reference by which an object goes with its Solver.
pub(super) fn owner(solver: &Solver) -> Option<OwnerReference> {
    solver.controller_owner_ref(&())
}

/// Writes an object of a Solver; one that is there stays as it is, if it belongs to this very Solver.
pub(super) async fn ensure<K>(client: &Client, solver: &Solver, mut object: K) -> Result<K, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    object.meta_mut().namespace = Some(names::NAMESPACE.into());
    object.meta_mut().owner_references = owner(solver).map(|owner| vec![owner]);
    let api = Api::<K>::namespaced(client.clone(), names::NAMESPACE);
    let name = object.name_any();
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        other => return Ok(other?),
    }
    let known = api.get(&name).await?;
    let own = known.owner_references().iter().any(|owner| Some(&owner.uid) == solver.metadata.uid.as_ref());
    if own && known.meta().deletion_timestamp.is_none() {
        return Ok(known);
    }
    Err(Error::Stale { kind: K::kind(&()).into_owned(), name })
}

async fn discovery(client: &Client, solver: &Solver) -> Result<Discovery, Error> {
    let (name, selector) = (solver.name_any(), solver.spec.selector.clone());
    let spec = DiscoverySpec { solver_id: name.clone(), selector, subscribe: true };
    ensure(client, solver, Discovery::new(&names::discovery(&name), spec)).await
}

/// Writes what was found: the candidates, and the Discovery with them and with who is out.
async fn record(client: &Client, solver: &Solver, discovery: &Discovery, findings: &Findings) -> Result<(), Error> {
    let now = Timestamp::now();
    let mut items = Vec::new();
    for offered in findings.candidates() {
        let candidate = candidate(client, solver, offered, now).await?;
        items.push(EmbeddedPeeringCandidate {
            metadata: EmbeddedMeta { name: offered.candidate.clone(), namespace: names::NAMESPACE.into() },
            spec: candidate.spec,
            status: candidate.status,
        });
    }
    let old = discovery.status.as_ref().map(|status| status.phase.clone()).unwrap_or_default();
    let phase = if items.is_empty() { Phase::Running } else { Phase::Solved };
    let prefix = if items.is_empty() { "Discovery Running" } else { "Discovery Solved" };
    let message = format!("{prefix}: {}", weigh::told(findings));
    let phase: PhaseStatus = status::phase_status(&old, phase, &message, now);
    let status = json!({"status": {"phase": phase, "peeringCandidateList": {"items": items}}});
    let api = Api::<Discovery>::namespaced(client.clone(), names::NAMESPACE);
    match api.patch_status(&discovery.name_any(), &PatchParams::default(), &Patch::Merge(status)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(|_| ())?),
    }
}

/// Writes a candidate, which several Solvers may be interested in: it goes with the last of them.
pub(super) async fn candidate(
    client: &Client,
    solver: &Solver,
    offered: &Offered,
    now: Timestamp,
) -> Result<PeeringCandidate, Error> {
    let api = Api::<PeeringCandidate>::namespaced(client.clone(), names::NAMESPACE);
    let interest = solver.owner_ref(&());
    for _ in 0..TRIES_MAX {
        let known = api.get_opt(&offered.candidate).await?;
        let mut solvers = known.as_ref().map(|known| known.spec.interested_solver_ids.clone()).unwrap_or_default();
        let mut owners = known.as_ref().map(|known| known.owner_references().to_vec()).unwrap_or_default();
        solvers.retain(|name| *name != solver.name_any());
        solvers.push(solver.name_any());
        owners.retain(|owner| Some(&owner.uid) != solver.metadata.uid.as_ref());
        owners.extend(interest.clone());
        solvers.drain(..solvers.len().saturating_sub(INTERESTED_MAX));
        owners.drain(..owners.len().saturating_sub(INTERESTED_MAX));
        let spec = PeeringCandidateSpec {
            interested_solver_ids: solvers,
            flavor: offered.flavor.clone(),
            available: offered.flavor.spec.availability,
            seller_did: offered.seller.did(),
            ..PeeringCandidateSpec::default()
        };
        let seen = known.as_ref().and_then(|known| known.status.clone()).unwrap_or_default();
        let mut object = PeeringCandidate::new(&offered.candidate, spec);
        object.metadata = known.as_ref().map(|known| known.metadata.clone()).unwrap_or(object.metadata);
        object.metadata.namespace = Some(names::NAMESPACE.into());
        object.metadata.owner_references = Some(owners);
        if let Some(key) = offered.seller.key() {
            object.labels_mut().insert(names::LABEL_PEER.into(), key.tag());
        }
        let written = match &known {
            Some(_) => api.replace(&offered.candidate, &PostParams::default(), &object).await,
            None => api.create(&PostParams::default(), &object).await,
        };
        let mut written = match written {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => continue,
            other => other?,
        };
        let creation_time = if seen.creation_time.is_empty() { now.to_string() } else { seen.creation_time };
        let status = PeeringCandidateStatus { creation_time, last_update_time: now.to_string() };
        let patch = Patch::Merge(json!({"status": status}));
        match api.patch_status(&offered.candidate, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            other => other?,
        };
        written.status = Some(status);
        return Ok(written);
    }
    Err(Error::Contended { name: offered.candidate.clone() })
}

/// The buyer's own name for itself on the wire.
pub(super) fn buyer(options: &Options) -> fluidos_rear::Party {
    convert::party(&options.identity)
}
