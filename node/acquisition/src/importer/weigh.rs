//! What the answers of peers are worth: a pure function from what was asked and answered to candidates, refusals and what is
//! still open.

use fluidos_identity::NodeId;
use fluidos_model::intent::{Intents, Judgement, Place, Requirement, judge};
use fluidos_model::kinds::{EmbeddedFlavor, FlavorPrice, names};
use fluidos_model::market::{Amounts, Buying, Candidate, Currency, K8SliceSelector, Price, rank};
use fluidos_rear as rear;

use super::view::{CANDIDATES_MAX, Findings, Offered, Peer, Refused};
use crate::convert;

/// Flavors of one peer; ours have one each, official ones one per machine.
const FLAVORS_MAX: usize = 64;

/// What a peer answered, or why there is no answer.
pub(super) type Answer = Result<Said, Silence>;

/// What a peer said.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    /// The key it has proven.
    pub seller: NodeId,
    /// What it offers.
    pub flavors: Vec<rear::Flavor>,
    /// Why it offers nothing, if it says that.
    pub denial: Option<String>,
}

/// Why a peer has not said what it offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Silence {
    pub reason: String,
    /// It said no, for good: it is not waited for.
    pub refused: bool,
}

impl From<String> for Silence {
    fn from(reason: String) -> Self {
        Self { reason, refused: false }
    }
}

/// Returns what the answers are worth.
pub(super) fn weigh(
    selector: &K8SliceSelector,
    intents: &Intents,
    buying: Option<&Buying>,
    answers: &[(Peer, Answer)],
) -> Findings {
    let mut findings = Findings::default();
    let mut fitting: Vec<(Offered, usize)> = Vec::new();
    for (peer, answer) in answers {
        let refused = |reason: String| Refused { peer: peer.name.clone(), step: "list", reason };
        match answer {
            Err(silence) if silence.refused => findings.refused.push(refused(silence.reason.clone())),
            Err(silence) => findings.pending.push(refused(silence.reason.clone())),
            Ok(Said { denial: Some(reason), flavors, .. }) if flavors.is_empty() => {
                findings.refused.push(refused(reason.clone()));
            }
            Ok(Said { flavors, .. }) if flavors.is_empty() => {
                // It may have started a moment ago and not know yet what it offers.
                findings.open = true;
                findings.refused.push(refused("nothing offered, needed a K8Slice".into()));
            }
            Ok(Said { seller, flavors, .. }) => {
                for flavor in flavors.iter().take(FLAVORS_MAX) {
                    match fits(selector, intents, buying, peer, *seller, flavor) {
                        Ok(fit) => fitting.push(fit),
                        Err(Out::Refused(reason)) => findings.refused.push(refused(reason)),
                        Err(Out::Pending(reason)) => findings.pending.push(refused(reason)),
                    }
                }
            }
        }
    }
    findings.open |= !findings.pending.is_empty();
    findings.offered = ordered(selector, buying, fitting);
    findings
}

enum Out {
    Refused(String),
    Pending(String),
}

/// Whether a flavor is what is asked for, with the number of preferences that it does not meet.
fn fits(
    selector: &K8SliceSelector,
    intents: &Intents,
    buying: Option<&Buying>,
    peer: &Peer,
    seller: NodeId,
    flavor: &rear::Flavor,
) -> Result<(Offered, usize), Out> {
    let embedded: EmbeddedFlavor = convert::embedded_flavor(flavor, seller).map_err(Out::Refused)?;
    let offer = embedded.spec.offer(&flavor.id).map_err(|error| Out::Refused(error.to_string()))?;
    let buys = offer.amounts_for(selector).map_err(|mismatch| Out::Refused(mismatch.to_string()))?;
    if !embedded.spec.availability || buys.is_zero() {
        return Err(Out::Refused(format!(
            "{}: {} is free, and it says that nothing can be bought",
            flavor.id, offer.whole
        )));
    }
    let place = Place { latency_micros: peer.latency_micros, ..Place::from(&offer) };
    let judgement = judge(intents, &place);
    if !judgement.holds() {
        let reason = judgement.explain();
        return Err(if only_unmeasured(intents, &judgement, &place) {
            Out::Pending(reason)
        } else {
            Out::Refused(reason)
        });
    }
    let price = quote(&embedded.spec.price, &buys).map_err(Out::Refused)?;
    let offered = Offered {
        price,
        candidate: names::peering_candidate(&flavor.id, Some(&seller.tag())),
        peer: peer.name.clone(),
        address: peer.address,
        seller,
        flavor: embedded,
        buys,
        term_seconds: buying.and_then(|buying| buying.term).map(|term| term.as_secs()),
        latency_micros: peer.latency_micros,
    };
    Ok((offered, judgement.soft.len()))
}

/// What these amounts of a flavor cost, `None` if its price is not stated.
pub(super) fn quote(price: &FlavorPrice, buys: &Amounts) -> Result<Option<Price>, String> {
    let stated = price.parse().map_err(|error| format!("price: {error}"))?;
    stated.map(|price| price.of(buys)).transpose().map_err(|error| format!("price: {error}"))
}

/// A latency that nobody has measured yet will be known in a moment: all else holds.
fn only_unmeasured(intents: &Intents, judgement: &Judgement, place: &Place) -> bool {
    let latency = |name| {
        let of_name = intents.constraints.iter().find(|constraint| constraint.name == name);
        of_name.is_some_and(|constraint| matches!(constraint.requirement, Requirement::LatencyMicros(_)))
    };
    place.latency_micros.is_none() && judgement.hard.iter().all(|broken| latency(broken.name))
}

/// Preferences first, then what the policy ranks by, then the least surplus, then the name.
fn ordered(selector: &K8SliceSelector, buying: Option<&Buying>, fitting: Vec<(Offered, usize)>) -> Vec<Offered> {
    let candidates = fitting.iter().map(|(offered, _)| Candidate {
        name: offered.candidate.clone(),
        buys: offered.buys,
        price: offered.price,
        latency_micros: offered.latency_micros,
    });
    let candidates: Vec<Candidate> = candidates.collect();
    let criteria = buying.map(|buying| buying.ranking.as_slice()).unwrap_or_default();
    let currencies: Vec<Currency> =
        buying.map(|buying| buying.ceilings.iter().map(|ceiling| ceiling.currency).collect()).unwrap_or_default();
    let mut order: Vec<(usize, usize)> = rank(&selector.wanted(), &candidates, criteria, &currencies)
        .iter()
        .filter_map(|ranked| Some((fitting.get(ranked.index)?.1, ranked.index)))
        .collect();
    order.sort_by_key(|(soft, _)| *soft); // stable: the rank decides among equals
    let mut ordered: Vec<Offered> = Vec::new();
    for (_, index) in order {
        if let Some((offered, _)) = fitting.get(index)
            && ordered.iter().all(|earlier| earlier.candidate != offered.candidate)
        {
            ordered.push(offered.clone());
        }
    }
    ordered.truncate(CANDIDATES_MAX);
    ordered
}

/// Returns the message of a Discovery: how many candidates, and who is out and why.
pub(super) fn told(findings: &Findings) -> String {
    let out = findings.refused.iter().chain(&findings.pending).map(|refused| format!("not {refused}"));
    let found = match findings.offered.len() {
        0 => "no Peering Candidate found".to_owned(),
        1 => "Peering Candidate found".to_owned(),
        count => format!("{count} Peering Candidates found"),
    };
    std::iter::once(found).chain(out).collect::<Vec<_>>().join("; ")
}
