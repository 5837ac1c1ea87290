//! What the benches measure and nobody else is to call: answers of many providers, weighed as the importer does.

pub use crate::importer::bench::Answers;
