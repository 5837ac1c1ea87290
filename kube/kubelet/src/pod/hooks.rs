//! Hooks: what a container has done to it right after its start and right before its end.
//!
//! ```text
//! started ── postStart ──▶ it counts as running        preStop ──▶ asked to end
//!               └── failed: the run is stopped            └── failed: an event says so
//! ```
//!
//! A hook is not bounded by itself: `postStart` ends with the pod, `preStop` with the grace period.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;

use super::probes::{self, Subject};

/// Does what a handler says, to its end.
///
/// # Errors
/// What went wrong, for the log alone: a command may say secrets.
pub(super) async fn run(subject: &Subject, handler: &LifecycleHandler) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        probes::command(subject, exec.command.clone().unwrap_or_default()).await
    } else if let Some(http) = &handler.http_get {
        // Any answer will do.
        probes::http_get(subject, http).await.map(drop)
    } else if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        Ok(())
    } else {
        Err("the hook has no handler this node knows".to_owned())
    }
}
