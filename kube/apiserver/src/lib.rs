//! The Kubernetes API: verbs, patches, watch, custom resources, discovery, OpenAPI.

pub mod node_proxy;
