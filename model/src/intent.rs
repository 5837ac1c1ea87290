//! Intents: what a workload asks of the place where it runs, written as annotations `fluidos-intent-<name>: <value>`.
//!
//! ```text
//!   annotations ── parse ──► Intents ── judge(place) ──► Judgement: holds, or which constraint is broken and why
//!                               ├── problems: unknown or malformed; the workload stays on its owner's nodes
//!                               └── notes:    known, but not enforced yet; said, never silently dropped
//! ```
//! A constraint is *hard* unless the annotation `fluidos.eu/soft-intents` lists its name: a place that breaks a hard one is
//! out, one that breaks a soft one comes later. The annotation `fluidos.eu/intent-evidence` says how well it must be known that a place is
//! what is asked for ([`evidence`](Evidence)).
//!
//! Limits: `location`, `latency`, `architecture`, `cpu`, `memory`, `tee-readiness`, `hardware` and `compliance` are enforced; a place about
//! which nothing is known does not satisfy a hard constraint.

mod constraint;
mod evidence;
mod names;
mod parse;
mod value;

pub use constraint::{Broken, Constraint, Judgement, Place, Requirement, judge};
pub use evidence::{Attribute, Evidence, INTENT_EVIDENCE, known};
pub use names::{IntentName, nearest_known};
pub use parse::{INTENT_PREFIX, Intents, Note, Problem, SOFT_INTENTS, parse};
