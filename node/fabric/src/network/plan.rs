//! From contracts to peers, as a pure function.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::net::Ipv4Addr;

use fluidos_identity::{NodeId, Speakers};
use fluidos_model::kinds::{Contract, FlavorType, NodeIdentity, Phase, names, serving};
use fluidos_model::service::stand_ins;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use substrate_network::{Cidr, FabricAccess, FabricRoute};

use super::services::Seen;
use crate::resale;

/// This node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) id: NodeId,
    pub(super) prefix: Cidr,
    pub(super) pods: Cidr,
    pub(super) services: Cidr,
}

/// A peer that packets are exchanged with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its key.
    pub id: NodeId,
    /// Where its pods and Services are.
    pub prefix: Cidr,
    /// What it may reach here: the whole cluster if this node's pods run there, else only what it runs here.
    pub access: FabricAccess,
}

/// A peer under contract that packets are not exchanged with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its key.
    pub peer: NodeId,
    /// The prefix that it claims.
    pub prefix: Cidr,
    /// Why it does not get it.
    pub reason: String,
}

/// What of a live contract matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Agreement {
    /// When it was made (RFC 3339 in the object); contracts without are the youngest.
    pub(super) since: Timestamp,
    pub(super) peer: NodeId,
    /// Where its addresses are.
    pub(super) prefix: Cidr,
    /// This node's pods run there: it buys capacity. Who sells it a service, or what it sells on, has nothing to reach here.
    pub(super) buys: bool,
}

/// A guest here whose owner stands behind its consumer: packets between the two go by the consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Via {
    pub(super) pod: Ipv4Addr,
    /// Where its owner's addresses are.
    pub(super) home: Cidr,
    pub(super) consumer: NodeId,
}

/// A pod of a consumer that this node has a provider run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Relay {
    /// The address of this node by which the consumer knows it.
    pub(super) stand_in: Ipv4Addr,
    /// Where its owner's addresses are.
    pub(super) home: Cidr,
    pub(super) consumer: NodeId,
    /// Its address at the provider.
    pub(super) pod: Ipv4Addr,
    pub(super) provider: NodeId,
}

/// The live contracts of this node.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) agreements: Vec<Agreement>,
    pub(super) vias: Vec<Via>,
    pub(super) relays: Vec<Relay>,
}

/// Who packets are exchanged with.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) peers: Vec<Peer>,
    pub(super) refused: Vec<Refused>,
    pub(super) vias: Vec<Via>,
    pub(super) relays: Vec<Relay>,
}

impl View {
    /// A contract is live if and only if it is active, not being ended, and its time is not over.
    pub(super) fn new<'a>(
        own: &Own,
        speakers: &Speakers,
        contracts: &[&'a Contract],
        twins: impl Iterator<Item = &'a Pod>,
        services: &Seen,
        now: Timestamp,
    ) -> Self {
        let serving = serving(contracts.iter().copied());
        let agreement = |contract: &Contract| {
            let active = contract.status.as_ref().is_some_and(|status| status.phase == Phase::Active);
            let until = contract.spec.expiration_time.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
            if !active || contract.metadata.deletion_timestamp.is_some() || until.is_some_and(|until| until <= now) {
                return None;
            }
            let party = |party| did(party).map(|named| speakers.current(&named));
            let (buyer, seller) = (party(&contract.spec.buyer)?, party(&contract.spec.seller)?);
            let prefix = |peer| super::prefix(&speakers.first(peer));
            let since = contract.creation_timestamp().map_or(Timestamp::MAX, |time| time.0);
            match (buyer == own.id, seller == own.id) {
                (true, false) => {
                    let is_service = contract.spec.flavor.spec.flavor_type.type_identifier == FlavorType::Service;
                    let buys = !is_service && !serving.contains_key(&contract.name_any());
                    Some(Agreement { since, peer: seller, prefix: prefix(&seller), buys })
                }
                (false, true) => Some(Agreement { since, peer: buyer, prefix: prefix(&buyer), buys: false }),
                _ => None,
            }
        };
        let agreed: Vec<(&Contract, Agreement)> = contracts.iter().filter_map(|c| Some((*c, agreement(c)?))).collect();
        let mut view = Self { agreements: agreed.iter().map(|(_, agreement)| *agreement).collect(), ..Self::default() };
        let live: BTreeMap<String, (&Contract, Agreement)> =
            agreed.into_iter().map(|(contract, agreement)| (contract.name_any(), (contract, agreement))).collect();
        for twin in twins {
            view.add(own, &live, twin);
        }
        let homes: BTreeMap<String, Cidr> =
            services.namespaces.iter().filter_map(|it| Some((it.name_any(), resale::home_of_service(it)?))).collect();
        view.vias.extend(services.pods.iter().filter_map(|pod| of_service(own, &live, &homes, pod)));
        for slice in &services.passed {
            view.pass(own, &live, slice);
        }
        view
    }

    /// A service that is sold on: each of its pods.
    fn pass(&mut self, own: &Own, live: &Live<'_>, slice: &EndpointSlice) -> Option<()> {
        let (contract, sold) = live.get(slice.labels().get(names::LABEL_SERVICE_PASSED)?)?;
        let (_, bought) = live.get(contract.spec.served_by.as_ref()?)?;
        let notes = slice.annotations();
        let home = notes.get(names::ANNOTATION_HOME).and_then(|home| home.parse().ok()).unwrap_or(sold.prefix);
        let (consumer, provider) = (sold.peer, bought.peer);
        let relays = stand_ins(notes.get(names::ANNOTATION_STAND_IN)?).into_iter();
        let relays = relays.filter(|(pod, stand_in)| is_stand_in(own, *stand_in) && bought.prefix.contains(*pod));
        self.relays.extend(relays.map(|(pod, stand_in)| Relay { stand_in, home, consumer, pod, provider }));
        Some(())
    }

    /// A twin that runs behind its consumer, or that goes on to a provider.
    fn add(&mut self, own: &Own, live: &Live<'_>, twin: &Pod) -> Option<()> {
        let (contract, sold) = live.get(twin.labels().get(names::LABEL_CONTRACT)?)?;
        let address: Ipv4Addr = twin.status.as_ref()?.pod_ip.as_deref()?.parse().ok()?;
        let home = resale::home(twin);
        let Some(stand_in) = resale::stand_in(twin) else {
            let (pod, consumer) = (address, sold.peer);
            self.vias.extend(home.filter(|_| own.pods.contains(pod)).map(|home| Via { pod, home, consumer }));
            return Some(());
        };
        let (_, bought) = live.get(contract.spec.served_by.as_ref()?)?;
        if is_stand_in(own, stand_in) && bought.prefix.contains(address) {
            let (consumer, provider) = (sold.peer, bought.peer);
            self.relays.push(Relay { stand_in, home: home.unwrap_or(sold.prefix), consumer, pod: address, provider });
        }
        Some(())
    }
}

/// Live contracts by name.
type Live<'a> = BTreeMap<String, (&'a Contract, Agreement)>;

fn is_stand_in(own: &Own, address: Ipv4Addr) -> bool {
    own.prefix.contains(address) && !own.pods.contains(address) && !own.services.contains(address)
}

/// A pod of a service that runs here, if somebody behind its buyer uses it.
fn of_service(own: &Own, live: &Live<'_>, homes: &BTreeMap<String, Cidr>, pod: &Pod) -> Option<Via> {
    let (_, sold) = live.get(pod.labels().get(names::LABEL_SERVICE)?)?;
    let home = *homes.get(&pod.namespace()?).filter(|home| **home != sold.prefix)?;
    let address: Ipv4Addr = pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()?;
    own.pods.contains(address).then_some(Via { pod: address, home, consumer: sold.peer })
}

/// Decides. A prefix is this node's own, else whose contract is the oldest: a newcomer takes nothing from anybody.
pub(super) fn plan(own: &Own, view: &View) -> Plan {
    let mut agreements = view.agreements.clone();
    agreements.sort();
    let mut holders: BTreeMap<Cidr, NodeId> = BTreeMap::from([(own.prefix, own.id)]);
    let mut peers: BTreeMap<NodeId, Peer> = BTreeMap::new();
    let mut refused: BTreeMap<NodeId, Refused> = BTreeMap::new();
    for Agreement { peer, prefix, buys, .. } in agreements {
        let holder = *holders.entry(prefix).or_insert(peer);
        if holder != peer {
            let reason = format!("{prefix}, where its addresses would be, belongs to {holder}");
            refused.insert(peer, Refused { peer, prefix, reason });
            continue;
        }
        let access = if buys { FabricAccess::Cluster } else { FabricAccess::Guests };
        match peers.entry(peer) {
            btree_map::Entry::Vacant(entry) => {
                entry.insert(Peer { id: peer, prefix, access });
            }
            btree_map::Entry::Occupied(mut entry) => entry.get_mut().access = access.max(entry.get().access),
        }
    }
    let (mut vias, mut relays) = (view.vias.clone(), view.relays.clone());
    vias.retain(|via| peers.contains_key(&via.consumer) && via.home != own.prefix);
    relays.retain(|relay| peers.contains_key(&relay.consumer) && peers.contains_key(&relay.provider));
    vias.sort();
    relays.sort();
    Plan { peers: peers.into_values().collect(), refused: refused.into_values().collect(), vias, relays }
}

impl Plan {
    /// What the kernel is told. Homes behind consumers lead to the same device: who gets a packet is said there.
    pub(super) fn routes(&self, device: &str) -> Vec<FabricRoute> {
        let route = |to: Cidr, access: FabricAccess| FabricRoute { to, device: device.to_owned(), access };
        let peers = self.peers.iter().map(|peer| route(peer.prefix, peer.access));
        let known: BTreeSet<Cidr> = self.peers.iter().map(|peer| peer.prefix).collect();
        let behind: BTreeSet<Cidr> =
            self.vias.iter().map(|via| via.home).filter(|home| !known.contains(home)).collect();
        peers.chain(behind.into_iter().map(|home| route(home, FabricAccess::Guests))).collect()
    }
}

/// The key of a party; official nodes have none and get no packets.
fn did(party: &NodeIdentity) -> Option<NodeId> {
    party.additional_information.as_ref()?.did.as_deref()?.parse().ok()
}
