//! What a start needs, in order: place (cgroup, network, files, volumes, sandbox), image, environment, container.
//!
//! Everything here may be done again: what exists is found and kept. A failure is a [`Hold`]: the pod says why it
//! waits, and the start is tried again later.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, PersistentVolumeClaimVolumeSource, Pod, Secret, Service, ServiceAccount, Volume,
};
use kube::api::{Api, ListParams, PostParams};
use tokio_util::sync::CancellationToken;

use super::environment::{self, Place, Sources};
use super::located::{Located, Unbound, claimed, host_path, is_located};
use super::plan::{Hold, backoff, nanos};
use super::{ConfigError, PodDir, hooks, names, probes, resources, runtime_class, security, support, volumes};
use crate::Shared;
use engine_images::{Image, Reference};
use engine_runtime::{ContainerConfig, Mount, SandboxConfig};

/// The API server may be asked for no shorter life of a token.
const TOKEN_SECONDS: i64 = 3600;
/// A missing ConfigMap is looked for again this soon: its author is usually about to create it.
const CONFIG_RETRY: Duration = Duration::from_secs(2);

/// What the worker learns from a start, whether it succeeded or not.
#[derive(Default)]
pub(super) struct Outcome {
    /// The pod's address.
    pub pod_ip: Option<String>,
    /// The sandbox exists.
    pub sandbox: bool,
    /// Image ids by container.
    pub images: BTreeMap<String, String>,
    /// Runs whose `postStart` hook failed, and their containers.
    pub hooks_failed: Vec<(String, String)>,
    /// By container: the run that was started (or that failed to, as the runtime remembers), or why there is none.
    pub results: BTreeMap<String, Result<String, Hold>>,
}

/// Why something failed, before it is known when it is tried again.
struct Failure {
    reason: &'static str,
    message: String,
    retry: Retry,
}

enum Retry {
    BackOff,
    Soon,
    Never,
}

/// Starts these containers (name and attempt), one after the other. `held` is what failed before.
pub(super) async fn start(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    containers: Vec<(String, u32)>,
    held: BTreeMap<String, Hold>,
    cancel: CancellationToken,
) -> Outcome {
    let mut outcome = Outcome::default();
    let starter = Starter { shared: &shared, pod: &pod, dir: PodDir::new(&shared.dir, uid(&pod)) };
    let prepared = starter.place(&mut outcome).await;
    for (name, attempt) in containers {
        let result = match &prepared {
            Ok(prepared) => starter.container(prepared, &name, attempt, held.get(&name), &cancel, &mut outcome).await,
            Err(failure) => {
                Err(Failure { message: failure.message.clone(), reason: failure.reason, retry: failure.retry.again() })
            }
        };
        if cancel.is_cancelled() {
            break;
        }
        outcome.results.insert(name.clone(), result.map_err(|failure| hold(failure, held.get(&name))));
    }
    outcome
}

/// Writes volumes again from what the API has now; answers whether the API could be asked.
pub(super) async fn refresh(shared: &Shared, pod: &Pod, pod_ip: Option<&str>) -> Result<(), String> {
    let starter = Starter { shared, pod, dir: PodDir::new(&shared.dir, uid(pod)) };
    let mut sources = starter.sources().await.map_err(|f| f.message)?;
    let place = starter.place_of(pod_ip.unwrap_or_default());
    starter.tokens(&mut sources).await.map_err(|f| f.message)?;
    starter.volumes(&sources, &place).map_err(|f| f.message)
}

/// The pod's uid, which the API has given every pod.
pub(super) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// A start that the runtime accepted and does not know of.
pub(super) fn hold_unseen() -> Hold {
    hold(failed("RunContainerError", "the supervisor refused the container".to_owned()), None)
}

fn hold(failure: Failure, before: Option<&Hold>) -> Hold {
    let failures = before.map_or(0, |h| h.failures) + 1;
    let now = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    let delay = match failure.retry {
        Retry::Never => None,
        Retry::Soon => Some(CONFIG_RETRY),
        Retry::BackOff => Some(backoff(failures)),
    };
    Hold {
        reason: failure.reason.to_owned(),
        message: failure.message,
        retry_at_ns: delay.map(|d| now.saturating_add(nanos(d))),
        failures,
    }
}

impl Retry {
    fn again(&self) -> Self {
        match self {
            Self::BackOff => Self::BackOff,
            Self::Soon => Self::Soon,
            Self::Never => Self::Never,
        }
    }
}

struct Prepared {
    sources: Sources,
    place: Place,
}

struct Starter<'a> {
    shared: &'a Shared,
    pod: &'a Pod,
    dir: PodDir,
}

impl Starter<'_> {
    fn host_network(&self) -> bool {
        self.pod.spec.as_ref().and_then(|s| s.host_network) == Some(true)
    }

    fn fs_group(&self) -> Option<u32> {
        let context = self.pod.spec.as_ref()?.security_context.as_ref()?;
        context.fs_group.and_then(|g| u32::try_from(g).ok())
    }

    fn place_of(&self, pod_ip: &str) -> Place {
        Place { host_ip: self.shared.host_ip.clone(), pod_ip: pod_ip.to_owned(), capacity: self.shared.capacity }
    }

    async fn place(&self, outcome: &mut Outcome) -> Result<Prepared, Failure> {
        if let Some(what) = support::unsupported(self.pod) {
            let message = format!("not supported on this node: {what}");
            self.shared.events.warning(self.pod, None, "NotSupported", message.clone());
            return Err(Failure { reason: "NotSupported", message, retry: Retry::Never });
        }
        if let Some(message) = security::forbidden_sysctl(self.pod) {
            self.shared.events.warning(self.pod, None, "SysctlForbidden", message.clone());
            return Err(Failure { reason: "SysctlForbidden", message, retry: Retry::Never });
        }
        if let Some(guests) = &self.shared.guests
            && guests.is_guest(self.pod)
            && !guests.may_start(self.pod)
        {
            let message = "its owner has not confirmed that it shall still run here".to_owned();
            return Err(Failure { reason: "AwaitingOwner", message, retry: Retry::Soon });
        }
        runtime_class::check(&self.shared.client, self.pod).await.map_err(|why| self.no_sandbox(why))?;
        let mut sources = self.sources().await?;
        sources.located = self.located().await?;
        self.tokens(&mut sources).await?;
        let (netns, pod_ip) = self.network().await?;
        outcome.pod_ip = Some(pod_ip.clone());
        let place = self.place_of(&pod_ip);
        self.volumes(&sources, &place).inspect_err(|f| self.no_mount(f))?;
        self.etc(&pod_ip).map_err(|e| failed("CreatePodSandboxError", e.to_string()))?;
        let limits = resources::pod_limits(self.pod);
        let cgroup = format!("pod{}", uid(self.pod));
        self.shared.cgroups.create(&cgroup, &limits).map_err(|e| self.no_sandbox(chain(&e)))?;
        let config = SandboxConfig {
            pod_uid: uid(self.pod).to_owned(),
            netns,
            hostname: (!self.host_network()).then(|| names::hostname(self.pod)),
            host_ipc: self.pod.spec.as_ref().and_then(|s| s.host_ipc) == Some(true),
            share_processes: self.pod.spec.as_ref().and_then(|s| s.share_process_namespace) == Some(true),
            sysctls: self.sysctls(),
            memory_volumes: self.memory_volumes(),
        };
        self.shared.runtime.sandbox(&config).await.map_err(|e| self.no_sandbox(chain(&e)))?;
        outcome.sandbox = true;
        Ok(Prepared { sources, place })
    }

    fn no_sandbox(&self, message: String) -> Failure {
        let text = format!("Failed to create pod sandbox: {message}");
        self.shared.events.warning(self.pod, None, "FailedCreatePodSandBox", text);
        failed("CreatePodSandboxError", message)
    }

    async fn network(&self) -> Result<(Option<PathBuf>, String), Failure> {
        if self.host_network() {
            return Ok((None, self.shared.host_ip.clone()));
        }
        let Some(network) = &self.shared.network else {
            let message = "this node has no pod network; only pods with hostNetwork run here".to_owned();
            return Err(Failure { reason: "NetworkNotReady", message, retry: Retry::Never });
        };
        let guest = self.shared.guests.as_ref().is_some_and(|guests| guests.is_guest(self.pod));
        let uid = uid(self.pod);
        let attached = if guest { network.attach_confined(uid).await } else { network.attach(uid).await };
        let attached = attached.map_err(|e| self.no_sandbox(chain(&e)))?;
        Ok((Some(attached.netns), attached.address.to_string()))
    }

    /// Fetches what the pod refers to. What is not there is simply absent: whether that matters is decided later.
    async fn sources(&self) -> Result<Sources, Failure> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        let needed = environment::needed(self.pod);
        let client = &self.shared.client;
        let mut sources = Sources::default();
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        for name in needed.config_maps {
            let found = maps.get_opt(&name).await.map_err(|e| unreachable_api("configmap", &name, &e))?;
            sources.config_maps.extend(found.map(|m| (name, m)));
        }
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        for name in needed.secrets {
            let found = secrets.get_opt(&name).await.map_err(|e| unreachable_api("secret", &name, &e))?;
            sources.secrets.extend(found.map(|s| (name, s)));
        }
        let services: Api<Service> = Api::namespaced(client.clone(), namespace);
        let listed =
            services.list(&ListParams::default()).await.map_err(|e| unreachable_api("services of", namespace, &e))?;
        sources.services = listed.items;
        if namespace != "default" {
            let services: Api<Service> = Api::namespaced(client.clone(), "default");
            let api = services.get_opt("kubernetes").await.map_err(|e| unreachable_api("service", "kubernetes", &e))?;
            sources.services.extend(api);
        }
        Ok(sources)
    }

    /// Asks for the tokens that projected volumes want. An API server that gives none (404, 501) is told about loudly,
    /// and the file is left out.
    async fn tokens(&self, sources: &mut Sources) -> Result<(), Failure> {
        let spec = self.pod.spec.as_ref();
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        let account = spec.and_then(|s| s.service_account_name.as_deref()).unwrap_or("default");
        let accounts: Api<ServiceAccount> = Api::namespaced(self.shared.client.clone(), namespace);
        for volume in spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
            for wanted in token_sources(volume) {
                let place = (uid(self.pod).to_owned(), volume.name.clone(), wanted.path.clone());
                if let Some(token) = self.shared.tokens.get(&place) {
                    sources.tokens.insert((volume.name.clone(), wanted.path.clone()), token);
                    continue;
                }
                let audiences = wanted.audience.iter().cloned().collect();
                let expiration_seconds = Some(wanted.expiration_seconds.unwrap_or(TOKEN_SECONDS));
                let bound_object_ref = Some(k8s_openapi::api::authentication::v1::BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: self.pod.metadata.name.clone(),
                    uid: self.pod.metadata.uid.clone(),
                });
                let spec = TokenRequestSpec { audiences, expiration_seconds, bound_object_ref };
                let request = TokenRequest { spec, ..TokenRequest::default() };
                match accounts.create_token_request(account, &PostParams::default(), &request).await {
                    Ok(answer) => {
                        let Some(status) = answer.status else { continue };
                        let token = status.token;
                        self.shared.tokens.insert(place, &token, status.expiration_timestamp.0);
                        sources.tokens.insert((volume.name.clone(), wanted.path.clone()), token);
                    }
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405 | 501) => {
                        let message = format!(
                            "volume {:?}: the API server gives no token for service account {account} ({}); {} is left out",
                            volume.name, status.code, wanted.path
                        );
                        tracing::warn!(pod = self.pod.metadata.name, message);
                        self.shared.events.warning(self.pod, None, "TokenNotAvailable", message);
                    }
                    Err(e) => return Err(unreachable_api("token for service account", account, &e)),
                }
            }
        }
        Ok(())
    }

    fn no_mount(&self, failure: &Failure) {
        self.shared.events.warning(self.pod, None, "FailedMount", failure.message.clone());
    }

    fn of_pod(&self) -> impl Iterator<Item = &Volume> {
        self.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten())
    }

    /// Finds the volumes that are on the machine already.
    async fn located(&self) -> Result<BTreeMap<String, Located>, Failure> {
        let mut all = BTreeMap::new();
        for volume in self.of_pod() {
            if let Some(source) = &volume.persistent_volume_claim {
                let found = self.claimed(volume, source).await.inspect_err(|f| self.no_mount(f))?;
                all.insert(volume.name.clone(), found);
            }
            let Some(source) = &volume.host_path else { continue };
            // The API refused it to guests before (PodSecurity); what came another way gets none of the machine either.
            if self.shared.guests.as_ref().is_some_and(|guests| guests.is_guest(self.pod)) {
                let message = format!("volume {:?}: a guest gets no files of this machine", volume.name);
                self.shared.events.warning(self.pod, None, "FailedMount", message.clone());
                return Err(Failure { reason: "NotSupported", message, retry: Retry::Never });
            }
            let path = host_path(source).map_err(|why| set_up(volume, why)).inspect_err(|f| self.no_mount(f))?;
            all.insert(volume.name.clone(), Located { path, read_only: false, grouped: false });
        }
        Ok(all)
    }

    /// Finds the volume of a claim, and gives it to the pod's fsGroup.
    async fn claimed(&self, volume: &Volume, source: &PersistentVolumeClaimVolumeSource) -> Result<Located, Failure> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        let found = claimed(&self.shared.client, namespace, &self.shared.node_name, &volume.name, source).await;
        let found = found.map_err(|e| match e {
            Unbound::Kind(_) => Failure { reason: "NotSupported", message: e.to_string(), retry: Retry::Never },
            _ => Failure { reason: "ContainerCreating", message: e.to_string(), retry: Retry::Soon },
        })?;
        let context = self.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
        if let Some(group) = self.fs_group().filter(|_| found.grouped) {
            let (path, only_if_other) = (found.path.clone(), policy == Some("OnRootMismatch"));
            let given =
                tokio::task::spawn_blocking(move || engine_host::group::give(&path, group, only_if_other)).await;
            given.unwrap_or_else(|e| Err(std::io::Error::other(e))).map_err(|e| set_up(volume, e))?;
        }
        Ok(found)
    }

    fn volumes(&self, sources: &Sources, place: &Place) -> Result<(), Failure> {
        let group = self.fs_group();
        for volume in self.of_pod().filter(|volume| !is_located(volume)) {
            let dir = self.dir.volume(&volume.name);
            let made = match volumes::payload(self.pod, volume, sources, place) {
                Err(e @ ConfigError::Unsupported(_)) => return Err(config_failure(e)),
                Err(e) => return Err(set_up(volume, e)),
                Ok(Some(files)) => volumes::write(&dir, &files, group),
                Ok(None) => volumes::empty_dir(&dir, group),
            };
            made.map_err(|e| set_up(volume, e))?;
        }
        Ok(())
    }

    fn sysctls(&self) -> BTreeMap<String, String> {
        let context = self.pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
        let asked = context.iter().flat_map(|c| c.sysctls.iter().flatten());
        asked.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect()
    }

    fn memory_volumes(&self) -> BTreeMap<PathBuf, u64> {
        let all = self.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        let in_memory =
            all.filter_map(|v| Some((v, v.empty_dir.as_ref().filter(|e| e.medium.as_deref() == Some("Memory"))?)));
        in_memory
            .map(|(volume, dir)| {
                let size = dir.size_limit.as_ref().and_then(|q| substrate_client::quantity::Quantity::try_from(q).ok());
                (self.dir.volume(&volume.name), size.and_then(|q| u64::try_from(q.value()).ok()).unwrap_or(0))
            })
            .collect()
    }

    fn etc(&self, pod_ip: &str) -> std::io::Result<()> {
        let dir = self.dir.etc("");
        std::fs::create_dir_all(&dir)?;
        let machine = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let resolv = names::resolv_conf(self.pod, &self.shared.dns, &machine("/etc/resolv.conf"));
        std::fs::write(self.dir.etc("resolv.conf"), resolv)?;
        let (hosts, hostname) = match self.host_network() {
            true => (machine("/etc/hosts") + &names::host_aliases(self.pod), machine("/etc/hostname")),
            false => (names::hosts(self.pod, pod_ip, &self.shared.dns.domain), names::hostname(self.pod) + "\n"),
        };
        std::fs::write(self.dir.etc("hosts"), hosts)?;
        std::fs::write(self.dir.etc("hostname"), hostname)
    }

    async fn container(
        &self,
        prepared: &Prepared,
        name: &str,
        attempt: u32,
        held: Option<&Hold>,
        cancel: &CancellationToken,
        outcome: &mut Outcome,
    ) -> Result<String, Failure> {
        let spec = super::container(self.pod, name);
        let spec =
            &*spec.ok_or_else(|| failed("CreateContainerConfigError", format!("the pod has no container {name}")))?;
        if let Some(what) = support::container(spec, self.host_network()) {
            let message = format!("not supported on this node: {what}");
            self.shared.events.warning(self.pod, Some(name), "NotSupported", message.clone());
            return Err(Failure { reason: "NotSupported", message, retry: Retry::Never });
        }
        let image = tokio::select! {
            // A fetch is dropped between blobs; what has arrived stays and is verified.
            image = self.image(spec, held) => image?,
            () = cancel.cancelled() => return Ok(String::new()), // nobody looks at it any more
        };
        outcome.images.insert(name.to_owned(), image.id());
        let config = self.config(prepared, spec, attempt, &image).await.inspect_err(|f| {
            self.shared.events.warning(self.pod, Some(name), "Failed", format!("Error: {}", f.message));
        })?;
        self.shared.events.normal(self.pod, Some(name), "Created", format!("Created container: {name}"));
        match self.shared.runtime.start(uid(self.pod), &config).await {
            Ok(_) => {
                self.shared.events.normal(self.pod, Some(name), "Started", format!("Started container {name}"));
                if let Some(hook) = spec.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) {
                    let subject = probes::Subject {
                        runtime: Arc::clone(&self.shared.runtime),
                        pod_uid: uid(self.pod).to_owned(),
                        run: config.id.clone(),
                        address: prepared.place.pod_ip.clone(),
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
                        outcome.hooks_failed.push((config.id.clone(), name.to_owned()));
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

    async fn image(&self, spec: &Container, held: Option<&Hold>) -> Result<Image, Failure> {
        let (events, name) = (&self.shared.events, Some(spec.name.as_str()));
        let text = spec.image.clone().unwrap_or_default();
        let reference: Reference = text.parse().map_err(|e: engine_images::InvalidReference| {
            let message = format!("Failed to apply default image tag \"{text}\": {}", e.why);
            events.warning(self.pod, name, "InspectFailed", message.clone());
            Failure { reason: "InvalidImageName", message, retry: Retry::Never }
        })?;
        let store = &self.shared.images;
        let here = store.find(&reference).await.map_err(|e| failed("ImageInspectError", chain(&e)))?;
        let policy =
            spec.image_pull_policy.as_deref().unwrap_or(if reference.is_latest() { "Always" } else { "IfNotPresent" });
        match (here, policy) {
            (Some(image), "IfNotPresent" | "Never") => {
                events.normal(
                    self.pod,
                    name,
                    "Pulled",
                    format!("Container image \"{text}\" already present on machine"),
                );
                Ok(image)
            }
            (None, "Never") => {
                let message = format!("Container image \"{text}\" is not present with pull policy of Never");
                events.warning(self.pod, name, "ErrImageNeverPull", message.clone());
                Err(Failure { reason: "ErrImageNeverPull", message, retry: Retry::BackOff })
            }
            (here, _) => self.pull(spec, &reference, &text, here, held).await,
        }
    }

    async fn pull(
        &self,
        spec: &Container,
        reference: &Reference,
        text: &str,
        here: Option<Image>,
        held: Option<&Hold>,
    ) -> Result<Image, Failure> {
        let (events, name) = (&self.shared.events, Some(spec.name.as_str()));
        events.normal(self.pod, name, "Pulling", format!("Pulling image \"{text}\""));
        let started = std::time::Instant::now();
        let mut complaints = Vec::new();
        let _held = self.shared.images.hold().await.map_err(|e| failed("ErrImagePull", chain(&e)))?;
        for source in &self.shared.image_sources {
            match source.fetch(reference, self.pod, &self.shared.images).await {
                Ok(false) => {}
                Err(e) => complaints.push(format!("{}: {}", source.name(), chain(&e))),
                Ok(true) => match self.shared.images.find(reference).await {
                    Ok(Some(image)) => {
                        let took = started.elapsed().as_millis();
                        let size = image.size_bytes;
                        events.normal(
                            self.pod,
                            name,
                            "Pulled",
                            format!("Successfully pulled image \"{text}\" in {took}ms. Image size: {size} bytes."),
                        );
                        return Ok(image);
                    }
                    Ok(None) => complaints.push(format!("{}: said it delivered the image and did not", source.name())),
                    Err(e) => complaints.push(format!("{}: {}", source.name(), chain(&e))),
                },
            }
        }
        if let Some(image) = here {
            // Always means: as new as can be had. Nobody else has it, so the one that was loaded by hand is.
            let note = if complaints.is_empty() { String::new() } else { format!("; {}", complaints.join("; ")) };
            events.normal(
                self.pod,
                name,
                "Pulled",
                format!("Container image \"{text}\" already present on machine{note}"),
            );
            return Ok(image);
        }
        let why = if complaints.is_empty() { "no image source has it".to_owned() } else { complaints.join("; ") };
        let message = format!("failed to pull image \"{text}\": {why}");
        events.warning(self.pod, name, "Failed", format!("Failed to pull image \"{text}\": {why}"));
        let again = held.is_some_and(|h| matches!(h.reason.as_str(), "ErrImagePull" | "ImagePullBackOff"));
        if again {
            events.normal(self.pod, name, "BackOff", format!("Back-off pulling image \"{text}\""));
            let message = format!("Back-off pulling image \"{text}\": ErrImagePull: {message}");
            return Err(Failure { reason: "ImagePullBackOff", message, retry: Retry::BackOff });
        }
        events.warning(self.pod, name, "Failed", "Error: ErrImagePull".to_owned());
        Err(Failure { reason: "ErrImagePull", message, retry: Retry::BackOff })
    }

    async fn config(
        &self,
        prepared: &Prepared,
        spec: &Container,
        attempt: u32,
        image: &Image,
    ) -> Result<ContainerConfig, Failure> {
        let Prepared { sources, place } = prepared;
        let env = environment::resolve(self.pod, spec, &image.config.env, sources, place).map_err(config_failure)?;
        let profile = |name: &str| security::local_profile(&self.shared.dir.join("seccomp"), name);
        let rights = security::decide(self.pod, spec, &image.config.user, &profile).map_err(config_failure)?;
        let expand = |list: &Option<Vec<String>>| -> Vec<String> {
            list.iter().flatten().map(|a| environment::expand(a, &env)).collect()
        };
        let (command, own_args) = (expand(&spec.command), expand(&spec.args));
        let args: Vec<String> = match (command.is_empty(), own_args.is_empty()) {
            (false, _) => command.into_iter().chain(own_args).collect(),
            (true, false) => image.config.entrypoint.iter().cloned().chain(own_args).collect(),
            (true, true) => image.config.entrypoint.iter().chain(&image.config.cmd).cloned().collect(),
        };
        if args.is_empty() {
            return Err(failed("CreateContainerError", "no command specified".to_owned()));
        }
        let layers = self
            .shared
            .images
            .unpacked(image, uid(self.pod))
            .await
            .map_err(|e| failed("CreateContainerError", chain(&e)))?;
        let layers = layers.iter().filter_map(|p| p.file_name().map(|n| n.to_string_lossy().into_owned())).collect();
        let id = new_id().map_err(|e| failed("CreateContainerError", format!("find a new id: {e}")))?;
        let log = self.dir.log(&spec.name, attempt);
        let mounts = self.mounts(spec, &id, sources, &env)?;
        make_parent(&log).map_err(|e| failed("CreateContainerError", format!("{}: {e}", log.display())))?;
        let cgroup = format!("pod{}/{}", uid(self.pod), &id[..16]);
        let limits = resources::container_limits(spec);
        let cgroups =
            self.shared.cgroups.create(&cgroup, &limits).map_err(|e| failed("CreateContainerError", chain(&e)))?;
        let hostname = if self.host_network() { self.shared.node_name.clone() } else { names::hostname(self.pod) };
        let mut env: Vec<String> = env.into_iter().map(|(n, v)| format!("{n}={v}")).collect();
        if !env.iter().any(|e| e.starts_with("HOSTNAME=")) {
            env.push(format!("HOSTNAME={hostname}"));
        }
        Ok(ContainerConfig {
            id,
            name: spec.name.clone(),
            attempt,
            layers_dir: self.shared.images.layers_dir(),
            layers,
            args,
            env,
            cwd: spec.working_dir.clone().filter(|d| !d.is_empty()).unwrap_or_else(|| image.config.working_dir.clone()),
            user: rights.user,
            mounts,
            capabilities: rights.capabilities,
            no_new_privs: rights.no_new_privs,
            privileged: rights.privileged,
            read_only_root: rights.read_only_root,
            seccomp: rights.seccomp,
            host_pid: self.pod.spec.as_ref().and_then(|s| s.host_pid) == Some(true),
            beside: super::ephemeral(self.pod)
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

    fn mounts(
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
    fn own_mounts(&self, spec: &Container, id: &str, mounts: &mut Vec<Mount>) -> std::io::Result<()> {
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
    fn is_made_of_objects(&self, volume: &str) -> bool {
        let mut all = self.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        all.find(|v| v.name == volume).is_some_and(|v| v.empty_dir.is_none())
    }
}

fn token_sources(volume: &Volume) -> impl Iterator<Item = &k8s_openapi::api::core::v1::ServiceAccountTokenProjection> {
    let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
    sources.filter_map(|s| s.service_account_token.as_ref())
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

fn config_failure(e: ConfigError) -> Failure {
    match e {
        ConfigError::Unsupported(_) => Failure { reason: "NotSupported", message: e.to_string(), retry: Retry::Never },
        e => Failure { reason: "CreateContainerConfigError", message: e.to_string(), retry: Retry::Soon },
    }
}

/// A volume that cannot be made: its pod is being created all the while, and its events say why.
fn set_up(volume: &Volume, why: impl std::fmt::Display) -> Failure {
    let message = format!("MountVolume.SetUp failed for volume {:?} : {why}", volume.name);
    Failure { reason: "ContainerCreating", message, retry: Retry::Soon }
}

fn failed(reason: &'static str, message: String) -> Failure {
    Failure { reason, message, retry: Retry::BackOff }
}

fn unreachable_api(what: &str, name: &str, e: &kube::Error) -> Failure {
    Failure { reason: "CreateContainerConfigError", message: format!("get {what} \"{name}\": {e}"), retry: Retry::Soon }
}

/// An error with its causes, for people.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}
