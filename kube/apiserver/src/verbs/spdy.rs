//! SPDY/3.1, as much of it as port-forward needs: many two-way byte streams over one connection.
//!
//! ```text
//! control  1|version 3|type     DATA  0|stream
//!          flags|length               flags|length     flag 1: the sender has no more for the stream
//!          …                          octets
//! ```
//!
//! After the draft "SPDY Protocol, Draft 3.1". Flow control is left out, as in the library that Kubernetes' clients
//! use: neither side counts windows, and a slow stream slows its connection.

pub mod frame;
pub mod headers;
