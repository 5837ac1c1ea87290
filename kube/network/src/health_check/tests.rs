//! What is said of a Service, in a namespace of its own, as a balancer hears it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::*;
use crate::Cidr;
use crate::node::tests::on_machine;
use crate::services::by_service;
use crate::services::tests::{service, slice};

fn local(more: Value) -> Arc<Service> {
    let mut spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service("d/web", "10.96.0.5", spec)
}

fn planned(services: &[Arc<Service>], endpoints: &[(&str, &str)]) -> BTreeMap<u16, Health> {
    plan(
        services,
        &by_service::<Ipv4Addr>(&[slice("d/web", endpoints), slice("d/web", endpoints)]),
        &Here::of("10.1.0.0/24".parse::<Cidr>().unwrap()),
    )
}

/// Status line, headers and body of an answer.
fn ask(request: &str) -> Result<(String, String, Value), std::io::ErrorKind> {
    let mut stream = TcpStream::connect("127.0.0.1:31000").map_err(|error| error.kind())?;
    let mut text = String::new();
    stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.read_to_string(&mut text))
        .map_err(|error| error.kind())?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let (status, headers) = head.split_once("\r\n").unwrap();
    Ok((status.to_owned(), headers.to_lowercase(), serde_json::from_str(body).unwrap()))
}

async fn asked(request: &'static str) -> Result<(String, String, Value), std::io::ErrorKind> {
    tokio::task::spawn_blocking(move || ask(request)).await.unwrap()
}

#[test]
fn ready_pods_of_this_machine_are_counted_for_balancers_of_local_endpoints() {
    let endpoints = [
        ("10.1.0.3", "ready"),
        ("10.1.0.4", "unready"),
        ("10.1.0.5", "leaving"),
        ("10.9.0.6", "ready"),
        ("10.1.0.7", "ready"),
    ];
    let health = planned(&[local(json!({}))], &endpoints);
    let expected = Health { namespace: "d".into(), name: "web".into(), local: 2 };
    assert_eq!(health, BTreeMap::from([(31000, expected)]), "each once, whatever slices it is in");
    for other in [
        json!({"type": "NodePort"}),
        json!({"externalTrafficPolicy": "Cluster"}),
        json!({"healthCheckNodePort": 0}),
        json!({"healthCheckNodePort": 65537}),
    ] {
        assert!(planned(&[local(other.clone())], &endpoints).is_empty(), "{other}");
    }
}

#[test]
fn a_machine_answers_as_kube_proxy_does() {
    on_machine(async |_machine| {
        let mut checks = HealthChecks::new(false);
        checks.set(planned(&[local(json!({}))], &[("10.1.0.3", "ready"), ("10.1.0.7", "ready")])).await;
        for request in ["GET / HTTP/1.0\r\n\r\n", "GET /healthz HTTP/1.0\r\n\r\n"] {
            let (status, headers, body) = asked(request).await.unwrap();
            assert_eq!(status, "HTTP/1.0 200 OK");
            for header in [
                "x-load-balancing-endpoint-weight: 2",
                "content-type: application/json",
                "x-content-type-options: nosniff",
            ] {
                assert!(headers.contains(header), "{header}: {headers}");
            }
            let expected =
                json!({"service": {"namespace": "d", "name": "web"}, "localEndpoints": 2, "serviceProxyHealthy": true});
            assert_eq!(body, expected);
        }
        // The last one goes: the same port, another answer.
        checks.set(planned(&[local(json!({}))], &[("10.1.0.3", "unready")])).await;
        let (status, headers, body) = asked("GET / HTTP/1.0\r\n\r\n").await.unwrap();
        assert_eq!((status.as_str(), &body["localEndpoints"]), ("HTTP/1.0 503 Service Unavailable", &json!(0)));
        assert!(headers.contains("x-load-balancing-endpoint-weight: 0"), "{headers}");

        checks.set(BTreeMap::new()).await;
        while asked("GET / HTTP/1.0\r\n\r\n").await != Err(std::io::ErrorKind::ConnectionRefused) {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn who_connects_and_says_nothing_takes_no_room_for_long() {
    on_machine(async |_machine| {
        let mut checks = HealthChecks::new(false);
        checks.patience = Duration::from_millis(300);
        checks.set(planned(&[local(json!({}))], &[("10.1.0.3", "ready")])).await;
        let idle: Vec<TcpStream> =
            (0..CONNECTIONS_MAX).map(|_| TcpStream::connect("127.0.0.1:31000").unwrap()).collect();
        let (status, ..) = asked("GET / HTTP/1.0\r\n\r\n").await.unwrap();
        assert_eq!(status, "HTTP/1.0 200 OK", "its turn comes");
        drop(idle);
    });
}

#[test]
fn it_is_said_over_both_families() {
    on_machine(async |_machine| {
        let mut checks = HealthChecks::new(true);
        let mut health = planned(&[local(json!({}))], &[("10.1.0.3", "ready")]);
        let v6 = by_service::<Ipv6Addr>(&[slice("d/web", &[("fd00:1::3", "ready"), ("fd00:1::4", "ready")])]);
        join(&mut health, plan(&[local(json!({}))], &v6, &Here::of("fd00:1::/80".parse::<Cidr<Ipv6Addr>>().unwrap())));
        assert_eq!(health[&31000].local, 2, "a pod with two addresses is one");
        checks.set(health).await;
        for address in ["127.0.0.1:31000", "[::1]:31000"] {
            tokio::time::timeout(Duration::from_secs(3), tokio::net::TcpStream::connect(address))
                .await
                .unwrap()
                .unwrap();
        }
    });
}
