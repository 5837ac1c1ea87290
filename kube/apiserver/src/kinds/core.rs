//! `v1`: the core group.

mod config_map;
mod endpoints;
pub mod event;
mod namespace;
mod node;
pub mod pod;
mod replication_controller;
mod secret;
mod service;
mod service_account;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] = &[
    &config_map::KIND,
    &endpoints::KIND,
    &event::KIND,
    &namespace::KIND,
    &node::KIND,
    &pod::KIND,
    &replication_controller::KIND,
    &secret::KIND,
    &service::KIND,
    &service_account::KIND,
];
