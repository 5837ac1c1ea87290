//! `fluidos offers`: the packages that this node sells, or those of a peer as they are for whoever asks.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use fluidos_identity::NodeKey;
use fluidos_model::kinds::{FlavorPrice, KnownCluster, Offer, names};
use fluidos_rear as rear;
use kube::ResourceExt as _;
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
    &["OFFER", "PLAN", "CPU", "MEMORY", "PODS", "PRICE", "AVAILABLE", "POLICY", "FLAVOR", "DESCRIPTION"];

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
    Table { heading: HEADING, narrow: 7, rows: rows.collect(), empty }
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
        narrow: 7,
        rows: rows.collect(),
        empty: "It sells no packages to whoever asks so.".into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
