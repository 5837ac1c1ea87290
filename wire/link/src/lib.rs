//! The one authenticated session per peer: streams and datagrams over QUIC.
