//! From texts to the policies in force.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::str::FromStr as _;

use cedar_policy::{Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use fluidos_identity::NodeId;
use miette::Diagnostic;

use super::SCHEMA;

/// A text is a page or two; as the schema of the kind says.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Owners write a handful.
const OBJECTS_MAX: usize = 64;
/// Each is asked for each decision, at about a microsecond.
const STATEMENTS_MAX: usize = 512;
/// A message stands in a status and in a column.
const MESSAGE_MAX: usize = 500;

/// The text of one AccessPolicy.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// The object's name.
    pub name: &'a str,
    /// What it says.
    pub text: &'a str,
    /// What was accepted of it before; empty if nothing was.
    pub accepted: &'a str,
}

/// What became of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The object's name.
    pub name: String,
    /// Statements of it that are in force.
    pub statements: usize,
    /// Why its text is not in force.
    pub fault: Option<String>,
    /// The text that is in force.
    pub accepted: String,
}

/// The policies in force.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    pub(super) set: PolicySet,
    /// Why everything is denied: what was in force and might have forbidden it cannot be read any more.
    pub(super) closed: Option<String>,
    /// Every word that stands in them: what no policy asks for need not be told.
    pub(super) words: Option<HashSet<String>>,
    /// As owners wrote them, and the keys that stand in them; `set` has others in the place of some ([`Policies::following`]).
    pub(super) written: PolicySet,
    pub(super) named: BTreeSet<NodeId>,
    pub(super) followed: BTreeMap<NodeId, NodeId>,
}

impl Policies {
    /// Why everything is denied, if it is.
    pub fn closed(&self) -> Option<&str> {
        self.closed.as_deref()
    }

    /// Says whether any of them could ask for an attribute or a variable of this name.
    pub(super) fn may_ask(&self, name: &str) -> bool {
        self.words.as_ref().is_none_or(|words| words.contains(name))
    }
}

/// Every text in the policies as Cedar's own JSON has them, in which a name is written in one way only; `None` if one cannot be written so.
pub(super) fn words(set: &PolicySet) -> Option<HashSet<String>> {
    fn gather(value: serde_json::Value, words: &mut HashSet<String>) {
        match value {
            serde_json::Value::String(text) => drop(words.insert(text)),
            serde_json::Value::Array(items) => items.into_iter().for_each(|item| gather(item, words)),
            serde_json::Value::Object(fields) => fields.into_iter().for_each(|(name, value)| {
                words.insert(name);
                gather(value, words);
            }),
            _ => {}
        }
    }
    let mut words = HashSet::new();
    for policy in set.policies() {
        gather(policy.to_json().ok()?, &mut words);
    }
    Some(words)
}

/// Takes the texts that can be read. What was accepted comes first, so that no new text takes its place.
pub fn compile(texts: &[Text<'_>]) -> (Policies, Vec<Verdict>) {
    let mut policies = Policies::default();
    let schema = match Schema::from_cedarschema_str(SCHEMA) {
        Ok((schema, _)) => schema,
        // It is a constant, and a test reads it; were it broken, nothing must open.
        Err(error) => {
            policies.closed = Some(format!("the schema of policies cannot be read: {error}"));
            return (policies, Vec::new());
        }
    };
    let validator = Validator::new(schema);
    let mut ordered: Vec<&Text<'_>> = texts.iter().collect();
    ordered.sort_by_key(|text| (text.accepted.is_empty(), text.name));
    let (mut verdicts, mut objects) = (Vec::new(), 0);
    for text in ordered {
        let (read, fault) = match statements(text.name, text.text, &validator) {
            Ok(read) => (Ok((read, text.text)), None),
            Err(fault) if text.accepted.is_empty() => (Err(None), Some(fault)),
            Err(fault) => match statements(text.name, text.accepted, &validator) {
                Ok(read) => (Ok((read, text.accepted)), Some(fault)),
                Err(also) => (Err(Some(also)), Some(fault)),
            },
        };
        let mut verdict = Verdict {
            name: text.name.to_owned(),
            statements: 0,
            fault: fault.map(|fault| short(&fault)),
            accepted: text.accepted.to_owned(),
        };
        match read {
            Ok((read, accepted)) => match room(&policies.set, objects, read.len()) {
                Ok(()) => {
                    objects += 1;
                    verdict.statements = read.len();
                    accepted.clone_into(&mut verdict.accepted);
                    for statement in read {
                        // Ids begin with the object's name and are unique in it.
                        if let Err(error) = policies.set.add(statement) {
                            policies.closed = Some(format!("policy {}: {error}", text.name));
                        }
                    }
                }
                Err(full) => {
                    if !text.accepted.is_empty() {
                        policies.closed = Some(format!("policy {} was in force, and {full}", text.name));
                    }
                    verdict.fault = Some(full);
                }
            },
            Err(Some(lost)) => {
                policies.closed =
                    Some(format!("policy {} was in force and cannot be read any more: {lost}", text.name));
            }
            Err(None) => {}
        }
        verdicts.push(verdict);
    }
    verdicts.sort_by(|a, b| a.name.cmp(&b.name));
    policies.written();
    (policies, verdicts)
}

fn room(set: &PolicySet, objects: usize, more: usize) -> Result<(), String> {
    if objects >= OBJECTS_MAX {
        return Err(format!("{OBJECTS_MAX} AccessPolicies are in force already, which is the most"));
    }
    let sum = set.num_of_policies() + more;
    if sum > STATEMENTS_MAX {
        return Err(format!("there would be {sum} statements, and at most {STATEMENTS_MAX} are asked"));
    }
    Ok(())
}

/// Reads one text: its statements under their names, or its first fault with its line.
fn statements(name: &str, text: &str, validator: &Validator) -> Result<Vec<Policy>, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("{} bytes, needed at most {TEXT_BYTES_MAX}", text.len()));
    }
    let read = PolicySet::from_str(text).map_err(|errors| match errors.iter().next() {
        Some(error) => located(text, error),
        None => located(text, &errors),
    })?;
    if read.num_of_templates() > 0 {
        return Err("it has a template (?principal or ?resource), and nobody here fills it in".into());
    }
    let checked = validator.validate(&read, ValidationMode::Strict);
    // In the order of the text, so that it is the first fault that is told.
    let faults = checked.validation_errors().map(|error| (offset(error), error));
    if let Some((_, error)) = faults.min_by_key(|(offset, _)| *offset) {
        return Err(located(text, error));
    }
    // One that can never hold is a mistake: somebody relies on it.
    let idle = checked.validation_warnings().map(|warning| (offset(warning), warning));
    if let Some((_, warning)) = idle.min_by_key(|(offset, _)| *offset) {
        return Err(located(text, warning));
    }
    named(name, &read)
}

/// The statements under the name of their object: `NAME` for a single one, else `NAME/ID` by its `@id`, or `NAME/2` by its place.
fn named(name: &str, read: &PolicySet) -> Result<Vec<Policy>, String> {
    let mut policies: Vec<&Policy> = read.policies().collect();
    // The parser numbers them: policy0, policy1, …
    policies.sort_by_key(|policy| policy.id().to_string().trim_start_matches("policy").parse::<usize>().unwrap_or(0));
    let single = policies.len() == 1;
    let mut ids = BTreeSet::new();
    let renamed = policies.iter().enumerate().map(|(place, policy)| {
        let id = match policy.annotation("id") {
            Some(id) => format!("{name}/{id}"),
            None if single => name.to_owned(),
            None => format!("{name}/{}", place + 1),
        };
        if !ids.insert(id.clone()) {
            return Err(format!("two statements have the id {id}"));
        }
        Ok(policy.new_id(PolicyId::new(id)))
    });
    renamed.collect()
}

fn offset(fault: &dyn Diagnostic) -> usize {
    fault.labels().and_then(|mut labels| labels.next()).map_or(usize::MAX, |label| label.offset())
}

/// A fault in words, beginning with its line.
fn located(text: &str, fault: &dyn Diagnostic) -> String {
    let label = fault.labels().and_then(|mut labels| labels.next());
    let line = label.as_ref().map_or(0, |label| {
        let before = text.as_bytes().get(..label.offset()).unwrap_or(text.as_bytes());
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    });
    let words = fault.to_string().replace('\n', " ");
    // The parser's own names of statements say nothing to who reads the line.
    let words = match words.strip_prefix("for policy `").and_then(|rest| rest.split_once('`')) {
        Some((_, rest)) => rest.trim_start_matches([',', ':', ' ']).to_owned(),
        None => words,
    };
    // What the parser expected stands in the label.
    let more =
        label.and_then(|label| label.label().map(str::to_owned)).into_iter().chain(fault.help().map(|h| h.to_string()));
    let more: String =
        more.filter(|more| !more.is_empty()).map(|more| format!("; {}", more.replace('\n', " "))).collect();
    if line == 0 { format!("{words}{more}") } else { format!("line {line}: {words}{more}") }
}

fn short(text: &str) -> String {
    text.chars().take(MESSAGE_MAX).collect()
}
