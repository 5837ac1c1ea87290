//! Takes what dials in.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::establish::establish;
use super::{HANDSHAKES_MAX, Shared};

/// Two round trips; nobody is 5 s away.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Accepts until the links stop.
pub(super) async fn accept_loop(shared: Arc<Shared>) {
    loop {
        let incoming = tokio::select! {
            () = shared.stop.cancelled() => return,
            // Dropping it is safe: what has come in stays in the endpoint's queue.
            incoming = shared.endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        let Ok(permit) = shared.handshakes.clone().try_acquire_owned() else {
            shared.refused_sessions.fetch_add(1, Ordering::Relaxed);
            incoming.refuse();
            continue;
        };
        // Under load an address must first show that it receives what is sent to it: forged ones cannot.
        let crowded = shared.handshakes.available_permits() < HANDSHAKES_MAX / 2;
        if crowded && !incoming.remote_address_validated() && incoming.may_retry() {
            if let Err(error) = incoming.retry() {
                tracing::debug!(%error, "link could not ask for address validation");
            }
            continue;
        }
        shared.tasks.spawn(accept(shared.clone(), incoming, permit));
    }
}

async fn accept(shared: Arc<Shared>, incoming: quinn::Incoming, permit: OwnedSemaphorePermit) {
    let from = incoming.remote_address();
    let refused = |reason: String| {
        shared.refused_sessions.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%from, %reason, "link refused");
    };
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => return refused(error.to_string()),
    };
    let connection = match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return refused(error.to_string()),
        Err(_) => return refused("the handshake took too long".into()),
    };
    if let Err(error) = establish(&shared, connection, false).await {
        refused(error.to_string());
    }
    drop(permit);
}
