//! Questions to servers that say what a test wants.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use super::*;
use engine_runtime::OciRuntime;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn subject(port: u16) -> Subject {
    let dir = tempfile::tempdir().unwrap();
    let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": port}]});
    Subject {
        runtime: Arc::new(OciRuntime::new(dir.path(), Vec::new()).unwrap()),
        pod_uid: "u".into(),
        run: "r".into(),
        address: "127.0.0.1".into(),
        container: serde_json::from_value(container).unwrap(),
    }
}

/// Serves these answers one after the other, and gives what was asked.
async fn serve(answers: Vec<String>) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).await.unwrap();
            asked.push(String::from_utf8_lossy(&request[..n]).into_owned());
            drop(stream.write_all(answer.as_bytes()).await); // who asks may have read enough
        }
        asked
    });
    (port, task)
}

async fn get(port: u16, mut action: Value) -> Result<Option<String>, String> {
    action["port"] = json!("web");
    let probe = serde_json::from_value(json!({"httpGet": action})).unwrap();
    ask(&subject(port), &probe, Duration::from_secs(5)).await
}

async fn check(answer: &str) -> Result<Option<String>, String> {
    let (port, _) = serve(vec![answer.to_owned()]).await;
    get(port, json!({"path": "live"})).await
}

#[tokio::test]
async fn what_a_page_says() {
    assert_eq!(check("HTTP/1.1 200 OK\r\n\r\n").await, Ok(None));
    assert_eq!(check("HTTP/1.0 204 No\r\n\r\n").await, Ok(None));
    let odd = Ok(Some("Probe terminated redirects, Response body: moved".into()));
    assert_eq!(check("HTTP/1.0 302 Found\r\nLocation: http://192.0.2.9/\r\n\r\nmoved").await, odd);
    assert_eq!(check("HTTP/1.1 503 Busy\r\n\r\n").await, Err("HTTP probe failed with statuscode: 503".into()));
    assert!(check("SSH-2.0\n").await.unwrap_err().starts_with("Get \"http://127.0.0.1:"));
    let refused = get(9, json!({})).await;
    let why = "Get \"http://127.0.0.1:9/\": dial tcp 127.0.0.1:9: connect: connection refused";
    assert_eq!(refused, Err(why.into()));
}

#[tokio::test]
async fn a_page_is_asked_for_by_name_and_header() {
    let answer = "HTTP/1.1 200 OK\r\n\r\n".to_owned();
    let (port, asked) = serve(vec![answer.clone(), answer]).await;
    let own = json!([{"name": "Host", "value": "x.test"}, {"name": "X-Own", "value": "1"}, {"name": "X-Own", "value": "2"}, {"name": "Accept", "value": ""}]);
    assert_eq!(get(port, json!({"path": "/live?a=b", "httpHeaders": own})).await, Ok(None));
    assert_eq!(get(port, json!({})).await, Ok(None));
    let asked = asked.await.unwrap();
    let lines: Vec<&str> = asked.iter().flat_map(|a| a.trim_end().lines()).collect();
    let own = format!("host: 127.0.0.1:{port}");
    let wanted = [
        "GET /live?a=b HTTP/1.1",
        "host: x.test",
        "x-own: 1",
        "x-own: 2",
        "user-agent: kube-probe/1.34",
        "connection: close",
        "GET / HTTP/1.1",
        &own,
        "user-agent: kube-probe/1.34",
        "accept: */*",
        "connection: close",
    ];
    assert_eq!(lines, wanted);
}

#[tokio::test]
async fn the_same_host_may_send_us_on() {
    let moved = |to: &str| format!("HTTP/1.1 307 Moved\r\nLocation: {to}\r\n\r\n");
    let (port, asked) = serve(vec![moved("/next"), "HTTP/1.1 500 No\r\n\r\n".into()]).await;
    assert_eq!(get(port, json!({})).await, Err("HTTP probe failed with statuscode: 500".into()));
    assert!(asked.await.unwrap()[1].starts_with("GET /next HTTP/1.1\r\n"));
    let (port, _) = serve(vec![moved("/again"); 10]).await;
    let why = get(port, json!({})).await.unwrap_err();
    assert!(why.ends_with("/again\": stopped after 10 redirects"), "{why}");
    let far = check("HTTP/1.1 301 Moved\r\nLocation: ftp://127.0.0.1/\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(far, Ok(Some("Probe terminated redirects, Response body: ".into())));
}

#[tokio::test]
async fn what_a_hostile_page_may_take() {
    let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1 << 20));
    assert_eq!(check(&long).await, Ok(None), "the rest is not waited for");
    let (port, _) =
        serve(vec![format!("HTTP/1.1 302 Found\r\nLocation: //far.test/\r\n\r\n{}", "x".repeat(1 << 20))]).await;
    let said = get(port, json!({})).await.unwrap().unwrap();
    assert_eq!(said.matches('x').count(), 10 << 10);
    let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    assert!(check(&head).await.is_err());
    assert!(check("").await.is_err(), "nothing at all");
}
