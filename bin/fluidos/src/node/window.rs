//! What stands in the shop window: what this node tells an unknown buyer of what it sells, for discovery to announce in catalogs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fluidos_acquisition::exporter::Exporter;
use fluidos_discovery::offers::location;
use fluidos_model::kinds::{FlavorPrice, KnownClusterOffer, OFFERS_OF_NODE_MAX};
use fluidos_rear::{Flavor, Offer, OffersQuery, Peer, Selector, Seller as _};
use tokio::sync::watch;

/// Prices may follow what is sold, and each look asks the policies about all there is.
const GATHER: Duration = Duration::from_secs(5);
/// A price by the hour changes with no event.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// Keeps the window as it should be, for ever.
pub async fn run(exporter: Arc<Exporter>, window: watch::Sender<Vec<KnownClusterOffer>>) {
    let mut changes = exporter.changes();
    loop {
        // Asked as a stranger without a key asks: nothing is told to a catalog that REAR does not tell to everybody.
        let nobody = Peer { node: None, address: None };
        let flavors = exporter.list_flavors(&Selector::default(), &nobody).await;
        let packages = exporter.list_offers(&OffersQuery::default(), &nobody).await;
        let told = match (flavors, packages) {
            (Ok(flavors), Ok(packages)) => goods(&packages.offers, &flavors),
            // Closed, or nothing is for strangers: nothing is told.
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!(?error, "nothing is sold to strangers now");
                Vec::new()
            }
        };
        window.send_if_modified(|shown| {
            let changed = *shown != told;
            *shown = told;
            changed
        });
        tokio::time::sleep(GATHER).await;
        let changed = async {
            match &mut changes {
                Some(changes) => changes.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        // Either only waits: losing the race loses nothing.
        tokio::select! {
            _ = changed => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// Packages first, each plan by its name; then what is cut as it is wanted, and services.
fn goods(packages: &[Offer], flavors: &[Flavor]) -> Vec<KnownClusterOffer> {
    let plans = packages
        .iter()
        .flat_map(|offer| offer.plans.iter().map(move |plan| (format!("{}/{}", offer.id, plan.name), &plan.flavor)));
    let of_plans: BTreeSet<&str> =
        packages.iter().flat_map(|offer| &offer.plans).map(|plan| plan.flavor.id.as_str()).collect();
    let others = flavors.iter().filter(|flavor| !of_plans.contains(flavor.id.as_str()));
    plans
        .chain(others.map(|flavor| (String::new(), flavor)))
        .filter(|(_, flavor)| flavor.availability)
        .map(|(name, flavor)| {
            let fluidos_rear::Price { amount, currency, period, unit } = flavor.price.clone();
            let price = FlavorPrice { amount, currency, period, unit };
            let place = location(&flavor.location.city, &flavor.location.country);
            KnownClusterOffer::of_flavor(&name, &format!("{:?}", flavor.flavor_type), &flavor.data, &price, &place)
        })
        .take(OFFERS_OF_NODE_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluidos_rear::{FlavorType, Location, OfferedPlan, Party, Price};
    use serde_json::json;

    use super::*;

    fn flavor(id: &str, cpu: &str, availability: bool) -> Flavor {
        Flavor {
            id: id.into(),
            provider_id: "p".into(),
            flavor_type: FlavorType::K8Slice,
            data: json!({"characteristics": {"cpu": cpu, "memory": "1Gi", "pods": "5"}}),
            location: Location { city: "Turin".into(), country: "Italy".into(), ..Location::default() },
            price: Price { amount: "2".into(), currency: "EUR".into(), period: "hour".into(), unit: String::new() },
            owner: Party::default(),
            availability,
            network_property_type: String::new(),
        }
    }

    #[test]
    fn packages_stand_before_what_is_cut_and_nothing_stands_there_twice_or_is_sold_out() {
        let plan = |name: &str, flavor| OfferedPlan { name: name.into(), description: String::new(), flavor };
        let plans = vec![plan("s", flavor("small-s", "1", true)), plan("m", flavor("small-m", "2", false))];
        let packages = [Offer { id: "small".into(), description: String::new(), plans }];
        let flavors = [flavor("whole", "8", true), flavor("small-s", "1", true), flavor("gone", "3", false)];
        let told: Vec<String> = goods(&packages, &flavors)
            .iter()
            .map(|o| format!("{:?} {} {} {} {} {}", o.name, o.type_, o.amounts["cpu"], o.price, o.billing, o.location))
            .collect();
        let needed = [
            "\"small/s\" K8Slice 1 2 EUR/hour reserved Turin, Italy",
            "\"\" K8Slice 8 2 EUR/hour reserved Turin, Italy",
        ];
        assert_eq!(told, needed);
        let many: Vec<Flavor> = (0..40).map(|i| flavor(&format!("f{i}"), "1", true)).collect();
        assert_eq!(goods(&[], &many).len(), OFFERS_OF_NODE_MAX);
    }
}
