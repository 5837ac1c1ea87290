//! The status, written to the API.

use super::*;

impl Worker {
    fn status(&self, observed: &Observed) -> PodStatus {
        let messages =
            self.messages.iter().filter(|(_, m)| !m.is_empty()).map(|(k, v)| (k.clone(), v.clone())).collect();
        status::status(&status::View {
            pod: &self.pod,
            runs: &observed.containers,
            crashes: &self.crashes,
            holds: &self.holds,
            ready: &self.ready,
            started: &self.started,
            messages: &messages,
            images: &self.images,
            host_ips: &self.shared.host_ips,
            pod_ips: &self.pod_ips,
            sandbox: self.sandbox,
            given: &self.given,
            resizing: self.resizing.as_ref(),
            stopping: self.stopping.is_some(),
            ended: self.ended.as_ref().map(|(reason, message)| (*reason, message.as_str())),
            now: Timestamp::now(),
        })
    }

    /// A static pod with the status that the API shows, or the last one while it shows none.
    pub(super) fn as_shown(&mut self, pod: &Pod, shown: Option<Arc<Pod>>) -> Arc<Pod> {
        let uid = shown.as_ref().and_then(|shown| shown.metadata.uid.clone());
        if uid != self.shown {
            // What was written was written to another.
            (self.shown, self.written) = (uid, None);
            self.told = self.told.take().or_else(|| self.pod.status.clone());
        }
        let theirs = shown.and_then(|shown| shown.status.clone()).filter(|status| status.start_time.is_some());
        if theirs.is_some() {
            self.told = None;
        }
        let status = theirs.or_else(|| self.told.clone());
        Arc::new(Pod { status, ..pod.clone() })
    }

    /// Writes the status if it is new; `false` when that must be tried again.
    pub(super) async fn report(&mut self, observed: &Observed) -> bool {
        let status = self.status(observed);
        let own = is_static(&self.pod);
        if own && self.shown.is_none() {
            self.told = Some(status); // for whom it may be shown to later
            return true;
        }
        let agrees = status::agree(self.pod.status.as_ref(), &status);
        if let Some((written, at)) = self.written.as_ref().filter(|(written, _)| *written == status) {
            // Others may have written over it (a node that was thought lost); or the watch has not shown ours yet.
            if agrees || at.elapsed() < RETRY {
                return agrees;
            }
            tracing::info!(
                pod = self.pod.metadata.name,
                phase = written.phase,
                "the status was changed by others; writing it again"
            );
        } else if self.told.is_none() && self.pod.status.as_ref() == Some(&status) {
            return true;
        }
        let meta = &self.pod.metadata;
        // The uid makes sure that it is this pod and not one of the same name. Fields that went away are named.
        let uid = if own { &self.shown } else { &meta.uid };
        let mut body = serde_json::json!({"metadata": {"uid": uid}, "status": status});
        for field in ["podIP", "podIPs", "reason", "message"] {
            if body["status"].get(field).is_none() && self.written.is_some() {
                body["status"][field] = serde_json::Value::Null;
            }
        }
        let api: Api<Pod> = self.api();
        let name = meta.name.as_deref().unwrap_or_default();
        match api.patch_status(name, &PatchParams::default(), &Patch::Merge(&body)).await {
            Ok(_) => {
                self.written = Some((status, tokio::time::Instant::now()));
                true
            }
            // The watch will say that it is gone, or replaced.
            Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => true,
            Err(e) => {
                tracing::warn!(pod = name, "write the pod's status: {e}");
                false
            }
        }
    }
}
