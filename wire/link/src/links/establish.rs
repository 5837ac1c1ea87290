//! From a connection to a session: who is it, hellos, and whether it is the one that is kept.
//!
//! The side that was dialled decides before it answers, so that a dialler whose session is not kept never believes in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fluidos_identity::{NodeId, origin, peer_node_id};
use rustls::pki_types::CertificateDer;

use super::{Event, INBOUND_MAX, INBOUND_PER_ADDRESS_MAX, SESSIONS_MAX, Shared, lock, run};
use crate::copies::older_stays;
use crate::frame::{self, HELLO_BYTES_MAX};
use crate::hello::Hello;
use crate::session::reason;
use crate::stream::code;
use crate::tie::{Choice, choose};
use crate::{LinkError, PeerInfo, Session};

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
    if let Some(reason) = shared.why_refused(&peer) {
        close(&connection, code::REFUSED);
        return Err(refused(reason));
    }
    // Another address of a peer that is up, found out only now: its session is not disturbed.
    if dialled && shared.session(&peer).is_some() {
        close(&connection, code::DUPLICATE);
        return Ok(Established::Duplicate(peer));
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
                    quinn::ConnectionError::ApplicationClosed(close) if close.error_code == code::COPY => {
                        shared.tell_copies(shared.key.id(), peer, "this one".into());
                        Err(refused(reason(&closed)))
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
    let ours = shared.hello();
    if dialled {
        frame::write(&mut send, "hello", &ours, HELLO_BYTES_MAX).await?;
    }
    let theirs: Hello = frame::read(&mut receive, "hello", HELLO_BYTES_MAX).await?;
    theirs.check()?;
    let version = ours.common_version(&theirs)?;
    let number = shared.session_count.fetch_add(1, Ordering::Relaxed) + 1;
    let dialler = if dialled { shared.key.id() } else { peer };
    let session = Session::new(connection.clone(), peer, theirs, version, number, dialler);
    // Which session is of a process that does not answer any more.
    let mut dead = None;
    while let Some(older) = shared.session(&peer).filter(|older| older.is_of_another_process(&session)) {
        if dead == Some(older.peer().session) {
            break;
        }
        if older_stays(&older, &session).await {
            let from = session.peer().address;
            shared.tell_copies(peer, shared.key.id(), format!("the one that calls from {from}"));
            session.close(code::COPY);
            return Err(LinkError::Dial { address: from, reason: format!("{peer} is up: this is a copy of it") });
        }
        dead = Some(older.peer().session);
    }
    if !admit(shared, &session, dead)? {
        return Ok(Established::Duplicate(peer));
    }
    if !dialled {
        frame::write(&mut send, "hello", &ours, HELLO_BYTES_MAX).await?;
    }
    Ok(Established::Session(session))
}

/// Makes it the session with its peer, unless another one is kept; `dead` is one that is not. Events are sent under the lock, so that they come in
/// the order of what happened.
fn admit(shared: &Arc<Shared>, session: &Session, dead: Option<u64>) -> Result<bool, LinkError> {
    let peer = session.peer();
    let mut sessions = lock(&shared.sessions);
    match sessions.get(&peer.id).filter(|old| old.is_alive()) {
        Some(old) => {
            let choice = match dead == Some(old.peer().session) {
                true => Choice::Replace,
                false => choose(old.facts(), old.age(), session.facts(), shared.key.id(), peer.id),
            };
            if choice == Choice::Keep {
                session.close(code::DUPLICATE);
                return Ok(false);
            }
            old.close(code::REPLACED);
        }
        None => {
            if let Some(reason) = no_room(sessions.values().map(Session::peer), peer) {
                session.close(code::FULL);
                return Err(LinkError::Dial { address: peer.address, reason });
            }
        }
    }
    sessions.insert(peer.id, session.clone());
    // Nobody need be listening.
    let _ = shared.events.send(Event::Up(peer.clone()));
    tracing::info!(peer = %peer.id, name = %peer.name, address = %peer.address, dialled = peer.dialled, "link up");
    shared.tasks.spawn(run::run(shared.clone(), session.clone()));
    Ok(true)
}

/// Says why there is no room for another peer, or `None` if there is.
fn no_room<'a>(up: impl Iterator<Item = &'a PeerInfo>, newcomer: &PeerInfo) -> Option<String> {
    let (mut all, mut inbound, mut same_address) = (0, 0, 0);
    for peer in up {
        all += 1;
        inbound += usize::from(!peer.dialled);
        same_address += usize::from(!peer.dialled && origin(peer.address.ip()) == origin(newcomer.address.ip()));
    }
    if all >= SESSIONS_MAX {
        return Some(format!("{SESSIONS_MAX} peers are up, which is the most"));
    }
    if newcomer.dialled {
        return None;
    }
    if inbound >= INBOUND_MAX {
        return Some(format!("{INBOUND_MAX} peers have dialled in, which is the most"));
    }
    (same_address >= INBOUND_PER_ADDRESS_MAX).then(|| {
        format!("{INBOUND_PER_ADDRESS_MAX} peers have dialled in from {}, which is the most", newcomer.address.ip())
    })
}

fn close(connection: &quinn::Connection, code: quinn::VarInt) {
    connection.close(code, code::text(code).as_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use std::net::{Ipv4Addr, SocketAddr};

    use fluidos_identity::NodeKey;

    use super::*;

    fn peer(host: u32, dialled: bool) -> PeerInfo {
        PeerInfo {
            id: NodeKey::from_seed([1; 32]).unwrap().id(),
            name: String::new(),
            domain: String::new(),
            features: vec![],
            attributes: Default::default(),
            incarnation: 1,
            address: SocketAddr::from((Ipv4Addr::from_bits(host), 1)),
            dialled,
            version: 1,
            session: 1,
        }
    }

    fn check(up: &[PeerInfo], newcomer: &PeerInfo, expected: Option<&str>) {
        let observed = no_room(up.iter(), newcomer);
        let agrees = match (&observed, expected) {
            (None, None) => true,
            (Some(observed), Some(expected)) => observed.contains(expected),
            _ => false,
        };
        assert!(agrees, "{observed:?}, needed {expected:?}");
    }

    #[test]
    fn strangers_do_not_take_the_places_of_those_that_are_looked_for() {
        let strangers: Vec<_> = (0..INBOUND_MAX as u32).map(|host| peer(host, false)).collect();
        check(&strangers[1..], &peer(9999, false), None);
        check(&strangers, &peer(9999, false), Some("512 peers have dialled in"));
        check(&strangers, &peer(9999, true), None);
        let crowd: Vec<_> = (0..INBOUND_PER_ADDRESS_MAX).map(|_| peer(7, false)).collect();
        check(&crowd, &peer(7, false), Some("dialled in from 0.0.0.7"));
        check(&crowd, &peer(8, false), None);
        let v6 = |text: &str| PeerInfo { address: text.parse().unwrap(), ..peer(0, false) };
        let crowd: Vec<_> = (0..INBOUND_PER_ADDRESS_MAX).map(|_| v6("[2001:db8::1]:1")).collect();
        check(&crowd, &v6("[2001:db8::2]:1"), Some("dialled in from 2001:db8::2"));
        check(&crowd, &v6("[2001:db8:0:1::2]:1"), None);
        let all: Vec<_> = (0..SESSIONS_MAX as u32).map(|host| peer(host, true)).collect();
        check(&all, &peer(9999, true), Some("1024 peers are up"));
    }
}
