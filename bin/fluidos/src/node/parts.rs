//! Parts: everything that runs in a node. What somebody waits for comes first; rooms come after it.
//!
//! ```text
//!  REAR, API, links, kubelet, scheduler, controllers ──▶ the node's threads
//!  rooms: they look at what has changed and plan ──────▶ one thread that yields the processor to the others
//! ```
//! A *room* looks at the sum of all changes, so one that comes later sees more at once and misses nothing. While buyers come as fast as
//! they are answered, rooms that looked at each purchase took more of the processor than all answers together.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

/// By which the rooms' thread yields (nice(2)): about a third of the processor of one that does not, when both want all of it.
const YIELDING: i32 = 5;

/// The thread of the rooms. It must not be dropped inside a runtime.
///
/// # Errors
/// As the system says.
pub fn rooms() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1) // together they are one more part of the node
        .thread_name("rooms")
        .on_thread_start(|| {
            // On Linux it counts for the thread that asks.
            if let Err(error) = rustix::process::nice(YIELDING) {
                tracing::warn!(%error, "rooms do not yield the processor");
            }
        })
        .enable_all()
        .build()
}

/// What runs in a node, until it ends.
pub struct Parts {
    set: JoinSet<()>,
    rooms: Handle,
}

impl Parts {
    pub fn new(rooms: Handle) -> Self {
        Self { set: JoinSet::new(), rooms }
    }

    /// Runs a part.
    pub fn spawn(&mut self, part: impl Future<Output = ()> + Send + 'static) {
        self.set.spawn(part);
    }

    /// Runs a room.
    pub fn spawn_room(&mut self, room: impl Future<Output = ()> + Send + 'static) {
        self.set.spawn_on(room, &self.rooms);
    }

    /// Ends all of them.
    pub async fn shutdown(mut self) {
        self.set.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn rooms_yield_and_others_do_not() {
        let before = getpriority_process(None).unwrap();
        let rooms = rooms().unwrap();
        let room = rooms.block_on(async { tokio::spawn(async { getpriority_process(None).unwrap() }).await.unwrap() });
        assert_eq!((room, getpriority_process(None).unwrap()), (before + YIELDING, before));
    }
}
