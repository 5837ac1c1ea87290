//! What a start needs, in order: place (cgroup, network, files, volumes, sandbox), image, environment, container.
//!
//! Everything here may be done again: what exists is found and kept. A failure is a [`Hold`]: the pod says why it
//! waits, and the start is tried again later.
//!
//! Reading order: here the start and its failures; in `place` and `storage` what the pod is given, in `container` its containers, and their images beside this file.

mod container;
mod place;
mod storage;

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
use super::image::Origin;
use super::located::{Located, Unbound, claimed, host_path, is_located};
use super::plan::{Hold, backoff, nanos};
use super::{ConfigError, PodDir, ask, hooks, host_ports, names, resources, runtime_class, security, support, volumes};
use crate::Shared;
pub(crate) use engine_ask::chain;
use engine_runtime::{ContainerConfig, Mount, SandboxConfig, process};

/// A missing ConfigMap is looked for again this soon: its author is usually about to create it.
const CONFIG_RETRY: Duration = Duration::from_secs(2);

/// What the worker learns from a start, whether it succeeded or not.
#[derive(Default)]
pub(super) struct Outcome {
    /// The pod's addresses, that of IPv4 first.
    pub pod_ips: Vec<String>,
    /// The sandbox exists.
    pub sandbox: bool,
    /// Image ids by container.
    pub images: BTreeMap<String, String>,
    /// Runs whose `postStart` hook failed: run, container, what is told of it.
    pub hooks_failed: Vec<(String, String, String)>,
    /// By container: the run that was started (or that failed to, as the runtime remembers), or why there is none.
    pub results: BTreeMap<String, Result<String, Hold>>,
}

/// Why something failed, before it is known when it is tried again.
pub(super) struct Failure {
    pub reason: &'static str,
    pub message: String,
    pub retry: Retry,
}

pub(super) enum Retry {
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
pub(super) async fn refresh(shared: &Shared, pod: &Pod, pod_ips: &[String]) -> Result<(), String> {
    let starter = Starter { shared, pod, dir: PodDir::new(&shared.dir, uid(pod)) };
    let mut sources = starter.sources().await.map_err(|f| f.message)?;
    let place = starter.place_of(pod_ips);
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

pub(super) struct Starter<'a> {
    pub(super) shared: &'a Shared,
    pub(super) pod: &'a Pod,
    dir: PodDir,
}

impl Starter<'_> {
    fn host_network(&self) -> bool {
        self.pod.spec.as_ref().and_then(|s| s.host_network) == Some(true)
    }

    /// Whether the handler that the pod has been given confines it as `process` does.
    pub(super) fn is_fenced(&self) -> bool {
        self.shared.runtimes.handler_of(uid(self.pod)) == process::HANDLER
    }

    fn fs_group(&self) -> Option<u32> {
        let context = self.pod.spec.as_ref()?.security_context.as_ref()?;
        context.fs_group.and_then(|g| u32::try_from(g).ok())
    }

    fn place_of(&self, pod_ips: &[String]) -> Place {
        let host_ips = self.shared.host_ips.clone();
        Place { host_ips, pod_ips: pod_ips.to_vec(), capacity: self.shared.capacity }
    }

    /// Whether pods have addresses of both families.
    fn dual(&self) -> bool {
        self.shared.network.as_ref().is_some_and(|network| network.options().ipv6.is_some())
    }

    async fn place(&self, outcome: &mut Outcome) -> Result<Prepared, Failure> {
        if let Some(what) = support::unsupported(self.pod, self.dual()) {
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
        let handlers = self.shared.runtimes.handlers();
        let handler = runtime_class::handler(&self.shared.client, self.pod, &handlers).await;
        let handler = handler.map_err(|why| self.no_sandbox(why))?;
        let mut sources = self.sources().await?;
        sources.located = self.located().await?;
        self.tokens(&mut sources).await?;
        let (netns, pod_ips) = self.network().await?;
        outcome.pod_ips = pod_ips.clone();
        let place = self.place_of(&pod_ips);
        self.volumes(&sources, &place).inspect_err(|f| self.no_mount(f))?;
        let hostname = Some(self.kernel_name()?).filter(|_| !self.host_network());
        self.etc(&pod_ips).map_err(|e| failed("CreatePodSandboxError", e.to_string()))?;
        let limits = resources::pod_limits(self.pod);
        let cgroup = format!("pod{}", uid(self.pod));
        let cgroups = self.shared.cgroups.create(&cgroup, &limits).map_err(|e| self.no_sandbox(chain(&e)))?;
        let config = SandboxConfig {
            pod_uid: uid(self.pod).to_owned(),
            handler,
            netns,
            hostname,
            host_ipc: self.pod.spec.as_ref().and_then(|s| s.host_ipc) == Some(true),
            share_processes: self.pod.spec.as_ref().and_then(|s| s.share_process_namespace) == Some(true),
            fenced: false, // the runtime says so
            sysctls: self.sysctls(),
            memory_volumes: self.memory_volumes(),
            cgroups,
        };
        self.shared.runtime.sandbox(&config).await.map_err(|e| self.no_sandbox(chain(&e)))?;
        outcome.sandbox = true;
        Ok(Prepared { sources, place })
    }

    fn kernel_name(&self) -> Result<String, Failure> {
        names::kernel_name(self.pod, &self.shared.dns.domain).map_err(|why| self.no_sandbox(why))
    }

    fn no_sandbox(&self, message: String) -> Failure {
        let text = format!("Failed to create pod sandbox: {message}");
        self.shared.events.warning(self.pod, None, "FailedCreatePodSandBox", text);
        failed("CreatePodSandboxError", message)
    }
}

fn config_failure(e: ConfigError) -> Failure {
    match e {
        ConfigError::Unsupported(_) => Failure { reason: "NotSupported", message: e.to_string(), retry: Retry::Never },
        e => Failure { reason: "CreateContainerConfigError", message: e.to_string(), retry: Retry::Soon },
    }
}

pub(super) fn failed(reason: &'static str, message: String) -> Failure {
    Failure { reason, message, retry: Retry::BackOff }
}
