//! Multicast DNS (RFC 6762) and service discovery by it (RFC 6763): nodes on one LAN find each other with no configuration (D3).
//!
//! A node announces the service `_fluidos._udp.local.`: its instance is named by the tag of its key, and its TXT record says key, name,
//! domain, ports and features, signed. It answers the question of a newcomer at once, so nobody waits for the next announcement.
//!
//! ```text
//! 224.0.0.251, ff02::fb ─ cable ─▶ act: sockets, time ─▶ message ─▶ engine ─┬▶ responder: what is said of this node
//!                                          ▲                                └▶ browser: who is there ─▶ Heard
//!                                          └────────── packets ────────────────┘
//! ```
//! Everything but `act` and `cables` is pure: `now` is an argument, and chance has a seed.
//!
//! There is no probing, and no conflict (RFC 6762, sections 8.1 and 9): an instance is named by a key, who cannot sign for it takes nobody's
//! place, and two live copies of one key are told apart on their links.
//!
//! Limits: other services are neither announced nor browsed; that a record does *not* exist is not answered (NSEC); names in `local.` are not
//! looked up for others; addresses of one cable (`fe80::`, `169.254.`) are not announced; cables are looked at every 3 s.

mod act;
pub(crate) mod announcement;
mod browser;
mod cables;
mod engine;
mod jitter;
mod life;
mod message;
mod pace;
mod responder;
#[cfg(test)]
mod tests;
mod ways;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

pub use announcement::Announcement;

use crate::{Sighting, plan};

pub(crate) const SERVICE: &str = "_fluidos._udp.local.";
/// Instances that are kept, about 2 KiB each: as many as nodes, and some that are none.
const INSTANCES_MAX: usize = 2 * plan::KNOWN_MAX;

/// Why there is no multicast DNS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket on any cable.
    #[error("multicast DNS on UDP port 5353: {0}; --no-mdns does without")]
    Socket(#[from] std::io::Error),
    /// An announcement that does not fit.
    #[error("multicast DNS: {0}; --no-mdns does without")]
    Message(#[from] hickory_proto::ProtoError),
}

/// Something that was heard on the LAN: a node, or what was not one and why. It is told when it is new, and once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A signed announcement; until it is gone, its node goes on to announce it.
    Node(Sighting),
    /// An announcement that is refused: its instance and the reason.
    Refused(String, String),
    /// The node with this tag said good-bye, or did not answer any more. Anybody can forge it.
    Gone(String),
}

/// Announces and listens. Dropping it says good-bye.
pub struct Mdns {
    shared: Arc<act::Shared>,
    task: AbortHandle,
}

impl Mdns {
    /// Listens, and passes on what it hears; with nobody to pass it to, it only announces. Nothing is announced yet.
    ///
    /// # Errors
    /// When no socket can be opened.
    ///
    /// # Assumptions
    /// A runtime of tokio, in the network namespace that is meant.
    pub fn start(heard: Option<mpsc::Sender<Heard>>) -> Result<Self, Error> {
        // As many seeds as processes, so that not all answer in the same moment.
        let seed = RandomState::new().hash_one(std::process::id());
        let engine = engine::Engine::new(heard.is_some(), seed, Instant::now())?;
        let shared = act::Shared::new(engine, heard);
        shared.look(&mut shared.lock())?;
        let task = tokio::spawn(shared.clone().run()).abort_handle();
        Ok(Self { shared, task })
    }

    /// Announces this node, in place of what was announced before; `None` says good-bye.
    ///
    /// # Errors
    /// When the announcement does not fit.
    pub fn announce(&mut self, announcement: Option<&Announcement<'_>>) -> Result<(), Error> {
        let Some(announcement) = announcement else {
            let mut state = self.shared.lock();
            if let Err(error) = self.shared.look(&mut state) {
                tracing::debug!(%error, "no good-bye on a cable");
            }
            let sends = state.engine.bye()?;
            state.send(sends);
            return Ok(());
        };
        self.announce_also(announcement)
    }

    /// Announces one more node, as a process does that plays a crowd.
    ///
    /// # Errors
    /// When the announcement does not fit.
    pub fn announce_also(&mut self, announcement: &Announcement<'_>) -> Result<(), Error> {
        self.shared.lock().engine.announce(announcement, Instant::now())?;
        self.shared.wake();
        Ok(())
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        self.task.abort();
        // Peers forget us at once; a crash is noticed by the link.
        self.shared.lock().end();
    }
}

/// The full name under which a node is announced.
pub(crate) fn instance(tag: &str) -> String {
    format!("{tag}.{SERVICE}")
}
