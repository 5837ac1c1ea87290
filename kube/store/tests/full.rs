//! A full disk: writes fail with a clear word, and nothing that was acknowledged is lost. On a small file system of its own;
//! needs root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::process::Command;

use bytes::Bytes;
use substrate_store::{Error, Precondition, Store};

struct Small(tempfile::TempDir);

impl Small {
    fn new(mebibytes: u32) -> Self {
        let directory = tempfile::Builder::new().prefix("flt-").tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "flt-store"])
            .arg(directory.path())
            .status()
            .unwrap();
        assert!(mounted.success(), "mount a tmpfs: needs root");
        Self(directory)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(self.0.path()).status();
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_disk_is_full() {
    let small = Small::new(64);
    let directory = small.0.path().join("store");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let acknowledged = runtime.block_on(async {
        let store = Store::open(&directory).unwrap();
        let mut acknowledged = 0;
        let error = loop {
            // Random-looking, so that no compression makes it smaller.
            let value: Vec<u8> =
                (0..500_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ acknowledged as u8).collect();
            match store.put(&format!("/{acknowledged}"), Precondition::Absent, Bytes::from(value)).await {
                Ok(_) => acknowledged += 1,
                Err(error) => break error,
            }
            assert!(acknowledged < 1000, "64 MiB do not hold 500 MB");
        };
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        assert!(error.to_string().contains("is full"), "{error}");
        assert_eq!(store.list("/", None, 0, None).unwrap().entries.len(), acknowledged, "reading goes on");
        // Room is made: writing goes on with no restart.
        std::fs::write(small.0.path().join("ballast"), b"").unwrap();
        let grown = Command::new("mount").args(["-o", "remount,size=256m"]).arg(small.0.path()).status().unwrap();
        assert!(grown.success());
        store.put("/after", Precondition::Absent, "x".into()).await.unwrap();
        acknowledged
    });
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let store = loop {
        match Store::open(&directory) {
            Err(Error::InUse { .. }) if std::time::Instant::now() < until => std::thread::yield_now(),
            other => break other.unwrap(),
        }
    };
    assert_eq!(store.list("/", None, 0, None).unwrap().entries.len(), acknowledged + 1);
}
