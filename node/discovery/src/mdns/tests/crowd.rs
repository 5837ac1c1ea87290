//! What many cost: packets by each version of IP, and how often a node wakes, without a clock.

use super::*;

#[test]
fn who_is_heard_by_one_version_of_ip_is_asked_and_answers_by_that_one() {
    let mut lan = Lan::new();
    (1..=20).for_each(|number| lan.join(number));
    lan.pass(Duration::from_secs(300));
    (1..=20).for_each(|number| drop(lan.news(number)));
    let since = lan.now - lan.start;
    lan.pass(Duration::from_secs(3600));
    let (packets, questions) = lan.cost_since(since);
    // Each answers once in some 86 s. "Who is there?" is asked everywhere, by all, four times in this hour.
    let answers = packets - questions;
    let once = 20.0 * 3600.0 / (120.0 * 0.72);
    assert!((answers as f64) < once * 1.1, "{answers} answers of twenty in an hour, needed about {once:.0}");
    let asked = lan.packets_since(since).iter().filter(|(_, packet)| !packet.is_answer).count();
    assert!(questions <= asked + 20 * 4, "{questions} packets for {asked} questions");

    // Who has IPv6 alone is found, and kept, and so is everybody there.
    lan.only_v6 = [30, 31].into();
    lan.join(30);
    lan.join(31);
    lan.pass(SECOND * 5);
    assert_eq!((lan.news(30).len(), lan.news(31).len()), (22, 22));
    assert_eq!(lan.news(1), ["n30 at 10.0.0.30:7300", "n31 at 10.0.0.31:7300"]);
    lan.pass(Duration::from_secs(1200));
    assert_eq!((lan.news(1), lan.news(30), lan.news(31)), (vec![], vec![], vec![]));

    // One that does not hear IPv4 any more is asked by both, and stays.
    lan.only_v6.insert(2);
    lan.nodes.remove(&30);
    lan.nodes.remove(&31);
    lan.pass(Duration::from_secs(1200));
    let news = lan.news(1);
    assert_eq!(news, ["n30 gone", "n31 gone"]);
}

/// A node that has just heard these, by IPv4, and what each of them says when it is asked.
fn listener(numbers: std::ops::Range<u16>, now: Instant) -> (Engine, BTreeMap<Name, Vec<u8>>) {
    let (names, mut engine) = (Names::new().unwrap(), Engine::new(true, 1, now).unwrap());
    engine.on([(CABLE, vec![ip(1)])].into(), now);
    let mut said_by = BTreeMap::new();
    for number in numbers {
        let bytes = said(&bundle(number));
        engine.hear(CABLE, from(number)[0], &bytes, now).unwrap();
        said_by.insert(names.of(&key(number).id().tag()).unwrap().0, bytes);
    }
    (engine, said_by)
}

#[test]
fn a_crowd_wakes_a_node_about_once_a_second() {
    let (start, crowd) = (Instant::now(), 2..202);
    let (mut engine, said_by) = listener(crowd.clone(), start);
    let (mut wakes, mut now) = (0, start);
    while now < start + Duration::from_secs(200) {
        now = engine.next().unwrap().max(now + Duration::from_millis(1));
        wakes += 1;
        for send in engine.due(now).unwrap() {
            for (question, _) in message::decode(&send.bytes).unwrap().questions {
                if let Some(bytes) = said_by.get(&question.name) {
                    engine.hear(CABLE, from(9)[0], bytes, now).unwrap();
                }
            }
        }
    }
    assert_eq!(engine.browser.as_ref().unwrap().len().0, crowd.len(), "all are there");
    // Each second, and each packet of questions.
    assert!(wakes < 400, "{wakes} times in 200 seconds for {} nodes", crowd.len());
}

#[test]
fn who_does_not_answer_by_one_version_of_ip_is_asked_by_both() {
    let start = Instant::now();
    let (mut engine, said_by) = listener(2..3, start);
    let (mut asked, mut now) = (Vec::new(), start);
    while now < start + TTL_HOST {
        now = engine.next().unwrap().max(now + Duration::from_millis(1));
        for send in engine.due(now).unwrap() {
            let questions = message::decode(&send.bytes).unwrap().questions;
            let is_of_it = |question: &Question| said_by.contains_key(&question.name) && question.kind == Kind::Service;
            asked.extend(questions.iter().any(|(question, _)| is_of_it(question)).then_some(send.to));
        }
    }
    let v4 = To::All(Versions::of(&from(2)[0]));
    let both = To::All(Versions::BOTH);
    assert_eq!(asked, [v4, both, both, both]);
}
