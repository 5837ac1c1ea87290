//! What the machine allows at most: the same client, HTTP/2 and TLS, against a server that does nothing but what no API server can do
//! without. It appends 1 KiB, syncs, and answers a constant; requests that wait together share a sync.
//!
//! ```text
//! connections ─▶ body read to its end ─▶ line ─▶ one thread: 1 KiB for each that waits, one fdatasync ─▶ 201, a constant
//! ```
//!
//! The file is written over and over, so that its length and its blocks never change: its syncs are the quickest there are.

use std::convert::Infallible;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use substrate_apiserver::tls::Authority;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;

use super::writes::BYTES;

/// Requests that wait, and the most that share a sync: those of our store.
const LINE: usize = 1024;
const FILE_BYTES: usize = 16 * 1024 * 1024;

type Line = mpsc::Sender<oneshot::Sender<()>>;

/// Serves until the process is ended.
pub async fn serve(directory: &Path, port: u16) -> Result<()> {
    let authority = Authority::open(directory)?;
    let identity = authority.server(&[IpAddr::V4(Ipv4Addr::LOCALHOST)], &["localhost"])?;
    let acceptor = TlsAcceptor::from(Arc::new(authority.server_config(&identity)?));
    let file = File::create(directory.join("appended"))?;
    file.write_all_at(&vec![0; FILE_BYTES], 0)?;
    file.sync_all()?;
    let (line, waiting) = mpsc::channel(LINE);
    std::thread::spawn(move || append(&file, waiting));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        let (acceptor, line) = (acceptor.clone(), line.clone());
        tokio::spawn(async move {
            // Who opened it sees that it has ended.
            connection(&acceptor, socket, line).await.unwrap_or_default();
        });
    }
}

async fn connection(acceptor: &TlsAcceptor, socket: TcpStream, line: Line) -> Result<()> {
    socket.set_nodelay(true)?;
    let stream = acceptor.accept(socket).await?;
    let answer = service_fn(move |request: Request<Incoming>| {
        let line = line.clone();
        async move {
            let code = if write(request, &line).await.is_ok() { StatusCode::CREATED } else { StatusCode::BAD_GATEWAY };
            let mut response = Response::new(Full::new(Bytes::from_static(b"{\"metadata\":{}}")));
            *response.status_mut() = code;
            Ok::<_, Infallible>(response)
        }
    });
    http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await?;
    Ok(())
}

async fn write(request: Request<Incoming>, line: &Line) -> Result<()> {
    request.into_body().collect().await?;
    let (done, durable) = oneshot::channel();
    line.send(done).await?;
    durable.await.context("not written")
}

fn append(file: &File, mut waiting: mpsc::Receiver<oneshot::Sender<()>>) {
    let (mut group, mut at) = (Vec::new(), 0);
    while waiting.blocking_recv_many(&mut group, LINE) > 0 {
        let bytes = vec![b'x'; group.len() * BYTES];
        at = if at + bytes.len() > FILE_BYTES { 0 } else { at };
        let written = file.write_all_at(&bytes, at as u64).and_then(|()| file.sync_data());
        at += bytes.len();
        // Who is not told sees that it was not written.
        group.drain(..).filter(|_| written.is_ok()).for_each(|done| done.send(()).unwrap_or_default());
    }
}
