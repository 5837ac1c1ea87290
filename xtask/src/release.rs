//! The release binary, linked small.
//!
//! Generic code is compiled once per type, and much of it comes out as the same instructions: the linker folds those. Nothing
//! unwinds in a release (`panic = "abort"`), so the tables by which a stack is unwound go, too; a panic still says where it was. Seen at
//! 69e019a: 41.2 MiB; folded 39.4; without tables 35.0.
//!
//! Compiled for full RELRO, rustc calls functions of other crates through a table of addresses, in a form that no linker makes direct.
//! Compiled for the partial one and linked with `-z relro -z now`, calls are direct, and the table that is left is as read-only.
//!
//! Functions that an idle node runs stand side by side ([`order`]).
//!
//! All of it is work for `lld`, which comes with the toolchain on x86-64. Elsewhere the binary is linked as it comes, and is larger.

pub mod order;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::machine::{command, output, run, target};

/// Leaves the tables out. It adds to what the linker does by itself.
const SCRIPT: &str = "SECTIONS { /DISCARD/ : { *(.eh_frame) } } INSERT AFTER .text;\n";
/// Set where rustc calls this program as its linker: the file that is told how many functions have a place.
pub const LINKS: &str = "FLUIDOS_XTASK_LINKS";

/// Whether the binary says what its functions are called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Symbols {
    /// It does, for who looks into it.
    Kept,
    /// It does not, and its functions are in order.
    Stripped,
}

/// All of it, with every verb.
pub const NODE: &str = "fluidos";
/// What a machine needs that only joins.
pub const AGENT: &str = "fluidos-agent";

/// Builds a program and returns where it is.
pub fn binary(program: &str, debug: bool) -> Result<PathBuf> {
    if debug {
        run("cargo", crate::machine::BUILD)?;
        return Ok(target().join("debug").join(program));
    }
    link(program, Symbols::Stripped)
}

/// Builds a release program and returns where it is.
fn link(program: &str, symbols: Symbols) -> Result<PathBuf> {
    let mut build: Vec<String> =
        ["rustc", "--locked", "--release", "--package", "fluidos", "--bin", program, "--"].map(str::to_owned).into();
    let report = target().join("order.found");
    let mut command = command("cargo");
    if has_lld()? {
        // Names of the newer mangling say of what type a function is made, which the order of functions needs.
        let flags = "build.rustflags=[\"-Crelro-level=partial\",\"-Csymbol-mangling-version=v0\"]";
        build.insert(1, format!("--config={flags}"));
        let script = target().join("no-unwind-tables.ld");
        std::fs::create_dir_all(target())?;
        std::fs::write(&script, SCRIPT)?;
        build
            .extend(["-C", "link-arg=-fuse-ld=lld", "-C", "link-arg=-Wl,--icf=all,-z,relro,-z,now"].map(str::to_owned));
        build.extend(["-C", "link-arg=-Wl,--no-eh-frame-hdr", "-C"].map(str::to_owned));
        build.push(format!("link-arg=-Wl,-T,{}", script.display()));
        match symbols {
            Symbols::Kept => build.extend(["-C", "strip=none"].map(str::to_owned)),
            Symbols::Stripped => {
                // A list that has changed is another program to cargo.
                build.push(format!("--cfg=order=\"{}\"", order::list_digest()?));
                let this = std::env::current_exe().context("this program")?;
                build.extend(["-C".into(), format!("linker={}", this.display())]);
                command.env(LINKS, &report);
            }
        }
    }
    println!("\n$ cargo {}", build.join(" "));
    let status = command.args(&build).status().context("cargo")?;
    ensure!(status.success(), "cargo {}: {status}", build.join(" "));
    // The list is of both, and the agent has half of its functions.
    if symbols == Symbols::Stripped && program == NODE {
        tell(&std::fs::read_to_string(&report).unwrap_or_default());
    }
    Ok(target().join("release").join(program))
}

/// Says how many functions are in order: a list that was made for another program orders little, and nothing else shows it.
fn tell(report: &str) {
    let numbers = report.split_once(' ').map(|(found, missing)| (found.parse::<u32>(), missing.parse::<u32>()));
    match numbers {
        Some((Ok(found), Ok(missing))) => {
            println!(
                "{found} functions are in the order in which an idle node runs them; {missing} of the list are no more"
            );
            if missing > found / 4 {
                println!("the list is old, and an idle node takes more memory than it could: cargo xtask order");
            }
        }
        _ => println!("functions are in no order: an idle node takes twice the memory that it could"),
    }
}

/// Whether the toolchain brings `lld`, and links with it of itself.
fn has_lld() -> Result<bool> {
    let sysroot = output("rustc", &["--print", "sysroot"])?;
    let here = PathBuf::from(sysroot.trim()).join("lib/rustlib/x86_64-unknown-linux-gnu/bin/gcc-ld/ld.lld");
    Ok(cfg!(target_arch = "x86_64") && here.exists())
}
