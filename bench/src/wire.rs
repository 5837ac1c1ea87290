//! HTTP/2 with as little as possible around it, so that a figure is the server's and not the client's.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

/// Where a server is, and how it is spoken to: `None` is plain HTTP/2.
#[derive(Clone)]
pub struct Address {
    pub port: u16,
    pub tls: Option<Arc<ClientConfig>>,
}

/// One connection.
#[derive(Clone)]
pub struct Wire {
    sender: http2::SendRequest<Full<Bytes>>,
    scheme: &'static str,
}

impl Wire {
    pub async fn open(address: &Address) -> Result<Self> {
        let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, address.port))).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &address.tls else { return Self::over(stream, "http").await };
        let name = ServerName::try_from("localhost")?;
        Self::over(TlsConnector::from(tls.clone()).connect(name, stream).await?, "https").await
    }

    async fn over<S>(stream: S, scheme: &'static str) -> Result<Self>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // It ends with its senders.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        Ok(Self { sender, scheme })
    }

    /// Sends one request and comes back with the head of the answer.
    pub async fn send(&mut self, method: &str, path: &str, kind: &str, body: Bytes) -> Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}://localhost{path}", self.scheme))
            .header("content-type", kind)
            .header("te", "trailers")
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// A `GET` in that form, up to the head of the answer.
    pub async fn get(&mut self, path: &str, accept: &str) -> Result<Response<Incoming>> {
        let uri = format!("{}://localhost{path}", self.scheme);
        let request = Request::get(uri).header("accept", accept).body(Full::default())?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// One request to a Kubernetes API, in JSON; the whole answer, whose status must be a success.
    pub async fn ask(&mut self, method: &str, path: &str, body: Bytes) -> Result<Bytes> {
        let answer = self.send(method, path, "application/json", body).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{method} {path}: {status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    /// `Put` of etcd's `KV` service (etcd v3 API, `rpc.proto`): the message's first two fields, in a frame of gRPC.
    pub async fn etcd_put(&mut self, key: &str, value: &Bytes) -> Result<()> {
        let mut message = BytesMut::new();
        for (field, bytes) in [(1, key.as_bytes()), (2, value)] {
            message.put_u8(field << 3 | 2);
            varint(&mut message, bytes.len());
            message.put_slice(bytes);
        }
        let mut frame = BytesMut::with_capacity(message.len() + 5);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len())?);
        frame.put(message);
        let answer = self.send("POST", "/etcdserverpb.KV/Put", "application/grpc", frame.freeze()).await?;
        let head = answer.headers().get("grpc-status").cloned();
        let body = answer.into_body().collect().await?;
        let code = head.or_else(|| body.trailers().and_then(|all| all.get("grpc-status").cloned()));
        let code = code.context("etcd says no status")?;
        ensure!(code == "0", "etcd refuses a put: {code:?}");
        Ok(())
    }
}

fn varint(into: &mut BytesMut, mut number: usize) {
    while number >= 0x80 {
        into.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.put_u8(number as u8);
}
