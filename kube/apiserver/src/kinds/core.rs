//! `v1`: the core group.

mod config_map;
mod endpoints;
pub mod event;
mod limit_range;
mod namespace;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
pub mod pod;
mod pod_template;
mod replication_controller;
mod resource_quota;
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
    &persistent_volume::KIND,
    &persistent_volume_claim::KIND,
    &limit_range::KIND,
    &resource_quota::KIND,
    &pod_template::KIND,
];
