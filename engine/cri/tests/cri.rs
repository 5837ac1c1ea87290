//! The conformance suite on containerd, and what is containerd's alone. Needs root, busybox-static, and Debian's packages `containerd` and
//! `runc`, which are downloaded and not installed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use engine_conformance::containerd::Containerd;
use engine_conformance::{Claim, Handler, Own, POD, Words, World, images, wait_for};
use engine_cri::network::Plugin;
use engine_cri::{CriRuntime, Options};
use engine_runtime::cgroups::Limits;
use engine_runtime::{Error, Mount, Root, Runtime, SandboxConfig};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|a| a == "plugin") {
        return engine_cri::network::plugin();
    }
    alone();
    let own: &[(&str, &[&str], Own<Cri>)] = &[
        ("refusals_are_cris", &[], |_, w| Box::pin(refusals_are_cris(w))),
        ("parts_of_volumes_are_mounts", &[], |_, w| Box::pin(parts_of_volumes_are_mounts(w))),
        ("nobody_elses_network", &[], |c, w| Box::pin(nobody_elses_network(c, w))),
        ("nobody_elses_pods", &[], |c, w| Box::pin(nobody_elses_pods(c, w))),
        ("free_for_all_pods", &[], |c, w| Box::pin(free_for_all_pods(c, w))),
        ("outlives_containerd", &[], |c, w| Box::pin(outlives_containerd(c, w))),
        ("pods_begin_at_once", &[], |c, w| Box::pin(pods_begin_at_once(c, w))),
        ("memory_runs_out_unseen", &[], |c, w| Box::pin(memory_runs_out_unseen(c, w))),
        ("images_come_and_go", &[], |c, w| Box::pin(images_come_and_go(c, w))),
    ];
    let dir = tempfile::Builder::new().prefix("flt-cri-").tempdir().unwrap();
    let downloads = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let containerd = Containerd::start(&dir.path().join("containerd"), downloads, &[]);
    let pause = json!({"Entrypoint": ["/bin/sleep", "1000000"]});
    let pause = images::layout(&dir.path().join("pause"), "pause:1", pause, &[images::busybox().bytes()]);
    containerd.load(&pause, "docker.io/library/pause:1");
    engine_conformance::run(&[Rc::new(Cri { containerd: Mutex::new(containerd) })], own)
}

/// Gives this program a directory of networks of its own: another containerd of the machine puts those of its pods into the same one, and
/// what is looked for here is what this one has left.
fn alone() {
    const NETWORKS: &str = "/run/netns";
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    std::fs::create_dir_all(NETWORKS).unwrap();
    mount(Some("flt-networks"), NETWORKS, Some("tmpfs"), MsFlags::empty(), none).unwrap();
}

struct Cri {
    containerd: Mutex<Containerd>,
}

impl Cri {
    fn options(&self, dir: &Path) -> Options {
        let command = vec![std::env::current_exe().unwrap().into(), "plugin".into()];
        let plugin = Plugin { name: "flt-net".into(), command };
        Options { socket: self.containerd.lock().unwrap().socket(), dir: dir.join("cri"), plugin }
    }

    fn runtime(&self, dir: &Path) -> CriRuntime {
        CriRuntime::new(self.options(dir)).unwrap()
    }
}

#[async_trait(?Send)]
impl Handler for Cri {
    fn name(&self) -> &'static str {
        engine_cri::HANDLER
    }

    fn claims(&self) -> &'static [Claim] {
        use Claim::*;
        &[Shell, Exec, Attach, Terminal, Beside, SharedProcesses, Privileges, Propagation, WritableLayer]
    }

    fn words(&self) -> Words {
        Words { missing: "executable file not found in $PATH", directory: "permission denied", ghost: "no users found" }
    }

    fn client(&self, dir: &Path) -> Arc<dyn Runtime> {
        Arc::new(self.runtime(dir))
    }

    fn needs_network(&self) -> bool {
        true
    }

    async fn swept(&self, world: &World) {
        // As who takes everything away knows it: by its directory.
        CriRuntime::again(&world.path("cri")).unwrap().unwrap().purge().await.unwrap();
        let containerd = self.containerd.lock().unwrap();
        assert_eq!(containerd.ctr(&["containers", "list", "-q"]).unwrap(), "");
        assert!(!containerd.ctr(&["images", "list", "-q"]).unwrap().contains("busy"));
        // Of the networks only the runtime's own are gone with their pods, which it made beside ours.
        let left = std::fs::read_dir("/run/netns").unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
        assert_eq!(left.filter(|name| name.starts_with("cni-")).count(), 0);
    }
}

async fn refusals_are_cris(world: &World) {
    let mut config = world.container("true");
    (config.user.image_user, config.user.gid) = ("ghost".into(), Some(1));
    let refused = world.runtime.start(POD, &config).await.unwrap_err();
    assert!(matches!(&refused, Error::Call { why, .. } if why.contains("no users found")), "{refused}");
    let twice = world.container("true");
    world.start(&twice).await;
    let again = world.runtime.start(POD, &twice).await;
    assert!(matches!(&again, Err(Error::Call { why, .. }) if why.contains("was started before")), "{again:?}");
    let mut config = world.container("true");
    config.beside = Some("nobody".into());
    let refused = world.runtime.start(POD, &config).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Call { why, .. } if why == "unable to find target container nobody"),
        "{refused}"
    );
}

/// CRI knows no parts of volumes: they are mounted on the machine, and go with the container.
async fn parts_of_volumes_are_mounts(world: &World) {
    let volume = world.path("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "content").unwrap();
    std::os::unix::fs::symlink("/etc", volume.join("evil")).unwrap();
    let part = |sub: &str, to: &str| Mount { sub_path: Some(PathBuf::from(sub)), ..Mount::new(&volume, to) };
    let mut config = world.container("cat /one");
    config.mounts = vec![part("file", "/one"), part("sub/dir", "/rw")];
    assert_eq!(world.output(&config).await, (0, "content\n".into()));
    let mounts = || std::fs::read_to_string("/proc/mounts").unwrap();
    let at = format!("cri/pods/{POD}/mounts/{}", config.id);
    assert_eq!(mounts().lines().filter(|line| line.contains(&at)).count(), 2, "the runtime is given what is inside");
    world.runtime.forget(POD, &config.id).await.unwrap();
    assert!(!mounts().contains(&at), "and they go with the container");
    let mut config = world.container("true");
    config.mounts = vec![part("file", "/one"), part("evil", "/stolen")];
    world.refused(&config).await;
    assert!(!mounts().contains(&config.id), "also with one that was not made");
}

/// Nobody else's network is taken away, and none but the pod's own is used.
async fn nobody_elses_network(cri: Rc<Cri>, world: &World) {
    world.runtime.remove(POD).await.unwrap();
    let conf = cri.containerd.lock().unwrap().socket().with_file_name("cni/net.d/05-other.conflist");
    std::fs::write(&conf, "{}").unwrap();
    let refused = world.runtime.sandbox(&world.sandbox_config()).await;
    std::fs::remove_file(&conf).unwrap();
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("05-other.conflist configures another network"), "{refused}");
}

/// Of another directory it knows nothing, and takes nothing away.
async fn nobody_elses_pods(cri: Rc<Cri>, world: &World) {
    let other = tempfile::Builder::new().prefix("flt-cri-").tempdir().unwrap();
    let stranger = cri.runtime(other.path());
    assert!(!stranger.watch(POD).await.borrow().alive);
    stranger.remove(POD).await.unwrap();
    assert!(stranger.list().await.unwrap().is_empty());
    stranger.purge().await.unwrap();
    assert!(world.runtime.watch(POD).await.borrow().alive);
}

/// Who takes it for all pods of a machine asks first whether it is another program's.
async fn free_for_all_pods(cri: Rc<Cri>, world: &World) {
    let socket = cri.containerd.lock().unwrap().socket();
    let ours = CriRuntime::free(&socket).await.unwrap_err().to_string();
    assert!(ours.contains("10-flt-net.conflist configures the network of another program's pods"), "{ours}");
    world.runtime.remove(POD).await.unwrap();
    CriRuntime::again(&world.path("cri")).unwrap().unwrap().purge().await.unwrap();
    let found = CriRuntime::take(&socket).await.unwrap();
    assert_eq!((found.name.as_str(), found.unusable), ("containerd", None));
    let gone = CriRuntime::free(&world.path("no.sock")).await.unwrap_err().to_string();
    assert!(gone.contains("does not answer"), "{gone}");
    // It has to have what its sandboxes are made from, and there is nobody here who would give it.
    let ctr = |words: &[&str]| cri.containerd.lock().unwrap().ctr(words).unwrap();
    ctr(&["images", "tag", "docker.io/library/pause:1", "flt.invalid/kept:1"]);
    ctr(&["images", "rm", "docker.io/library/pause:1"]);
    let missing = CriRuntime::take(&socket).await;
    ctr(&["images", "tag", "flt.invalid/kept:1", "docker.io/library/pause:1"]);
    ctr(&["images", "rm", "flt.invalid/kept:1"]);
    let why = missing.unwrap_err().to_string();
    assert!(why.contains("PullImage: its sandbox image docker.io/library/pause:1: "), "{why}");
}

async fn outlives_containerd(cri: Rc<Cri>, world: &World) {
    let config = world.container("while true; do sleep 0.1; done");
    let pid = world.start(&config).await.pid.unwrap();
    let mut seen = world.runtime.watch(POD).await;
    cri.containerd.lock().unwrap().kill();
    let away = world.runtime.signal(POD, &config.id, 15).await.unwrap_err();
    // In its words whether the old connection was seen to end before.
    assert!(matches!(&away, Error::Call { .. }), "{away}");
    tokio::time::sleep(Duration::from_millis(1500)).await; // it has been looked for in vain
    let last = seen.borrow_and_update().clone();
    assert!(last.alive && last.containers[0].finished.is_none(), "{last:?}");
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    // Who asks anew waits rather than being told that there is nothing.
    let again = cri.runtime(world.dir.path());
    let asked = tokio::spawn(async move { again.watch(POD).await.borrow().clone() });
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!asked.is_finished());
    cri.containerd.lock().unwrap().again(&[]);
    let told = tokio::time::timeout(Duration::from_secs(30), asked).await.unwrap().unwrap();
    assert_eq!(told.containers[0].pid, Some(pid));
    world.runtime.signal(POD, &config.id, 9).await.unwrap();
    let wait = seen.wait_for(|o| o.containers[0].finished.is_some());
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap().unwrap().containers[0]
            .finished
            .as_ref()
            .unwrap()
            .exit_code,
        137
    );
}

/// The first pods of a node: all want the network that none has made yet.
async fn pods_begin_at_once(cri: Rc<Cri>, world: &World) {
    world.runtime.remove(POD).await.unwrap();
    CriRuntime::again(&world.path("cri")).unwrap().unwrap().purge().await.unwrap();
    let runtime = Arc::new(cri.runtime(world.dir.path()));
    let configs = (0..6).map(|n| SandboxConfig { pod_uid: format!("flt-{n}"), ..world.sandbox_config() });
    let begun: Vec<_> = configs
        .map(|config| {
            let runtime = Arc::clone(&runtime);
            tokio::spawn(async move { runtime.sandbox(&config).await.map_err(|e| e.to_string()) })
        })
        .collect();
    let mut ends = Vec::new();
    for one in begun {
        ends.push(one.await.unwrap());
    }
    for n in 0..6 {
        runtime.remove(&format!("flt-{n}")).await.unwrap();
    }
    assert!(ends.iter().all(Result::is_ok), "{ends:?}");
}

/// The kernel kills while containerd is away: what its shim has to say of it comes late, or never, and is known all the same.
async fn memory_runs_out_unseen(cri: Rc<Cri>, world: &World) {
    let told = world.path("told");
    std::fs::create_dir(&told).unwrap();
    let mut config = world.container("until test -e /told/go; do sleep 0.05; done; exec tail -c 90000000 /dev/zero");
    config.mounts = vec![Mount::new(&told, "/told")];
    let limits = Limits { memory_limit_bytes: Some(16 << 20), ..Limits::default() };
    config.cgroups = world.cgroups.create("pod/unseen", &limits).unwrap();
    config.oom_file = Some(world.cgroups.oom_file("pod/unseen"));
    let pid = world.start(&config).await.pid.unwrap();
    cri.containerd.lock().unwrap().kill();
    std::fs::write(told.join("go"), "").unwrap();
    wait_for(|| !Path::new(&format!("/proc/{pid}")).exists()).await;
    cri.containerd.lock().unwrap().again(&[]);
    let finished = world.ended(&config.id).await.finished.unwrap();
    assert!(finished.oom_killed && finished.exit_code == 137, "{finished:?}");
    // Who begins anew knows it, too.
    world.cgroups.remove("pod/unseen").unwrap();
    let again = cri.runtime(world.dir.path()).watch(POD).await.borrow().clone();
    let same = again.containers.iter().find(|run| run.id == config.id).unwrap();
    assert!(same.finished.as_ref().unwrap().oom_killed, "{same:?}");
}

async fn images_come_and_go(cri: Rc<Cri>, world: &World) {
    let listed = || cri.containerd.lock().unwrap().ctr(&["images", "list", "-q"]).unwrap();
    world.output(&world.container("true")).await;
    let name = format!("docker.io/library/busy@{}", world.image.digest);
    assert!(listed().contains(&name), "{}", listed());
    // A pod goes, the store has the image: it stays.
    world.runtime.remove(POD).await.unwrap();
    assert!(listed().contains(&name));
    // The store has it no more: it stays as long as a container stands on it, and goes with the last.
    world.runtime.sandbox(&world.sandbox_config()).await.unwrap();
    let stands = world.container("sleep 1000");
    world.start(&stands).await;
    world.store.remove(&world.image.reference).await.unwrap();
    let other = SandboxConfig { pod_uid: "flt-other".into(), ..world.sandbox_config() };
    world.runtime.sandbox(&other).await.unwrap();
    world.runtime.remove("flt-other").await.unwrap();
    assert!(listed().contains(&name));
    world.runtime.remove(POD).await.unwrap();
    assert!(!listed().contains("busy") && listed().contains("pause"), "{}", listed());
    // What is not what its digest says is not taken.
    let mut config = world.container("true");
    let blobs = world.dir.path().join("forged/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let hex = "0".repeat(64);
    let part = json!({"digest": format!("sha256:{}", "1".repeat(64)), "size": 1});
    std::fs::write(blobs.join(&hex), json!({"config": part, "layers": []}).to_string()).unwrap();
    std::fs::write(blobs.join("1".repeat(64)), "x").unwrap();
    config.root = Root::Image {
        name: "forged:1".into(),
        digest: format!("sha256:{hex}"),
        blobs: world.dir.path().join("forged"),
    };
    world.runtime.sandbox(&world.sandbox_config()).await.unwrap();
    let refused = world.runtime.start(POD, &config).await.unwrap_err().to_string();
    assert!(refused.contains("containerd does not take it: unexpected commit digest"), "{refused}");
}
