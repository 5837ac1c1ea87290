//! One client cannot starve another, and no request is waited for without end.

use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures::future::BoxFuture;
use futures::{FutureExt, poll};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use substrate_apiserver::auth::User;
use substrate_apiserver::tls::{Authority, serve};
use substrate_apiserver::{ApiServer, Body};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::Service;

use crate::support::api;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const AT_WORK: usize = 64;
const IN_LINE: usize = 128;
const STREAMS: usize = 512;

type Asked = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A write whose body never comes.
fn endless(server: &ApiServer, user: &str, path: &str) -> Asked {
    let body = StreamBody::new(futures::stream::pending::<Result<http_body::Frame<bytes::Bytes>, std::io::Error>>());
    let request = Request::post(path.to_owned()).body(body).unwrap();
    let (server, user) = (server.clone(), User::new(user, &["system:masters"]));
    async move { server.answer(Some(&user), request).await }.boxed()
}

async fn get(server: &ApiServer, user: &str, path: &str) -> Response<Body> {
    let user = User::new(user, &["system:masters"]);
    let request = Request::get(path.to_owned()).body(Full::new(bytes::Bytes::new())).unwrap();
    server.answer(Some(&user), request).await
}

async fn status(response: Response<Body>) -> Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn who_floods_waits_and_is_refused_and_nobody_else_is() {
    let server = api().await.server;
    let mut flood: Vec<Asked> = Vec::new();
    for _ in 0..AT_WORK + IN_LINE {
        let mut asked = endless(&server, "ada", MAPS);
        assert!(poll!(&mut asked).is_pending());
        flood.push(asked);
    }
    let Poll::Ready(refused) = poll!(endless(&server, "ada", MAPS)) else {
        panic!("{} requests at once, and the next one is not refused", AT_WORK + IN_LINE)
    };
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"1".parse().unwrap()));
    let expected = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 429,
        "message": "Too many requests, please try again later.", "reason": "TooManyRequests", "details": { "retryAfterSeconds": 1 } });
    assert_eq!(status(refused).await, expected);
    let Poll::Ready(other) = poll!(get(&server, "bob", MAPS).boxed()) else { panic!("another waits for ada's seats") };
    assert_eq!(other.status(), 200, "of another client");
    let mut inside = server.as_user(User::new("ada", &["system:masters"]));
    let request = Request::get(MAPS).body(Full::new(bytes::Bytes::new())).unwrap();
    let mut answer: BoxFuture<'_, _> = inside.call(request);
    let Poll::Ready(Ok(own)) = poll!(&mut answer) else { panic!("a part of the process waits for a user's seats") };
    assert_eq!(own.status(), 200, "of the process itself");
    let mut waits = get(&server, "ada", MAPS).boxed();
    drop(flood.pop()); // who gives up makes room in the line …
    assert!(poll!(&mut waits).is_pending());
    drop(flood); // … and who is done gives the seat to the next
    assert_eq!(waits.await.status(), 200);
}

#[tokio::test]
async fn who_does_not_read_sits_on_its_own_seats() {
    let server = api().await.server;
    let mut unread = Vec::new();
    for _ in 0..AT_WORK {
        unread.push(get(&server, "ada", MAPS).await);
    }
    let mut next = get(&server, "ada", MAPS).boxed();
    assert!(poll!(&mut next).is_pending(), "{AT_WORK} answers are not read, and the next request is answered");
    status(unread.pop().unwrap()).await;
    assert_eq!(next.await.status(), 200);
}

#[tokio::test]
async fn watches_have_seats_of_their_own() {
    let server = api().await.server;
    let watch = format!("{MAPS}?watch=1");
    let mut watches = Vec::new();
    for _ in 0..STREAMS {
        let response = get(&server, "ada", &watch).await;
        assert_eq!(response.status(), 200);
        watches.push(response);
    }
    assert_eq!(get(&server, "ada", &watch).await.status(), 429);
    assert_eq!(get(&server, "ada", MAPS).await.status(), 200, "what is no stream");
    assert_eq!(get(&server, "bob", &watch).await.status(), 200, "of another client");
    drop(watches.pop());
    assert_eq!(get(&server, "ada", &watch).await.status(), 200, "one ended");
}

#[tokio::test]
async fn a_request_that_takes_too_long_ends_with_504() {
    let api = api().await;
    let response = endless(&api.server, "ada", &format!("{MAPS}?timeout=20ms"));
    let response = tokio::time::timeout(std::time::Duration::from_secs(10), response).await;
    let response = response.unwrap_or_else(|_| panic!("10 s without an answer to a request that has 20 ms"));
    let expected = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 504,
        "message": "Timeout: request did not complete within the allotted timeout", "reason": "Timeout" });
    assert_eq!(status(response).await, expected);
    let (code, refused) = api.get(&format!("{MAPS}?timeout=soon")).await;
    assert_eq!((code, &refused["reason"]), (400, &json!("BadRequest")));
    assert_eq!(api.get(&format!("{MAPS}?timeoutSeconds=soon")).await.0, 400);
    assert_eq!(api.get(&format!("{MAPS}?timeout=30s&timeoutSeconds=5")).await.0, 200);
    // A watch has a time of its own: it begins, and ends by itself.
    let response = api.raw(Method::GET, &format!("{MAPS}?watch=1&timeout=1ms&timeoutSeconds=1"), &[], "").await;
    assert_eq!(response.status(), 200);
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    const OF_ONE: usize = 256;
    let server = api().await.server;
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path()).unwrap();
    let identity = authority.server(&[Ipv4Addr::LOCALHOST.into()], &["localhost"]).unwrap();
    let config = Arc::new(authority.server_config(&identity).unwrap());
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve(server, listener, config));
    let connect = async |from: Ipv4Addr| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(to).await.unwrap()
    };
    let mut open = Vec::new();
    for _ in 0..OF_ONE {
        open.push(connect(Ipv4Addr::LOCALHOST).await);
    }
    // What is no TLS gets an alert, what is closed gets nothing.
    let alert = async |mut socket: tokio::net::TcpStream| {
        let _ = socket.write_all(&[b'x'; 64]).await;
        let read = tokio::time::timeout(std::time::Duration::from_secs(10), socket.read(&mut [0; 16])).await;
        read.unwrap_or_else(|_| panic!("10 s, and the connection neither answers nor ends")).unwrap_or(0) > 0
    };
    assert!(!alert(connect(Ipv4Addr::LOCALHOST).await).await, "{OF_ONE} connections are open, and one more is served");
    assert!(alert(connect(Ipv4Addr::new(127, 0, 0, 2)).await).await, "of another address");
    assert!(alert(open.pop().unwrap()).await, "one of the first");
    serving.abort();
}
