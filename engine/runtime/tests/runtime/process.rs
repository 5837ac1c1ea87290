//! The handler `process`: what a container behind its fences can do, and what it tries in vain. Most of it is tried as root, which the
//! machine's own permissions would let in.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use engine_runtime::process::USER;

use super::*;

/// Answers what the kernel said to one attempt, as a program inside a container.
pub fn try_it(args: &[OsString]) -> ExitCode {
    let args: Vec<&str> = args.iter().map(|a| a.to_str().unwrap()).collect();
    let done = match args.as_slice() {
        ["abstract", name] => {
            SocketAddr::from_abstract_name(name).and_then(|address| UnixStream::connect_addr(&address)).map(drop)
        }
        ["listen", name] => {
            let address = SocketAddr::from_abstract_name(name).unwrap();
            let listener = UnixListener::bind_addr(&address).unwrap();
            println!("listening");
            // What runs beside it ends with it: it stays until it is called again.
            listener.accept().and_then(|_| listener.accept()).map(drop)
        }
        ["signal", pid] => {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.parse().unwrap()), None).map_err(Into::into)
        }
        ["look into", pid] => std::fs::read_link(format!("/proc/{pid}/root")).map(drop),
        _ => panic!("{args:?}"),
    };
    match done {
        Ok(()) => println!("done"),
        Err(e) => println!("{}", e.kind()),
    }
    ExitCode::SUCCESS
}

/// From here on this process is on a kernel without Landlock.
pub fn take_landlock_away() {
    use seccompiler::{SeccompAction, SeccompFilter};
    let calls = [(nix::libc::SYS_landlock_create_ruleset, Vec::new())];
    let no_such_call = SeccompAction::Errno(nix::libc::ENOSYS as u32);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(calls.into_iter().collect(), SeccompAction::Allow, no_such_call, arch).unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

fn machine(world: &World, script: &str) -> ContainerConfig {
    let mut config = world.container(script);
    config.root = Root::Machine;
    config.args[0] = "/bin/sh".into();
    config
}

/// The attempt as root of the machine's programs.
fn attempt(world: &World, what: &[&str]) -> ContainerConfig {
    let mut config = machine(world, "");
    config.args = ["/probe", "try"].iter().chain(what).map(|s| (*s).to_owned()).collect();
    config.mounts = vec![Mount { read_only: true, ..Mount::new(std::env::current_exe().unwrap(), "/probe") }];
    config
}

const STATUS: &str = "grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status";

pub async fn fenced_by_default(world: &World) {
    let fences = "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
    let uid = |uid: u32| format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n");
    // The image's user is root: nobody said so.
    let (code, text) = world.output(&world.container(&format!("{STATUS}; id -G; touch /tmp/x && echo mine"))).await;
    assert_eq!((code, text), (0, format!("{}{fences}{USER}\nmine\n", uid(USER))));
    let mut config = world.container(STATUS);
    config.user.uid = Some(0);
    assert_eq!(world.output(&config).await.1, format!("{}{fences}", uid(0)), "expressly");
    let mut config = world.container(STATUS);
    config.user.image_user = "web".into();
    assert_eq!(world.output(&config).await.1, format!("{}{fences}", uid(101)), "whom the image names");
    // The same holds for a command that comes later.
    let config = world.container("sleep 100");
    world.start(&config).await;
    let (out, ..) = world.exec(&config.id, words(&["sh", "-c", STATUS]), None).await;
    assert_eq!(out, format!("{}{fences}", uid(USER)));
}

pub async fn the_machines_programs(world: &World) {
    let script = "id -un; id -gn; echo $HOME; cd; pwd; test -r /usr/bin/env && echo programs; ls -A /etc | tr '\\n' ' '; echo;
        cat /etc/passwd; for d in /root /home /var /run /opt /srv /boot /mnt /sys/class /etc/shadow /etc/ssl/private; do test -e $d && echo sees $d; done;
        hostname; echo hello > /dev/null; head -c 3 /dev/zero | wc -c";
    let (code, text) = world.output(&machine(world, script)).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("process\nprocess\n/tmp\n/tmp\nprograms\n"), "{text}");
    assert!(text.ends_with("flt-host\n3\n") && !text.contains("sees"), "{text}");
    let passwd = format!("root:x:0:0::/tmp:/bin/sh\nprocess:x:{USER}:{USER}::/tmp:/bin/sh\nnobody:");
    assert!(text.contains(&passwd) && text.contains(" nsswitch.conf ") && text.contains("ld.so.cache "), "{text}");
    // A volume is where it was asked for, also over the private directory.
    let volume = world.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::set_permissions(&volume, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut config = machine(
        world,
        "echo a > /tmp/kept; mkdir /data/a && mv /tmp/kept /data/a/b && rm -r /data/a && echo wrote > /data/w",
    );
    config.mounts = vec![Mount::new(&volume, "/data"), Mount::new(&volume, "/tmp")];
    assert_eq!(world.output(&config).await, (0, String::new()));
    assert_eq!(std::fs::read_to_string(volume.join("w")).unwrap(), "wrote\n");
    let mut config = machine(world, "");
    config.args = vec!["/usr/bin/no-such-program".into()];
    let refused = world.runtime.start(POD, &config).await.unwrap_err().to_string();
    assert!(refused.starts_with("exec: \"/usr/bin/no-such-program\": stat"), "{refused}");
}

pub async fn files_stay_outside(world: &World) {
    let outside = world.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let tries = format!(
        "for f in /x /etc/x /usr/x /dev/x /proc/x /data/x; do (echo > $f) 2>/dev/null && echo wrote $f; done; mkdir /var/y 2>/dev/null && echo made;
        mv /etc/passwd /etc/other 2>/dev/null && echo moved; chmod 777 /usr 2>/dev/null && echo changed; ls {} 2>/dev/null && echo saw;
        mount -t tmpfs t /tmp 2>/dev/null && echo mounted; (echo > /tmp/x) && echo a place of its own",
        outside.display()
    );
    for machines in [false, true] {
        let mut config = if machines { machine(world, &tries) } else { world.container(&tries) };
        config.user.uid = Some(0);
        config.mounts = vec![Mount { read_only: true, ..Mount::new(&outside, "/data") }];
        assert_eq!(world.output(&config).await, (0, "a place of its own\n".into()));
    }
    // With the rights for it, and without the filter of system calls: the fences stand alone.
    let mut config = world.container(
        "mount -t tmpfs t /tmp && echo mounted; mknod /tmp/null c 1 3 && echo made; mknod /tmp/pipe p && echo pipe",
    );
    config.user.uid = Some(0);
    (config.capabilities, config.seccomp) = (capabilities::all(), Seccomp::Unconfined);
    config.capabilities &= !capabilities::bit("SYS_RESOURCE").unwrap();
    let text = world.output(&config).await.1;
    assert!(text.contains("pipe\n") && !text.contains("mounted\n") && !text.contains("made\n"), "{text}");
    // Only what was shown is seen, and the root itself is nobody's to list.
    let (_, text) = world.output(&machine(world, "ls / 2>&1 || true; ls -d /usr")).await;
    assert!(text.contains("ermission denied\n") && text.ends_with("/usr\n"), "{text}");
}

pub async fn programs_are_not_made(world: &World) {
    let volume = world.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("script"), "#!/bin/sh\necho ran\n").unwrap();
    std::fs::set_permissions(volume.join("script"), std::fs::Permissions::from_mode(0o755)).unwrap();
    // Run, and given to the loader, which maps it.
    let script = "for d in /tmp /data /dev/shm; do cp /usr/bin/env $d/env && { $d/env echo ran $d; $LOADER $d/env echo loaded $d; }; done 2>/dev/null;
        /data/script 2>/dev/null; /given/script; $LOADER /usr/bin/env echo loader works";
    let loader =
        std::fs::read_dir("/lib64").unwrap().flatten().find(|e| e.file_name().to_string_lossy().starts_with("ld-"));
    let mut config = machine(world, script);
    config.env.push(format!("LOADER={}", loader.unwrap().path().display()));
    config.user.uid = Some(0);
    config.mounts = vec![Mount::new(&volume, "/data"), Mount { read_only: true, ..Mount::new(&volume, "/given") }];
    assert_eq!(world.output(&config).await, (0, "ran\nloader works\n".into()));
}

/// A process of the machine that belongs to whom the containers run as; it ends with its test.
struct Victim(Child);

impl Victim {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").uid(USER).gid(USER).spawn().unwrap())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

pub async fn nobody_outside_is_reached(world: &World) {
    // The pod has the machine's network, where abstract names are, and sees its processes.
    let name = format!("flt-outside-{}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let refused = (0, "permission denied\n".to_owned());
    assert_eq!(world.output(&attempt(world, &["abstract", &name])).await, refused);
    let victim = Victim::new();
    let pid = victim.0.id().to_string();
    // It has become what it is to be once its name is another.
    wait_for(|| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n")).await;
    for what in ["signal", "look into"] {
        let mut config = attempt(world, &[what, &pid]);
        config.host_pid = true;
        assert_eq!(world.output(&config).await, refused, "{what}");
    }
    // A pod of its own processes has no name for it.
    assert_ne!(world.output(&attempt(world, &["signal", &pid])).await, (0, "done\n".into()));
}

/// Commands reach the program beside which they run.
pub async fn a_pod_is_one(world: &World) {
    let name = format!("flt-inside-{}", std::process::id());
    let config = attempt(world, &["listen", &name]);
    world.start(&config).await;
    wait_for(|| std::fs::read_to_string(&config.log).unwrap().contains("listening")).await;
    let (out, ..) = world.exec(&config.id, words(&["/probe", "try", "abstract", &name]), None).await;
    assert_eq!(out, "done\n");
    // The second call lets it go, perhaps before the caller has said anything.
    world.exec(&config.id, words(&["/probe", "try", "abstract", &name]), None).await;
    world.ended(&config.id).await;
    let config = machine(world, "trap 'echo got it; exit 3' TERM; echo up; while true; do sleep 0.05; done");
    world.start(&config).await;
    wait_for(|| std::fs::read_to_string(&config.log).unwrap().contains("up")).await;
    world.exec(&config.id, words(&["sh", "-c", "kill -TERM 1"]), None).await;
    assert_eq!(world.ended(&config.id).await.finished.unwrap().exit_code, 3);
}

pub async fn what_would_lift_the_fences(world: &World) {
    let mut config = world.container("true");
    config.privileged = true;
    let refused = world.runtime.start(POD, &config).await.unwrap_err().to_string();
    assert_eq!(refused, "privileged: the handler process has no way through its fences; use the handler oci");
    assert_eq!(world.ended(&config.id).await.finished.unwrap().error, Some(refused), "it is remembered as a run");
    // Who says nothing of privileges gets none, and a sandbox that was made stays fenced whoever asks later.
    let oci = OciRuntime::new(world.dir.path().join("pods"), Vec::new()).unwrap();
    let config = world.container(STATUS);
    oci.start(POD, &config).await.unwrap();
    world.ended(&config.id).await;
    assert!(world.log(&config).contains("NoNewPrivs:\t1"));
    // Another sandbox does not give the machine's programs.
    let supervisor = vec![std::env::current_exe().unwrap().into(), "supervisor".into()];
    let oci = OciRuntime::new(world.dir.path().join("pods"), supervisor).unwrap();
    oci.sandbox(&SandboxConfig { pod_uid: "flt-oci".into(), ..world.sandbox_config() }).await.unwrap();
    let refused = oci.start("flt-oci", &machine(world, "true")).await.unwrap_err().to_string();
    assert_eq!(refused, "programs of the machine run with the handler process only");
    oci.remove("flt-oci").await.unwrap();
}

pub async fn no_fences_no_pod(world: &World) {
    let supervisor = vec![std::env::current_exe().unwrap().into(), "without-landlock".into()];
    let runtime = OciRuntime::new(world.dir.path().join("pods"), supervisor).unwrap();
    let config = SandboxConfig { pod_uid: "flt-without".into(), ..world.sandbox_config() };
    let refused = runtime.clone().fenced().sandbox(&config).await.unwrap_err().to_string();
    assert!(
        refused.contains("the handler process: the kernel confines no files with Landlock") && refused.contains("lsm="),
        "{refused}"
    );
    runtime.remove("flt-without").await.unwrap();
    // Others do not need it.
    runtime.sandbox(&config).await.unwrap();
    runtime.remove("flt-without").await.unwrap();
}
