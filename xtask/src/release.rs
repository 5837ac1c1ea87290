//! The release binary, linked small.
//!
//! Generic code is compiled once per type, and much of it comes out as the same instructions: the linker folds those. Nothing
//! unwinds in a release (`panic = "abort"`), so the tables by which a stack is unwound go, too; a panic still says where it was. Seen at
//! 69e019a: 41.2 MiB; folded 39.4; without tables 35.0.
//!
//! Compiled for full RELRO, rustc calls functions of other crates through a table of addresses, in a form that no linker makes direct.
//! Compiled for the partial one and linked with `-z relro -z now`, calls are direct, and the table that is left is as read-only.
//!
//! Both are work for `lld`, which comes with the toolchain on x86-64. Elsewhere the binary is linked as it comes, and is larger.

use std::path::PathBuf;

use anyhow::Result;

use crate::machine::{output, run, target};

/// Leaves the tables out. It adds to what the linker does by itself.
const SCRIPT: &str = "SECTIONS { /DISCARD/ : { *(.eh_frame) } } INSERT AFTER .text;\n";

/// Builds the binary and returns where it is.
pub fn binary(debug: bool) -> Result<PathBuf> {
    if debug {
        run("cargo", &["build", "--locked", "--package", "fluidos"])?;
        return Ok(target().join("debug/fluidos"));
    }
    let mut build: Vec<String> =
        ["rustc", "--locked", "--release", "--package", "fluidos", "--bin", "fluidos", "--"].map(str::to_owned).into();
    if has_lld()? {
        build.insert(1, "--config=build.rustflags=[\"-Crelro-level=partial\"]".into());
        let script = target().join("no-unwind-tables.ld");
        std::fs::create_dir_all(target())?;
        std::fs::write(&script, SCRIPT)?;
        build
            .extend(["-C", "link-arg=-fuse-ld=lld", "-C", "link-arg=-Wl,--icf=all,-z,relro,-z,now"].map(str::to_owned));
        build.extend(["-C", "link-arg=-Wl,--no-eh-frame-hdr", "-C"].map(str::to_owned));
        build.push(format!("link-arg=-Wl,-T,{}", script.display()));
    }
    run("cargo", &build.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(target().join("release/fluidos"))
}

/// Whether the toolchain brings `lld`, and links with it of itself.
fn has_lld() -> Result<bool> {
    let sysroot = output("rustc", &["--print", "sysroot"])?;
    let here = PathBuf::from(sysroot.trim()).join("lib/rustlib/x86_64-unknown-linux-gnu/bin/gcc-ld/ld.lld");
    Ok(cfg!(target_arch = "x86_64") && here.exists())
}
