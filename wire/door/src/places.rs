//! Places inside a door: so many, and so many of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// All places of a door.
#[derive(Clone)]
pub(crate) struct Places {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    most: usize,
    most_of_one: usize,
}

/// A place, given back when dropped.
pub(crate) struct Place {
    places: Places,
    origin: IpAddr,
}

impl Places {
    pub(crate) fn new(most: usize, most_of_one: usize) -> Self {
        Self { taken: Arc::default(), most, most_of_one }
    }

    /// Takes a place for an origin, if there is one.
    pub(crate) fn take(&self, origin: IpAddr) -> Option<Place> {
        // Counts are never half written.
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= self.most {
            return None;
        }
        let count = taken.entry(origin).or_insert(0);
        if *count >= self.most_of_one {
            return None;
        }
        *count += 1;
        Some(Place { places: self.clone(), origin })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.origin) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    #[test]
    fn one_address_does_not_take_every_place_and_places_come_back() {
        let places = Places::new(3, 2);
        let (here, there) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = places.take(here).unwrap();
        let _second = places.take(here).unwrap();
        assert!(places.take(here).is_none(), "two of one address");
        let _third = places.take(there).unwrap();
        assert!(places.take(there).is_none(), "three altogether");
        drop(first);
        assert!(places.take(here).is_some());
        let fresh: IpAddr = "192.0.2.3".parse().unwrap();
        drop(places.take(fresh));
        assert!(!places.taken.lock().unwrap().contains_key(&fresh), "who left is not remembered");
    }
}
