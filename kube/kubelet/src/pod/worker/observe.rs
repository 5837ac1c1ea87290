//! What runs and probes say.

use super::*;
use crate::pod::{ask, last_words};

impl Worker {
    /// Takes note of what is new about the runs.
    pub(super) fn note(&mut self, observed: &Observed) {
        self.sandbox = observed.alive;
        for run in &observed.containers {
            self.crashes.entry(run.name.clone()).or_default().observe(run);
            match &run.finished {
                Some(finished) if !self.messages.contains_key(&run.id) => {
                    self.note_end(&run.id, &run.name, run.attempt, finished);
                    self.note_back_off(run);
                }
                None if !self.probing.contains_key(&run.id) => self.begin_probing(&run.id, &run.name),
                _ => {}
            }
        }
        let known = |id: &String| observed.containers.iter().any(|r| r.id == *id);
        self.asked.retain(|id, _| known(id));
        self.messages.retain(|id, _| known(id));
    }

    pub(super) fn note_end(&mut self, id: &str, container: &str, attempt: u32, finished: &Finished) {
        let dir = PodDir::new(&self.shared.dir, uid(&self.pod));
        let policy = crate::pod::container(&self.pod, container).and_then(|c| c.termination_message_policy.clone());
        let failed = finished.exit_code != 0 && policy.as_deref() == Some("FallbackToLogsOnError");
        let log = failed.then(|| dir.log(container, attempt));
        let words = last_words::read(&dir.termination(id), log.as_deref());
        self.probing.remove(id).into_iter().chain(self.hooking.remove(id)).for_each(|task| task.abort());
        self.ready.remove(id);
        self.started.remove(id);
        self.unhealthy.remove(id);
        self.asked.remove(id);
        // An empty message is kept too, as the mark that this end has been noted; the status leaves it out.
        self.messages.insert(id.to_owned(), words);
        let cgroup = format!("pod{}/{}", uid(&self.pod), &id[..id.len().min(16)]);
        let cgroups = self.shared.cgroups.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(e) = cgroups.remove(&cgroup) {
                tracing::warn!("remove cgroup: {}", start::chain(&e));
            }
        });
        tracing::info!(
            pod = self.pod.metadata.name,
            container,
            exit_code = finished.exit_code,
            oom = finished.oom_killed,
            "container ended"
        );
    }

    fn note_back_off(&self, run: &Run) {
        let delay = self.crashes.get(&run.name).map(Crashes::delay).unwrap_or_default();
        if delay.is_zero() || self.stopping.is_some() || !plan::restarts(&self.pod, run) {
            return;
        }
        let meta = &self.pod.metadata;
        let part = |p: &Option<String>| p.clone().unwrap_or_default();
        let (container, name, namespace, uid) = (&run.name, part(&meta.name), part(&meta.namespace), part(&meta.uid));
        let message = format!("Back-off restarting failed container {container} in pod {name}_{namespace}({uid})");
        self.shared.events.warning(&self.pod, Some(container), "BackOff", message);
    }

    /// A run as those see it who ask it something.
    pub(super) fn subject(&self, id: &str, container: &str) -> Option<ask::Subject> {
        let host = self.pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
        let address = match self.pod_ips.first() {
            Some(ip) if !host => ip.clone(),
            _ => self.shared.host_ip.clone(),
        };
        Some(ask::Subject {
            runtime: Arc::clone(&self.shared.runtime),
            pod_uid: uid(&self.pod).to_owned(),
            run: id.to_owned(),
            address,
            container: crate::pod::container(&self.pod, container)?.into_owned(),
        })
    }

    fn begin_probing(&mut self, id: &str, container: &str) {
        let Some(subject) = self.subject(id, container) else { return };
        let spec = &subject.container;
        if spec.readiness_probe.is_none() && spec.startup_probe.is_none() && spec.liveness_probe.is_none() {
            // Nothing to ask: no task is needed to know the answer.
            self.started.insert(id.to_owned());
            self.ready.insert(id.to_owned());
            self.probing.insert(id.to_owned(), tokio::spawn(async {}).abort_handle());
            return;
        }
        let task = tokio::spawn(probes::probe(subject, self.verdicts_in.clone()));
        self.probing.insert(id.to_owned(), task.abort_handle());
    }

    pub(super) fn hear(&mut self, run: String, verdict: Verdict) {
        let runs = self.observed.borrow().containers.clone();
        let Some(name) = runs.iter().find(|r| r.id == run && r.finished.is_none()).map(|r| r.name.clone()) else {
            return;
        };
        match verdict {
            Verdict::Started => drop(self.started.insert(run)),
            Verdict::Ready(true) => drop(self.ready.insert(run)),
            Verdict::Ready(false) => drop(self.ready.remove(&run)),
            Verdict::Failed(probe, why) => {
                self.shared.events.warning(&self.pod, Some(&name), "Unhealthy", format!("{probe} probe failed: {why}"));
            }
            Verdict::Warned(probe, what) => {
                self.shared.events.warning(
                    &self.pod,
                    Some(&name),
                    "ProbeWarning",
                    format!("{probe} probe warning: {what}"),
                );
            }
            // What ends anyway is not restarted.
            Verdict::Unhealthy(_) if self.stopping.is_some() => {}
            Verdict::Unhealthy(probe) => {
                let message = format!("Container {name} failed {probe} probe, will be restarted");
                self.shared.events.normal(&self.pod, Some(&name), "Killing", message);
                let spec = crate::pod::container(&self.pod, &name);
                let probe = spec.as_ref().and_then(|c| match probe {
                    "startup" => c.startup_probe.as_ref(),
                    _ => c.liveness_probe.as_ref(),
                });
                let seconds = probe.and_then(|p| u64::try_from(p.termination_grace_period_seconds?).ok());
                self.unhealthy.insert(run, seconds.map_or_else(|| plan::grace(&self.pod), Duration::from_secs));
            }
            Verdict::Hooked(result) => {
                if let Err(why) = result {
                    tracing::info!(pod = self.pod.metadata.name, container = name, "the preStop hook failed: {why}");
                    let message = "PreStopHook failed".to_owned();
                    self.shared.events.warning(&self.pod, Some(&name), "FailedPreStopHook", message);
                }
                if let Some(asked) = self.asked.get_mut(&run) {
                    asked.hook = false;
                }
            }
        }
    }
}
