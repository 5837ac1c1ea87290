//! The API server, asked in process: what clients see of it, one subject a file.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod apply;
mod asked;
mod audit;
mod bounds;
mod certificates;
mod conversion;
mod custom;
mod explain;
mod families;
mod hostile;
mod kinds;
mod kubectl;
mod looking_in;
mod metrics;
mod node_restriction;
mod node_tunnel;
mod plug_ins;
mod policies;
mod port_forward;
mod protobuf;
mod proxy;
mod reading;
mod real;
mod real_controllers;
mod reference;
mod resize;
mod rights;
mod rules;
mod stored;
mod support;
mod tokens;
mod usage;
mod verbs;
mod watch;
mod webhooks;
