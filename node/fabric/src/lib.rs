//! Virtual Fabric Manager (§6.4.4): virtual nodes, reflection, network.
