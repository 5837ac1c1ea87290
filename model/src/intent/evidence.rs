//! How well it must be known that a place is what an intent asks for.
//!
//! ```text
//!  fluidos.eu/intent-evidence: tee-readiness=attested, location=audited      name of an intent = least level
//! ```
//! What a flavor says is its seller's *claim*. What is better known stands in the evidence of the node, which this owner's own node
//! has verified: credentials of issuers whom the owner trusts, and measurements of its own. The annotation stays at home: who is asked
//! is not told how well it is believed.

use std::collections::BTreeMap;

use super::{IntentName, Place, Problem, Requirement, nearest_known};
use crate::kinds::{AttributeEvidence, AttributeLevel, KnownClusterIdentity};

/// Annotation that lists, with commas, how well it must be known that a place is what an intent asks for.
pub const INTENT_EVIDENCE: &str = "fluidos.eu/intent-evidence";

/// How well it is known what a place is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// It is the workload's owner's own machine: there is nobody else's word to doubt.
    Own,
    /// What is known of its node. Without anything it is what the node says.
    Of(Vec<Attribute>),
}

impl Default for Evidence {
    fn default() -> Self {
        Self::Of(Vec::new())
    }
}

/// One attribute of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attribute {
    /// Such as `country`.
    pub name: String,
    /// Such as `Italy`.
    pub value: String,
    /// How well it is known; `None` is refuted.
    pub level: Option<AttributeLevel>,
}

/// Returns what is known of a node at `now` beyond what it claims: most have nothing.
pub fn known(identity: &KnownClusterIdentity, now: jiff::Timestamp) -> impl Iterator<Item = Attribute> {
    let of = |known: &AttributeEvidence| Attribute {
        name: known.name.clone(),
        value: known.value.clone(),
        level: known.level,
    };
    identity.attributes(now).filter(|known| known.level != Some(AttributeLevel::Claimed)).map(of)
}

/// Names under which certifiers and nodes speak of what a requirement asks for; none is of what nobody vouches for.
fn attributes(requirement: &Requirement) -> &'static [&'static str] {
    match requirement {
        Requirement::Location(_) => &["location", "city", "country", "region"],
        Requirement::Architecture(_) => &["arch", "architecture"],
        Requirement::Tee(_) => &["tee"],
        Requirement::Hardware(_) => &["hardware"],
        Requirement::Standard(_) => &["compliance", "certification"],
        Requirement::LatencyMicros(_) | Requirement::CpuMilli(_) | Requirement::MemoryBytes(_) => &[],
    }
}

/// Whatever the case; values of labels have no spaces.
fn folded(text: &str) -> String {
    text.to_lowercase().replace(['-', '_'], " ")
}

/// Returns how well it is known that a place, which says that it is what a requirement asks for, is that; `None` is refuted.
pub(super) fn level(requirement: &Requirement, place: &Place) -> Option<AttributeLevel> {
    let Evidence::Of(known) = &place.evidence else { return Some(AttributeLevel::Attested) };
    let needed = match requirement {
        // Any will do, so the one that the place says it has.
        Requirement::Tee(which) if which.is_empty() => folded(&place.features.tee),
        Requirement::Location(text) | Requirement::Architecture(text) | Requirement::Tee(text) => folded(text),
        Requirement::Hardware(text) | Requirement::Standard(text) => folded(text),
        Requirement::LatencyMicros(_) | Requirement::CpuMilli(_) | Requirement::MemoryBytes(_) => String::new(),
    };
    let names = attributes(requirement);
    let of_it = known.iter().filter(|known| names.contains(&known.name.as_str()) && folded(&known.value) == needed);
    let levels: Vec<Option<AttributeLevel>> = of_it.map(|known| known.level).collect();
    // What nobody has refuted is at least its own claim.
    if levels.is_empty() { Some(AttributeLevel::Claimed) } else { levels.into_iter().max().flatten() }
}

/// Returns the levels that the annotation asks for, with what of it cannot be understood.
pub(super) fn levels(list: &str, problems: &mut Vec<Problem>) -> BTreeMap<IntentName, AttributeLevel> {
    let words = list.split(',').map(str::trim).filter(|word| !word.is_empty());
    // More than there are intents are repetitions or mistakes; the first ones tell.
    let words: Vec<&str> = words.take(IntentName::ALL.len()).collect();
    let mut levels = BTreeMap::new();
    for word in words {
        match one(word) {
            Ok((name, level)) => drop(levels.insert(name, level)),
            Err((reason, nearest)) => {
                problems.push(Problem { annotation: INTENT_EVIDENCE.into(), reason, nearest });
            }
        }
    }
    levels
}

fn one(word: &str) -> Result<(IntentName, AttributeLevel), (String, Option<&'static str>)> {
    let shown: String = word.chars().take(64).collect();
    let plain = |reason: &str| (format!("`{shown}`: {reason}"), None);
    let (name, level) = word.split_once('=').ok_or_else(|| plain("needed INTENT=LEVEL, such as location=audited"))?;
    let (name, level) = (name.trim(), level.trim());
    let known =
        IntentName::from_name(name).ok_or_else(|| (format!("`{shown}`: no such intent"), nearest_known(name)))?;
    if !known.can_be_vouched() {
        let can: Vec<&str> =
            IntentName::ALL.iter().filter(|name| name.can_be_vouched()).map(|name| name.as_str()).collect();
        return Err(plain(&format!("nobody vouches for that, needed one of {}", can.join(", "))));
    }
    let found = AttributeLevel::WORDS.into_iter().find(|(_, word)| word.eq_ignore_ascii_case(level));
    let (level, _) = found.ok_or_else(|| plain("needed claimed, measured, audited or attested"))?;
    Ok((known, level))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::super::{judge, parse};
    use super::*;
    use crate::market::{Features, Location};

    fn place(known: &[(&str, &str, Option<AttributeLevel>)]) -> Place {
        let of = |(name, value, level): &(&str, &str, Option<AttributeLevel>)| Attribute {
            name: (*name).into(),
            value: (*value).into(),
            level: *level,
        };
        Place {
            location: Location { city: "Milan".into(), country: "Italy".into(), ..Location::default() },
            architecture: "amd64".into(),
            features: Features { tee: "tdx".into(), hardware: vec!["tpm".into()], standards: vec!["ISO 27001".into()] },
            evidence: Evidence::Of(known.iter().map(of).collect()),
            ..Place::default()
        }
    }

    fn check(intent: &str, value: &str, level: &str, place: &Place, expected: &str) {
        let (key, list) = (format!("fluidos-intent-{intent}"), format!("{intent}={level}"));
        let intents = parse([(key.as_str(), value), (INTENT_EVIDENCE, list.as_str())]);
        assert!(intents.is_clear(), "{:?}", intents.warnings());
        assert_eq!(judge(&intents, place).explain(), expected, "{intent} {value} {level}");
    }

    const HOLDS: &str = "satisfies every intent";

    #[test]
    fn what_is_not_known_well_enough_is_told_with_both_levels() {
        use AttributeLevel::{Attested, Audited, Claimed, Measured};
        let here = place(&[
            ("country", "Italy", Some(Audited)),
            ("city", "Milan", Some(Claimed)),
            ("arch", "amd64", Some(Measured)),
            ("certification", "ISO 27001", Some(Audited)),
            ("hardware", "tpm", None),
            ("tee", "tdx", Some(Attested)),
            ("tee", "sev-snp", Some(Claimed)),
        ]);
        check("location", "italy", "audited", &here, HOLDS);
        check("location", "Milan", "claimed", &here, HOLDS);
        check("location", "Milan", "audited", &here, "location: Milan, Italy (claimed), needed Milan (audited)");
        check("location", "Turin", "audited", &here, "location: Milan, Italy, needed Turin (audited)");
        check("architecture", "x86_64", "measured", &here, HOLDS);
        check("architecture", "amd64", "audited", &here, "architecture: amd64 (measured), needed amd64 (audited)");
        check("compliance", "iso-27001", "audited", &here, "compliance: ISO 27001, needed iso-27001 (audited)");
        check("compliance", "ISO 27001", "audited", &here, HOLDS);
        check("hardware", "tpm", "claimed", &here, "hardware: tpm (refuted), needed tpm (claimed)");
        check("tee-readiness", "true", "attested", &here, HOLDS);
        check("tee-readiness", "tdx", "attested", &here, HOLDS);
        let other = Place { features: Features { tee: "sev-snp".into(), ..Features::default() }, ..here.clone() };
        let told = "tee-readiness: sev-snp (claimed), needed any (attested)";
        check("tee-readiness", "true", "attested", &other, told);
        let nobody = place(&[]);
        check("hardware", "tpm", "claimed", &nobody, HOLDS);
        check("hardware", "tpm", "measured", &nobody, "hardware: tpm (claimed), needed tpm (measured)");
        check("hardware", "tpm", "attested", &Place { evidence: Evidence::Own, ..nobody }, HOLDS);
    }

    #[test]
    fn a_preference_stays_one_and_another_intent_asks_for_no_evidence() {
        let annotations = [
            ("fluidos-intent-location", "Milan"),
            ("fluidos-intent-hardware", "tpm"),
            (INTENT_EVIDENCE, "location=audited"),
            ("fluidos.eu/soft-intents", "location"),
        ];
        let judgement = judge(&parse(annotations), &place(&[]));
        assert!(judgement.holds());
        assert_eq!(judgement.explain(), "location: Milan, Italy (claimed), needed Milan (audited) (preferred)");
    }

    #[test]
    fn what_cannot_be_understood_is_said() {
        let told = |list: &str| {
            let intents = parse([("fluidos-intent-location", "Milan"), (INTENT_EVIDENCE, list)]);
            intents.warnings().join("; ")
        };
        assert_eq!(told(" location = Audited ,"), "");
        let about = |reason: &str| format!("{INTENT_EVIDENCE}: {reason}");
        assert_eq!(told("location"), about("`location`: needed INTENT=LEVEL, such as location=audited"));
        assert_eq!(told("location=well"), about("`location=well`: needed claimed, measured, audited or attested"));
        let needed = "needed one of location, architecture, compliance, tee-readiness, hardware";
        assert_eq!(told("cpu=audited"), about(&format!("`cpu=audited`: nobody vouches for that, {needed}")));
        let meant = "`loaction=audited`: no such intent; did you mean fluidos-intent-location?";
        assert_eq!(told("loaction=audited"), about(meant));
        assert_eq!(told("hardware=audited"), about("hardware=audited, and no intent asks for hardware"));
    }
}
