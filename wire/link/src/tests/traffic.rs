//! What goes over a session: streams, requests, datagrams.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::rig::*;
use crate::*;

#[tokio::test]
async fn streams_carry_bytes_both_ways_and_fast() {
    let (a, b) = pair().await;
    a.handle("echo", Arc::new(Echo)).unwrap();
    b.handle("echo", Arc::new(Echo)).unwrap();
    const BYTES: usize = 16 << 20;
    // Whoever dialled: both open.
    for (from, to) in [(&a, &b), (&b, &a)] {
        let (mut read, mut write) = from.open(&to.id(), "echo", &json!({"any": 1})).await.unwrap().into_split();
        let started = Instant::now();
        let sent: Vec<u8> = (0..BYTES).map(|index| (index % 251) as u8).collect();
        let copy = sent.clone();
        let writing = tokio::spawn(async move {
            write.write_all(&copy).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut back = Vec::with_capacity(BYTES);
        tokio::time::timeout(WAIT, read.read_to_end(&mut back)).await.expect("16 MiB there and back in 10 s").unwrap();
        writing.await.unwrap();
        assert!(back == sent, "{} bytes of {BYTES} came back", back.len());
        let rate = BYTES as f64 / started.elapsed().as_secs_f64() / f64::from(1 << 20);
        assert!(rate > 2.0, "{rate} MiB/s there and back");
    }
    let stats = a.get(&b.id()).unwrap().stats();
    assert!(stats.sent_bytes > 2 * BYTES as u64 && stats.received_bytes > 2 * BYTES as u64, "{stats:?}");
    assert!(stats.round_trip > Duration::ZERO && stats.round_trip < Duration::from_secs(1), "{stats:?}");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn many_streams_do_not_wait_for_one_that_is_not_read() {
    let (a, b) = pair().await;
    b.handle("echo", Arc::new(Echo)).unwrap();
    let mut stuck = a.open(&b.id(), "echo", &()).await.unwrap();
    // Fills its window: nobody reads what comes back.
    let filling = tokio::time::timeout(Duration::from_millis(300), stuck.write_all(&vec![0; 8 << 20])).await;
    assert!(filling.is_err(), "back-pressure holds the writer");
    for _ in 0..100 {
        let mut stream = a.open(&b.id(), "echo", &()).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        tokio::time::timeout(WAIT, stream.read_exact(&mut back)).await.expect("an echo in 10 s").unwrap();
        assert_eq!(&back, b"ping");
    }
    a.stop().await;
    b.stop().await;
}

struct Doubler;

#[async_trait]
impl RequestHandler for Doubler {
    async fn request(&self, peer: &PeerInfo, request: Value) -> Result<Value, RequestRefusal> {
        match request {
            Value::String(wish) if wish == "slow" => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(Value::Null)
            }
            Value::String(wish) if wish == "huge" => Ok(Value::String("x".repeat(2 << 20))),
            Value::Number(number) => match number.as_u64() {
                Some(number) => Ok(json!({"doubled": number * 2, "for": peer.name})),
                None => Err(RequestRefusal::new("not-whole", format!("{number}, needed a whole number"))),
            },
            other => Err(RequestRefusal::new("not-a-number", format!("{other}, needed a number"))),
        }
    }
}

#[tokio::test]
async fn requests_are_answered_or_refused_with_the_reason() {
    let (a, b) = pair().await;
    b.handle_requests("double", Arc::new(Doubler)).unwrap();
    let ask = |kind: &'static str, request: Value| {
        let (a, b) = (a.clone(), b.id());
        async move { a.request::<Value, Value>(&b, kind, &request, Duration::from_millis(500)).await }
    };
    assert_eq!(ask("double", json!(21)).await.unwrap(), json!({"doubled": 42, "for": "node1"}));
    let refused = ask("double", json!([])).await.unwrap_err();
    let needed = format!("{} refused `double`: not-a-number: [], needed a number", b.id());
    assert_eq!(refused.to_string(), needed);
    let late = ask("double", json!("slow")).await.unwrap_err();
    assert!(late.is_retryable() && late.to_string().contains("did not answer `double` within 0.5 s"), "{late}");
    let huge = ask("double", json!("huge")).await.unwrap_err();
    assert!(
        huge.to_string().contains("refused `double`: too-large") && huge.to_string().contains("at most 1048576"),
        "{huge}"
    );
    let unknown = ask("triple", json!(1)).await.unwrap_err();
    assert!(unknown.to_string().contains("nobody handles streams of this kind"), "{unknown}");
    assert_eq!(b.counters().unknown_streams, 1);
    let large = ask("double", json!("x".repeat(70_000))).await.unwrap_err();
    assert!(matches!(large, LinkError::TooLarge { what: "header", .. }), "{large}");
    assert_eq!(b.counters().strikes, 0, "none of this is garbage");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn datagrams_reach_their_channel_and_others_are_dropped() {
    let (a, b) = pair().await;
    let mut packets = b.handle_datagrams(7).unwrap();
    assert!(matches!(b.handle_datagrams(7), Err(LinkError::Taken(_))));
    let mut back = a.handle_datagrams(8).unwrap();
    for number in 0..100u8 {
        a.send_datagram(&b.id(), 7, &[number; 1000]).unwrap();
        let datagram = tokio::time::timeout(WAIT, packets.recv()).await.expect("a datagram in 10 s").unwrap();
        assert_eq!((datagram.peer, datagram.payload.as_ref()), (a.id(), &[number; 1000][..]));
    }
    b.send_datagram(&a.id(), 8, b"").unwrap();
    assert!(tokio::time::timeout(WAIT, back.recv()).await.expect("an empty one in 10 s").unwrap().payload.is_empty());
    let session = a.get(&b.id()).unwrap();
    let longest = session.stats().datagram_bytes_max.unwrap();
    assert!(longest >= 1000, "{longest}");
    assert!(matches!(session.send_datagram(7, &vec![0; 70_000]), Err(LinkError::TooLarge { .. })));
    a.send_datagram(&b.id(), 9, b"nobody").unwrap();
    until("the drop is counted", || b.counters().dropped_datagrams, |dropped| *dropped == 1).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_slow_receiver_of_datagrams_costs_no_memory() {
    let (a, b) = pair().await;
    let packets = b.handle_datagrams(7).unwrap();
    let session = a.get(&b.id()).unwrap();
    for _ in 0..4000 {
        session.send_datagram(7, &[0; 1000]).unwrap();
        // A sender that yields, so that what is lost is lost at the receiver.
        tokio::task::yield_now().await;
    }
    let observe = || (packets.len(), b.counters().dropped_datagrams);
    until("the rest is dropped", observe, |(queued, dropped)| *queued == 1024 && *dropped > 0).await;
    a.stop().await;
    b.stop().await;
}
