//! Nodes on cables whose time is a number: each packet reaches everybody on its cable, its sender too, or is lost as the test says.
#![allow(clippy::unwrap_used, clippy::panic)]

mod crowd;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use fluidos_identity::NodeKey;
use hickory_proto::rr::Name;

use super::engine::Engine;
use super::jitter::Jitter;
use super::life::Life;
use super::message::{self, Data, Kind, Names, Packet, Question, Record};
use super::responder::{PORT, Send, TTL, TTL_HOST};
use super::ways::{To, Versions};
use super::{Announcement, Heard};
use crate::Features;

const CABLE: u32 = 2;

fn key(number: u16) -> NodeKey {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    NodeKey::from_seed(seed).unwrap()
}

fn ip(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    IpAddr::from([10, 0, high, low])
}

/// Where packets of a node come from: by both versions of IP, the first is heard first.
fn from(number: u16) -> [SocketAddr; 2] {
    let v6 = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number);
    [ip(number), v6.into()].map(|ip| SocketAddr::new(ip, PORT))
}

/// To everybody, by both versions.
fn all(bytes: Vec<u8>) -> Send {
    Send { cable: CABLE, to: To::All(Versions::BOTH), bytes }
}

/// Announces a node under this name.
fn announce(engine: &mut Engine, number: u16, name: &str, now: Instant) {
    let (key, features) = (key(number), Features::default());
    let (domain, port) = ("grid.example", 7300);
    let announcement = Announcement { key: &key, name, domain, rear_port: port, link_port: port, features: &features };
    engine.announce(&announcement, now).unwrap();
}

struct Lan {
    start: Instant,
    now: Instant,
    nodes: BTreeMap<u16, Engine>,
    /// Packets, with who sent them and when.
    sent: Vec<(Duration, u16, Send)>,
    /// One packet of so many is lost; 0: none.
    loses: usize,
    /// Nodes that neither hear nor say anything by IPv4.
    only_v6: BTreeSet<u16>,
}

impl Lan {
    fn new() -> Self {
        let now = Instant::now();
        Self { start: now, now, nodes: BTreeMap::new(), sent: Vec::new(), loses: 0, only_v6: BTreeSet::new() }
    }

    fn join(&mut self, number: u16) {
        let mut engine = Engine::new(true, number.into(), self.now).unwrap();
        engine.on([(CABLE, vec![ip(number)])].into(), self.now);
        announce(&mut engine, number, &format!("n{number}"), self.now);
        self.nodes.insert(number, engine);
    }

    fn send(&mut self, by: u16, sends: Vec<Send>) {
        for send in sends {
            self.sent.push((self.now - self.start, by, send));
            let Some((_, _, send)) = self.sent.last() else { return };
            if self.loses > 0 && self.sent.len().is_multiple_of(self.loses) {
                continue;
            }
            let mut answers = Vec::new();
            let only_v6 = &self.only_v6;
            let on = |number: &u16, address: &SocketAddr| address.is_ipv6() || !only_v6.contains(number);
            for (number, node) in &mut self.nodes {
                let to_it = match send.to {
                    // The same packet by the other version is not read.
                    To::All(versions) => {
                        from(by).into_iter().find(|one| versions.has(one) && on(&by, one) && on(number, one))
                    }
                    To::One(to) => from(*number).contains(&to).then(|| from(by)[usize::from(to.is_ipv6())]),
                };
                if let Some(address) = to_it {
                    let at_once = node.hear(send.cable, address, &send.bytes, self.now).unwrap();
                    answers.push((*number, at_once));
                }
            }
            for (number, sends) in answers {
                self.send(number, sends);
            }
        }
    }

    /// Goes on for so long.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.nodes.values().filter_map(Engine::next).min().unwrap_or(end);
            if next >= end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            let numbers: Vec<u16> = self.nodes.keys().copied().collect();
            for number in numbers {
                let sends = self.nodes.get_mut(&number).unwrap().due(self.now).unwrap();
                self.send(number, sends);
            }
        }
    }

    /// What a node has heard since it was asked, by instance.
    fn news(&mut self, number: u16) -> Vec<String> {
        let browser = self.nodes.get_mut(&number).unwrap().browser.as_mut().unwrap();
        let told = std::mem::take(&mut browser.news).into_values().map(|heard| match heard {
            Heard::Node(sighting) => {
                let further: String = sighting.further.iter().map(|ip| format!(" {ip}")).collect();
                format!("{} at {}{further}", sighting.name, sighting.rear)
            }
            Heard::Refused(_, why) => format!("refused: {why}"),
            Heard::Gone(tag) => {
                let is = |number: &u16| key(*number).id().tag() == tag;
                format!("n{} gone", (0..2000).find(is).unwrap())
            }
        });
        let mut told: Vec<String> = told.collect();
        told.sort();
        told
    }

    fn known(&mut self, number: u16) -> (usize, usize, usize) {
        self.nodes[&number].browser.as_ref().unwrap().len()
    }

    /// How many packets have left since then, and how many of them are questions: what goes by both versions is two.
    fn cost_since(&self, since: Duration) -> (usize, usize) {
        let (mut all, mut questions) = (0, 0);
        for (_, by, send) in self.sent.iter().filter(|(at, ..)| *at >= since) {
            let packets = match send.to {
                To::All(versions) => from(*by).iter().filter(|one| versions.has(one)).count(),
                To::One(_) => 1,
            };
            all += packets;
            questions += if message::decode(&send.bytes).unwrap().is_answer { 0 } else { packets };
        }
        (all, questions)
    }

    fn packets_since(&self, since: Duration) -> Vec<(&Send, Packet)> {
        let later = self.sent.iter().filter(|(at, ..)| *at >= since);
        later.map(|(_, _, send)| (send, message::decode(&send.bytes).unwrap())).collect()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_newcomer_is_found_and_finds_at_once_and_a_good_bye_is_heard() {
    let mut lan = Lan::new();
    lan.join(1);
    lan.pass(Duration::from_secs(100));
    assert_eq!(lan.news(1), ["n1 at 10.0.0.1:7300"], "it hears itself");
    let names = Names::new().unwrap();
    let asks =
        |(_, packet): &(&Send, Packet)| packet.questions.iter().any(|(question, _)| question.name == names.service);
    let asked = lan.packets_since(Duration::ZERO).iter().filter(|sent| asks(sent)).count();
    assert_eq!(asked, 7, "at once, and after 1, 3, 7, 15, 31, 63 s");
    lan.join(2);
    lan.pass(Duration::from_millis(300));
    assert_eq!(lan.news(1), ["n2 at 10.0.0.2:7300"]);
    assert_eq!(lan.news(2), ["n1 at 10.0.0.1:7300", "n2 at 10.0.0.2:7300"]);
    lan.pass(Duration::from_secs(3600));
    assert_eq!((lan.news(1), lan.news(2)), (vec![], vec![]), "who goes on is no news");

    let sends = lan.nodes.get_mut(&2).unwrap().bye().unwrap();
    lan.send(2, sends);
    lan.pass(SECOND + Duration::from_millis(100));
    assert_eq!(lan.news(1), ["n2 gone"]);
    assert_eq!(lan.known(1).0, 1);
    // It is said again by somebody who cannot: nobody is there to be gone.
    lan.pass(Duration::from_secs(600));
    assert_eq!(lan.news(1), Vec::<String>::new());
}

#[test]
fn who_crashed_is_asked_four_times_and_is_gone_when_its_time_is_over() {
    let mut lan = Lan::new();
    lan.join(1);
    lan.join(2);
    lan.pass(Duration::from_secs(50));
    lan.news(1);
    lan.nodes.remove(&2);
    let crashed = lan.now - lan.start;
    let mut gone = Duration::ZERO;
    while gone.is_zero() {
        lan.pass(SECOND);
        assert!(lan.now - lan.start < crashed + TTL_HOST + SECOND, "it is still there");
        if lan.news(1) == ["n2 gone"] {
            gone = lan.now - lan.start;
        }
    }
    let names = Names::new().unwrap();
    let (instance, _) = names.of(&key(2).id().tag()).unwrap();
    let asked = |(_, packet): &(&Send, Packet)| {
        packet.questions.iter().any(|(question, _)| question.name == instance && question.kind == Kind::Service)
    };
    assert_eq!(lan.packets_since(crashed).iter().filter(|sent| asked(sent)).count(), 4);
    lan.pass(Duration::from_secs(600));
    assert_eq!(lan.known(1), (1, 1, lan.known(1).2), "nothing is left of it");
}

#[test]
fn a_quiet_lan_costs_each_an_answer_in_ninety_seconds_and_no_signature_twice() {
    const NODES: u16 = 30;
    let mut lan = Lan::new();
    (0..NODES).for_each(|number| lan.join(number));
    lan.pass(Duration::from_secs(300));
    for number in 0..NODES {
        assert_eq!(lan.news(number).len(), usize::from(NODES));
    }
    let (since, minutes) = (lan.now - lan.start, 30);
    lan.pass(Duration::from_secs(minutes * 60));
    let packets = lan.packets_since(since);
    let answers = packets.iter().filter(|(_, packet)| packet.is_answer).count() as f64;
    // A node is asked for after 65 to 82 hundredths of two minutes, as its name says, and its host with it, never alone.
    let needed = f64::from(NODES) * minutes as f64 * 60.0 / (120.0 * 0.735);
    let of_hosts = packets.iter().flat_map(|(_, packet)| &packet.questions);
    assert_eq!(of_hosts.filter(|(question, _)| matches!(question.kind, Kind::A | Kind::Aaaa)).count(), 0);
    assert!(answers < needed * 1.1, "{answers} answers, needed about {needed}");
    // Those who listen ask for each other: not each for itself.
    let questions = (packets.len() as f64 - answers) / answers;
    assert!(questions < 1.5, "{questions} questions for each answer");
    for number in 0..NODES {
        assert_eq!(lan.news(number), Vec::<String>::new());
        let (instances, hosts, deadlines) = lan.known(number);
        assert_eq!((instances, hosts), (30, 30));
        assert!(deadlines <= 4 * 60 + 64, "{deadlines}");
        assert_eq!(lan.nodes[&number].browser.as_ref().unwrap().verified, 30);
    }
}

#[test]
fn who_is_known_to_who_asks_says_nothing() {
    let mut lan = Lan::new();
    (1..=70).for_each(|number| lan.join(number));
    lan.pass(Duration::from_secs(16));
    let asked = lan.packets_since(Duration::from_secs(14));
    let asked: Vec<&Packet> =
        asked.iter().map(|(_, packet)| packet).filter(|p| !p.is_answer && !p.records.is_empty()).collect();
    let long = asked.iter().filter(|packet| packet.is_truncated).count();
    assert!(long > 0, "seventy known answers fill more than one packet");
    let largest = lan.sent.iter().map(|(_, _, send)| send.bytes.len()).max().unwrap();
    assert!(largest < 1472, "{largest} bytes");
    // Their last questions were a second ago or more: whoever wanted to answer would have done it by now.
    let answers = |since: Duration| lan.packets_since(since).iter().filter(|(_, packet)| packet.is_answer).count();
    assert_eq!(answers(Duration::from_secs(8)), 0, "all is known");
}

#[test]
fn a_lan_that_loses_packets_is_found_all_the_same() {
    let mut lan = Lan::new();
    lan.loses = 3;
    (1..=40).for_each(|number| lan.join(number));
    lan.pass(Duration::from_secs(300));
    let known: Vec<usize> = (1..=40).map(|number| lan.news(number).len()).collect();
    assert_eq!(known, [40; 40]);
}

/// An answer as anybody can send it.
fn said(records: &[Record]) -> Vec<u8> {
    message::answer(records, None).unwrap()
}

fn bundle(number: u16) -> Vec<Record> {
    let mut engine = Engine::new(false, 1, Instant::now()).unwrap();
    let now = Instant::now();
    engine.on([(CABLE, vec![ip(number)])].into(), now);
    announce(&mut engine, number, &format!("n{number}"), now);
    let send = engine.due(now + SECOND).unwrap().remove(0);
    message::decode(&send.bytes).unwrap().records
}

#[test]
fn a_stranger_ends_nobody_and_takes_nobodys_place() {
    let mut lan = Lan::new();
    lan.join(1);
    lan.join(2);
    lan.pass(Duration::from_secs(20));
    lan.news(1);
    // A good-bye in the name of another: he is there, and says so before it counts.
    let bye: Vec<Record> = bundle(2).into_iter().map(|record| Record { ttl: Duration::ZERO, ..record }).collect();
    lan.send(9, vec![all(said(&bye))]);
    lan.pass(Duration::from_secs(10));
    assert_eq!(lan.news(1), Vec::<String>::new());

    // Another text under his name: unsigned, or signed by somebody else.
    let names = Names::new().unwrap();
    let (instance, host) = names.of(&key(2).id().tag()).unwrap();
    let text = |text: Vec<Vec<u8>>| Record { name: instance.clone(), ttl: TTL, flush: true, data: Data::Text(text) };
    let others = bundle(3).into_iter().find_map(|record| match record.data {
        Data::Text(text) => Some(text),
        _ => None,
    });
    for forged in [vec![b"v=1".to_vec()], others.unwrap()] {
        lan.send(9, vec![all(said(&[text(forged)]))]);
        lan.pass(Duration::from_secs(3));
        assert_eq!(lan.news(1), Vec::<String>::new());
    }
    // As the first words of somebody who is not there it is refused, and forgotten.
    lan.nodes.remove(&2);
    lan.pass(Duration::from_secs(200));
    assert_eq!(lan.news(1), ["n2 gone"]);
    let mut forged = bundle(3);
    for record in &mut forged {
        match &mut record.data {
            Data::Pointer(name) => *name = instance.clone(),
            Data::Service(at, _) => (record.name, *at) = (instance.clone(), host.clone()),
            Data::Text(_) => record.name = instance.clone(),
            Data::Address(_) => record.name = host.clone(),
        }
    }
    lan.send(9, vec![all(said(&forged))]);
    lan.pass(SECOND);
    let tag = key(3).id().tag();
    assert_eq!(lan.news(1), [format!("refused: it is announced under another name than its key's, {tag}")]);
    lan.pass(Duration::from_secs(10));
    assert_eq!(lan.known(1).0, 1, "it has no signature that counts");

    // Answers from another port are none.
    let node = lan.nodes.get_mut(&1).unwrap();
    node.hear(CABLE, SocketAddr::new(ip(9), 4000), &said(&bundle(5)), lan.now).unwrap();
    assert_eq!(lan.news(1), Vec::<String>::new());
}

#[test]
fn one_second_has_one_answer_for_all_and_ten_for_single_ones() {
    let mut lan = Lan::new();
    lan.join(1);
    lan.pass(Duration::from_secs(30));
    let names = Names::new().unwrap();
    let ask = |kind, name: &Name| message::ask([Question { name: name.clone(), kind }].iter(), &[]).unwrap().remove(0);
    let (instance, _) = names.of(&key(1).id().tag()).unwrap();
    let since = lan.now - lan.start;
    for _ in 0..50 {
        lan.send(7, vec![all(ask(Kind::Pointer, &names.service))]);
        lan.send(8, vec![all(ask(Kind::Any, &instance))]);
        lan.pass(Duration::from_millis(100));
    }
    let answers = lan.packets_since(since).iter().filter(|(_, packet)| packet.is_answer).count();
    assert!((5..=6).contains(&answers), "{answers} in five seconds");
    lan.pass(SECOND * 2);
    // Types of services are listed, and a resolver that is none of multicast DNS is answered with its own number, alone.
    let since = lan.now - lan.start;
    lan.send(7, vec![all(ask(Kind::Pointer, &names.types))]);
    lan.pass(SECOND);
    let types = lan.packets_since(since).into_iter().find(|(_, packet)| packet.is_answer).unwrap().1;
    assert_eq!(types.records[0].data, Data::Pointer(names.service.clone()));
    let mut question = ask(Kind::Pointer, &names.service);
    question[..2].copy_from_slice(&[0x12, 0x34]);
    let resolver = SocketAddr::new(ip(9), 40_000);
    let node = lan.nodes.get_mut(&1).unwrap();
    let answers: Vec<Send> = (0..50).flat_map(|_| node.hear(CABLE, resolver, &question, lan.now).unwrap()).collect();
    assert_eq!(answers.len(), 10);
    let packet = message::decode(&answers[0].bytes).unwrap();
    assert_eq!((answers[0].to, packet.id, packet.questions.len()), (To::One(resolver), 0x1234, 1));
    assert!(packet.records.iter().all(|record| record.ttl <= Duration::from_secs(10) && !record.flush));
}

#[test]
fn a_node_on_two_cables_has_the_addresses_of_both_and_a_cable_that_goes_takes_its_own() {
    let (now, mut lan) = (Instant::now(), Lan::new());
    lan.nodes.insert(1, Engine::new(true, 1, now).unwrap());
    let mut two = Engine::new(false, 2, now).unwrap();
    let both: BTreeMap<u32, Vec<IpAddr>> = [(CABLE, vec![ip(2)]), (3, vec!["fd00::2".parse().unwrap()])].into();
    two.on(both.clone(), lan.now);
    announce(&mut two, 2, "n2", lan.now);
    lan.nodes.insert(2, two);
    lan.pass(Duration::from_secs(5));
    assert_eq!(lan.news(1), ["n2 at 10.0.0.2:7300 fd00::2"]);
    lan.pass(Duration::from_secs(10));
    assert_eq!(lan.news(1), Vec::<String>::new());
    // It moves: the old address is over a second later.
    let moved: BTreeMap<u32, Vec<IpAddr>> = [(CABLE, vec![ip(99)]), (3, both[&3].clone())].into();
    let now = lan.now;
    lan.nodes.get_mut(&2).unwrap().on(moved, now);
    lan.pass(Duration::from_secs(4));
    assert_eq!(lan.news(1), ["n2 at 10.0.0.99:7300 fd00::2"]);
}

#[test]
fn who_goes_just_after_its_cable_came_back_says_good_bye_there() {
    let mut lan = Lan::new();
    lan.join(1);
    lan.join(2);
    lan.pass(Duration::from_secs(5));
    lan.news(1);
    let now = lan.now;
    let two = lan.nodes.get_mut(&2).unwrap();
    two.on(BTreeMap::new(), now);
    two.on([(CABLE, vec![ip(2)])].into(), now);
    let sends = two.bye().unwrap();
    lan.send(2, sends);
    lan.pass(SECOND + Duration::from_millis(100));
    assert_eq!(lan.news(1), ["n2 gone"]);
    // Who was never announced says nothing.
    let mut three = Engine::new(false, 3, lan.now).unwrap();
    three.on([(CABLE, vec![ip(3)])].into(), lan.now);
    announce(&mut three, 3, "n3", lan.now);
    assert_eq!(three.bye().unwrap(), []);
}

#[test]
fn other_words_are_news_and_no_more_than_once_a_second() {
    let mut lan = Lan::new();
    lan.join(1);
    lan.join(2);
    lan.pass(Duration::from_secs(20));
    lan.news(1);
    let now = lan.now;
    announce(lan.nodes.get_mut(&2).unwrap(), 2, "renamed", now);
    lan.pass(Duration::from_millis(300));
    assert_eq!(lan.news(1), ["renamed at 10.0.0.2:7300"]);
    // Somebody replays both in turn.
    let renamed =
        lan.sent.iter().rev().find(|(_, by, send)| *by == 2 && message::decode(&send.bytes).unwrap().is_answer);
    let (both, mut told) = ([said(&bundle(2)), renamed.unwrap().2.bytes.clone()], 0);
    for turn in 0..40 {
        lan.send(9, vec![all(both[turn % 2].clone())]);
        lan.pass(Duration::from_millis(125));
        told += lan.news(1).len();
    }
    assert!((1..=6).contains(&told), "{told} times in five seconds");
}

#[test]
fn a_flood_is_bounded() {
    let names = Names::new().unwrap();
    let now = Instant::now();
    let mut engine = Engine::new(true, 1, now).unwrap();
    let pointer = |number: u32| Record {
        name: names.service.clone(),
        ttl: Duration::from_secs(1),
        flush: false,
        data: Data::Pointer(names.service.prepend_label(format!("x{number}")).unwrap()),
    };
    for number in 0..200 {
        let records: Vec<Record> = (number * 40..(number + 1) * 40).map(pointer).collect();
        engine.hear(CABLE, from(9)[0], &said(&records), now).unwrap();
    }
    assert_eq!(engine.browser.as_ref().unwrap().len().0, 1024, "they have no signature");
    // What is asked about them is asked slowly.
    let mut asked = 0;
    for tenth in 0..100 {
        asked += engine.due(now + Duration::from_millis(100) * tenth).unwrap().len();
    }
    assert_eq!(asked, 0, "there is no cable");
    engine.on([(CABLE, vec![ip(1)])].into(), now);
    for tenth in 100..200 {
        asked += engine.due(now + Duration::from_millis(100) * tenth).unwrap().len();
    }
    assert!(asked < 30, "{asked} packets in ten seconds");
    assert_eq!(engine.browser.as_ref().unwrap().len().0, 0, "and then they are forgotten");

    // A crowd that is signed fills what there is, and no more.
    let many = Duration::from_secs(30);
    let mut records = bundle(2);
    let (_, host) = names.of(&key(2).id().tag()).unwrap();
    records.extend((0..200).map(|number| Record {
        name: host.clone(),
        ttl: TTL_HOST,
        flush: false,
        data: Data::Address(ip(number)),
    }));
    engine.hear(CABLE, from(9)[0], &said(&records), now + many).unwrap();
    let Some(Heard::Node(sighting)) = engine.browser.as_mut().unwrap().news.pop_first().map(|(_, heard)| heard) else {
        panic!("it is a node")
    };
    assert_eq!(sighting.further.len(), 3);
}

proptest::proptest! {
    /// Whatever bytes come, also good ones that were changed: they are read or dropped, and what is kept is bounded.
    #[test]
    fn packets_of_strangers_never_surprise(
        garbage in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600),
        changes in proptest::collection::vec((0usize..600, proptest::prelude::any::<u8>()), 0..8),
    ) {
        let now = Instant::now();
        let mut engine = Engine::new(true, 1, now).unwrap();
        engine.on([(CABLE, vec![ip(1)])].into(), now);
        announce(&mut engine, 1, "n1", now);
        let question = Question { name: Names::new().unwrap().service, kind: Kind::Pointer };
        let mut good = vec![said(&bundle(2)), message::ask([question].iter(), &bundle(2)).unwrap().remove(0), garbage];
        for bytes in &mut good {
            for (at, byte) in &changes {
                if let Some(there) = bytes.get_mut(*at) {
                    *there = *byte;
                }
            }
            engine.hear(CABLE, from(9)[0], bytes, now).unwrap();
            engine.hear(CABLE, SocketAddr::new(ip(9), 99), bytes, now).unwrap();
        }
        for second in 0..200 {
            proptest::prop_assert!(engine.due(now + SECOND * second).unwrap().len() < 8);
        }
    }
}

#[test]
fn who_was_found_at_the_same_time_is_not_asked_for_at_the_same_time() {
    let (names, now) = (Names::new().unwrap(), Instant::now());
    let life = Life::new(TTL_HOST, now);
    let mut jitter = Jitter::new(1);
    let first = |seed: u16, jitter: &mut Jitter| {
        let (_, host) = names.of(&key(seed).id().tag()).unwrap();
        life.refresh(&host, jitter, now).1 - now
    };
    let times: Vec<Duration> = (0..100).map(|seed| first(seed, &mut jitter)).collect();
    let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*least >= TTL_HOST * 65 / 100 && *most <= TTL_HOST * 82 / 100, "{least:?} {most:?}");
    assert!(*most - *least > TTL_HOST * 12 / 100, "all at once: {least:?} to {most:?}");
    // Who else listens asks for it at about the same time: one for all.
    let theirs = first(7, &mut Jitter::new(2));
    assert!(theirs.abs_diff(times[7]) <= TTL_HOST * 2 / 100);
}
