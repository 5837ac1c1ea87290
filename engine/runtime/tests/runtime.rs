//! The conformance suite on the built-in runtimes, `oci` and `process`, and what only they have. Needs root and busybox-static.
//!
//! Runs without the usual harness: the same program is also the supervisor (its own binary, as in production), and
//! that must happen before a second thread exists.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[path = "runtime/process.rs"]
mod process;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine_conformance::{Claim, Handler, Own, POD, Words, World, wait_for, words};
use engine_runtime::capabilities;
use engine_runtime::cgroups::Limits;
use engine_runtime::process::HANDLER;
use engine_runtime::{ContainerConfig, Error, Mount, OciRuntime, Root, Runtime, SandboxConfig, Seccomp};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|a| a.to_str()) {
        Some("supervisor") => return engine_runtime::supervisor::main(&args[2..]),
        Some("without-landlock") => {
            process::take_landlock_away();
            return engine_runtime::supervisor::main(&args[2..]);
        }
        Some("try") => return process::try_it(&args[2..]),
        _ => {}
    }
    let (oci, process): (&[&str], &[&str]) = (&["oci"], &[HANDLER]);
    let own: &[(&str, &[&str], Own<BuiltIn>)] = &[
        ("refusals_are_upstreams", &[], |_, w| Box::pin(refusals_are_upstreams(w))),
        ("the_first_process_of_a_pod", oci, |_, w| Box::pin(the_first_process_of_a_pod(w))),
        ("settings_that_are_not_there", &[], |_, w| Box::pin(settings_that_are_not_there(w))),
        ("files_go_with_a_container", &[], |_, w| Box::pin(files_go_with_a_container(w))),
        ("dies_with_its_supervisor", &[], |_, w| Box::pin(dies_with_its_supervisor(w))),
        ("the_program_is_sealed", &[], |_, w| Box::pin(the_program_is_sealed(w))),
        ("supervisor_is_small", &[], |_, w| Box::pin(supervisor_is_small(w))),
        ("fenced_by_default", process, |_, w| Box::pin(process::fenced_by_default(w))),
        ("the_machines_programs", process, |_, w| Box::pin(process::the_machines_programs(w))),
        ("files_stay_outside", process, |_, w| Box::pin(process::files_stay_outside(w))),
        ("programs_are_not_made", process, |_, w| Box::pin(process::programs_are_not_made(w))),
        ("nobody_outside_is_reached", process, |_, w| Box::pin(process::nobody_outside_is_reached(w))),
        ("a_pod_is_one", process, |_, w| Box::pin(process::a_pod_is_one(w))),
        ("what_would_lift_the_fences", process, |_, w| Box::pin(process::what_would_lift_the_fences(w))),
        ("no_fences_no_pod", process, |_, w| Box::pin(process::no_fences_no_pod(w))),
    ];
    engine_conformance::run(&[Rc::new(BuiltIn { fenced: false }), Rc::new(BuiltIn { fenced: true })], own)
}

/// The built-in runtime, with or without its fences.
struct BuiltIn {
    fenced: bool,
}

impl BuiltIn {
    fn runtime(&self, dir: &Path, supervisor: Vec<OsString>) -> Arc<dyn Runtime> {
        let runtime = OciRuntime::new(dir.join("pods"), supervisor).unwrap();
        if self.fenced { Arc::new(runtime.fenced()) } else { Arc::new(runtime) }
    }
}

#[async_trait(?Send)]
impl Handler for BuiltIn {
    fn name(&self) -> &'static str {
        if self.fenced { HANDLER } else { "oci" }
    }

    fn claims(&self) -> &'static [Claim] {
        use Claim::*;
        const ALL: &[Claim] = &[
            Privileges,
            WritableLayer,
            Shell,
            Exec,
            ExecEndsWithSession,
            Attach,
            AttachIsTold,
            SlowReaders,
            Terminal,
            Beside,
            SharedProcesses,
            Propagation,
            PrivateMounts,
            SignalNumber,
        ];
        // Behind the fences nothing is given and nothing of the root can be written: that has cases of its own.
        if self.fenced { &ALL[2..] } else { ALL }
    }

    fn words(&self) -> Words {
        Words {
            missing: "executable file not found in $PATH",
            directory: "is a directory",
            ghost: "unable to find user ghost",
        }
    }

    fn client(&self, dir: &Path) -> Arc<dyn Runtime> {
        self.runtime(dir, vec![std::env::current_exe().unwrap().into(), "supervisor".into()])
    }

    fn again(&self, dir: &Path) -> Arc<dyn Runtime> {
        // It must need no new supervisor.
        self.runtime(dir, vec!["/nonexistent".into()])
    }

    fn adapt(&self, config: &mut ContainerConfig) {
        if self.fenced {
            config.capabilities = 0;
        }
    }

    async fn swept(&self, world: &World) {
        assert!(!world.path("pods").join(POD).exists());
    }
}

async fn refusals_are_upstreams(world: &World) {
    for (program, why) in [
        ("nope", "executable file not found in $PATH"),
        ("/etc", "is a directory"),
        ("/proc/version", "permission denied"),
    ] {
        assert_eq!(world.refused(&world.command(&[program])).await, format!("exec: {program:?}: {why}"));
    }
    let mut config = world.container("true");
    config.capabilities |= capabilities::bit("SYS_RESOURCE").unwrap();
    if let Err(e) = world.runtime.start(POD, &config).await {
        assert_eq!(e.to_string(), "cannot give CAP_SYS_RESOURCE: the node does not have it itself");
    }
    let twice = world.container("true");
    world.start(&twice).await;
    assert!(matches!(world.runtime.start(POD, &twice).await, Err(Error::Refused(_))));
    let mut config = world.container("true");
    config.beside = Some("nobody".into());
    assert_eq!(world.refused(&config).await, "unable to find target container nobody");
    let mut config = world.container("true");
    config.seccomp = Seccomp::Profile("{}".into());
    let why = world.refused(&config).await;
    assert!(why.contains("seccomp profile: missing field `defaultAction`"), "{why}");
}

async fn the_first_process_of_a_pod(world: &World) {
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

    // With every right, one may trace the first process (where the machine lets anybody), and finds nothing there.
    let mut other = world.container("until ! ps -o stat,comm | grep -q ^Z; do sleep 0.05; done; ps; ls -A /proc/1/root 2>/dev/null | wc -l; grep -E '^(Uid|CapPrm|CapBnd)' /proc/1/status; ls /proc/1/fd | wc -l; grep -c . /proc/1/mountinfo; true");
    (other.name, other.privileged) = ("other".into(), true);
    world.runtime.start(SHARED, &other).await.unwrap();
    ended(&other.id).await;
    let text = world.log(&other);
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
    let text = world.log(&look);
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
    assert_eq!(world.log(&again).lines().count(), 1);
    world.runtime.remove(SHARED).await.unwrap();
}

async fn settings_that_are_not_there(world: &World) {
    let mut config = SandboxConfig { pod_uid: "flt-sysctl".into(), ..world.sandbox_config() };
    config.sysctls = [("kernel.no_such".to_owned(), "1".to_owned())].into();
    let refused = world.runtime.sandbox(&config).await.unwrap_err().to_string();
    assert!(refused.contains("open /proc/sys/kernel/no_such"), "{refused}");
    world.runtime.remove("flt-sysctl").await.unwrap();
}

async fn files_go_with_a_container(world: &World) {
    let ended = world.container("true");
    world.output(&ended).await;
    let dir = world.path("pods").join(POD).join("containers").join(&ended.id);
    assert!(dir.join("status.json").exists());
    world.runtime.forget(POD, &ended.id).await.unwrap();
    assert!(!dir.exists());
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
        tokio::time::timeout(Duration::from_secs(30), seen.wait_for(|o| !o.alive)).await.unwrap().unwrap().clone();
    let finished = lost.containers[0].finished.clone().unwrap();
    assert_eq!((finished.exit_code, finished.lost), (137, true));
    wait_for(|| !std::path::Path::new(&format!("/proc/{pid}")).exists()).await;
    assert!(matches!(world.runtime.start(POD, &world.container("true")).await, Err(Error::Gone { .. })));
    world.runtime.sandbox(&world.sandbox_config()).await.unwrap();
    assert_eq!(world.output(&world.container("echo again")).await, (0, "again\n".into()));
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
