//! A number for each value of a label of nodes: how many pods of a group run in each zone, say.
//!
//! ```text
//!  nodes      a  b  c  d         values    1  2
//!  of         0  0  1  -         counts    7  4        a, b are in zone 1, c in zone 2, d in none
//! ```
//! Nodes are told by their place in the view, values by a number, so that five thousand nodes are looked at in some microseconds.
use std::collections::HashMap;

use crate::view::View;

const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// The label.
    pub key: String,
    of: Vec<u32>,
    pub counts: Vec<i64>,
    /// All counts together.
    pub sum: i64,
}

impl Tally {
    pub fn new(view: &View, key: &str) -> Tally {
        let mut values: HashMap<&str, u32> = HashMap::new();
        let mut of = Vec::with_capacity(view.len());
        for node in view.nodes() {
            let next = u32::try_from(values.len()).unwrap_or(NONE);
            of.push(node.label(key).map_or(NONE, |value| *values.entry(value).or_insert(next)));
        }
        Tally { key: key.to_owned(), of, counts: vec![0; values.len()], sum: 0 }
    }

    /// The number of the value that a node has.
    pub fn value(&self, node: usize) -> Option<usize> {
        self.of.get(node).filter(|value| **value != NONE).map(|value| *value as usize)
    }

    /// What is counted at a node's value; nothing without the label.
    pub fn at(&self, node: usize) -> Option<i64> {
        self.value(node).map(|value| self.counts[value])
    }

    pub fn add(&mut self, node: usize, by: i64) {
        if let Some(value) = self.value(node) {
            self.counts[value] += by;
            self.sum += by;
        }
    }
}
