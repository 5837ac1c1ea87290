//! The machine's end: it answers.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use engine_session::carry;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::{Answer, Ask, PING, STREAMS_MAX, read, write};
use crate::node_proxy::{NodeProxy, carry_log};

/// Answers what the API server asks for through a connection that was turned round, until it ends; what is going on then ends, too.
///
/// # Errors
/// What ended it.
pub async fn serve<C>(connection: C, proxy: Arc<dyn NodeProxy>) -> hyper::Result<()>
where
    C: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let streams = Arc::new(tokio::sync::Mutex::new(JoinSet::new()));
    let service = service_fn(move |request: Request<Incoming>| {
        let (streams, proxy) = (streams.clone(), proxy.clone());
        async move {
            let mut response = Response::new(Empty::<Bytes>::new());
            if request.method() != Method::CONNECT {
                *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
                return Ok::<_, Infallible>(response);
            }
            let mut streams = streams.lock().await;
            while streams.try_join_next().is_some() {}
            streams.spawn(async move {
                let answered = match hyper::upgrade::on(request).await {
                    Ok(stream) => answer(TokioIo::new(stream), &*proxy).await,
                    Err(error) => Err(io::Error::other(error)),
                };
                if let Err(error) = answered {
                    tracing::debug!(%error, "a stream of the node's tunnel broke");
                }
            });
            Ok(response)
        }
    });
    let mut http = Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING);
    http.max_concurrent_streams(STREAMS_MAX).serve_connection(connection, service).await
}

async fn answer(mut stream: TokioIo<Upgraded>, proxy: &dyn NodeProxy) -> io::Result<()> {
    let asked = tokio::time::timeout(PING, read::<Ask>(&mut stream)).await;
    match asked.map_err(|_| io::ErrorKind::TimedOut)?? {
        Ask::Logs(target, options) => {
            let log = proxy.logs(&target, &options).await;
            if let Some(mut log) = said(&mut stream, log).await? {
                carry_log(&mut log, &mut stream).await;
            }
        }
        Ask::Exec(target, options) => {
            let session = proxy.exec(&target, &options).await;
            if let Some(session) = said(&mut stream, session).await? {
                carry::serve(session, &mut stream).await;
            }
        }
        Ask::Attach(target, options) => {
            let session = proxy.attach(&target, &options).await;
            if let Some(session) = said(&mut stream, session).await? {
                carry::serve(session, &mut stream).await;
            }
        }
        Ask::Read(path) => match proxy.read(&path).await {
            Ok(found) => {
                let (kind, text) = found.unzip();
                write(&mut stream, &Answer::Ok(kind.map(str::to_owned))).await?;
                stream.write_all(text.unwrap_or_default().as_bytes()).await?;
            }
            Err(error) => write(&mut stream, &Answer::Err(error)).await?,
        },
        Ask::Forward(target, port) => {
            let port = proxy.port_forward(&target, port).await;
            if let Some(mut port) = said(&mut stream, port).await? {
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut port).await; // either side may break it off
            }
        }
    }
    stream.shutdown().await?;
    // Dropping a stream takes back what was not read yet: the other end closes when it has read all.
    let draining = async { while stream.read(&mut [0; 512]).await.is_ok_and(|read| read > 0) {} };
    let _ = tokio::time::timeout(PING, draining).await;
    Ok(())
}

/// Says yes, or why not.
async fn said<T>(stream: &mut TokioIo<Upgraded>, what: Result<T, crate::node_proxy::Error>) -> io::Result<Option<T>> {
    let (answer, what) = match what {
        Ok(what) => (Answer::Ok(None), Some(what)),
        Err(error) => (Answer::Err(error), None),
    };
    write(stream, &answer).await.map(|()| what)
}
