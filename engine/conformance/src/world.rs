//! What a case has.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine_images::{ImageStore, Reference};
use engine_runtime::capabilities;
use engine_runtime::cgroups::{Cgroups, Limits};
use engine_runtime::{ContainerConfig, ContainerStatus, Error, Root, Runtime, SandboxConfig, Seccomp, User};
use engine_session::{ExecOptions, ExecOutput, ExecSession};
use serde_json::json;

use crate::{Claim, Handler, Netns, Program};

/// The uid of the pod that each case finds.
pub const POD: &str = "flt-pod";
/// What is waited for comes to pass within this, or the case fails.
const LIMIT: Duration = Duration::from_secs(60);

/// A runtime with one pod, an image, and a directory; all of its own.
pub struct World {
    /// Who is tried.
    pub handler: Rc<dyn Handler>,
    /// What the runtime and the case keep; gone with it.
    pub dir: tempfile::TempDir,
    /// The runtime.
    pub runtime: Arc<dyn Runtime>,
    /// The node's cgroups: `pod` is the pod's, and each container has one in it.
    pub cgroups: Cgroups,
    /// Where the image is.
    pub store: ImageStore,
    /// What containers are made from.
    pub image: engine_images::Image,
    root: Root,
    netns: Option<Netns>,
}

impl World {
    pub(crate) async fn new(handler: Rc<dyn Handler>) -> Self {
        let dir = tempfile::Builder::new().prefix(&format!("flt-{}-", handler.name())).tempdir().unwrap();
        let layer = handler.layer().bytes();
        let source = crate::images::layout(&dir.path().join("src"), "busy:1", json!({}), &[layer]);
        let store = ImageStore::open(dir.path().join("images")).unwrap();
        store.load(source, None).await.unwrap();
        let image = store.find(&"busy:1".parse::<Reference>().unwrap()).await.unwrap().unwrap();
        let runtime = handler.client(dir.path());
        let root = if runtime.takes_images() {
            let (name, digest) = ("docker.io/library/busy:1".into(), image.digest.to_string());
            Root::Image { name, digest, blobs: store.blobs_dir() }
        } else {
            let paths = store.unpacked(&image, "flt").await.unwrap();
            let layers = paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
            Root::Layers { dir: store.layers_dir(), layers }
        };
        let cgroups = Cgroups::detect(&format!("flt-{}", std::process::id())).unwrap();
        let netns = handler.needs_network().then(Netns::new);
        let world = Self { handler, dir, runtime, cgroups, store, image, root, netns };
        world.runtime.sandbox(&world.sandbox_config()).await.unwrap();
        world
    }

    /// Whether the handler claims something.
    pub fn claims(&self, claim: Claim) -> bool {
        self.handler.claims().contains(&claim)
    }

    /// What the pod was asked for; others of the case begin with it.
    pub fn sandbox_config(&self) -> SandboxConfig {
        SandboxConfig {
            pod_uid: POD.into(),
            handler: None,
            netns: self.netns.as_ref().map(Netns::path),
            hostname: Some("flt-host".into()),
            host_ipc: false,
            share_processes: false,
            fenced: false,
            sysctls: Default::default(),
            memory_volumes: Default::default(),
            cgroups: self.cgroups.create("pod", &Limits::default()).unwrap(),
        }
    }

    /// A container that runs a script with the image's shell.
    pub fn container(&self, script: &str) -> ContainerConfig {
        self.command(&["sh", "-c", script])
    }

    /// A container that runs one of the programs that every handler has.
    pub fn program(&self, program: Program) -> ContainerConfig {
        let words = self.handler.program(program);
        self.command(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A container that runs a program of the image.
    pub fn command(&self, args: &[&str]) -> ContainerConfig {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut config = ContainerConfig {
            // Also its first digits, which some runtimes name it by, are its own.
            id: format!("{:016x}{n:048x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            name: "main".into(),
            attempt: 0,
            root: self.root.clone(),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            runner: Vec::new(),
            ports: Vec::new(),
            env: vec!["GREETING=hello".into()],
            cwd: String::new(),
            user: User::default(),
            mounts: Vec::new(),
            capabilities: capabilities::default_set(),
            no_new_privs: false,
            privileged: false,
            read_only_root: false,
            seccomp: Seccomp::RuntimeDefault,
            fenced: false,
            host_pid: false,
            beside: None,
            tty: false,
            stdin: false,
            stdin_once: false,
            cgroups: self.cgroups.create(&format!("pod/c{n}"), &Limits::default()).unwrap(),
            oom_file: None,
            oom_score_adj: 1000,
            log: self.dir.path().join(format!("log-{n}")),
        };
        self.handler.adapt(&mut config);
        config
    }

    /// Starts a container in the pod.
    pub async fn start(&self, config: &ContainerConfig) -> ContainerStatus {
        self.runtime.start(POD, config).await.unwrap()
    }

    /// Starts a container that says `up` when it is, and waits for it.
    pub async fn up(&self, config: &ContainerConfig) -> ContainerStatus {
        let status = self.start(config).await;
        wait_for(|| self.log(config).contains("up")).await;
        status
    }

    /// Starts what cannot be, and answers why. What the runtime itself has refused is remembered as a run that ended so; of what it was never
    /// given it knows nothing.
    pub async fn refused(&self, config: &ContainerConfig) -> String {
        let refused = self.runtime.start(POD, config).await.expect_err("needed a refusal");
        let why = refused.to_string();
        match refused {
            Error::Refused(_) => {
                let end = self.ended(&config.id).await.finished.unwrap();
                assert_eq!((end.exit_code, end.error.as_deref(), end.lost), (128, Some(why.as_str()), false));
            }
            Error::Call { .. } => {
                let seen = self.runtime.watch(POD).await.borrow().clone();
                assert!(seen.containers.iter().all(|c| c.id != config.id), "{why}: {seen:?}");
            }
            other => panic!("{other:?}"),
        }
        why
    }

    /// Waits until a container of the pod has ended.
    pub async fn ended(&self, id: &str) -> ContainerStatus {
        self.ended_in(POD, id).await
    }

    /// Waits until a container has ended.
    pub async fn ended_in(&self, pod: &str, id: &str) -> ContainerStatus {
        let mut seen = self.runtime.watch(pod).await;
        let wait = seen.wait_for(|o| o.containers.iter().any(|c| c.id == id && c.finished.is_some()));
        match tokio::time::timeout(LIMIT, wait).await {
            Ok(Ok(observed)) => observed.containers.iter().find(|c| c.id == id).unwrap().clone(),
            _ => panic!("container {id} did not end; last seen: {:?}", self.runtime.watch(pod).await.borrow().clone()),
        }
    }

    /// Starts it, waits for its end and answers its exit code and output.
    pub async fn output(&self, config: &ContainerConfig) -> (i32, String) {
        self.output_in(POD, config).await
    }

    /// The same in another pod of the case.
    pub async fn output_in(&self, pod: &str, config: &ContainerConfig) -> (i32, String) {
        self.runtime.start(pod, config).await.unwrap();
        let status = self.ended_in(pod, &config.id).await;
        (status.finished.unwrap().exit_code, self.log(config))
    }

    /// What the log says, without times and streams. All that was said is in before an end is told.
    pub fn log(&self, config: &ContainerConfig) -> String {
        let text = std::fs::read_to_string(&config.log).unwrap();
        text.lines().map(|l| l.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n").collect()
    }

    /// Joins a container's streams, and has them.
    pub async fn attach(&self, id: &str, tty: bool) -> ExecSession {
        let options = ExecOptions { stdin: true, tty, ..words(&[]) };
        let session = self.runtime.attach(POD, id, &options).await.unwrap();
        if !self.claims(Claim::AttachIsTold) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        session
    }

    /// Runs a command with an input, and answers what it said and how it ended.
    pub async fn exec(&self, id: &str, options: ExecOptions, input: Option<&str>) -> (String, String, ExecOutput) {
        let session = self.runtime.exec(POD, id, &options).await.unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        let stdin = session.stdin;
        if let Some(input) = input {
            stdin.send(Bytes::copy_from_slice(input.as_bytes())).await.unwrap();
        }
        let keep = options.tty.then_some(stdin);
        let mut output = session.output;
        loop {
            match tokio::time::timeout(LIMIT, output.recv()).await {
                Ok(Some(ExecOutput::Stdout(b))) => out.push_str(&String::from_utf8_lossy(&b)),
                Ok(Some(ExecOutput::Stderr(b))) => err.push_str(&String::from_utf8_lossy(&b)),
                Ok(Some(last)) => {
                    drop(keep);
                    return (out, err, last);
                }
                other => panic!("{other:?} after {out:?} {err:?}"),
            }
        }
    }

    /// Below the directory: the place of a file of this case.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Takes away what the case has left of its pods, and looks for what nobody may leave.
    pub(crate) async fn sweep(&self) {
        for pod in self.runtime.list().await.unwrap() {
            self.runtime.remove(&pod).await.unwrap();
        }
        self.handler.swept(self).await;
        self.cgroups.remove("").unwrap();
        let name = format!("flt-{}", std::process::id());
        for controller in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let left = controller.path().join(&name);
            assert!(!left.exists(), "{} is left", left.display());
        }
        let left = std::fs::read_to_string("/proc/mounts").unwrap();
        assert!(!left.contains(self.dir.path().to_str().unwrap()), "mounts are left: {left}");
    }

    /// After a case that failed: as much as there is.
    pub(crate) async fn leave(&self) {
        for pod in self.runtime.list().await.unwrap_or_default() {
            if let Err(e) = self.runtime.remove(&pod).await {
                println!("remove {pod}: {e}");
            }
        }
        if let Err(e) = self.cgroups.remove("") {
            println!("{e}");
        }
        self.handler.swept(self).await;
    }
}

/// A command without input.
pub fn words(command: &[&str]) -> ExecOptions {
    ExecOptions {
        command: command.iter().map(|s| (*s).to_owned()).collect(),
        stdout: true,
        stderr: true,
        ..Default::default()
    }
}

/// What comes last of a session, after whatever else is said.
pub async fn last(session: &mut ExecSession) -> ExecOutput {
    loop {
        match tokio::time::timeout(LIMIT, session.output.recv()).await {
            Ok(Some(ExecOutput::Stdout(_) | ExecOutput::Stderr(_))) => {}
            Ok(Some(last)) => return last,
            other => panic!("{other:?}"),
        }
    }
}

/// Waits until something is so.
pub async fn wait_for(mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is() {
        assert!(Instant::now() < deadline, "it did not come to pass within {} s", LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
