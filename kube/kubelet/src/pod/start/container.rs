//! A container: configured, created, started, and its first hook.

use super::*;

impl Starter<'_> {
    /// Starts a container in a task of its own: who waits for it is dropped when the kubelet stops, and a runtime behind a socket would take
    /// that for the end of what it is just starting.
    async fn begin(&self, config: &ContainerConfig) -> Result<engine_runtime::ContainerStatus, engine_runtime::Error> {
        let (runtime, uid, config) = (Arc::clone(&self.shared.runtime), uid(self.pod).to_owned(), config.clone());
        let begun = self.shared.work.spawn(async move { runtime.start(&uid, &config).await });
        begun.await.unwrap_or_else(|error| Err(engine_runtime::Error::Refused(error.to_string())))
    }

    pub(super) async fn container(
        &self,
        prepared: &Prepared,
        name: &str,
        attempt: u32,
        held: Option<&Hold>,
        cancel: &CancellationToken,
        outcome: &mut Outcome,
    ) -> Result<String, Failure> {
        let spec = crate::pod::container(self.pod, name);
        let spec =
            &*spec.ok_or_else(|| failed("CreateContainerConfigError", format!("the pod has no container {name}")))?;
        if let Some(what) = support::container(spec, self.host_network(), self.dual()) {
            let message = format!("not supported on this node: {what}");
            self.shared.events.warning(self.pod, Some(name), "NotSupported", message.clone());
            return Err(Failure { reason: "NotSupported", message, retry: Retry::Never });
        }
        let origin = tokio::select! {
            // A fetch is dropped between blobs; what has arrived stays and is verified.
            origin = self.origin(spec, held) => origin?,
            () = cancel.cancelled() => return Ok(String::new()), // nobody looks at it any more
        };
        outcome.images.insert(name.to_owned(), origin.id());
        let config = self.config(prepared, spec, attempt, &origin).await.inspect_err(|f| {
            self.shared.events.warning(self.pod, Some(name), "Failed", format!("Error: {}", f.message));
        })?;
        self.shared.events.normal(self.pod, Some(name), "Created", format!("Created container: {name}"));
        match self.begin(&config).await {
            Ok(_) => {
                self.shared.events.normal(self.pod, Some(name), "Started", format!("Started container {name}"));
                if let Some(hook) = spec.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) {
                    let subject = ask::Subject {
                        runtime: Arc::clone(&self.shared.runtime),
                        pod_uid: uid(self.pod).to_owned(),
                        run: config.id.clone(),
                        address: prepared.place.pod_ips.first().cloned().unwrap_or_default(),
                        container: spec.clone(),
                    };
                    let done = tokio::select! {
                        done = hooks::run(&subject, hook) => done,
                        () = cancel.cancelled() => Ok(()), // it is stopped anyway
                    };
                    if let Err(why) = done {
                        tracing::info!(
                            pod = self.pod.metadata.name,
                            container = name,
                            "the postStart hook failed: {why}"
                        );
                        let message = "PostStartHook failed".to_owned();
                        self.shared.events.warning(self.pod, Some(name), "FailedPostStartHook", message);
                        let told = hooks::failure(self.pod, name, hook, &why);
                        outcome.hooks_failed.push((config.id.clone(), name.to_owned(), told));
                    }
                }
                Ok(config.id)
            }
            Err(engine_runtime::Error::Refused(why)) => {
                // The runtime remembers it as a run that failed; the restart policy decides what comes next.
                self.shared.events.warning(
                    self.pod,
                    Some(name),
                    "Failed",
                    format!("Error: failed to start container \"{name}\": {why}"),
                );
                Ok(config.id)
            }
            Err(e) => Err(failed("RunContainerError", chain(&e))),
        }
    }

    pub(super) async fn config(
        &self,
        prepared: &Prepared,
        spec: &Container,
        attempt: u32,
        origin: &Origin,
    ) -> Result<ContainerConfig, Failure> {
        let Prepared { sources, place } = prepared;
        let image = origin.config();
        let env = environment::resolve(self.pod, spec, &image.env, sources, place).map_err(config_failure)?;
        let profile = |name: &str| security::local_profile(&self.shared.dir.join("seccomp"), name);
        let rights =
            security::decide(self.pod, spec, &image.user, self.is_fenced(), &profile).map_err(config_failure)?;
        let expand = |list: &Option<Vec<String>>| -> Vec<String> {
            list.iter().flatten().map(|a| environment::expand(a, &env)).collect()
        };
        let (command, own_args) = (expand(&spec.command), expand(&spec.args));
        let args: Vec<String> = match (command.is_empty(), own_args.is_empty()) {
            (false, _) => command.into_iter().chain(own_args).collect(),
            (true, false) => image.entrypoint.iter().cloned().chain(own_args).collect(),
            (true, true) => image.entrypoint.iter().chain(&image.cmd).cloned().collect(),
        };
        if args.is_empty() {
            return Err(failed("CreateContainerError", "no command specified".to_owned()));
        }
        let root = self.root(origin).await?;
        let id = new_id().map_err(|e| failed("CreateContainerError", format!("find a new id: {e}")))?;
        let log = self.dir.log(&spec.name, attempt);
        let mounts = self.mounts(spec, &id, sources, &env)?;
        make_parent(&log).map_err(|e| failed("CreateContainerError", format!("{}: {e}", log.display())))?;
        let cgroup = format!("pod{}/{}", uid(self.pod), &id[..16]);
        let limits = resources::container_limits(spec);
        let cgroups =
            self.shared.cgroups.create(&cgroup, &limits).map_err(|e| failed("CreateContainerError", chain(&e)))?;
        let hostname = if self.host_network() { self.shared.node_name.clone() } else { self.kernel_name()? };
        let mut env: Vec<String> = env.into_iter().map(|(n, v)| format!("{n}={v}")).collect();
        if !env.iter().any(|e| e.starts_with("HOSTNAME=")) {
            env.push(format!("HOSTNAME={hostname}"));
        }
        Ok(ContainerConfig {
            id,
            name: spec.name.clone(),
            attempt,
            root,
            args,
            runner: Vec::new(),
            ports: ports(spec),
            env,
            cwd: spec.working_dir.clone().filter(|d| !d.is_empty()).unwrap_or_else(|| image.working_dir.clone()),
            user: rights.user,
            mounts,
            capabilities: rights.capabilities,
            no_new_privs: rights.no_new_privs,
            privileged: rights.privileged,
            read_only_root: rights.read_only_root,
            seccomp: rights.seccomp,
            fenced: false, // the sandbox says so
            host_pid: self.pod.spec.as_ref().and_then(|s| s.host_pid) == Some(true),
            beside: crate::pod::ephemeral(self.pod)
                .find(|c| c.name == spec.name)
                .and_then(|c| c.target_container_name.clone())
                .filter(|target| !target.is_empty()),
            tty: spec.tty == Some(true),
            stdin: spec.stdin == Some(true),
            stdin_once: spec.stdin_once == Some(true),
            cgroups,
            oom_file: Some(self.shared.cgroups.oom_file(&cgroup)),
            oom_score_adj: resources::oom_score_adj(self.pod, spec, &self.shared.capacity),
            log,
        })
    }

    pub(super) fn mounts(
        &self,
        spec: &Container,
        id: &str,
        sources: &Sources,
        env: &[(String, String)],
    ) -> Result<Vec<Mount>, Failure> {
        let mut mounts = Vec::new();
        for m in spec.volume_mounts.iter().flatten() {
            let expression = m.sub_path_expr.as_ref().filter(|e| !e.is_empty());
            let sub_path =
                match expression.map(|e| environment::sub_path(e, env)).transpose().map_err(config_failure)? {
                    None => m.sub_path.clone(),
                    expanded => expanded,
                };
            let located = sources.located.get(&m.name);
            mounts.push(Mount {
                source: located.map_or_else(|| self.dir.volume(&m.name), |l| l.path.clone()),
                sub_path: sub_path.filter(|s| !s.is_empty()).map(PathBuf::from),
                destination: Path::new("/").join(&m.mount_path),
                read_only: m.read_only == Some(true)
                    || located.map_or_else(|| self.is_made_of_objects(&m.name), |l| l.read_only),
                follows_host: m.mount_propagation.as_deref() == Some("HostToContainer"),
            });
        }
        self.own_mounts(spec, id, &mut mounts).map_err(|e| failed("CreateContainerError", e.to_string()))?;
        Ok(mounts)
    }

    /// Files that every container gets, unless the pod mounts something else there.
    pub(super) fn own_mounts(&self, spec: &Container, id: &str, mounts: &mut Vec<Mount>) -> std::io::Result<()> {
        let message = self.dir.termination(id);
        make_parent(&message)?;
        std::fs::write(&message, "")?;
        std::fs::set_permissions(&message, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        let path = spec.termination_message_path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/dev/termination-log");
        let own = [
            ("/etc/hosts", self.dir.etc("hosts")),
            ("/etc/hostname", self.dir.etc("hostname")),
            ("/etc/resolv.conf", self.dir.etc("resolv.conf")),
            (path, message),
        ];
        for (destination, source) in own {
            if !mounts.iter().any(|m| m.destination == Path::new(destination)) {
                mounts.push(Mount::new(source, destination));
            }
        }
        Ok(())
    }

    /// ConfigMaps and the like cannot be written to from inside, whatever the pod says.
    pub(super) fn is_made_of_objects(&self, volume: &str) -> bool {
        let mut all = self.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        all.find(|v| v.name == volume).is_some_and(|v| v.empty_dir.is_none())
    }
}

/// The TCP ports that it declares, in its order.
fn ports(spec: &Container) -> Vec<u16> {
    let tcp = spec.ports.iter().flatten().filter(|p| p.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    tcp.filter_map(|p| u16::try_from(p.container_port).ok()).collect()
}

/// A container id: 256 bits that nobody has used before.
fn new_id() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(engine_images::hex(&bytes))
}

fn make_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) => std::fs::create_dir_all(parent),
        None => Ok(()),
    }
}
