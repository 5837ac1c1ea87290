//! The *runtimes* of a machine, each by its *handler*: the name that a RuntimeClass says (Kubernetes, "Runtime Class").
//!
//! ```text
//! sandbox(handler) ──▶ DIR/PODUID: the handler's name, durably ──▶ its runtime
//! everything else  ──▶ DIR/PODUID ──▶ its runtime                  (no file: the first one)
//! ```
//!
//! Which runtime has a pod is written down before the runtime hears of it, so that a pod is never looked for in another one, also when
//! its own cannot be asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use engine_session::{ExecOptions, ExecSession};
use tokio::sync::watch;

use crate::{ContainerConfig, ContainerStatus, Error, Observed, Runtime, SandboxConfig};

/// Several runtimes as one.
pub struct Runtimes {
    dir: PathBuf,
    /// Runs what no file tells of.
    first: String,
    default: String,
    by_handler: BTreeMap<String, Arc<dyn Runtime>>,
}

impl Runtimes {
    /// `dir` keeps which pod is run by which. `runtime` is the default until another is, and has all pods of which nothing is kept: always
    /// give the same.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub fn new(dir: impl Into<PathBuf>, handler: &str, runtime: Arc<dyn Runtime>) -> Result<Self, Error> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(|source| Error::Io { action: "create", path: dir.clone(), source })?;
        let by_handler = BTreeMap::from([(handler.to_owned(), runtime)]);
        Ok(Self { dir, first: handler.to_owned(), default: handler.to_owned(), by_handler })
    }

    /// Makes `handler` what runs pods that name none, from now on.
    ///
    /// # Errors
    /// There is no such handler.
    pub fn set_default(&mut self, handler: &str) -> Result<(), Error> {
        self.by_name(handler)?;
        self.default = handler.to_owned();
        Ok(())
    }

    /// Adds a runtime, in the place of one of the same name.
    pub fn add(&mut self, handler: &str, runtime: Arc<dyn Runtime>) {
        self.by_handler.insert(handler.to_owned(), runtime);
    }

    /// The names of all, sorted.
    pub fn handlers(&self) -> Vec<String> {
        self.by_handler.keys().cloned().collect()
    }

    /// The name of what runs pods that name none.
    pub fn default_handler(&self) -> &str {
        &self.default
    }

    /// The handler that a pod was given.
    pub fn handler_of(&self, pod_uid: &str) -> String {
        let recorded = fs::read_to_string(self.dir.join(pod_uid)).unwrap_or_default();
        if recorded.is_empty() { self.first.clone() } else { recorded }
    }

    /// Whether the runtime of a pod wants its containers' roots as [`Root::Image`](crate::Root).
    ///
    /// # Errors
    /// Its runtime is not there.
    pub fn of_pod_takes_images(&self, pod_uid: &str) -> Result<bool, Error> {
        self.of(pod_uid).map(Runtime::takes_images)
    }

    /// The handler of a pod that is asked for: what it has been given stays.
    async fn handler_for(&self, config: &SandboxConfig) -> Result<String, Error> {
        let is_recorded = self.dir.join(&config.pod_uid).exists();
        if is_recorded || self.by_name(&self.first)?.list().await?.contains(&config.pod_uid) {
            return Ok(self.handler_of(&config.pod_uid));
        }
        Ok(config.handler.clone().unwrap_or_else(|| self.default.clone()))
    }

    fn by_name(&self, handler: &str) -> Result<&dyn Runtime, Error> {
        let found = self.by_handler.get(handler).map(AsRef::as_ref);
        found.ok_or_else(|| Error::Handler { handler: handler.to_owned(), known: self.handlers() })
    }

    fn of(&self, pod_uid: &str) -> Result<&dyn Runtime, Error> {
        self.by_name(&self.handler_of(pod_uid))
    }

    fn recorded(&self) -> Result<BTreeSet<String>, Error> {
        let failed = |source| Error::Io { action: "list", path: self.dir.clone(), source };
        let names = fs::read_dir(&self.dir).map_err(failed)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        let names: io::Result<Vec<Option<String>>> = names.collect();
        Ok(names.map_err(failed)?.into_iter().flatten().filter(|name| !name.starts_with('.')).collect())
    }
}

#[async_trait]
impl Runtime for Runtimes {
    async fn sandbox(&self, config: &SandboxConfig) -> Result<(), Error> {
        let handler = self.handler_for(config).await?;
        let runtime = self.by_name(&handler)?;
        if handler != self.first {
            let path = self.dir.join(&config.pod_uid);
            engine_host::files::write_durably(&path, handler.as_bytes(), 0o600).map_err(|source| Error::Io {
                action: "write",
                path,
                source,
            })?;
        }
        runtime.sandbox(config).await
    }

    async fn start(&self, pod_uid: &str, container: &ContainerConfig) -> Result<ContainerStatus, Error> {
        self.of(pod_uid)?.start(pod_uid, container).await
    }

    async fn signal(&self, pod_uid: &str, id: &str, signal: i32) -> Result<(), Error> {
        self.of(pod_uid)?.signal(pod_uid, id, signal).await
    }

    async fn exec(&self, pod_uid: &str, id: &str, options: &ExecOptions) -> Result<ExecSession, Error> {
        self.of(pod_uid)?.exec(pod_uid, id, options).await
    }

    async fn attach(&self, pod_uid: &str, id: &str, options: &ExecOptions) -> Result<ExecSession, Error> {
        self.of(pod_uid)?.attach(pod_uid, id, options).await
    }

    async fn writable_layer(&self, pod_uid: &str, id: &str) -> Option<PathBuf> {
        self.of(pod_uid).ok()?.writable_layer(pod_uid, id).await
    }

    async fn forget(&self, pod_uid: &str, id: &str) -> Result<(), Error> {
        self.of(pod_uid)?.forget(pod_uid, id).await
    }

    async fn watch(&self, pod_uid: &str) -> watch::Receiver<Observed> {
        match self.of(pod_uid) {
            Ok(runtime) => runtime.watch(pod_uid).await,
            Err(_) => watch::channel(Observed::default()).1,
        }
    }

    async fn remove(&self, pod_uid: &str) -> Result<(), Error> {
        self.of(pod_uid)?.remove(pod_uid).await?;
        let path = self.dir.join(pod_uid);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Io { action: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    async fn list(&self) -> Result<Vec<String>, Error> {
        // A runtime that cannot be asked has lost nothing: what it runs is written down here.
        let mut all = self.recorded()?;
        all.extend(self.by_name(&self.first)?.list().await?);
        Ok(all.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use std::sync::Mutex;

    use super::*;

    /// Remembers what it was asked to run.
    #[derive(Default)]
    struct Noted(Mutex<BTreeSet<String>>);

    #[async_trait]
    impl Runtime for Noted {
        async fn sandbox(&self, config: &SandboxConfig) -> Result<(), Error> {
            self.0.lock().unwrap().insert(config.pod_uid.clone());
            Ok(())
        }
        async fn start(&self, _: &str, _: &ContainerConfig) -> Result<ContainerStatus, Error> {
            panic!("not asked")
        }
        async fn signal(&self, pod_uid: &str, _: &str, _: i32) -> Result<(), Error> {
            let known = self.0.lock().unwrap().contains(pod_uid);
            known.then_some(()).ok_or_else(|| Error::Refused("not mine".into()))
        }
        async fn exec(&self, _: &str, _: &str, _: &ExecOptions) -> Result<ExecSession, Error> {
            panic!("not asked")
        }
        async fn attach(&self, _: &str, _: &str, _: &ExecOptions) -> Result<ExecSession, Error> {
            panic!("not asked")
        }
        async fn writable_layer(&self, _: &str, _: &str) -> Option<PathBuf> {
            panic!("not asked")
        }
        async fn forget(&self, _: &str, _: &str) -> Result<(), Error> {
            panic!("not asked")
        }
        async fn watch(&self, _: &str) -> watch::Receiver<Observed> {
            watch::channel(Observed { alive: true, containers: Vec::new() }).1
        }
        async fn remove(&self, pod_uid: &str) -> Result<(), Error> {
            self.0.lock().unwrap().remove(pod_uid);
            Ok(())
        }
        async fn list(&self) -> Result<Vec<String>, Error> {
            Ok(self.0.lock().unwrap().iter().cloned().collect())
        }
    }

    fn config(pod_uid: &str, handler: Option<&str>) -> SandboxConfig {
        SandboxConfig {
            pod_uid: pod_uid.into(),
            handler: handler.map(str::to_owned),
            netns: None,
            hostname: None,
            host_ipc: false,
            share_processes: false,
            fenced: false,
            sysctls: BTreeMap::new(),
            memory_volumes: BTreeMap::new(),
            cgroups: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_pod_stays_with_its_runtime() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (Arc::new(Noted::default()), Arc::new(Noted::default()));
        let open = || {
            let mut all = Runtimes::new(dir.path().join("handlers"), "first", Arc::clone(&first) as _).unwrap();
            all.add("second", Arc::clone(&second) as _);
            all
        };
        let mut all = open();
        all.sandbox(&config("a", None)).await.unwrap();
        all.sandbox(&config("b", Some("second"))).await.unwrap();
        let refused = all.sandbox(&config("c", Some("kata"))).await.unwrap_err().to_string();
        assert_eq!(refused, "no runtime for \"kata\" is configured, needed one of: first, second");
        assert_eq!((first.list().await.unwrap(), second.list().await.unwrap()), (vec!["a".into()], vec!["b".into()]));
        // Another default, and another start: what there is stays where it is.
        all = open();
        all.set_default("second").unwrap();
        assert!(all.set_default("kata").is_err());
        for pod in ["a", "b", "d"] {
            all.sandbox(&config(pod, None)).await.unwrap();
            all.signal(pod, "", 15).await.unwrap();
        }
        assert_eq!(second.list().await.unwrap(), ["b", "d"]);
        assert_eq!(all.list().await.unwrap(), ["a", "b", "d"]);
        // One whose runtime is not there any more is told of, and nothing is done about it.
        let alone = Runtimes::new(dir.path().join("handlers"), "first", Arc::clone(&first) as _).unwrap();
        assert_eq!(alone.list().await.unwrap(), ["a", "b", "d"]);
        assert!(matches!(alone.remove("d").await, Err(Error::Handler { .. })));
        assert!(!alone.watch("d").await.borrow().alive);
        all.remove("d").await.unwrap();
        assert_eq!(all.list().await.unwrap(), ["a", "b"]);
    }
}
