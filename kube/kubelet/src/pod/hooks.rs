//! Hooks: what a container has done to it right after its start and right before its end.
//!
//! ```text
//! started ── postStart ──▶ it counts as running        preStop ──▶ asked to end
//!               └── failed: the run is stopped            └── failed: an event says so
//! ```
//!
//! A hook is not bounded by itself: `postStart` ends with the pod, `preStop` with the grace period.

use std::time::Duration;

use k8s_openapi::api::core::v1::{LifecycleHandler, Pod};

use super::ask::{self, HOOK_AGENT, Subject};

/// A command's name is in the pod; it is cut where nobody reads on.
const TOLD_MAX: usize = 1024;

/// What is told of a failed `postStart` hook. Of a command not its words, which may be secrets.
pub(super) fn failure(pod: &Pod, container: &str, handler: &LifecycleHandler, why: &str) -> String {
    let of = |part: &Option<String>| part.clone().unwrap_or_default();
    let meta = &pod.metadata;
    let of_pod = format!("{}_{}({})", of(&meta.name), of(&meta.namespace), of(&meta.uid));
    let (kind, what, why) = match (&handler.exec, &handler.http_get) {
        (Some(exec), _) => ("Exec", format!("[{}]", exec.command.as_deref().unwrap_or_default().join(" ")), ""),
        (None, Some(http)) => ("HTTP", of(&http.path), why),
        (None, None) => ("Sleep", String::new(), why),
    };
    let why = if why.is_empty() { String::new() } else { format!(" - error: {why}") };
    let text = format!("{kind} lifecycle hook ({what}) for Container {container:?} in Pod {of_pod:?} failed{why}");
    text.chars().take(TOLD_MAX).collect()
}

/// Does what a handler says, to its end.
///
/// # Errors
/// What went wrong, for the log alone: a command may say secrets.
pub(super) async fn run(subject: &Subject, handler: &LifecycleHandler) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        ask::command(subject, exec.command.clone().unwrap_or_default()).await
    } else if let Some(http) = &handler.http_get {
        // Any answer will do.
        ask::page(subject, http, HOOK_AGENT).await.map(drop)
    } else if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        Ok(())
    } else {
        Err("the hook has no handler this node knows".to_owned())
    }
}
