//! Every choice of introductions. Pure: no I/O, and time is an argument.

use std::collections::{BTreeMap, BTreeSet};

use fluidos_identity::{
    Acquaintances, Attribute, Evidence, EvidenceLevel, Fact, Measurement, Met, NodeId, Presentation, STATEMENTS_MAX,
    Shown, Standing, Statement, StatusList, TrustedIssuers, evidence,
};
use fluidos_model::kinds::{
    AttributeEvidence, AttributeLevel, Contract, KnownCluster, KnownClusterIdentity, KnownClusterSource, LinkState,
    NodeIdentity, ProvenFact,
};
use jiff::{SignedDuration, Timestamp};

use super::{ACQUAINTANCES_MAX, LISTS_MAX};

/// Attributes of one node that are told: 16 features and some of certifiers.
const EVIDENCE_MAX: usize = 64;
/// Notes of one node.
const NOTES_MAX: usize = 8;
/// A note is a line.
const NOTE_LENGTH_MAX: usize = 200;
/// A round trip says where a node is for so long; it is measured all the time.
const MEASURED_FOR: SignedDuration = SignedDuration::from_mins(10);
/// As many as stand in an entry.
const SEEN_MAX: usize = 8;
/// Kilometres that light goes in a millisecond, in vacuum: nothing is faster, whatever the cable.
const LIGHT_KM_PER_MS: f64 = 299.792_458;
/// Mean radius of the earth.
const EARTH_KM: f64 = 6371.0;
/// The feature that says where a node is, as `45.46N_9.19E`.
pub(crate) const POSITION: &str = "position";

/// Nodes that are to be known again: parties of contracts, and those that the owner named.
pub(super) fn wanted<'a>(
    contracts: impl Iterator<Item = &'a Contract>,
    known: impl Iterator<Item = &'a KnownCluster>,
) -> BTreeSet<NodeId> {
    let did = |party: &NodeIdentity| party.additional_information.as_ref()?.did.as_deref()?.parse().ok();
    let parties = contracts.flat_map(|contract| [did(&contract.spec.buyer), did(&contract.spec.seller)]);
    let named = known.filter(|known| matches!(known.spec.source, None | Some(KnownClusterSource::Static)));
    let named = named.map(|known| known.spec.did.as_deref()?.parse().ok());
    parties.chain(named).flatten().collect()
}

/// All keys of this node: the one that it has, and those that were handed over to it.
pub(super) fn own_keys(own: NodeId, history: &[Statement]) -> BTreeSet<NodeId> {
    let handed = history.iter().filter_map(|statement| match statement {
        Statement::Handover(handover) => Some(handover.from()),
        Statement::Revocation(_) => None,
    });
    handed.chain([own]).collect()
}

/// Who begins to be an acquaintance, and who is one no more.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub add: Vec<NodeId>,
    pub forget: Vec<NodeId>,
}

/// Compares those that are remembered with those that should be. Whoever has changed its key, or is in doubt, is remembered
/// without a contract, too; if there are too many, those without one are forgotten first.
pub(super) fn acquaint(known: &Acquaintances, wanted: &BTreeSet<NodeId>, own: &BTreeSet<NodeId>) -> Changes {
    let mut changes = Changes::default();
    let mut covered: BTreeSet<NodeId> = own.clone();
    let (mut kept, mut idle) = (0, Vec::new());
    for history in known.histories() {
        let keys: BTreeSet<NodeId> = history
            .accepted()
            .iter()
            .filter_map(|statement| match statement {
                Statement::Handover(handover) => Some(handover.to()),
                Statement::Revocation(_) => None,
            })
            .chain([history.origin()])
            .collect();
        let is_wanted = keys.iter().any(|key| wanted.contains(key));
        let is_blank = history.accepted().is_empty() && history.doubts().is_empty();
        covered.extend(keys);
        match (is_wanted, is_blank) {
            (false, true) => changes.forget.push(history.origin()),
            (false, false) => idle.push(history.origin()),
            (true, _) => kept += 1,
        }
    }
    changes.add = wanted.iter().filter(|key| !covered.contains(key)).copied().collect();
    changes.add.truncate(ACQUAINTANCES_MAX.saturating_sub(kept));
    let room = ACQUAINTANCES_MAX.saturating_sub(kept + changes.add.len());
    changes.forget.extend(idle.into_iter().skip(room));
    changes
}

/// Keys with which no link is kept, and why.
pub(super) fn refused(standings: &BTreeMap<NodeId, Standing>) -> BTreeMap<NodeId, String> {
    let refused = standings.iter().filter_map(|(key, standing)| match standing {
        Standing::Current(current) if current == key => None,
        Standing::Current(current) => Some((*key, format!("{key} was handed over to {current}"))),
        other => Some((*key, other.to_string())),
    });
    refused.collect()
}

/// The statements of a presentation that are signed as they must be; what they say counts or not elsewhere.
pub(super) fn statements(shown: &Presentation) -> Vec<Statement> {
    shown.statements.iter().take(STATEMENTS_MAX).filter_map(|envelope| Statement::read(envelope).ok()).collect()
}

/// Keeps the newest list of each trusted issuer: a node that shows an older one is not believed.
/// Returns whether it is one that was not known.
pub(super) fn keep_list(lists: &mut Vec<StatusList>, fresh: &StatusList, trusted: &TrustedIssuers) -> bool {
    let issuer = fresh.issuer();
    if !trusted.is_owner(&issuer) && trusted.level_of(&issuer).is_none() {
        return false;
    }
    match lists.iter().position(|list| list.issuer() == issuer && list.id() == fresh.id()) {
        Some(place) if lists[place].valid_from() < fresh.valid_from() => lists[place] = fresh.clone(),
        None if lists.len() < LISTS_MAX => lists.push(fresh.clone()),
        _ => return false,
    }
    true
}

/// The bytes that a peer is shown. An acquaintance is also told what is known of others; revocations first.
pub(super) fn presentation(shown: &Shown, known: &Acquaintances, is_acquaintance: bool) -> Vec<u8> {
    let mut presentation = shown.own.clone();
    let own = presentation.statements.len();
    if is_acquaintance {
        let mut more: Vec<&Statement> = Vec::new();
        let accepted = known.histories().flat_map(|history| history.accepted().iter().chain(history.doubts()));
        for statement in shown.told.iter().chain(accepted) {
            if !more.contains(&statement) && !shown.history.contains(statement) {
                more.push(statement);
            }
        }
        more.sort_by_key(|statement| matches!(statement, Statement::Handover(_)));
        more.truncate(STATEMENTS_MAX.saturating_sub(own));
        presentation.statements.extend(more.into_iter().map(Statement::envelope));
    }
    loop {
        match presentation.to_bytes() {
            Ok(bytes) => return bytes,
            // Its own part fits: what is too much is what it tells of others.
            Err(_) if presentation.statements.len() > own => drop(presentation.statements.pop()),
            Err(error) => {
                tracing::warn!(error, "this node has nothing that it could show");
                presentation = Presentation::default();
            }
        }
    }
}

/// What is known of a peer that has shown nothing, and whose key counts no more.
pub(super) fn nothing_but(refused: &str) -> KnownClusterIdentity {
    KnownClusterIdentity { refused: line(refused), ..KnownClusterIdentity::default() }
}

/// What is known of who a peer is, as its KnownCluster tells it.
pub(super) fn identity(
    peer: NodeId,
    met: &Met,
    refused: Option<String>,
    features: &[String],
    measured: &[Measurement],
    trusted: &TrustedIssuers,
    now: Timestamp,
) -> KnownClusterIdentity {
    let fact = |value: String, by: NodeId, until: Timestamp| ProvenFact {
        value,
        by: by.to_string(),
        until: until.to_string(),
    };
    let refused = refused.or_else(|| met.admission.clone().err());
    let counts = refused.is_none();
    let owner = met.proven.owner.as_ref().filter(|_| counts);
    let domain = met.proven.domain.as_ref().filter(|_| counts);
    let notes = met.notes.iter().chain(&met.proven.passed_over).take(NOTES_MAX).map(|note| line(note));
    KnownClusterIdentity {
        refused: refused.map(|reason| line(&reason)).unwrap_or_default(),
        origin: met.origin.map(|origin| origin.to_string()),
        owner: owner.map(|Fact { value, by, until, .. }| fact(value.to_string(), *by, *until)),
        domain: domain.map(|Fact { value, by, until, .. }| fact(value.clone(), *by, *until)),
        evidence: if counts { attributes(peer, met, features, measured, trusted, now) } else { Vec::new() },
        notes: notes.collect(),
    }
}

/// The same with one more note, if there is room for it.
pub(super) fn with_note(mut identity: KnownClusterIdentity, note: Option<String>) -> KnownClusterIdentity {
    identity.notes.truncate(NOTES_MAX - usize::from(note.is_some()));
    identity.notes.extend(note.map(|note| line(&note)));
    identity
}

/// How well each attribute is known: those that the node tells, and those that others whom we trust tell of it.
fn attributes(
    node: NodeId,
    met: &Met,
    features: &[String],
    measured: &[Measurement],
    trusted: &TrustedIssuers,
    now: Timestamp,
) -> Vec<AttributeEvidence> {
    let mut named: BTreeMap<(String, String), bool> = BTreeMap::new();
    for fact in &met.proven.features {
        named.insert((fact.value.name.clone(), fact.value.value.clone()), false);
    }
    // What nobody claims and was seen is known, too.
    for seen in measured.iter().filter(|seen| seen.confirms && seen.until > now) {
        named.insert((seen.name.clone(), seen.value.clone()), false);
    }
    for (name, value) in features.iter().filter_map(|feature| feature.split_once('=')) {
        named.insert((name.to_owned(), value.to_owned()), true);
    }
    let told = named.into_iter().take(EVIDENCE_MAX).map(|((name, value), claimed)| {
        // It tells it now, and is asked again all the time: its claim has no end of its own.
        let claimed_until = claimed.then_some(Timestamp::MAX);
        let attribute = Attribute { node, name: &name, value: &value, claimed_until };
        let known = evidence(&attribute, &met.credentials, measured, trusted, now);
        told(&name, &value, &known)
    });
    told.collect()
}

fn told(name: &str, value: &str, known: &Evidence) -> AttributeEvidence {
    let level = known.level.map(|level| match level {
        EvidenceLevel::Claimed => AttributeLevel::Claimed,
        EvidenceLevel::Measured => AttributeLevel::Measured,
        EvidenceLevel::Audited => AttributeLevel::Audited,
        EvidenceLevel::Attested => AttributeLevel::Attested,
    });
    // A claim stands as long as it is made; that of a measurement would be another time with each.
    let lasts = level.is_some_and(|level| level >= AttributeLevel::Audited);
    let message = known.demoted.as_ref().map(|demoted| format!("was {}, refuted by a measurement", demoted.from));
    AttributeEvidence {
        name: name.to_owned(),
        value: value.to_owned(),
        level,
        by: known.by.filter(|_| lasts).map(|by| by.to_string()).unwrap_or_default(),
        until: known.until.filter(|_| lasts).map(|until| until.to_string()).unwrap_or_default(),
        message: message.unwrap_or_default(),
    }
}

/// What was seen of a node by running something there ([`KnownClusterStatus::measured`](fluidos_model::kinds::KnownClusterStatus)). It confirms
/// a claim of the same value; a node that claims other values only has claimed what is not so.
pub(super) fn seen(known: &KnownCluster, node: NodeId, own: NodeId) -> Vec<Measurement> {
    let mut measurements = Vec::new();
    for one in known.status.iter().flat_map(|status| &status.measured).take(SEEN_MAX) {
        let (Ok(at), Ok(until)) = (one.at.parse(), one.until.parse()) else { continue };
        let claims = known.spec.features.iter().filter_map(|feature| feature.split_once('='));
        let claims: Vec<&str> = claims.filter(|(name, _)| *name == one.name).map(|(_, value)| value).collect();
        let measurement = |value: &str, confirms| Measurement {
            node,
            name: one.name.clone(),
            value: value.to_owned(),
            confirms,
            by: own,
            at,
            until,
        };
        measurements.push(measurement(&one.value, true));
        if !claims.contains(&one.value.as_str()) {
            measurements.extend(claims.into_iter().map(|value| measurement(value, false)));
        }
    }
    measurements
}

/// What the round trip says about where a node claims to be: it cannot be farther than light goes in half of it.
pub(super) fn measured(
    known: &KnownCluster,
    node: NodeId,
    own: NodeId,
    here: Option<(f64, f64)>,
    now: Timestamp,
) -> Vec<Measurement> {
    let link = known.status.as_ref().and_then(|status| status.link.as_ref()).filter(|link| link.state == LinkState::Up);
    let claim = known.spec.features.iter().find_map(|f| f.split_once('=').filter(|(name, _)| *name == POSITION));
    let (Some(micros), Some((name, value)), Some(here)) = (link.and_then(|l| l.round_trip_micros), claim, here) else {
        return Vec::new();
    };
    let Some(there) = position(value) else { return Vec::new() };
    let farthest_km = micros as f64 / 1000.0 / 2.0 * LIGHT_KM_PER_MS;
    let until = now.checked_add(MEASURED_FOR).unwrap_or(Timestamp::MAX);
    let confirms = distance_km(here, there) <= farthest_km;
    // That it may be there does not say that it is.
    if confirms {
        return Vec::new();
    }
    let (name, value) = (name.to_owned(), value.to_owned());
    vec![Measurement { node, name, value, confirms, by: own, at: now, until }]
}

/// Writes a position as a word of a feature.
pub fn position_word(latitude: f64, longitude: f64) -> String {
    let one = |degrees: f64, signs: [char; 2]| {
        format!("{:.4}{}", degrees.abs(), if degrees < 0.0 { signs[1] } else { signs[0] })
    };
    format!("{}_{}", one(latitude, ['N', 'S']), one(longitude, ['E', 'W']))
}

/// Reads what [`position_word`] writes.
pub(super) fn position(word: &str) -> Option<(f64, f64)> {
    let (latitude, longitude) = word.split_once('_')?;
    let one = |text: &str, signs: [char; 2], most: f64| {
        let sign = text.chars().next_back().filter(|sign| signs.contains(sign))?;
        let degrees: f64 = text.strip_suffix(sign)?.parse().ok()?;
        (degrees.is_finite() && (0.0..=most).contains(&degrees)).then_some(if sign == signs[1] {
            -degrees
        } else {
            degrees
        })
    };
    Some((one(latitude, ['N', 'S'], 90.0)?, one(longitude, ['E', 'W'], 180.0)?))
}

/// The way over the ground (haversine).
fn distance_km(one: (f64, f64), other: (f64, f64)) -> f64 {
    let [lat1, lat2] = [one.0.to_radians(), other.0.to_radians()];
    let (dlat, dlon) = (lat2 - lat1, (other.1 - one.1).to_radians());
    let a = (dlat / 2.0).sin().powi(2) + lat1.cos() * lat2.cos() * (dlon / 2.0).sin().powi(2);
    2.0 * EARTH_KM * a.clamp(0.0, 1.0).sqrt().asin()
}

/// What is told of two processes with one key: the reason of an Event, and its message.
pub(super) fn copies(is_own: bool, key: &NodeId, witness: &NodeId, younger: &str) -> (&'static str, String) {
    if is_own {
        let message = format!(
            "another process runs with this node's key, says {witness}; the younger is {younger}. Stop the one that is a copy; if \
             it is not yours, hand the key over (fluidos identity rotate)"
        );
        return ("OwnKeyCopied", message);
    }
    (
        "KeyCopied",
        format!("two processes run with the key {key}; {younger} was refused. Its owner must stop one of them"),
    )
}

/// A text of somebody else, as a line.
fn line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(NOTE_LENGTH_MAX).collect()
}
