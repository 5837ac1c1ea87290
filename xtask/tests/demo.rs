//! The demo as scripts and impatient people use it: `--json`, `--keep`, `--undo`, Ctrl-C, and a node that does not start.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fluidos_e2e::command::run;
use fluidos_e2e::lan::Machine;
use fluidos_e2e::node::{binary, kubectl};
use fluidos_e2e::wait::until;
use fluidos_e2e::{claim, http, lan};
use serde_json::Value;

/// A demo that is kept refuses the next one, so these stories come one after the other.
static ONE_BY_ONE: Mutex<()> = Mutex::new(());

/// The demo's turn on this machine; what a failed story left is taken away at its end.
struct Turn(#[allow(dead_code)] MutexGuard<'static, ()>);

impl Turn {
    fn new() -> Self {
        let turn = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!directory().exists(), "{} is there: somebody has kept a demo", directory().display());
        Self(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if directory().exists() {
            let output = demo(&["--undo"]).output().unwrap();
            eprintln!("what was left is taken away: {}", String::from_utf8_lossy(&output.stdout));
        }
    }
}

fn directory() -> PathBuf {
    std::env::temp_dir().join("flt-demo")
}

/// The demo, with the program that is tested: built already, so cargo is not asked again.
fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("demo").args(arguments).env("FLUIDOS_BIN", binary()).stdin(Stdio::null());
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The steps that `--json` printed: one object on standard output, and nothing else there.
fn steps(output: &Output) -> Vec<(String, bool)> {
    let text = stdout(output);
    let printed: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("not one JSON object ({e}): {text}"));
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(&printed), BTreeSet::from(["steps".to_owned()]), "{text}");
    let list = printed["steps"].as_array().unwrap();
    for step in list {
        assert_eq!(keys(step), ["ms", "name", "ok"].map(str::to_owned).into(), "{step}");
        assert!(step["ms"].is_u64(), "{step}");
    }
    list.iter().map(|s| (s["name"].as_str().unwrap().to_owned(), s["ok"].as_bool().unwrap())).collect()
}

/// The instances of the three nodes that run now: what they call their cgroups.
fn instances() -> Vec<String> {
    let found = ["farm", "grid", "cloud"].map(|name| Machine::found("demo", name).instances().unwrap()).concat();
    assert_eq!(found.len(), 3, "one node runs on each machine, and their devices say {found:?}");
    assert!(found.iter().all(|one| !lan::cgroups_of(one).is_empty()), "the cgroups of {found:?} are found");
    found
}

/// Nothing of a demo is on the machine: no namespace, cable, process, mount or file, and no cgroup of these instances.
fn nothing_is_left(instances: &[String]) {
    let mut left = Vec::new();
    left.extend(instances.iter().flat_map(|one| lan::cgroups_of(one)).map(|path| format!("cgroup {}", path.display())));
    let namespaces = run("ip", &["netns", "list"]).unwrap();
    left.extend(namespaces.lines().filter(|l| l.starts_with("flt-demo")).map(|l| format!("namespace {l}")));
    let links = run("ip", &["-o", "link"]).unwrap();
    left.extend(links.lines().filter(|l| l.contains("flt-demo")).map(|l| format!("device {l}")));
    let at = format!("{}/", directory().display()); // the lock beside it stays
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(mounts.lines().filter(|l| l.contains(&at)).map(|l| format!("mount {l}")));
    left.extend(processes(&at).into_iter().map(|l| format!("process {l}")));
    if directory().exists() {
        left.push(directory().display().to_string());
    }
    assert!(left.is_empty(), "of the demo is left:\n{}", left.join("\n"));
}

/// Processes whose command line has `text`.
fn processes(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| {
        let pid = entry.file_name().to_string_lossy().parse::<u32>().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(format!("{pid} {}", String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    lines.filter(|line| line.contains(text)).collect()
}

/// A demo that runs while it is looked at.
fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn json_prints_every_step_and_nothing_else() {
    let _turn = Turn::new();
    let output = demo(&["--json"]).output().unwrap();
    assert!(output.status.success(), "{}: {}\n{}", output.status, stderr(&output), stdout(&output));
    let expected = [
        "start three nodes",
        "discover each other",
        "apply the application",
        "buy capacity",
        "run at the providers",
        "serve the page",
        "survive a dead machine",
        "leave nothing behind",
    ];
    assert_eq!(steps(&output), expected.map(|name| (name.to_owned(), true)));
    nothing_is_left(&[]);
}

#[test]
fn what_is_kept_can_be_looked_at_and_is_taken_away() {
    let _turn = Turn::new();
    let kept = demo(&["--keep"]).output().unwrap();
    let told = stdout(&kept);
    assert!(kept.status.success(), "{}: {}\n{told}", kept.status, stderr(&kept));
    assert!(!told.contains("survive a dead machine"), "it stops when the page is served: {told}");
    assert!(told.contains("cargo xtask demo --undo"), "it says how to take it away: {told}");

    // The lines do what they say when a shell runs them.
    let exports: Vec<&str> = told.lines().filter(|l| l.starts_with("export KUBECONFIG=")).collect();
    assert_eq!(exports.len(), 3, "one line for each node: {told}");
    for (export, name) in exports.iter().zip(["farm", "grid", "cloud"]) {
        let script = format!("{export}\n\"$0\" get nodes -o name");
        let nodes = run("sh", &["-c", &script, &kubectl().display().to_string()]).unwrap();
        assert!(nodes.lines().any(|node| node == format!("node/{name}")), "{export} leads to {nodes:?}");
    }
    let page = told.lines().find_map(|l| l.split_once("the page: http://")).map(|(_, at)| at.trim_end_matches('/'));
    let page = http::get(page.unwrap_or_else(|| panic!("no address of the page in: {told}")));
    assert!(page.as_ref().is_ok_and(|page| page.contains("visitor number")), "the page: {page:?}");

    // It stays until it is taken away.
    let refused = demo(&[]).output().unwrap();
    assert!(
        !refused.status.success() && stderr(&refused).contains("cargo xtask demo --undo"),
        "a second demo beside a kept one: {}: {}",
        refused.status,
        stderr(&refused)
    );
    assert!(!processes(&format!("{}/", directory().display())).is_empty(), "the refused one has ended the kept one");
    let instances = instances();
    let undone = demo(&["--undo"]).output().unwrap();
    assert!(undone.status.success(), "{}: {}{}", undone.status, stdout(&undone), stderr(&undone));
    nothing_is_left(&instances);
    let again = demo(&["--undo"]).output().unwrap();
    assert!(again.status.success() && stdout(&again).contains("nothing to take away"), "{}", stdout(&again));
}

/// Waits until a running demo has applied its application, so that it is in the middle of buying.
fn is_buying(demo: &mut Child) {
    let config = format!("--kubeconfig={}", directory().join("farm/kubeconfig").display());
    let applied = until("the application is applied", Duration::from_secs(60), || match demo.try_wait() {
        Ok(Some(status)) => Ok(Some(status)),
        _ => run(&kubectl().display().to_string(), &[&config, "get", "-n", "shop", "deploy", "db"])
            .map(|_| None)
            .map_err(|error| format!("{error:#}")),
    });
    assert_eq!(applied.unwrap(), None, "the demo ended by itself");
}

#[test]
fn ctrl_c_in_the_middle_of_a_step_leaves_nothing() {
    let _turn = Turn::new();
    // A group of its own, as a shell makes one: Ctrl-C goes to all of it.
    let mut child = spawn(demo(&["--json"]).process_group(0));
    let group = child.id();
    until("the demo has begun", Duration::from_secs(60), || {
        directory().exists().then_some(()).ok_or_else(|| format!("{} is not there", directory().display()))
    })
    .unwrap();
    // Who comes now waits for this one, and does not take its namespaces away.
    let mut second = spawn(&mut demo(&["--undo"]));
    let mut said = String::new();
    BufReader::new(second.stderr.take().unwrap()).read_line(&mut said).unwrap();
    let expected = format!("waiting for process {group}, which has {}", claim::path("demo").display());
    assert_eq!(said.trim_end(), expected, "what a second run says");

    is_buying(&mut child);
    let instances = instances();
    run("kill", &["-INT", "--", &format!("-{group}")]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let steps = steps(&output);
    assert!(steps.last().is_some_and(|(_, ok)| !ok), "the step that was interrupted is not well: {steps:?}");
    let second = second.wait_with_output().unwrap();
    assert!(second.status.success() && stdout(&second).contains("nothing to take away"), "{}", stdout(&second));
    nothing_is_left(&instances);
}

#[test]
fn what_a_killed_demo_leaves_is_taken_away() {
    let _turn = Turn::new();
    let mut child = spawn(&mut demo(&["--json"]));
    is_buying(&mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    let instances = instances();
    let undone = demo(&["--undo"]).output().unwrap();
    assert!(undone.status.success(), "{}: {}{}", undone.status, stdout(&undone), stderr(&undone));
    nothing_is_left(&instances);
}

#[test]
fn a_step_that_fails_is_said_and_leaves_nothing() {
    let _turn = Turn::new();
    // The third node's program ends at once, as on a machine that lacks something; the others are the real one.
    let broken = tempfile::Builder::new().prefix("flt-broken").tempdir().unwrap();
    let program = broken.path().join("fluidos");
    let real = binary();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n  *'--name cloud'*) echo 'fluidos: this machine is broken' >&2; exit 1;;\nesac\nexec {} \"$@\"\n",
        real.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = demo(&["--json"]).env("FLUIDOS_BIN", &program).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(steps(&output), [("start three nodes".to_owned(), false)], "later steps are not tried");
    assert!(stderr(&output).contains("this machine is broken"), "why is said: {}", stderr(&output));
    nothing_is_left(&[]);
}
