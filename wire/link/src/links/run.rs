//! A session while it lasts: streams and datagrams go to their handlers.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Buf as _;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use super::{Datagram, Event, Shared, lock};
use crate::copies::{ALIVE, Question};
use crate::handler::Answer;
use crate::session::read_opening;
use crate::stream::{LinkStream, code};
use crate::{LinkError, Session};

/// A header follows its stream at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a session to its end. Handlers are cancelled with it.
pub(super) async fn run(shared: Arc<Shared>, session: Session) {
    let reason = tokio::select! {
        // Dropping the others is safe: the session is over.
        reason = session.closed_reason() => reason,
        () = streams(&shared, &session) => session.closed_reason().await,
        () = datagrams(&shared, &session) => session.closed_reason().await,
    };
    let peer = session.peer();
    let mut sessions = lock(&shared.sessions);
    // One that was replaced is not in the map any more, and its peer is up.
    if sessions.get(&peer.id).is_some_and(|current| current.peer().session == peer.session) {
        sessions.remove(&peer.id);
        tracing::info!(peer = %peer.id, name = %peer.name, %reason, "link down");
        let _ = shared.events.send(Event::Down { peer: peer.id, session: peer.session, reason });
    }
}

async fn streams(shared: &Arc<Shared>, session: &Session) {
    // Bounded by the streams that the peer may have open.
    let mut handlers = JoinSet::new();
    loop {
        tokio::select! {
            // Dropping it is safe: a stream stays in the connection's queue until it is returned.
            accepted = session.connection().accept_bi() => match accepted {
                Ok((send, receive)) => {
                    let stream = LinkStream { send, receive };
                    handlers.spawn(stream_task(shared.clone(), session.clone(), stream));
                }
                Err(_) => return,
            },
            // Dropping it is safe: a task that ended is only removed when it is returned.
            Some(ended) = handlers.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(peer = %session.peer().id, %error, "a stream handler failed");
                }
            }
        }
    }
}

async fn stream_task(shared: Arc<Shared>, session: Session, mut stream: LinkStream) {
    let opening = match tokio::time::timeout(HEADER_TIMEOUT, read_opening(&mut stream)).await {
        Ok(Ok(opening)) => opening,
        Ok(Err(error)) => {
            stream.close(code::BAD_HEADER);
            if error.is_garbage() {
                shared.strike(session.peer().id, &error);
            }
            return;
        }
        Err(_) => return stream.close(code::BAD_HEADER),
    };
    if opening.kind == ALIVE {
        return alive(&shared, &session, opening.header, stream).await;
    }
    let handler = shared.handlers.read().unwrap_or_else(PoisonError::into_inner).get(&opening.kind).cloned();
    match handler {
        Some(handler) => handler.stream(session.peer(), opening.header, stream).await,
        None => {
            // Not garbage: a newer version may know kinds that this one does not.
            shared.unknown_streams.fetch_add(1, Ordering::Relaxed);
            stream.close(code::UNKNOWN_KIND);
        }
    }
}

/// A peer that sees another process with this node's key asks whether this one lives.
async fn alive(shared: &Shared, session: &Session, header: serde_json::Value, mut stream: LinkStream) {
    let Ok(question) = serde_json::from_value::<Question>(header) else { return stream.close(code::BAD_HEADER) };
    let younger = format!("the one that calls from {}", question.newcomer);
    shared.tell_copies(shared.key.id(), session.peer().id, younger);
    if let Ok(json) = serde_json::to_vec(&Answer::Ok(serde_json::Value::Null)) {
        // Who does not read it finds the session gone.
        let _ = stream.write_all(&json).await;
    }
}

async fn datagrams(shared: &Arc<Shared>, session: &Session) {
    let peer = session.peer().id;
    while let Ok(mut datagram) = session.connection().read_datagram().await {
        if datagram.is_empty() {
            let error = LinkError::Malformed { what: "datagram", reason: "no channel".into() };
            shared.strike(peer, &error);
            continue;
        }
        let channel = datagram.get_u8();
        let channels = shared.channels.read().unwrap_or_else(PoisonError::into_inner);
        let taken =
            channels.get(&channel).is_some_and(|sender| sender.try_send(Datagram { peer, payload: datagram }).is_ok());
        if !taken {
            shared.dropped_datagrams.fetch_add(1, Ordering::Relaxed);
        }
    }
}
