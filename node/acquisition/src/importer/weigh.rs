//! What the answers of peers are worth: a pure function from what was asked and answered to candidates, refusals and what is
//! still open.

use fluidos_identity::NodeId;
use fluidos_model::intent::{Intents, Judgement, Place, Requirement, judge};
use fluidos_model::kinds::{EmbeddedFlavor, FlavorPrice, names};
use fluidos_model::market::{
    Accepted, Amounts, Buying, Candidate, Conditions, Currency, K8SliceSelector, Offer, Price, Split, rank,
};
use fluidos_rear as rear;

use super::view::{CANDIDATES_MAX, Findings, Offered, Part, Peer, Refused};
use super::wanted::Wanted;
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
    split: Option<&Split>,
    intents: &Intents,
    buying: Option<&Buying>,
    answers: &[(Peer, Answer)],
) -> Findings {
    let mut parts: Vec<(Part, usize)> = Vec::new();
    let part = |about: &About| split.and_then(|split| about.part(selector, split));
    let wanted = selector.wanted();
    let mut findings =
        sift(answers, (intents, buying, &wanted), |about| about.fits(selector), |about| parts.extend(part(about)));
    if let Some(split) = split {
        findings.parts = ordered_parts(selector, split, buying, parts);
        findings.parts.truncate(CANDIDATES_MAX - findings.offered.len());
    }
    findings
}

/// Returns what the answers of those who were asked for a service are worth.
pub(super) fn weigh_services(
    wanted: &Wanted,
    intents: &Intents,
    buying: Option<&Buying>,
    answers: &[(Peer, Answer)],
) -> Findings {
    sift(answers, (intents, buying, &Amounts::default()), |about| about.serves(wanted), |_| {})
}

/// Judges every flavor of every answer. `out` sees what is not what is asked for.
fn sift(
    answers: &[(Peer, Answer)],
    (intents, buying, wanted): (&Intents, Option<&Buying>, &Amounts),
    fits: impl Fn(&About) -> Result<(Offered, usize), Out>,
    mut out: impl FnMut(&About),
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
                    let about = About { intents, buying, peer, seller: *seller, flavor };
                    match fits(&about) {
                        Ok(fit) => fitting.push(fit),
                        Err(Out::Refused(reason)) => {
                            findings.refused.push(refused(reason));
                            out(&about);
                        }
                        Err(Out::Pending(reason)) => findings.pending.push(refused(reason)),
                    }
                }
            }
        }
    }
    findings.open |= !findings.pending.is_empty();
    findings.offered = ordered(wanted, buying, fitting);
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
    seller: NodeId,
    flavor: &'a rear::Flavor,
}

impl About<'_> {
    /// Whether it is what is asked for, with the number of preferences that it does not meet.
    fn fits(&self, selector: &K8SliceSelector) -> Result<(Offered, usize), Out> {
        let (embedded, offer) = self.read().map_err(Out::Refused)?;
        let buys = offer.amounts_for(selector).map_err(|mismatch| Out::Refused(mismatch.to_string()))?;
        self.offered(embedded, &offer, buys)
    }

    /// What of it is of use where it has not all that is asked for, if parts are.
    fn part(&self, selector: &K8SliceSelector, split: &Split) -> Option<(Part, usize)> {
        let (embedded, offer) = self.read().ok()?;
        let (units, buys) = split.most_of(&offer, selector, split.units(selector)).ok()?;
        let (offered, soft) = self.offered(embedded, &offer, buys).ok()?;
        Some((Part { units, offered }, soft))
    }

    fn read(&self) -> Result<(EmbeddedFlavor, Offer), String> {
        let embedded = convert::embedded_flavor(self.flavor, self.seller)?;
        let offer = embedded.spec.offer(&self.flavor.id).map_err(|error| error.to_string())?;
        Ok((embedded, offer))
    }

    /// Whether it is a service that is asked for.
    fn serves(&self, wanted: &Wanted) -> Result<(Offered, usize), Out> {
        let Wanted::Service(selector, configuration) = wanted else {
            return Err(Out::Refused("a K8Slice is needed".into()));
        };
        let embedded = convert::embedded_flavor(self.flavor, self.seller).map_err(Out::Refused)?;
        let service = embedded.spec.service().map_err(Out::Refused)?;
        selector.admits(&service).map_err(Out::Refused)?;
        let location = embedded.spec.location.clone().unwrap_or_default().into();
        let offer = Offer { flavor: self.flavor.id.clone(), location, ..Offer::default() };
        if !embedded.spec.availability {
            return Err(Out::Refused(format!("{}: there is no room for one more", self.flavor.id)));
        }
        let (offered, soft) = self.judged(embedded, &offer, Amounts::default())?;
        Ok((Offered { configuration: Some(configuration.clone()), ..offered }, soft))
    }

    fn offered(&self, embedded: EmbeddedFlavor, offer: &Offer, buys: Amounts) -> Result<(Offered, usize), Out> {
        if !embedded.spec.availability || buys.is_zero() {
            let (id, free) = (&self.flavor.id, &offer.whole);
            return Err(Out::Refused(format!("{id}: {free} is free, and it says that nothing can be bought")));
        }
        self.judged(embedded, offer, buys)
    }

    /// What is there is judged by the owner's intents, conditions and money.
    fn judged(&self, embedded: EmbeddedFlavor, offer: &Offer, buys: Amounts) -> Result<(Offered, usize), Out> {
        let said = embedded.spec.flavor_type.type_data.pointer("/policies/conditions").filter(|said| !said.is_null());
        agreed_to(self.buying, said).map_err(Out::Refused)?;
        let place = Place { latency_micros: self.peer.latency_micros, ..Place::from(offer) };
        let judgement = judge(self.intents, &place);
        if !judgement.holds() {
            let reason = judgement.explain();
            let unmeasured = only_unmeasured(self.intents, &judgement, &place);
            return Err(if unmeasured { Out::Pending(reason) } else { Out::Refused(reason) });
        }
        let price = quote(&embedded.spec.price, &buys).map_err(Out::Refused)?;
        let offered = Offered {
            price,
            candidate: names::peering_candidate(&self.flavor.id, Some(&self.seller.tag())),
            peer: self.peer.name.clone(),
            address: self.peer.address,
            seller: self.seller,
            flavor: embedded,
            buys,
            term_seconds: self.buying.and_then(|buying| buying.term).map(|term| term.as_secs()),
            latency_micros: self.peer.latency_micros,
            rating: self.peer.rating,
            why: String::new(),
            configuration: None,
        };
        Ok((offered, judgement.soft.len()))
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
pub(super) fn agreed_to(buying: Option<&Buying>, conditions: Option<&serde_json::Value>) -> Result<(), String> {
    let conditions = Conditions::read(conditions).map_err(|error| error.to_string())?;
    match buying {
        Some(buying) => {
            let named = |reason| format!("{reason} (AcquisitionPolicy {})", buying.name);
            buying.accepts.admits(&conditions).map_err(named)
        }
        None => {
            let named = |reason| format!("{reason}: there is no AcquisitionPolicy that says otherwise");
            Accepted::default().admits(&conditions).map_err(named)
        }
    }
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
fn ordered(wanted: &Amounts, buying: Option<&Buying>, fitting: Vec<(Offered, usize)>) -> Vec<Offered> {
    let candidates = fitting.iter().map(|(offered, soft)| (candidate(offered, offered.candidate.clone()), *soft));
    let order = order(wanted, buying, &candidates.collect::<Vec<_>>());
    let mut ordered: Vec<Offered> = Vec::new();
    for (index, why) in order {
        if let Some((offered, _)) = fitting.get(index)
            && ordered.iter().all(|earlier| earlier.candidate != offered.candidate)
        {
            ordered.push(Offered { why, ..offered.clone() });
        }
    }
    ordered.truncate(CANDIDATES_MAX);
    ordered
}

/// The same for parts: by the price of one unit, and among equals the largest first, so that there are few.
fn ordered_parts(
    selector: &K8SliceSelector,
    split: &Split,
    buying: Option<&Buying>,
    parts: Vec<(Part, usize)>,
) -> Vec<Part> {
    let wanted = split.part(selector, 1).wanted();
    let one = |(part, soft): (Part, usize)| {
        let one = cut(&part.offered, split, selector, 1).ok()?;
        let name = format!("{:020} {}", u64::MAX - part.units, part.offered.candidate);
        Some((part, (candidate(&one, name), soft)))
    };
    let (parts, candidates): (Vec<Part>, Vec<(Candidate, usize)>) = parts.into_iter().filter_map(one).unzip();
    let mut ordered: Vec<Part> = Vec::new();
    for (index, why) in order(&wanted, buying, &candidates) {
        if let Some(part) = parts.get(index)
            && ordered.iter().all(|earlier| earlier.offered.candidate != part.offered.candidate)
        {
            ordered.push(Part { units: part.units, offered: Offered { why, ..part.offered.clone() } });
        }
    }
    ordered
}

fn candidate(offered: &Offered, name: String) -> Candidate {
    let Offered { buys, price, latency_micros, rating, .. } = offered;
    Candidate { name, buys: *buys, price: *price, latency_micros: *latency_micros, rating: *rating }
}

/// The order of candidates, each with the number of preferences that it does not meet, and why each stands where it does.
fn order(wanted: &Amounts, buying: Option<&Buying>, candidates: &[(Candidate, usize)]) -> Vec<(usize, String)> {
    let criteria = buying.map(|buying| buying.ranking.as_slice()).unwrap_or_default();
    let currencies: Vec<Currency> =
        buying.map(|buying| buying.ceilings.iter().map(|ceiling| ceiling.currency).collect()).unwrap_or_default();
    let plain: Vec<Candidate> = candidates.iter().map(|(candidate, _)| candidate.clone()).collect();
    let ranked = rank(wanted, &plain, criteria, &currencies);
    let soft = |index: usize| candidates.get(index).map_or(usize::MAX, |(_, soft)| *soft);
    let mut order: Vec<(usize, String)> = ranked.into_iter().map(|ranked| (ranked.index, ranked.reason)).collect();
    order.sort_by_key(|(index, _)| soft(*index)); // stable: the rank decides among equals
    let of = order.len();
    (1..)
        .zip(order)
        .map(|(place, (index, why))| {
            let unmet = match soft(index) {
                0 => String::new(),
                soft => format!(", {soft} preferences not met"),
            };
            (index, format!("{place} of {of}: {why}{unmet}"))
        })
        .collect()
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
