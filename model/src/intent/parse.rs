//! From annotations to constraints, with everything that could not be understood.

use std::collections::BTreeMap;
use std::fmt;

use super::evidence::{self, INTENT_EVIDENCE};
use super::value::latency_micros;
use super::{Constraint, IntentName, Requirement, nearest_known};
use crate::market::{Quantity, QuantityError, Resource};

/// What the key of an intent begins with.
pub const INTENT_PREFIX: &str = "fluidos-intent-";
/// Annotation that lists, with commas, the names of intents that are preferences only.
pub const SOFT_INTENTS: &str = "fluidos.eu/soft-intents";
/// Values are names and numbers; an official MSPL text is XML and may be longer, but is not read here.
const VALUE_LENGTH_MAX: usize = 256;

/// What a workload asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Intents {
    /// What placement obeys.
    pub constraints: Vec<Constraint>,
    /// What it could not understand. With any, the workload stays on its owner's nodes.
    pub problems: Vec<Problem>,
    /// What it understands and does not act on.
    pub notes: Vec<Note>,
}

/// An intent that nobody understands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The annotation as it was written.
    pub annotation: String,
    /// What is wrong and what was needed.
    pub reason: String,
    /// The known name that was probably meant.
    pub nearest: Option<&'static str>,
}

/// An intent that is known and not enforced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// Which.
    pub name: IntentName,
    /// Its value.
    pub value: String,
}

impl Intents {
    /// Says whether the workload asks for anything at all: it may then leave its owner's nodes, unless something was not
    /// understood.
    pub fn any(&self) -> bool {
        !(self.constraints.is_empty() && self.problems.is_empty() && self.notes.is_empty())
    }

    /// Says whether everything was understood.
    pub fn is_clear(&self) -> bool {
        self.problems.is_empty()
    }

    /// Returns what to tell the user, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let problems = self.problems.iter().map(ToString::to_string);
        problems.chain(self.notes.iter().map(ToString::to_string)).collect()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.annotation, self.reason)?;
        match self.nearest {
            Some(nearest) => write!(f, "; did you mean {INTENT_PREFIX}{nearest}?"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, value) = (self.name.as_str(), &self.value);
        write!(f, "{INTENT_PREFIX}{name}: `{value}` is known but not enforced: placement does not look at it")
    }
}

/// Returns what annotations ask for. Others than intents are passed over. Give those of the topmost owner first and of the
/// pod last: the last value of a name counts.
pub fn parse<'a>(annotations: impl IntoIterator<Item = (&'a str, &'a str)>) -> Intents {
    let mut values: BTreeMap<IntentName, (&str, &str)> = BTreeMap::new();
    let mut unknown: BTreeMap<&str, Problem> = BTreeMap::new();
    let (mut soft_list, mut evidence_list) = ("", "");
    for (key, value) in annotations {
        if key == SOFT_INTENTS {
            soft_list = value;
            continue;
        }
        if key == INTENT_EVIDENCE {
            evidence_list = value;
            continue;
        }
        let Some(name) = strip_prefix(key) else { continue };
        match IntentName::from_name(name) {
            Some(known) => {
                values.insert(known, (key, value));
            }
            None => {
                unknown.insert(key, unknown_name(key, name));
            }
        }
    }
    let mut intents = Intents { problems: unknown.into_values().collect(), ..Intents::default() };
    let soft = soft_names(soft_list, &mut intents.problems);
    let mut levels = evidence::levels(evidence_list, &mut intents.problems);
    for (name, (key, value)) in values {
        if !name.is_enforced() {
            intents.notes.push(Note { name, value: shortened(value) });
            continue;
        }
        // Who does not need one does not refuse one: it asks for nothing.
        if name == IntentName::TeeReadiness && value.trim().eq_ignore_ascii_case("false") {
            continue;
        }
        let evidence = levels.remove(&name);
        match requirement(name, value) {
            Ok(requirement) => {
                intents.constraints.push(Constraint { name, requirement, hard: !soft.contains(&name), evidence });
            }
            Err(reason) => intents.problems.push(Problem { annotation: key.into(), reason, nearest: None }),
        }
    }
    // Who asks for evidence of nothing has forgotten something.
    for (name, level) in levels {
        let (name, level) = (name.as_str(), level.word());
        let reason = format!("{name}={level}, and no intent asks for {name}");
        intents.problems.push(Problem { annotation: INTENT_EVIDENCE.into(), reason, nearest: None });
    }
    intents
}

fn strip_prefix(key: &str) -> Option<&str> {
    let (prefix, name) = key.split_at_checked(INTENT_PREFIX.len())?;
    prefix.eq_ignore_ascii_case(INTENT_PREFIX).then_some(name)
}

fn unknown_name(key: &str, name: &str) -> Problem {
    Problem { annotation: shortened(key), reason: "no such intent".into(), nearest: nearest_known(name) }
}

fn soft_names(list: &str, problems: &mut Vec<Problem>) -> Vec<IntentName> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    // More names than there are intents are repetitions or mistakes; the first ones tell.
    let names: Vec<&str> = names.take(IntentName::ALL.len()).collect();
    let known = names.into_iter().filter_map(|name| {
        let known = IntentName::from_name(name);
        if known.is_none() {
            let reason = format!("`{}`: no such intent", shortened(name));
            problems.push(Problem { annotation: SOFT_INTENTS.into(), reason, nearest: nearest_known(name) });
        }
        known
    });
    known.collect()
}

fn requirement(name: IntentName, value: &str) -> Result<Requirement, String> {
    let text = value.trim();
    if text.is_empty() {
        return Err("empty, needed a value".into());
    }
    if text.len() > VALUE_LENGTH_MAX {
        return Err(format!("{} characters, at most {VALUE_LENGTH_MAX}", text.len()));
    }
    let amount = |resource: Resource| {
        let quantity = Quantity::parse(text).map_err(|error: QuantityError| error.to_string())?;
        Ok::<u64, String>(resource.asked(quantity))
    };
    match name {
        IntentName::Location => Ok(Requirement::Location(text.into())),
        IntentName::Latency => latency_micros(text).map(Requirement::LatencyMicros),
        IntentName::Architecture => architecture(text).map(Requirement::Architecture),
        IntentName::Cpu => amount(Resource::Cpu).map(Requirement::CpuMilli),
        IntentName::Memory => amount(Resource::Memory).map(Requirement::MemoryBytes),
        IntentName::TeeReadiness if text.eq_ignore_ascii_case("true") => Ok(Requirement::Tee(String::new())),
        IntentName::TeeReadiness => Ok(Requirement::Tee(text.into())),
        IntentName::Hardware => Ok(Requirement::Hardware(text.into())),
        IntentName::Compliance => Ok(Requirement::Standard(text.into())),
        // Only enforced names are asked for; the table in `names` decides which those are.
        other => Err(format!("{} is not built", other.as_str())),
    }
}

/// Names that others give to the architectures of Kubernetes.
fn architecture(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "x86_64" | "x86-64" => Ok("amd64".into()),
        "aarch64" => Ok("arm64".into()),
        "amd64" | "arm64" | "arm" | "386" | "riscv64" | "ppc64le" | "s390x" => Ok(lower),
        _ => Err(format!("`{text}` is not an architecture: needed amd64, arm64, arm, riscv64, …")),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use proptest::prelude::*;

    use super::*;

    fn warnings(annotations: &[(&str, &str)]) -> Vec<String> {
        parse(annotations.iter().copied()).warnings()
    }

    #[test]
    fn a_typo_is_named_with_what_was_meant() {
        let intents = parse([("fluidos-intent-latncy", "10")]);
        assert!(!intents.is_clear() && intents.any());
        assert_eq!(intents.warnings(), ["fluidos-intent-latncy: no such intent; did you mean fluidos-intent-latency?"]);
    }

    #[test]
    fn values_that_cannot_be_read_are_problems() {
        for (name, value, expected) in [
            ("latency", "soon", "is not a latency"),
            ("cpu", "-1", "is negative"),
            ("memory", "1gb", "is not a quantity"),
            ("architecture", "z80", "is not an architecture"),
            ("location", "  ", "empty"),
            ("location", &"x".repeat(300), "300 characters"),
        ] {
            let key = format!("fluidos-intent-{name}");
            let observed = warnings(&[(&key, value)]);
            assert!(observed.len() == 1 && observed[0].contains(expected), "{name}={value}: {observed:?}");
        }
    }

    #[test]
    fn known_names_that_do_nothing_are_said_and_do_not_hold_the_workload() {
        let intents = parse([("fluidos-intent-throughput", "100ms"), ("other/annotation", "x")]);
        assert!(intents.is_clear() && intents.any());
        assert_eq!(
            intents.warnings(),
            ["fluidos-intent-throughput: `100ms` is known but not enforced: placement does not look at it"]
        );
        assert!(!parse([("other/annotation", "x")]).any());
    }

    #[test]
    fn the_last_value_counts_and_case_does_not() {
        let intents = parse([("fluidos-intent-location", "Turin"), ("Fluidos-Intent-Location", "Milan")]);
        assert_eq!(intents.constraints.len(), 1);
        assert_eq!(intents.constraints[0].requirement, Requirement::Location("Milan".into()));
        let intents = parse([("fluidos-intent-architecture", "x86_64")]);
        assert_eq!(intents.constraints[0].requirement, Requirement::Architecture("amd64".into()));
    }

    #[test]
    fn a_soft_list_with_a_typo_is_a_problem() {
        let observed = warnings(&[(SOFT_INTENTS, "latency,loaction")]);
        assert_eq!(
            observed,
            ["fluidos.eu/soft-intents: `loaction`: no such intent; did you mean fluidos-intent-location?"]
        );
    }

    proptest! {
        #[test]
        fn no_annotation_is_a_panic(key in "(fluidos-intent-)?[a-zé_-]{0,50}", value in "\\PC{0,300}") {
            let intents = parse([(key.as_str(), value.as_str())]);
            let _ = (intents.warnings(), super::super::judge(&intents, &Default::default()).explain());
        }

        #[test]
        fn no_value_of_a_known_name_is_a_panic(index in 0..IntentName::ALL.len(), value in "[0-9.a-zA-Z -]{0,20}") {
            let key = format!("{INTENT_PREFIX}{}", IntentName::ALL[index].as_str());
            let intents = parse([(key.as_str(), value.as_str())]);
            prop_assert_eq!(intents.constraints.len() + intents.problems.len() + intents.notes.len(), 1);
        }
    }
}
