//! By which runtime the cases run: the built-in one, and containerd, which the test starts. Each is a process of its own, and both run at once.

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::Duration;

use engine_conformance::containerd::Containerd;
use engine_conformance::images;
use engine_cri::CriRuntime;
use engine_cri::network::Plugin;
use serde_json::{Value, json};
use substrate_kubelet::ContainerRuntime;

use super::World;

/// Which of them a process is for.
pub const VARIABLE: &str = "FLT_HANDLER";
/// Which runtimes are tried.
const NAMED: &str = "FLT_HANDLERS";

/// What is not tried with containerd, and why.
const BUILT_IN_ONLY: &[(&str, &str)] = &[
    ("a_full_disk", "the small disk is the node's alone: containerd has its containers and images on another one"),
    ("programs_of_the_machine_run", "their RuntimeClass names the handler process, whatever the default is"),
    ("images_run_behind_fences", "their RuntimeClass names the handler process, whatever the default is"),
    ("programs_that_are_refused", "their RuntimeClass names the handler process, whatever the default is"),
];

/// What is tried with containerd alone.
const CONTAINERD_ONLY: &[&str] = &["pods_are_stopped_by_a_runtime_that_was_away"];

/// A runtime.
#[derive(Clone)]
pub enum Handler {
    BuiltIn,
    Containerd(Rc<Started>),
}

pub struct Started {
    containerd: RefCell<Containerd>,
    _dir: tempfile::TempDir,
}

/// Runs the cases with both at once, or with what `FLT_HANDLERS` names: `oci` or `cri`.
pub fn both(args: &[OsString]) -> ExitCode {
    let program = std::env::current_exe().unwrap();
    let named = std::env::var(NAMED).unwrap_or_else(|_| "oci,cri".to_owned());
    if named.contains(engine_cri::HANDLER) {
        engine_conformance::containerd::programs(downloads()); // the processes are on networks of their own
    }
    let begin = |handler| Command::new(&program).args(args).env(VARIABLE, handler).spawn().unwrap();
    let all: Vec<_> = named.split(',').map(begin).collect();
    let ends: Vec<_> = all.into_iter().map(|mut child| child.wait().unwrap().success()).collect();
    if ends.iter().all(|good| *good) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Where programs that the machine has not are kept.
fn downloads() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

impl Handler {
    /// The one that this process is for.
    pub fn start(name: &str) -> Self {
        if name == "oci" { Self::BuiltIn } else { Self::containerd() }
    }

    fn containerd() -> Self {
        let dir = tempfile::Builder::new().prefix("flt-cri-").tempdir().unwrap();
        let containerd = Containerd::start(&dir.path().join("containerd"), downloads(), &[]);
        let pause = json!({"Entrypoint": ["/bin/sleep", "1000000"]});
        let pause = images::layout(&dir.path().join("pause"), "pause:1", pause, &[images::busybox().bytes()]);
        containerd.load(&pause, "docker.io/library/pause:1");
        Self::Containerd(Rc::new(Started { containerd: RefCell::new(containerd), _dir: dir }))
    }

    pub fn name(&self) -> &'static str {
        if self.is_built_in() { "oci" } else { engine_cri::HANDLER }
    }

    pub fn is_built_in(&self) -> bool {
        matches!(self, Self::BuiltIn)
    }

    /// What a node of it can run pods with.
    pub fn handlers(&self) -> &'static [&'static str] {
        if self.is_built_in() { &["oci", "process"] } else { &["cri", "oci", "process", "runc"] }
    }

    /// Whether a case is tried with it.
    pub fn holds(&self, case: &str) -> bool {
        match self.is_built_in() {
            true => !CONTAINERD_ONLY.contains(&case),
            false => BUILT_IN_ONLY.iter().all(|(name, _)| *name != case),
        }
    }

    /// Kills the daemon, if it is one, and starts it again after a while.
    pub async fn is_away(&self, time: Duration) {
        let Self::Containerd(started) = self else { return };
        started.containerd.borrow_mut().kill();
        tokio::time::sleep(time).await;
        started.containerd.borrow_mut().again(&[]);
    }

    /// Of the nodes that run at once each has its own.
    pub fn instance(&self) -> &'static str {
        if self.is_built_in() { "f17e" } else { "f17c" }
    }

    pub fn container_runtime(&self) -> Option<ContainerRuntime> {
        let Self::Containerd(started) = self else { return None };
        let command = vec![std::env::current_exe().unwrap().into(), "plugin".into()];
        let plugin = Plugin { name: "flt-net".into(), command };
        Some(ContainerRuntime { socket: started.containerd.borrow().socket(), plugin })
    }

    /// Below a kubelet's directory: what the runtime has of each pod.
    pub fn sandboxes(&self, node: &Path) -> PathBuf {
        node.join(if self.is_built_in() { "run" } else { "cri/pods" })
    }

    /// Ends the process that holds a pod's sandbox.
    pub fn kill_sandbox(&self, world: &World, pod: &Value) {
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        match self {
            Self::BuiltIn => {
                let socket = world.sandboxes().join(uid).join("socket");
                let socket = std::os::unix::net::UnixStream::connect(socket).unwrap();
                let peer = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials).unwrap();
                let (pid, signal) = (nix::unistd::Pid::from_raw(peer.pid()), nix::sys::signal::Signal::SIGKILL);
                nix::sys::signal::kill(pid, signal).unwrap();
            }
            Self::Containerd(started) => {
                let filter = format!("labels.\"engine.cri/pod\"=={uid},labels.\"io.cri-containerd.kind\"==sandbox");
                let containerd = started.containerd.borrow();
                let ids = containerd.ctr(&["containers", "list", "-q", &filter]).unwrap();
                let id = ids.lines().next().unwrap();
                containerd.ctr(&["tasks", "kill", "-s", "SIGKILL", id]).unwrap();
            }
        }
    }

    /// Looks for what a kubelet in `node` has left.
    pub async fn swept(&self, node: &Path) {
        let left = std::fs::read_dir(self.sandboxes(node)).unwrap().count();
        assert_eq!(left, 0, "sandboxes are left");
        let Self::Containerd(started) = self else { return };
        CriRuntime::again(&node.join("cri")).unwrap().unwrap().purge().await.unwrap();
        let containerd = started.containerd.borrow();
        assert_eq!(containerd.ctr(&["containers", "list", "-q"]).unwrap(), "");
        let images = containerd.ctr(&["images", "list", "-q"]).unwrap();
        assert!(!images.contains("busy"), "{images}");
    }
}
