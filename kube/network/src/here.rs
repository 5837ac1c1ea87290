//! Which addresses are pods of this machine.
//!
//! ```text
//!  the node's own range ───────────────────┬─▶ here: isolated by policies, an endpoint of Services with `Local`
//!  those that the machine's CNI gave them ─┘
//! ```
use std::collections::BTreeSet;

use crate::Cidr;
use engine_packets::Address;

/// The pods of this machine, in one family.
#[derive(Clone, Debug)]
pub(crate) struct Here<A: Address> {
    range: Cidr<A>,
    plugged: BTreeSet<A>,
}

impl<A: Address> Here<A> {
    /// Those of a range, and of the machine's own network.
    pub fn new(range: Cidr<A>, plugged: BTreeSet<A>) -> Self {
        Self { range, plugged }
    }

    /// Those of a range alone.
    pub fn of(range: Cidr<A>) -> Self {
        Self::new(range, BTreeSet::new())
    }

    /// Whether one of them has this address.
    pub fn contains(&self, address: A) -> bool {
        self.range.contains(address) || self.plugged.contains(&address)
    }
}
