//! What intents mean: constraints on a place, and the judgement of one.

use std::fmt;

use super::evidence::{self, Evidence};
use super::value::micros_text;
use super::{IntentName, Intents};
use crate::kinds::AttributeLevel;
use crate::market::{Features, Location, Offer, Resource};

/// What is asked of a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Requirement {
    /// Any text of its location is this, whatever the case.
    Location(String),
    /// The round trip from the workload's owner takes at most this many microseconds.
    LatencyMicros(u64),
    /// Its processors are of this architecture.
    Architecture(String),
    /// It has at least this many thousandths of a CPU free.
    CpuMilli(u64),
    /// It has at least this many bytes of memory free.
    MemoryBytes(u64),
    /// It has a trusted execution environment: this one, or any if empty.
    Tee(String),
    /// It has this hardware.
    Hardware(String),
    /// It meets this standard.
    Standard(String),
}

/// One requirement and how much it matters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Constraint {
    /// The intent that asks for it.
    pub name: IntentName,
    /// What it asks for.
    pub requirement: Requirement,
    /// Whether a place that breaks it is out.
    pub hard: bool,
    /// How well it must be known, at least; `None` takes the seller's word.
    pub evidence: Option<AttributeLevel>,
}

/// What is known about a place. `None` and empty are unknown, which satisfies nothing.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Place {
    /// Name of the node or flavor, for reasons.
    pub name: String,
    /// Where it is, as its owner says.
    pub location: Location,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// Thousandths of a CPU that are free.
    pub cpu_milli: Option<u64>,
    /// Bytes of memory that are free.
    pub memory_bytes: Option<u64>,
    /// Measured round trip from the owner, in microseconds; 0 for the owner's own.
    pub latency_micros: Option<u64>,
    /// What is special about it, as its owner says.
    pub features: Features,
    /// How well all that is known.
    pub evidence: Evidence,
}

/// An offer as a place. Its latency is not in it: who measured it sets it.
impl From<&Offer> for Place {
    fn from(offer: &Offer) -> Self {
        Self {
            name: offer.flavor.clone(),
            location: offer.location.clone(),
            architecture: offer.architecture.clone(),
            cpu_milli: Some(offer.whole.cpu_milli),
            memory_bytes: Some(offer.whole.memory_bytes),
            latency_micros: None,
            features: offer.features.clone(),
            evidence: Evidence::default(),
        }
    }
}

/// A constraint that a place breaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// Which intent.
    pub name: IntentName,
    /// What the place has; `?` is unknown.
    pub observed: String,
    /// What was asked for.
    pub needed: String,
}

/// How a place stands against all constraints.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Judgement {
    /// Hard constraints it breaks: with any, the place is out.
    pub hard: Vec<Broken>,
    /// Soft constraints it breaks: the fewer, the better.
    pub soft: Vec<Broken>,
}

impl Judgement {
    /// Says whether the place may be used.
    pub fn holds(&self) -> bool {
        self.hard.is_empty()
    }

    /// Returns the reason in words: `location: Turin, needed Milan; …`, or that all holds.
    pub fn explain(&self) -> String {
        if self.hard.is_empty() && self.soft.is_empty() {
            return "satisfies every intent".into();
        }
        let hard = self.hard.iter().map(ToString::to_string);
        let soft = self.soft.iter().map(|broken| format!("{broken} (preferred)"));
        hard.chain(soft).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, needed {}", self.name.as_str(), self.observed, self.needed)
    }
}

/// Judges a place by a workload's constraints.
pub fn judge(intents: &Intents, place: &Place) -> Judgement {
    let mut judgement = Judgement::default();
    for constraint in &intents.constraints {
        if let Some(broken) = constraint.broken_by(place) {
            let side = if constraint.hard { &mut judgement.hard } else { &mut judgement.soft };
            side.push(broken);
        }
    }
    judgement
}

impl Constraint {
    /// Returns how the place breaks this constraint, or `None` if it holds. Words are made only of what is broken.
    pub fn broken_by(&self, place: &Place) -> Option<Broken> {
        let known = match (self.holds(place), self.evidence) {
            (true, None) => return None,
            (true, Some(needed)) => match evidence::level(&self.requirement, place) {
                Some(level) if level >= needed => return None,
                known => format!(" ({})", known.map_or("refuted", AttributeLevel::word)),
            },
            (false, _) => String::new(),
        };
        let observed = match &self.requirement {
            Requirement::Location(_) => place.location.texts().collect::<Vec<_>>().join(", "),
            Requirement::Architecture(_) => place.architecture.clone(),
            Requirement::LatencyMicros(_) => text(place.latency_micros, micros_text),
            Requirement::CpuMilli(_) => text(place.cpu_milli, |milli| Resource::Cpu.text(milli)),
            Requirement::MemoryBytes(_) => text(place.memory_bytes, |bytes| Resource::Memory.text(bytes)),
            Requirement::Tee(_) => place.features.tee.clone(),
            Requirement::Hardware(_) => place.features.hardware.join(", "),
            Requirement::Standard(_) => place.features.standards.join(", "),
        };
        let observed: String = if observed.is_empty() { "?".into() } else { observed };
        let needed = match self.evidence {
            Some(level) => format!("{} ({})", self.requirement, level.word()),
            None => self.requirement.to_string(),
        };
        Some(Broken { name: self.name, observed: observed + &known, needed })
    }

    fn holds(&self, place: &Place) -> bool {
        match &self.requirement {
            Requirement::Location(needed) => {
                let folded = needed.to_lowercase();
                place.location.texts().any(|text| text.eq_ignore_ascii_case(needed) || text.to_lowercase() == folded)
            }
            Requirement::Architecture(needed) => needed.eq_ignore_ascii_case(&place.architecture),
            Requirement::LatencyMicros(most) => place.latency_micros.is_some_and(|micros| micros <= *most),
            Requirement::CpuMilli(least) => place.cpu_milli.is_some_and(|milli| milli >= *least),
            Requirement::MemoryBytes(least) => place.memory_bytes.is_some_and(|bytes| bytes >= *least),
            Requirement::Tee(which) => place.features.has_tee(which),
            Requirement::Hardware(name) => place.features.has_hardware(name),
            Requirement::Standard(name) => place.features.meets(name),
        }
    }
}

fn text(observed: Option<u64>, text: impl Fn(u64) -> String) -> String {
    observed.map(text).unwrap_or_default()
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tee(which) if which.is_empty() => f.write_str("any"),
            Self::Location(text) | Self::Architecture(text) | Self::Tee(text) => f.write_str(text),
            Self::Hardware(text) | Self::Standard(text) => f.write_str(text),
            Self::LatencyMicros(micros) => write!(f, "at most {}", micros_text(*micros)),
            Self::CpuMilli(milli) => write!(f, "at least {}", Resource::Cpu.text(*milli)),
            Self::MemoryBytes(bytes) => write!(f, "at least {}", Resource::Memory.text(*bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use crate::intent::parse;

    fn place() -> Place {
        Place {
            name: "grid".into(),
            location: Location { city: "Milan".into(), country: "Italy".into(), ..Location::default() },
            architecture: "amd64".into(),
            cpu_milli: Some(2000),
            memory_bytes: Some(1 << 30),
            latency_micros: Some(4_200),
            features: Features {
                tee: "sev-snp".into(),
                hardware: vec!["tpm".into()],
                standards: vec!["ISO 27001".into()],
            },
            evidence: Evidence::default(),
        }
    }

    fn check(annotations: &[(&str, &str)], place: &Place, expected: &str) {
        let intents = parse(annotations.iter().copied());
        assert!(intents.problems.is_empty(), "{:?}", intents.problems);
        let judgement = judge(&intents, place);
        assert_eq!(judgement.explain(), expected, "{annotations:?}");
        assert_eq!(judgement.holds(), judgement.hard.is_empty());
    }

    #[test]
    fn a_place_is_judged_with_reasons() {
        let here = place();
        check(&[], &here, "satisfies every intent");
        check(&[("fluidos-intent-location", "milan")], &here, "satisfies every intent");
        check(&[("fluidos-intent-location", "ITALY")], &here, "satisfies every intent");
        check(&[("fluidos-intent-location", "Turin")], &here, "location: Milan, Italy, needed Turin");
        check(&[("fluidos-intent-latency", "5")], &here, "satisfies every intent");
        check(&[("fluidos-intent-latency", "4ms")], &here, "latency: 4.2ms, needed at most 4ms");
        check(&[("fluidos-intent-architecture", "arm64")], &here, "architecture: amd64, needed arm64");
        check(&[("fluidos-intent-cpu", "2")], &here, "satisfies every intent");
        check(
            &[("fluidos-intent-cpu", "2500m"), ("fluidos-intent-memory", "2Gi")],
            &here,
            "cpu: 2, needed at least 2500m; memory: 1Gi, needed at least 2Gi",
        );
    }

    #[test]
    fn what_is_special_about_a_place_is_judged_as_its_owner_says_it() {
        let here = place();
        for needed in
            [("tee-readiness", "true"), ("tee-readiness", "SEV-SNP"), ("hardware", "TPM"), ("compliance", "iso 27001")]
        {
            check(&[(&format!("fluidos-intent-{}", needed.0), needed.1)], &here, "satisfies every intent");
        }
        check(&[("fluidos-intent-tee-readiness", "tdx")], &here, "tee-readiness: sev-snp, needed tdx");
        check(&[("fluidos-intent-hardware", "gps")], &here, "hardware: tpm, needed gps");
        check(&[("fluidos-intent-compliance", "GDPR")], &here, "compliance: ISO 27001, needed GDPR");
        let nothing = Place::default();
        check(&[("fluidos-intent-tee-readiness", "true")], &nothing, "tee-readiness: ?, needed any");
        check(&[("fluidos-intent-tee-readiness", "false")], &nothing, "satisfies every intent");
    }

    #[test]
    fn an_offer_is_a_place() {
        let location = place().location;
        let offer = Offer { flavor: "f".into(), architecture: "amd64".into(), location, ..Offer::default() };
        check(&[("fluidos-intent-location", "Milan")], &Place::from(&offer), "satisfies every intent");
        check(&[("fluidos-intent-cpu", "1")], &Place::from(&offer), "cpu: 0, needed at least 1");
    }

    #[test]
    fn what_is_unknown_satisfies_nothing() {
        let nowhere = Place::default();
        check(&[("fluidos-intent-latency", "1000")], &nowhere, "latency: ?, needed at most 1000ms");
        check(&[("fluidos-intent-location", "Milan")], &nowhere, "location: ?, needed Milan");
        check(&[("fluidos-intent-cpu", "0")], &nowhere, "cpu: ?, needed at least 0");
    }

    #[test]
    fn a_soft_constraint_does_not_exclude() {
        let annotations = [("fluidos-intent-location", "Turin"), ("fluidos.eu/soft-intents", "latency, location")];
        check(&annotations, &place(), "location: Milan, Italy, needed Turin (preferred)");
        assert!(judge(&parse(annotations), &place()).holds());
    }
}
