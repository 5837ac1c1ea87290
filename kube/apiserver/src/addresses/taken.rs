//! *Taken* is what Services have of addresses and ports. It is read from them once, and from then on from what the store
//! tells of each change, so that a new Service costs no look at all the others.
//!
//! ```text
//!  store ──▶ list (once, or too far behind) ──▶ claims by key ──▶ how many have an address, a port
//!        └─▶ events since ──────────────────▶
//! ```
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use substrate_store::{Error, EventKind, Store, Watcher};

use crate::object;

/// What all Services have.
#[derive(Default)]
pub struct Taken {
    events: Option<Watcher>,
    claims: HashMap<Arc<str>, Claims>,
    /// How many have each: one, but what was stored before it was looked at is not ours to judge.
    addresses: HashMap<IpAddr, u32>,
    ports: HashMap<i64, u32>,
}

/// What a Service has: its addresses, and its ports of every machine.
#[derive(Default)]
struct Claims {
    addresses: Vec<IpAddr>,
    ports: Vec<i64>,
}

/// What all but one have.
pub struct Others<'a> {
    taken: &'a Taken,
    own: Option<&'a Claims>,
}

impl Taken {
    /// Takes in what has been written below `prefix` since the last time.
    pub(super) fn catch_up(&mut self, store: &Store, prefix: &str) -> Result<(), Error> {
        let mut events = match self.events.take() {
            Some(events) => events,
            None => self.begin(store, prefix)?,
        };
        loop {
            let ready = match events.ready() {
                Ok(ready) => ready,
                // Nobody made a Service for so long that the store has forgotten what came between.
                Err(Error::Compacted { .. }) => {
                    events = self.begin(store, prefix)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if ready.is_empty() {
                break;
            }
            for event in ready {
                self.forget(&event.key);
                if event.kind != EventKind::Deleted {
                    self.note(event.key, Claims::of(&object::value_at(&event.value, "spec")));
                }
            }
        }
        self.events = Some(events);
        Ok(())
    }

    fn begin(&mut self, store: &Store, prefix: &str) -> Result<Watcher, Error> {
        *self = Self::default();
        let page = store.list(prefix, None, 0, None)?;
        for entry in page.entries {
            self.note(entry.key, Claims::of(&object::value_at(&entry.value, "spec")));
        }
        store.watch(prefix, page.revision)
    }

    fn note(&mut self, key: Arc<str>, claims: Claims) {
        claims.addresses.iter().for_each(|address| *self.addresses.entry(*address).or_default() += 1);
        claims.ports.iter().for_each(|port| *self.ports.entry(*port).or_default() += 1);
        self.claims.insert(key, claims);
    }

    fn forget(&mut self, key: &str) {
        let Some(claims) = self.claims.remove(key) else { return };
        claims.addresses.iter().for_each(|address| less(&mut self.addresses, address));
        claims.ports.iter().for_each(|port| less(&mut self.ports, port));
    }

    /// What all have but the Service under this key, if it is there.
    pub fn others(&self, key: &str) -> Others<'_> {
        Others { taken: self, own: self.claims.get(key) }
    }

    #[cfg(test)]
    pub(super) fn of(services: &[Value]) -> Self {
        let mut taken = Self::default();
        for (i, service) in services.iter().enumerate() {
            taken.note(i.to_string().into(), Claims::of(&service["spec"]));
        }
        taken
    }
}

impl Claims {
    fn of(spec: &Value) -> Self {
        let list = |field: &str| spec[field].as_array().into_iter().flatten();
        // However they are written: an IPv6 address may be in many ways.
        let addresses = list("clusterIPs").filter_map(|address| address.as_str()?.parse().ok()).collect();
        let ports = list("ports").map(|port| &port["nodePort"]).chain([&spec["healthCheckNodePort"]]);
        Self { addresses, ports: ports.filter_map(Value::as_i64).filter(|port| *port != 0).collect() }
    }
}

impl Others<'_> {
    /// Whether one of them has this address.
    pub fn have(&self, address: IpAddr) -> bool {
        let own = self.own.map_or(0, |own| count(&own.addresses, &address));
        self.taken.addresses.get(&address).is_some_and(|all| *all > own)
    }

    /// Whether one of them has this port of every machine.
    pub fn have_port(&self, port: i64) -> bool {
        let own = self.own.map_or(0, |own| count(&own.ports, &port));
        self.taken.ports.get(&port).is_some_and(|all| *all > own)
    }
}

fn count<T: PartialEq>(all: &[T], one: &T) -> u32 {
    all.iter().filter(|other| *other == one).fold(0, |sum, _| sum + 1)
}

fn less<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;
    use substrate_store::Precondition;

    use super::*;

    fn stored(address: &str, port: i64) -> bytes::Bytes {
        let spec = json!({ "clusterIPs": [address], "ports": [{ "port": 80, "nodePort": port }] });
        object::encode(&json!({ "metadata": { "name": "a" }, "spec": spec })).unwrap()
    }

    #[tokio::test]
    async fn what_services_have_is_known_after_every_change() {
        let store = Store::memory().unwrap();
        let [one, two]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let mut taken = Taken::default();
        let before = store.put("s/a", Precondition::Absent, stored("10.0.0.1", 30001)).await.unwrap();
        taken.catch_up(&store, "s/").unwrap();
        assert!(taken.others("").have(one) && taken.others("").have_port(30001), "read at the begin");
        assert!(!taken.others("s/a").have(one) && !taken.others("s/a").have_port(30001), "its own is not another's");

        let now = store.put("s/a", Precondition::Revision(before), stored("10.0.0.2", 30002)).await.unwrap();
        store.put("other/b", Precondition::Absent, stored("10.0.0.1", 30001)).await.unwrap();
        taken.catch_up(&store, "s/").unwrap();
        assert!(!taken.others("").have(one) && !taken.others("").have_port(30001), "given back");
        assert!(taken.others("").have(two) && taken.others("").have_port(30002), "taken since");

        // Two that have the same: one alone giving it back leaves it taken.
        store.put("s/b", Precondition::Absent, stored("10.0.0.2", 30002)).await.unwrap();
        taken.catch_up(&store, "s/").unwrap();
        assert!(taken.others("s/b").have(two));
        store.delete("s/a", now).await.unwrap();
        taken.catch_up(&store, "s/").unwrap();
        assert!(taken.others("").have(two) && !taken.others("s/b").have(two));
    }

    #[tokio::test]
    async fn who_is_too_far_behind_reads_all_again() {
        let store = Store::memory().unwrap();
        let mut taken = Taken::default();
        store.put("s/a", Precondition::Absent, stored("10.0.0.1", 30001)).await.unwrap();
        let gone = store.put("s/c", Precondition::Absent, stored("10.0.0.4", 30004)).await.unwrap();
        taken.catch_up(&store, "s/").unwrap();
        store.delete("s/c", gone).await.unwrap();
        let mut last = store.put("s/b", Precondition::Absent, stored("10.0.0.2", 30002)).await.unwrap();
        while store.watch("s/", gone).is_ok() {
            last = store.put("s/b", Precondition::Revision(last), stored("10.0.0.3", 30003)).await.unwrap();
        }
        taken.catch_up(&store, "s/").unwrap();
        let [one, two, three, four] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|a| a.parse().unwrap());
        let others = taken.others("");
        assert!(others.have(one) && others.have(three) && !others.have(two));
        assert!(!others.have(four), "it went while nobody looked");
    }
}
