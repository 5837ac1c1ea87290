//! Nodes that buy, sell and resell, each with an API server in process; one subject a file.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod buffers;
mod changes;
mod conditions;
mod decide;
mod evidence;
mod hostile;
mod model;
mod offers;
mod official_seller;
mod openapi;
mod parts;
mod prices;
mod renewal;
mod requests;
mod resale;
mod resale_ends;
mod resale_killed;
mod resale_renewal;
mod resale_renewal_killed;
mod resale_services;
mod samples;
mod seller_killed;
mod services;
mod support;
mod two_nodes;
