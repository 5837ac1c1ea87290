//! Which services are passed on, and by which addresses they are known to who uses them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use fluidos_identity::{FabricPrefix, NodeId};
use fluidos_model::kinds::names;
use fluidos_model::service::{StandIns, stand_ins, stand_ins_text};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use ring::digest::{SHA256, digest};

use crate::Deal;
use crate::answer::Answer;

/// Addresses that stand for services (a /24).
const STAND_INS: u32 = FabricPrefix::SERVICES - FabricPrefix::SERVICE_STAND_INS;
/// Endpoints of one service that are passed on: a service is a few pods, and others want addresses, too.
const OF_ONE_MAX: usize = 16;

/// What was sold and what serves it, both live.
pub(super) fn pairs(deals: &BTreeMap<String, Deal>, own: NodeId) -> Vec<(&Deal, &Deal)> {
    let sold = deals.values().filter(|deal| deal.live && deal.seller == own);
    let pair = |sold: &'_ Deal| {
        let bought = deals.get(sold.served_by.as_ref()?)?;
        (bought.live && bought.buyer == own).then_some(bought)
    };
    sold.filter_map(|sold| Some((sold, pair(sold)?))).collect()
}

/// Returns a stand-in for each endpoint: the one that it has, or else one that nobody has. It follows from contract and address where that one is
/// free: who comes next does not get the address of who has just gone.
///
/// # Errors
/// All are in use.
pub(super) fn choose(
    own: &FabricPrefix,
    contract: &str,
    answer: &Answer,
    given: &BTreeMap<String, StandIns>,
) -> Result<StandIns, String> {
    let mut taken: BTreeSet<Ipv4Addr> = given.values().flat_map(|known| known.values().copied()).collect();
    let known = given.get(contract).cloned().unwrap_or_default();
    let mut chosen = StandIns::new();
    for endpoint in answer.endpoints.iter().take(OF_ONE_MAX) {
        let address = endpoint.address;
        if let Some(stand_in) = known.get(&address) {
            chosen.insert(address, *stand_in);
            continue;
        }
        let hash = digest(&SHA256, format!("{contract}\n{address}").as_bytes());
        let start = hash.as_ref().first().map_or(0, |byte| u32::from(*byte));
        let at = |number: u32| Ipv4Addr::from_bits(own.v4.to_bits() + FabricPrefix::SERVICE_STAND_INS + number);
        let free = (0..STAND_INS).map(|step| at((start + step) % STAND_INS)).find(|it| !taken.contains(it));
        if let Some(free) = free {
            taken.insert(free);
            chosen.insert(address, free);
        }
    }
    match chosen.is_empty() {
        true => Err(format!("all {STAND_INS} addresses that stand for services are in use")),
        false => Ok(chosen),
    }
}

/// Returns what who uses the service is told: the same, at the addresses by which it knows it.
pub(super) fn translated(mut answer: Answer, stand_ins: &StandIns) -> Answer {
    answer.endpoints.retain_mut(|endpoint| match stand_ins.get(&endpoint.address) {
        Some(stand_in) => {
            endpoint.address = *stand_in;
            true
        }
        None => false,
    });
    answer
}

/// Returns the name of the object by which a service is passed on.
pub(super) fn slice_name(contract: &str) -> String {
    format!("passed-{contract}")
}

/// Returns the object by which a service is passed on.
pub(super) fn slice(contract: &str, home: &str, stand_ins: &StandIns) -> EndpointSlice {
    let notes = [(names::ANNOTATION_HOME, home.to_owned()), (names::ANNOTATION_STAND_IN, stand_ins_text(stand_ins))];
    let endpoint = |address: &Ipv4Addr| Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        ..Endpoint::default()
    };
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(slice_name(contract)),
            namespace: Some(names::NAMESPACE.into()),
            labels: Some(BTreeMap::from([(names::LABEL_SERVICE_PASSED.to_owned(), contract.to_owned())])),
            annotations: Some(notes.into_iter().map(|(key, text)| (key.to_owned(), text)).collect()),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".into(),
        endpoints: stand_ins.values().map(endpoint).collect(),
        ports: None,
    }
}

/// The contract that an object is of.
pub(super) fn contract(slice: &EndpointSlice) -> Option<&str> {
    slice.labels().get(names::LABEL_SERVICE_PASSED).map(String::as_str)
}

/// The stand-ins that an object says.
pub(super) fn stand_ins_of(slice: &EndpointSlice) -> StandIns {
    slice.annotations().get(names::ANNOTATION_STAND_IN).map(|text| stand_ins(text)).unwrap_or_default()
}

/// The home that an object says.
pub(super) fn home(slice: &EndpointSlice) -> Option<String> {
    slice.annotations().get(names::ANNOTATION_HOME).cloned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use fluidos_identity::{NodeKey, fabric_prefix};
    use serde_json::json;

    use super::*;

    fn key(seed: u8) -> NodeId {
        NodeKey::from_seed([seed; 32]).unwrap().id()
    }

    fn answer(addresses: &[&str]) -> Answer {
        let endpoint = |address: &&str| json!({"address": address, "ports": []});
        let endpoints: Vec<_> = addresses.iter().map(endpoint).collect();
        serde_json::from_value(json!({"ready": true, "endpoints": endpoints, "credentials": {"password": "x"}}))
            .unwrap()
    }

    #[test]
    fn an_address_has_one_stand_in_for_as_long_as_it_is_there() {
        let own = fabric_prefix(&key(2), 0);
        let mut given = BTreeMap::new();
        let first = choose(&own, "one", &answer(&["100.64.0.7", "100.64.0.8"]), &given).unwrap();
        let is_ours = |stand_in: &Ipv4Addr| {
            own.holds_v4(*stand_in) && own.is_stand_in(*stand_in) && stand_in.to_bits() & 0xfff >= 0xe00
        };
        assert!(first.len() == 2 && first.values().all(is_ours), "{first:?}");
        given.insert("one".to_owned(), first.clone());
        let again = choose(&own, "one", &answer(&["100.64.0.8", "100.64.0.9"]), &given).unwrap();
        assert_eq!(again.get(&Ipv4Addr::new(100, 64, 0, 8)), first.get(&Ipv4Addr::new(100, 64, 0, 8)));
        assert!(!again.contains_key(&Ipv4Addr::new(100, 64, 0, 7)));
        // Another service, at the same addresses of another provider.
        let other = choose(&own, "two", &answer(&["100.64.0.7", "100.64.0.8"]), &given).unwrap();
        assert!(other.values().all(|stand_in| !first.values().any(|known| known == stand_in)), "{first:?} {other:?}");
        let told = translated(answer(&["100.64.0.7", "100.64.0.10"]), &first);
        let at: Vec<Ipv4Addr> = told.endpoints.iter().map(|endpoint| endpoint.address).collect();
        assert_eq!(at, [first[&Ipv4Addr::new(100, 64, 0, 7)]], "where it really is is not told");
        assert_eq!(told.credentials.len(), 1);
        let slice = slice("one", "100.64.32.0/20", &first);
        assert_eq!((contract(&slice), stand_ins_of(&slice)), (Some("one"), first));
        assert_eq!(home(&slice).unwrap(), "100.64.32.0/20");
    }

    #[test]
    fn one_service_does_not_take_all_addresses() {
        let own = fabric_prefix(&key(2), 0);
        let many: Vec<String> = (1..64).map(|number| format!("100.64.0.{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut given = BTreeMap::new();
        for number in 0..16 {
            let chosen = choose(&own, &format!("c{number}"), &answer(&many), &given).unwrap();
            assert_eq!(chosen.len(), 16);
            given.insert(format!("c{number}"), chosen);
        }
        assert!(choose(&own, "more", &answer(&many), &given).unwrap_err().contains("all 256 addresses"));
    }

    #[test]
    fn what_is_passed_on_is_sold_and_bought_here() {
        let deal = |contract: &str, buyer: u8, seller: u8, served_by: Option<&str>, live: bool| Deal {
            contract: contract.into(),
            buyer: key(buyer),
            buyer_first: key(buyer),
            seller: key(seller),
            seller_first: key(seller),
            served_by: served_by.map(str::to_owned),
            live,
        };
        let told = |deals: Vec<Deal>| {
            let deals: BTreeMap<String, Deal> = deals.into_iter().map(|deal| (deal.contract.clone(), deal)).collect();
            pairs(&deals, key(2)).iter().map(|(a, b)| format!("{} {}", a.contract, b.contract)).collect::<Vec<_>>()
        };
        let (sold, bought) = (|live| deal("c", 1, 2, Some("x"), live), |live| deal("x", 2, 3, None, live));
        assert_eq!(told(vec![sold(true), bought(true)]), ["c x"]);
        assert!(told(vec![sold(false), bought(true)]).is_empty() && told(vec![sold(true), bought(false)]).is_empty());
        assert!(told(vec![sold(true)]).is_empty(), "what serves it is gone");
        assert!(told(vec![deal("c", 1, 3, Some("x"), true), bought(true)]).is_empty(), "somebody else has sold it");
        assert!(told(vec![sold(true), deal("x", 4, 3, None, true)]).is_empty(), "somebody else has bought it");
    }
}
