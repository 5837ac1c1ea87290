//! The one authenticated session per peer: streams, requests and datagrams over QUIC.
//!
//! A **link** is a live session between two nodes, whoever dialled. A peer is *up* if and only if there is a session with it
//! that has exchanged hellos and is not closed.
//!
//! ```text
//!   node A                                                   node B
//!   dial ──── QUIC, TLS 1.3, both keys proven ─────────────► accept
//!        ──── hello {versions, features, name, …} ─────────►
//!        ◄─── hello ───────────────────────────────────────
//!   Up(B)                                                    Up(A)
//!        ════ stream: {kind, header} then bytes ═══════════►  handler of that kind       both ways
//!        ◄═══ datagram: channel (1 byte) + payload ═════════  receiver of that channel   both ways
//! ```
//! Both sides may dial at once: the same one of the two sessions is kept on both sides (`tie.rs`). A dial is retried for ever,
//! and waits while there is a session with the peer it leads to. A process that comes with the key of a peer that is up, and is
//! another one, is a restart or a copy (`copies.rs`): the older process is asked whether it lives.
//!
//! *Hostile peers*: everything is length first and bounded; what is malformed is refused and counted, and a peer that
//! sends too much of it is not listened to for a while. Handlers run in tasks of the session and are cancelled with it.
//!
//! Limits: no relay and no hole punching yet; the address of a session that moves is QUIC's own migration.

mod backoff;
mod copies;
mod error;
mod frame;
mod handler;
mod hello;
mod links;
mod session;
mod stream;
mod strikes;
mod tie;

pub use error::LinkError;
pub use handler::{Handler, RequestHandler, RequestRefusal};
pub use hello::{ATTRIBUTES_MAX, FEATURES_MAX, Hello, PROTOCOL_VERSIONS};
pub use links::{Counters, Datagram, DialStatus, Event, Links, Options};
pub use session::{PeerInfo, Session, SessionStats};
pub use stream::LinkStream;

#[cfg(test)]
mod tests;
