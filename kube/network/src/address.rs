//! Which pod has which address of a range.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{Cidr, Error};

/// The first host number a pod can get: 0 names the network and 1 is the gateway.
const FIRST_POD: u32 = 2;

/// Which pod has which address, as saved in the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addresses {
    pub range: Cidr,
    /// Host number by pod identifier.
    pub pods: BTreeMap<String, u32>,
    /// Where the next search begins: an address just freed is the last to be given again, because others may still
    /// hold connections and names that lead to it.
    next: u32,
}

impl Addresses {
    pub fn new(range: Cidr) -> Addresses {
        Addresses { range, pods: BTreeMap::new(), next: FIRST_POD }
    }

    /// How many pods fit: all but network, gateway and broadcast address.
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.range.size().saturating_sub(3)).unwrap_or(u32::MAX)
    }

    /// The address of the gateway.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.range.network()).saturating_add(1))
    }

    pub fn address(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.range.network()).saturating_add(number))
    }

    /// The pod's host number, newly given if it has none.
    pub fn allocate(&mut self, pod_uid: &str) -> Result<u32, Error> {
        if let Some(number) = self.pods.get(pod_uid) {
            return Ok(*number);
        }
        let end = FIRST_POD.saturating_add(self.capacity());
        let used: std::collections::HashSet<u32> = self.pods.values().copied().collect();
        let start = self.next.clamp(FIRST_POD, end);
        let number = (start..end)
            .chain(FIRST_POD..start)
            .find(|number| !used.contains(number))
            .ok_or_else(|| Error::Exhausted { range: self.range.to_string(), capacity: self.capacity() })?;
        self.pods.insert(pod_uid.to_owned(), number);
        self.next = number + 1;
        Ok(number)
    }

    pub fn release(&mut self, pod_uid: &str) -> Option<u32> {
        self.pods.remove(pod_uid)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn addresses_are_kept_given_once_and_run_out() {
        let mut addresses = Addresses::new("10.1.0.0/29".parse().unwrap());
        let numbers: Vec<u32> = (0..5).map(|pod| addresses.allocate(&format!("p{pod}")).unwrap()).collect();
        assert_eq!(numbers, [2, 3, 4, 5, 6]);
        assert_eq!(addresses.allocate("p3").unwrap(), 5);
        let error = addresses.allocate("p5").unwrap_err().to_string();
        assert_eq!(error, "the pod range 10.1.0.0/29 has no free address: all 5 are given to pods");
        addresses.release("p1");
        assert_eq!(addresses.allocate("p5").unwrap(), 3);
    }

    #[test]
    fn a_freed_address_is_the_last_to_be_given_again() {
        let mut addresses = Addresses::new("10.1.0.0/29".parse().unwrap());
        assert_eq!(addresses.allocate("a").unwrap(), 2);
        addresses.release("a");
        assert_eq!(addresses.allocate("b").unwrap(), 3);
    }
}
