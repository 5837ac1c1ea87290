//! *Hosted* containers: what the kernel does not run itself, in containers of the built-in runtime whose first process is a [runner].
//!
//! ```text
//! pod worker ──trait Runtime──▶ Hosted ──config, made stricter──▶ oci ──▶ supervisor ──▶ runner ──▶ what the image has
//! ```
//!
//! Logs, limits, restarts, the out-of-memory killer, upgrades and removal are those of `oci`. What is stricter: no capabilities, no new
//! privileges, a read-only root, and nobody as the user where neither image nor pod names one. Limits: no terminal, no privileges, and
//! nothing to run a command in (`exec`), which are refused.
//!
//! [runner]: crate::runner

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use engine_session::{ExecOptions, ExecSession};
use tokio::sync::watch;

use crate::{ContainerConfig, ContainerStatus, Error, Observed, OciRuntime, Runtime, SandboxConfig};

/// Who a container runs as that nobody gave a user: `nobody`, as most distributions have it.
const NOBODY: &str = "65534:65534";

/// Runs containers with a runner.
#[derive(Clone, Debug)]
pub struct Hosted {
    handler: String,
    oci: OciRuntime,
    runner: Vec<String>,
}

impl Hosted {
    /// `runner` are the words that this program is begun with as the first process; the directory `dir`, which nobody else can look into, is
    /// added to them.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub fn new(handler: &str, oci: OciRuntime, runner: &[String], dir: &Path) -> Result<Self, Error> {
        let failed = |action| move |source| Error::Io { action, path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed("create"))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed("protect"))?;
        let runner = runner.iter().cloned().chain([dir.display().to_string()]).collect();
        Ok(Self { handler: handler.to_owned(), oci, runner })
    }

    /// The container as it is run.
    fn confined(&self, container: &ContainerConfig) -> ContainerConfig {
        let mut confined = container.clone();
        confined.runner.clone_from(&self.runner);
        confined.capabilities = 0;
        confined.no_new_privs = true;
        confined.read_only_root = true;
        if confined.user.uid.is_none() && confined.user.image_user.is_empty() {
            NOBODY.clone_into(&mut confined.user.image_user);
        }
        confined
    }
}

#[async_trait]
impl Runtime for Hosted {
    async fn sandbox(&self, config: &SandboxConfig) -> Result<(), Error> {
        self.oci.sandbox(config).await
    }

    async fn start(&self, pod_uid: &str, container: &ContainerConfig) -> Result<ContainerStatus, Error> {
        self.oci.start(pod_uid, &self.confined(container)).await
    }

    async fn signal(&self, pod_uid: &str, id: &str, signal: i32) -> Result<(), Error> {
        self.oci.signal(pod_uid, id, signal).await
    }

    async fn exec(&self, _: &str, id: &str, _: &ExecOptions) -> Result<ExecSession, Error> {
        let handler = &self.handler;
        Err(Error::Refused(format!(
            "container {id}: exec is not supported by the runtime handler {handler:?}: there is no program to run inside; its logs say what it does"
        )))
    }

    async fn attach(&self, pod_uid: &str, id: &str, options: &ExecOptions) -> Result<ExecSession, Error> {
        self.oci.attach(pod_uid, id, options).await
    }

    async fn writable_layer(&self, _: &str, _: &str) -> Option<PathBuf> {
        None // its root is read-only
    }

    async fn forget(&self, pod_uid: &str, id: &str) -> Result<(), Error> {
        self.oci.forget(pod_uid, id).await
    }

    async fn watch(&self, pod_uid: &str) -> watch::Receiver<Observed> {
        self.oci.watch(pod_uid).await
    }

    async fn remove(&self, pod_uid: &str) -> Result<(), Error> {
        self.oci.remove(pod_uid).await
    }

    async fn list(&self) -> Result<Vec<String>, Error> {
        self.oci.list().await
    }
}
