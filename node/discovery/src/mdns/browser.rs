//! Who is announced on the LAN: what was heard, until when it holds, and what is asked (RFC 6762, sections 5, 7, 10). Pure.
//!
//! An *instance* is one announced node: pointer, service and text; a *host* is where it is. Each has one deadline in a heap, which is looked
//! at when it comes and at no other time, so that a thousand nodes that go on as before cost the packets that they send.
//!
//! ```text
//! packet ─▶ records of instances and of their hosts ─▶ signature, once for each text ─▶ news: Node, Refused, Gone
//!               │ deadline: 80, 85, 90, 95 % of a lifetime ─▶ asked again, many in one packet
//!               └ 100 %, or a second after a good-bye      ─▶ Gone
//! start, new cable ─▶ "who is there?" after 20–120 ms, then 1 s, 2 s, 4 s … 30 min, with those that are known
//! ```
//! Bounds: [`INSTANCES_MAX`] instances, of which [`UNPROVEN_MAX`] have no signature yet and are kept for ten seconds. An unsigned text takes no
//! signed one's place. An instance is news once a second.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_proto::ProtoError;
use hickory_proto::rr::Name;

use super::announcement::{self, Signed};
use super::jitter::Jitter;
use super::life::Life;
use super::message::{self, Data, Kind, Names, Packet, Question, Record};
use super::responder::{SPREAD, TTL};
use super::{Heard, INSTANCES_MAX};

/// Instances without a good signature: as many as a crowd sends pointers alone in the time that they are kept.
const UNPROVEN_MAX: usize = 1024;
const UNPROVEN: Duration = Duration::from_secs(10);
/// How often what is missing of an instance, or of a host, is asked for.
const ASKED_MAX: u8 = 4;
/// Addresses of one host, on all cables.
const ADDRESSES_MAX: usize = 16;
/// Instances at one host: several nodes on one machine.
const SHARED_MAX: usize = 64;
/// A text that is longer is no announcement of ours; the longest has about 900 bytes.
const TEXT_MAX: usize = 2048;
/// Questions of one packet, about 40 bytes each. What is more waits for the next one.
const QUESTIONS_MAX: usize = 100;
/// What is asked again is gathered so long: a thousand names, each asked for in 80 s or so, are one packet of some 25 questions. A sixtieth of a
/// lifetime, of which a fifth is left.
const GATHER: Duration = Duration::from_secs(2);
/// Until the next packet, if one is not enough for all that is to be asked.
const NEXT: Duration = Duration::from_millis(500);
/// The first and the last wait between "who is there?". The last is such that two of them fall into the second half of a pointer's life.
const ASK_FIRST: Duration = Duration::from_secs(1);
const ASK_LAST: Duration = Duration::from_secs(1800);
/// An instance is news so often: who replays two announcements in turn costs one write a second.
const NEWS_EVERY: Duration = Duration::from_secs(1);

/// What there is a deadline for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Instance(Name),
    Host(Name),
}

struct Instance {
    pointer: Life,
    service: Option<(Name, Life)>,
    text: Option<(Vec<Vec<u8>>, Life)>,
    /// What the text says, verified.
    signed: Result<Signed, String>,
    /// How often it was asked for since it was whole.
    asked: u8,
    since: Instant,
    told: Option<(Heard, Instant)>,
    due: Instant,
}

#[derive(Default)]
struct Host {
    addresses: BTreeMap<(u32, IpAddr), Life>,
    instances: BTreeSet<Name>,
    asked: u8,
    due: Option<Instant>,
}

/// All that was heard.
pub(super) struct Browser {
    names: Names,
    instances: HashMap<Name, Instance>,
    hosts: HashMap<Name, Host>,
    deadlines: BinaryHeap<Reverse<(Instant, Item)>>,
    unproven: usize,
    /// To be asked at the time beside it.
    questions: BTreeSet<Question>,
    ask_at: Option<Instant>,
    /// "Who is there?", and the wait after it.
    browse_at: Instant,
    wait: Duration,
    /// The last news of each instance, until somebody takes it.
    pub(super) news: BTreeMap<Name, Heard>,
    /// Signatures that were checked.
    #[cfg(test)]
    pub(super) verified: usize,
}

impl Browser {
    pub(super) fn new(names: &Names, jitter: &mut Jitter, now: Instant) -> Self {
        Self {
            names: names.clone(),
            instances: HashMap::new(),
            hosts: HashMap::new(),
            deadlines: BinaryHeap::new(),
            unproven: 0,
            questions: BTreeSet::new(),
            ask_at: None,
            browse_at: now + jitter.between(SPREAD),
            wait: ASK_FIRST,
            news: BTreeMap::new(),
            #[cfg(test)]
            verified: 0,
        }
    }

    /// There is another cable: who is there?
    pub(super) fn again(&mut self, jitter: &mut Jitter, now: Instant) {
        (self.browse_at, self.wait) = (now + jitter.between(SPREAD), ASK_FIRST);
    }

    /// How many instances are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize, usize) {
        (self.instances.len(), self.hosts.len(), self.deadlines.len())
    }

    /// Somebody else asks what we are about to ask: the answer is for all.
    pub(super) fn others_ask(&mut self, packet: &Packet) {
        if self.questions.is_empty() || !packet.records.is_empty() {
            return;
        }
        for (question, direct) in &packet.questions {
            if !direct {
                self.questions.remove(question);
            }
        }
    }

    /// An answer was heard on a cable.
    pub(super) fn take(&mut self, cable: u32, packet: &Packet, jitter: &mut Jitter, now: Instant) {
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
        for instance in touched {
            self.settle(&instance, jitter, now);
        }
    }

    /// Does what is due.
    ///
    /// # Errors
    /// A question that cannot be written.
    pub(super) fn due(&mut self, jitter: &mut Jitter, now: Instant) -> Result<Vec<Vec<u8>>, ProtoError> {
        while let Some(Reverse((at, _))) = self.deadlines.peek() {
            if *at > now {
                break;
            }
            match self.deadlines.pop() {
                Some(Reverse((at, Item::Instance(name)))) if self.instances.get(&name).is_some_and(|i| i.due == at) => {
                    self.settle(&name, jitter, now);
                }
                Some(Reverse((at, Item::Host(name)))) if self.hosts.get(&name).is_some_and(|h| h.due == Some(at)) => {
                    for instance in self.look_at_host(&name, jitter, now) {
                        self.settle(&instance, jitter, now);
                    }
                }
                // It has another deadline since.
                _ => {}
            }
        }
        let mut packets = Vec::new();
        if self.browse_at <= now {
            let question = Question { name: self.names.service.clone(), kind: Kind::Pointer };
            packets = message::ask(std::iter::once(&question), &self.known(now))?;
            self.browse_at = now + self.wait;
            self.wait = (self.wait * 2).min(ASK_LAST);
        }
        if self.ask_at.is_some_and(|at| at <= now) {
            let mut asked = std::mem::take(&mut self.questions).into_iter();
            let first: Vec<Question> = asked.by_ref().take(QUESTIONS_MAX).collect();
            self.questions = asked.collect();
            self.ask_at = (!self.questions.is_empty()).then(|| now + NEXT);
            if !first.is_empty() {
                packets.extend(message::ask(first.iter(), &[])?);
            }
        }
        Ok(packets)
    }

    /// When there is next something to be done.
    pub(super) fn next(&self) -> Instant {
        let first = self.deadlines.peek().map(|Reverse((at, _))| *at);
        [first, self.ask_at].into_iter().flatten().fold(self.browse_at, Instant::min)
    }

    /// Those whose pointers need not be told again.
    fn known(&self, now: Instant) -> Vec<Record> {
        let fresh =
            self.instances.iter().filter(|(_, instance)| instance.pointer.left(now) > instance.pointer.ttl() / 2);
        fresh
            .map(|(name, instance)| Record {
                name: self.names.service.clone(),
                ttl: instance.pointer.left(now).min(TTL),
                flush: false,
                data: Data::Pointer(name.clone()),
            })
            .collect()
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
    fn leave(&mut self, instance: &Name, host: &Name) {
        if let Some(known) = self.hosts.get_mut(host) {
            known.instances.remove(instance);
            if known.instances.is_empty() {
                self.hosts.remove(host);
            }
        }
    }

    /// Says what is new of an instance, asks for what is missing or nearly over, and notes when to look again.
    fn settle(&mut self, name: &Name, jitter: &mut Jitter, now: Instant) {
        let Some(instance) = self.instances.get_mut(name) else { return };
        let over = |life: &Life| life.is_over(now);
        if instance.service.as_ref().is_some_and(|(_, life)| over(life)) {
            let host = instance.service.take().map(|(host, _)| host);
            if let Some(host) = host {
                self.leave(name, &host);
            }
        }
        let Some(instance) = self.instances.get_mut(name) else { return };
        if instance.text.as_ref().is_some_and(|(_, life)| over(life)) {
            instance.text = None;
        }
        let is_proven = instance.signed.is_ok();
        let is_whole = instance.service.is_some() && instance.text.is_some();
        let is_unproven_long = !is_proven && now.duration_since(instance.since) >= UNPROVEN;
        if over(&instance.pointer) || is_unproven_long || (is_proven && !is_whole && instance.told.is_some()) {
            self.forget(name);
            return;
        }
        self.tell(name, now);
        self.schedule(name, jitter, now);
    }

    fn forget(&mut self, name: &Name) {
        let Some(instance) = self.instances.remove(name) else { return };
        if instance.signed.is_err() {
            self.unproven = self.unproven.saturating_sub(1);
        }
        if let Some((host, _)) = &instance.service {
            self.leave(name, host);
        }
        self.news.remove(name);
        if matches!(instance.told, Some((Heard::Node(_), _))) {
            self.news.insert(name.clone(), Heard::Gone(message::label(name)));
        }
    }

    fn tell(&mut self, name: &Name, now: Instant) {
        let Some(instance) = self.instances.get_mut(name) else { return };
        let (Some((host, _)), Some(_)) = (&instance.service, &instance.text) else { return };
        let Some(host) = self.hosts.get(host).filter(|host| !host.addresses.is_empty()) else { return };
        let addresses = host.addresses.keys().map(|(_, ip)| *ip);
        let heard = match instance.signed.clone().and_then(|signed| signed.at(addresses)) {
            Ok(sighting) => Heard::Node(sighting),
            Err(why) => Heard::Refused(name.to_string().chars().take(80).collect(), why),
        };
        if instance.told.as_ref().is_some_and(|(told, at)| *told == heard || now.duration_since(*at) < NEWS_EVERY) {
            return;
        }
        if self.news.len() < INSTANCES_MAX || self.news.contains_key(name) {
            self.news.insert(name.clone(), heard.clone());
            instance.told = Some((heard, now));
        }
    }

    fn schedule(&mut self, name: &Name, jitter: &mut Jitter, now: Instant) {
        let Some(instance) = self.instances.get_mut(name) else { return };
        let mut due = instance.pointer.end();
        let lives = [instance.service.as_ref().map(|(_, life)| life), instance.text.as_ref().map(|(_, life)| life)];
        let kinds = [Kind::Service, Kind::Text];
        let mut questions = Vec::new();
        for (life, kind) in lives.into_iter().zip(kinds) {
            match life {
                Some(life) if life.is_ending() => due = due.min(life.end()),
                Some(life) => {
                    let (asks, next) = life.refresh(name, jitter, now);
                    due = due.min(next);
                    questions.extend(asks.then_some(kind));
                }
                None if instance.asked < ASKED_MAX => questions.push(kind),
                None => {}
            }
        }
        if instance.service.is_none() || instance.text.is_none() {
            due = due.min(now + Duration::from_secs(1) * 2u32.pow(instance.asked.into()));
            instance.asked = (instance.asked + 1).min(ASKED_MAX);
        } else {
            instance.asked = 0;
        }
        if instance.signed.is_err() {
            due = due.min(instance.since + UNPROVEN);
        }
        if let Some((_, at)) = &instance.told
            && now.duration_since(*at) < NEWS_EVERY
        {
            due = due.min(*at + NEWS_EVERY);
        }
        if instance.due != due || due <= now {
            instance.due = due.max(now + Duration::from_millis(1));
            self.deadlines.push(Reverse((instance.due, Item::Instance(name.clone()))));
        }
        let urgent = lives.iter().any(Option::is_none);
        self.ask(name, &questions, if urgent { jitter.between(SPREAD) } else { GATHER }, now);
        self.shrink();
    }

    /// Forgets addresses that are over and asks for those that nearly are. Returns the instances there, if an address has gone.
    fn look_at_host(&mut self, name: &Name, jitter: &mut Jitter, now: Instant) -> Vec<Name> {
        let Some(host) = self.hosts.get_mut(name) else { return Vec::new() };
        let before = host.addresses.len();
        host.addresses.retain(|_, life| !life.is_over(now));
        let changed = host.addresses.len() != before;
        let mut kinds = Vec::new();
        let mut due = None;
        for ((_, ip), life) in &host.addresses {
            let (asks, next) =
                if life.is_ending() { (false, life.end()) } else { life.refresh_later(name, jitter, now) };
            due = Some(due.map_or(next, |due: Instant| due.min(next)));
            kinds.extend(asks.then_some(if ip.is_ipv4() { Kind::A } else { Kind::Aaaa }));
        }
        let is_unknown = host.addresses.is_empty();
        if is_unknown && host.asked < ASKED_MAX {
            kinds = vec![Kind::A, Kind::Aaaa];
            due = Some(now + Duration::from_secs(1) * 2u32.pow(host.asked.into()));
            host.asked += 1;
        }
        if let Some(due) = due.filter(|due| host.due != Some(*due)) {
            let due = due.max(now + Duration::from_millis(1));
            host.due = Some(due);
            self.deadlines.push(Reverse((due, Item::Host(name.clone()))));
        }
        let instances = if changed { host.instances.iter().cloned().collect() } else { Vec::new() };
        self.ask(name, &kinds, if is_unknown { jitter.between(SPREAD) } else { GATHER }, now);
        instances
    }

    fn ask(&mut self, name: &Name, kinds: &[Kind], within: Duration, now: Instant) {
        for kind in kinds {
            self.questions.insert(Question { name: name.clone(), kind: *kind });
            self.ask_at = Some(self.ask_at.map_or(now + within, |at| at.min(now + within)));
        }
    }

    /// Deadlines that hold no more are dropped when they are most of all.
    fn shrink(&mut self) {
        let live = self.instances.len() + self.hosts.len();
        if self.deadlines.len() <= 4 * live + 64 {
            return;
        }
        let (instances, hosts) = (&self.instances, &self.hosts);
        self.deadlines.retain(|Reverse((at, item))| match item {
            Item::Instance(name) => instances.get(name).is_some_and(|instance| instance.due == *at),
            Item::Host(name) => hosts.get(name).is_some_and(|host| host.due == Some(*at)),
        });
    }
}
