//! What is announced of one node, and when it is said (RFC 6762, sections 6 to 8). Pure.
//!
//! A node has one *bundle* on each cable: pointer, service, text and the addresses that it has on that cable. Whoever asks for one of them
//! gets the bundle, so one answer makes a node known.
//!
//! ```text
//! new cable, other addresses ─▶ after 20–120 ms, 1 s, 3 s ─┐
//! question by anybody ─▶ at once, or 20–120 ms ────────────┼─▶ the bundle, once in a second ─▶ all on the cable, by the version
//! good-bye of us that we did not say ──────────────────────┘    of IP that asks, or by both
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_proto::ProtoError;
use hickory_proto::rr::Name;

use super::jitter::Jitter;
use super::message::{self, Data, Kind, Names, Packet, Question, Record};
use super::ways::{To, Versions};

/// Of records that name a host, or what is said of it (RFC 6762, section 10).
pub(super) const TTL_HOST: Duration = Duration::from_secs(120);
/// Of others.
pub(super) const TTL: Duration = Duration::from_secs(4500);
/// So that not all answer in the same moment.
pub(super) const SPREAD: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(120));
/// After a question whose known answers fill several packets.
const SPREAD_TRUNCATED: (Duration, Duration) = (Duration::from_millis(400), Duration::from_millis(500));
/// The same is said to all on a cable no more often.
const EVERY: Duration = Duration::from_secs(1);
/// When it is announced again after the first time: a packet may be lost.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// Those whose questions wait; more are answered with them.
const ASKED_MAX: usize = 64;
/// Direct answers in a second, on one cable: an answer is ten times its question, and who asks can be forged.
const DIRECT_MAX: u32 = 10;
/// What a resolver that is none of multicast DNS may keep it for (RFC 6762, section 6.7).
const TTL_LEGACY: Duration = Duration::from_secs(10);
/// Who speaks multicast DNS uses this port.
pub(super) const PORT: u16 = 5353;

/// A packet that is to be sent on a cable.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Send {
    pub(super) cable: u32,
    pub(super) to: To,
    pub(super) bytes: Vec<u8>,
}

/// One node that is announced.
pub(super) struct Responder {
    names: Names,
    pub(super) instance: Name,
    host: Name,
    text: Vec<Vec<u8>>,
    port: u16,
    voices: BTreeMap<u32, Voice>,
    /// Whether it was ever announced, also on a cable that went since.
    is_told: bool,
}

/// What is to be said on one cable.
#[derive(Default)]
struct Voice {
    addresses: Vec<IpAddr>,
    /// When it is announced, the next one first.
    announce: Vec<Instant>,
    asked: Vec<(SocketAddr, Instant)>,
    /// By which versions of IP those ask who are too many for the list.
    asked_also: Versions,
    asked_for_types: Option<(Instant, Versions)>,
    spoke: Option<Instant>,
    /// Direct answers in the second that began then.
    direct: Option<(Instant, u32)>,
}

impl Responder {
    pub(super) fn new(names: &Names, tag: &str, text: Vec<Vec<u8>>, port: u16) -> Result<Self, ProtoError> {
        let (instance, host) = names.of(tag)?;
        Ok(Self { names: names.clone(), instance, host, text, port, voices: BTreeMap::new(), is_told: false })
    }

    /// Says something else from now on.
    pub(super) fn say(&mut self, text: Vec<Vec<u8>>, port: u16, jitter: &mut Jitter, now: Instant) {
        (self.text, self.port) = (text, port);
        self.voices.values_mut().for_each(|voice| voice.begin(jitter, now));
    }

    /// The cables of this machine, and its addresses on each.
    pub(super) fn on(&mut self, cables: &BTreeMap<u32, Vec<IpAddr>>, jitter: &mut Jitter, now: Instant) {
        self.voices.retain(|cable, _| cables.contains_key(cable));
        for (cable, addresses) in cables {
            let voice = self.voices.entry(*cable).or_default();
            if voice.addresses != *addresses {
                voice.addresses.clone_from(addresses);
                voice.begin(jitter, now);
            }
        }
    }

    /// Somebody asks, or says more of what he knows; returns what is answered at once.
    pub(super) fn asked(
        &mut self,
        cable: u32,
        by: SocketAddr,
        packet: &Packet,
        jitter: &mut Jitter,
        now: Instant,
    ) -> Result<Option<Send>, ProtoError> {
        let known = packet.records.iter().any(|record| {
            record.ttl >= TTL / 2
                && record.name == self.names.service
                && record.data == Data::Pointer(self.instance.clone())
        });
        let (of_all, of_one) = (self.is_of_all(packet), self.is_of_one(packet));
        let for_types = packet.questions.iter().any(|(question, _)| self.is_for_types(question));
        let Some(voice) = self.voices.get_mut(&cable).filter(|voice| !voice.addresses.is_empty()) else {
            return Ok(None);
        };
        if known && !of_one {
            voice.asked.retain(|(who, _)| *who != by);
            return Ok(None);
        }
        let version = Versions::of(&by);
        if for_types {
            let (at, before) = voice.asked_for_types.unwrap_or_else(|| (now + jitter.between(SPREAD), version));
            voice.asked_for_types = Some((at, before.and(version)));
        }
        if !of_all && !of_one {
            return Ok(None);
        }
        let direct = packet.questions.iter().all(|(_, direct)| *direct);
        let is_legacy = by.port() != PORT;
        // Who has heard it lately from the cable needs it alone (RFC 6762, section 5.4).
        let lately = voice.spoke.is_some_and(|spoke| now.duration_since(spoke) < TTL_HOST / 4);
        if is_legacy || (direct && lately) {
            if !voice.may_answer_directly(now) {
                return Ok(None);
            }
            let ttl = if is_legacy { TTL_LEGACY } else { TTL };
            let records = self.bundle(cable, ttl, !is_legacy);
            let asked = is_legacy.then_some((packet.id, packet.questions.as_slice()));
            return Ok(Some(Send { cable, to: To::One(by), bytes: message::answer(&records, asked)? }));
        }
        let wait = match (packet.is_truncated, of_one) {
            (true, _) => jitter.between(SPREAD_TRUNCATED),
            (false, true) => Duration::ZERO,
            (false, false) => jitter.between(SPREAD),
        };
        let earliest = voice.spoke.map_or(now, |spoke| spoke + EVERY);
        if voice.asked.len() < ASKED_MAX {
            voice.asked.push((by, (now + wait).max(earliest)));
        } else {
            voice.asked_also = voice.asked_also.and(version);
        }
        Ok(None)
    }

    /// Somebody has said on a cable that we are not there: we are.
    pub(super) fn buried(&mut self, cable: u32, packet: &Packet, now: Instant) {
        let is_us = |record: &Record| {
            record.name == self.instance
                || record.name == self.host
                || record.data == Data::Pointer(self.instance.clone())
        };
        if !packet.records.iter().any(|record| record.ttl.is_zero() && is_us(record)) {
            return;
        }
        if let Some(voice) = self.voices.get_mut(&cable).filter(|voice| voice.announce.is_empty()) {
            voice.announce.push(voice.spoke.map_or(now, |spoke| spoke + EVERY).max(now));
        }
    }

    /// What is to be said by now.
    pub(super) fn due(&mut self, now: Instant) -> Result<Vec<Send>, ProtoError> {
        let mut sends = Vec::new();
        let cables: Vec<u32> = self.voices.keys().copied().collect();
        for cable in cables {
            let Some(voice) = self.voices.get_mut(&cable) else { continue };
            let announces = voice.announce.first().is_some_and(|at| *at <= now);
            let answers = voice.asked.iter().any(|(_, at)| *at <= now);
            let types = voice.asked_for_types.take_if(|(at, _)| *at <= now);
            if announces {
                voice.announce.remove(0);
            }
            let speaks = (announces || answers) && !voice.addresses.is_empty();
            if speaks {
                // All who have asked hear it.
                let asked = voice.asked.drain(..).map(|(by, _)| Versions::of(&by));
                let asked = asked.fold(std::mem::take(&mut voice.asked_also), Versions::and);
                voice.spoke = Some(now);
                self.is_told = true;
                let to = To::All(if announces { Versions::BOTH } else { asked });
                sends.push(Send { cable, to, bytes: message::answer(&self.bundle(cable, TTL, true), None)? });
            }
            if let Some((_, asked)) = types {
                let data = Data::Pointer(self.names.service.clone());
                let record = Record { name: self.names.types.clone(), ttl: TTL, flush: false, data };
                sends.push(Send { cable, to: To::All(asked), bytes: message::answer(&[record], None)? });
            }
        }
        Ok(sends)
    }

    /// When there is next something to be said.
    pub(super) fn next(&self) -> Option<Instant> {
        let of = |voice: &Voice| {
            let asked = voice.asked.iter().map(|(_, at)| *at);
            let types = voice.asked_for_types.map(|(at, _)| at);
            asked.chain(voice.announce.first().copied()).chain(types).min()
        };
        self.voices.values().filter_map(of).min()
    }

    /// Good-bye on all cables. One that went and came back has heard of it before, though nothing was said there since.
    pub(super) fn bye(&self) -> Result<Vec<Send>, ProtoError> {
        let cables = self.voices.keys().filter(|_| self.is_told);
        cables
            .map(|cable| {
                let records = self.bundle(*cable, Duration::ZERO, true);
                Ok(Send { cable: *cable, to: To::All(Versions::BOTH), bytes: message::answer(&records, None)? })
            })
            .collect()
    }

    fn bundle(&self, cable: u32, ttl: Duration, flush: bool) -> Vec<Record> {
        let record = |name: &Name, ttl: Duration, flush, data| Record { name: name.clone(), ttl, flush, data };
        let of_host = ttl.min(TTL_HOST);
        let mut records = vec![
            // Many have the same name of this kind: it says nothing about the others.
            record(&self.names.service, ttl, false, Data::Pointer(self.instance.clone())),
            record(&self.instance, of_host, flush, Data::Service(self.host.clone(), self.port)),
            record(&self.instance, ttl, flush, Data::Text(self.text.clone())),
        ];
        let addresses = self.voices.get(&cable).into_iter().flat_map(|voice| &voice.addresses);
        records.extend(addresses.map(|ip| record(&self.host, of_host, flush, Data::Address(*ip))));
        records
    }

    fn is_of_all(&self, packet: &Packet) -> bool {
        packet.questions.iter().any(|(question, _)| {
            question.name == self.names.service && matches!(question.kind, Kind::Pointer | Kind::Any)
        })
    }

    fn is_of_one(&self, packet: &Packet) -> bool {
        packet.questions.iter().any(|(question, _)| match question.kind {
            Kind::Service | Kind::Text => question.name == self.instance,
            Kind::A | Kind::Aaaa => question.name == self.host,
            Kind::Any => question.name == self.instance || question.name == self.host,
            Kind::Pointer => false,
        })
    }

    fn is_for_types(&self, question: &Question) -> bool {
        question.name == self.names.types && matches!(question.kind, Kind::Pointer | Kind::Any)
    }
}

impl Voice {
    /// Announces from the start.
    fn begin(&mut self, jitter: &mut Jitter, now: Instant) {
        let earliest = self.spoke.map_or(now, |spoke| spoke + EVERY);
        let first = (now + jitter.between(SPREAD)).max(earliest);
        self.announce = std::iter::once(first).chain(AGAIN.map(|later| first + later)).collect();
    }

    fn may_answer_directly(&mut self, now: Instant) -> bool {
        let (since, count) = self.direct.filter(|(since, _)| now.duration_since(*since) < EVERY).unwrap_or((now, 0));
        self.direct = Some((since, count + 1));
        count < DIRECT_MAX
    }
}
