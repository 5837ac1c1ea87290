//! Packets in: what each record says of an instance or of a host that is known.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use hickory_proto::rr::Name;

use super::{ADDRESSES_MAX, Browser, Instance, SHARED_MAX, TEXT_MAX, UNPROVEN_MAX, Way};
use crate::mdns::jitter::Jitter;
use crate::mdns::life::Life;
use crate::mdns::message::{self, Data, Packet, Record};
use crate::mdns::{INSTANCES_MAX, announcement};

impl Browser {
    /// An answer was heard on a cable, by a version of IP.
    pub(in crate::mdns) fn take(&mut self, way: Way, packet: &Packet, jitter: &mut Jitter, now: Instant) {
        let (cable, version) = way;
        let (mut touched, mut hosts) = (HashSet::new(), HashSet::new());
        for record in &packet.records {
            if let Data::Pointer(instance) = &record.data
                && record.name == self.names.service
                && self.names.is_instance(instance)
                && self.pointed(instance, record, now)
            {
                touched.insert(instance.clone());
            }
        }
        for record in &packet.records {
            if self.described(record, now) {
                touched.insert(record.name.clone());
                if let Data::Service(host, _) = &record.data {
                    hosts.insert(host.clone());
                }
            }
        }
        for record in &packet.records {
            if let Data::Address(ip) = record.data {
                hosts.insert(record.name.clone());
                touched.extend(self.located(cable, ip, record, now));
            }
        }
        let flushed = packet.records.iter().filter(|record| record.flush && matches!(record.data, Data::Address(_)));
        for host in flushed.map(|record| &record.name).collect::<BTreeSet<_>>() {
            self.flush(cable, host, now);
        }
        for host in hosts {
            touched.extend(self.look_at_host(&host, jitter, now));
        }
        for name in touched {
            if let Some(instance) = self.instances.get_mut(&name) {
                instance.heard_by.insert(cable, version);
            }
            self.settle(&name, jitter, now);
        }
    }

    fn pointed(&mut self, name: &Name, record: &Record, now: Instant) -> bool {
        let life = Life::new(record.ttl, now);
        if let Some(instance) = self.instances.get_mut(name) {
            instance.pointer = life;
            return true;
        }
        if record.ttl.is_zero() || self.instances.len() >= INSTANCES_MAX || self.unproven >= UNPROVEN_MAX {
            return false;
        }
        self.unproven += 1;
        self.instances.insert(
            name.clone(),
            Instance {
                pointer: life,
                service: None,
                text: None,
                signed: Err(String::new()),
                asked: 0,
                since: now,
                told: None,
                due: now,
                heard_by: BTreeMap::new(),
            },
        );
        true
    }

    /// Service and text of an instance that is known.
    fn described(&mut self, record: &Record, now: Instant) -> bool {
        let Some(instance) = self.instances.get_mut(&record.name) else { return false };
        let life = Life::new(record.ttl, now);
        match &record.data {
            Data::Service(host, _) => {
                let before = instance.service.replace((host.clone(), life)).map(|(before, _)| before);
                if before.as_ref() != Some(host) {
                    if let Some(before) = before {
                        self.leave(&record.name, &before);
                    }
                    let host = self.hosts.entry(host.clone()).or_default();
                    if host.instances.len() < SHARED_MAX {
                        host.instances.insert(record.name.clone());
                    }
                }
                true
            }
            Data::Text(text) => {
                if let Some((known, known_life)) = &mut instance.text
                    && known == text
                {
                    *known_life = life;
                    return true;
                }
                if text.iter().map(Vec::len).sum::<usize>() > TEXT_MAX {
                    return false;
                }
                #[cfg(test)]
                {
                    self.verified += 1;
                }
                let signed = announcement::read(&message::fields(text)).and_then(|signed| {
                    let named = message::label(&record.name) == signed.id.tag();
                    if named {
                        Ok(signed)
                    } else {
                        Err(format!("it is announced under another name than its key's, {}", signed.id.tag()))
                    }
                });
                match (&instance.signed, &signed) {
                    // Anybody can say something unsigned of somebody.
                    (Ok(_), Err(_)) => return false,
                    (Err(_), Ok(_)) => self.unproven = self.unproven.saturating_sub(1),
                    _ => {}
                }
                (instance.text, instance.signed) = (Some((text.clone(), life)), signed);
                true
            }
            _ => false,
        }
    }

    /// An address of a host that some instance has.
    fn located(&mut self, cable: u32, ip: IpAddr, record: &Record, now: Instant) -> Vec<Name> {
        let Some(host) = self.hosts.get_mut(&record.name) else { return Vec::new() };
        let key = (cable, ip);
        if !host.addresses.contains_key(&key) && (host.addresses.len() >= ADDRESSES_MAX || record.ttl.is_zero()) {
            return Vec::new();
        }
        host.addresses.insert(key, Life::new(record.ttl, now));
        host.asked = 0;
        host.instances.iter().cloned().collect()
    }

    /// What was not said again with the others is over in a second (RFC 6762, section 10.2).
    fn flush(&mut self, cable: u32, name: &Name, now: Instant) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        for ((on, _), life) in &mut host.addresses {
            if *on == cable {
                life.flush(now);
            }
        }
    }

    /// An instance is at a host no more.
    pub(super) fn leave(&mut self, instance: &Name, host: &Name) {
        if let Some(known) = self.hosts.get_mut(host) {
            known.instances.remove(instance);
            if known.instances.is_empty() {
                self.hosts.remove(host);
            }
        }
    }
}
