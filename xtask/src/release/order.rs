//! The order of functions: those that an idle node and an agent with pods that do nothing run stand side by side in the binary.
//!
//! The kernel maps a program's pages 64 KiB at a time around what runs. Where the functions of an idle node are strewn over 33 MiB of
//! text, nearly all of it is mapped; where they stand together, their 4 MiB are. An agent runs a part of them, and what its pods need.
//!
//! ```text
//!  cargo xtask order:  a node, then an agent with pods, under callgrind ─▶ what ran while idle: in both, in one ─▶ what ran before ─▶ order.txt
//!  cargo xtask dist:   rustc ─▶ xtask as the linker ─▶ symbols whose names are in order.txt ─▶ lld --symbol-ordering-file
//! ```
//! A name is demangled without the hashes of crates, which are others with each toolchain, and the list has 32 bits of its digest:
//! two names in a hundred thousand that share one cost a function in the wrong place.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fluidos_e2e::images::Image;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;

use crate::bench::main_job::Watch;
use crate::bench::pods;
use crate::machine::{VALGRIND, install, output, root, target};

/// Until what starts has settled, also under callgrind, which is some fifty times slower.
const SETTLED: Duration = Duration::from_secs(90);
/// How long the node is idle: longer than all that it does once a minute.
const IDLE: Duration = Duration::from_secs(200);

/// What an agent of row 10 has.
const PODS: usize = 10;

/// The list, beside the code.
fn path() -> PathBuf {
    root().join("xtask/src/release/order.txt")
}

/// The digest of the list itself.
///
/// # Errors
/// The list is not there.
pub fn list_digest() -> Result<u32> {
    Ok(fnv(&std::fs::read_to_string(path()).with_context(|| path().display().to_string())?))
}

/// The digest of a symbol's name.
fn digest(symbol: &str) -> u32 {
    fnv(&format!("{:#}", rustc_demangle::demangle(symbol)))
}

/// FNV-1a, which is the same everywhere and always.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |digest, byte| (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Returns those of these symbols that have a place, in order, and how many places nobody has.
///
/// # Errors
/// The list is not there or not one.
pub fn sort(symbols: &HashSet<String>) -> Result<(Vec<&str>, usize)> {
    let text = std::fs::read_to_string(path()).with_context(|| path().display().to_string())?;
    let list = text.lines().map(|line| u32::from_str_radix(line, 16)).collect::<Result<Vec<_>, _>>();
    Ok(place(symbols, &list.context("order.txt: a line is no number of eight hexadecimal digits")?))
}

fn place<'a>(symbols: &'a HashSet<String>, list: &[u32]) -> (Vec<&'a str>, usize) {
    let mut by_digest: HashMap<u32, Vec<&str>> = HashMap::new();
    for symbol in symbols {
        by_digest.entry(digest(symbol)).or_default().push(symbol);
    }
    let (mut sorted, mut missing) = (Vec::new(), 0);
    for digest in list {
        match by_digest.get_mut(digest) {
            Some(found) => {
                found.sort_unstable();
                sorted.append(found);
            }
            None => missing += 1,
        }
    }
    (sorted, missing)
}

/// `cargo xtask order`: makes the list anew.
pub fn make() -> Result<()> {
    install(&[VALGRIND])?;
    let binary = super::link(super::NODE, super::Symbols::Kept)?;
    let watched = Watched::new(&binary)?;
    let mut stage = Stage::new("ordr")?;

    stage.play(&watched.script);
    let node = watched.phases("a node", || stage.start("order", &[]))?;

    // Who runs it is no matter, and so not watched.
    stage.play(&binary);
    let server = stage.setup("farm", &["--no-mdns", "--no-agent", "--api", "0.0.0.0:6443"])?.start()?;
    let invitation = server.setup.fluidos(&["invite", "--agent"])?;
    ensure!(invitation.status.success(), "{}", String::from_utf8_lossy(&invitation.stderr));
    let invitation = String::from_utf8(invitation.stdout)?;
    // valgrind 3.19 does not know the call by which a layer is unpacked (openat2): pods are there before.
    let agent = stage.setup("shed", &[])?.join(Some(invitation.trim()))?;
    agent.setup.load(&Image::Busybox.layout()?)?;
    let watch = Watch::open(&server)?;
    pods::deploy(&server, "quiet", "shed", PODS)?;
    watch.ready("quiet-", PODS)?;
    let mut shed = agent.terminate()?;
    shed.program.clone_from(&watched.script);
    let agent = watched.phases("an agent", || shed.join(None))?;
    server.terminate()?;

    let list = order(&node, &agent);
    ensure!(list.len() > 1000, "{} functions ran: callgrind saw no symbols", list.len());
    let lines: String = list.iter().map(|digest| format!("{digest:08x}\n")).collect();
    std::fs::write(path(), lines)?;
    let (of_node, of_agent) = (node.idle.len(), agent.idle.len());
    println!(
        "{}: {of_node} functions of an idle node, {of_agent} of an idle agent, {} altogether",
        path().display(),
        list.len()
    );
    Ok(())
}

/// The functions that ran.
struct Ran {
    begun: Vec<u32>,
    idle: Vec<u32>,
}

/// What an agent alone runs, what both run, what a node alone runs: whichever it is, its own stand side by side.
fn order(node: &Ran, agent: &Ran) -> Vec<u32> {
    let (of_node, of_agent): (HashSet<u32>, HashSet<u32>) =
        (node.idle.iter().copied().collect(), agent.idle.iter().copied().collect());
    let both = node.idle.iter().filter(|function| of_agent.contains(function));
    let node_alone = node.idle.iter().filter(|function| !of_agent.contains(function));
    let agent_alone = agent.idle.iter().filter(|function| !of_node.contains(function));
    let mut seen = HashSet::new();
    let all = agent_alone.chain(both).chain(node_alone).chain(&node.begun).chain(&agent.begun);
    all.copied().filter(|function| seen.insert(*function)).collect()
}

/// A program whose `up` and `join` run under callgrind.
struct Watched {
    script: PathBuf,
    out: PathBuf,
    ours: HashSet<String>,
}

impl Watched {
    fn new(binary: &Path) -> Result<Self> {
        let ours = symbols(&[&binary.display().to_string()])?;
        let directory = target().join("order");
        std::fs::create_dir_all(&directory)?;
        let (out, script) = (directory.join("callgrind.out"), directory.join("fluidos"));
        let callgrind = format!(
            "valgrind --tool=callgrind --demangle=no --compress-strings=no --compress-pos=no --callgrind-out-file={}.%p",
            out.display()
        );
        let run = binary.display();
        let text = format!(
            "#!/bin/sh\ncase \"$1\" in up | join) exec {callgrind} {run} \"$@\" ;; *) exec {run} \"$@\" ;; esac\n"
        );
        std::fs::write(&script, text)?;
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(Self { script, out, ours })
    }

    /// Starts it, and lets it be idle.
    fn phases(&self, what: &str, start: impl FnOnce() -> Result<Node>) -> Result<Ran> {
        println!("{what} starts under callgrind: {} s", SETTLED.as_secs());
        let node = start()?;
        let phase = |number: u32, lasts: Duration| -> Result<Vec<u32>> {
            std::thread::sleep(lasts);
            let pid = node.pid();
            output("callgrind_control", &["--dump", &pid.to_string()])?;
            let names = ran(&PathBuf::from(format!("{}.{pid}.{number}", self.out.display())), &self.ours)?;
            Ok(names.iter().map(|name| digest(name)).collect())
        };
        let begun = phase(1, SETTLED)?;
        println!("it is idle: {} s", IDLE.as_secs());
        let idle = phase(2, IDLE)?;
        node.terminate()?;
        Ok(Ran { begun, idle })
    }
}

/// Which of these functions ran, by what callgrind wrote.
fn ran(file: &Path, ours: &HashSet<String>) -> Result<Vec<String>> {
    // It is there when the command returns, but may not be whole.
    std::thread::sleep(Duration::from_secs(5));
    let text = std::fs::read(file).with_context(|| file.display().to_string())?;
    Ok(functions(&String::from_utf8_lossy(&text), ours))
}

/// Those of the C library and of the loader are not ours to order; those of `ring`, which are no Rust, are.
fn functions(text: &str, ours: &HashSet<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    let names = text.lines().filter_map(|line| line.strip_prefix("fn=")).map(|name| {
        // A function that calls itself is told as `name'2`.
        name.split('\'').next().unwrap_or(name)
    });
    names.filter(|name| ours.contains(*name) && seen.insert(*name)).map(str::to_owned).collect()
}

/// The functions of programs, objects and libraries.
fn symbols(files: &[&str]) -> Result<HashSet<String>> {
    let told = output("nm", &[&["--defined-only", "--format=posix"], files].concat())?;
    let function = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        rest.starts_with(['t', 'T', 'w', 'W']).then(|| name.to_owned())
    };
    Ok(told.lines().filter_map(function).collect())
}

/// The linker that rustc calls: links with the functions in order, and says in `FILE` how many have a place.
///
/// # Errors
/// The linker behind it fails.
pub fn link_in_order(arguments: &[String], report: &Path) -> Result<()> {
    let objects = arguments.iter().filter(|argument| {
        let path = Path::new(argument);
        path.extension().is_some_and(|end| end == "o" || end == "rlib") && path.is_file()
    });
    let symbols = symbols(&objects.map(String::as_str).collect::<Vec<_>>())?;
    let (sorted, missing) = sort(&symbols)?;
    let file = target().join("order.symbols");
    std::fs::write(&file, sorted.join("\n"))?;
    std::fs::write(report, format!("{} {missing}", sorted.len()))?;
    let status = Command::new("cc")
        .args(arguments)
        .arg(format!("-Wl,--symbol-ordering-file={}", file.display()))
        .arg("-Wl,--no-warn-symbol-ordering")
        // What stands where, for who looks at which pages a node has mapped.
        .arg(format!("-Wl,-Map={}", target().join("order.map").display()))
        .status()
        .context("cc")?;
    ensure!(status.success(), "cc: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    const LEGACY: &str = "_ZN4core3ptr9drop_this17h0123456789abcdefE";
    const OTHER_HASH: &str = "_ZN4core3ptr9drop_this17hfedcba9876543210E.llvm.123456";
    const V0: &str = "_RNvCs9ltgdHTiPiY_5crate4main";
    const V0_OTHER_HASH: &str = "_RNvCsaaaaaaaaaaa_5crate4main";

    #[test]
    fn a_name_is_the_same_whatever_compiler_made_it() {
        assert_eq!(digest(LEGACY), digest(OTHER_HASH));
        assert_eq!(digest(V0), digest(V0_OTHER_HASH));
        assert_ne!(digest(LEGACY), digest(V0));
    }

    #[test]
    fn symbols_come_in_the_order_of_the_list_and_what_is_gone_is_counted() {
        let symbols = HashSet::from([LEGACY, V0, "_RNvCs0_5crate5other"].map(str::to_owned));
        let (sorted, missing) = place(&symbols, &[digest(V0), 1, digest(LEGACY)]);
        assert_eq!((sorted, missing), (vec![V0, LEGACY], 1));
    }

    #[test]
    fn what_both_run_stands_between_what_one_runs() {
        let (node, agent) =
            (Ran { begun: vec![1, 2, 9], idle: vec![2, 3, 4] }, Ran { begun: vec![3, 8], idle: vec![5, 4] });
        assert_eq!(order(&node, &agent), [5, 4, 2, 3, 1, 9, 8]);
    }

    #[test]
    fn functions_are_read_from_what_callgrind_writes() {
        let ours = HashSet::from([LEGACY, V0, "ring_asm", "idle"].map(str::to_owned));
        let text = format!("fl=???\nfn={V0}\n0 12\ncfn={LEGACY}\nfn={V0}'2\nfn=malloc\nfn={LEGACY}\nfn=ring_asm\n");
        assert_eq!(functions(&text, &ours), [V0, LEGACY, "ring_asm"]);
    }
}
