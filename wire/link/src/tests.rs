//! The conformance suite of a link, on loopback: real QUIC, real keys, peers that vanish, peers that send garbage.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod hostile;
mod rig;
mod sessions;
mod traffic;
