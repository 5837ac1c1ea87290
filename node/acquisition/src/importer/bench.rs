//! Answers of many providers, for the bench `ranking`.

use std::net::Ipv4Addr;
use std::time::Duration;

use fluidos_identity::NodeKey;
use fluidos_model::intent::Intents;
use fluidos_model::market::{Accepted, Buying, Criterion, FilterText, K8SliceSelector, LeastRating};
use fluidos_rear as rear;
use serde_json::json;

use super::view::Peer;
use super::weigh::{Answer, Said, weigh};

/// Answers with one flavor each; four of five fit, no two cost the same.
pub struct Answers {
    selector: K8SliceSelector,
    buying: Buying,
    answers: Vec<(Peer, Answer)>,
}

impl Answers {
    /// Those of so many providers.
    pub fn of(providers: usize) -> Self {
        let range = |name: &str, min: &str| FilterText::Range { name: name.into(), min: Some(min.into()), max: None };
        let filters = [range("cpu", "1"), range("memory", "1Gi"), range("pods", "10")];
        let buying = Buying {
            name: "bench".into(),
            ceilings: Vec::new(),
            ranking: vec![Criterion::Latency, Criterion::Rating, Criterion::Surplus],
            shortlist: providers,
            deadline: Duration::from_secs(2),
            term: None,
            rating: LeastRating::ANY,
            accepts: Accepted::default(),
            buffers: Vec::new(),
        };
        let selector = K8SliceSelector::from_texts(&filters).unwrap_or_default();
        Self { selector, buying, answers: (0..providers).filter_map(answer).collect() }
    }

    /// Weighs them; how many can be bought from, of which the importer goes on with the first few.
    pub fn weigh(&self) -> usize {
        weigh(&self.selector, None, &Intents::default(), Some(&self.buying), &self.answers).offered.len()
    }
}

fn answer(number: usize) -> Option<(Peer, Answer)> {
    let mut seed = [3; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    let seller = NodeKey::from_seed(seed).ok()?.id();
    let name = format!("grid-{number}");
    let peer = Peer {
        name: name.clone(),
        address: (Ipv4Addr::from_bits(0x0a00_0000 | u32::try_from(number).ok()?), 7300).into(),
        did: Some(seller),
        latency_micros: Some(500 + (number as u64 * 7919) % 40_000),
        rating: Some((number % 101) as u8),
        plain: false,
        evidence: None,
    };
    let cpu = if number.is_multiple_of(5) { "500m" } else { "8" };
    let flavor = rear::Flavor {
        id: format!("{name}.example-k8slice-0e682ec3133811bb0d52b6373c339f81"),
        provider_id: seller.tag(),
        flavor_type: rear::FlavorType::K8Slice,
        data: json!({
            "characteristics": {"architecture": "amd64", "cpu": cpu, "memory": "8Gi", "pods": "110"},
            "policies": {"partitionability": {"cpuStep": "1m", "memoryStep": "1Mi", "podsStep": "1"}},
            "properties": {"additionalProperties": {"latency": 90}},
        }),
        location: rear::Location { city: "Milan".into(), country: "Italy".into(), ..Default::default() },
        price: rear::Price { amount: "0".into(), currency: String::new(), period: String::new(), unit: String::new() },
        owner: rear::Party {
            node_id: seller.tag(),
            domain: format!("{name}.example"),
            did: Some(seller),
            ..Default::default()
        },
        availability: true,
        network_property_type: String::new(),
    };
    Some((peer, Ok(Said::of(seller.into(), &[flavor], None))))
}
