//! Who is announced on the LAN: what was heard, until when it holds, and what is asked (RFC 6762, sections 5, 7, 10). Pure.
//!
//! An *instance* is one announced node: pointer, service and text; a *host* is where it is. Each has one deadline in a heap, which is looked
//! at when it comes, those of one second together, and at no other time, so that a thousand nodes that go on as before cost the packets that they
//! send.
//!
//! ```text
//!          take                                                                        settle
//! packet ─▶ records of instances and of their hosts ─▶ signature, once for each text ─▶ news: Node, Refused, Gone
//!               │ deadline: 80, 85, 90, 95 % of a lifetime ─▶ asked again, many in one packet; first by the version of IP by which it
//!               │                                             was heard, then by both
//!               └ 100 %, or a second after a good-bye      ─▶ Gone
//! start, new cable ─▶ "who is there?" after 20–120 ms, then 1 s, 2 s, 4 s … 30 min, with those that are known
//! ```
//! Bounds: [`INSTANCES_MAX`](super::INSTANCES_MAX) instances, of which [`UNPROVEN_MAX`] have no signature yet and are kept for ten seconds. An
//! unsigned text takes no signed one's place. An instance is news once a second.

mod settle;
mod take;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_proto::ProtoError;
use hickory_proto::rr::Name;

use super::Heard;
use super::announcement::Signed;
use super::jitter::Jitter;
use super::life::Life;
use super::message::{self, Data, Kind, Names, Packet, Question, Record};
use super::responder::{SPREAD, TTL};
use super::ways::{Versions, Ways};

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
/// What becomes due within it is looked at together: a thousand names with a time of their own each would wake the process fifty times a second,
/// which costs more than all that is done then. Only what was said to end ends at its own time.
const TOGETHER: Duration = Duration::from_secs(1);
/// Until the next packet, if one is not enough for all that is to be asked.
const NEXT: Duration = Duration::from_millis(500);
/// The first and the last wait between "who is there?". The last is such that two of them fall into the second half of a pointer's life.
const ASK_FIRST: Duration = Duration::from_secs(1);
const ASK_LAST: Duration = Duration::from_secs(1800);
/// An instance is news so often: who replays two announcements in turn costs one write a second.
const NEWS_EVERY: Duration = Duration::from_secs(1);

/// A cable, and the versions of IP that are used on it.
type Way = (u32, Versions);

/// A packet of questions, and where it is sent; `None` is everywhere.
type Asked = (Option<Way>, Vec<u8>);

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
    /// By which version of IP it was heard last, on each cable.
    heard_by: BTreeMap<u32, Versions>,
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
    grid: Grid,
    unproven: usize,
    /// To be asked at the time beside it.
    questions: BTreeMap<Question, Ways>,
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
            grid: Grid(now + jitter.between((Duration::ZERO, TOGETHER))),
            unproven: 0,
            questions: BTreeMap::new(),
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

    /// Other cables are gone, and with them the ways by which somebody was heard.
    pub(super) fn retain_cables(&mut self, is_there: impl Fn(u32) -> bool) {
        for instance in self.instances.values_mut() {
            instance.heard_by.retain(|cable, _| is_there(*cable));
        }
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

    /// Does what is due, and returns what is asked.
    ///
    /// # Errors
    /// A question that cannot be written.
    pub(super) fn due(&mut self, jitter: &mut Jitter, now: Instant) -> Result<Vec<Asked>, ProtoError> {
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
            let asked = message::ask(std::iter::once(&question), &self.known(now))?;
            packets.extend(asked.into_iter().map(|bytes| (None, bytes)));
            self.browse_at = now + self.wait;
            self.wait = (self.wait * 2).min(ASK_LAST);
        }
        if self.ask_at.is_some_and(|at| at <= now) {
            let mut asked = std::mem::take(&mut self.questions).into_iter();
            let first: Vec<(Question, Ways)> = asked.by_ref().take(QUESTIONS_MAX).collect();
            self.questions = asked.collect();
            self.ask_at = (!self.questions.is_empty()).then(|| now + NEXT);
            for (way, questions) in by_way(first) {
                let asked = message::ask(questions.iter(), &[])?;
                packets.extend(asked.into_iter().map(|bytes| (way, bytes)));
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
}

/// Since when [`TOGETHER`] is counted: each node has a time of its own, else all would ask in the same moment, and none for the others.
#[derive(Clone, Copy)]
struct Grid(Instant);

impl Grid {
    /// When to look at what is not to be looked at before this.
    fn together(self, at: Instant) -> Instant {
        let whole = at.saturating_duration_since(self.0).as_millis().div_ceil(TOGETHER.as_millis());
        self.0 + TOGETHER * u32::try_from(whole).unwrap_or(u32::MAX)
    }
}

/// What is asked together, by where.
fn by_way(questions: Vec<(Question, Ways)>) -> BTreeMap<Option<Way>, Vec<Question>> {
    let mut all: BTreeMap<Option<Way>, Vec<Question>> = BTreeMap::new();
    for (question, ways) in questions {
        match ways {
            Ways::All => all.entry(None).or_default().push(question),
            Ways::Some(ways) => {
                for way in ways {
                    all.entry(Some(way)).or_default().push(question.clone());
                }
            }
        }
    }
    all
}
