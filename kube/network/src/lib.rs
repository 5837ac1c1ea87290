//! Pod networks and Services of one machine: namespaces, bridges, addresses, nftables, cluster DNS.
