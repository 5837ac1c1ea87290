//! The commands of the guides that need no node, run as they are written.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::process::Command;

/// Runs the commands of a guide; all that they said.
fn walk(guide: &str, blocks_min: usize) -> String {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides").join(guide);
    let text = std::fs::read_to_string(guide).unwrap();
    let blocks: Vec<&str> = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= blocks_min);
    let directory = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_fluidos"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        // `! command` does not end a script with -e; what must fail is seen by this.
        .args(["-c", &format!("set -euo pipefail\n{}", blocks.join("\n").replace("\n! ", "\nmust_fail "))])
        .env("PATH", path)
        .env("BASH_ENV", must_fail(directory.path()))
        .current_dir(directory.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    told
}

#[test]
fn backup() {
    let told = walk("backup.md", 3);
    for expected in [
        "farm.tar: revision ",
        "whoever has it is the node",
        "store.snapshot\n",
        "identity/node.key\n",
        "is not empty, and nothing in it is overwritten",
        "Start it with fluidos up; never both it and the old one.",
    ] {
        assert!(told.contains(expected), "{expected:?} is not in:\n{told}");
    }
}

#[test]
fn identity() {
    let told = walk("identity.md", 6);
    for expected in [
        "fingerprint  ",
        "credential   owner.jwt: NodeOwnership: domain=farm.example by did:key:z6Mk",
        "✓ signature  of did:key:z6Mk",
        "✓ status     not revoked",
        "✗ status     whether it was revoked is not known: its status list https://farm.example/revoked.jwt is needed",
        "✓ domain     did:web:farm.example names the issuer",
        "\"certification\": \"ISO 27001\"",
        "certifier.jwt: Feature: certification=ISO 27001, region=EU by did:key:z6Mk",
        ": status list https://farm.example/revoked.jwt of did:key:z6Mk",
        "revoked.jwt: 1 revoked, 1 of them now",
        "✗ status     revoked by its issuer: bit 0 of https://farm.example/revoked.jwt is set",
        "it does not count: status",
        "revoked.jwt: 1 revoked, 0 of them now",
        " handed over to did:key:z6Mk",
        "before       did:key:z6Mk",
        "current did:key:z6Mk",
        ": machine stolen",
    ] {
        assert!(told.contains(expected), "{expected:?} is not in:\n{told}");
    }
}

/// Writes the function that succeeds if its command fails.
fn must_fail(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("must_fail.sh");
    std::fs::write(&path, "must_fail() { if \"$@\"; then echo \"should have failed: $*\"; exit 9; fi; }\n").unwrap();
    path
}
