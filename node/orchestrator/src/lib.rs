//! Node Orchestrator (§6.4.2): placement of service requests.
