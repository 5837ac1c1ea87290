//! The conformance suite of [`Runtime`], on the built-in one with real namespaces. Needs root and busybox-static.
//!
//! Runs without the usual harness: the same program is also the supervisor (its own binary, as in production), and
//! that must happen before a second thread exists.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[path = "../../images/tests/support/mod.rs"]
mod support;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine_images::{ImageStore, Reference};
use engine_runtime::capabilities;
use engine_runtime::cgroups::{Cgroups, Limits};
use engine_runtime::{
    ContainerConfig, ContainerStatus, Error, Mount, OciRuntime, Runtime, SandboxConfig, Seccomp, User,
};
use engine_session::{ExecOptions, ExecOutput, ExecSession, TerminalSize};
use serde_json::json;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|a| a == "supervisor") {
        return engine_runtime::supervisor::main(&args[2..]);
    }
    let wanted = args.get(1).and_then(|a| a.to_str()).filter(|a| !a.starts_with('-')).unwrap_or("").to_owned();
    type Case = fn(&World) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>>;
    let cases: &[(&str, Case)] = &[
        ("exit_code_and_logs", |w| Box::pin(exit_code_and_logs(w))),
        ("what_cannot_start_says_why", |w| Box::pin(what_cannot_start_says_why(w))),
        ("signals_arrive", |w| Box::pin(signals_arrive(w))),
        ("exec_with_streams", |w| Box::pin(exec_with_streams(w))),
        ("exec_with_terminal", |w| Box::pin(exec_with_terminal(w))),
        ("attached_to_pipes", |w| Box::pin(attached_to_pipes(w))),
        ("attached_to_a_terminal", |w| Box::pin(attached_to_a_terminal(w))),
        ("a_slow_reader_holds_up", |w| Box::pin(a_slow_reader_holds_up(w))),
        ("beside_another_container", |w| Box::pin(beside_another_container(w))),
        ("dropping_a_session_ends_the_command", |w| Box::pin(dropping_a_session_ends_the_command(w))),
        ("confined_by_default", |w| Box::pin(confined_by_default(w))),
        ("users_and_privileges", |w| Box::pin(users_and_privileges(w))),
        ("mounts_stay_inside", |w| Box::pin(mounts_stay_inside(w))),
        ("mounts_follow_the_host", |w| Box::pin(mounts_follow_the_host(w))),
        ("processes_are_shared", |w| Box::pin(processes_are_shared(w))),
        ("profiles_of_others", |w| Box::pin(profiles_of_others(w))),
        ("settings_of_the_kernel", |w| Box::pin(settings_of_the_kernel(w))),
        ("memory_limit_kills", |w| Box::pin(memory_limit_kills(w))),
        ("survives_its_client", |w| Box::pin(survives_its_client(w))),
        ("dies_with_its_supervisor", |w| Box::pin(dies_with_its_supervisor(w))),
        ("forget_and_remove", |w| Box::pin(forget_and_remove(w))),
        ("the_program_is_sealed", |w| Box::pin(the_program_is_sealed(w))),
        ("supervisor_is_small", |w| Box::pin(supervisor_is_small(w))),
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (name, case) in cases.iter().filter(|(name, _)| name.contains(&wanted)) {
        let started = Instant::now();
        let world = runtime.block_on(World::new());
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(case(&world))));
        runtime.block_on(world.sweep());
        if result.is_err() {
            println!("test {name} ... FAILED");
            return ExitCode::FAILURE;
        }
        println!("test {name} ... ok ({} ms)", started.elapsed().as_millis());
    }
    ExitCode::SUCCESS
}

struct World {
    dir: tempfile::TempDir,
    runtime: OciRuntime,
    cgroups: Cgroups,
    layers_dir: PathBuf,
    layers: Vec<String>,
}

const POD: &str = "flt-pod";

impl World {
    async fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("flt-kubelet-").tempdir().unwrap();
        let source = support::layout(&dir.path().join("src"), "busy:1", json!({}), &[support::busybox().bytes()]);
        let store = ImageStore::open(dir.path().join("images")).unwrap();
        store.load(source, None).await.unwrap();
        let image = store.find(&"busy:1".parse::<Reference>().unwrap()).await.unwrap().unwrap();
        let paths = store.unpacked(&image, "flt").await.unwrap();
        let layers = paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        let supervisor = vec![std::env::current_exe().unwrap().into(), "supervisor".into()];
        let runtime = OciRuntime::new(dir.path().join("pods"), supervisor).unwrap();
        let cgroups = Cgroups::detect(&format!("flt-{}", std::process::id())).unwrap();
        let world = Self { runtime, cgroups, layers_dir: store.layers_dir(), layers, dir };
        world.runtime.sandbox(&world.sandbox_config()).await.unwrap();
        world
    }

    fn sandbox_config(&self) -> SandboxConfig {
        SandboxConfig {
            pod_uid: POD.into(),
            netns: None,
            hostname: Some("flt-host".into()),
            host_ipc: false,
            share_processes: false,
            sysctls: Default::default(),
            memory_volumes: Default::default(),
        }
    }

    fn container(&self, script: &str) -> ContainerConfig {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        ContainerConfig {
            id: format!("{n:064x}"),
            name: "main".into(),
            attempt: 0,
            layers_dir: self.layers_dir.clone(),
            layers: self.layers.clone(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["GREETING=hello".into()],
            cwd: String::new(),
            user: User::default(),
            mounts: Vec::new(),
            capabilities: capabilities::default_set(),
            no_new_privs: false,
            privileged: false,
            read_only_root: false,
            seccomp: Seccomp::RuntimeDefault,
            host_pid: false,
            beside: None,
            tty: false,
            stdin: false,
            stdin_once: false,
            cgroups: Vec::new(),
            oom_file: None,
            oom_score_adj: 1000,
            log: self.dir.path().join(format!("log-{n}")),
        }
    }

    async fn start(&self, config: &ContainerConfig) -> ContainerStatus {
        self.runtime.start(POD, config).await.unwrap()
    }

    /// Waits until the container has ended.
    async fn ended(&self, id: &str) -> ContainerStatus {
        let mut seen = self.runtime.watch(POD).await;
        let wait = seen.wait_for(|o| o.containers.iter().any(|c| c.id == id && c.finished.is_some()));
        match tokio::time::timeout(Duration::from_secs(20), wait).await {
            Ok(Ok(observed)) => observed.containers.iter().find(|c| c.id == id).unwrap().clone(),
            _ => panic!("container {id} did not end; last seen: {:?}", self.runtime.watch(POD).await.borrow().clone()),
        }
    }

    /// Starts it, waits for its end and answers its exit code and output.
    async fn output(&self, config: &ContainerConfig) -> (i32, String) {
        self.start(config).await;
        let status = self.ended(&config.id).await;
        (status.finished.unwrap().exit_code, self.log(config).await)
    }

    /// The text of the log once its last line is in: the supervisor reads on after the end is known.
    async fn log(&self, config: &ContainerConfig) -> String {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let text = std::fs::read_to_string(&config.log).unwrap();
        text.lines().map(|l| l.splitn(4, ' ').nth(3).unwrap().to_owned() + "\n").collect()
    }

    async fn attach(&self, id: &str, tty: bool) -> ExecSession {
        let options = ExecOptions { stdin: true, tty, ..words(&[]) };
        self.runtime.attach(POD, id, &options).await.unwrap()
    }

    async fn exec(&self, id: &str, options: ExecOptions, input: Option<&str>) -> (String, String, ExecOutput) {
        let session = self.runtime.exec(POD, id, &options).await.unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        let stdin = session.stdin;
        if let Some(input) = input {
            stdin.send(Bytes::copy_from_slice(input.as_bytes())).await.unwrap();
        }
        let keep = options.tty.then_some(stdin);
        let mut output = session.output;
        loop {
            match tokio::time::timeout(Duration::from_secs(10), output.recv()).await {
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

    async fn sweep(&self) {
        // Also those of a case that failed: a supervisor outlives whoever started it.
        for pod in self.runtime.list().await.unwrap() {
            self.runtime.remove(&pod).await.unwrap();
        }
        self.cgroups.remove("").unwrap();
        assert!(!self.dir.path().join("pods").join(POD).exists());
    }
}

fn words(command: &[&str]) -> ExecOptions {
    ExecOptions {
        command: command.iter().map(|s| (*s).to_owned()).collect(),
        stdout: true,
        stderr: true,
        ..Default::default()
    }
}

async fn exit_code_and_logs(world: &World) {
    let config = world.container("echo $GREETING; echo bad >&2; hostname; echo $$; echo -n end; exit 7");
    let (code, text) = world.output(&config).await;
    assert_eq!(code, 7);
    // Two streams are two pipes: their order between each other is not kept.
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["1", "bad", "end", "flt-host", "hello"]);
    let raw = std::fs::read_to_string(&config.log).unwrap();
    assert!(raw.contains(" stderr F bad\n") && raw.contains(" stdout F hello\n"), "{raw}");
}

async fn what_cannot_start_says_why(world: &World) {
    let mut config = world.container("");
    config.args = vec!["nope".into()];
    let refused = world.runtime.start(POD, &config).await.unwrap_err();
    assert_eq!(refused.to_string(), "exec: \"nope\": executable file not found in $PATH");
    let status = world.ended(&config.id).await.finished.unwrap();
    assert_eq!((status.exit_code, status.error.as_deref()), (128, Some(refused.to_string().as_str())));

    for (program, why) in [("/etc", "is a directory"), ("/proc/version", "permission denied")] {
        let mut config = world.container("");
        config.args = vec![program.into()];
        let refused = world.runtime.start(POD, &config).await.unwrap_err();
        assert_eq!(refused.to_string(), format!("exec: {program:?}: {why}"));
    }

    let mut config = world.container("true");
    config.user.image_user = "ghost".into();
    let refused = world.runtime.start(POD, &config).await.unwrap_err().to_string();
    assert!(refused.contains("unable to find user ghost"), "{refused}");

    let mut config = world.container("true");
    config.capabilities |= capabilities::bit("SYS_RESOURCE").unwrap();
    let has_it = world.runtime.start(POD, &config).await;
    if let Err(e) = has_it {
        assert_eq!(e.to_string(), "cannot give CAP_SYS_RESOURCE: the node does not have it itself");
    }
    let twice = world.container("true");
    world.start(&twice).await;
    assert!(matches!(world.runtime.start(POD, &twice).await, Err(Error::Refused(_))));
}

async fn signals_arrive(world: &World) {
    let config = world.container("trap 'echo got it; exit 3' TERM; echo up; while true; do sleep 0.05; done");
    world.start(&config).await;
    wait_for(|| std::fs::read_to_string(&config.log).unwrap().contains("up")).await;
    world.runtime.signal(POD, &config.id, 15).await.unwrap();
    assert_eq!(world.ended(&config.id).await.finished.unwrap().exit_code, 3);
    world.runtime.signal(POD, &config.id, 15).await.unwrap();
    let config = world.container("sleep 100");
    world.start(&config).await;
    world.runtime.signal(POD, &config.id, 9).await.unwrap();
    let finished = world.ended(&config.id).await.finished.unwrap();
    assert_eq!((finished.exit_code, finished.signal, finished.oom_killed), (137, 9, false));
}

async fn exec_with_streams(world: &World) {
    let config = world.container("sleep 100");
    world.start(&config).await;
    let (out, err, last) =
        world.exec(&config.id, words(&["sh", "-c", "echo out $GREETING; echo err >&2; exit 5"]), None).await;
    assert_eq!((out.as_str(), err.as_str(), last), ("out hello\n", "err\n", ExecOutput::Exit(5)));
    let cat = ExecOptions { stdin: true, ..words(&["cat"]) };
    let (out, _, last) = world.exec(&config.id, cat, Some("through")).await;
    assert_eq!((out.as_str(), last), ("through", ExecOutput::Exit(0)));
    let (out, _, _) = world.exec(&config.id, words(&["ps"]), None).await;
    assert!(out.contains("sleep 100") && out.lines().count() < 5, "sees only the container: {out}");
    let missing = world.runtime.exec(POD, &config.id, &words(&["nope"])).await;
    assert!(matches!(&missing, Err(Error::Refused(why)) if why.contains("not found in $PATH")), "{:?}", missing.err());
    let gone = world.runtime.exec(POD, &"f".repeat(64), &words(&["ls"])).await;
    assert!(matches!(&gone, Err(Error::Refused(why)) if why.contains("is not running")));
}

async fn exec_with_terminal(world: &World) {
    let config = world.container("sleep 100");
    world.start(&config).await;
    let options = ExecOptions { tty: true, stdin: true, stderr: false, ..words(&["sh"]) };
    let mut session = world.runtime.exec(POD, &config.id, &options).await.unwrap();
    session.resize.send(TerminalSize { width: 123, height: 45 }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    session.stdin.send(Bytes::from_static(b"stty size; tty; exit 4\n")).await.unwrap();
    let mut out = String::new();
    loop {
        match tokio::time::timeout(Duration::from_secs(10), session.output.recv()).await {
            Ok(Some(ExecOutput::Stdout(b))) => out.push_str(&String::from_utf8_lossy(&b)),
            Ok(Some(last)) => {
                assert_eq!(last, ExecOutput::Exit(4), "{out}");
                break;
            }
            other => panic!("{other:?} after {out:?}"),
        }
    }
    assert!(out.contains("45 123") && out.contains("/dev/pts/0"), "{out}");

    let mut config = world.container("tty; echo to a terminal");
    config.tty = true;
    assert_eq!(world.output(&config).await, (0, "/dev/pts/0\nto a terminal\n".into()));
}

/// Reads what the container says, until it is `text`.
async fn hear(session: &mut ExecSession, text: &str) {
    let mut said = String::new();
    while !said.contains(text) {
        match tokio::time::timeout(Duration::from_secs(10), session.output.recv()).await {
            Ok(Some(ExecOutput::Stdout(b))) => said.push_str(&String::from_utf8_lossy(&b)),
            Ok(Some(ExecOutput::Stderr(b))) => said.push_str(&format!("error: {}", String::from_utf8_lossy(&b))),
            other => panic!("{other:?} after {said:?}, needed {text:?}"),
        }
    }
}

/// What comes last, after whatever else is said.
async fn last(session: &mut ExecSession) -> ExecOutput {
    loop {
        match tokio::time::timeout(Duration::from_secs(10), session.output.recv()).await {
            Ok(Some(ExecOutput::Stdout(_) | ExecOutput::Stderr(_))) => {}
            Ok(Some(last)) => return last,
            other => panic!("{other:?}"),
        }
    }
}

async fn attached_to_pipes(world: &World) {
    let echo = "echo before; while read line; do echo got $line; echo no $line >&2; done; echo end; exit 3";
    let mut config = world.container(echo);
    config.stdin = true;
    world.start(&config).await;
    // Two at once; one goes, and the container stays.
    let (mut one, mut two) = (world.attach(&config.id, false).await, world.attach(&config.id, false).await);
    one.stdin.send(Bytes::from_static(b"a\n")).await.unwrap();
    hear(&mut one, "got a\n").await;
    hear(&mut two, "got a\n").await;
    drop((one, two));
    let mut three = world.attach(&config.id, false).await;
    three.stdin.send(Bytes::from_static(b"b\n")).await.unwrap();
    hear(&mut three, "error: no b\n").await;
    world.runtime.signal(POD, &config.id, 9).await.unwrap();
    assert_eq!(last(&mut three).await, ExecOutput::Exit(137));
    assert_eq!(world.log(&config).await, "before\ngot a\nno a\ngot b\nno b\n", "the log has it all");
    let gone = world.runtime.attach(POD, &config.id, &words(&[])).await;
    assert!(matches!(&gone, Err(Error::Refused(why)) if why.contains("is not running")));

    let mut config = world.container(echo);
    (config.stdin, config.stdin_once) = (true, true);
    world.start(&config).await;
    let ExecSession { stdin, resize, output } = world.attach(&config.id, false).await;
    stdin.send(Bytes::from_static(b"c\n")).await.unwrap();
    drop(stdin);
    let (stdin, _) = tokio::sync::mpsc::channel(1);
    let mut session = ExecSession { stdin, resize, output };
    hear(&mut session, "end\n").await;
    assert_eq!(last(&mut session).await, ExecOutput::Exit(3), "its input ended with who was attached");

    let (code, out) = world.output(&world.container("cat; echo none")).await;
    assert_eq!((code, out.as_str()), (0, "none\n"), "without standard input there is nothing to read");
}

async fn attached_to_a_terminal(world: &World) {
    let mut config = world.container("exec sh");
    (config.tty, config.stdin) = (true, true);
    world.start(&config).await;
    let mut session = world.attach(&config.id, true).await;
    session.resize.send(TerminalSize { width: 99, height: 33 }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    session.stdin.send(Bytes::from_static(b"stty size\n")).await.unwrap();
    hear(&mut session, "33 99").await;
    drop(session);
    let mut again = world.attach(&config.id, true).await;
    again.stdin.send(Bytes::from_static(b"exit 4\n")).await.unwrap();
    assert_eq!(last(&mut again).await, ExecOutput::Exit(4));
}

/// Who does not read loses nothing, and costs the supervisor no memory.
async fn a_slow_reader_holds_up(world: &World) {
    let config = world.container("sleep 0.3; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end");
    world.start(&config).await;
    let mut session = world.attach(&config.id, false).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let now = world.runtime.watch(POD).await.borrow().containers.clone();
    assert!(now.iter().all(|c| c.finished.is_none()), "more than all buffers take: it waits");
    let (mut bytes, mut tail) = (0, Vec::new());
    loop {
        match tokio::time::timeout(Duration::from_secs(30), session.output.recv()).await {
            Ok(Some(ExecOutput::Stdout(b))) => {
                bytes += b.len();
                tail = b.to_vec();
            }
            Ok(Some(last)) => break assert_eq!(last, ExecOutput::Exit(0)),
            other => panic!("{other:?} after {bytes} bytes"),
        }
    }
    assert_eq!((bytes, tail.ends_with(b"end\n")), (3_000_005, true));
}

async fn beside_another_container(world: &World) {
    let target = world.container("sleep 100");
    world.start(&target).await;
    let mut config = world.container("ps; exit 6");
    (config.name, config.beside) = ("debug".into(), Some("main".into()));
    let (code, out) = world.output(&config).await;
    assert!(code == 6 && out.contains("sleep 100"), "{code} {out}");
    let mut config = world.container("true");
    config.beside = Some("nobody".into());
    let refused = world.runtime.start(POD, &config).await.unwrap_err();
    assert_eq!(refused.to_string(), "unable to find target container nobody");
    assert!(!world.ended(&config.id).await.finished.unwrap().lost);
}

async fn dropping_a_session_ends_the_command(world: &World) {
    let config = world.container("sleep 100");
    world.start(&config).await;
    let session = world.runtime.exec(POD, &config.id, &words(&["sleep", "77"])).await.unwrap();
    let (out, ..) = world.exec(&config.id, words(&["ps"]), None).await;
    assert!(out.contains("sleep 77"), "{out}");
    drop(session);
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let (out, ..) = world.exec(&config.id, words(&["ps"]), None).await;
        if !out.contains("sleep 77") {
            break;
        }
        assert!(Instant::now() < deadline, "still there: {out}");
    }
}

async fn confined_by_default(world: &World) {
    let script = "grep -E 'CapEff|CapBnd|Seccomp:|NoNewPrivs' /proc/self/status; cat /proc/kcore | head -c 1 | wc -c 2>/dev/null;
        echo x > /proc/sys/kernel/hostname && echo wrote sys; mount -t tmpfs t /tmp && echo mounted; unshare -m true && echo unshared;
        mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk && echo read a disk; touch /sys/x && echo wrote sysfs; ls /proc/1/root/work && echo escaped;
        ls /dev; true";
    let (code, text) = world.output(&world.container(script)).await;
    assert_eq!(code, 0, "{text}");
    for bad in ["wrote sys", "mounted", "unshared", "read a disk", "wrote sysfs", "escaped"] {
        assert!(!text.contains(bad), "{bad}: {text}");
    }
    assert!(text.contains("CapEff:\t00000000a80425fb") && text.contains("CapBnd:\t00000000a80425fb"), "{text}");
    assert!(text.contains("Seccomp:\t2") && text.contains("NoNewPrivs:\t0"), "{text}");
    assert!(text.contains("null\n") && text.contains("urandom\n") && !text.contains("vda"), "{text}");
}

async fn users_and_privileges(world: &World) {
    let mut config = world.container(
        "id; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; echo $HOME; touch /tmp/mine && echo wrote",
    );
    config.user.image_user = "web".into();
    config.no_new_privs = true;
    let (code, text) = world.output(&config).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("uid=101(web) gid=102(web) groups=102(web),103(extra)"), "{text}");
    assert!(
        text.contains("CapEff:\t0000000000000000") && text.contains("NoNewPrivs:\t1") && text.contains("Seccomp:\t2"),
        "{text}"
    );
    assert!(text.ends_with("/\nwrote\n"), "{text}");

    let mut config = world.container("mount -t tmpfs t /tmp && echo mounted; grep Seccomp: /proc/self/status");
    (config.privileged, config.capabilities) = (true, capabilities::all());
    assert_eq!(world.output(&config).await.1, "mounted\nSeccomp:\t0\n");

    let mut config = world.container("touch /x 2>/dev/null || echo refused");
    config.read_only_root = true;
    assert!(world.output(&config).await.1.ends_with("refused\n"));
}

async fn mounts_stay_inside(world: &World) {
    let volume = world.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "content").unwrap();
    std::os::unix::fs::symlink("/etc", volume.join("evil")).unwrap();
    let mount = |sub: Option<&str>, to: &str, read_only| Mount {
        sub_path: sub.map(PathBuf::from),
        read_only,
        ..Mount::new(&volume, to)
    };
    let mut config = world.container(
        "cat /data/file; echo; touch /data/new 2>/dev/null || echo refused; cat /one; echo; touch /rw/made; ls /rw",
    );
    config.mounts =
        vec![mount(None, "/data", true), mount(Some("file"), "/one", true), mount(Some("sub/dir"), "/rw", false)];
    let (code, text) = world.output(&config).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("content\n") && text.contains("refused\ncontent\nmade\n"), "{text}");
    assert!(volume.join("sub/dir/made").exists());
    assert!(
        !std::fs::read_to_string("/proc/mounts").unwrap().contains("flt-kubelet"),
        "nothing is visible on the machine"
    );

    let mut config = world.container("ls /stolen/shadow && echo escaped");
    config.mounts = vec![mount(Some("evil"), "/stolen", true)];
    match world.runtime.start(POD, &config).await {
        Ok(_) => assert!(
            !{
                world.ended(&config.id).await;
                world.log(&config).await
            }
            .contains("escaped")
        ),
        Err(e) => assert!(e.to_string().contains("mount /stolen"), "{e}"),
    }
}

/// A mount of the machine that goes with its test, whatever becomes of it.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

async fn mounts_follow_the_host(world: &World) {
    use nix::mount::{MsFlags, mount};
    let (none, volume) = (None::<&str>, world.dir.path().join("shared"));
    std::fs::create_dir(&volume).unwrap();
    mount(Some(&volume), &volume, none, MsFlags::MS_BIND, none).unwrap();
    let _shared = Mounted(volume.clone());
    mount(none, &volume, none, MsFlags::MS_SHARED, none).unwrap();
    for name in ["later", "closed"] {
        std::fs::create_dir(volume.join(name)).unwrap();
    }
    let closed = volume.join("closed");
    mount(Some(&closed), &closed, none, MsFlags::MS_BIND, none).unwrap();
    let _closed = Mounted(closed.clone());
    mount(none, &closed, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).unwrap();
    // A new pod: the supervisor of the first one was there before this place was shared.
    let pod = SandboxConfig { pod_uid: "flt-follow".into(), ..world.sandbox_config() };
    world.runtime.sandbox(&pod).await.unwrap();
    let mut config = world.container("until [ -e /go/on ]; do sleep 0.05; done; ls /follows/later /stays/later; true");
    config.mounts = vec![
        Mount { follows_host: true, ..Mount::new(&volume, "/follows") },
        Mount::new(&volume, "/stays"),
        Mount::new(world.dir.path(), "/go"),
    ];
    world.runtime.start("flt-follow", &config).await.unwrap();
    mount(Some("tmpfs"), &volume.join("later"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
    let _later = Mounted(volume.join("later"));
    std::fs::write(volume.join("later/seen"), "").unwrap();
    std::fs::write(world.dir.path().join("on"), "").unwrap();
    let mut seen = world.runtime.watch("flt-follow").await;
    let end = seen.wait_for(|o| o.containers.iter().any(|c| c.finished.is_some()));
    tokio::time::timeout(Duration::from_secs(20), end).await.unwrap().unwrap();
    let text = world.log(&config).await;
    assert_eq!(text, "/follows/later:\nseen\n\n/stays/later:\n");

    // What the machine itself had mounted read-only is so inside.
    let mut config = world.container("touch /closed/x && echo wrote; true");
    config.mounts = vec![Mount::new(&closed, "/closed")];
    world.runtime.start("flt-follow", &config).await.unwrap();
    let mut seen = world.runtime.watch("flt-follow").await;
    let end = seen.wait_for(|o| o.containers.iter().all(|c| c.finished.is_some()));
    tokio::time::timeout(Duration::from_secs(20), end).await.unwrap().unwrap();
    let text = world.log(&config).await;
    world.runtime.remove("flt-follow").await.unwrap();
    assert!(text.contains("Read-only file system") && !text.contains("wrote"), "{text}");
}

async fn processes_are_shared(world: &World) {
    const SHARED: &str = "flt-shared";
    let config = SandboxConfig { pod_uid: SHARED.into(), share_processes: true, ..world.sandbox_config() };
    world.runtime.sandbox(&config).await.unwrap();
    let ended = async |id: &str| {
        let mut seen = world.runtime.watch(SHARED).await;
        let wait = seen.wait_for(|o| o.containers.iter().any(|c| c.id == id && c.finished.is_some()));
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap().unwrap();
    };
    // An orphan is the first process's: `sleep 0` ends there and must not stay as a zombie.
    let mut main = world.container("(sleep 0 & true); sleep 1000");
    main.name = "main".into();
    let pid = world.runtime.start(SHARED, &main).await.unwrap().pid.unwrap();

    // With every right, one may trace the first process, and finds nothing there.
    let mut other = world.container("until ! ps -o stat,comm | grep -q ^Z; do sleep 0.05; done; ps; ls -A /proc/1/root | wc -l; grep -E '^(Uid|CapPrm|CapBnd)' /proc/1/status; ls /proc/1/fd | wc -l; grep -c . /proc/1/mountinfo; true");
    (other.name, other.privileged) = ("other".into(), true);
    world.runtime.start(SHARED, &other).await.unwrap();
    ended(&other.id).await;
    let text = world.log(&other).await;
    assert!(text.contains("sleep 1000"), "{text}");
    let nothing = "0\nUid:\t65535\t65535\t65535\t65535\nCapPrm:\t0000000000000000\nCapBnd:\t0000000000000000\n0\n1\n";
    assert!(text.ends_with(nothing), "{text}");

    // What a container leaves behind goes with it, though it was no first process.
    let mut leaves = world.container("sleep 777 & exit 0");
    leaves.name = "leaves".into();
    leaves.cgroups = world.cgroups.create("leaves", &Limits::default()).unwrap();
    world.runtime.start(SHARED, &leaves).await.unwrap();
    ended(&leaves.id).await;
    let mut look =
        world.container("n=0; while ps | grep -q '[s]leep 777' && [ $n -lt 100 ]; do n=$((n+1)); sleep 0.05; done; ps");
    look.name = "look".into();
    world.runtime.start(SHARED, &look).await.unwrap();
    ended(&look.id).await;
    let text = world.log(&look).await;
    assert!(text.contains("sleep 1000") && !text.contains("sleep 777"), "{text}");

    // The first process dies: everything inside dies with it, and the next container gets a new one.
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let inside = namespace(&pid.to_string()).unwrap();
    let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().into_string().ok());
    let status = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let is_first = |pid: &String| namespace(pid) == Some(inside.clone()) && status(pid).contains("\t1\nNSpgid");
    let first: i32 = all.into_iter().find(is_first).unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL).unwrap();
    ended(&main.id).await;
    let again = world.container("cat /proc/1/comm; exit 0");
    world.runtime.start(SHARED, &again).await.unwrap();
    ended(&again.id).await;
    assert_eq!(world.log(&again).await.lines().count(), 1);
    world.runtime.remove(SHARED).await.unwrap();
}

async fn profiles_of_others(world: &World) {
    let profile = |default: &str, rules: serde_json::Value| {
        Seccomp::Profile(json!({"defaultAction": default, "syscalls": rules}).to_string())
    };
    let names = ["mkdir", "mkdirat"];
    let no_user = [json!({"index": 1, "value": 0o777, "op": "SCMP_CMP_NE"})];
    for (seccomp, made, code) in [
        (profile("SCMP_ACT_ALLOW", json!([])), true, 0),
        (profile("SCMP_ACT_ALLOW", json!([{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 28}])), false, 1),
        (
            profile("SCMP_ACT_ALLOW", json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": no_user}])),
            true,
            0,
        ),
        (profile("SCMP_ACT_ALLOW", json!([{"names": names, "action": "SCMP_ACT_KILL_PROCESS"}])), false, 128 + 31),
    ] {
        for no_new_privs in [false, true] {
            let mut config = world.container("");
            config.args = ["mkdir", "/made"].map(String::from).to_vec();
            (config.seccomp, config.no_new_privs) = (seccomp.clone(), no_new_privs);
            let (ended, text) = world.output(&config).await;
            assert_eq!(ended, code, "{seccomp:?}: {text}");
            assert_eq!(text.is_empty(), made || code > 128, "{text}");
            assert!(code != 1 || text.contains("No space left on device"), "{text}");
        }
    }
    let mut config = world.container("true");
    config.seccomp = Seccomp::Profile("{}".into());
    let refused = world.runtime.start(POD, &config).await.unwrap_err().to_string();
    assert!(refused.contains("seccomp profile: missing field `defaultAction`"), "{refused}");
}

async fn settings_of_the_kernel(world: &World) {
    let mut config = SandboxConfig { pod_uid: "flt-sysctl".into(), ..world.sandbox_config() };
    config.sysctls = [("kernel.shm_rmid_forced".to_owned(), "1".to_owned())].into();
    world.runtime.sandbox(&config).await.unwrap();
    let look = world.container("cat /proc/sys/kernel/shm_rmid_forced");
    world.runtime.start("flt-sysctl", &look).await.unwrap();
    let mut seen = world.runtime.watch("flt-sysctl").await;
    let end = seen.wait_for(|o| o.containers.iter().all(|c| c.finished.is_some()));
    tokio::time::timeout(Duration::from_secs(20), end).await.unwrap().unwrap();
    assert_eq!(world.log(&look).await, "1\n");
    world.runtime.remove("flt-sysctl").await.unwrap();
    assert_eq!(
        world.output(&world.container("cat /proc/sys/kernel/shm_rmid_forced")).await.1,
        "0\n",
        "not in another pod"
    );
    config.sysctls = [("kernel.no_such".to_owned(), "1".to_owned())].into();
    let refused = world.runtime.sandbox(&config).await.unwrap_err().to_string();
    assert!(refused.contains("open /proc/sys/kernel/no_such"), "{refused}");
    world.runtime.remove("flt-sysctl").await.unwrap();
}

async fn memory_limit_kills(world: &World) {
    let limits = Limits {
        memory_limit_bytes: Some(16 << 20),
        cpu_limit_milli: Some(500),
        pids_max: Some(32),
        ..Limits::default()
    };
    let mut config = world.container("head -c 100000000 /dev/zero | tail -c 90000000 >/dev/null; yes | tr a b | sort | head -c 1; exec tail -c 90000000 /dev/zero");
    config.cgroups = world.cgroups.create("pod/c", &limits).unwrap();
    config.oom_file = Some(world.cgroups.oom_file("pod/c"));
    world.start(&config).await;
    let finished = world.ended(&config.id).await.finished.unwrap();
    assert!(finished.oom_killed, "{finished:?}");
}

async fn survives_its_client(world: &World) {
    let config = world.container("echo before; sleep 1; echo after; exit 9");
    let started = world.start(&config).await;
    // Another client, as after a restart, that knows only the directory.
    let dir = world.dir.path().join("pods");
    let again = OciRuntime::new(dir, vec!["/nonexistent".into()]).unwrap();
    assert_eq!(again.list().await.unwrap(), [POD]);
    again.sandbox(&world.sandbox_config()).await.unwrap();
    let mut seen = again.watch(POD).await;
    assert_eq!(seen.borrow().containers, [started]);
    assert!(seen.borrow().alive);
    let wait = seen.wait_for(|o| o.containers[0].finished.is_some());
    let code =
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap().unwrap().containers[0].finished.clone();
    assert_eq!(code.unwrap().exit_code, 9);
    assert_eq!(world.log(&config).await, "before\nafter\n");
}

fn supervisor_pid(world: &World) -> i32 {
    let dir = world.dir.path().join("pods").join(POD);
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let parent = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let sid = parent.rsplit(") ").next().and_then(|r| r.split(' ').nth(3)).and_then(|s| s.parse::<i32>().ok());
        if String::from_utf8_lossy(&line).contains(dir.to_str().unwrap()) && sid == Some(pid) {
            found.push(pid);
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

async fn dies_with_its_supervisor(world: &World) {
    let config = world.container("sleep 1000");
    let pid = world.start(&config).await.pid.unwrap();
    let mut seen = world.runtime.watch(POD).await;
    let supervisor = supervisor_pid(world);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGKILL).unwrap();
    let lost =
        tokio::time::timeout(Duration::from_secs(10), seen.wait_for(|o| !o.alive)).await.unwrap().unwrap().clone();
    let finished = lost.containers[0].finished.clone().unwrap();
    assert_eq!((finished.exit_code, finished.lost), (137, true));
    wait_for(|| !std::path::Path::new(&format!("/proc/{pid}")).exists()).await;
    assert!(matches!(world.runtime.start(POD, &world.container("true")).await, Err(Error::Gone { .. })));
    world.runtime.sandbox(&world.sandbox_config()).await.unwrap();
    assert_eq!(world.output(&world.container("echo again")).await, (0, "again\n".into()));
}

async fn forget_and_remove(world: &World) {
    let running = world.container("sleep 1000");
    let pid = world.start(&running).await.pid.unwrap();
    assert!(matches!(world.runtime.forget(POD, &running.id).await, Err(Error::Refused(_))));
    let ended = world.container("true");
    world.output(&ended).await;
    let dir = world.dir.path().join("pods").join(POD).join("containers").join(&ended.id);
    assert!(dir.join("status.json").exists());
    world.runtime.forget(POD, &ended.id).await.unwrap();
    world.runtime.forget(POD, &ended.id).await.unwrap();
    assert!(!dir.exists());
    world.runtime.remove(POD).await.unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    world.runtime.remove(POD).await.unwrap();
    assert!(world.runtime.list().await.unwrap().is_empty());
}

async fn the_program_is_sealed(world: &World) {
    let process = std::path::PathBuf::from(format!("/proc/{}", supervisor_pid(world)));
    let program = std::fs::read_link(process.join("exe")).unwrap();
    assert_eq!(program, world.dir.path().join("pods").join(POD).join("program"));
    let mounts = std::fs::read_to_string(process.join("mountinfo")).unwrap();
    let line =
        mounts.lines().find(|l| l.split(' ').nth(4) == program.to_str()).expect("it runs from a mount of its own");
    assert!(line.split(' ').nth(5).unwrap().split(',').any(|o| o == "ro"), "{line}");
}

async fn supervisor_is_small(world: &World) {
    for _ in 0..3 {
        world.output(&world.container("yes | head -n 20000")).await;
    }
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", supervisor_pid(world))).unwrap();
    let kib = |name: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(name))
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let private = kib("Private_Dirty:");
    println!("supervisor: private {private} KiB, pss {} KiB", kib("Pss:"));
    assert!(private <= 2048, "{text}");
}

async fn wait_for(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "the condition did not come true within 10 s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
