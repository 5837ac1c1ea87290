//! The conformance suite on WebAssembly in containers, and what is WebAssembly's alone. Needs root.
//!
//! Runs without the usual harness: the same program is also the supervisor and the runner (its own binary, as in production).

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[path = "support/mod.rs"]
mod guests;

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use engine_conformance::images::Layer;
use engine_conformance::{Claim, Handler, Own, POD, Program, Words, World, wait_for};
use engine_runtime::cgroups::Limits;
use engine_runtime::{ContainerConfig, ContainerStatus, Hosted, Mount, OciRuntime, Runtime, User};
use engine_session::ExecOptions;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|a| a.to_str()) {
        Some("supervisor") => return engine_runtime::supervisor::main(&args[2..]),
        Some("runner") => return engine_wasm::main(&args[2..]),
        _ => {}
    }
    let own: &[(&str, &[&str], Own<Wasm>)] = &[
        ("commands", &[], |_, w| Box::pin(commands(w))),
        ("what_cannot_run_says_why", &[], |_, w| Box::pin(what_cannot_run_says_why(w))),
        ("files", &[], |_, w| Box::pin(files(w))),
        ("memory", &[], |_, w| Box::pin(memory(w))),
        ("loops_and_traps", &[], |_, w| Box::pin(loops_and_traps(w))),
        ("confined", &[], |_, w| Box::pin(confined(w))),
        ("code_is_compiled_once", &[], |_, w| Box::pin(code_is_compiled_once(w))),
        ("code_is_only_roots", &[], |_, w| Box::pin(code_is_only_roots(w))),
        ("functions", &[], |_, w| Box::pin(functions(w))),
        ("functions_rest", &[], |_, w| Box::pin(functions_rest(w))),
        ("functions_are_bounded", &[], |_, w| Box::pin(functions_are_bounded(w))),
    ];
    engine_conformance::run(&[Rc::new(Wasm)], own)
}

struct Wasm;

impl Wasm {
    fn runtime(dir: &Path, supervisor: Vec<OsString>) -> Arc<dyn Runtime> {
        let oci = OciRuntime::new(dir.join("pods"), supervisor).unwrap();
        Arc::new(Hosted::new("wasm", oci, &["runner".into()], &dir.join("code")).unwrap())
    }
}

#[async_trait(?Send)]
impl Handler for Wasm {
    fn name(&self) -> &'static str {
        "wasm"
    }

    fn claims(&self) -> &'static [Claim] {
        &[Claim::PrivateMounts, Claim::SignalNumber]
    }

    fn words(&self) -> Words {
        Words {
            missing: "No such file or directory",
            directory: "is no regular file",
            ghost: "unable to find user ghost",
        }
    }

    fn client(&self, dir: &Path) -> Arc<dyn Runtime> {
        Self::runtime(dir, vec![std::env::current_exe().unwrap().into(), "supervisor".into()])
    }

    fn again(&self, dir: &Path) -> Arc<dyn Runtime> {
        Self::runtime(dir, vec!["/nonexistent".into()])
    }

    fn layer(&self) -> Layer {
        let mut layer = Layer::new().dir("etc/", 0o755).file("etc/greeting", 0o644, b"from the image\n");
        for (name, text) in [
            ("hello", guests::HELLO),
            ("open", guests::OPEN),
            ("grow", guests::GROW),
            ("fill", guests::FILL),
            ("loop", guests::LOOP),
            ("up", guests::UP),
            ("trap", guests::TRAP),
            ("exit", guests::EXIT),
        ] {
            layer = layer.file(&format!("{name}.wasm"), 0o644, &guests::module(text));
        }
        layer = layer.file("command.wasm", 0o644, &guests::component("command", guests::COMMAND));
        layer = layer.file("function.wasm", 0o644, &guests::component("function", guests::FUNCTION));
        layer = layer.file("text.wasm", 0o644, b"(module)").file("broken.wasm", 0o644, b"\0asm\x01\0\0\0garbage");
        layer.link("out.wasm", "/proc/self/exe", tar::EntryType::Symlink)
    }

    fn program(&self, program: Program) -> Vec<String> {
        let name = match program {
            Program::Says => "/hello.wasm",
            Program::Ends => "/exit.wasm",
            Program::Runs => "/up.wasm",
            Program::Missing => "/nope.wasm",
        };
        vec![name.into()]
    }

    fn adapt(&self, config: &mut ContainerConfig) {
        config.env = vec!["GREETING=good day".into(), "EMPTY=".into()];
        config.capabilities = u64::MAX; // it gets none all the same
    }

    async fn swept(&self, world: &World) {
        assert!(!world.path("pods").join(POD).exists());
    }
}

/// A function on a port that nobody has, once it listens.
async fn function(world: &World, change: impl FnOnce(&mut ContainerConfig)) -> (ContainerConfig, ContainerStatus, u16) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut config = world.command(&["/function.wasm"]);
    config.ports = vec![port, 1];
    change(&mut config);
    let status = world.start(&config).await;
    wait_for(|| world.log(&config).contains("a function answers on")).await;
    (config, status, port)
}

/// Runs it to its end and answers its exit code and output, in which a NUL is a `|`.
async fn output(world: &World, config: &ContainerConfig) -> (i32, String) {
    let (code, text) = world.output(config).await;
    (code, text.replace('\0', "|"))
}

/// The names of what is in the directory of compiled code.
fn code(world: &World) -> Vec<String> {
    let all = fs::read_dir(world.path("code")).unwrap();
    let mut names: Vec<_> = all.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "nsswitch.conf");
    names.sort();
    names
}

/// Asks a function, and answers status and body.
async fn ask(port: u16, path: &str) -> (u16, String) {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: flt\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        (status, text)
    })
    .await
    .unwrap()
}

async fn commands(world: &World) {
    let config = world.command(&["/hello.wasm", "one", "two words"]);
    let (code, text) = output(world, &config).await;
    assert_eq!(code, 0, "{text}");
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable(); // two streams
    assert_eq!(lines, ["/hello.wasm|one|two words|", "GREETING=good day|EMPTY=|", "hello", "to stderr"]);
    let raw = fs::read_to_string(&config.log).unwrap();
    assert!(raw.contains(" stderr F to stderr\n") && raw.contains(" stdout F hello\n"), "{raw}");
    assert_eq!(output(world, &world.command(&["/exit.wasm"])).await, (7, String::new()));
    // Relative to where it works, as an image may say it.
    assert_eq!(output(world, &world.command(&["exit.wasm"])).await.0, 7);
    assert_eq!(output(world, &world.command(&["/command.wasm"])).await, (1, "a component\n".into()));
}

async fn what_cannot_run_says_why(world: &World) {
    for (name, why) in [
        ("/nope.wasm", "exec: \"/nope.wasm\": open /nope.wasm: No such file or directory (os error 2)"),
        ("/etc", "exec: \"/etc\": is no regular file"),
        ("/out.wasm", "exec: \"/out.wasm\": open /out.wasm: No such file or directory (os error 2)"),
        (
            "/text.wasm",
            "exec: \"/text.wasm\": is no WebAssembly, needed a .wasm file (the text format has to be assembled first)",
        ),
    ] {
        let config = world.command(&[name]);
        let refused = world.runtime.start(POD, &config).await.unwrap_err();
        assert_eq!(refused.to_string(), why);
        let status = world.ended(&config.id).await.finished.unwrap();
        assert_eq!((status.exit_code, status.error.as_deref()), (128, Some(why)));
    }
    let (code, text) = output(world, &world.command(&["/broken.wasm"])).await;
    assert!(code == 126 && text.starts_with("wasm: /broken.wasm cannot be compiled: "), "{code}: {text}");
    let terminal = ContainerConfig { tty: true, ..world.command(&["/hello.wasm"]) };
    let privileged = ContainerConfig { privileged: true, ..world.command(&["/hello.wasm"]) };
    for (config, what) in [(terminal, "a terminal"), (privileged, "a privileged container")] {
        let refused = world.runtime.start(POD, &config).await.unwrap_err().to_string();
        assert_eq!(refused, format!("{what} is not supported by this runtime handler"));
    }
    let config = world.command(&["/loop.wasm"]);
    world.start(&config).await;
    let options = ExecOptions { command: vec!["/exit.wasm".into()], ..Default::default() };
    let refused = world.runtime.exec(POD, &config.id, &options).await.err().unwrap().to_string();
    assert!(refused.contains("exec is not supported by the runtime handler \"wasm\""), "{refused}");
}

async fn files(world: &World) {
    let volume = world.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    fs::write(volume.join("there"), "from the volume\n").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", volume.join("away")).unwrap();
    std::os::unix::fs::symlink("../../../../../etc/hostname", volume.join("up")).unwrap();
    let open = |path: &str, how: &str| {
        let mut config = world.command(&["/open.wasm", path, how]);
        config.mounts = vec![Mount::new(&volume, "/data"), Mount { read_only: true, ..Mount::new(&volume, "/given") }];
        config
    };
    // WASI preview 1, errno: 0 success, 2 acces, 29 io (which a read-only file system is said as), 44 noent, 63 perm (which leads out).
    for (path, how, code, text) in [
        ("etc/greeting", "r", 0, "from the image\n"),
        ("data/there", "r", 0, "from the volume\n"),
        ("data/new", "w", 0, ""),
        ("given/there", "r", 0, "from the volume\n"),
        ("given/other", "w", 29, ""),
        ("new", "w", 29, ""),
        ("etc/greeting", "w", 2, ""),
        ("../etc/passwd", "r", 63, ""),
        ("data/../../etc/passwd", "r", 63, ""),
        ("data/up", "r", 63, ""),
        ("data/away", "r", 63, ""),
        ("etc/passwd", "r", 44, ""),
        ("proc/self/mem", "r", 44, ""),
        ("dev/null", "r", 44, ""),
        ("sys/kernel", "r", 44, ""),
    ] {
        assert_eq!(output(world, &open(path, how)).await, (code, text.to_owned()), "{path} {how}");
    }
    assert_eq!(fs::read_to_string(volume.join("new")).unwrap(), "data/new");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(volume.join("new")).unwrap().uid(), 65534, "nobody, where none is named");
    assert!(!volume.join("other").exists());
}

async fn memory(world: &World) {
    assert_eq!(output(world, &world.command(&["/grow.wasm"])).await.0, 0);
    let limits = Limits { memory_limit_bytes: Some(48 << 20), ..Limits::default() };
    let limited = |name: &str| ContainerConfig {
        cgroups: world.cgroups.create(name, &limits).unwrap(),
        oom_file: Some(world.cgroups.oom_file(name)),
        ..world.command(&["/grow.wasm"])
    };
    // It is told so, and may go on.
    let (code, text) = output(world, &limited("grows")).await;
    assert_eq!(code, 3, "{text}");
    // What is in use counts in the kernel, whoever uses it: a file of 64 MiB is more than the container has.
    let mut config = limited("reads");
    let large = world.dir.path().join("large.wasm");
    let mut bytes = guests::module(guests::EXIT);
    bytes.resize(64 << 20, 0);
    fs::write(&large, bytes).unwrap();
    config.mounts = vec![Mount { read_only: true, ..Mount::new(&large, "/large.wasm") }];
    config.args = vec!["/large.wasm".into()];
    let refused = world.runtime.start(POD, &config).await.unwrap_err().to_string();
    assert_eq!(refused, "the container's first process died while it was set up");
}

async fn loops_and_traps(world: &World) {
    let config = world.command(&["/loop.wasm"]);
    world.start(&config).await;
    wait_for(|| !code(world).is_empty() && code(world).iter().all(|name| name.ends_with(".cwasm"))).await;
    world.runtime.signal(POD, &config.id, 15).await.unwrap();
    let finished = world.ended(&config.id).await.finished.unwrap();
    assert_eq!((finished.exit_code, finished.signal), (143, 0), "{}", world.log(&config));
    let config = world.command(&["/loop.wasm"]);
    world.start(&config).await;
    world.runtime.signal(POD, &config.id, 9).await.unwrap();
    assert_eq!(world.ended(&config.id).await.finished.unwrap().signal, 9);
    let (code, text) = output(world, &world.command(&["/trap.wasm"])).await;
    assert!(code == 134 && text.contains("wasm `unreachable` instruction executed"), "{code}: {text}");
}

/// What surrounds a runner while it runs.
async fn confined(world: &World) {
    let (_, status, _) = function(world, |_| {}).await;
    let of = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", status.pid.unwrap())).unwrap();
    let said = of("status");
    let line = |name: &str| said.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(line("Uid:"), "65534\t65534\t65534\t65534");
    assert_eq!(line("Gid:"), "65534\t65534\t65534\t65534");
    for set in ["CapEff:", "CapPrm:", "CapBnd:", "CapInh:", "CapAmb:"] {
        assert_eq!(line(set), "0000000000000000", "{set}");
    }
    assert_eq!((line("NoNewPrivs:").as_str(), line("Seccomp:").as_str()), ("1", "2"));
    assert_eq!(line("NSpid:").split('\t').next_back(), Some("1"), "the first process of a namespace");
    assert_eq!(of("environ"), "", "nothing of the node's variables");
    let mounts = of("mounts");
    let points: Vec<_> = mounts.lines().map(|l| l.split(' ').nth(1).unwrap()).collect();
    assert_eq!(points, ["/", "/etc/nsswitch.conf", "/.wasm-code"]);
    assert!(mounts.lines().all(|l| l.split(' ').nth(3).unwrap().split(',').any(|o| o == "ro")), "{mounts}");
    let open = fs::read_dir(format!("/proc/{}/fd", status.pid.unwrap())).unwrap();
    let open: Vec<_> = open.map(|e| fs::read_link(e.unwrap().path()).unwrap().display().to_string()).collect();
    assert!(!open.iter().any(|to| to.contains("flt-wasm-")), "nothing of the machine: {open:?}");
}

async fn code_is_compiled_once(world: &World) {
    assert_eq!(code(world), Vec::<String>::new());
    output(world, &world.command(&["/exit.wasm"])).await;
    let first = code(world);
    assert!(first.len() == 1 && first[0].ends_with(".cwasm"), "{first:?}");
    let path = world.dir.path().join("code").join(&first[0]);
    let age = fs::metadata(&path).unwrap();
    let (began, compiled) = (Instant::now(), std::os::unix::fs::MetadataExt::ino(&age));
    output(world, &world.command(&["/exit.wasm"])).await;
    println!("    from start to end with the code there: {:.1} ms", began.elapsed().as_secs_f64() * 1000.0);
    assert_eq!(code(world), first);
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap()), compiled);
    // The same bytes by another name are the same code; nothing is kept of what does not compile.
    let volume = world.dir.path().join("copy.wasm");
    fs::write(&volume, guests::module(guests::EXIT)).unwrap();
    let copy = ContainerConfig { mounts: vec![Mount::new(&volume, "/copy.wasm")], ..world.command(&["/copy.wasm"]) };
    assert_eq!(output(world, &copy).await.0, 7);
    output(world, &world.command(&["/broken.wasm"])).await;
    assert_eq!(code(world), first);
    // What is damaged is said, with its name.
    fs::write(&path, b"damaged").unwrap();
    let (code, text) = output(world, &world.command(&["/exit.wasm"])).await;
    assert!(code == 126 && text.contains("map the code"), "{code}: {text}");
}

async fn code_is_only_roots(world: &World) {
    use std::os::unix::fs::MetadataExt;
    assert_eq!(output(world, &world.command(&["/open.wasm", ".wasm-code", "w"])).await.0, 2, "acces");
    for name in code(world) {
        let found = fs::metadata(world.dir.path().join("code").join(name)).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o644));
    }
    let directory = fs::metadata(world.dir.path().join("code")).unwrap();
    assert_eq!((directory.uid(), directory.mode() & 0o777), (0, 0o700));
    // As root of the machine's users, which the pod may ask for, it is read-only all the same.
    let root = User { uid: Some(0), ..User::default() };
    let config = ContainerConfig { user: root, ..world.command(&["/open.wasm", ".wasm-code", "w"]) };
    assert_eq!(output(world, &config).await.0, 29);
}

async fn functions(world: &World) {
    let (config, status, port) = function(world, |_| {}).await;
    for _ in 0..3 {
        let (code, text) = ask(port, "/").await;
        assert!(code == 200 && text.ends_with("hello 1\n\r\n0\r\n\r\n"), "each in an instance of its own: {text}");
    }
    wait_for(|| world.log(&config).contains("cold start")).await;
    let (code, text) = ask(port, "/trap").await;
    assert!(code == 500 && text.ends_with("the function failed; its log says why"), "{text}");
    wait_for(|| world.log(&config).contains("wasm `unreachable` instruction executed")).await;
    assert_eq!(world.log(&config).matches("cold start").count(), 1);
    assert_eq!(ask(port, "/nothing").await.0, 500);
    let all: Vec<_> = (0..100).map(|_| tokio::spawn(ask(port, "/"))).collect();
    for one in all {
        assert_eq!(one.await.unwrap().0, 200);
    }
    assert_eq!(world.runtime.watch(POD).await.borrow().containers[0].pid, status.pid);
    world.runtime.signal(POD, &config.id, 15).await.unwrap();
    assert_eq!(world.ended(&config.id).await.finished.unwrap().exit_code, 0);
}

/// What is this process's alone and in no file, and its share of all that it has.
fn memory_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let of = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim();
    format!("anonymous {}, PSS {}", of("Anonymous:"), of("Pss:"))
}

async fn functions_rest(world: &World) {
    let (_, compiled, _) = function(world, |_| {}).await;
    println!("    once it has compiled: {}", memory_of(compiled.pid.unwrap()));
    let (config, status, port) = function(world, |_| {}).await;
    let pid = status.pid.unwrap();
    println!("    before any request: {}", memory_of(pid));
    ask(port, "/").await;
    let has_code = || fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().contains("/.wasm-code");
    assert!(has_code(), "its code is mapped while it is asked");
    wait_for(|| !has_code()).await;
    println!("    at rest: {}", memory_of(pid));
    assert_eq!(ask(port, "/").await.0, 200);
    assert!(has_code());
    wait_for(|| world.log(&config).contains("cold start 2")).await;
    let starts: Vec<_> = world.log(&config).lines().filter(|l| l.contains("cold start")).map(str::to_owned).collect();
    println!("    {}", starts.join("; "));
    assert!(starts.len() == 2 && starts[1].starts_with("wasm: cold start 2: "), "{starts:?}");
}

async fn functions_are_bounded(world: &World) {
    let limits = Limits { memory_limit_bytes: Some(48 << 20), ..Limits::default() };
    let (config, ..) = {
        let cgroups = world.cgroups.create("function", &limits).unwrap();
        function(world, |config| config.cgroups = cgroups).await
    };
    let port = config.ports[0];
    assert_eq!(ask(port, "/grow").await.0, 500, "64 MiB are more than it has");
    // As many loops as run at once: others wait for a place, and those that loop hold up nobody who has one.
    let began = Instant::now();
    let looping: Vec<_> = (0..31).map(|_| tokio::spawn(ask(port, "/loop"))).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(ask(port, "/").await.0, 200);
    println!("    beside 31 loops: {} ms", began.elapsed().as_millis() - 500);
    let last = tokio::spawn(ask(port, "/loop"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(matches!(ask(port, "/").await.0, 200 | 503), "its turn comes, or its time is over first");
    assert!(began.elapsed() > Duration::from_secs(20), "it had to wait for a place");
    for one in looping {
        let (code, text) = one.await.unwrap();
        assert!(code == 504 && text.ends_with("the function took too long"), "{text}");
    }
    assert_eq!(last.await.unwrap().0, 504);
    wait_for(|| world.log(&config).contains("a request was ended after 30 s")).await;
    assert_eq!(ask(port, "/").await.0, 200);
    // A body that is too large is an error of the reader; the function does not read it, and answers.
    let large = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "POST / HTTP/1.1\r\nHost: flt\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\n")
            .unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        String::from_utf8_lossy(&head).into_owned()
    });
    assert_eq!(large.await.unwrap(), "HTTP/1.1 200");
}
