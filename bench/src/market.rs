//! One request to so many providers, all at once, and a purchase from one: how long each stage takes.
//!
//! The providers share this process and its two cores with the buyer, and each has its own API server, in memory. So the figure for
//! 1,000 is what their work and the buyer's cost together; spread over their own machines only the buyer's share is left.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fluidos_identity::{NodeKey, Signed};
use fluidos_model::kinds::Configuration;
use fluidos_model::market::Amounts;
use fluidos_rear as rear;
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::figures::{Samples, resident_bytes, rounded};
use crate::seller::Seller;

const ROUNDS: u32 = 7;
/// Connections that are opened at the same time, as a shortlist would.
const AT_ONCE: usize = 64;

/// Times of the stages of one provider.
#[derive(Default)]
struct Stages {
    connect: Samples,
    request: Samples,
    reserve: Samples,
    purchase: Samples,
    whole: Samples,
}

/// The figures.
pub async fn measure() -> Result<Value> {
    let (mut sellers, mut rows) = (Vec::new(), Vec::new());
    let before = resident_bytes();
    for providers in [1, 10, 100, 1_000] {
        while sellers.len() < providers {
            sellers.push(Seller::start(u32::try_from(sellers.len())?).await?);
        }
        let mut stages = Stages::default();
        for round in 0..ROUNDS {
            buy(&sellers, round, &mut stages).await?;
        }
        rows.push(json!({
            "providers": providers, "connect": stages.connect.figures(), "request": stages.request.figures(),
            "reserve": stages.reserve.figures(), "purchase": stages.purchase.figures(), "whole": stages.whole.figures(),
        }));
    }
    let each = resident_bytes().saturating_sub(before) as f64 / sellers.len() as f64 / 1024.0;
    Ok(json!({ "at_once": AT_ONCE, "by_providers": rows, "kib_of_one_provider": rounded(each) }))
}

/// Asks everybody, and buys from one.
async fn buy(sellers: &[Seller], round: u32, stages: &mut Stages) -> Result<()> {
    let mut seed = [9; 32];
    seed[..4].copy_from_slice(&round.to_be_bytes());
    let buyer = NodeKey::from_seed(seed)?;
    let request = request();
    let begun = Instant::now();
    let asked = futures::stream::iter(sellers).map(|seller| async {
        let client = seller.client(&buyer)?;
        let begun = Instant::now();
        client.seller().await?;
        let connected = begun.elapsed();
        let answer = client.request(&request).await?.context("no such route")?;
        anyhow::ensure!(!answer.offers.is_empty(), "nothing is offered: {:?}", answer.denial);
        anyhow::Ok((connected, begun.elapsed().saturating_sub(connected), client))
    });
    let answers: Vec<Result<(Duration, Duration, rear::Client)>> = asked.buffer_unordered(AT_ONCE).collect().await;
    for answer in &answers {
        let (connect, request, _) = answer.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
        stages.connect.add(*connect);
        stages.request.add(*request);
    }
    // Whose answers are worth most is another bench; each is bought from once.
    let seller = &sellers[round as usize % sellers.len()];
    let client = seller.client(&buyer)?;
    client.seller().await?;
    let held = Instant::now();
    let transaction =
        client.reserve(&reservation(&seller.flavor, &format!("flt-bench-{round}-{}", sellers.len()))?).await?;
    stages.reserve.add(held.elapsed());
    let bought = Instant::now();
    let contract = sign_and_buy(&client, &buyer, &transaction).await?;
    stages.purchase.add(bought.elapsed());
    stages.whole.add(begun.elapsed());
    release(&client, &buyer, &contract).await
}

/// Ends a contract, so that the next purchase finds what this one found.
pub async fn release(client: &rear::Client, buyer: &NodeKey, contract: &Signed<rear::ContractTerms>) -> Result<()> {
    let mut release = rear::ReleaseTerms::of(contract, "measured", jiff::Timestamp::now(), None)?;
    release.sign(buyer)?;
    Ok(client.release(&release).await?)
}

/// What is needed.
pub fn request() -> rear::ResourceRequest {
    let range =
        |name: &str, min: &str| rear::SelectorFilter::Range { name: name.into(), min: Some(min.into()), max: None };
    rear::ResourceRequest {
        flavor_type: rear::FlavorType::K8Slice,
        filters: vec![range("cpu", "100m"), range("memory", "64Mi"), range("pods", "1")],
        intents: BTreeMap::new(),
        term_seconds: None,
        wait_millis: None,
        path: None,
    }
}

/// What is asked for.
pub fn reservation(flavor: &str, transaction: &str) -> Result<rear::ReserveRequest> {
    let amounts = Amounts { cpu_milli: 100, memory_bytes: 64 << 20, pods: 1, ..Amounts::default() };
    let data = Configuration::k8slice(&amounts).map(|configuration| configuration.data)?;
    Ok(rear::ReserveRequest {
        flavor_id: flavor.into(),
        buyer: rear::Party { node_id: "bench".into(), liqo_id: Some("bench".into()), ..rear::Party::default() },
        configuration: Some(rear::Configuration { flavor_type: rear::FlavorType::K8Slice, data }),
        transaction_id: Some(transaction.into()),
        term_seconds: None,
        path: None,
    })
}

/// Signs what is held and buys it; what comes back is checked as a buyer does.
pub async fn sign_and_buy(
    client: &rear::Client,
    buyer: &NodeKey,
    transaction: &rear::Transaction,
) -> Result<Signed<rear::ContractTerms>> {
    let offered = transaction.terms.as_ref().context("no terms")?;
    let mut terms: Signed<rear::ContractTerms> = Signed::open(offered, rear::CONTRACT_PURPOSE)?;
    terms.sign(buyer)?;
    let request = rear::PurchaseRequest { signed_terms: Some(terms.envelope()), ..Default::default() };
    let contract = client.purchase(&transaction.id, &request).await?;
    let received = contract.signed_terms.context("no signature of the seller")?;
    Ok(rear::check_contract(&received, &terms)?)
}
