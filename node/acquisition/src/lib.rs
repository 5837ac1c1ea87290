//! Resource Acquisition Manager (§6.4.3): importer, exporter, contract manager.
