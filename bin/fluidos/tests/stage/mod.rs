//! An owner, a stranger and a node that has not started, in a directory of their own.
#![allow(dead_code)] // each test file uses a part

pub mod node;

use std::path::Path;
use std::process::Command;

/// Runs the binary; its standard output, or all that it said.
pub fn fluidos(directory: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluidos"));
    let output = command.args(arguments).current_dir(directory).env_remove("FLUIDOS_DATA_DIR").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stdout) + &text(output.stderr)) }
}

/// What a test of these verbs begins with: `owner.key`, `stranger.key`, and `node`.
pub struct Stage {
    pub directory: tempfile::TempDir,
    pub owner: String,
    pub node: String,
}

impl Stage {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let new = |arguments: &[&str]| fluidos(directory.path(), arguments).unwrap().trim().to_owned();
        let owner = new(&["identity", "new", "--out", "owner.key"]);
        new(&["identity", "new", "--out", "stranger.key"]);
        let node = new(&["identity", "new", "--data-dir", "node"]);
        Self { directory, owner, node }
    }

    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        fluidos(self.directory.path(), arguments)
    }

    pub fn issue(&self, key: &str, more: &[&str]) -> Result<String, String> {
        let common = ["credential", "issue", "--key", key, "--subject", &self.node, "--type", "NodeOwnership"];
        self.run(&[&common[..], more].concat())
    }

    pub fn refused(&self, arguments: &[&str], needed: &str) {
        let told = self.run(arguments).expect_err(&format!("{arguments:?} should be refused"));
        assert!(told.contains(needed), "{needed:?} is not in: {told}");
    }
}
