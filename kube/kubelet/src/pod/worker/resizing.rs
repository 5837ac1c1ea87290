//! Resizes of running containers.

use super::*;

impl Worker {
    /// Gives containers what the pod shall have, or notes why not.
    pub(super) fn resize(&mut self, observed: &Observed) {
        self.resizing = None;
        if self.stopping.is_some() || self.starting.is_some() {
            return;
        }
        let decision = {
            let pods = self.pods.borrow();
            let own = uid(&self.pod);
            let others = pods.iter().filter(|(uid, pod)| *uid != own && !is_over(pod)).map(|(_, pod)| pod.as_ref());
            resize::decide(&self.pod, &self.given, others, self.shared.free())
        };
        match decision {
            resize::Decision::Same => {}
            resize::Decision::Pending(reason, why) => self.resizing = Some(("PodResizePending", reason, why)),
            resize::Decision::Change(containers) => match self.change(&containers, observed) {
                Ok(()) => self.given = resize::given(&Pod { status: None, ..Pod::clone(&self.pod) }),
                Err(why) => self.resizing = Some(("PodResizeInProgress", "Error", why)),
            },
        }
    }

    /// Writes the cgroups of containers that run, and asks those to stop that are to be run again. A cgroup may not have more than the one above it,
    /// so the pod's grows first and shrinks last (with the next start, if there is one).
    fn change(&mut self, containers: &[(String, bool)], observed: &Observed) -> Result<(), String> {
        let running = |name: &str| observed.containers.iter().find(|run| run.name == name && run.finished.is_none());
        let cgroups = &self.shared.cgroups;
        let top = format!("pod{}", uid(&self.pod));
        let of = |run: &Run| format!("{top}/{}", &run.id[..run.id.len().min(16)]);
        let spec = self.pod.spec.as_ref();
        let wanted: Vec<_> = crate::pod::init(&self.pod).chain(spec.iter().flat_map(|spec| &spec.containers)).collect();
        let mut runs = Vec::new();
        for (name, restart) in containers {
            let Some((run, container)) = running(name).zip(wanted.iter().find(|c| c.name == *name)) else { continue };
            let limits = resources::container_limits(container);
            if let (false, Some(limit), Some((used, _))) =
                (*restart, limits.memory_limit_bytes, cgroups.usage(&of(run)))
                && limit < used
            {
                return Err(format!(
                    "attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"
                ));
            }
            runs.push((run, limits, *restart));
        }
        if runs.is_empty() {
            return Ok(()); // what starts is given it
        }
        let write = |path: &str, limits: &engine_runtime::cgroups::Limits| {
            cgroups.create(path, limits).map(drop).map_err(|e| start::chain(&e))
        };
        let old = resources::pod_limits(&resize::with(&self.pod, &self.given));
        let new = resources::pod_limits(&self.pod);
        write(&top, &old.larger(&new))?;
        for (run, limits, restart) in &runs {
            if *restart {
                self.shared.events.normal(
                    &self.pod,
                    Some(&run.name),
                    "Killing",
                    format!("Container {} resize requires restart", run.name),
                );
                self.unhealthy.insert(run.id.clone(), plan::grace(&self.pod));
            } else {
                write(&of(run), limits)?;
            }
        }
        if runs.iter().any(|(.., restart)| *restart) { Ok(()) } else { write(&top, &new) }
    }
}
