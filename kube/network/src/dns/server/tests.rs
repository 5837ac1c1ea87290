#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use serde_json::json;

use super::*;
use crate::services::tests::{service, slice};

fn zone(endpoints: usize) -> Zone {
    let services = [service("d/web", "10.96.0.5", json!({})), service("d/many", "None", json!({}))];
    let addresses: Vec<String> = (0..endpoints).map(|n| format!("10.1.{}.{}", n / 250, n % 250 + 1)).collect();
    let endpoints: Vec<(&str, &str)> = addresses.iter().map(|address| (address.as_str(), "ready")).collect();
    Zone::new("cluster.local", &services, &services::all_by_service(&[slice("d/many", &endpoints)]))
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 77;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

#[test]
fn answers_have_authority_and_the_case_of_the_question() {
    let response = respond(&zone(0), &question("WEB.d.svc.Cluster.local.", RecordType::A), true).unwrap();
    assert_eq!(response.metadata.id, 77);
    assert!(response.metadata.authoritative && response.metadata.recursion_available);
    assert_eq!(response.answers.len(), 1);
    assert_eq!(response.answers[0].to_string(), "WEB.d.svc.Cluster.local. 5 IN A 10.96.0.5");
}

#[test]
fn absence_says_how_long_it_may_be_remembered() {
    for (name, kind, code) in [
        ("web.d.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError),
        ("d.svc.cluster.local.", RecordType::A, ResponseCode::NoError),
        ("nobody.d.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain),
    ] {
        let response = respond(&zone(0), &question(name, kind), true).unwrap();
        assert_eq!((response.metadata.response_code, response.answers.len()), (code, 0), "{name}");
        assert_eq!(response.authorities[0].record_type(), RecordType::SOA);
    }
    assert!(respond(&zone(0), &question("example.org.", RecordType::A), true).is_none());
}

#[test]
fn a_service_record_brings_the_address() {
    let response = respond(&zone(0), &question("_http._tcp.web.d.svc.cluster.local.", RecordType::SRV), true).unwrap();
    assert_eq!(response.answers[0].data.to_string(), "0 100 80 web.d.svc.cluster.local.");
    assert_eq!(response.additionals[0].data.to_string(), "10.96.0.5");
}

#[test]
fn a_datagram_too_large_is_cut_and_a_stream_is_not() {
    let message = question("many.d.svc.cluster.local.", RecordType::A);
    let response = respond(&zone(600), &message, true).unwrap();
    let datagram = encode(&message, response.clone(), false).unwrap();
    assert!(datagram.len() <= 512, "{}", datagram.len());
    assert!(Message::from_vec(&datagram).unwrap().metadata.truncation);
    let stream = encode(&message, response, true).unwrap();
    assert_eq!(Message::from_vec(&stream).unwrap().answers.len(), 600);
}

#[test]
fn what_is_no_question_gets_no_answer() {
    assert_eq!(malformed(&[0; 5]), None);
    assert_eq!(malformed(&[0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0]), None);
    let refused = malformed(&[0, 1, 1, 0, 0, 9, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(Message::from_vec(&refused).unwrap().metadata.response_code, ResponseCode::FormErr);
}

fn answerer(resolv_conf: PathBuf) -> Arc<Answerer> {
    let (_, served) = watch::channel(Arc::new(zone(2).into()));
    let options =
        DnsOptions { listen: vec![], domain: "cluster.local".into(), resolv_conf, own: vec![], both_for: None };
    Arc::new(Answerer { served, options, kept: Mutex::default(), slots: Semaphore::new(AT_A_TIME) })
}

/// A port that is free for both: others of this machine take some for one of them.
async fn one_port_of_both() -> (Arc<UdpSocket>, TcpListener) {
    let mut taken = Vec::new();
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        match UdpSocket::bind(listener.local_addr().unwrap()).await {
            Ok(server) => return (Arc::new(server), listener),
            // Kept, so that the next is another.
            Err(_) => taken.push(listener),
        }
    }
}

#[tokio::test]
async fn sockets_answer_and_a_machine_without_resolvers_fails_clearly() {
    let answerer = answerer("/nonexistent/flt-resolv.conf".into());
    let (server, listener) = one_port_of_both().await;
    let address = server.local_addr().unwrap();
    tokio::spawn(serve_datagrams(server, answerer.clone()));
    tokio::spawn(serve_streams(listener, answerer));
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(address).await.unwrap();
    let mut buffer = [0; 4096];
    for (name, code) in [("web.d.svc.cluster.local.", ResponseCode::NoError), ("example.org.", ResponseCode::ServFail)]
    {
        let message = question(name, RecordType::A).to_vec().unwrap();
        client.send(&message).await.unwrap();
        let length = tokio::time::timeout(Duration::from_secs(3), client.recv(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(Message::from_vec(&buffer[..length]).unwrap().metadata.response_code, code, "{name}");
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_u16(message.len() as u16).await.unwrap();
        stream.write_all(&message).await.unwrap();
        let length = stream.read_u16().await.unwrap();
        stream.read_exact(&mut buffer[..length.into()]).await.unwrap();
        assert_eq!(Message::from_vec(&buffer[..length.into()]).unwrap().metadata.response_code, code, "{name}");
    }
}

#[test]
fn the_machines_resolvers_are_asked_once_while_their_answer_holds() {
    crate::node::tests::on_machine(async |_| {
        let resolver = UdpSocket::bind("127.0.0.5:53").await.unwrap();
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = resolver.recv_from(&mut buffer).await {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let message = Message::from_vec(&buffer[..length]).unwrap();
                let mut answer = failure(&message, ResponseCode::NoError);
                let name = message.queries[0].name().clone();
                answer.add_answers([Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 9)))]);
                resolver.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        let file = tempfile::Builder::new().prefix("flt-resolv-").tempfile().unwrap();
        std::fs::write(file.path(), "nameserver 127.0.0.5\n").unwrap();
        let (server, _streams) = one_port_of_both().await;
        let address = server.local_addr().unwrap();
        tokio::spawn(serve_datagrams(server, answerer(file.path().to_owned())));
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(address).await.unwrap();
        let mut buffer = [0; 4096];
        for (id, name, times) in
            [(1, "a.example.", 1), (2, "a.example.", 1), (3, "b.example.", 2), (4, "a.example.", 2)]
        {
            let mut message = question(name, RecordType::A);
            message.metadata.id = id;
            client.send(&message.to_vec().unwrap()).await.unwrap();
            let length = tokio::time::timeout(Duration::from_secs(3), client.recv(&mut buffer)).await.unwrap().unwrap();
            let answer = Message::from_vec(&buffer[..length]).unwrap();
            assert_eq!((answer.metadata.id, answer.answers[0].data.to_string()), (id, "192.0.2.9".to_owned()));
            assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), times, "question {id}");
        }
    });
}

#[tokio::test]
async fn addresses_of_ipv6_are_for_those_who_can_use_them() {
    let of = |range: Option<&str>| {
        let web = service("d/web", "10.96.0.5", json!({"clusterIPs": ["10.96.0.5", "fd00:9::5"]}));
        let (_, served) = watch::channel(Arc::new(Zone::new("cluster.local", &[web], &Default::default()).into()));
        let both_for = range.map(|range| range.parse().unwrap());
        let (resolv_conf, own) = ("/nonexistent".into(), vec![]);
        let options = DnsOptions { listen: vec![], domain: "cluster.local".into(), resolv_conf, own, both_for };
        Answerer { served, options, kept: Mutex::default(), slots: Semaphore::new(AT_A_TIME) }
    };
    let told = async |range: Option<&str>, from: &str| {
        let mut told = Vec::new();
        for (name, kind) in [("web", RecordType::A), ("web", RecordType::AAAA), ("fd00--1.x.pod", RecordType::AAAA)] {
            let name = if name == "web" { "web.d.svc.cluster.local.".into() } else { format!("{name}.cluster.local.") };
            let bytes = question(&name, kind).to_vec().unwrap();
            let answer = of(range).answer(&bytes, from.parse().unwrap(), false).await.unwrap();
            let answer = Message::from_vec(&answer).unwrap();
            assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
            told.extend(answer.answers.iter().map(|record| record.data.to_string()));
        }
        told
    };
    assert_eq!(told(Some("10.1.0.0/24"), "10.1.0.7").await, ["10.96.0.5", "fd00:9::5", "fd00::1"]);
    assert_eq!(told(Some("10.1.0.0/24"), "10.2.0.7").await, ["10.96.0.5"], "a pod of another node");
    assert_eq!(told(None, "10.1.0.7").await, ["10.96.0.5"]);
}

#[tokio::test]
async fn an_answer_is_said_again_until_the_zone_changes() {
    let of = |address: &str| {
        let web = service("d/web", address, json!({"clusterIPs": [address]}));
        Arc::new(Served::from(Zone::new("cluster.local", &[web], &Default::default())))
    };
    let (publish, served) = watch::channel(of("10.96.0.5"));
    let (resolv_conf, own) = ("/nonexistent".into(), vec![]);
    let options = DnsOptions { listen: vec![], domain: "cluster.local".into(), resolv_conf, own, both_for: None };
    let answerer = Answerer { served, options, kept: Mutex::default(), slots: Semaphore::new(AT_A_TIME) };
    let mut message = question("web.d.svc.cluster.local.", RecordType::A);
    for (id, address) in [(1, "10.96.0.5"), (2, "10.96.0.5"), (3, "10.96.0.6")] {
        if id == 3 {
            publish.send(of("10.96.0.6")).unwrap();
        }
        message.metadata.id = id;
        let bytes = message.to_vec().unwrap();
        let answer = answerer.answer(&bytes, "10.1.0.7".parse().unwrap(), false).await.unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!((answer.metadata.id, answer.answers[0].data.to_string()), (id, address.to_owned()));
        assert!(answerer.served.borrow().said.find(&bytes, false).is_some(), "it is kept");
    }
}
