//! Dials an address for ever, and waits while there is a session with the peer it leads to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fluidos_identity::NodeId;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::establish::{Established, establish};
use super::{DialStatus, Shared, lock};
use crate::LinkError;
use crate::backoff::{Whom, seed, wait_before_dial};
use crate::session::reason;

/// Two round trips. Short, because a peer that has just started hears only a dial that is begun, or repeated, after that.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// A dial under way. Dropping it ends it.
pub(super) struct Dial {
    status: watch::Receiver<DialStatus>,
    expected: Option<NodeId>,
    _stop: DropGuard,
}

impl Dial {
    pub(super) fn status(&self) -> DialStatus {
        self.status.borrow().clone()
    }
}

/// Starts dialling, unless the same is being dialled already.
pub(super) fn start(shared: &Arc<Shared>, address: SocketAddr, expected: Option<NodeId>) {
    let mut dials = lock(&shared.dials);
    if shared.stop.is_cancelled() || dials.get(&address).is_some_and(|dial| dial.expected == expected) {
        return;
    }
    let stop = shared.stop.child_token();
    let (sender, status) = watch::channel(DialStatus::Trying { failures: 0, last_error: String::new() });
    shared.tasks.spawn(dial_loop(shared.clone(), address, expected, sender, stop.clone()));
    dials.insert(address, Dial { status, expected, _stop: stop.drop_guard() });
}

async fn dial_loop(
    shared: Arc<Shared>,
    address: SocketAddr,
    expected: Option<NodeId>,
    status: watch::Sender<DialStatus>,
    stop: CancellationToken,
) {
    let dialling = async {
        let seed = seed(&shared.key.id(), expected.as_ref());
        let mut leads_to = expected;
        let mut failures: u32 = 0;
        let mut whom = if expected.is_some() { Whom::Found } else { Whom::Named };
        loop {
            if let Some(session) = leads_to.and_then(|peer| shared.session(&peer)) {
                status.send_replace(DialStatus::Up(session.peer().id));
                failures = 0;
                whom = whom.met();
                let reason = session.closed_reason().await;
                status.send_replace(DialStatus::Trying { failures, last_error: reason });
            }
            match dial_once(&shared, address, expected).await {
                Ok(Established::Session(session)) => {
                    whom = whom.met();
                    leads_to = Some(session.peer().id);
                    failures = 0;
                }
                Ok(Established::Itself) => {
                    status.send_replace(DialStatus::Itself);
                    return;
                }
                // The other session is there already, or will be within a moment; if not, the peer has yet to notice that
                // it has lost it.
                Ok(Established::Duplicate(peer)) => {
                    leads_to = Some(peer);
                    failures = failures.saturating_add(1);
                    tokio::time::sleep(wait_before_dial(failures, whom, seed)).await;
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::debug!(%address, failures, %error, "dial failed");
                    status.send_replace(DialStatus::Trying { failures, last_error: error.to_string() });
                    tokio::time::sleep(wait_before_dial(failures, whom, seed)).await;
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        // Dropping it is safe: a connection that is not a session yet is closed with its handle.
        () = dialling => {}
    }
}

async fn dial_once(
    shared: &Arc<Shared>,
    address: SocketAddr,
    expected: Option<NodeId>,
) -> Result<Established, LinkError> {
    let failed = |reason: String| LinkError::Dial { address, reason };
    let config = shared.client(expected)?;
    // The name is not sent: keys are names here.
    let connecting =
        shared.endpoint.connect_with(config, address, "node.invalid").map_err(|error| failed(error.to_string()))?;
    let connection = tokio::time::timeout(DIAL_TIMEOUT, connecting)
        .await
        .map_err(|_| failed(format!("no answer within {} s", DIAL_TIMEOUT.as_secs())))?
        .map_err(|error| failed(reason(&error)))?;
    establish(shared, connection, true).await
}
