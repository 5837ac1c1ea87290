//! By which version of IP something is said or heard on a cable. Pure.
//!
//! Each version has a group of its own: what is said to one is not heard by who listens on the other alone (RFC 6762, section 20). Nearly all
//! listen on both, and would be told everything twice. So a question is answered by the version by which it came, and who is known to be heard by
//! one is asked by that one; only where that brings nothing, and for first words and last, both are used.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Versions of IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Versions {
    v4: bool,
    v6: bool,
}

impl Versions {
    pub(super) const BOTH: Self = Self { v4: true, v6: true };

    /// That of an address.
    pub(super) fn of(address: &SocketAddr) -> Self {
        Self { v4: address.is_ipv4(), v6: address.is_ipv6() }
    }

    /// Whether the version of this address is among them.
    pub(super) fn has(self, address: &SocketAddr) -> bool {
        if address.is_ipv4() { self.v4 } else { self.v6 }
    }

    pub(super) fn and(self, more: Self) -> Self {
        Self { v4: self.v4 || more.v4, v6: self.v6 || more.v6 }
    }
}

/// Where a question is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ways {
    /// On all cables, by both versions.
    All,
    /// On these cables, by these versions.
    Some(BTreeMap<u32, Versions>),
}

impl Ways {
    /// Those by which somebody was heard; who was not heard yet may be anywhere.
    pub(super) fn of(heard: &BTreeMap<u32, Versions>) -> Self {
        if heard.is_empty() { Self::All } else { Self::Some(heard.clone()) }
    }

    pub(super) fn add(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Some(ways), Self::Some(more)) => {
                for (cable, versions) in more {
                    let known = ways.entry(cable).or_default();
                    *known = known.and(versions);
                }
            }
        }
    }
}

/// To whom a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// All who listen on the cable by one of these.
    All(Versions),
    /// One who has asked.
    One(SocketAddr),
}
