//! `cargo xtask demo`: three owners, one continuum, one command.
//!
//! Nodes of three owners start on this machine, each in a network namespace of its own on one bridge that plays the LAN. The
//! demo looks at them as a user does, with kubectl and HTTP; it never reads their inside.
//!
//! Its names are fixed, so that a kept demo can be found: two runs at once wait for each other, and a kept one is refused
//! until it is taken away. `FLUIDOS_BIN` names a program to play with; without it, the one of this tree is built.

pub mod steps;
mod undo;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use fluidos_e2e::claim::Claim;
use fluidos_e2e::wait::INTERRUPTED;
use serde_json::json;

use self::steps::Story;
use crate::machine;

/// Options of the task.
#[derive(clap::Args)]
pub struct Demo {
    /// Stop after the page was served, print how to look around, and leave everything running.
    #[arg(long)]
    keep: bool,
    /// Print only the steps as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Take away what `--keep` left.
    #[arg(long)]
    undo: bool,
}

/// How one step went.
struct Step {
    name: &'static str,
    ms: u128,
    ok: bool,
}

/// What the demo's stage is called.
pub const NAME: &str = "demo";

/// Where everything of the demo is.
pub fn directory() -> PathBuf {
    std::env::temp_dir().join(format!("flt-{NAME}"))
}

impl Demo {
    pub fn run(&self) -> Result<()> {
        ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::SeqCst)).context("cannot wait for Ctrl-C")?;
        // Before anything is looked at: another run may still be taking away what is there.
        let claim = Claim::take(NAME)?;
        if self.undo {
            return undo::run();
        }
        if directory().exists() {
            bail!(
                "{} is there: a demo was kept or was killed; take it away with: cargo xtask demo --undo",
                directory().display()
            );
        }
        self.say(
            "This starts three FLUIDOS nodes on this machine: farm (farm.example), grid (grid.example) and cloud (cloud.example).\n\
             It creates four network namespaces and a bridge (names flt-demo…), one address 192.168.77.254 on a cable to them,\n\
             containers, and files under the directory for temporary files. It needs root. Nothing of it will be left.",
        );
        machine::install(&[])?;
        if std::env::var_os("FLUIDOS_BIN").is_none() {
            machine::quiet("cargo", machine::BUILD)?;
        }
        let mut steps = Vec::new();
        let result = self.play(claim, &mut steps);
        if self.json {
            let list: Vec<_> = steps.iter().map(|s| json!({ "name": s.name, "ms": s.ms, "ok": s.ok })).collect();
            println!("{}", json!({ "steps": list }));
        }
        result
    }

    fn play(&self, claim: Claim, steps: &mut Vec<Step>) -> Result<()> {
        let mut story = Story::new(self.json, claim, &fluidos_e2e::node::binary())?;
        type Part = fn(&mut Story) -> Result<()>;
        let parts: [(&'static str, Part); 8] = [
            ("start three nodes", Story::start),
            ("discover each other", Story::discover),
            ("apply the application", Story::apply),
            ("buy capacity", Story::buy),
            ("run at the providers", Story::look),
            ("serve the page", Story::page),
            ("survive a dead machine", Story::survive),
            ("leave nothing behind", Story::leave),
        ];
        for (name, part) in parts {
            if self.keep && name == "survive a dead machine" {
                let told = story.keep();
                // Standard output is for the steps alone, then.
                if self.json {
                    eprintln!("{told}");
                } else {
                    println!("\n{told}");
                }
                return Ok(());
            }
            if INTERRUPTED.load(Ordering::SeqCst) {
                steps.push(Step { name, ms: 0, ok: false });
                bail!("interrupted before step {name:?}");
            }
            self.say(&format!("\n── {name}"));
            let begun = Instant::now();
            let result = part(&mut story).with_context(|| format!("step {name:?}"));
            let ms = begun.elapsed().as_millis();
            steps.push(Step { name, ms, ok: result.is_ok() });
            result?;
            self.say(&format!("   done in {:.1} s", ms as f64 / 1000.0));
        }
        self.say("\nNothing is left.");
        Ok(())
    }

    fn say(&self, text: &str) {
        if !self.json {
            println!("{text}");
        }
    }
}
