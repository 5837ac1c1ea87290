//! Reselling, carried out (§6.4.3, A7): a contract is *resold* if and only if its seller serves it with another that it has bought.
//!
//! ```text
//!  A, the owner                   R, the reseller                                    P, the provider
//!  pod ─── contract C ─────────▶ twin of A's pod ─── contract X ────────────────▶ twin of R's twin
//!       desired/1, signed by A    bound to the virtual node of X   desired/1, signed by R
//!       ◀── its stand-in ──────── status, with the address at P ◀── status, logs, images, packets ──
//! ```
//! `C.spec.servedBy` names X; both are objects of R. R is a consumer like any other to P, and a provider like any other to A: neither
//! sees the other, and every bound of a provider holds on each of the two links.
//!
//! A *stand-in* is the address of R by which A knows a pod that runs at P: from the part of R's prefix between its pods and its Services.
//! The *home* of a twin is the prefix of the pod's owner, if that is not the consumer's own: P lets the twin reach that, and nothing of R's.
//! A *service* that is sold on is known by stand-ins, too: node/services gives them, and writes them and the home where they are read here
//! (`network/services.rs`).
//! R translates between stand-in and address and nothing else, without a state (`network/relay.rs`). Whatever is known of both stands on
//! the twins themselves, so a restart changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use fluidos_identity::FabricPrefix;
use fluidos_model::kinds::{names, serving};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};
use substrate_network::Cidr;

use crate::deal::Deal;
use crate::fabric::Shared;
use crate::frames::Put;
use crate::twins::Origin;

/// So many stand-ins of pods has a node. Those of services are given by node/services, from the part behind.
const STAND_INS: u32 = FabricPrefix::SERVICE_STAND_INS - FabricPrefix::STAND_INS;
/// Owners behind one consumer under one contract: a contract is bought to serve one that was sold.
const HOMES_MAX: usize = 4;

/// Where a twin goes that this node does not run itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Onward {
    /// The contract that serves it.
    pub contract: String,
    /// The address by which its consumer knows it.
    pub stand_in: Ipv4Addr,
}

/// Returns the prefix of a node as a range.
pub(crate) fn range(prefix: &FabricPrefix) -> Cidr {
    // The length is a constant below 33.
    Cidr::new(prefix.v4, FabricPrefix::V4_BITS).unwrap_or(Cidr::host(prefix.v4))
}

/// Returns the stand-in of a twin; `None` if it runs here.
pub(crate) fn stand_in(twin: &Pod) -> Option<Ipv4Addr> {
    twin.annotations().get(names::ANNOTATION_STAND_IN)?.parse().ok()
}

/// Returns the home of a twin; `None` if it is its consumer's own.
pub(crate) fn home(twin: &Pod) -> Option<Cidr> {
    twin.annotations().get(names::ANNOTATION_HOME)?.parse().ok()
}

/// Returns the home of a service that runs here: of who uses it, if that is not its buyer. It stands in the namespace of the instance.
pub(crate) fn home_of_service(namespace: &Namespace) -> Option<Cidr> {
    namespace.annotations().get(names::ANNOTATION_HOME)?.parse().ok()
}

/// Returns a stand-in that nobody has, or `None` if all are in use. It follows from the uid where that one is free: who comes next does not
/// get the address of who has just gone.
pub(crate) fn choose(own: Cidr, uid: &str, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let start = Sha256::digest(uid).iter().take(4).fold(0u32, |sum, byte| (sum << 8) | u32::from(*byte)) % STAND_INS;
    let numbers = (0..STAND_INS).map(|step| FabricPrefix::STAND_INS + (start + step) % STAND_INS);
    numbers.filter_map(|number| own.nth(number)).find(|address| !taken.contains(address))
}

/// Checks the home that a consumer says its pod has; `None` is the consumer's own. `known` are those of its other pods here.
///
/// # Errors
/// Why packets to it cannot be led there, in words that the consumer may read.
pub(crate) fn checked(
    home: Option<Cidr>,
    own: Cidr,
    consumer: Cidr,
    known: &BTreeSet<Cidr>,
) -> Result<Option<Cidr>, String> {
    let Some(home) = home.filter(|home| *home != consumer) else { return Ok(None) };
    let fabric = Cidr::new(Ipv4Addr::new(100, 64, 0, 0), 10).unwrap_or(Cidr::LOOPBACK);
    if home.prefix_len() != FabricPrefix::V4_BITS || !fabric.contains(home.network()) {
        return Err(format!("the home of the pod is {home}, needed a /{} of {fabric}", FabricPrefix::V4_BITS));
    }
    if home == own {
        return Err(format!("the home of the pod is {home}, which are the addresses of this node itself"));
    }
    if !known.contains(&home) && known.len() >= HOMES_MAX {
        return Err(format!("pods of {} homes are here under this contract, at most {HOMES_MAX}", known.len()));
    }
    Ok(Some(home))
}

/// Makes what crosses the link to the provider of what crossed it to this node. Whose it is stays here: of the consumer the provider learns
/// the home and what the pod itself says. The namespace is named after a digest of the contract, which the provider does not know: those
/// of two consumers never meet in one namespace there.
pub(crate) fn onward(mut put: Put, twin: &Pod, home: Cidr) -> Put {
    let from = Origin::of(twin).map(|origin| origin.namespace).unwrap_or_default();
    let contract = twin.labels().get(names::LABEL_CONTRACT).cloned().unwrap_or_default();
    let tag: String = Sha256::digest(contract).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    put.pod.metadata.namespace = Some(format!("{tag}-{from}").chars().take(253).collect());
    if let Some(labels) = &mut put.pod.metadata.labels {
        labels.retain(|key, _| !is_fabrics(key));
    }
    put.home = Some(home);
    put
}

fn is_fabrics(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    domain == "fluidos.eu" || domain.ends_with(".fluidos.eu")
}

/// Says why a pod may not be on the virtual node of a contract: one that serves others is kept for their twins. `sold` are those others.
pub(crate) fn barred(contract: &str, sold: Option<&BTreeSet<String>>, pod: &Pod) -> Option<String> {
    let sold = sold?;
    let of = pod.labels().get(names::LABEL_CONTRACT).filter(|_| Origin::of(pod).is_some() && stand_in(pod).is_some());
    if of.is_some_and(|of| sold.contains(of)) {
        return None;
    }
    Some(format!("contract {contract} {}; give the pod another node", kept(sold)))
}

/// For what a contract is kept, in words.
fn kept(sold: &BTreeSet<String>) -> String {
    match sold.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => "was bought to be sold on".into(),
        sold => format!("is kept to serve {}, which was sold", sold.join(", ")),
    }
}

impl Shared {
    /// The contracts that serve others, and which.
    pub(crate) fn serving(&self) -> BTreeMap<String, BTreeSet<String>> {
        serving(self.contracts.list().iter().map(AsRef::as_ref))
    }

    /// Says why what serves a contract is not there, in words for its buyer; `None` if it is, or if this node serves it itself.
    pub(crate) fn missing(&self, deal: &Deal) -> Option<String> {
        let bought = deal.served_by.as_ref()?;
        let nodes = self.nodes.list();
        let is_its = |node: &&Node| {
            node.labels().contains_key(names::VIRTUAL_NODE) && node.labels().get(names::LABEL_CONTRACT) == Some(bought)
        };
        let Some(node) = nodes.iter().map(AsRef::as_ref).find(is_its) else {
            return Some("what the provider has bought to serve it with is not there".into());
        };
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let is_ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
        let is_ending = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
        (!is_ready || is_ending).then(|| "what the provider has bought to serve it with is not ready".into())
    }

    /// Says whether the provider of a contract must not hear yet what shall run there: it serves others, and none of their buyers has said
    /// since this process started what it wants. What runs goes on; what does not is not started for who may have gone elsewhere.
    pub(crate) fn waits_for_buyers(&self, contract: &str) -> bool {
        self.serving()
            .get(contract)
            .is_some_and(|sold| !sold.is_empty() && sold.iter().all(|sold| !self.has_begun(sold)))
    }

    /// The home of a twin that goes on to a provider.
    pub(crate) fn home_of(&self, twin: &Pod) -> Option<Cidr> {
        if let Some(home) = home(twin) {
            return Some(home);
        }
        let contract = self.contracts.get(names::NAMESPACE, twin.labels().get(names::LABEL_CONTRACT)?)?;
        let deal = Deal::of(&contract, &self.speakers).ok()?;
        (self.prefix_of)(&deal.buyer).map(|prefix| range(&prefix))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use serde_json::{Value, json};

    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn pod(labels: Value, annotations: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web", "labels": labels, "annotations": annotations}}))
            .unwrap()
    }

    #[test]
    fn stand_ins_lie_between_pods_and_services_and_are_had_once() {
        let own = cidr("100.64.16.0/20");
        let mut taken = BTreeSet::new();
        while let Some(address) = choose(own, "uid", &taken) {
            assert!(taken.insert(address));
        }
        assert_eq!(
            (taken.len(), taken.first(), taken.last()),
            (1536, Some(&Ipv4Addr::new(100, 64, 24, 0)), Some(&Ipv4Addr::new(100, 64, 29, 255)))
        );
        let free = *taken.iter().nth(700).unwrap();
        taken.remove(&free);
        assert_eq!(choose(own, "other", &taken), Some(free));
        let none = BTreeSet::new();
        assert_ne!(choose(own, "uid", &none), choose(own, "other", &none));
    }

    #[test]
    fn a_home_is_a_block_of_the_fabric_that_is_not_this_nodes_own() {
        let (own, consumer) = (cidr("100.64.16.0/20"), cidr("100.64.32.0/20"));
        let check = |home: &str, known: &[&str]| {
            checked(Some(cidr(home)), own, consumer, &known.iter().map(|text| cidr(text)).collect())
        };
        assert_eq!(checked(None, own, consumer, &BTreeSet::new()), Ok(None));
        assert_eq!(check("100.64.32.0/20", &[]), Ok(None), "it is the consumer's own");
        assert_eq!(check("100.64.48.0/20", &[]), Ok(Some(cidr("100.64.48.0/20"))));
        for wrong in
            ["100.64.48.0/21", "100.64.64.0/19", "10.0.0.0/20", "192.168.16.0/20", "0.0.0.0/0", "100.64.16.0/20"]
        {
            assert!(check(wrong, &[]).is_err(), "{wrong}");
        }
        let four = ["100.64.64.0/20", "100.64.80.0/20", "100.64.96.0/20", "100.64.112.0/20"];
        assert!(check("100.64.48.0/20", &four).unwrap_err().contains("at most 4"));
        assert_eq!(check("100.64.64.0/20", &four), Ok(Some(cidr("100.64.64.0/20"))));
    }

    #[test]
    fn a_provider_does_not_learn_whose_pod_it_is() {
        let twin = pod(
            json!({"app": "web", "reservation.fluidos.eu/contract": "contract-sold", "fluidos.eu/peer": "8139770e"}),
            json!({"fluidos.eu/origin": "shop/web/uid", "fluidos.eu/stand-in": "100.64.24.0"}),
        );
        let put = Put { pod: twin.clone(), config_maps: vec![], secrets: vec![], home: None };
        let told = onward(put, &twin, cidr("100.64.48.0/20"));
        let text = serde_json::to_string(&told.pod.metadata.labels).unwrap();
        assert_eq!(text, r#"{"app":"web"}"#);
        let namespace = told.pod.metadata.namespace.unwrap();
        assert!(namespace.ends_with("-shop") && namespace.len() == 13, "{namespace}");
        assert_eq!(told.home, Some(cidr("100.64.48.0/20")));
        let other = pod(
            json!({"reservation.fluidos.eu/contract": "contract-other"}),
            json!({"fluidos.eu/origin": "shop/web/uid"}),
        );
        let put = Put { pod: other.clone(), config_maps: vec![], secrets: vec![], home: None };
        assert_ne!(onward(put, &other, cidr("100.64.48.0/20")).pod.metadata.namespace.unwrap(), namespace);
    }

    #[test]
    fn what_serves_others_is_for_their_twins_alone() {
        let sold = BTreeSet::from(["contract-sold".to_owned()]);
        let twin = |contract: &str| {
            pod(
                json!({"reservation.fluidos.eu/contract": contract}),
                json!({"fluidos.eu/origin": "shop/web/uid", "fluidos.eu/stand-in": "100.64.24.0"}),
            )
        };
        assert_eq!(barred("x", Some(&sold), &twin("contract-sold")), None);
        assert_eq!(barred("x", None, &pod(json!({}), json!({}))), None, "it serves nobody");
        assert!(barred("x", Some(&BTreeSet::new()), &twin("contract-sold")).unwrap().contains("bought to be sold on"));
        // Another guest; this owner's own; one that only says so.
        let alike = pod(json!({"reservation.fluidos.eu/contract": "contract-sold"}), json!({}));
        for other in [twin("contract-other"), pod(json!({}), json!({})), alike] {
            assert!(barred("x", Some(&sold), &other).unwrap().contains("kept to serve contract-sold"));
        }
    }
}
