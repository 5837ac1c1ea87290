//! Who is up, who is kept, who comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::Value;

use super::rig::*;
use crate::*;

#[tokio::test]
async fn both_sides_know_each_other_by_key_and_name() {
    let (a, b) = pair().await;
    let seen = a.get(&b.id()).unwrap().peer().clone();
    assert_eq!((seen.name.as_str(), seen.domain.as_str(), seen.dialled), ("node2", "node2.example", true));
    assert_eq!(seen.address, b.local_address().unwrap());
    let seen = b.get(&a.id()).unwrap().peer().clone();
    assert_eq!((seen.name.as_str(), seen.dialled, seen.version), ("node1", false, 1));
    assert_eq!(a.dials()[0].1, DialStatus::Up(b.id()));
    a.stop().await;
    down(&b, a.id()).await;
    b.stop().await;
}

#[tokio::test]
async fn another_key_than_expected_is_refused_with_both_names() {
    let (a, b) = (node(1), node(2));
    a.dial(b.local_address().unwrap(), Some(key(9).id()));
    let failed = |status: &DialStatus| matches!(status, DialStatus::Trying { failures, .. } if *failures > 1);
    let status = until("refusal", || a.dials()[0].1.clone(), failed).await;
    let DialStatus::Trying { last_error, .. } = status else { panic!("{status:?}") };
    assert!(last_error.contains(&format!("peer is {}, needed {}", b.id(), key(9).id())), "{last_error}");
    assert!(a.peers().is_empty() && b.peers().is_empty());
    // The right one, and all is well.
    a.dial(b.local_address().unwrap(), Some(b.id()));
    up(&a, b.id()).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn two_dials_at_once_leave_one_session_the_same_on_both_sides() {
    for round in 0..10u8 {
        let (a, b) = (node(2 * round + 1), node(2 * round + 2));
        let (to_a, to_b) = (a.local_address().unwrap(), b.local_address().unwrap());
        a.dial(to_b, None);
        b.dial(to_a, None);
        let settled = |links: &Links| links.dials().iter().all(|(_, status)| matches!(status, DialStatus::Up(_)));
        until("both dials settle", || (a.dials(), b.dials()), |_| settled(&a) && settled(&b)).await;
        // Whose it is must agree, and stay so.
        let agree = || {
            let (at_a, at_b) = (a.get(&b.id()), b.get(&a.id()));
            at_a.zip(at_b).map(|(at_a, at_b)| (at_a.peer().dialled, at_b.peer().dialled))
        };
        until("one dialler", agree, |seen| seen.is_some_and(|(a, b)| a != b)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (a_dialled, b_dialled) = agree().expect("still up");
        assert!(a_dialled != b_dialled, "round {round}: a {a_dialled}, b {b_dialled}");
        a.stop().await;
        b.stop().await;
    }
}

#[tokio::test]
async fn two_addresses_of_one_peer_are_one_session() {
    let (a, b) = (node(1), node(2));
    let wire = Wire::to(b.local_address().unwrap()).await;
    let mut events = a.events();
    a.dial(b.local_address().unwrap(), None);
    up(&a, b.id()).await;
    a.dial(wire.address, None);
    let settled = |dials: &Vec<(_, DialStatus)>| dials.iter().all(|(_, status)| *status == DialStatus::Up(b.id()));
    until("both dials lead to it", || a.dials(), settled).await;
    assert!(matches!(events.recv().await, Ok(Event::Up(_))));
    assert!(events.try_recv().is_err(), "the session was not disturbed");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_cut_wire_is_noticed_and_mended() {
    let (a, b) = (impatient(1, 1), impatient(2, 1));
    let wire = Wire::to(b.local_address().unwrap()).await;
    let mut events = a.events();
    a.dial(wire.address, Some(b.id()));
    let first = up(&a, b.id()).await.peer().session;
    wire.set_cut(true);
    let cut = Instant::now();
    down(&a, b.id()).await;
    assert!(cut.elapsed() < Duration::from_secs(3), "{:?}", cut.elapsed());
    down(&b, a.id()).await;
    assert!(matches!(a.open(&b.id(), "echo", &()).await, Err(LinkError::NotConnected { .. })));
    wire.set_cut(false);
    let second = up(&a, b.id()).await.peer().session;
    assert!(second > first);
    let seen = [events.recv().await.unwrap(), events.recv().await.unwrap(), events.recv().await.unwrap()];
    let Event::Down { peer, session, reason } = &seen[1] else { panic!("{seen:?}") };
    assert_eq!((*peer, *session, reason.as_str()), (b.id(), first, "nothing was heard for too long"));
    assert!(matches!((&seen[0], &seen[2]), (Event::Up(_), Event::Up(_))), "{seen:?}");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_node_that_was_killed_and_restarted_is_up_again_before_the_silence_is_over() {
    // Fifteen seconds of silence are allowed; the restarted node's reset must be believed long before.
    let patient = |incarnation| {
        let options = Options { keep_alive: Duration::from_millis(200), ..options("node2", incarnation) };
        Links::start(key(2), options).unwrap()
    };
    let a = Links::start(key(1), Options { keep_alive: Duration::from_millis(200), ..options("node1", 1) }).unwrap();
    let (old, new) = (patient(1), patient(2));
    let wire = Wire::to(old.local_address().unwrap()).await;
    a.dial(wire.address, Some(old.id()));
    assert_eq!(up(&a, old.id()).await.peer().incarnation, 1);
    // Killed: it says nothing more. Restarted: its address leads to a process that knows nothing.
    wire.lead_to(new.local_address().unwrap());
    let killed = Instant::now();
    let incarnation = || a.get(&new.id()).map(|session| session.peer().incarnation);
    until("the new incarnation", incarnation, |seen| *seen == Some(2)).await;
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    for links in [a, old, new] {
        links.stop().await;
    }
}

#[tokio::test]
async fn a_second_live_copy_is_refused_whatever_it_says_and_both_owners_are_told() {
    // One says that it is younger, the other that it is older: neither helps it.
    for number in [9, 1] {
        let b = node(2);
        let (original, copy) = (impatient(1, 5), impatient(1, number));
        let (mut at_b, mut at_original, mut at_copy) = (b.events(), original.events(), copy.events());
        original.dial(b.local_address().unwrap(), Some(b.id()));
        let first = up(&b, original.id()).await.peer().session;
        copy.dial(b.local_address().unwrap(), Some(b.id()));
        let failed = |status: &DialStatus| matches!(status, DialStatus::Trying { failures, .. } if *failures > 1);
        let status = until("refusal", || copy.dials()[0].1.clone(), failed).await;
        let DialStatus::Trying { last_error, .. } = status else { panic!("{status:?}") };
        assert!(last_error.contains("this one is taken for a copy"), "{last_error}");
        let session = b.get(&original.id()).unwrap();
        assert_eq!((session.peer().session, session.peer().incarnation), (first, 5), "undisturbed");
        assert!(copy.peers().is_empty());
        let told = async |events: &mut tokio::sync::broadcast::Receiver<Event>| loop {
            if let Event::Copies { key, witness, younger } = events.recv().await.unwrap() {
                return (key, witness, younger);
            }
        };
        let younger = format!("the one that calls from {}", copy.local_address().unwrap());
        assert_eq!(told(&mut at_b).await, (original.id(), b.id(), younger.clone()));
        assert_eq!(told(&mut at_original).await, (original.id(), b.id(), younger));
        assert_eq!(told(&mut at_copy).await, (original.id(), b.id(), "this one".into()));
        // The original goes, and the other may stay.
        original.stop().await;
        assert_eq!(up(&copy, b.id()).await.peer().id, b.id());
        for links in [copy, b] {
            links.stop().await;
        }
    }
}

#[tokio::test]
async fn a_restart_elsewhere_waits_no_longer_than_the_older_process_is_given_to_answer() {
    let b = Links::start(key(2), Options { keep_alive: Duration::from_millis(200), ..options("node2", 1) }).unwrap();
    // Also with a clock that was set back.
    let (old, new) = (node(1), impatient(1, 0));
    let wire = Wire::to(b.local_address().unwrap()).await;
    old.dial(wire.address, Some(b.id()));
    up(&b, old.id()).await;
    wire.set_cut(true);
    let cut = Instant::now();
    new.dial(b.local_address().unwrap(), Some(b.id()));
    let incarnation = || b.get(&new.id()).map(|session| session.peer().incarnation);
    until("the new process", incarnation, |seen| *seen == Some(0)).await;
    assert!(cut.elapsed() < Duration::from_secs(4), "{:?}", cut.elapsed());
    for links in [old, new, b] {
        links.stop().await;
    }
}

#[tokio::test]
async fn a_key_that_counts_no_more_has_no_session_and_gets_none() {
    let (a, b) = pair().await;
    b.refuse([(a.id(), "was revoked".into())].into());
    down(&b, a.id()).await;
    let told = |status: &DialStatus| {
        matches!(status, DialStatus::Trying { last_error, failures } if *failures > 0
            && last_error.contains("this node's key counts no more there"))
    };
    until("refusal", || a.dials()[0].1.clone(), told).await;
    b.refuse(Default::default());
    up(&b, a.id()).await;
    for links in [a, b] {
        links.stop().await;
    }
}

#[tokio::test]
async fn a_peer_that_is_not_there_yet_is_dialled_until_it_is() {
    let a = node(1);
    let place = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = place.local_addr().unwrap();
    a.dial(address, None);
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(place);
    let b = Links::start(key(2), Options { listen: address, ..options("node2", 1) }).unwrap();
    up(&a, b.id()).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_node_that_dials_itself_stops() {
    let a = node(1);
    a.dial(a.local_address().unwrap(), None);
    until("the dial", || a.dials()[0].1.clone(), |status| *status == DialStatus::Itself).await;
    assert!(a.peers().is_empty());
    a.stop().await;
}

#[tokio::test]
async fn a_dial_that_was_given_up_is_not_made_again() {
    let (a, b) = pair().await;
    a.undial(b.local_address().unwrap());
    assert!(a.get(&b.id()).is_some(), "the session stays");
    b.disconnect(&a.id());
    down(&a, b.id()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(a.peers().is_empty() && a.dials().is_empty());
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn an_address_in_use_is_refused_with_its_name() {
    let a = node(1);
    let listen = a.local_address().unwrap();
    let error = Links::start(key(2), Options { listen, ..options("node2", 1) }).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains(&format!("cannot listen on {listen}/udp")), "{error}");
    a.stop().await;
}

struct Forever {
    started: Arc<AtomicBool>,
    cancelled: Arc<AtomicBool>,
}

struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Handler for Forever {
    async fn stream(&self, _peer: &PeerInfo, _header: Value, _stream: LinkStream) {
        let _on_drop = OnDrop(self.cancelled.clone());
        self.started.store(true, Ordering::SeqCst);
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn handlers_end_with_their_session() {
    let (a, b) = pair().await;
    let forever = Forever { started: Arc::default(), cancelled: Arc::default() };
    let (started, cancelled) = (forever.started.clone(), forever.cancelled.clone());
    b.handle("forever", Arc::new(forever)).unwrap();
    assert!(matches!(b.handle("forever", Arc::new(Echo)), Err(LinkError::Taken(_))));
    let _stream = a.open(&b.id(), "forever", &()).await.unwrap();
    until("the handler starts", || started.load(Ordering::SeqCst), |started| *started).await;
    assert!(!cancelled.load(Ordering::SeqCst));
    a.stop().await;
    until("the handler ends", || cancelled.load(Ordering::SeqCst), |cancelled| *cancelled).await;
    b.stop().await;
}
