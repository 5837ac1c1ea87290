//! A server of webhooks over TLS that answers as a test wants, and keeps what it was asked.
#![allow(clippy::unwrap_used, dead_code)]

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use substrate_apiserver::tls::Authority;
use tokio::net::TcpListener;

/// What is answered to the `request` of a review that came to a path.
pub type Answer = fn(String, Value) -> BoxFuture<'static, Response<Full<Bytes>>>;

/// A server of webhooks and what it was asked.
pub struct Server {
    pub port: u16,
    /// Its authority, in base64.
    pub bundle: String,
    pub asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Server {
    pub async fn start(answer: Answer) -> Self {
        let directory = tempfile::Builder::new().prefix("flt-").tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        let own = authority.server(&[IpAddr::V4(Ipv4Addr::LOCALHOST)], &["hook.default.svc"]).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(authority.server_config(&own).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, log) = (acceptor.clone(), log.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                        let log = log.clone();
                        async move {
                            let path = request.uri().path().to_owned();
                            let body = request.into_body().collect().await.unwrap().to_bytes();
                            let review: Value = serde_json::from_slice(&body).unwrap();
                            log.lock().unwrap().push((path.clone(), review["request"].clone()));
                            Ok::<_, Infallible>(answer(path, review["request"].clone()).await)
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { port, bundle: BASE64_STANDARD.encode(authority.certificate_pem), asked }
    }

    /// The paths that were asked since the last time.
    pub fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().drain(..).map(|(path, _)| path).collect()
    }
}
