//! How well an attribute of a node is known.
//!
//! ```text
//!   claimed  <  measured  <  audited  <  attested
//!   the node    we, by a     a certifier  hardware, as verified by
//!   says so     probe        says so      an attester whom we trust
//! ```
//! Each has an end. A measurement that contradicts an attribute **refutes** it: what was claimed or measured counts for
//! nothing then, what was audited or attested before the measurement is demoted to a claim. It recovers when the measurement
//! expires, when a newer one confirms it, or when it is audited anew.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::credential::in_time;
use crate::{CredentialKind, NodeId, TrustedIssuers, VerifiedCredential};

/// How well an attribute is known. A greater one is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EvidenceLevel {
    /// The node says so.
    Claimed,
    /// A probe of ours says so.
    Measured,
    /// A certifier whom we trust says so.
    Audited,
    /// Hardware says so, as an attester whom we trust has verified.
    Attested,
}

/// What a node says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attribute<'a> {
    /// Whose.
    pub node: NodeId,
    /// Such as `location.country`.
    pub name: &'a str,
    /// Such as `Italy`.
    pub value: &'a str,
    /// When the node's own word ends: its announcement's end. `None` if the node does not say so itself.
    pub claimed_until: Option<Timestamp>,
}

/// What a probe has found about one attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Measurement {
    /// Whose attribute.
    pub node: NodeId,
    /// Which attribute.
    pub name: String,
    /// Which value was put to the test.
    pub value: String,
    /// Whether the value can be true.
    pub confirms: bool,
    /// Who measured: one whom the caller believes, as a rule itself.
    pub by: NodeId,
    /// When.
    pub at: Timestamp,
    /// When it says nothing any more.
    pub until: Timestamp,
}

/// What was taken off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Demotion {
    /// How well it was known without the refutation.
    pub from: EvidenceLevel,
    /// Whose word it was.
    pub from_by: NodeId,
    /// Who refuted it.
    pub by: NodeId,
    /// When.
    pub at: Timestamp,
}

/// How well an attribute is known, by whom, and until when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// The level; `None` if there is not even a claim that stands.
    pub level: Option<EvidenceLevel>,
    /// Whose word it is.
    pub by: Option<NodeId>,
    /// When it must be known anew.
    pub until: Option<Timestamp>,
    /// What a measurement has taken off.
    pub demoted: Option<Demotion>,
}

/// One word for the attribute.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Word {
    level: EvidenceLevel,
    until: Timestamp,
    by: NodeId,
    since: Timestamp,
}

/// Returns how well an attribute is known.
///
/// *Guarantees*: the order of credentials and measurements does not matter; what is not of now, of another node, or of an
/// issuer without our trust changes nothing.
pub fn evidence(
    attribute: &Attribute<'_>,
    credentials: &[VerifiedCredential],
    measurements: &[Measurement],
    trusted: &TrustedIssuers,
    now: Timestamp,
) -> Evidence {
    let latest = latest(attribute, measurements, now);
    let claimed = attribute.claimed_until.filter(|until| *until > now);
    let claimed = claimed.map(|until| Word { level: EvidenceLevel::Claimed, until, by: attribute.node, since: now });
    let measured = latest.filter(|measurement| measurement.confirms).map(|measurement| Word {
        level: EvidenceLevel::Measured,
        until: measurement.until,
        by: measurement.by,
        since: measurement.at,
    });
    let vouched = credentials.iter().filter_map(|credential| vouched(attribute, credential, trusted, now));
    let refuted = latest.filter(|measurement| !measurement.confirms);
    let words: Vec<Word> = claimed.into_iter().chain(measured).chain(vouched).collect();
    let Some(best) = words.iter().max().copied() else { return Evidence::none() };
    let Some(refuted) = refuted else { return Evidence::of(best) };
    // Somebody has looked at it after the measurement: that word stands, though there may be a better one before it.
    let is_later = |word: &Word| word.level >= EvidenceLevel::Audited && word.since > refuted.at;
    if let Some(later) = words.iter().filter(|word| is_later(word)).max() {
        return Evidence::of(*later);
    }
    let demoted = Demotion { from: best.level, from_by: best.by, by: refuted.by, at: refuted.at };
    let left = (best.level >= EvidenceLevel::Audited).then_some(Word { level: EvidenceLevel::Claimed, ..best });
    Evidence { demoted: Some(demoted), ..left.map_or(Evidence::none(), Evidence::of) }
}

/// Returns the newest measurement that is of now; of two at once the one that refutes.
fn latest<'a>(attribute: &Attribute<'_>, measurements: &'a [Measurement], now: Timestamp) -> Option<&'a Measurement> {
    let of_it = |m: &&Measurement| m.node == attribute.node && m.name == attribute.name && m.value == attribute.value;
    let of_now = |m: &&Measurement| m.until > now && in_time(m.at, m.until, now).is_ok();
    measurements.iter().filter(of_it).filter(of_now).max_by_key(|m| (m.at, !m.confirms, m.until, m.by))
}

fn vouched(
    attribute: &Attribute<'_>,
    credential: &VerifiedCredential,
    trusted: &TrustedIssuers,
    now: Timestamp,
) -> Option<Word> {
    let level = trusted.level_of(&credential.issuer())?;
    let says_so = credential.kind() == CredentialKind::Feature
        && credential.subject() == attribute.node
        && credential.claims().get(attribute.name).is_some_and(|value| value == attribute.value)
        && credential.counts_at(now).is_ok();
    let (until, by, since) = (credential.counts_until(), credential.issuer(), credential.valid_from());
    says_so.then_some(Word { level, until, by, since })
}

impl Evidence {
    fn none() -> Self {
        Self { level: None, by: None, until: None, demoted: None }
    }

    fn of(word: Word) -> Self {
        Self { level: Some(word.level), by: Some(word.by), until: Some(word.until), demoted: None }
    }

    /// Says whether a policy that demands this level is content.
    pub fn reaches(&self, needed: EvidenceLevel) -> bool {
        self.level.is_some_and(|level| level >= needed)
    }
}

impl EvidenceLevel {
    const NAMES: [(Self, &'static str); 4] = [
        (Self::Claimed, "claimed"),
        (Self::Measured, "measured"),
        (Self::Audited, "audited"),
        (Self::Attested, "attested"),
    ];

    /// Returns the name, as in policies and objects.
    pub fn name(self) -> &'static str {
        Self::NAMES.into_iter().find(|(level, _)| *level == self).map_or("", |(_, name)| name)
    }
}

impl fmt::Display for EvidenceLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EvidenceLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let level = Self::NAMES.into_iter().find(|(_, name)| *name == text).map(|(level, _)| level);
        level.ok_or_else(|| format!("{text:?}: needed claimed, measured, audited or attested"))
    }
}

/// One line, for `fluidos why` and conditions.
impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.level, self.by, self.until) {
            (Some(level), Some(by), Some(until)) => write!(f, "{level} by {by} until {until}")?,
            _ => f.write_str("not known")?,
        }
        if let Some(Demotion { from, from_by, by, at }) = &self.demoted {
            write!(f, "; was {from} by {from_by}, refuted by a measurement of {by} at {at}")?;
        }
        Ok(())
    }
}
