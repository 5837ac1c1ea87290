//! Keys, DIDs, signatures and TLS material: a node is its key.
