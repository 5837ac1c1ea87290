//! [`Runtime`] in calls of CRI.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine_runtime::{ContainerConfig, ContainerStatus, Error, Observed, Runtime, SandboxConfig};
use engine_session::{ExecOptions, ExecOutput, ExecSession};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::calls::{Inner, LONG, SANDBOX_FILE, SHORT, absent};
use crate::found::{Found, complete, free, look};
use crate::grpc::{Client, Failure, code};
use crate::images::Images;
use crate::kept::{io_error, remember, remembered, remove_dir};
use crate::making::NETWORK_FILE;
use crate::memory::Memory;
use crate::messages::{self as cri, state};
use crate::mounts;
use crate::network::{self, Places, Plugin};
use crate::stream::{self, End};
use crate::watcher::{self, Watcher};

/// With what it was made, for who takes it away.
const OPTIONS_FILE: &str = "options.json";
/// What the runtime could run pods with.
const HANDLERS_FILE: &str = "handlers.json";
/// A node that starts does not wait longer for a runtime.
const LOOK: Duration = Duration::from_secs(5);

/// What a [`CriRuntime`] is made with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// The runtime's socket.
    pub socket: PathBuf,
    /// What is kept here; always the same for the same node, and of no other.
    pub dir: PathBuf,
    /// The plug-in for the pods' network.
    pub plugin: Plugin,
}

/// Runs containers by containerd. It may be away: what it runs goes on, and calls say so until it is back.
pub struct CriRuntime {
    inner: Arc<Inner>,
}

impl CriRuntime {
    /// Does not ask the runtime yet.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub fn new(options: Options) -> Result<Self, Error> {
        let images = options.dir.join("images");
        let pods = options.dir.join("pods");
        for dir in [&images, &pods] {
            fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        }
        let dir = fs::canonicalize(&options.dir).map_err(io_error("find", &options.dir))?;
        remember(&dir.join(OPTIONS_FILE), &options)?;
        let inner = Inner {
            client: Client::new(options.socket),
            owner: dir.display().to_string(),
            images: Images::new(images),
            root: dir,
            dir: pods,
            plugin: options.plugin,
            watcher: Watcher::default(),
            memory: Memory::default(),
            installing: tokio::sync::Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The one that was in a directory, as it was last; none if there was none.
    ///
    /// # Errors
    /// What it was cannot be read.
    pub fn again(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(OPTIONS_FILE);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(io_error("read", &path))?,
        };
        let options = serde_json::from_slice(&bytes).map_err(|e| io_error("read", &path)(e.into()))?;
        Self::new(options).map(Some)
    }

    /// Asks the runtime who it is.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn look(socket: &Path) -> Result<Found, Error> {
        look(&Client::new(socket.to_owned())).await
    }

    /// Asks a runtime that nobody has named whether it may have all pods of this machine.
    ///
    /// # Errors
    /// Why not: it does not answer, it cannot be used, or another program runs its pods by it.
    pub async fn free(socket: &Path) -> Result<Found, Error> {
        free(&Client::new(socket.to_owned())).await
    }

    /// The same, and has it pull what its sandboxes are made from.
    ///
    /// # Errors
    /// It is not free, or cannot pull it.
    pub async fn take(socket: &Path) -> Result<Found, Error> {
        let client = Client::new(socket.to_owned());
        let found = free(&client).await?;
        complete(&client, &found).await?;
        Ok(found)
    }

    /// What the runtime says of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn found(&self) -> Result<Found, Error> {
        look(&self.inner.client).await
    }

    /// Takes everything away again: pods, images that were brought, the plug-in.
    ///
    /// # Errors
    /// It does not answer, or something stays.
    pub async fn purge(&self) -> Result<(), Error> {
        let inner = &self.inner;
        for pod_uid in self.list().await? {
            self.remove(&pod_uid).await?;
        }
        inner.images.collect_all(&inner.client).await.map_err(|e| inner.failed("remove images", e))?;
        // Not asked for again: the runtime may be gone.
        let Some(places) = remembered::<Places>(&inner.root.join(NETWORK_FILE)) else { return Ok(()) };
        network::uninstall(&places, &inner.plugin).map_err(io_error("remove the plug-in from", &places.bin_dir))
    }

    /// What the runtime can run pods with, as RuntimeClasses name it; if it is away, what it could the last time. A runtime that cannot be used keeps
    /// its place: its pods say why they wait, and others are not touched.
    pub async fn handlers(&self) -> Vec<String> {
        let path = self.inner.root.join(HANDLERS_FILE);
        match tokio::time::timeout(LOOK, self.found()).await {
            Ok(Ok(found)) => {
                if let Some(why) = &found.unusable {
                    tracing::warn!("{} {} runs no pods: {why}", found.name, found.version);
                }
                if let Err(e) = remember(&path, &found.handlers) {
                    tracing::warn!("{e}");
                }
                return found.handlers;
            }
            Ok(Err(e)) => tracing::warn!("{e}"),
            Err(_) => tracing::warn!("the container runtime does not answer within {} s", LOOK.as_secs()),
        }
        remembered(&path).unwrap_or_default()
    }
}

#[async_trait]
impl Runtime for CriRuntime {
    fn takes_images(&self) -> bool {
        true
    }

    async fn sandbox(&self, config: &SandboxConfig) -> Result<(), Error> {
        let inner = &self.inner;
        if inner.living(&config.pod_uid).await?.is_some() {
            return Ok(());
        }
        inner.network().await?;
        let dir = inner.pod_dir(&config.pod_uid);
        fs::create_dir_all(&dir).map_err(io_error("create", &dir))?;
        remember(&dir.join(SANDBOX_FILE), config)?;
        for (volume, size) in &config.memory_volumes {
            mounts::memory(volume, *size).map_err(io_error("mount", volume))?;
        }
        if let Some(netns) = &config.netns {
            network::note(&config.pod_uid, netns).map_err(io_error("note", netns))?;
        }
        // Its own handlers have names; ours is what it runs pods with that name none.
        let own = config.handler.as_deref().filter(|name| *name != crate::HANDLER).unwrap_or_default();
        inner.run_sandbox(config, own).await?;
        watcher::look(inner).await;
        Ok(())
    }

    async fn start(&self, pod_uid: &str, container: &ContainerConfig) -> Result<ContainerStatus, Error> {
        let inner = &self.inner;
        let id = match inner.create(pod_uid, container).await {
            Ok(id) => id,
            Err(error) => {
                if let Err(e) = inner.let_go(pod_uid, &container.id) {
                    tracing::warn!(pod_uid, "a container that was not created: {e}");
                }
                // Refused would say that the runtime remembers it.
                return Err(match error {
                    Error::Refused(why) => inner.failed("CreateContainer", Failure::new(code::UNKNOWN, why)),
                    other => other,
                });
            }
        };
        if let Some(oom_file) = &container.oom_file {
            inner.memory.listen(pod_uid, &container.id, oom_file);
        }
        let request = cri::ContainerId { id: id.clone() };
        let started: Result<cri::Empty, Failure> =
            inner.client.call("/runtime.v1.RuntimeService/StartContainer", &request, LONG).await;
        watcher::look(inner).await;
        match started {
            // It is remembered as one that did not start, and why.
            Err(e) if e.code != code::UNAVAILABLE && e.code != code::DEADLINE_EXCEEDED => Err(Error::Refused(e.why)),
            Err(e) => Err(inner.failed("StartContainer", e)),
            Ok(_) => {
                let status = inner.status(&id, true).await?;
                watcher::told(inner, &status).ok_or_else(|| Error::Refused(format!("container {id} is not ours")))
            }
        }
    }

    async fn signal(&self, pod_uid: &str, id: &str, signal: i32) -> Result<(), Error> {
        let inner = &self.inner;
        let running = match inner.running(pod_uid, id).await {
            Err(Error::Refused(_)) => return Ok(()),
            other => other?,
        };
        let sent = if signal == nix::libc::SIGKILL {
            let request = cri::StopContainerRequest { id: running.id, timeout: 0 };
            inner.client.call::<cri::Empty>("/runtime.v1.RuntimeService/StopContainer", &request, LONG).await
        } else {
            // CRI has no word for it.
            let signal = u32::try_from(signal).unwrap_or_default();
            let request = cri::KillRequest { container_id: running.id, signal };
            inner.client.call::<cri::Empty>("/containerd.services.tasks.v1.Tasks/Kill", &request, SHORT).await
        };
        inner.watcher.hurry();
        absent(sent).map_err(|e| inner.failed("signal a container", e))
    }

    async fn exec(&self, pod_uid: &str, id: &str, options: &ExecOptions) -> Result<ExecSession, Error> {
        let container = self.inner.running(pod_uid, id).await?;
        let request = cri::ExecRequest {
            id: container.id,
            command: options.command.clone(),
            tty: options.tty,
            stdin: options.stdin,
            stdout: options.stdout || !(options.stdin || options.stderr), // one there must be
            stderr: options.stderr && !options.tty,
        };
        let address: cri::Url = self.inner.cri(("Exec", "/runtime.v1.RuntimeService/Exec"), &request).await?;
        let streams = ExecOptions { stdout: request.stdout, stderr: request.stderr, ..options.clone() };
        let session = stream::open(&address.url, &streams, async |end| match end {
            End::Exit(code) => ExecOutput::Exit(code),
            End::Failed(why) => ExecOutput::Failed(why),
        });
        session.await.map_err(Error::Refused)
    }

    async fn attach(&self, pod_uid: &str, id: &str, options: &ExecOptions) -> Result<ExecSession, Error> {
        let container = self.inner.running(pod_uid, id).await?;
        let request = cri::AttachRequest {
            id: container.id.clone(),
            stdin: options.stdin,
            tty: options.tty,
            stdout: true,
            stderr: !options.tty,
        };
        let address: cri::Url = self.inner.cri(("Attach", "/runtime.v1.RuntimeService/Attach"), &request).await?;
        let streams = ExecOptions { stdout: true, stderr: !options.tty, ..options.clone() };
        let inner = Arc::clone(&self.inner);
        let session =
            stream::open(&address.url, &streams, move |_| async move { inner.exit_code(&container.id).await });
        session.await.map_err(Error::Refused)
    }

    async fn writable_layer(&self, pod_uid: &str, id: &str) -> Option<PathBuf> {
        let asked = self.inner.writable_layer(pod_uid, id).await;
        asked.inspect_err(|e| tracing::debug!(pod_uid, "the layer of a container: {e}")).ok()?
    }

    async fn forget(&self, pod_uid: &str, id: &str) -> Result<(), Error> {
        let inner = &self.inner;
        for container in inner.containers(Some(pod_uid), Some(id)).await? {
            if container.state == state::RUNNING {
                return Err(Error::Refused(format!("container {id} is running")));
            }
            let request = cri::ContainerId { id: container.id };
            let removed: Result<cri::Empty, Failure> =
                inner.client.call("/runtime.v1.RuntimeService/RemoveContainer", &request, LONG).await;
            absent(removed).map_err(|e| inner.failed("RemoveContainer", e))?;
        }
        inner.let_go(pod_uid, id)?;
        watcher::look(inner).await;
        Ok(())
    }

    async fn watch(&self, pod_uid: &str) -> watch::Receiver<Observed> {
        watcher::watch(&self.inner, pod_uid).await
    }

    async fn remove(&self, pod_uid: &str) -> Result<(), Error> {
        let inner = &self.inner;
        for sandbox in inner.sandboxes(Some(pod_uid)).await? {
            inner.remove_sandbox(&sandbox.id).await?;
        }
        let dir = inner.pod_dir(pod_uid);
        let volumes = inner.sandbox_config(pod_uid).map(|config| config.memory_volumes).unwrap_or_default(); // none was made
        for place in volumes.keys().chain([&dir]) {
            mounts::unmount_below(place).map_err(io_error("unmount", place))?;
        }
        inner.memory.let_go(pod_uid, None);
        network::forget(pod_uid).map_err(io_error("forget the network of", &dir))?;
        remove_dir(&dir).map_err(io_error("remove", &dir))?;
        if let Err(why) = inner.images.collect(&inner.client).await {
            tracing::warn!("images of the container runtime: {why}");
        }
        watcher::look(inner).await;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.inner.dir).map_err(io_error("list", &self.inner.dir))? {
            let entry = entry.map_err(io_error("list", &self.inner.dir))?;
            found.extend(entry.file_name().into_string().ok());
        }
        Ok(found)
    }
}
