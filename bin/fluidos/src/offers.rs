//! `fluidos offers`: the packages that this node sells, those of a peer as they are for whoever asks, or what all known nodes say they sell.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use fluidos_identity::NodeKey;
use fluidos_model::kinds::{FlavorPrice, K8SliceCharacteristics, KnownCluster, KnownClusterOffer, Offer, names};
use fluidos_model::market::Amounts;
use fluidos_rear as rear;
use kube::ResourceExt as _;
use serde::{Deserialize as _, Serialize};
use serde_json::{Value, json};

use crate::connection::{Connection, with};
use crate::look::{self, Look, Table, known, option};

/// Pages that are asked for: a node sells 63 plans at most.
const PAGES_MAX: usize = 64;

/// Whose packages.
#[derive(clap::Args, Clone, Debug)]
pub struct Offers {
    /// A peer: its name, the name of its KnownCluster, or its DID. Default: this node.
    peer: Option<String>,
    /// What all known nodes say they sell, and where they say so: in a catalog, or to a Solver of this node.
    #[arg(long, conflicts_with = "peer")]
    peers: bool,
    #[command(flatten)]
    look: Look,
    /// The directory of a node of yours: the peer is asked with its key. Without, it is asked as anybody may.
    #[arg(long, requires = "peer", value_parser = crate::cli::up::directory)]
    data_dir: Option<PathBuf>,
}

/// Does what the verb says.
pub fn run(connection: &Connection, offers: &Offers) -> Result<()> {
    with(async {
        let client = connection.client().await?;
        let namespace = connection.namespace_or(names::NAMESPACE);
        if offers.peers {
            let known = look::list::<KnownCluster>(client, namespace, "knownclusters").await?;
            let said: Vec<Said> = known.iter().flat_map(said).collect();
            let ids: Vec<String> = said.iter().map(|said| format!("{} {}", said.peer, what(&said.offer))).collect();
            return look::show_named(&offers.look, "offers", &said, ids.iter().map(String::as_str), || of_all(&said));
        }
        let Some(peer) = &offers.peer else {
            let objects = look::list::<Offer>(client, namespace, "offers").await?;
            return look::show(&offers.look, "offers", &objects, own);
        };
        let known = look::list::<KnownCluster>(client, namespace, "knownclusters").await?;
        let found = find(&known, peer)?;
        let listed = ask(found, offers.data_dir.as_ref()).await.with_context(|| peer.clone())?;
        let value: Vec<Value> = listed.iter().map(structured).collect();
        look::show_named(&offers.look, "offers", &value, listed.iter().map(|offer| offer.id.as_str()), || {
            of_peer(&listed)
        })
    })
}

/// What a node says it sells.
#[derive(Serialize)]
struct Said {
    peer: String,
    did: Option<String>,
    #[serde(flatten)]
    offer: KnownClusterOffer,
}

fn said(known: &KnownCluster) -> impl Iterator<Item = Said> {
    let (peer, did) = (known.spec.name.clone().unwrap_or_else(|| known.name_any()), known.spec.did.clone());
    known.spec.offers.clone().into_iter().map(move |offer| Said { peer: peer.clone(), did: did.clone(), offer })
}

fn what(offer: &KnownClusterOffer) -> &str {
    if offer.name.is_empty() { &offer.type_ } else { &offer.name }
}

fn of_all(said: &[Said]) -> Table {
    let rows = said.iter().map(|Said { peer, did, offer }| {
        let amount = |name: &str| option(offer.amounts.get(name).map(String::as_str));
        vec![
            peer.clone(),
            what(offer).to_owned(),
            amount("cpu"),
            amount("memory"),
            amount("pods"),
            known(&offer.price),
            known(&offer.billing),
            known(&offer.from),
            known(&offer.location),
            option(did.as_deref()),
        ]
    });
    Table {
        heading: &["PEER", "OFFER", "CPU", "MEMORY", "PODS", "PRICE", "BILLING", "FROM", "LOCATION", "DID"],
        narrow: 8,
        rows: rows.collect(),
        empty: "No known node has said what it sells: nodes say so in catalogs (--catalog), and to Solvers that ask."
            .into(),
    }
}

fn find<'a>(known: &'a [KnownCluster], peer: &str) -> Result<&'a KnownCluster> {
    let called = |known: &&KnownCluster| {
        known.spec.name.as_deref() == Some(peer) || known.name_any() == peer || known.spec.did.as_deref() == Some(peer)
    };
    let mut found = known.iter().filter(called);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => bail!("no peer is called {peer:?}; those that are known: fluidos peers"),
        (Some(_), Some(_)) => {
            bail!("several peers are called {peer:?}: say which by its DID, see fluidos peers -o wide")
        }
    }
}

/// All offers of a peer, page after page.
async fn ask(known: &KnownCluster, data_dir: Option<&PathBuf>) -> Result<Vec<rear::Offer>> {
    let address = &known.spec.address;
    let expected = known.spec.did.as_ref().map(|did| did.parse()).transpose().context("its DID")?;
    let target =
        rear::Target { address: address.parse().with_context(|| format!("its address {address:?}"))?, expected };
    let key = match data_dir {
        Some(directory) => NodeKey::open(&directory.join("identity").join("node.key"))
            .with_context(|| directory.display().to_string())?,
        // A key that nobody knows: what is for anybody is seen.
        None => NodeKey::generate().context("a key to ask with")?,
    };
    let client = rear::Client::new(&key, target)?;
    let (mut offers, mut query) = (Vec::new(), rear::OffersQuery::default());
    for _ in 0..PAGES_MAX {
        let page = client.list_offers(&query).await?;
        let page = page.ok_or_else(|| anyhow!("it knows no offers; what it sells: kubectl get peeringcandidates"))?;
        offers.extend(page.offers);
        match page.next {
            Some(next) if query.after.as_ref().is_none_or(|after| *after < next) => query.after = Some(next),
            Some(next) => bail!("its pages do not end: after {next} it goes on with {next}"),
            None => return Ok(offers),
        }
    }
    bail!("it has more than {PAGES_MAX} pages of offers")
}

fn structured(offer: &rear::Offer) -> Value {
    let plan = |plan: &rear::OfferedPlan| {
        let rear::Price { amount, currency, period, unit } = plan.flavor.price.clone();
        json!({
            "name": plan.name, "description": plan.description, "flavorID": plan.flavor.id,
            "available": plan.flavor.availability, "characteristics": plan.flavor.data["characteristics"],
            "policies": plan.flavor.data["policies"], "price": FlavorPrice { amount, currency, period, unit },
        })
    };
    json!({"name": offer.id, "description": offer.description, "plans": offer.plans.iter().map(plan).collect::<Vec<_>>()})
}

const HEADING: &[&str] =
    &["OFFER", "PLAN", "CPU", "MEMORY", "PODS", "DEVICES", "PRICE", "AVAILABLE", "POLICY", "FLAVOR", "DESCRIPTION"];

fn own(objects: &[Offer]) -> Table {
    let rows = objects.iter().flat_map(|offer| {
        let status = offer.status.clone().unwrap_or_default();
        let state = match (&offer.status, status.accepted) {
            (None, _) => "?".to_owned(),
            (Some(_), true) => "accepted".to_owned(),
            (Some(_), false) => format!("no: {}", status.message),
        };
        let flavors = status.flavors.clone();
        offer.spec.plans.iter().enumerate().map(move |(index, plan)| {
            let amount =
                |text: &Option<fluidos_model::kinds::QuantityText>| option(text.as_ref().map(|text| text.0.as_str()));
            vec![
                offer.name_any(),
                plan.name.clone(),
                amount(&plan.resources.cpu),
                amount(&plan.resources.memory),
                amount(&plan.resources.pods),
                look::devices(plan.resources.amounts("resources").ok().as_ref()),
                plan.price.as_ref().map_or_else(|| "by policy".into(), look::price),
                state.clone(),
                offer.spec.sharing_policy.clone().unwrap_or_else(|| "first".into()),
                option(flavors.get(index).map(String::as_str)),
                plan.description.clone(),
            ]
        })
    });
    let empty =
        "No packages are sold here. To sell some: kubectl apply an Offer, see docs/guides/buy-and-sell.md".into();
    Table { heading: HEADING, narrow: 8, rows: rows.collect(), empty }
}

/// What a peer's flavor has, if it can be read.
fn sold(flavor: &rear::Flavor) -> Option<Amounts> {
    K8SliceCharacteristics::deserialize(flavor.data.get("characteristics")?).ok()?.amounts().ok()
}

fn of_peer(offers: &[rear::Offer]) -> Table {
    let rows = offers.iter().flat_map(|offer| {
        offer.plans.iter().map(|plan| {
            let amount = |name: &str| option(plan.flavor.data["characteristics"][name].as_str());
            let rear::Price { amount: price, currency, period, unit } = plan.flavor.price.clone();
            let text = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
            vec![
                offer.id.clone(),
                plan.name.clone(),
                text(&amount("cpu")),
                text(&amount("memory")),
                text(&amount("pods")),
                look::devices(sold(&plan.flavor).as_ref()),
                look::price(&FlavorPrice { amount: price, currency, period, unit }),
                plan.flavor.availability.to_string(),
                "?".into(),
                known(&plan.flavor.id),
                text(&plan.description),
            ]
        })
    });
    Table {
        heading: HEADING,
        narrow: 8,
        rows: rows.collect(),
        empty: "It sells no packages to whoever asks so.".into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_nodes_say_they_sell_is_a_row_each_and_unknown_is_a_question_mark() {
        let offers = json!([
            {"name": "small/s", "type": "K8Slice", "amounts": {"cpu": "1"}, "price": "2 EUR/hour", "billing": "spot",
             "from": "192.0.2.7:7400/public"},
            {"type": "Service"},
        ]);
        let spec = json!({"address": "192.0.2.1:3004", "name": "grid", "did": "did:key:a", "offers": offers});
        let known = [KnownCluster::new("k1", serde_json::from_value(spec).unwrap())];
        let said: Vec<Said> = known.iter().flat_map(super::said).collect();
        let table = of_all(&said);
        assert_eq!(table.rows[0].len(), table.heading.len(), "a cell for each column");
        let shown: Vec<String> = table.rows.iter().map(|row| row.join(" ")).collect();
        assert_eq!(
            shown,
            [
                "grid small/s 1 ? ? 2 EUR/hour spot 192.0.2.7:7400/public ? did:key:a",
                "grid Service ? ? ? ? ? ? ? did:key:a"
            ]
        );
        let value = serde_json::to_value(&said).unwrap();
        assert_eq!((&value[0]["peer"], &value[0]["amounts"]["cpu"]), (&json!("grid"), &json!("1")));
    }

    #[test]
    fn a_peer_is_found_by_any_of_its_names_and_not_by_one_of_two() {
        let peer = |object: &str, name: &str, did: &str| -> KnownCluster {
            let spec = json!({"address": "192.0.2.1:3004", "name": name, "did": did});
            KnownCluster::new(object, serde_json::from_value(spec).unwrap())
        };
        let known = [peer("k1", "grid", "did:key:a"), peer("k2", "grid", "did:key:b"), peer("k3", "mill", "did:key:c")];
        assert_eq!(find(&known, "mill").unwrap().name_any(), "k3");
        assert_eq!(find(&known, "k2").unwrap().name_any(), "k2");
        assert_eq!(find(&known, "did:key:a").unwrap().name_any(), "k1");
        assert!(find(&known, "grid").unwrap_err().to_string().contains("several peers"));
        assert!(find(&known, "farm").unwrap_err().to_string().contains("no peer is called"));
    }
}
