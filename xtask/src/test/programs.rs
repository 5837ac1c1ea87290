//! **Test programs** in two streams beside each other: stories, which mostly wait for machines, and all others, which mostly compute.
//!
//! ```text
//! cargo test --no-run ──▶ programs ──┬─ stories (e2e) ───┐
//!                                    └─ all the others ──┴──▶ which have failed
//! ```
//!
//! A stream runs one program after another. What a program says is shown when it has ended, so that the two do not talk into each other.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::machine::{command, path, root, target};

/// The longest program, the market's, takes some ten minutes on two cores; one that is not back by then hangs, and is ended with what it has said.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// How often is looked whether a program has ended: little beside what one takes.
const LOOK: Duration = Duration::from_millis(20);

/// Of a program that has failed so many panics are said again at the end, each with so many lines of so many characters: who reads only that sees why.
const REASONS: (usize, usize, usize) = (8, 4, 400);

/// A test program as cargo has built it.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    /// As `--package` and `--test`, `--bin` or `--lib` name it.
    name: String,
    /// Where its package is: there it runs, as with `cargo test`.
    directory: PathBuf,
    executable: PathBuf,
}

impl Program {
    /// What a message of cargo tells of, unless it is something else.
    fn of(message: &Value) -> Option<Self> {
        let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
        let executable = message["executable"].as_str().filter(|_| is_test)?;
        let directory = Path::new(message["manifest_path"].as_str()?).parent()?;
        let (target, package) = (&message["target"], directory.strip_prefix(root()).unwrap_or(directory));
        let kind = match target["kind"][0].as_str()? {
            "lib" => "--lib".to_owned(),
            kind => format!("--{kind} {}", target["name"].as_str()?),
        };
        let name = format!("{} {kind}", package.display());
        Some(Self { name, directory: directory.to_owned(), executable: executable.into() })
    }

    fn is_story(&self) -> bool {
        self.directory.ends_with("e2e")
    }

    /// Runs it, and returns whether it has succeeded and what it has said.
    ///
    /// # Errors
    /// When it cannot be run.
    fn run(&self, log: &Path) -> Result<(bool, String)> {
        let to = File::create(log).with_context(|| log.display().to_string())?;
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.directory).env("PATH", path()).env("CARGO_MANIFEST_DIR", &self.directory);
        command.stdin(Stdio::null()).stdout(to.try_clone()?).stderr(to);
        let mut child = command.spawn().with_context(|| self.executable.display().to_string())?;
        let begun = Instant::now();
        let mut ended = child.try_wait()?;
        while ended.is_none() && begun.elapsed() < LIMIT {
            std::thread::sleep(LOOK);
            ended = child.try_wait()?;
        }
        if ended.is_none() {
            child.kill()?;
            child.wait()?;
        }
        let said = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
        Ok(match ended {
            Some(status) => {
                (status.success(), format!("{said}{}\n", if status.success() { "" } else { "it has failed" }))
            }
            None => (false, format!("{said}ended: it was not back after {} minutes\n", LIMIT.as_secs() / 60)),
        })
    }
}

/// What there is to run.
#[derive(Debug)]
pub struct Built {
    /// The binary that stories run. It is built with them, as everything that a story uses would be built twice if it were not.
    pub binary: PathBuf,
    stories: Vec<Program>,
    others: Vec<Program>,
}

/// Builds all test programs of the workspace.
///
/// # Errors
/// When one does not build.
pub fn build(features: &str) -> Result<Built> {
    println!("\n$ cargo test --workspace --features {features} --locked --no-run");
    let mut command = command("cargo");
    command.args(["test", "--workspace", "--features", features, "--locked", "--no-run"]);
    command.arg("--message-format=json-render-diagnostics");
    let output = command.stderr(Stdio::inherit()).output().context("cargo test --no-run")?;
    if !output.status.success() {
        bail!("cargo test --no-run: {}", output.status);
    }
    let messages = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let messages = messages.map(|line| serde_json::from_slice(line).context("a message of cargo"));
    let messages: Vec<Value> = messages.collect::<Result<_>>()?;
    let (stories, others) = messages.iter().filter_map(Program::of).partition(Program::is_story);
    let is_binary = |m: &&Value| m["target"]["name"] == "fluidos" && m["profile"]["test"] == false;
    let binary = messages.iter().filter(is_binary).find_map(|message| message["executable"].as_str());
    Ok(Built { binary: binary.context("cargo has built no program fluidos")?.into(), stories, others })
}

impl Built {
    /// Runs them, and what computes, too, while there are stories left.
    ///
    /// # Errors
    /// With the names of those that have failed, or what `then` says.
    pub fn run(&self, then: impl FnOnce() -> Result<()>) -> Result<()> {
        let logs = target().join("test-logs");
        std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        let failed = Mutex::new(Vec::new());
        let stream = |label: &str, programs: &[Program]| -> Result<()> {
            for program in programs {
                let begun = Instant::now();
                let (succeeded, said) = program.run(&logs.join(label))?;
                let mut failed = failed.lock().map_err(|_| anyhow!("the other stream has panicked"))?;
                println!("     Running {} ({:.1} s)\n{said}", program.name, begun.elapsed().as_secs_f64());
                if !succeeded {
                    failed.push(format!("{}\n{}", program.name, reasons(&said)));
                }
            }
            Ok(())
        };
        let outcome = std::thread::scope(|scope| {
            let beside = scope.spawn(|| stream("stories", &self.stories));
            let here = stream("others", &self.others).map(|()| then());
            beside.join().map_err(|_| anyhow!("the stream of stories has panicked"))??;
            here
        })?;
        let failed = failed.into_inner().map_err(|_| anyhow!("a stream has panicked"))?;
        let count = self.stories.len() + self.others.len();
        if !failed.is_empty() {
            bail!("{} of {count} test programs have failed:\n{}", failed.len(), failed.join("\n"));
        }
        println!("{count} test programs have passed");
        outcome
    }
}

/// Why a program has failed: the first of its panics, or its last lines if it has none.
fn reasons(said: &str) -> String {
    let (panics, lines, characters) = REASONS;
    let all: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    let found = all.iter().enumerate().filter(|(_, line)| line.contains("panicked at")).map(|(at, _)| at).take(panics);
    let found: Vec<usize> = found.collect();
    let shown = match found.is_empty() {
        true => all[all.len().saturating_sub(lines)..].to_vec(),
        false => found.iter().flat_map(|at| all.iter().skip(*at).take(lines)).copied().collect(),
    };
    let cut = |line: &str| format!("    {}\n", line.chars().take(characters).collect::<String>());
    shown.into_iter().map(cut).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn programs_are_what_cargo_says_it_has_built_to_test() {
        let message = |reason: &str, test: bool| {
            let manifest = root().join("e2e/Cargo.toml");
            serde_json::json!({
                "reason": reason, "manifest_path": manifest, "executable": "/deps/pods-0", "profile": {"test": test},
                "target": {"name": "pods", "kind": ["test"]},
            })
        };
        let program = Program::of(&message("compiler-artifact", true)).unwrap();
        assert_eq!((program.name.as_str(), program.is_story()), ("e2e --test pods", true));
        assert_eq!(Program::of(&message("compiler-artifact", false)), None, "a binary of the same name");
        assert_eq!(Program::of(&message("build-finished", true)), None);
    }

    #[test]
    fn a_program_that_fails_is_told_with_what_it_said() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let of = |executable: &str| Program {
            name: "x".into(),
            directory: directory.path().into(),
            executable: executable.into(),
        };
        assert_eq!(of("/bin/true").run(&log).unwrap(), (true, "\n".to_owned()));
        let script = directory.path().join("says");
        std::fs::write(&script, "#!/bin/sh\necho out; echo wrong >&2; exit 3\n").unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (succeeded, said) = of(script.to_str().unwrap()).run(&log).unwrap();
        assert!(!succeeded && said.starts_with("out\nwrong\n"), "{said}");
        assert_eq!(reasons(&said), "    out\n    wrong\n    it has failed\n");
        let panics = "test a ... ok\n\nthread 'b' panicked at b.rs:1:2:\nb: not within 3 s\nc\nd\ne\n";
        assert_eq!(reasons(panics), "    thread 'b' panicked at b.rs:1:2:\n    b: not within 3 s\n    c\n    d\n");
        assert!(of("/no/such").run(&log).unwrap_err().to_string().contains("/no/such"));
    }
}
