//! Every choice of the subscriber: pure functions.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use fluidos_identity::NodeId;
use fluidos_model::kinds::{PeeringCandidate, PeeringCandidateSpec, names};
use fluidos_rear as rear;

use crate::convert;
use crate::importer::view::Peer;

/// As many as a search has candidates: each is one connection.
const SELLERS_MAX: usize = 64;
/// Flavors of one seller that are looked at; a candidate is made of one of the first 64 of its answer.
pub(super) const FLAVORS_MAX: usize = 4096;

/// Who is followed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seller {
    /// What to call it.
    pub name: String,
    /// Where its REAR answers.
    pub address: SocketAddr,
    /// The key it must prove.
    pub did: NodeId,
}

/// Returns whom to follow: trusted peers of whom there are candidates, and while a Solver waits the others, too; each in the order of
/// their names.
pub(crate) fn followed<'a>(
    candidates: impl Iterator<Item = &'a PeeringCandidate>,
    waiting: bool,
    peers: &[Peer],
) -> Vec<Seller> {
    let lives = candidates.filter(|candidate| candidate.metadata.deletion_timestamp.is_none());
    let sellers: BTreeSet<&str> = lives.filter_map(|candidate| candidate.spec.seller_did.as_deref()).collect();
    let proving =
        peers.iter().filter_map(|peer| Some(Seller { name: peer.name.clone(), address: peer.address, did: peer.did? }));
    let (found, others): (Vec<Seller>, Vec<Seller>) =
        proving.partition(|seller| sellers.contains(seller.did.to_string().as_str()));
    found.into_iter().chain(others.into_iter().filter(|_| waiting)).take(SELLERS_MAX).collect()
}

/// What a candidate becomes by what its seller says of its flavor now; `None` is withdrawn. `None` is returned if it is so already.
pub(super) fn current(
    known: &PeeringCandidateSpec,
    seller: NodeId,
    said: Option<&rear::Flavor>,
) -> Option<PeeringCandidateSpec> {
    let mut next = known.clone();
    match said.map(|flavor| convert::embedded_flavor(flavor, Some(seller))) {
        Some(Ok(flavor)) => {
            next.available = flavor.spec.availability;
            next.flavor = flavor;
        }
        // What cannot be written cannot be bought either.
        Some(Err(_)) | None => {
            next.available = false;
            next.flavor.spec.availability = false;
        }
    }
    (next != *known).then_some(next)
}

/// The name of the candidate that is made of a flavor.
pub(super) fn candidate(flavor: &str, seller: NodeId) -> String {
    names::peering_candidate(flavor, Some(&seller.tag()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use fluidos_identity::NodeKey;
    use serde_json::json;

    use super::*;

    fn id(seed: u8) -> NodeId {
        NodeKey::from_seed([seed; 32]).unwrap().id()
    }

    fn peer(name: &str, did: Option<NodeId>) -> Peer {
        let address = "192.0.2.1:3004".parse().unwrap();
        Peer { name: name.into(), address, did, latency_micros: None, rating: None, plain: false, evidence: None }
    }

    #[test]
    fn sellers_of_candidates_are_followed_if_they_are_trusted() {
        let of = |seed: u8| {
            let spec = PeeringCandidateSpec { seller_did: Some(id(seed).to_string()), ..Default::default() };
            PeeringCandidate::new("c", spec)
        };
        let peers = [peer("a", Some(id(1))), peer("b", Some(id(2))), peer("official", None)];
        let candidates = [of(2), of(2), of(3)];
        let names = |candidates: &[PeeringCandidate]| -> Vec<String> {
            followed(candidates.iter(), false, &peers).into_iter().map(|seller| seller.name).collect()
        };
        assert_eq!(names(&candidates), ["b"], "a has no candidate, the third is not trusted");
        let waiting: Vec<String> =
            followed(candidates.iter(), true, &peers).into_iter().map(|seller| seller.name).collect();
        assert_eq!(waiting, ["b", "a"], "while somebody waits, whoever is trusted and proves a key");
        let mut going = of(1);
        going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(names(&[going]), [""; 0]);
        let many: Vec<Peer> = (0..100).map(|seed| peer("p", Some(id(seed)))).collect();
        let all: Vec<PeeringCandidate> = (0..100).map(of).collect();
        assert_eq!(followed(all.iter(), true, &many).len(), SELLERS_MAX);
    }

    #[test]
    fn a_candidate_changes_only_when_something_else_is_said() {
        let flavor = |cpu: &str, availability| rear::Flavor {
            id: "f".into(),
            provider_id: "p".into(),
            flavor_type: rear::FlavorType::K8Slice,
            data: json!({"characteristics": {"cpu": cpu}}),
            location: Default::default(),
            price: Default::default(),
            owner: Default::default(),
            availability,
            network_property_type: String::new(),
        };
        let first = PeeringCandidateSpec { interested_solver_ids: vec!["shop".into()], ..Default::default() };
        let first = current(&first, id(1), Some(&flavor("4", true))).unwrap();
        assert!(first.available && first.interested_solver_ids == ["shop"]);
        assert_eq!(current(&first, id(1), Some(&flavor("4", true))), None);
        let less = current(&first, id(1), Some(&flavor("2", true))).unwrap();
        assert_eq!(less.flavor.spec.flavor_type.type_data["characteristics"]["cpu"], "2");
        let gone = current(&less, id(1), None).unwrap();
        assert!(!gone.available && !gone.flavor.spec.availability);
        assert_eq!(gone.flavor.spec.flavor_type.type_data["characteristics"]["cpu"], "2", "what it was stays readable");
        assert_eq!(current(&gone, id(1), None), None);
        assert!(current(&gone, id(1), Some(&flavor("2", true))).unwrap().available);
        let nonsense = rear::Flavor { data: json!("nothing"), ..flavor("2", true) };
        assert!(!current(&less, id(1), Some(&nonsense)).unwrap().available);
    }
}
