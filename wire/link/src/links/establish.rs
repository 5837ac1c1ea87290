//! From a connection to a session: who is it, hellos, and whether it is the one that is kept.
//!
//! The side that was dialled decides before it answers, so that a dialler whose session is not kept never believes in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fluidos_identity::{NodeId, peer_node_id};
use rustls::pki_types::CertificateDer;

use super::{Event, SESSIONS_MAX, Shared, lock, run};
use crate::frame::{self, HELLO_BYTES_MAX};
use crate::hello::Hello;
use crate::session::reason;
use crate::stream::code;
use crate::tie::{Choice, choose};
use crate::{LinkError, Session};

/// One round trip after the handshake.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// What became of a connection.
pub(super) enum Established {
    /// It is the session with its peer now.
    Session(Session),
    /// There is another session with this peer, which is kept.
    Duplicate(NodeId),
    /// It leads to this very node.
    Itself,
}

/// Makes a session of a connection, or closes it with the reason.
///
/// # Errors
/// [`LinkError`] if the peer is not one to talk to, or did not say hello as it must.
pub(super) async fn establish(
    shared: &Arc<Shared>,
    connection: quinn::Connection,
    dialled: bool,
) -> Result<Established, LinkError> {
    let address = connection.remote_address();
    let refused = |reason: String| LinkError::Dial { address, reason };
    let peer = proven(&connection).map_err(refused)?;
    if peer == shared.key.id() {
        close(&connection, code::DUPLICATE);
        return Ok(Established::Itself);
    }
    if shared.is_silenced(&peer) {
        close(&connection, code::SILENCED);
        return Err(refused(format!("{peer} sent too much garbage")));
    }
    let said = tokio::time::timeout(HELLO_TIMEOUT, hello(shared, &connection, peer, dialled)).await;
    match said {
        Ok(Ok(established)) => Ok(established),
        Ok(Err(error)) => {
            // The peer closed with a reason, which says more than a stream that broke.
            if let Some(closed) = connection.close_reason() {
                return match &closed {
                    quinn::ConnectionError::ApplicationClosed(close) if close.error_code == code::DUPLICATE => {
                        Ok(Established::Duplicate(peer))
                    }
                    other => Err(refused(reason(other))),
                };
            }
            if error.is_garbage() {
                shared.strike(peer, &error);
            }
            close(&connection, code::HELLO);
            Err(error)
        }
        Err(_) => {
            close(&connection, code::HELLO);
            Err(refused(format!("{peer} did not say hello")))
        }
    }
}

fn proven(connection: &quinn::Connection) -> Result<NodeId, String> {
    let identity = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let peer = peer_node_id(identity.as_deref().map(Vec::as_slice)).map_err(|error| error.to_string())?;
    peer.ok_or_else(|| "the peer proved no key".into())
}

async fn hello(
    shared: &Arc<Shared>,
    connection: &quinn::Connection,
    peer: NodeId,
    dialled: bool,
) -> Result<Established, LinkError> {
    let broken = |error: quinn::ConnectionError| LinkError::Dropped { what: "hello", reason: reason(&error) };
    let (mut send, mut receive) = if dialled {
        connection.open_bi().await.map_err(broken)?
    } else {
        connection.accept_bi().await.map_err(broken)?
    };
    if dialled {
        frame::write(&mut send, "hello", &shared.hello, HELLO_BYTES_MAX).await?;
    }
    let theirs: Hello = frame::read(&mut receive, "hello", HELLO_BYTES_MAX).await?;
    theirs.check()?;
    let version = shared.hello.common_version(&theirs)?;
    let number = shared.session_count.fetch_add(1, Ordering::Relaxed) + 1;
    let dialler = if dialled { shared.key.id() } else { peer };
    let session = Session::new(connection.clone(), peer, theirs, version, number, dialler);
    if !admit(shared, &session)? {
        return Ok(Established::Duplicate(peer));
    }
    if !dialled {
        frame::write(&mut send, "hello", &shared.hello, HELLO_BYTES_MAX).await?;
    }
    Ok(Established::Session(session))
}

/// Makes it the session with its peer, unless another one is kept. Events are sent under the lock, so that they come in
/// the order of what happened.
fn admit(shared: &Arc<Shared>, session: &Session) -> Result<bool, LinkError> {
    let peer = session.peer();
    let mut sessions = lock(&shared.sessions);
    match sessions.get(&peer.id).filter(|old| old.is_alive()) {
        Some(old) => {
            let choice = choose(old.facts(), old.age(), session.facts(), shared.key.id(), peer.id);
            if choice == Choice::Keep {
                session.close(code::DUPLICATE);
                return Ok(false);
            }
            old.close(code::REPLACED);
        }
        None if sessions.len() >= SESSIONS_MAX => {
            session.close(code::FULL);
            let reason = format!("{SESSIONS_MAX} peers are up, which is the most");
            return Err(LinkError::Dial { address: peer.address, reason });
        }
        None => {}
    }
    sessions.insert(peer.id, session.clone());
    // Nobody need be listening.
    let _ = shared.events.send(Event::Up(peer.clone()));
    tracing::info!(peer = %peer.id, name = %peer.name, address = %peer.address, dialled = peer.dialled, "link up");
    shared.tasks.spawn(run::run(shared.clone(), session.clone()));
    Ok(true)
}

fn close(connection: &quinn::Connection, code: quinn::VarInt) {
    connection.close(code, code::text(code).as_bytes());
}
