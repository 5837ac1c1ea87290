//! What the answers of peers are worth: a pure function from what was asked and answered to candidates, refusals and what is
//! still open.

use std::borrow::Cow;

use fluidos_model::intent::{Constraint, Evidence, Intents, Judgement, Place, Requirement, judge, parse};
use fluidos_model::kinds::{Configuration, FlavorPrice, Solver, names};
use fluidos_model::market::{
    Accepted, Amounts, Buying, Candidate, Conditions, Currency, K8SliceSelector, Offer, Price, Split, rank,
};
use fluidos_model::service::ServiceSelector;
use fluidos_rear as rear;
use kube::ResourceExt as _;

use super::heard::Heard;
use super::view::{CANDIDATES_MAX, Findings, Offered, Part, Peer, Refused, SellerId};
use super::wanted::Wanted;

/// Flavors of one peer; ours have one each, official ones one per machine.
const FLAVORS_MAX: usize = 64;

/// What a peer answered, or why there is no answer.
pub(crate) type Answer = Result<Said, Silence>;

/// What a peer said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Said {
    /// Who it is.
    pub seller: SellerId,
    /// What it offers, or why nobody can say what it is.
    pub flavors: Vec<Result<Heard, String>>,
    /// Why it offers nothing, or no more, if it says that.
    pub denial: Option<String>,
    /// It may say something else in a moment.
    pub open: bool,
}

impl Said {
    /// Reads what a seller said.
    pub fn of(seller: SellerId, flavors: &[rear::Flavor], denial: Option<String>) -> Self {
        let flavors = flavors.iter().take(FLAVORS_MAX).map(|flavor| Heard::read(flavor, seller.key())).collect();
        Self { seller, flavors, denial, open: false }
    }
}

/// Why a peer has not said what it offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Silence {
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
    split: Option<&Split>,
    intents: &Intents,
    buying: Option<&Buying>,
    answers: &[(Peer, Answer)],
) -> Findings {
    let mut parts: Vec<(u64, Fit<'_>)> = Vec::new();
    let wanted = selector.wanted();
    let mut findings = sift(
        answers,
        (intents, buying, &wanted),
        |about| about.fits(selector),
        |about| parts.extend(split.and_then(|split| about.part(selector, split))),
    );
    if let Some(split) = split {
        findings.parts = ordered_parts(selector, split, buying, parts);
        findings.parts.truncate(CANDIDATES_MAX - findings.offered.len());
    }
    findings
}

/// Returns what the answers of those who were asked for a service are worth.
pub(super) fn weigh_services(
    (selector, configuration): (&ServiceSelector, &Configuration),
    intents: &Intents,
    buying: Option<&Buying>,
    answers: &[(Peer, Answer)],
) -> Findings {
    let asked = (intents, buying, &Amounts::default());
    let mut findings = sift(answers, asked, |about| about.serves(selector), |_| {});
    for offered in &mut findings.offered {
        offered.configuration = Some(configuration.clone());
    }
    findings
}

/// Whether these answers would be gone on with for a Solver.
pub(crate) fn serves(solver: &Solver, buying: Option<&Buying>, answers: &[(Peer, Answer)]) -> bool {
    let intents = parse(solver.annotations().iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let findings = match Wanted::of(solver) {
        Ok(Wanted::Slice(selector)) => {
            let split = solver.spec.split.as_ref().and_then(|split| split.rule().ok());
            weigh(&selector, split.as_ref(), &intents, buying, answers)
        }
        Ok(Wanted::Service(selector, configuration)) => {
            weigh_services((&selector, &configuration), &intents, buying, answers)
        }
        Err(_) => return false,
    };
    findings.candidates().next().is_some()
}

/// Judges every flavor of every answer. `out` sees what is not what is asked for.
fn sift<'a>(
    answers: &'a [(Peer, Answer)],
    (intents, buying, wanted): (&'a Intents, Option<&'a Buying>, &Amounts),
    fits: impl Fn(&About<'a>) -> Result<Fit<'a>, Out>,
    mut out: impl FnMut(&About<'a>),
) -> Findings {
    let mut findings = Findings::default();
    let mut fitting: Vec<Fit<'_>> = Vec::new();
    for (peer, answer) in answers {
        let refused = |reason: String| Refused { peer: peer.name.clone(), step: "list", reason };
        match answer {
            Err(silence) if silence.refused => findings.refused.push(refused(silence.reason.clone())),
            Err(silence) => findings.pending.push(refused(silence.reason.clone())),
            Ok(Said { denial: Some(reason), flavors, open, .. }) if flavors.is_empty() => {
                findings.open |= open;
                findings.refused.push(refused(reason.clone()));
            }
            Ok(Said { flavors, .. }) if flavors.is_empty() => {
                // It may have started a moment ago and not know yet what it offers.
                findings.open = true;
                findings.refused.push(refused("nothing offered, needed a K8Slice".into()));
            }
            Ok(Said { seller, flavors, denial, .. }) => {
                let before = fitting.len();
                for flavor in flavors {
                    let heard = match flavor {
                        Ok(heard) => heard,
                        Err(reason) => {
                            findings.refused.push(refused(reason.clone()));
                            continue;
                        }
                    };
                    let about = About { intents, buying, peer, seller: *seller, heard };
                    match fits(&about) {
                        Ok(fit) => fitting.push(fit),
                        Err(Out::Refused(reason)) => {
                            // Nothing is free there, or its machine has started a moment ago and is not ready yet.
                            findings.open |= heard.slice().is_ok_and(|offer| offer.whole.is_zero());
                            findings.refused.push(refused(reason));
                            out(&about);
                        }
                        Err(Out::Pending(reason)) => findings.pending.push(refused(reason)),
                    }
                }
                if let Some(reason) = denial.as_ref().filter(|_| fitting.len() == before) {
                    findings.refused.push(refused(reason.clone()));
                }
            }
        }
    }
    findings.open |= !findings.pending.is_empty();
    findings.offered = ordered(wanted, buying, &fitting);
    findings
}

enum Out {
    Refused(String),
    Pending(String),
}

/// One flavor of one peer, and by what it is judged.
struct About<'a> {
    intents: &'a Intents,
    buying: Option<&'a Buying>,
    peer: &'a Peer,
    seller: SellerId,
    heard: &'a Heard,
}

/// A flavor that is what is asked for, or a part of it.
struct Fit<'a> {
    peer: &'a Peer,
    seller: SellerId,
    heard: &'a Heard,
    /// What would be bought.
    buys: Amounts,
    /// For what.
    price: Option<Price>,
    /// Preferences that it does not meet.
    unmet: usize,
    /// For how long.
    term_seconds: Option<u64>,
}

impl<'a> About<'a> {
    /// Whether it is what is asked for.
    fn fits(&self, selector: &K8SliceSelector) -> Result<Fit<'a>, Out> {
        let offer = self.heard.slice().map_err(Out::Refused)?;
        let buys = offer.amounts_for(selector).map_err(|mismatch| Out::Refused(mismatch.to_string()))?;
        self.fit(buys)
    }

    /// Whether it is a service that is asked for.
    fn serves(&self, selector: &ServiceSelector) -> Result<Fit<'a>, Out> {
        selector.admits(self.heard.service().map_err(Out::Refused)?).map_err(Out::Refused)?;
        if !self.heard.available {
            return Err(Out::Refused(format!("{}: there is no room for one more", self.heard.offer.flavor)));
        }
        self.judged(Amounts::default())
    }

    /// What of it is of use where it has not all that is asked for, if parts are.
    fn part(&self, selector: &K8SliceSelector, split: &Split) -> Option<(u64, Fit<'a>)> {
        // What was sold without a key cannot be taken back when another part is not to be had.
        self.seller.key()?;
        let (units, buys) = split.most_of(self.heard.slice().ok()?, selector, split.units(selector)).ok()?;
        Some((units, self.fit(buys).ok()?))
    }

    fn fit(&self, buys: Amounts) -> Result<Fit<'a>, Out> {
        if !self.heard.available || buys.is_zero() {
            let (id, free) = (&self.heard.offer.flavor, &self.heard.offer.whole);
            return Err(Out::Refused(format!("{id}: {free} is free, and it says that nothing can be bought")));
        }
        self.judged(buys)
    }

    /// What is there is judged by the owner's intents, conditions and money.
    fn judged(&self, buys: Amounts) -> Result<Fit<'a>, Out> {
        let (heard, peer) = (self.heard, self.peer);
        let conditions = heard.conditions().map_err(Out::Refused)?;
        agreed_to(self.buying, &conditions).map_err(Out::Refused)?;
        let unmet = self.unmet(&heard.offer, conditions.resold)?;
        let price = heard.quote(&buys).map_err(Out::Refused)?;
        let term_seconds = self.buying.and_then(|buying| buying.term).map(|term| term.as_secs());
        Ok(Fit { peer, seller: self.seller, heard, buys, price, unmet, term_seconds })
    }

    /// How many preferences the place does not meet. Of who serves what is resold nobody here knows anything.
    fn unmet(&self, offer: &Offer, resold: bool) -> Result<usize, Out> {
        if self.intents.constraints.is_empty() {
            return Ok(0);
        }
        let asks = self.intents.constraints.iter().any(|constraint| constraint.evidence.is_some());
        let evidence = if asks && !resold { self.peer.known() } else { Evidence::default() };
        let place = Place { latency_micros: self.peer.latency_micros, evidence, ..Place::from(offer) };
        let judgement = judge(self.intents, &place);
        if !judgement.holds() {
            let reason = judgement.explain();
            // Who has not been met yet may show what is missing in a moment.
            let stranger = self.peer.did.is_some() && self.peer.evidence.is_none() && !resold;
            let unmeasured = only_unmeasured(self.intents, &judgement, &place, stranger);
            return Err(if unmeasured { Out::Pending(reason) } else { Out::Refused(reason) });
        }
        Ok(judgement.soft.len())
    }
}

impl Fit<'_> {
    /// What breaks a tie: the flavor, then the seller.
    fn name(&self) -> String {
        format!("{} {}", self.heard.offer.flavor, self.seller.tag())
    }

    /// What is gone on with.
    fn offered(&self, why: String) -> Option<Offered> {
        let flavor = &self.heard.offer.flavor;
        Some(Offered {
            candidate: names::peering_candidate(flavor, Some(&self.seller.tag())),
            peer: self.peer.name.clone(),
            address: self.peer.address,
            seller: self.seller,
            // We have written it: it reads.
            flavor: self.heard.whole(self.seller.key()).ok()?,
            buys: self.buys.clone(),
            price: self.price,
            latency_micros: self.peer.latency_micros,
            rating: self.peer.rating,
            term_seconds: self.term_seconds,
            configuration: None,
            why,
        })
    }

    fn candidate<'b>(&self, name: impl Into<Cow<'b, str>>, buys: Amounts, price: Option<Price>) -> Candidate<'b> {
        let (latency_micros, rating) = (self.peer.latency_micros, self.peer.rating);
        Candidate { name: name.into(), unmet: self.unmet, buys, price, latency_micros, rating }
    }
}

/// Returns so many units of what has a part, or why not.
pub(super) fn cut(offered: &Offered, split: &Split, selector: &K8SliceSelector, units: u64) -> Result<Offered, String> {
    let offer = offered.flavor.spec.offer(&offered.flavor.metadata.name).map_err(|error| error.to_string())?;
    let buys = offer.amounts_for(&split.part(selector, units)).map_err(|mismatch| mismatch.to_string())?;
    let price = quote(&offered.flavor.spec.price, &buys)?;
    Ok(Offered { buys, price, ..offered.clone() })
}

/// Whether conditions are such as the owner signs.
fn agreed_to(buying: Option<&Buying>, conditions: &Conditions) -> Result<(), String> {
    match buying {
        Some(buying) => {
            let named = |reason| format!("{reason} (AcquisitionPolicy {})", buying.name);
            buying.accepts.admits(conditions).map_err(named)
        }
        None => {
            let named = |reason| format!("{reason}: there is no AcquisitionPolicy that says otherwise");
            Accepted::default().admits(conditions).map_err(named)
        }
    }
}

/// What these amounts of a flavor cost, `None` if its price is not stated.
pub(super) fn quote(price: &FlavorPrice, buys: &Amounts) -> Result<Option<Price>, String> {
    let stated = price.parse().map_err(|error| format!("price: {error}"))?;
    stated.map(|price| price.of(buys)).transpose().map_err(|error| format!("price: {error}"))
}

/// A latency that nobody has measured yet will be known in a moment: all else holds.
fn only_unmeasured(intents: &Intents, judgement: &Judgement, place: &Place, stranger: bool) -> bool {
    let unknown = |name| {
        let of_name = intents.constraints.iter().find(|constraint| constraint.name == name);
        of_name.is_some_and(|constraint| match constraint.requirement {
            Requirement::LatencyMicros(_) => place.latency_micros.is_none(),
            // The rest of it holds: only how well that is known is missing.
            _ => stranger && Constraint { evidence: None, ..constraint.clone() }.broken_by(place).is_none(),
        })
    };
    judgement.hard.iter().all(|broken| unknown(broken.name))
}

/// Preferences first, then what the policy ranks by, then the least surplus, then the name. Only the first few are gone on with.
fn ordered(wanted: &Amounts, buying: Option<&Buying>, fitting: &[Fit<'_>]) -> Vec<Offered> {
    let candidates: Vec<Candidate<'_>> =
        fitting.iter().map(|fit| fit.candidate(fit.name(), fit.buys.clone(), fit.price)).collect();
    let mut ordered: Vec<Offered> = Vec::new();
    for (index, why) in order(wanted, buying, &candidates) {
        let Some(offered) = fitting.get(index).and_then(|fit| fit.offered(why)) else { continue };
        if ordered.iter().all(|earlier| earlier.candidate != offered.candidate) {
            ordered.push(offered);
        }
        if ordered.len() == CANDIDATES_MAX {
            break;
        }
    }
    ordered
}

/// The same for parts: by the price of one unit, and among equals the largest first, so that there are few.
fn ordered_parts(
    selector: &K8SliceSelector,
    split: &Split,
    buying: Option<&Buying>,
    parts: Vec<(u64, Fit<'_>)>,
) -> Vec<Part> {
    let unit = split.part(selector, 1);
    let wanted = unit.wanted();
    let one = |(units, fit): &(u64, Fit<'_>)| {
        let offer = &fit.heard.offer;
        let buys = offer.amounts_for(&unit).ok()?;
        let price = fit.heard.quote(&buys).ok()?;
        Some(fit.candidate(format!("{:020} {}", u64::MAX - units, fit.name()), buys, price))
    };
    let (parts, candidates): (Vec<(u64, Fit<'_>)>, Vec<Candidate<'_>>) =
        parts.into_iter().filter_map(|part| one(&part).map(|candidate| (part, candidate))).unzip();
    let mut ordered: Vec<Part> = Vec::new();
    for (index, why) in order(&wanted, buying, &candidates) {
        let Some((units, offered)) = parts.get(index).and_then(|(units, fit)| Some((*units, fit.offered(why)?))) else {
            continue;
        };
        if ordered.iter().all(|earlier| earlier.offered.candidate != offered.candidate) {
            ordered.push(Part { units, offered });
        }
        if ordered.len() == CANDIDATES_MAX {
            break;
        }
    }
    ordered
}

/// The order of candidates, best first, and why each stands where it does.
fn order<'a>(
    wanted: &'a Amounts,
    buying: Option<&Buying>,
    candidates: &'a [Candidate<'a>],
) -> impl Iterator<Item = (usize, String)> + use<'a> {
    let criteria = buying.map(|buying| buying.ranking.as_slice()).unwrap_or_default();
    let currencies: Vec<Currency> =
        buying.map(|buying| buying.ceilings.iter().map(|ceiling| ceiling.currency).collect()).unwrap_or_default();
    let of = candidates.len();
    (1..).zip(rank(wanted, candidates, criteria, &currencies)).map(move |(place, ranked)| {
        let unmet = match candidates.get(ranked.index).map_or(0, |candidate| candidate.unmet) {
            0 => String::new(),
            unmet => format!(", {unmet} preferences not met"),
        };
        (ranked.index, format!("{place} of {of}: {}{unmet}", ranked.reason))
    })
}

/// Returns the message of a Discovery: how many candidates, and who is out and why.
pub(super) fn told(findings: &Findings) -> String {
    let out = findings.refused.iter().chain(&findings.pending).map(|refused| format!("not {refused}"));
    let found = match findings.offered.len() {
        0 if !findings.parts.is_empty() => {
            format!("{} Peering Candidates found, each for a part", findings.parts.len())
        }
        0 => "no Peering Candidate found".to_owned(),
        1 => "Peering Candidate found".to_owned(),
        count => format!("{count} Peering Candidates found"),
    };
    std::iter::once(found).chain(out).collect::<Vec<_>>().join("; ")
}
