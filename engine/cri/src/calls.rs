//! What a runtime is asked: which of its sandboxes and containers are ours, and how they are.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use engine_runtime::{Error, SandboxConfig};
use engine_session::ExecOutput;
use prost::Message;
use serde::Deserialize;

use crate::grpc::{Client, Failure, code};
use crate::images::Images;
use crate::kept::io_error;
use crate::memory::Memory;
use crate::messages::{self as cri, state};
use crate::network::Plugin;
use crate::plan::{self, label};
use crate::watcher::Watcher;

/// An answer to a question.
pub(crate) const SHORT: Duration = Duration::from_secs(30);
/// An answer to what takes the runtime work: kubelets give it two minutes (`runtimeRequestTimeout`), and four to a sandbox.
pub(crate) const LONG: Duration = Duration::from_secs(240);
/// Below a pod's directory: what its sandbox was asked for.
pub(crate) const SANDBOX_FILE: &str = "sandbox.json";

/// A runtime, and what of it is ours.
pub(crate) struct Inner {
    pub client: Client,
    /// What labels say of ours.
    pub owner: String,
    pub root: PathBuf,
    /// A directory for each pod.
    pub dir: PathBuf,
    pub plugin: Plugin,
    pub images: Images,
    pub watcher: Watcher,
    pub memory: Memory,
    /// The plug-in is installed by one pod at a time: the files are the same for all.
    pub installing: tokio::sync::Mutex<()>,
}

impl Inner {
    pub fn failed(&self, call: &'static str, failure: Failure) -> Error {
        Error::Call { at: self.client.socket().display().to_string(), call, why: failure.why }
    }

    pub async fn cri<T: Message + Default>(
        &self,
        (call, method): (&'static str, &'static str),
        message: &impl Message,
    ) -> Result<T, Error> {
        self.client.call(method, message, LONG).await.map_err(|e| self.failed(call, e))
    }

    pub fn pod_dir(&self, pod_uid: &str) -> PathBuf {
        self.dir.join(pod_uid)
    }

    /// Is there once a sandbox has ended by itself while its pod was running.
    pub fn lost_file(&self, pod_uid: &str, sandbox: &str) -> PathBuf {
        self.pod_dir(pod_uid).join(format!("lost-{sandbox}"))
    }

    /// Is there once the kernel has killed a run for memory.
    pub fn oom_kept(&self, pod_uid: &str, run: &str) -> PathBuf {
        self.pod_dir(pod_uid).join(format!("oom-{run}"))
    }

    /// Sandboxes of ours, or of one pod, the newest first.
    pub async fn sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<cri::PodSandbox>, Error> {
        let filter = Some(cri::SandboxFilter { labels: self.labels(pod_uid, None) });
        let request = cri::ListPodSandboxRequest { filter };
        let answer: cri::ListPodSandboxResponse =
            self.cri(("ListPodSandbox", "/runtime.v1.RuntimeService/ListPodSandbox"), &request).await?;
        let mut all = answer.items;
        all.sort_by_key(|sandbox| std::cmp::Reverse(attempt(sandbox)));
        Ok(all)
    }

    /// Containers of ours, of one pod, or one of them by the name that we gave it.
    pub async fn containers(&self, pod_uid: Option<&str>, run: Option<&str>) -> Result<Vec<cri::Container>, Error> {
        let filter = Some(cri::ContainerFilter { labels: self.labels(pod_uid, run), ..Default::default() });
        let request = cri::ListContainersRequest { filter };
        let answer: cri::ListContainersResponse =
            self.cri(("ListContainers", "/runtime.v1.RuntimeService/ListContainers"), &request).await?;
        Ok(answer.containers)
    }

    pub fn labels(&self, pod_uid: Option<&str>, run: Option<&str>) -> cri::Map {
        let mut labels = plan::labels([(label::OWNER, &self.owner)]);
        labels.extend(pod_uid.map(|uid| (label::POD.to_owned(), uid.to_owned())));
        labels.extend(run.map(|run| (label::RUN.to_owned(), run.to_owned())));
        labels
    }

    pub async fn living(&self, pod_uid: &str) -> Result<Option<cri::PodSandbox>, Error> {
        let all = self.sandboxes(Some(pod_uid)).await?;
        Ok(all.into_iter().find(|sandbox| sandbox.state == cri::SANDBOX_READY))
    }

    /// A container that runs, by our name of it.
    pub async fn running(&self, pod_uid: &str, id: &str) -> Result<cri::Container, Error> {
        let found = self.containers(Some(pod_uid), Some(id)).await?;
        let running = found.into_iter().find(|container| container.state == state::RUNNING);
        running.ok_or_else(|| Error::Refused(format!("container {id} is not running")))
    }

    pub async fn status(&self, id: &str, verbose: bool) -> Result<cri::ContainerStatusResponse, Error> {
        let request = cri::ContainerStatusRequest { id: id.to_owned(), verbose };
        self.cri(("ContainerStatus", "/runtime.v1.RuntimeService/ContainerStatus"), &request).await
    }

    pub fn sandbox_config(&self, pod_uid: &str) -> Result<SandboxConfig, Error> {
        let path = self.pod_dir(pod_uid).join(SANDBOX_FILE);
        let bytes = fs::read(&path).map_err(io_error("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|e| io_error("read", &path)(e.into()))
    }

    /// Where containerd keeps what a container has written; none if its snapshots are no directories of this machine.
    pub async fn writable_layer(&self, pod_uid: &str, run: &str) -> Result<Option<PathBuf>, Error> {
        let Some(container) = self.containers(Some(pod_uid), Some(run)).await?.pop() else { return Ok(None) };
        let told = self.status(&container.id, true).await?.info;
        let Some(snapshot) = told.get("info").and_then(|info| serde_json::from_str::<Snapshot>(info).ok()) else {
            return Ok(None);
        };
        let request = cri::MountsRequest { snapshotter: snapshot.snapshotter, key: snapshot.key };
        let method = "/containerd.services.snapshots.v1.Snapshots/Mounts";
        let asked: Result<cri::MountsResponse, Failure> = self.client.call(method, &request, SHORT).await;
        Ok(upper(&asked.map_err(|e| self.failed("Mounts", e))?))
    }

    /// How a container ended, for who was attached to it.
    pub async fn exit_code(&self, id: &str) -> ExecOutput {
        for _ in 0..50 {
            match self.status(id, false).await {
                Ok(cri::ContainerStatusResponse { status: Some(status), .. }) if status.state != state::RUNNING => {
                    return ExecOutput::Exit(status.exit_code);
                }
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(e) => return ExecOutput::Failed(e.to_string()),
            }
        }
        ExecOutput::Failed("the container runtime ended the session, and the container runs".to_owned())
    }
}

pub(crate) fn attempt(sandbox: &cri::PodSandbox) -> u32 {
    sandbox.metadata.as_ref().map_or(0, |metadata| metadata.attempt)
}

/// The first process, as a runtime tells it to who wants to know more.
pub(crate) fn pid(info: &cri::Map) -> Option<i32> {
    #[derive(Deserialize)]
    struct Info {
        pid: i32,
    }
    let info: Info = serde_json::from_str(info.get("info")?).ok()?;
    Some(info.pid).filter(|pid| *pid > 0)
}

/// What containerd tells of a container's root to who wants to know more.
#[derive(Deserialize)]
struct Snapshot {
    snapshotter: String,
    #[serde(rename = "snapshotKey")]
    key: String,
}

/// The directory of an overlay's own layer.
fn upper(mounts: &cri::MountsResponse) -> Option<PathBuf> {
    let options = mounts.mounts.iter().flat_map(|mount| &mount.options);
    options.filter_map(|option| option.strip_prefix("upperdir=")).map(PathBuf::from).find(|path| path.is_absolute())
}

/// What is not there was to go.
pub(crate) fn absent(done: Result<cri::Empty, Failure>) -> Result<(), Failure> {
    match done {
        Err(e) if e.code != code::NOT_FOUND => Err(e),
        _ => Ok(()),
    }
}

pub(crate) fn gone(pod_uid: &str) -> Error {
    Error::Gone { pod_uid: pod_uid.to_owned(), source: io::Error::other("its sandbox does not run") }
}
