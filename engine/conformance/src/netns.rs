//! Network namespaces of tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A namespace with an address on `eth0`, which is gone with it.
pub struct Netns(String);

impl Netns {
    /// The address that it has.
    pub const ADDRESS: &str = "10.199.7.8/32";

    /// Makes one.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("flt-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let ip = |words: &[&str]| assert!(Command::new("ip").args(words).status().unwrap().success(), "{words:?}");
        let _ = Command::new("ip").args(["netns", "del", &name]).output(); // of a run that was killed
        ip(&["netns", "add", &name]);
        let netns = Self(name);
        ip(&["-n", &netns.0, "link", "set", "lo", "up"]);
        ip(&["-n", &netns.0, "link", "add", "eth0", "type", "veth", "peer", "name", "other"]);
        ip(&["-n", &netns.0, "addr", "add", Self::ADDRESS, "dev", "eth0"]);
        netns
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }
}

impl Default for Netns {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}
